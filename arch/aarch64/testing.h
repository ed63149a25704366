/* SPDX-License-Identifier: MIT */
/*
 * aarch64 for tests/unit/test_arch.c only: every register seeded, a signal taken there, every
 * register scrambled, and stored again after rt_sigreturn; plus what only this architecture's
 * backend can be asked (forms and places of the SVE record). Never part of the library.
 *
 * seeded_in and seeded_out: 0 x0-x30 | 248 nzcv | 256 fpcr | 264 fpsr | 512 z0-31 (vl bytes each;
 * 16 where there is no SVE) | 8704 p0-15, ffr (vl / 8 bytes each).
 */
#ifndef TF_ARCH_AARCH64_TESTING_H
#define TF_ARCH_AARCH64_TESTING_H

#include <check.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>

#include "arch/arch.h"
#include "arch/aarch64/layout.h"

#define SEEDED_SIZE       9280
#define SEEDED_NZCV       248
#define SEEDED_FPCR       256
#define SEEDED_FPSR       264
#define SEEDED_Z          512
#define SEEDED_P          8704
#define SEEDED_TRAP_BYTES 4 /* udf #0 */

/* SIGILL at seeded registers; the handler resumes behind it. */
/* Hidden: from a symbol that is local to its section the linker makes a wrong entry of its GOT. */
void seeded_run(void) __attribute__((visibility("hidden")));
/* Scrambles everything, then rt_sigreturn from sp. */
_Noreturn void seeded_return(uint64_t sp) __attribute__((visibility("hidden")));

static uint8_t __attribute__((used, aligned(64))) seeded_in[SEEDED_SIZE];
static uint8_t __attribute__((used, aligned(64))) seeded_out[SEEDED_SIZE];
static uint64_t __attribute__((used)) seeded_vl; /* 0: no SVE */

#define S_EACH8(op, a) op(a##0) op(a##1) op(a##2) op(a##3) op(a##4) op(a##5) op(a##6) op(a##7)
#define SEEDED_EACH_32(op)                                                                      \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) \
		op(14) op(15) op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24)    \
			op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define SEEDED_EACH_16(op)                                                                      \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) \
		op(14) op(15)
/* x1 to x30; x0 is the base and comes last or first. */
#define SEEDED_EACH_X(op)                                                                        \
	op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) \
		op(15) op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25)     \
			op(26) op(27) op(28) op(29) op(30)
#define S_LOAD_X(n)  "ldr x" #n ", [x0, #8*" #n "]\n\t"
#define S_STORE_X(n) "str x" #n ", [x0, #8*" #n "]\n\t"
#define S_JUNK_X(n)  "mov x" #n ", #0x5a5a\n\t"
#define S_LOAD_Z(n)  "ldr z" #n ", [x1, #" #n ", mul vl]\n\t"
#define S_STORE_Z(n) "str z" #n ", [x1, #" #n ", mul vl]\n\t"
#define S_JUNK_Z(n)  "dup z" #n ".b, #0x5a\n\t"
#define S_LOAD_V(n)  "ldr q" #n ", [x1, #16*" #n "]\n\t"
#define S_STORE_V(n) "str q" #n ", [x1, #16*" #n "]\n\t"
#define S_JUNK_V(n)  "movi v" #n ".16b, #0x5a\n\t"
#define S_LOAD_P(n)  "ldr p" #n ", [x1, #" #n ", mul vl]\n\t"
#define S_STORE_P(n) "str p" #n ", [x1, #" #n ", mul vl]\n\t"
#define S_JUNK_P(n)  "ptrue p" #n ".b\n\t"
#define S_ADDRESS(reg, symbol) \
	"adrp " #reg ", " #symbol "\n\tadd " #reg ", " #reg ", :lo12:" #symbol "\n\t"

