/* SPDX-License-Identifier: MIT */
/*
 * x86_64 for tests/unit/test_arch.c only: every register seeded, a signal taken there, every
 * register scrambled, and stored again after rt_sigreturn; plus what only this architecture's
 * backend can be asked (conversion between two XSAVE layouts). Never part of the library.
 *
 * seeded_in and seeded_out: 0 rax rbx rcx rdx rsi rdi rbp r8-r15 | 120 rflags | 256 FXSAVE image |
 * 768 zmm0-31, 64 bytes each | 2816 k0-7.
 */
#ifndef TF_ARCH_X86_64_TESTING_H
#define TF_ARCH_X86_64_TESTING_H

#include <check.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>

#include "arch/arch.h"
#include "arch/x86_64/layout.h"

#define SEEDED_SIZE       2880
#define SEEDED_FLAGS      120
#define SEEDED_FX         256
#define SEEDED_Z          768
#define SEEDED_K          2816
#define SEEDED_TRAP_BYTES 2 /* ud2 */

/* SIGILL at seeded registers; the handler resumes behind it. */
void seeded_run(void);
/* Scrambles everything, then rt_sigreturn from sp. */
_Noreturn void seeded_return(uint64_t sp);

static uint8_t __attribute__((used, aligned(64))) seeded_in[SEEDED_SIZE];
static uint8_t __attribute__((used, aligned(64))) seeded_out[SEEDED_SIZE];
static uint32_t __attribute__((used)) seeded_level; /* 0: xmm, 1: ymm, 2: zmm and k */
static uint64_t __attribute__((used)) seeded_sp;

#define SEEDED_EACH_LOW(op)                                                                     \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) \
		op(14) op(15)
#define SEEDED_EACH_HIGH(op)                                                                       \
	op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) \
		op(29) op(30) op(31)
#define SEEDED_EACH_K(op)      op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define S_LOAD_Y(n)            "vmovdqu seeded_in+768+64*" #n "(%rip), %ymm" #n "\n\t"
#define S_LOAD_Z(n)            "vmovdqu64 seeded_in+768+64*" #n "(%rip), %zmm" #n "\n\t"
#define S_LOAD_K(n)            "kmovq seeded_in+2816+8*" #n "(%rip), %k" #n "\n\t"
#define S_STORE_Y(n)           "vmovdqu %ymm" #n ", seeded_out+768+64*" #n "(%rip)\n\t"
#define S_STORE_Z(n)           "vmovdqu64 %zmm" #n ", seeded_out+768+64*" #n "(%rip)\n\t"
#define S_STORE_K(n)           "kmovq %k" #n ", seeded_out+2816+8*" #n "(%rip)\n\t"
#define S_JUNK_X(n)            "pcmpeqd %xmm" #n ", %xmm" #n "\n\t"
#define S_JUNK_Y(n)            "vpcmpeqd %ymm" #n ", %ymm" #n ", %ymm" #n "\n\t"
#define S_JUNK_Z(n)            "vpternlogd $0xff, %zmm" #n ", %zmm" #n ", %zmm" #n "\n\t"
#define S_JUNK_K(n)            "kxnorq %k" #n ", %k" #n ", %k" #n "\n\t"
#define S_LOAD_G(reg, offset)  "movq seeded_in+" #offset "(%rip), %" #reg "\n\t"
#define S_STORE_G(reg, offset) "movq %" #reg ", seeded_out+" #offset "(%rip)\n\t"
#define S_JUNK_G(reg, offset)  "movabsq $0x5a5a5a5a5a5a5a5a, %" #reg "\n\t"
#define SEEDED_EACH_G(op)                                                                    \
	op(rax, 0) op(rbx, 8) op(rcx, 16) op(rdx, 24) op(rsi, 32) op(rbp, 48) op(r8, 56) op( \
		r9, 64) op(r10, 72) op(r11, 80) op(r12, 88) op(r13, 96) op(r14, 104) op(r15, 112)

