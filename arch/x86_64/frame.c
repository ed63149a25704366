/* SPDX-License-Identifier: MIT */
/*
 * x86_64 signal frame <-> regsets. The frame is the kernel's struct rt_sigframe (pretcode,
 *ucontext, siginfo) and a 64-byte-aligned XSAVE area in standard format that the ucontext points
 *to:
 *
 *	addr            +56        +64           +368      +512
 *	| unused        | pretcode | ucontext    | siginfo | XSAVE area | magic2 |
 *	                            ^ sp at rt_sigreturn (the handler's ret took pretcode)
 *
 * Capture runs in a forked child or a handler: no allocator but the arena, no lock. A wrong magic
 *or size would make the kernel restore the FXSAVE part only, silently.
 */
#include "arch/arch.h"
#include "arch/x86_64/layout.h"

#include <elf.h>
#include <sys/syscall.h>
#include <unistd.h>

/* struct ucontext, asm-generic/ucontext.h with struct sigcontext_64 of asm/sigcontext.h. */
#define UC_FLAGS    0
#define UC_STACK_SP 16
#define UC_STACK_FL 24
#define UC_STACK_SZ 32
#define UC_MCONTEXT 40
#define UC_CS       (UC_MCONTEXT + 18 * 8) /* cs, gs, fs, ss: 2 bytes each */
#define UC_OLDMASK  (UC_MCONTEXT + 168)
#define UC_FPSTATE  (UC_MCONTEXT + 184)
#define UC_SIGMASK  296
#define UC_SIZE     304

#define FRAME_UC    64
#define FRAME_XSAVE 512

/* uc_flags, asm/ucontext.h */
#define UC_FP_XSTATE         1
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4

/* struct _fpx_sw_bytes at FX_SW */
#define SW_MAGIC1        (FX_SW + 0)
#define SW_EXTENDED_SIZE (FX_SW + 4)
#define SW_XFEATURES     (FX_SW + 8)
#define SW_XSTATE_SIZE   (FX_SW + 16)
#define MAGIC1           0x46505853u
#define MAGIC2           0x46505845u
#define MAGIC2_SIZE      4u

#define USER_CS 0x33
#define USER_SS 0x2b

#define SS_KEEP (~1) /* flags without SS_ONSTACK, which only says where the thread stood */

#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004

/* sigcontext's words in order, as user_regs_struct's indices. */
static const uint8_t context_gregs[18] = {G_R8, G_R9, G_R10, G_R11, G_R12, G_R13, G_R14, G_R15,
	G_RDI, G_RSI, G_RBP, G_RBX, G_RDX, G_RAX, G_RCX, G_RSP, G_RIP, G_EFLAGS};

static void general_from_frame(const uint8_t *uc, uint8_t *gregs)
{
	uint16_t cs, ss, ds, es, fs, gs;
	unsigned long base = 0;

	for (unsigned i = 0; i < 18; i++)
		memcpy(gregs + context_gregs[i] * 8, uc + UC_MCONTEXT + i * 8, 8);
	memcpy(&cs, uc + UC_CS, 2);
	memcpy(&ss, uc + UC_CS + 6, 2);
	__asm__ volatile("mov %%ds, %0\n\tmov %%es, %1\n\tmov %%fs, %2\n\tmov %%gs, %3"
			 : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
	x86_put64(gregs + G_CS * 8, cs);
	x86_put64(gregs + G_SS * 8, ss);
	x86_put64(gregs + G_DS * 8, ds);
	x86_put64(gregs + G_ES * 8, es);
	x86_put64(gregs + G_FS * 8, fs);
	x86_put64(gregs + G_GS * 8, gs);
	syscall(SYS_arch_prctl, ARCH_GET_FS, &base);
	x86_put64(gregs + G_FS_BASE * 8, base);
	base = 0;
	syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
	x86_put64(gregs + G_GS_BASE * 8, base);
	/* No system call is under way that the kernel could want to restart. */
	x86_put64(gregs + G_ORIG_RAX * 8, UINT64_MAX);
}

/* Copies the frame's components into a standard area of cpu's layout (which is the frame's own, but
 * the frame may be shorter: the kernel leaves out what the process may not use). */
static int xstate_from_frame(
	const uint8_t *fp, const struct tf_cpu *cpu, uint8_t *area, struct tf_err *e)
{
	uint32_t size = x86_get32(fp + SW_XSTATE_SIZE);
	uint64_t bv;

	if (x86_get32(fp + SW_MAGIC1) != MAGIC1 || size < XS_MIN_SIZE ||
		x86_get32(fp + size) != MAGIC2)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"signal frame: no extended state although XCR0 is %#llx",
			(unsigned long long)cpu->xcr0);
	bv = x86_get64(fp + XS_XSTATE_BV);
	if (bv & ~cpu->xcr0)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"signal frame: XSTATE_BV %#llx is not within XCR0 %#llx",
			(unsigned long long)bv, (unsigned long long)cpu->xcr0);
	x86_legacy(area, fp, bv);
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		uint32_t offset = cpu->xcomp[i].offset, n = cpu->xcomp[i].size;

		if (!(bv & XC_BIT(i)))
			continue;
		if (offset + n > size)
			return tf_fail(e, TELEFORK_E_UNSUPPORTED,
				"signal frame: XSAVE component %u (%s) is outside", i,
				x86_component_name(i));
		memcpy(area + offset, fp + offset, n);
	}
	/* The legacy region now says the same whether or not a bit is set. */
	x86_put64(area + XS_XSTATE_BV, bv | XC_LEGACY);
	x86_put64(area + FX_SW, cpu->xcr0);
	return 0;
}