__asm__(".text\n\t.arch_extension sve\n"
	"seeded_run:\n\t"
	"stp x29, x30, [sp, #-176]!\n\t"
	"stp x19, x20, [sp, #16]\n\tstp x21, x22, [sp, #32]\n\tstp x23, x24, [sp, #48]\n\t"
	"stp x25, x26, [sp, #64]\n\tstp x27, x28, [sp, #80]\n\t"
	"stp d8, d9, [sp, #96]\n\tstp d10, d11, [sp, #112]\n\tstp d12, d13, [sp, #128]\n\t"
	"stp d14, d15, [sp, #144]\n\t" S_ADDRESS(x0, seeded_in) S_ADDRESS(x2,
		seeded_vl) "ldr x2, [x2]\n\t"
			   "add x1, x0, #512\n\t"
			   "cbz x2, 1f\n\t" SEEDED_EACH_32(
				   S_LOAD_Z) "mov x1, #8704\n\tadd x1, x1, x0\n\t"
					     "ldr p0, [x1, #16, mul vl]\n\twrffr "
					     "p0.b\n\t" SEEDED_EACH_16(
						     S_LOAD_P) "b 2f\n"
							       "1:\n\t" SEEDED_EACH_32(
								       S_LOAD_V) "2:\n\t"
										 "ldr x1, [x0, "
										 "#248]\n\tmsr "
										 "nzcv, x1\n\t"
										 "ldr x1, [x0, "
										 "#256]\n\tmsr "
										 "fpcr, x1\n\t"
										 "ldr x1, [x0, "
										 "#264]\n\tmsr "
										 "fpsr, "
										 "x1\n"
										 "\t" SEEDED_EACH_X(S_LOAD_X) "ldr x0, [x0]\n\t"
													      ".inst 0\n\t"
													      "str x0, [sp, #160]\n\t" S_ADDRESS(
														      x0,
														      seeded_out)
														      SEEDED_EACH_X(
															      S_STORE_X) "ldr x1, [sp, #160]\n\tstr x1, [x0]\n\t"
																	 "mrs x1, nzcv\n\tstr x1, [x0, #248]\n\t"
																	 "mrs x1, fpcr\n\tstr x1, [x0, #256]\n\t"
																	 "mrs x1, fpsr\n\tstr x1, [x0, #264]\n\t"
																	 "msr fpcr, xzr\n\t" S_ADDRESS(
																		 x2, seeded_vl) "ldr x2, [x2]\n\t"
																				"add x1, x0, #512\n\t"
																				"cbz x2, 1f\n\t" SEEDED_EACH_32(S_STORE_Z) "mov x1, #8704\n\tadd x1, x1, x0\n\t" SEEDED_EACH_16(S_STORE_P) "rdffr p0.b\n\tstr p0, [x1, #16, mul vl]\n\t"
																																	   "b 2f\n"
																																	   "1:\n\t" SEEDED_EACH_32(
																																		   S_STORE_V) "2:\n\t"
																																			      "ldp d14, d15, [sp, #144]\n\tldp d12, d13, [sp, #128]\n\tldp d10, d11, [sp, #112]\n\t"
																																			      "ldp d8, d9, [sp, #96]\n\tldp x27, x28, [sp, #80]\n\tldp x25, x26, [sp, #64]\n\t"
																																			      "ldp x23, x24, [sp, #48]\n\tldp x21, x22, [sp, #32]\n\tldp x19, x20, [sp, #16]\n\t"
																																			      "ldp x29, x30, [sp], #176\n\t"
																																			      "ret\n"
																																			      "seeded_return:\n\t"
																																			      "mov sp, x0\n\t" S_ADDRESS(
																																				      x2, seeded_vl) "ldr x2, [x2]\n\t"
																																						     "cbz x2, 1f\n\t" SEEDED_EACH_32(S_JUNK_Z) SEEDED_EACH_16(S_JUNK_P) "setffr\n\t"
																																															"b 2f\n"
																																															"1:\n\t" SEEDED_EACH_32(
																																																S_JUNK_V) "2:\n\tmsr fpcr, xzr\n\tmsr fpsr, xzr\n\tmsr nzcv, xzr\n\t" SEEDED_EACH_X(S_JUNK_X) "mov x0, #0x5a5a\n\tmov x8, #139\n\tsvc #0\n\tbrk #1\n\t");

static void seeded_fill(const struct tf_cpu *cpu)
{
	seeded_vl = cpu->vl;
	for (unsigned i = 0; i < SEEDED_SIZE; i++)
		seeded_in[i] = (uint8_t)(i * 151 + 7 + (i >> 8));
	arm_put64(seeded_in + SEEDED_NZCV, 0xb0000000);
	arm_put64(seeded_in + SEEDED_FPCR, 0x03c00000); /* DN, FZ, toward zero */
	arm_put64(seeded_in + SEEDED_FPSR, 0x0800009f); /* QC and every flag */
	/* FFR must be ones, then zeroes (Arm ARM, WRFFR). */
	for (unsigned i = 0; i < cpu->vl / 8; i++)
		seeded_in[SEEDED_P + 16 * (cpu->vl / 8) + i] = i == 0 ? 0xff : i == 1 ? 0x0f : 0;
}