__asm__(".text\n"
	"seeded_run:\n\t"
	"pushq %rbx\n\tpushq %rbp\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
	"fxrstor64 seeded_in+256(%rip)\n\t"
	"cmpl $1, seeded_level(%rip)\n\t"
	"jb 2f\n\tje 1f\n\t" SEEDED_EACH_LOW(S_LOAD_Z) SEEDED_EACH_HIGH(S_LOAD_Z) SEEDED_EACH_K(
		S_LOAD_K) "jmp 2f\n"
			  "1:\n\t" SEEDED_EACH_LOW(
				  S_LOAD_Y) "2:\n\t"
					    "pushq seeded_in+120(%rip)\n\tpopfq\n\t" SEEDED_EACH_G(
						    S_LOAD_G) S_LOAD_G(rdi,
						    40) "ud2\n\t" SEEDED_EACH_G(S_STORE_G) S_STORE_G(rdi,
						    40) "pushfq\n\tpopq seeded_out+120(%rip)\n\t"
							"cld\n\t"
							"fxsave64 seeded_out+256(%rip)\n\t"
							"cmpl $1, seeded_level(%rip)\n\t"
							"jb 2f\n\tje 1f\n\t" SEEDED_EACH_LOW(S_STORE_Z) SEEDED_EACH_HIGH(S_STORE_Z) SEEDED_EACH_K(
								S_STORE_K) "jmp 2f\n"
									   "1:\n\t" SEEDED_EACH_LOW(
										   S_STORE_Y) "2:"
											      "\n\t"
											      "fnin"
											      "it\n"
											      "\tpu"
											      "shq "
											      "$0x1"
											      "f80"
											      "\n\t"
											      "ldmx"
											      "csr "
											      "(%"
											      "rsp)"
											      "\n\t"
											      "popq"
											      " %"
											      "rax"
											      "\n\t"
											      "popq"
											      " %"
											      "r15"
											      "\n\t"
											      "popq"
											      " %"
											      "r14"
											      "\n\t"
											      "popq"
											      " %"
											      "r13"
											      "\n\t"
											      "popq"
											      " %"
											      "r12"
											      "\n\t"
											      "popq"
											      " %"
											      "rbp"
											      "\n\t"
											      "popq"
											      " %"
											      "rbx"
											      "\n\t"
											      "ret"
											      "\n"
											      "seed"
											      "ed_"
											      "retu"
											      "rn:"
											      "\n\t"
											      "movq"
											      " %"
											      "rdi,"
											      " %"
											      "rsp"
											      "\n\t"
											      "cmpl"
											      " $1,"
											      " see"
											      "ded_"
											      "leve"
											      "l(%"
											      "rip)"
											      "\n\t"
											      "jb "
											      "2f\n"
											      "\tje"
											      " 1f"
											      "\n"
											      "\t" SEEDED_EACH_LOW(S_JUNK_Z) SEEDED_EACH_HIGH(S_JUNK_Z) SEEDED_EACH_K(
												      S_JUNK_K) "jmp 3f\n"
														"1:\n\t" SEEDED_EACH_LOW(
															S_JUNK_Y) "jmp 3f\n"
																  "2:\n\t" SEEDED_EACH_LOW(S_JUNK_X) "3:\n\tfninit\n\tfldpi\n\tldmxcsr seeded_junk_mxcsr(%rip)\n\t" SEEDED_EACH_G(
																	  S_JUNK_G) S_JUNK_G(rdi,
																	  0) "movl $15, %eax\n\tsyscall\n\tud2\n\t"
																	     ".section .rodata\n"
																	     "seeded_junk_mxcsr: .long 0x3f80\n\t"
																	     ".text\n");

