/* SPDX-License-Identifier: MIT */
/*
 * The architecture floor. Any build: the register tables of both architectures on synthetic sets,
 * and what their structure checks must refuse. Own architecture (arch/<name>/testing.h): a real
 * signal at seeded registers becomes regsets, a frame in a scratch buffer and, after everything has
 * been scrambled, registers again; the other hooks of arch/arch.h by what they do.
 */
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "arch/restorer.h"
#include "core/base/crc32c.h"
#include "tests/unit/suite.h"
#include TF_ARCH_TESTING_HEADER

static struct tf_arena arena;

static void put(uint8_t *p, uint64_t v, size_t n)
{
	memcpy(p, &v, n);
}

static struct tf_regset *add(struct tf_regs *regs, uint32_t type, uint32_t size)
{
	struct tf_regset *set = tf_regs_add(regs, &arena, type, size);

	ck_assert_ptr_nonnull(set);
	for (uint32_t i = 0; i < size; i++)
		set->data[i] = (uint8_t)(i * 37 + type + 3);
	return set;
}

/* An x86_64 thread on a machine with these components, by Intel's offsets. */
static void make_x86_64(struct tf_regs *regs, struct tf_cpu *cpu, uint64_t xcr0)
{
	static const uint32_t at[10] = {0, 0, 576, 960, 1024, 1088, 1152, 1664, 0, 2688};
	static const uint32_t sizes[10] = {0, 0, 256, 64, 64, 64, 512, 1024, 0, 8};
	struct tf_regset *xs;

	memset(regs, 0, sizeof(*regs));
	memset(cpu, 0, sizeof(*cpu));
	cpu->n_words = 40;
	cpu->xcr0 = xcr0;
	cpu->xsave_size = 576;
	for (unsigned i = 2; i < 10; i++) {
		if (!(xcr0 >> i & 1))
			continue;
		cpu->xcomp[i].offset = at[i];
		cpu->xcomp[i].size = sizes[i];
		cpu->xsave_size = at[i] + sizes[i];
	}
	add(regs, NT_PRSTATUS, 216);
	put(add(regs, NT_FPREGSET, 512)->data + 24, 0x1f80, 4);
	if (!xcr0)
		return;
	xs = add(regs, NT_X86_XSTATE, cpu->xsave_size);
	put(xs->data + 24, 0x1f80, 4);
	put(xs->data + 464, xcr0, 8);
	memset(xs->data + 512, 0, 64);
	put(xs->data + 512, xcr0, 8);
}

/* vl 0: no SVE. */
static void make_aarch64(struct tf_regs *regs, struct tf_cpu *cpu, uint32_t vl, bool live)
{
	uint32_t size = 16 + 528;
	struct tf_regset *sve;

	memset(regs, 0, sizeof(*regs));
	memset(cpu, 0, sizeof(*cpu));
	cpu->n_words = 2;
	cpu->vl = vl;
	cpu->vl_mask = 0xffff;
	add(regs, NT_PRSTATUS, 272);
	add(regs, NT_FPREGSET, 528);
	add(regs, NT_ARM_TLS, 8);
	if (!vl)
		return;
	if (live)
		size = 16 + ((((34 * vl + vl / 8 + 15) & ~15u) + 8 + 15) & ~15u);
	sve = add(regs, NT_ARM_SVE, size);
	put(sve->data, size, 4);
	put(sve->data + 4, 8768, 4);
	put(sve->data + 8, vl, 2);
	put(sve->data + 10, 256, 2);
	put(sve->data + 12, live, 4);
}

static void setup(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, 4 << 20), 0);
}

static void teardown(void)
{
	tf_arena_done(&arena);
}

START_TEST(lookup)
{
	ck_assert_ptr_eq(tf_arch_by_machine(EM_X86_64), &tf_arch_x86_64);
	ck_assert_ptr_eq(tf_arch_by_machine(EM_AARCH64), &tf_arch_aarch64);
	ck_assert_ptr_null(tf_arch_by_machine(EM_RISCV));
	ck_assert_ptr_eq(tf_arch_by_name("aarch64"), &tf_arch_aarch64);
	ck_assert_ptr_null(tf_arch_by_name("z80"));
	ck_assert_str_eq(tf_reg_class_name(TF_REG_VECTOR), "vector");
	ck_assert_str_eq(tf_reg_class_name(TF_REG_CLASSES), "?");
	for (int i = 0; i < TF_REG_CLASSES; i++)
		ck_assert_str_ne(tf_reg_class_name((enum tf_reg_class)i), "?");
	ck_assert(tf_arch_native() == &tf_arch_x86_64 || tf_arch_native() == &tf_arch_aarch64);
}
END_TEST

