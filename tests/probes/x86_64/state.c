/* SPDX-License-Identifier: MIT */
/*
 * x86_64 for the register probe: values that every processor keeps. Exceptions stay masked and
 * reserved bits clear; key 0 of PKRU stays usable, since all memory has it; AC stays clear, since
 * nothing else in a program could live with it.
 */
#include <elf.h>
#include <ucontext.h>

#include "arch/x86_64/layout.h"
#include "tests/probes/probe.h"
#include "tests/probes/registers.h"

#define FLAGS_LOADED (X86_FLAGS_MASK & ~UINT64_C(0x40000)) /* without AC */
#define FLAGS_ALWAYS UINT64_C(0x202)
#define FCW_MASKED   0x7f
#define FCW_ROUNDING 0xc00
#define FSW_FLAGS    0x473f /* C0-C3 without TOP, exceptions without SF and ES */
#define MXCSR_CHOICE 0xe07f /* FTZ, rounding, DAZ, flags */
#define KNOWN        (XC_LEGACY | XC_BIT(XC_AVX) | XC_AVX512 | XC_BIT(XC_PKRU))

void registers_layout(struct registers_state *s, const struct tf_cpu *cpu)
{
	memset(s, 0, sizeof(*s));
	s->general = s->data[0];
	s->floating = s->data[1];
	s->regs.set[0] = (struct tf_regset){NT_PRSTATUS, X86_GREGS_SIZE, s->general};
	s->regs.set[1] = (struct tf_regset){NT_FPREGSET, FX_SIZE, s->floating};
	s->regs.n = 2;
	if (!cpu->xcr0)
		return;
	s->extended = s->data[2];
	s->mask = cpu->xcr0 & KNOWN;
	s->regs.set[s->regs.n++] = (struct tf_regset){NT_X86_XSTATE, cpu->xsave_size, s->extended};
	x86_put64(s->extended + FX_SW, cpu->xcr0);
}

static void pattern_legacy(uint8_t *fx, uint64_t *seed)
{
	uint64_t r = probe_next(seed);
	uint16_t precision = r & 1 ? 0x200 : r & 2 ? 0x300 : 0;

	x86_put16(fx + FX_FCW, (uint16_t)(FCW_MASKED | precision | (r >> 8 & FCW_ROUNDING)));
	x86_put16(fx + FX_FSW, (uint16_t)((r >> 24 & FSW_FLAGS) | (r >> 40 & 7) << 11));
	fx[FX_FTW] = 0xff;
	fx[FX_FTW + 1] = 0;
	memset(fx + FX_FOP, 0, FX_MXCSR - FX_FOP);
	x86_put32(fx + FX_MXCSR, X86_MXCSR | (uint32_t)(probe_next(seed) & MXCSR_CHOICE));
	for (unsigned i = 0; i < 8; i++)
		memset(fx + FX_ST + 16 * i + 10, 0, 6);
	memset(fx + FX_XMM + 256, 0, FX_SIZE - FX_XMM - 256);
}

static void pattern_general(uint8_t *general, uint64_t *seed)
{
	uint64_t flags = probe_next(seed) & FLAGS_LOADED;

	for (unsigned i = 0; i < G_COUNT; i++)
		x86_put64(general + 8 * i, probe_next(seed));
	x86_put64(general + 8 * G_EFLAGS, flags | FLAGS_ALWAYS | 0x400 /* DF */);
	x86_put64(general + 8 * G_GS_BASE, probe_next(seed) >> 17);
}

void registers_pattern(struct registers_state *s, const struct tf_cpu *cpu, uint64_t seed)
{
	registers_layout(s, cpu);
	pattern_general(s->general, &seed);
	for (unsigned i = 0; i < FX_SIZE; i += 8)
		x86_put64(s->floating + i, probe_next(&seed));
	pattern_legacy(s->floating, &seed);
	if (!s->extended)
		return;
	memcpy(s->extended, s->floating, FX_SIZE);
	x86_put64(s->extended + FX_SW, cpu->xcr0);
	x86_put64(s->extended + XS_XSTATE_BV, s->mask);
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		uint8_t *p = s->extended + cpu->xcomp[i].offset;

		if (!(s->mask & XC_BIT(i)))
			continue;
		for (uint32_t at = 0; at < cpu->xcomp[i].size; at += 8)
			x86_put64(p + at, probe_next(&seed));
		if (i == XC_PKRU)
			x86_put64(p, x86_get32(p) & ~UINT32_C(3));
	}
}

uint64_t *registers_pc(void *ucontext)
{
	return (uint64_t *)&((ucontext_t *)ucontext)->uc_mcontext.gregs[REG_RIP];
}