static void seeded_fill(const struct tf_cpu *cpu)
{
	uint8_t *fx = seeded_in + SEEDED_FX;

	seeded_level = (cpu->xcr0 & XC_AVX512) == XC_AVX512 ? 2 : cpu->xcr0 & 4 ? 1 : 0;
	for (unsigned i = 0; i < SEEDED_SIZE; i++)
		seeded_in[i] = (uint8_t)(i * 151 + 7 + (i >> 8));
	x86_put64(seeded_in + SEEDED_FLAGS, 0x246 | 0xcd5); /* every flag of arithmetic, and DF */
	memset(fx, 0, FX_SIZE - 96);
	x86_put16(fx + FX_FCW, 0x0c7f); /* toward zero, single precision; bit 6 is always set */
	x86_put16(fx + FX_FSW, 0x2941); /* TOP 5 */
	fx[FX_FTW] = 0xff;
	x86_put32(fx + FX_MXCSR, 0xffff); /* every exception masked and raised, FTZ, DAZ, to zero */
	for (unsigned i = 0; i < 80; i++)
		fx[FX_ST + i / 10 * 16 + i % 10] = (uint8_t)(0x21 + i);
	for (unsigned i = 0; i < 16; i++)
		memcpy(fx + FX_XMM + 16 * i, seeded_in + SEEDED_Z + 64 * i, 16);
}

/* Whether a register of a captured set has the value that was seeded; -1: it was not seeded. */
static int seeded_matches(const struct tf_reg *reg, const uint8_t *value)
{
	static const char *const names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8",
		"r9", "r10", "r11", "r12", "r13", "r14", "r15"};
	const char *n = reg->name;
	int index = atoi(n + strcspn(n, "0123456789"));

	for (unsigned i = 0; i < 15; i++)
		if (!strcmp(names[i], n))
			return !memcmp(value, seeded_in + 8 * i, 8);
	if (reg->klass == TF_REG_FLAGS)
		return x86_get64(value) == 0xcd5;
	if (reg->klass == TF_REG_VECTOR)
		return !memcmp(value, seeded_in + SEEDED_Z + 64 * index, reg->size);
	if (reg->klass == TF_REG_PREDICATE)
		return seeded_level < 2 ? -1 : !memcmp(value, seeded_in + SEEDED_K + 8 * index, 8);
	if (reg->klass == TF_REG_X87 || reg->klass == TF_REG_FPCONTROL)
		return !memcmp(value, seeded_in + SEEDED_FX + reg->offset, reg->size);
	return -1;
}

/* Bytes of seeded_in that are not in seeded_out. */
static unsigned seeded_lost(void)
{
	static const unsigned widths[] = {16, 32, 64};
	unsigned n = 0, width = widths[seeded_level];

	for (unsigned i = 0; i < 120; i++)
		n += seeded_in[i] != seeded_out[i];
	n += (x86_get64(seeded_out + SEEDED_FLAGS) & X86_FLAGS_MASK) != 0xcd5;
	/* Not the last pointers, nor what pads a register of 10 bytes. */
	for (unsigned i = 0; i < FX_XMM + 256; i++)
		if (i < FX_FOP || (i >= FX_MXCSR && i < FX_MXCSR_MASK) || i >= FX_XMM ||
			(i >= FX_ST && i % 16 < 10))
			n += seeded_in[SEEDED_FX + i] != seeded_out[SEEDED_FX + i];
	for (unsigned i = 0; seeded_level && i < (seeded_level == 2 ? 32 : 16) * 64; i++)
		if (i % 64 < width)
			n += seeded_in[SEEDED_Z + i] != seeded_out[SEEDED_Z + i];
	for (unsigned i = SEEDED_K; seeded_level == 2 && i < SEEDED_SIZE; i++)
		n += seeded_in[i] != seeded_out[i];
	return n;
}

/* Address of the ucontext in a frame that stands at buf, by the sp of its rt_sigreturn. */
static const void *testing_ucontext(uint64_t sp)
{
	return (const void *)sp;
}