/* Bits within their words, names and bits once. */
START_TEST(features_are_a_table)
{
	const struct tf_arch *arches[] = {&tf_arch_x86_64, &tf_arch_aarch64};

	for (size_t a = 0; a < 2; a++) {
		const struct tf_feature *f = arches[a]->features;

		for (size_t i = 0; i < arches[a]->n_features; i++) {
			ck_assert(f[i].word < TF_FEATURE_WORDS && f[i].bit < 64);
			for (size_t j = 0; j < i; j++) {
				ck_assert_str_ne(f[i].name, f[j].name);
				ck_assert(f[i].word != f[j].word || f[i].bit != f[j].bit);
			}
		}
	}
}
END_TEST

START_TEST(counts)
{
	struct tf_regs regs;
	struct tf_cpu cpu;

	make_x86_64(&regs, &cpu, 0);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_x86_64, &regs, &cpu), 48);
	make_x86_64(&regs, &cpu, 7);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_x86_64, &regs, &cpu), 48);
	make_x86_64(&regs, &cpu, 0xe7);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_x86_64, &regs, &cpu), 72);
	make_x86_64(&regs, &cpu, 0x2ff);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_x86_64, &regs, &cpu), 73);
	make_aarch64(&regs, &cpu, 0, false);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_aarch64, &regs, &cpu), 69);
	make_aarch64(&regs, &cpu, 64, false);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_aarch64, &regs, &cpu), 69);
	make_aarch64(&regs, &cpu, 64, true);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_aarch64, &regs, &cpu), 86);
	add(&regs, NT_ARM_PACA_KEYS, 64);
	add(&regs, NT_ARM_PACG_KEYS, 16);
	add(&regs, NT_ARM_PAC_ENABLED_KEYS, 8);
	add(&regs, NT_ARM_SYSTEM_CALL, 4);
	ck_assert_uint_eq(tf_regs_count(&tf_arch_aarch64, &regs, &cpu), 92);
}
END_TEST

struct wanted {
	const char *name;
	struct tf_reg reg;
	uint8_t value[TF_REG_VALUE_MAX];
};

static int find_register(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct wanted *w = ctx;

	if (strcmp(reg->name, w->name))
		return 0;
	w->reg = *reg;
	memcpy(w->value, value, reg->size);
	return 77;
}

START_TEST(each_composes)
{
	struct tf_regs regs;
	struct tf_cpu cpu;
	struct wanted w = {.name = "zmm5"};
	struct tf_regset *xs;

	make_x86_64(&regs, &cpu, 0x2ff);
	xs = tf_regs_find(&regs, NT_X86_XSTATE);
	ck_assert_int_eq(tf_arch_x86_64.each(&regs, &cpu, find_register, &w), 77);
	ck_assert_uint_eq(w.reg.size, 64);
	ck_assert_int_eq(memcmp(w.value, xs->data + 160 + 80, 16), 0);
	ck_assert_int_eq(memcmp(w.value + 16, xs->data + 576 + 80, 16), 0);
	ck_assert_int_eq(memcmp(w.value + 32, xs->data + 1152 + 160, 32), 0);
	/* Stale bytes of a component in its initial state do not show. */
	put(xs->data + 512, 0x2ff & ~4, 8);
	tf_arch_x86_64.each(&regs, &cpu, find_register, &w);
	ck_assert_uint_eq(w.value[16], 0);
	ck_assert_int_eq(memcmp(w.value + 32, xs->data + 1152 + 160, 32), 0);
	put(xs->data + 512, 0, 8);
	w.name = "fcw";
	tf_arch_x86_64.each(&regs, &cpu, find_register, &w);
	ck_assert_uint_eq(w.value[0] | w.value[1] << 8, 0x37f);
	make_aarch64(&regs, &cpu, 48, true);
	w.name = "p3";
	ck_assert_int_eq(tf_arch_aarch64.each(&regs, &cpu, find_register, &w), 77);
	ck_assert_uint_eq(w.reg.size, 6);
	ck_assert_ptr_nonnull(
		memmem(tf_regs_find(&regs, NT_ARM_SVE)->data + 16 + 32 * 48 + 18, 6, w.value, 6));
}
END_TEST