int tf_arch_regs_from_frame(const void *ucontext, const struct tf_cpu *cpu, struct tf_arena *a,
	struct tf_regs *regs, struct tf_err *e)
{
	const uint8_t *uc = ucontext;
	const uint8_t *fp = (const uint8_t *)x86_get64(uc + UC_FPSTATE);
	struct tf_regset *gp, *fx, *xs = NULL;

	if (!fp)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED, "signal frame: no floating point state");
	memset(regs, 0, sizeof(*regs));
	gp = tf_regs_add(regs, a, NT_PRSTATUS, X86_GREGS_SIZE);
	fx = tf_regs_add(regs, a, NT_FPREGSET, FX_SIZE);
	if (cpu->xcr0)
		xs = tf_regs_add(regs, a, NT_X86_XSTATE, cpu->xsave_size);
	if (!gp || !fx || (cpu->xcr0 && !xs))
		return tf_fail(e, TELEFORK_E_NOMEM, "registers: the arena is full");
	general_from_frame(uc, gp->data);
	if (!xs) {
		x86_legacy(fx->data, fp, XC_LEGACY);
		return 0;
	}
	x86_legacy(fx->data, fp, x86_get64(fp + XS_XSTATE_BV));
	return xstate_from_frame(fp, cpu, xs->data, e);
}

/* The components that a frame for src's program holds on dst: AMX tile data only if the program has
 * them, since the kernel makes room for it in frames only after ARCH_REQ_XCOMP_PERM. */
static uint64_t frame_components(const struct tf_cpu *src, const struct tf_cpu *dst)
{
	return dst->xcr0 & ~(XC_BIT(XC_TILEDATA) & ~src->xcr0);
}

static uint32_t area_size(const struct tf_cpu *cpu, uint64_t components)
{
	uint32_t size = XS_MIN_SIZE;

	if (!components)
		return FX_SIZE;
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		uint32_t end = cpu->xcomp[i].offset + cpu->xcomp[i].size;

		if ((components & XC_BIT(i)) && end > size)
			size = end;
	}
	return size;
}

size_t tf_arch_frame_size(const struct tf_regs *regs, const struct tf_cpu *dst)
{
	(void)regs;
	return ((size_t)FRAME_XSAVE + area_size(dst, dst->xcr0) + MAGIC2_SIZE + 63) & ~(size_t)63;
}

/* One component from src's layout to dst's; *bv gets its bit if it is there afterwards. */
static int convert(unsigned i, const struct tf_regset *xs, const struct tf_cpu *src,
	const struct tf_cpu *dst, uint64_t components, uint8_t *area, struct tf_err *e)
{
	const uint8_t *from = xs ? x86_component(xs->data, xs->size, src, i) : NULL;
	uint32_t have = src->xcomp[i].size, room = dst->xcomp[i].size;
	uint32_t n = have < room ? have : room;
	uint64_t bv = x86_get64(area + XS_XSTATE_BV);

	if (!(components & XC_BIT(i))) {
		if (!from || x86_all_zero(from, have) ||
			(i == XC_PKRU && x86_get32(from) == X86_PKRU_LINUX))
			return 0;
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"%s registers are in use, the processor has none", x86_component_name(i));
	}
	if (i == XC_PKRU && !(src->xcr0 & XC_BIT(i))) {
		/* A machine without protection keys allows everything by key 0. */
		x86_put32(area + dst->xcomp[i].offset, X86_PKRU_LINUX);
		x86_put64(area + XS_XSTATE_BV, bv | XC_BIT(i));
		return 0;
	}
	if (!from)
		return 0;
	if (!x86_all_zero(from + n, have - n))
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"%s: %u bytes are in use, the processor has %u", x86_component_name(i),
			have, room);
	memcpy(area + dst->xcomp[i].offset, from, n);
	x86_put64(area + XS_XSTATE_BV, bv | XC_BIT(i));
	return 0;
}