/* The layouts of an Intel server and of an AMD one (CPUID 0xD as observed). */
static struct tf_cpu testing_cpu(bool intel, uint64_t xcr0)
{
	static const uint32_t sizes[] = {0, 0, 256, 64, 64, 64, 512, 1024, 0, 8};
	static const uint32_t intel_at[] = {0, 0, 576, 960, 1024, 1088, 1152, 1664, 0, 2688};
	static const uint32_t amd_at[] = {0, 0, 576, 0, 0, 832, 896, 1408, 0, 2432};
	struct tf_cpu cpu = {.n_words = 40, .xcr0 = xcr0, .xsave_size = XS_MIN_SIZE};

	for (unsigned i = 2; i < 10; i++) {
		if (!(xcr0 & XC_BIT(i)))
			continue;
		cpu.xcomp[i].offset = intel ? intel_at[i] : amd_at[i];
		cpu.xcomp[i].size = sizes[i];
		cpu.xsave_size = cpu.xcomp[i].offset + sizes[i];
	}
	return cpu;
}

static void testing_thread(struct tf_thread *t, struct tf_arena *a, const struct tf_cpu *cpu)
{
	struct tf_regset *gp, *fx, *xs;

	memset(t, 0, sizeof(*t));
	t->sigmask = 0x1122334455667788;
	t->altstack = (struct tf_altstack){.sp = 0x7000, .size = 0x4000, .flags = 1};
	gp = tf_regs_add(&t->regs, a, NT_PRSTATUS, X86_GREGS_SIZE);
	fx = tf_regs_add(&t->regs, a, NT_FPREGSET, FX_SIZE);
	xs = tf_regs_add(&t->regs, a, NT_X86_XSTATE, cpu->xsave_size);
	for (unsigned i = 0; i < gp->size; i++)
		gp->data[i] = (uint8_t)(i * 13 + 1);
	x86_put64(gp->data + G_EFLAGS * 8, 0x246);
	for (unsigned i = 0; i < xs->size; i++)
		xs->data[i] = (uint8_t)(i * 31 + 1 + (i >> 8) * 3);
	memset(xs->data + XS_HEADER, 0, XS_HEADER_SIZE);
	memset(xs->data + FX_XMM + 256, 0, 96);
	x86_put32(xs->data + FX_MXCSR, 0x1f80);
	x86_put64(xs->data + FX_SW, cpu->xcr0);
	x86_put64(xs->data + XS_XSTATE_BV, cpu->xcr0);
	x86_legacy(fx->data, xs->data, XC_LEGACY);
}

static struct tf_arena testing_arena;
static uint8_t testing_buf[16384] __attribute__((aligned(64)));

/* Frame for dst, then read back as dst's kernel would have it written. */
static int testing_convert(const struct tf_thread *t, const struct tf_cpu *src,
	const struct tf_cpu *dst, struct tf_regs *back, struct tf_err *e)
{
	uint64_t sp = 0;
	int r = tf_arch_frame_from_regs(
		t, src, dst, testing_buf, sizeof(testing_buf), (uint64_t)testing_buf, &sp, e);

	return r ? r : tf_arch_regs_from_frame(testing_ucontext(sp), dst, &testing_arena, back, e);
}

START_TEST(conversion_between_layouts)
{
	struct tf_cpu intel = testing_cpu(true, 0x2e7), amd = testing_cpu(false, 0x2e7);
	struct tf_thread there, back;
	struct tf_regs mid;
	struct tf_err e = {0};
	unsigned equal;

	ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
	testing_thread(&there, &testing_arena, &intel);
	ck_assert_int_eq(tf_arch_x86_64.check(&there.regs, &intel, &e), 0);
	ck_assert_int_eq(testing_convert(&there, &intel, &amd, &mid, &e), 0);
	ck_assert_uint_eq(tf_regs_find(&mid, NT_X86_XSTATE)->size, 2440);
	ck_assert_int_eq(memcmp(tf_regs_find(&mid, NT_X86_XSTATE)->data + 1408,
				 tf_regs_find(&there.regs, NT_X86_XSTATE)->data + 1664, 1024),
		0);
	back = there;
	back.regs = mid;
	ck_assert_int_eq(testing_convert(&back, &amd, &intel, &mid, &e), 0);
	/* The bases are read from the calling thread: all others. */
	ck_assert_uint_eq(tf_regs_diff(&tf_arch_x86_64, &there.regs, &intel, &mid, &intel, NULL,
				  NULL, &equal),
		2);
	ck_assert_uint_eq(equal, 73 - 2);
}
END_TEST

