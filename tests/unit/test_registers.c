/* SPDX-License-Identifier: MIT */
/*
 * How many registers the table knows, exactly, for each architecture and kind of processor: a row
 * that gets lost, or one too many, would otherwise show in no comparison.
 */
#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "arch/regs.h"
#include "tests/unit/suite.h"

#define XCR0_AT 464 /* in an XSAVE area: software bytes of FXSAVE */

static struct tf_arena arena;

struct seen {
	const char *name[160];
	unsigned n, klass[TF_REG_CLASSES], bytes;
};

static int see(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct seen *s = ctx;

	(void)value;
	for (unsigned i = 0; i < s->n; i++)
		ck_assert_str_ne(s->name[i], reg->name);
	s->name[s->n++] = reg->name;
	s->klass[reg->klass]++;
	if (reg->klass != TF_REG_SYSTEM)
		s->bytes += reg->size;
	return 0;
}

static uint8_t *add(struct tf_regs *regs, uint32_t type, uint32_t size)
{
	struct tf_regset *set = tf_regs_add(regs, &arena, type, size);

	ck_assert_ptr_nonnull(set);
	return set->data;
}

/* The registers of an x86_64 with these components. */
static struct seen x86_64(uint64_t xcr0, unsigned expected)
{
	/* As AMD lays them out (CPUID 0xD). */
	static const uint32_t at[] = {0, 0, 576, 0, 0, 832, 896, 1408, 0, 2432};
	static const uint32_t size[] = {0, 0, 256, 0, 0, 64, 512, 1024, 0, 8};
	struct tf_cpu cpu = {.xcr0 = xcr0, .xsave_size = 2440};
	struct tf_regs regs = {0};
	struct seen seen = {0};

	for (unsigned i = 2; i < 10; i++) {
		if (!(xcr0 >> i & 1))
			continue;
		cpu.xcomp[i].offset = at[i];
		cpu.xcomp[i].size = size[i];
	}
	add(&regs, NT_PRSTATUS, tf_arch_x86_64.prstatus_gregs);
	add(&regs, NT_FPREGSET, 512);
	if (xcr0)
		memcpy(add(&regs, NT_X86_XSTATE, cpu.xsave_size) + XCR0_AT, &xcr0, 8);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_x86_64, &regs, &cpu), expected);
	tf_arch_x86_64.each(&regs, &cpu, see, &seen);
	return seen;
}

START_TEST(x86_64_counts)
{
	struct seen s = x86_64(0, 20 + 12 + 16);

	ck_assert_uint_eq(s.klass[TF_REG_GENERAL], 16);
	ck_assert_uint_eq(s.klass[TF_REG_PC], 1);
	ck_assert_uint_eq(s.klass[TF_REG_FLAGS], 1);
	ck_assert_uint_eq(s.klass[TF_REG_THREAD], 2);
	ck_assert_uint_eq(s.klass[TF_REG_FPCONTROL], 4);
	ck_assert_uint_eq(s.klass[TF_REG_X87], 8);
	ck_assert_uint_eq(s.klass[TF_REG_VECTOR], 16);
	ck_assert_uint_eq(s.bytes, 20 * 8 + 2 + 2 + 1 + 4 + 8 * 10 + 16 * 16);
	s = x86_64(0x7, 48); /* AVX2 */
	ck_assert_uint_eq(s.bytes, 20 * 8 + 2 + 2 + 1 + 4 + 8 * 10 + 16 * 32);
	s = x86_64(0x207, 49); /* and PKRU */
	ck_assert_uint_eq(s.klass[TF_REG_PKRU], 1);
	s = x86_64(0xe7, 72); /* AVX-512 */
	ck_assert_uint_eq(s.klass[TF_REG_VECTOR], 32);
	ck_assert_uint_eq(s.klass[TF_REG_PREDICATE], 8);
	s = x86_64(0x2e7, 73); /* and PKRU */
	ck_assert_uint_eq(s.bytes, 20 * 8 + 2 + 2 + 1 + 4 + 8 * 10 + 32 * 64 + 8 * 8 + 4);
}
END_TEST

static uint32_t up16(uint32_t n)
{
	return (n + 15) & ~15u;
}

/* The registers of an aarch64 with vectors of vl bytes (0: no SVE), with or without PAC keys. */
static struct seen aarch64(uint32_t vl, bool pac, unsigned expected)
{
	const uint32_t size = 16 + up16(up16(32 * vl + 17 * (vl / 8)) + 8);
	const uint16_t header[] = {
		(uint16_t)size, 0, (uint16_t)size, 0, (uint16_t)vl, (uint16_t)vl, 1};
	struct tf_cpu cpu = {.vl = vl};
	struct tf_regs regs = {0};
	struct seen seen = {0};

	add(&regs, NT_PRSTATUS, tf_arch_aarch64.prstatus_gregs);
	add(&regs, NT_FPREGSET, 528);
	add(&regs, NT_ARM_TLS, 8);
	if (vl)
		memcpy(add(&regs, NT_ARM_SVE, size), header, sizeof(header));
	if (pac) {
		add(&regs, NT_ARM_PACA_KEYS, 64);
		add(&regs, NT_ARM_PACG_KEYS, 16);
	}
	ck_assert_uint_eq(tf_regs_count(&tf_arch_aarch64, &regs, &cpu), expected);
	tf_arch_aarch64.each(&regs, &cpu, see, &seen);
	return seen;
}

START_TEST(aarch64_counts)
{
	static const uint32_t lengths[] = {16, 32, 64, 128, 256};
	struct seen s = aarch64(0, false, 34 + 1 + 2 + 32);

	ck_assert_uint_eq(s.klass[TF_REG_GENERAL], 32); /* x0-x30, sp */
	ck_assert_uint_eq(s.klass[TF_REG_PC], 1);
	ck_assert_uint_eq(s.klass[TF_REG_FLAGS], 1);
	ck_assert_uint_eq(s.klass[TF_REG_THREAD], 1);
	ck_assert_uint_eq(s.klass[TF_REG_FPCONTROL], 2);
	ck_assert_uint_eq(s.klass[TF_REG_VECTOR], 32);
	ck_assert_uint_eq(s.bytes, 33 * 8 + 4 + 8 + 8 + 32 * 16);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		uint32_t vl = lengths[i];

		s = aarch64(vl, false, 86);
		ck_assert_uint_eq(s.klass[TF_REG_VECTOR], 32);
		ck_assert_uint_eq(s.klass[TF_REG_PREDICATE], 17);
		ck_assert_uint_eq(s.bytes, 33 * 8 + 4 + 8 + 8 + 32 * vl + 17 * vl / 8);
	}
	s = aarch64(64, true, 86 + 5);
	ck_assert_uint_eq(s.klass[TF_REG_PAC], 5);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("registers");
	TCase *tc = tcase_create("counts");

	tcase_set_timeout(tc, SUITE_LIMIT_S);
	if (tf_arena_init(&arena, 1 << 20))
		return 2;
	tcase_add_test(tc, x86_64_counts);
	tcase_add_test(tc, aarch64_counts);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
