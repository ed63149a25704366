/* SPDX-License-Identifier: MIT */
/*
 * Layouts of x86_64 that the any-build tables (regs.c) and the native code (frame.c, plan.c) share:
 * user_regs_struct of <sys/user.h>, the FXSAVE and XSAVE areas of the Intel SDM (volume 1, 10.5.1
 * and 13.4). Spelled as offsets, so that any host can read them. Little-endian hosts only.
 */
#ifndef TF_ARCH_X86_64_LAYOUT_H
#define TF_ARCH_X86_64_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "arch/regs.h"

/* user_regs_struct: 27 words of 8 bytes (kernel: arch/x86/include/asm/user_64.h). */
enum x86_greg {
	G_R15,
	G_R14,
	G_R13,
	G_R12,
	G_RBP,
	G_RBX,
	G_R11,
	G_R10,
	G_R9,
	G_R8,
	G_RAX,
	G_RCX,
	G_RDX,
	G_RSI,
	G_RDI,
	G_ORIG_RAX,
	G_RIP,
	G_CS,
	G_EFLAGS,
	G_RSP,
	G_SS,
	G_FS_BASE,
	G_GS_BASE,
	G_DS,
	G_ES,
	G_FS,
	G_GS,
	G_COUNT,
};

#define X86_GREGS_SIZE (G_COUNT * 8)

/* CF PF AF ZF SF DF OF AC: what a program sets and a signal frame restores (kernel: FIX_EFLAGS,
 * without TF, which is a debugger's, and RF). */
#define X86_FLAGS_MASK UINT64_C(0x40cd5)

/* FXSAVE area (SDM volume 1, table 10-2). */
#define FX_FCW        0
#define FX_FSW        2
#define FX_FTW        4 /* abridged: one bit a register */
#define FX_FOP        6
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define FX_ST         32 /* 8 x 16 bytes, 10 of them used */
#define FX_XMM        160
#define FX_SIZE       512
#define FX_SW         464 /* bytes 464..511 are software's: sigframe magic, or XCR0 in a regset */

/* XSAVE header (SDM volume 1, 13.4.2). */
#define XS_HEADER      512
#define XS_XSTATE_BV   512
#define XS_XCOMP_BV    520
#define XS_HEADER_SIZE 64
#define XS_MIN_SIZE    576

/* Components (SDM volume 1, 13.1). */
enum x86_xcomp {
	XC_X87,
	XC_SSE,
	XC_AVX,
	XC_BNDREGS,
	XC_BNDCSR,
	XC_OPMASK,
	XC_ZMM_HI256,
	XC_HI16_ZMM,
	XC_PT,
	XC_PKRU,
	XC_TILECFG = 17,
	XC_TILEDATA = 18,
};

#define XC_BIT(i)       (UINT64_C(1) << (i))
#define XC_LEGACY       (XC_BIT(XC_X87) | XC_BIT(XC_SSE))
#define XC_AVX512       (XC_BIT(XC_OPMASK) | XC_BIT(XC_ZMM_HI256) | XC_BIT(XC_HI16_ZMM))
#define X86_FCW         0x37f  /* after FNINIT */
#define X86_MXCSR       0x1f80 /* after reset */
#define X86_MXCSR_VALID 0xffffu

/* arch/x86/mm/pkeys.c init_pkru_value: what exec gives, only key 0 may be used. */
#define X86_PKRU_LINUX UINT32_C(0x55555554)

static inline uint32_t x86_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t x86_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void x86_put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void x86_put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void x86_put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* Extended component i (2 and above) inside a standard-format area of size bytes, or NULL when the
 * processor lacks it or XSTATE_BV says that it is in its initial state (all zero). */
static inline const uint8_t *x86_component(
	const uint8_t *area, uint32_t size, const struct tf_cpu *cpu, unsigned i)
{
	if (!(cpu->xcr0 & XC_BIT(i)) || !(x86_get64(area + XS_XSTATE_BV) & XC_BIT(i)))
		return NULL;
	if (!cpu->xcomp[i].size || cpu->xcomp[i].offset > size ||
		cpu->xcomp[i].size > size - cpu->xcomp[i].offset)
		return NULL;
	return area + cpu->xcomp[i].offset;
}

static inline bool x86_all_zero(const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* The legacy region with its XSTATE_BV applied: x87 and xmm in their initial state where the bit is
 * clear; MXCSR always stands in memory (SDM volume 1, 13.8.1). Software bytes are left zero. */
static inline void x86_legacy(uint8_t out[static FX_SIZE], const uint8_t *area, uint64_t bv)
{
	memset(out, 0, FX_SIZE);
	x86_put16(out + FX_FCW, X86_FCW);
	if (bv & XC_BIT(XC_X87))
		memcpy(out, area, FX_MXCSR);
	memcpy(out + FX_MXCSR, area + FX_MXCSR, 8);
	if (bv & XC_BIT(XC_X87))
		memcpy(out + FX_ST, area + FX_ST, FX_XMM - FX_ST);
	if (bv & XC_BIT(XC_SSE))
		memcpy(out + FX_XMM, area + FX_XMM, 256);
}

/* The least size that a component's register needs here; 0: no register is named in it. */
static inline uint32_t x86_component_size(unsigned i)
{
	switch (i) {
	case XC_AVX:
		return 256;
	case XC_OPMASK:
		return 64;
	case XC_ZMM_HI256:
		return 512;
	case XC_HI16_ZMM:
		return 1024;
	case XC_PKRU:
		return 4;
	default:
		return 0;
	}
}

static inline const char *x86_component_name(unsigned i)
{
	static const char *const names[] = {"x87", "SSE", "AVX", "BNDREGS", "BNDCSR",
		"AVX-512 opmask", "AVX-512 ZMM_Hi256", "AVX-512 Hi16_ZMM", "PT", "PKRU", "PASID",
		"CET_U", "CET_S", "HDC", "UINTR", "LBR", "HWP", "AMX TILECFG", "AMX TILEDATA",
		"APX"};

	return i < sizeof(names) / sizeof(names[0]) ? names[i] : "unknown";
}

#endif