START_TEST(component_missing_at_destination)
{
	struct tf_cpu src = testing_cpu(true, 0x2ff), dst = testing_cpu(false, 7);
	struct tf_thread t;
	struct tf_regs mid;
	struct tf_err e = {0};
	struct tf_regset *xs;

	ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
	testing_thread(&t, &testing_arena, &src);
	xs = tf_regs_find(&t.regs, NT_X86_XSTATE);
	for (unsigned i = 3; i < 10; i++) {
		if (!src.xcomp[i].size)
			continue;
		e = (struct tf_err){0};
		ck_assert_int_eq(
			testing_convert(&t, &src, &dst, &mid, &e), TELEFORK_E_INCOMPATIBLE);
		ck_assert_ptr_nonnull(strstr(e.text, x86_component_name(i)));
		/* Once zero, once marked initial with junk left, once Linux's default. */
		if (i == XC_PKRU) {
			memset(xs->data + src.xcomp[i].offset, 0, 8);
			x86_put32(xs->data + src.xcomp[i].offset, X86_PKRU_LINUX);
		} else if (i % 2) {
			memset(xs->data + src.xcomp[i].offset, 0, src.xcomp[i].size);
		} else {
			x86_put64(xs->data + XS_XSTATE_BV,
				x86_get64(xs->data + XS_XSTATE_BV) & ~XC_BIT(i));
		}
	}
	e = (struct tf_err){0};
	ck_assert_int_eq(testing_convert(&t, &src, &dst, &mid, &e), 0);
	ck_assert_uint_eq(
		tf_regs_diff(&tf_arch_x86_64, &t.regs, &src, &mid, &dst, NULL, NULL, NULL),
		2); /* fs_base, gs_base */
}
END_TEST

START_TEST(frame_fields)
{
	struct tf_cpu src = testing_cpu(true, 0x2e7);
	struct tf_thread t;
	struct tf_regs mid;
	struct tf_err e = {0};
	const uint8_t *uc = testing_buf + 64, *fp = testing_buf + 512;

	ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
	testing_thread(&t, &testing_arena, &src);
	ck_assert_int_eq(testing_convert(&t, &src, &src, &mid, &e), 0);
	ck_assert_uint_eq(x86_get64(uc), 7);
	ck_assert_uint_eq(x86_get64(uc + 16), 0x7000);
	ck_assert_uint_eq(x86_get32(uc + 24), 0); /* without SS_ONSTACK */
	ck_assert_uint_eq(x86_get64(uc + 296), t.sigmask);
	ck_assert_uint_eq(x86_get32(fp + 464), 0x46505853);
	ck_assert_uint_eq(x86_get32(fp + 468), 2700);
	ck_assert_uint_eq(x86_get64(fp + 472), 0x2e7);
	ck_assert_uint_eq(x86_get32(fp + 480), 2696);
	ck_assert_uint_eq(x86_get32(fp + 2696), 0x46505845);
	ck_assert_int_eq(tf_arch_frame_from_regs(&t, &src, &src, testing_buf,
				 tf_arch_frame_size(&t.regs, &src) - 1, 0, &(uint64_t){0}, &e),
		TELEFORK_E_LIMIT);
	e = (struct tf_err){0};
	((uint8_t *)fp)[2696] ^= 1; /* a frame with a wrong trailer is not taken for FXSAVE */
	ck_assert_int_eq(tf_arch_regs_from_frame(uc, &src, &testing_arena, &mid, &e),
		TELEFORK_E_UNSUPPORTED);
	/* A component beyond the frame's own size. */
	e = (struct tf_err){0};
	x86_put32((uint8_t *)fp + 480, 1664);
	x86_put32((uint8_t *)fp + 1664, 0x46505845);
	ck_assert_int_eq(tf_arch_regs_from_frame(uc, &src, &testing_arena, &mid, &e),
		TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(e.text, "outside"));
}
END_TEST