static int xstate_to_frame(const struct tf_thread *thread, const struct tf_cpu *src,
	const struct tf_cpu *dst, uint8_t *area, struct tf_err *e)
{
	const struct tf_regset *xs = tf_regs_find(&thread->regs, NT_X86_XSTATE);
	const struct tf_regset *fx = tf_regs_find(&thread->regs, NT_FPREGSET);
	uint64_t components = frame_components(src, dst);
	uint32_t size = area_size(dst, components);

	if (xs && xs->size >= XS_MIN_SIZE)
		x86_legacy(area, xs->data, x86_get64(xs->data + XS_XSTATE_BV));
	else if (fx && fx->size >= FX_SIZE)
		x86_legacy(area, fx->data, XC_LEGACY);
	else
		return tf_fail(e, TELEFORK_E_IMAGE, "registers: no floating point state");
	if (x86_get32(area + FX_MXCSR) & ~X86_MXCSR_VALID)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE, "MXCSR %#x has bits of one processor",
			x86_get32(area + FX_MXCSR));
	if (components)
		x86_put64(area + XS_XSTATE_BV, XC_LEGACY);
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		int r = convert(i, xs && xs->size >= XS_MIN_SIZE ? xs : NULL, src, dst, components,
			area, e);

		if (r)
			return r;
	}
	if (!components)
		return 0;
	x86_put32(area + SW_MAGIC1, MAGIC1);
	x86_put32(area + SW_EXTENDED_SIZE, size + MAGIC2_SIZE);
	x86_put64(area + SW_XFEATURES, components);
	x86_put32(area + SW_XSTATE_SIZE, size);
	x86_put32(area + size, MAGIC2);
	return 0;
}

static void context_to_frame(const struct tf_thread *thread, const uint8_t *gregs, bool xstate,
	uint64_t xsave_addr, uint8_t *uc)
{
	uint64_t flags = x86_get64(gregs + G_EFLAGS * 8);
	const uint16_t selectors[4] = {USER_CS, 0, 0, USER_SS};

	x86_put64(uc + UC_FLAGS,
		(xstate ? UC_FP_XSTATE : 0) | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
	x86_put64(uc + UC_STACK_SP, thread->altstack.sp);
	x86_put32(uc + UC_STACK_FL, (uint32_t)(thread->altstack.flags & SS_KEEP));
	x86_put64(uc + UC_STACK_SZ, thread->altstack.size);
	for (unsigned i = 0; i < 18; i++)
		memcpy(uc + UC_MCONTEXT + i * 8, gregs + context_gregs[i] * 8, 8);
	/* Bit 1 is always set, bit 9 is IF. */
	x86_put64(uc + UC_MCONTEXT + 17 * 8, (flags & X86_FLAGS_MASK) | 0x202);
	memcpy(uc + UC_CS, selectors, sizeof(selectors));
	x86_put64(uc + UC_OLDMASK, thread->sigmask);
	x86_put64(uc + UC_FPSTATE, xsave_addr);
	x86_put64(uc + UC_SIGMASK, thread->sigmask);
}

int tf_arch_frame_from_regs(const struct tf_thread *thread, const struct tf_cpu *src,
	const struct tf_cpu *dst, uint8_t *buf, size_t len, uint64_t addr, uint64_t *ret_sp,
	struct tf_err *e)
{
	const struct tf_regset *gp = tf_regs_find(&thread->regs, NT_PRSTATUS);
	int r;

	if (!gp || gp->size < X86_GREGS_SIZE)
		return tf_fail(e, TELEFORK_E_IMAGE, "registers: no NT_PRSTATUS");
	if (len < tf_arch_frame_size(&thread->regs, dst))
		return tf_fail(e, TELEFORK_E_LIMIT, "signal frame: %zu bytes are too few", len);
	if (addr % 64)
		return tf_fail(e, TELEFORK_E_INVAL, "signal frame: address %#llx is not aligned",
			(unsigned long long)addr);
	memset(buf, 0, tf_arch_frame_size(&thread->regs, dst));
	context_to_frame(thread, gp->data, dst->xcr0 != 0, addr + FRAME_XSAVE, buf + FRAME_UC);
	r = xstate_to_frame(thread, src, dst, buf + FRAME_XSAVE, e);
	if (r)
		return r;
	*ret_sp = addr + FRAME_UC;
	return 0;
}

size_t tf_arch_frame_general(size_t *ret_n)
{
	*ret_n = 15;
	return FRAME_UC + UC_MCONTEXT;
}

uint64_t tf_arch_frame_call(void)
{
	return 1u << 13 /* rax */ | 1u << 9 /* rsi */;
}