struct seen {
	unsigned n, absent;
	char name[16];
};

static void see(void *ctx, const struct tf_reg *reg, const uint8_t *a, const uint8_t *b)
{
	struct seen *s = ctx;

	s->n++;
	s->absent += !a || !b;
	snprintf(s->name, sizeof(s->name), "%s", reg->name);
}

/* For the walk over all registers below: two equal sets, the second is damaged bit by bit. */
struct pair {
	const struct tf_arch *arch;
	struct tf_regs a, b;
	struct tf_cpu cpu;
	unsigned noticed, total;
};

static int flip_and_compare(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct pair *p = ctx;
	struct tf_regset *set = tf_regs_find(&p->b, reg->regset);
	struct seen s = {0};
	uint32_t offset = reg->offset;
	uint8_t bit = 1;

	(void)value;
	if (reg->klass == TF_REG_SYSTEM)
		return 0;
	if (!strcmp(reg->name, "nzcv"))
		offset += 3, bit = 0x80;
	set->data[offset] ^= bit;
	tf_regs_diff(p->arch, &p->a, &p->cpu, &p->b, &p->cpu, see, &s, NULL);
	set->data[offset] ^= bit;
	p->total++;
	p->noticed += s.n == 1 && !strcmp(s.name, reg->name);
	return 0;
}

START_TEST(diff_notices_one_bit_of_each)
{
	struct pair p = {.arch = &tf_arch_x86_64};
	unsigned equal;

	make_x86_64(&p.a, &p.cpu, 0x2ff);
	make_x86_64(&p.b, &p.cpu, 0x2ff);
	ck_assert_uint_eq(tf_regs_diff(p.arch, &p.a, &p.cpu, &p.b, &p.cpu, NULL, NULL, &equal), 0);
	ck_assert_uint_eq(equal, 73);
	p.arch->each(&p.a, &p.cpu, flip_and_compare, &p);
	ck_assert_uint_eq(p.total, 73);
	ck_assert_uint_eq(p.noticed, 73);
	p = (struct pair){.arch = &tf_arch_aarch64};
	make_aarch64(&p.a, &p.cpu, 64, true);
	make_aarch64(&p.b, &p.cpu, 64, true);
	for (int i = 0; i < 2; i++) {
		add(i ? &p.b : &p.a, NT_ARM_PACA_KEYS, 64);
		add(i ? &p.b : &p.a, NT_ARM_PACG_KEYS, 16);
	}
	p.arch->each(&p.a, &p.cpu, flip_and_compare, &p);
	ck_assert_uint_eq(p.total, 91);
	ck_assert_uint_eq(p.noticed, 91);
}
END_TEST

START_TEST(diff_across_widths)
{
	struct tf_regs wide, narrow;
	struct tf_cpu cpu_w, cpu_n;
	struct tf_regset *xs;
	struct seen s = {0};
	unsigned equal;

	make_x86_64(&wide, &cpu_w, 0x2e7);
	make_x86_64(&narrow, &cpu_n, 7);
	xs = tf_regs_find(&wide, NT_X86_XSTATE);
	/* 16 upper halves, 16 high registers, 8 masks, pkru. */
	tf_regs_diff(&tf_arch_x86_64, &wide, &cpu_w, &narrow, &cpu_n, see, &s, &equal);
	ck_assert_uint_eq(s.n, 41);
	ck_assert_uint_eq(s.absent, 25);
	ck_assert_uint_eq(equal, 32);
	/* In their initial state nothing is lost. */
	put(xs->data + 512, 7, 8);
	ck_assert_uint_eq(
		tf_regs_diff(&tf_arch_x86_64, &narrow, &cpu_n, &wide, &cpu_w, NULL, NULL, &equal),
		0);
	ck_assert_uint_eq(equal, 73);
	/* A general register can never be absent. */
	narrow.set[0].type = 0;
	ck_assert_uint_eq(
		tf_regs_diff(&tf_arch_x86_64, &wide, &cpu_w, &narrow, &cpu_n, NULL, NULL, NULL),
		20);
}
END_TEST