START_TEST(component_in_use_is_a_reason)
{
	static struct tf_image img;
	struct tf_cpu dst = testing_cpu(false, 7);
	static struct tf_thread t;
	struct tf_err e = {0};

	ck_assert_int_eq(tf_arena_init(&testing_arena, 1 << 20), 0);
	img.cpu = testing_cpu(true, 0x2e7);
	testing_thread(&t, &testing_arena, &img.cpu);
	img.threads = &t;
	img.n_threads = 1;
	ck_assert_uint_eq(tf_arch_compat(&img, &dst, &e), 4); /* k, two halves of zmm, PKRU */
	ck_assert_ptr_nonnull(strstr(e.text, "Hi16_ZMM"));
	/* A program that never touched them goes, whatever the bytes are. */
	e = (struct tf_err){0};
	x86_put64(tf_regs_find(&t.regs, NT_X86_XSTATE)->data + XS_HEADER, 7);
	ck_assert_msg(tf_arch_compat(&img, &dst, &e) == 0, "%s", e.text);
	/* Lazy binding would save more than the program has room for. */
	e = (struct tf_err){0};
	img.n_threads = 0;
	ck_assert_uint_eq(tf_arch_compat(&img, &dst, &e), 0);
	dst = img.cpu;
	img.cpu = testing_cpu(false, 7);
	ck_assert_uint_eq(tf_arch_compat(&img, &dst, &e), 1);
	ck_assert_ptr_nonnull(strstr(e.text, "binds a symbol"));
}
END_TEST

static bool in_use(const struct tf_cpu *cpu, const char *name)
{
	const struct tf_arch *arch = tf_arch_native();

	for (size_t i = 0; i < arch->n_features; i++)
		if (!strcmp(arch->features[i].name, name))
			return cpu->features[arch->features[i].word] >> arch->features[i].bit & 1;
	ck_abort_msg("no feature %s", name);
}

START_TEST(declared_unused)
{
	struct tf_cpu before, after;

	tf_arch_cpu(&before, true);
	ck_assert(
		in_use(&before, "SSE4_1") && in_use(&before, "SSE4_2") && in_use(&before, "SSE3"));
	setenv("GLIBC_TUNABLES",
		"glibc.malloc.perturb=1:glibc.cpu.hwcaps=-SSE4_1,-CX8,x-SSE3,-SSSE3x,-SSE:y=-SSE2",
		1);
	tf_arch_cpu(&after, true);
	ck_assert(!in_use(&after, "SSE4_1") && !in_use(&after, "CX8"));
	ck_assert(in_use(&after, "SSE4_2") && in_use(&after, "SSE3") && in_use(&after, "SSE2") &&
		  in_use(&after, "SSSE3"));
	ck_assert_int_eq(in_use(&after, "AVX2"), in_use(&before, "AVX2"));
	/* Nothing of a family is in use without its foundation. */
	setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F", 1);
	tf_arch_cpu(&after, true);
	ck_assert(!in_use(&after, "AVX512VL") && !in_use(&after, "AVX512_VBMI"));
	/* What the machine offers is no matter of the environment. */
	tf_arch_cpu(&after, false);
	ck_assert(in_use(&after, "SSE4_1"));
}
END_TEST

static void testing_cases(TCase *tc)
{
	tcase_add_test(tc, declared_unused);
	tcase_add_test(tc, conversion_between_layouts);
	tcase_add_test(tc, component_missing_at_destination);
	tcase_add_test(tc, frame_fields);
	tcase_add_test(tc, component_in_use_is_a_reason);
}

#endif
