/* SPDX-License-Identifier: MIT */
/*
 * aarch64 for the register probe: values that every processor keeps. FPCR takes the rounding mode,
 * FZ, DN and AHP; FFR must be ones, then zeroes (Arm ARM, WRFFR).
 */
#include <elf.h>
#include <ucontext.h>

#include "arch/aarch64/layout.h"
#include "tests/probes/probe.h"
#include "tests/probes/registers.h"

#define FPCR_CHOICE 0x07c00000u
#define FPSR_CHOICE 0x0800009fu /* QC, and every exception */

void registers_layout(struct registers_state *s, const struct tf_cpu *cpu)
{
	uint32_t size = sve_set_size(cpu->vl);

	memset(s, 0, sizeof(*s));
	s->general = s->data[0];
	s->floating = s->data[1];
	s->thread = s->data[3];
	s->regs.set[0] = (struct tf_regset){NT_PRSTATUS, ARM_GREGS_SIZE, s->general};
	s->regs.set[1] = (struct tf_regset){NT_FPREGSET, FP_SIZE, s->floating};
	s->regs.set[2] = (struct tf_regset){NT_ARM_TLS, 8, s->thread};
	s->regs.n = 3;
	if (!cpu->vl)
		return;
	s->extended = s->data[2];
	s->regs.set[s->regs.n++] = (struct tf_regset){NT_ARM_SVE, size, s->extended};
	arm_put32(s->extended + SVE_SIZE, size);
	arm_put32(s->extended + SVE_MAX_SIZE, size);
	arm_put16(s->extended + SVE_VL, (uint16_t)cpu->vl);
	arm_put16(s->extended + SVE_MAX_VL, (uint16_t)cpu->vl);
	arm_put16(s->extended + SVE_FLAGS, SVE_FLAG_REGS);
}

static void pattern_sve(struct registers_state *s, uint32_t vl, uint64_t *seed)
{
	uint8_t *sve = s->extended + SVE_HEADER, *ffr = sve + sve_ffr(vl);
	uint64_t ones = probe_next(seed) % (vl - 1) + 1;

	for (uint32_t i = 0; i < sve_ffr(vl); i++)
		sve[i] = (uint8_t)probe_next(seed);
	for (uint32_t i = 0; i < vl; i++)
		if (i < ones)
			ffr[i / 8] |= (uint8_t)(1u << i % 8);
	for (unsigned i = 0; i < 32; i++)
		memcpy(s->floating + FP_V + 16 * i, sve + sve_z(vl, i), 16);
}

void registers_pattern(struct registers_state *s, const struct tf_cpu *cpu, uint64_t seed)
{
	registers_layout(s, cpu);
	for (unsigned i = 0; i < G_COUNT; i++)
		arm_put64(s->general + 8 * i, probe_next(&seed));
	arm_put64(s->general + 8 * G_PSTATE, probe_next(&seed) & PSTATE_NZCV);
	for (unsigned i = 0; i < FP_FPSR; i += 8)
		arm_put64(s->floating + i, probe_next(&seed));
	arm_put32(s->floating + FP_FPSR, (uint32_t)probe_next(&seed) & FPSR_CHOICE);
	arm_put32(s->floating + FP_FPCR, (uint32_t)probe_next(&seed) & FPCR_CHOICE);
	if (s->extended)
		pattern_sve(s, cpu->vl, &seed);
}

uint64_t *registers_pc(void *ucontext)
{
	return (uint64_t *)&((ucontext_t *)ucontext)->uc_mcontext.pc;
}