/* Whether a register of a captured set has the value that was seeded; -1: it was not seeded. */
static int seeded_matches(const struct tf_reg *reg, const uint8_t *value)
{
	int index = atoi(reg->name + 1);

	if (reg->klass == TF_REG_GENERAL && reg->name[0] == 'x')
		return !memcmp(value, seeded_in + 8 * index, 8);
	if (reg->klass == TF_REG_FLAGS)
		return !memcmp(value, seeded_in + SEEDED_NZCV, 4);
	if (!strcmp(reg->name, "fpcr"))
		return !memcmp(value, seeded_in + SEEDED_FPCR, 4);
	if (!strcmp(reg->name, "fpsr"))
		return !memcmp(value, seeded_in + SEEDED_FPSR, 4);
	if (reg->klass == TF_REG_VECTOR)
		return !memcmp(value, seeded_in + SEEDED_Z + (int)reg->size * index, reg->size);
	if (!strcmp(reg->name, "ffr"))
		index = 16;
	if (reg->klass == TF_REG_PREDICATE)
		return !memcmp(value, seeded_in + SEEDED_P + (int)reg->size * index, reg->size);
	return -1;
}

/* Bytes of seeded_in that are not in seeded_out. */
static unsigned seeded_lost(void)
{
	uint32_t vl = seeded_vl ? (uint32_t)seeded_vl : 16;
	unsigned n = 0;

	for (unsigned i = 0; i < 272; i++)
		n += seeded_in[i] != seeded_out[i];
	for (unsigned i = SEEDED_Z; i < SEEDED_Z + 32 * vl; i++)
		n += seeded_in[i] != seeded_out[i];
	for (unsigned i = SEEDED_P; seeded_vl && i < SEEDED_P + 17 * (vl / 8); i++)
		n += seeded_in[i] != seeded_out[i];
	return n;
}

/* Address of the ucontext in a frame that stands at buf, by the sp of its rt_sigreturn. */
static const void *testing_ucontext(uint64_t sp)
{
	return (const void *)(sp + 128);
}

static struct tf_arena testing_arena;
static uint8_t testing_buf[16384] __attribute__((aligned(64)));

/* A thread with vectors of vl bytes: as registers, or in FPSIMD form. */
static void testing_thread(struct tf_thread *t, struct tf_arena *a, uint32_t vl, bool live)
{
	uint32_t size = live ? sve_set_size(vl) : SVE_HEADER + FP_SIZE;
	struct tf_regset *gp, *fp, *sve;

	memset(t, 0, sizeof(*t));
	t->sigmask = 0x1122334455667788;
	t->altstack = (struct tf_altstack){.sp = 0x7000, .size = 0x4000, .flags = 1};
	gp = tf_regs_add(&t->regs, a, NT_PRSTATUS, ARM_GREGS_SIZE);
	fp = tf_regs_add(&t->regs, a, NT_FPREGSET, FP_SIZE);
	tf_regs_add(&t->regs, a, NT_ARM_TLS, 8);
	sve = tf_regs_add(&t->regs, a, NT_ARM_SVE, size);
	for (unsigned i = 0; i < gp->size; i++)
		gp->data[i] = (uint8_t)(i * 13 + 1);
	arm_put64(gp->data + G_PSTATE * 8, 0x60001000);
	for (unsigned i = 0; i < FP_FPSR; i++)
		fp->data[i] = (uint8_t)(i * 7 + 5);
	for (unsigned i = SVE_HEADER; i < size; i++)
		sve->data[i] = (uint8_t)(i * 31 + 1 + (i >> 8));
	if (!live)
		memcpy(sve->data + SVE_HEADER, fp->data, FP_SIZE);
	for (unsigned i = 0; live && i < 32; i++)
		memcpy(fp->data + 16 * i, sve->data + SVE_HEADER + sve_z(vl, i), 16);
	arm_put32(sve->data + SVE_SIZE, size);
	arm_put32(sve->data + SVE_MAX_SIZE, sve_set_size(256));
	arm_put16(sve->data + SVE_VL, (uint16_t)vl);
	arm_put16(sve->data + SVE_MAX_VL, 256);
	arm_put16(sve->data + SVE_FLAGS, live ? SVE_FLAG_REGS : 0);
}

static int testing_convert(
	const struct tf_thread *t, const struct tf_cpu *dst, struct tf_regs *back, struct tf_err *e)
{
	uint64_t sp = 0;
	int r = tf_arch_frame_from_regs(
		t, dst, dst, testing_buf, sizeof(testing_buf), (uint64_t)testing_buf, &sp, e);

	return r ? r : tf_arch_regs_from_frame(testing_ucontext(sp), dst, &testing_arena, back, e);
}