/* Every size off by one, each set missing, each twice. */
static void check_sizes(const struct tf_arch *arch, const struct tf_regs *good,
	const struct tf_cpu *cpu, bool optional_last)
{
	struct tf_err e;

	e = (struct tf_err){0};
	ck_assert_msg(arch->check(good, cpu, &e) == 0, "%s", e.text);
	for (uint32_t i = 0; i < good->n; i++) {
		struct tf_regs bad = *good;

		for (int d = -1; d <= 1; d += 2) {
			e = (struct tf_err){0};
			bad.set[i].size = good->set[i].size + (uint32_t)d;
			ck_assert_int_eq(arch->check(&bad, cpu, &e), TELEFORK_E_IMAGE);
			ck_assert_int_ne(e.text[0], 0);
		}
		bad.set[i].size = 0;
		ck_assert_int_eq(arch->check(&bad, cpu, NULL), TELEFORK_E_IMAGE);
		bad = *good;
		bad.set[i] = bad.set[--bad.n];
		if (!optional_last || i < good->n - 1)
			ck_assert_int_eq(arch->check(&bad, cpu, NULL), TELEFORK_E_IMAGE);
		bad = *good;
		bad.set[bad.n++] = bad.set[i];
		ck_assert_int_eq(arch->check(&bad, cpu, NULL), TELEFORK_E_IMAGE);
		bad = *good;
		bad.set[bad.n++] = (struct tf_regset){.type = 0x999};
		ck_assert_int_eq(arch->check(&bad, cpu, NULL), TELEFORK_E_IMAGE);
	}
}

