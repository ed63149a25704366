/* SPDX-License-Identifier: MIT */
/*
 * What the register probe asks of an architecture: tests/probes/<arch>/registers.S loads every
 * register from memory, stays at one place, and stores every register; state.c there knows which
 * values a register can take. State lies in the layouts of the regsets (arch/regs.h), so that the
 * register table says what is what.
 */
#ifndef TF_TESTS_REGISTERS_H
#define TF_TESTS_REGISTERS_H

#include <signal.h>
#include <stdbool.h>

#include "arch/regs.h"

/* Where the assembly finds the regsets' data. Offsets 0, 8, 16, 24, 32 are known there. */
struct registers_state {
	uint8_t *general;  /* NT_PRSTATUS */
	uint8_t *floating; /* NT_FPREGSET */
	uint8_t *extended; /* NT_X86_XSTATE, NT_ARM_SVE; NULL: the processor has none */
	uint8_t *thread;   /* NT_ARM_TLS; NULL: is in general */
	uint64_t mask;     /* components of extended */
	struct tf_regs regs;
	uint8_t data[4][16384] __attribute__((aligned(64)));
};

/* Lays out s for this processor, everything zero but what says which layout it is. */
void registers_layout(struct registers_state *s, const struct tf_cpu *cpu);

/* Fills s with values that belong to the seed and that every processor keeps bit for bit. */
void registers_pattern(struct registers_state *s, const struct tf_cpu *cpu, uint64_t seed);

/*
 * Loads every register from load, and stays between registers_begin and registers_end with all of
 * them loaded, but for moments in which it looks at telefork_generation()'s word in memory. When
 * that says that this is a copy, or when somebody moves the pc to registers_leave, stores every
 * register into store and returns. hold: stays at registers_held, one jump to itself, and looks at
 * nothing. What cannot be chosen (sp, pc, thread pointer) is written into load on the way.
 */
void registers_spin(struct registers_state *load, struct registers_state *store, bool hold);
extern const char registers_begin[], registers_end[], registers_held[], registers_leave[];

/* Handler to install: makes C usable under any emulator, then calls registers_signal(). */
void registers_handler(int signo, siginfo_t *info, void *ucontext);
void registers_signal(int signo, siginfo_t *info, void *ucontext);

/* The interrupted pc in a signal's frame. */
uint64_t *registers_pc(void *ucontext);

#endif
