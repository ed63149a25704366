/* SPDX-License-Identifier: MIT */
/*
 * Junk into every x86_64 register that C does not need on its way into the restorer, so that
 * nothing arrives in a copy by being inherited from the receiver.
 */
#include "arch/arch.h"
#include "arch/restorer.h"
#include "arch/x86_64/layout.h"

#define JUNK         0x5a
#define JUNK_ADDRESS 0x5a5a5a5a5a50L
#define JUNK_FCW     0x0a7f /* every exception stays masked: nothing may trap */
#define JUNK_FSW     0x2a00
#define JUNK_MXCSR   0xdfbf
#define JUNK_PKRU    UINT32_C(0x5a5a5a58) /* key 0 stays usable */
#define SCRAMBLED    (XC_LEGACY | XC_BIT(XC_AVX) | XC_AVX512 | XC_BIT(XC_PKRU))

#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002

static uint8_t area[16384] __attribute__((aligned(64)));

static void load(const struct tf_cpu *cpu)
{
	uint64_t mask = cpu->xcr0 & SCRAMBLED;

	memset(area, JUNK, sizeof(area));
	x86_put16(area + FX_FCW, JUNK_FCW);
	x86_put16(area + FX_FSW, JUNK_FSW);
	area[FX_FTW] = 0xff;
	x86_put32(area + FX_MXCSR, JUNK_MXCSR);
	memset(area + XS_HEADER, 0, XS_HEADER_SIZE);
	x86_put64(area + XS_XSTATE_BV, mask);
	if (mask & XC_BIT(XC_PKRU))
		x86_put32(area + cpu->xcomp[XC_PKRU].offset, JUNK_PKRU);
	if (mask && cpu->xsave_size <= sizeof(area))
		__asm__ volatile("xrstor64 %0"
				 :
				 : "m"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
				 : "memory");
	else
		__asm__ volatile("fxrstor64 %0" : : "m"(area) : "memory");
}

void tf_arch_scramble(const struct tf_cpu *cpu)
{
	load(cpu);
	tf_r_syscall(TF_R_NR_arch_prctl, ARCH_SET_GS, JUNK_ADDRESS, 0, 0, 0, 0);
	tf_r_syscall(TF_R_NR_arch_prctl, ARCH_SET_FS, JUNK_ADDRESS, 0, 0, 0, 0);
}