START_TEST(check_x86_64)
{
	struct tf_regs regs;
	struct tf_cpu cpu, bad;
	struct tf_regset *xs;

	make_x86_64(&regs, &cpu, 0);
	check_sizes(&tf_arch_x86_64, &regs, &cpu, false);
	make_x86_64(&regs, &cpu, 0x2ff);
	check_sizes(&tf_arch_x86_64, &regs, &cpu, false);
	xs = tf_regs_find(&regs, NT_X86_XSTATE);
	for (unsigned bit = 0; bit < 512; bit++) {
		xs->data[512 + bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_eq(tf_arch_x86_64.check(&regs, &cpu, NULL),
			bit < 10 && bit != 8 ? 0 : TELEFORK_E_IMAGE);
		xs->data[512 + bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	xs->data[464] ^= 1;
	ck_assert_int_eq(tf_arch_x86_64.check(&regs, &cpu, NULL), TELEFORK_E_IMAGE);
	xs->data[464] ^= 1;
	xs->data[26] |= 1; /* MXCSR bit 16 */
	ck_assert_int_eq(tf_arch_x86_64.check(&regs, &cpu, NULL), TELEFORK_E_IMAGE);
	xs->data[26] = 0;
	for (unsigned i = 2; i < 10; i++) {
		static const uint32_t offsets[] = {0, 575, 2690, 0xffffffff, 600};

		for (size_t j = 0; j < (i == 2 ? 4 : 5) && cpu.xcomp[i].size; j++) {
			bad = cpu;
			bad.xcomp[i].offset = offsets[j];
			ck_assert_int_eq(tf_arch_x86_64.check(&regs, &bad, NULL), TELEFORK_E_IMAGE);
		}
		bad = cpu;
		bad.xcomp[i].size = i == 3 || i == 4 ? 0 : cpu.xcomp[i].size / 4;
		if (cpu.xcomp[i].size)
			ck_assert_int_eq(tf_arch_x86_64.check(&regs, &bad, NULL), TELEFORK_E_IMAGE);
	}
	bad = cpu;
	bad.xcr0 |= UINT64_C(1) << 62;
	ck_assert_int_eq(tf_arch_x86_64.check(&regs, &bad, NULL), TELEFORK_E_IMAGE);
	bad.xcr0 = 0x2fe;
	ck_assert_int_eq(tf_arch_x86_64.check(&regs, &bad, NULL), TELEFORK_E_IMAGE);
}
END_TEST

START_TEST(check_aarch64)
{
	static const uint32_t lengths[] = {0, 1, 15, 17, 24, 32, 257, 272, 8192, 65535};
	struct tf_regs regs;
	struct tf_cpu cpu, any;
	struct tf_regset *sve;

	make_aarch64(&regs, &cpu, 0, false);
	check_sizes(&tf_arch_aarch64, &regs, &cpu, false);
	make_aarch64(&regs, &cpu, 64, true);
	check_sizes(&tf_arch_aarch64, &regs, &cpu, false);
	add(&regs, NT_ARM_PACA_KEYS, 64);
	check_sizes(&tf_arch_aarch64, &regs, &cpu, true);
	make_aarch64(&regs, &cpu, 64, false);
	check_sizes(&tf_arch_aarch64, &regs, &cpu, false);
	for (uint32_t vl = 16; vl <= 256; vl += 16) {
		make_aarch64(&regs, &cpu, vl, true);
		ck_assert_int_eq(tf_arch_aarch64.check(&regs, &cpu, NULL), 0);
	}
	make_aarch64(&regs, &cpu, 64, true);
	sve = tf_regs_find(&regs, NT_ARM_SVE);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		any = cpu;
		any.vl = lengths[i] ? lengths[i] : 64;
		put(sve->data + 8, lengths[i], 2);
		ck_assert_int_eq(tf_arch_aarch64.check(&regs, &any, NULL), TELEFORK_E_IMAGE);
	}
	put(sve->data + 8, 64, 2);
	sve->data[0] ^= 16; /* another size in the header than the set has */
	ck_assert_int_eq(tf_arch_aarch64.check(&regs, &cpu, NULL), TELEFORK_E_IMAGE);
	sve->data[0] ^= 16;
	for (unsigned bit = 2; bit < 16; bit++) {
		put(sve->data + 12, 1 | 1 << bit, 2);
		ck_assert_int_eq(tf_arch_aarch64.check(&regs, &cpu, NULL), TELEFORK_E_IMAGE);
	}
	put(sve->data + 12, 0, 2); /* claims the other form than its size has */
	ck_assert_int_eq(tf_arch_aarch64.check(&regs, &cpu, NULL), TELEFORK_E_IMAGE);
	put(sve->data + 12, 1, 2);
	put(sve->data + 10, 32, 2); /* more than the maximum */
	ck_assert_int_eq(tf_arch_aarch64.check(&regs, &cpu, NULL), TELEFORK_E_IMAGE);
}
END_TEST

START_TEST(accessors)
{
	const struct tf_arch *arches[] = {&tf_arch_x86_64, &tf_arch_aarch64};
	const char *results[] = {"rax", "x0"};

	for (size_t i = 0; i < 2; i++) {
		struct wanted w = {.name = results[i]};
		struct tf_regs regs;
		struct tf_cpu cpu;

		if (i)
			make_aarch64(&regs, &cpu, 0, false);
		else
			make_x86_64(&regs, &cpu, 7);
		arches[i]->set_pc(&regs, 0x123456789abc);
		arches[i]->set_result(&regs, 0xfeedface);
		ck_assert_uint_eq(arches[i]->pc(&regs), 0x123456789abc);
		ck_assert_uint_ne(arches[i]->sp(&regs), 0);
		arches[i]->each(&regs, &cpu, find_register, &w);
		ck_assert_int_eq(memcmp(w.value, "\xce\xfa\xed\xfe\0\0\0\0", 8), 0);
	}
}
END_TEST

/* --- own architecture --- */

static struct {
	struct tf_cpu cpu;
	struct tf_thread thread;
	struct tf_err err;
	uint64_t mask, result;
	unsigned entries, mismatches, matches;
	int rc;
	bool set_result, misaligned;
} shot;

static uint8_t *scratch;
#define SCRATCH_SIZE 65536

static int compare_with_seed(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	int m = seeded_matches(reg, value);

	(void)ctx;
	shot.mismatches += m == 0;
	shot.matches += m == 1;
	return 0;
}

/* Weak: a library that has this handler brings its own. */
__attribute__((weak, noinline)) void tf_signal_entry(int signo, void *info, void *ucontext)
{
	const struct tf_arch *arch = tf_arch_native();
	uint64_t sp = 0;

	(void)info;
	shot.entries++;
	shot.misaligned = (uint64_t)__builtin_frame_address(0) % 16 != 0;
	shot.rc =
		tf_arch_regs_from_frame(ucontext, &shot.cpu, &arena, &shot.thread.regs, &shot.err);
	if (!shot.rc)
		shot.rc = arch->check(&shot.thread.regs, &shot.cpu, &shot.err);
	if (shot.rc)
		_exit(99);
	if (signo == SIGILL) {
		arch->each(&shot.thread.regs, &shot.cpu, compare_with_seed, NULL);
		arch->set_pc(&shot.thread.regs, arch->pc(&shot.thread.regs) + SEEDED_TRAP_BYTES);
	} else if (shot.set_result) {
		arch->set_result(&shot.thread.regs, shot.result);
	} else {
		return;
	}
	shot.thread.sigmask = shot.mask;
	shot.rc = tf_arch_frame_from_regs(&shot.thread, &shot.cpu, &shot.cpu, scratch, SCRATCH_SIZE,
		(uint64_t)scratch, &sp, &shot.err);
	if (shot.rc)
		_exit(98);
	seeded_return(sp);
}

static void prepare(int signo)
{
	struct sigaction sa = {.sa_flags = SA_SIGINFO};

	sa.sa_sigaction = (void (*)(int, siginfo_t *, void *))(void *)tf_arch_signal_trampoline;
	memset(&shot, 0, sizeof(shot));
	tf_arch_cpu(&shot.cpu, true);
	scratch = mmap(
		NULL, SCRATCH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(scratch, MAP_FAILED);
	ck_assert_int_eq(sigaction(signo, &sa, NULL), 0);
	shot.thread.altstack.flags = SS_DISABLE;
}

static void round_trip(void)
{
	sigset_t now;

	prepare(SIGILL);
	shot.mask = 1u << (SIGUSR2 - 1);
	seeded_fill(&shot.cpu);
	memset(seeded_out, 0xee, sizeof(seeded_out));
	for (unsigned i = 1; i <= 3; i++) {
		seeded_run();
		ck_assert_uint_eq(shot.entries, i);
		ck_assert_uint_eq(seeded_lost(), 0);
	}
	ck_assert(!shot.misaligned);
	ck_assert_uint_eq(shot.mismatches, 0);
	ck_assert_uint_ge(shot.matches / 3, 40);
	sigprocmask(SIG_BLOCK, NULL, &now);
	ck_assert(sigismember(&now, SIGUSR2) && !sigismember(&now, SIGILL));
}

START_TEST(signal_round_trip)
{
	round_trip();
}
END_TEST

/* Every vector length that this machine has (one round where there are none). */
START_TEST(signal_round_trip_at_every_length)
{
	struct tf_cpu cpu;

	tf_arch_cpu(&cpu, false);
	for (uint32_t i = 0; i < 16; i++) {
		if (!(cpu.vl_mask >> i & 1))
			continue;
		ck_assert_int_ge(prctl(50 /* PR_SVE_SET_VL */, 16 * (i + 1), 0, 0, 0), 0);
		round_trip();
	}
}
END_TEST

START_TEST(raise_returns_twice)
{
	prepare(SIGUSR1);
	ck_assert_int_eq(tf_arch_raise(getpid(), gettid(), SIGUSR1), 0);
	ck_assert_uint_eq(shot.entries, 1);
	shot.set_result = true;
	shot.result = 4711;
	ck_assert_int_eq(tf_arch_raise(getpid(), gettid(), SIGUSR1), 4711);
	ck_assert_uint_eq(shot.entries, 2);
	ck_assert_int_eq(tf_arch_raise(getpid(), gettid(), 4711), -EINVAL);
}
END_TEST

static uint32_t crc_bitwise(uint32_t crc, const uint8_t *p, size_t n)
{
	for (crc = ~crc; n; n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

START_TEST(crc32c)
{
	uint8_t data[300];

	if (!tf_arch_has_crc32c())
		return;
	ck_assert_uint_eq(~tf_crc32c_instruction(~0u, (const uint8_t *)"123456789", 9), 0xe3069283);
	ck_assert_uint_eq(~tf_r_crc32c(~0u, (const uint8_t *)"123456789", 9), 0xe3069283);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i + 3);
	for (unsigned from = 0; from < 9; from++)
		for (unsigned n = 0; n < 280; n++) {
			uint32_t want = crc_bitwise(7, data + from, n);

			ck_assert_uint_eq(~tf_crc32c_instruction(~7u, data + from, n), want);
			ck_assert_uint_eq(~tf_r_crc32c(~7u, data + from, n), want);
		}
	ck_assert_uint_eq(
		~tf_crc32c_instruction(tf_crc32c_instruction(~0u, data, 13), data + 13, 287),
		crc_bitwise(0, data, 300));
}
END_TEST

START_TEST(compat_lists_everything)
{
	const struct tf_arch *arch = tf_arch_native();
	struct tf_image img = {0};
	struct tf_cpu dst, hinted;
	struct tf_err e = {0};
	unsigned n = 0;

	tf_arch_cpu(&img.cpu, true);
	tf_arch_cpu(&dst, false);
	ck_assert_msg(tf_arch_compat(&img, &dst, &e) == 0, "%s", e.text);
	ck_assert_int_eq(e.code, 0);
	hinted = dst;
	for (size_t i = 0; i < arch->n_features; i++)
		if (arch->features[i].hint)
			hinted.features[arch->features[i].word] &=
				~(UINT64_C(1) << arch->features[i].bit);
	ck_assert_msg(tf_arch_compat(&img, &hinted, &e) == 0, "%s", e.text);
	for (size_t i = 0; i < arch->n_features && n < 4; i++) {
		const struct tf_feature *f = &arch->features[i];

		img.cpu.features[f->word] |= UINT64_C(1) << f->bit;
		dst.features[f->word] &= ~(UINT64_C(1) << f->bit);
		n += !f->hint;
	}
	ck_assert_uint_eq(tf_arch_compat(&img, &dst, &e), 4);
	ck_assert_int_eq(e.code, TELEFORK_E_INCOMPATIBLE);
	for (size_t i = 0, k = 0; k < 4; i++) {
		if (arch->features[i].hint) {
			ck_assert_ptr_null(strstr(e.text, arch->features[i].name));
			continue;
		}
		ck_assert_ptr_nonnull(strstr(e.text, arch->features[i].name));
		if (arch->features[i].tunable)
			ck_assert_ptr_nonnull(strstr(e.text, "GLIBC_TUNABLES=glibc.cpu.hwcaps=-"));
		k++;
	}
}
END_TEST

START_TEST(cpu_of_this_process)
{
	const struct tf_arch *arch = tf_arch_native();
	struct tf_cpu used, offered, again;

	tf_arch_cpu(&used, true);
	tf_arch_cpu(&offered, false);
	tf_arch_cpu(&again, false);
	ck_assert_mem_eq(&offered, &again, sizeof(offered));
	ck_assert_uint_gt(used.n_words, 0);
	for (size_t i = 0; i < arch->n_features; i++) {
		const struct tf_feature *f = &arch->features[i];

		if (!f->hint && used.features[f->word] >> f->bit & 1)
			ck_assert_msg(offered.features[f->word] >> f->bit & 1, "%s", f->name);
	}
	ck_assert_uint_eq(used.vl, offered.vl);
	ck_assert_uint_eq(used.vl_mask & ~offered.vl_mask, 0);
	ck_assert_uint_eq(used.xcr0 & ~offered.xcr0, 0);
}
END_TEST

/* Code for vDSO entries, executed. */
START_TEST(code_runs)
{
	uint8_t *page = mmap(
		NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t jump, call, none;
	long (*fn)(clockid_t, struct timespec *);
	struct timespec ts = {-1, -1};

	ck_assert_ptr_ne(page, MAP_FAILED);
	call = tf_arch_code_syscall(page, SYS_clock_gettime);
	jump = tf_arch_code_jump(page + 64, (uint64_t)page);
	none = tf_arch_code_syscall(page + 128, -1);
	ck_assert(call <= 32 && jump <= 32 && none <= 32);
	tf_arch_flush(page, 4096);
	tf_r_flush((uint64_t)page, 4096);
	fn = (long (*)(clockid_t, struct timespec *))(page + 64);
	ck_assert_int_eq(fn(CLOCK_MONOTONIC, &ts), 0);
	ck_assert_int_ge(ts.tv_sec, 0);
	fn = (long (*)(clockid_t, struct timespec *))(page + 128);
	ck_assert_int_eq(fn(0, NULL), -ENOSYS);
	ck_assert_int_eq(tf_arch_vdso_syscall("__vdso_no_such"), -1);
	ck_assert_int_eq(tf_arch_vdso_syscall("__kernel_rt_sigreturn"), -2);
	ck_assert_int_eq(tf_r_syscall(TF_R_NR_getpid, 0, 0, 0, 0, 0, 0), getpid());
}
END_TEST

/* Under QEMU there are some, natively none, and asking twice changes nothing. */
START_TEST(emulator_pages)
{
	uint64_t a[8], b[8];
	unsigned n = tf_arch_emulator_pages(a, 8);

	ck_assert_uint_le(n, 4);
	ck_assert_uint_eq(tf_arch_emulator_pages(b, 8), n);
	ck_assert_mem_eq(a, b, n * sizeof(a[0]));
	for (unsigned i = 0; i < n; i++)
		ck_assert_uint_eq(a[i] % 4096, 0);
	ck_assert_uint_eq(tf_arch_emulator_pages(b, 0), 0);
	if (getenv("TEST_ARCH_NATIVE"))
		ck_assert_uint_eq(n, 0);
	if (getenv("TEST_ARCH_EMULATED"))
		ck_assert_uint_gt(n, 0);
}
END_TEST

START_TEST(plan_sets_what_no_frame_holds)
{
	struct tf_plan plan = {0};
	struct tf_step *last;

	prepare(SIGUSR1);
	ck_assert_int_eq(tf_plan_init(&plan, &arena, 16), 0);
	ck_assert_int_eq(tf_arch_raise(getpid(), gettid(), SIGUSR1), 0);
	ck_assert_int_eq(tf_arch_plan_registers(&plan, &shot.thread), 0);
	ck_assert(!plan.full);
	ck_assert_uint_ge(plan.n_steps, 1);
	/* Carried out by hand: they are this thread's own values. */
	for (uint64_t i = 0; i < plan.n_steps; i++) {
		struct tf_step *s = &plan.steps[i];

		if (s->op == TF_OP_ARCH) {
			tf_r_arch((uint32_t)s->arg[0], s->arg[1]);
			continue;
		}
		s->result = (uint64_t)tf_r_syscall(s->nr, (long)s->arg[0], (long)s->arg[1],
			(long)s->arg[2], (long)s->arg[3], (long)s->arg[4], (long)s->arg[5]);
		if (s->expect == TF_EXPECT_VALUE)
			ck_assert_uint_eq(s->result, s->expected);
		ck_assert_int_ge((long)s->result, 0);
	}
	last = &plan.steps[tf_plan_last(&plan)];
	ck_assert(last->op == TF_OP_ARCH || last->op == TF_OP_SYSCALL);
	shot.thread.regs.n = 0;
	ck_assert_int_ne(tf_arch_plan_registers(&plan, &shot.thread), 0);
}
END_TEST

/* It has the kernel's calls at both its ends: in the loop, and to take the frame. */
START_TEST(batch_code)
{
	const uint8_t *code;
	size_t n = tf_arch_batch_code(&code), first = tf_arch_find_syscall(code, n);
	size_t rest = first + 4 < n ? n - first - 4 : 0;

	ck_assert_uint_lt(first, n);
	ck_assert_uint_lt(tf_arch_find_syscall(code + first + 4, rest), rest);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("arch");
	TCase *any = tcase_create("any"), *own = tcase_create("own");

	tcase_add_checked_fixture(any, setup, teardown);
	tcase_add_test(any, lookup);
	tcase_add_test(any, batch_code);
	tcase_add_test(any, features_are_a_table);
	tcase_add_test(any, counts);
	tcase_add_test(any, each_composes);
	tcase_add_test(any, diff_notices_one_bit_of_each);
	tcase_add_test(any, diff_across_widths);
	tcase_add_test(any, check_x86_64);
	tcase_add_test(any, check_aarch64);
	tcase_add_test(any, accessors);
	tcase_add_checked_fixture(own, setup, teardown);
	tcase_set_timeout(own, SUITE_LIMIT_S);
	tcase_add_test(own, signal_round_trip);
	tcase_add_test(own, signal_round_trip_at_every_length);
	tcase_add_test(own, raise_returns_twice);
	tcase_add_test(own, crc32c);
	tcase_add_test(own, compat_lists_everything);
	tcase_add_test(own, cpu_of_this_process);
	tcase_add_test(own, code_runs);
	tcase_add_test(own, emulator_pages);
	tcase_add_test(own, plan_sets_what_no_frame_holds);
	testing_cases(own);
	suite_add_tcase(s, any);
	suite_add_tcase(s, own);
	return suite_run(s);
}