START_TEST(every_length_through_a_frame)
{
	for (uint32_t vl = 16; vl <= 256; vl += 16) {
		struct tf_cpu cpu = {.n_words = 2, .vl = vl, .vl_mask = 0xffff};
		struct tf_thread t;
		struct tf_regs back;
		struct tf_err e = {0};
		unsigned equal;

		ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
		testing_thread(&t, &testing_arena, vl, true);
		ck_assert_int_eq(tf_arch_aarch64.check(&t.regs, &cpu, &e), 0);
		ck_assert_int_eq(testing_convert(&t, &cpu, &back, &e), 0);
		/* The thread pointer is read from the calling thread: all others. */
		ck_assert_uint_eq(tf_regs_diff(&tf_arch_aarch64, &t.regs, &cpu, &back, &cpu, NULL,
					  NULL, &equal),
			1);
		ck_assert_uint_eq(equal, 85);
		/* Linux takes v from its own record, QEMU from z: both must say the same. */
		ck_assert_mem_eq(tf_regs_find(&back, NT_FPREGSET)->data,
			tf_regs_find(&t.regs, NT_FPREGSET)->data, 512);
		/* FPSIMD form comes back as registers whose rest is zero. */
		testing_thread(&t, &testing_arena, vl, false);
		ck_assert_int_eq(tf_arch_aarch64.check(&t.regs, &cpu, &e), 0);
		ck_assert_int_eq(testing_convert(&t, &cpu, &back, &e), 0);
		ck_assert_uint_eq(tf_regs_diff(&tf_arch_aarch64, &t.regs, &cpu, &back, &cpu, NULL,
					  NULL, NULL),
			1);
		tf_arena_done(&testing_arena);
	}
}
END_TEST

START_TEST(length_missing_at_destination)
{
	struct tf_cpu dst = {.n_words = 2, .vl = 16, .vl_mask = 3};
	static struct tf_image img;
	static struct tf_thread t;
	struct tf_regs back;
	struct tf_err e = {0};

	ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
	testing_thread(&t, &testing_arena, 64, true);
	ck_assert_int_eq(testing_convert(&t, &dst, &back, &e), TELEFORK_E_INCOMPATIBLE);
	dst.vl = 0;
	e = (struct tf_err){0};
	ck_assert_int_eq(testing_convert(&t, &dst, &back, &e), TELEFORK_E_INCOMPATIBLE);
	dst.vl = 16;
	img.threads = &t;
	img.n_threads = 1;
	e = (struct tf_err){0};
	ck_assert_uint_eq(tf_arch_compat(&img, &dst, &e), 1);
	ck_assert_ptr_nonnull(strstr(e.text, "64 bytes"));
}
END_TEST

/* Records behind FPSIMD: what is in use and cannot travel is refused by name, what is idle is not.
 */
START_TEST(foreign_records)
{
	static const struct {
		uint32_t magic, size;
		uint64_t value;
		const char *refused;
	} cases[] = {
		{0x45535201, 16, 7, NULL},
		{0x54366345, 16, 32, NULL},
		{0x54366345, 16 + 1024, 32, "ZA"},
		{0x54504902, 16, 0, NULL},
		{0x54504902, 16, 1, "TPIDR2"},
		{0x5a544e01, 80, 1, "ZT0"},
		{0x46504d52, 16, 4, "FPMR"},
		{0x504f4530, 16, 7, NULL},
		{0x504f4530, 16, 5, "POR_EL0"},
		{0x12345678, 16, 0, "0x12345678"},
		{0x53564501, 16, 24, "damaged"},
		{0x53564501, 16, 32 | 1 << 16, "streaming"},
		{0x46508001, 4096, 0, "damaged"},
		{0x45535201, 0, 0, "damaged"},
	};
	struct tf_cpu cpu = {.n_words = 2};
	uint8_t *uc = testing_buf, *p = uc + 464;

	ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tf_regs regs;
		struct tf_err e = {0};
		int r;

		memset(testing_buf, 0, sizeof(testing_buf));
		arm_put32(p, 0x46508001);
		arm_put32(p + 4, 528);
		arm_put32(p + 528, cases[i].magic);
		arm_put32(p + 532, cases[i].size);
		arm_put64(p + 536, cases[i].value);
		r = tf_arch_regs_from_frame(uc, &cpu, &testing_arena, &regs, &e);
		ck_assert_msg(r == (cases[i].refused ? TELEFORK_E_UNSUPPORTED : 0),
			"case %zu: %d %s", i, r, e.text);
		if (cases[i].refused)
			ck_assert_msg(strstr(e.text, cases[i].refused) != NULL, "%s", e.text);
	}
}
END_TEST

static void testing_cases(TCase *tc)
{
	tcase_add_test(tc, every_length_through_a_frame);
	tcase_add_test(tc, length_missing_at_destination);
	tcase_add_test(tc, foreign_records);
}

#endif
