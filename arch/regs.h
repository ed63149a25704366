/* SPDX-License-Identifier: MIT */
/*
 * Registers as regsets, in the kernel's own NT_* layouts, and the tables that describe them. Built
 * into every build for every architecture, so that an x86_64 host shows and compares aarch64
 * images. Nothing in here touches the machine it runs on: that is arch/arch.h.
 */
#ifndef TF_ARCH_REGS_H
#define TF_ARCH_REGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/err.h"

#define TF_REGSETS_MAX   12
#define TF_REGSET_MAX    65536u /* bytes; NT_ARM_SVE at 256-byte vectors has 8,768 */
#define TF_XCOMPONENTS   32
#define TF_FEATURE_WORDS 40

/* One regset: a note "CORE"/"LINUX" of this type, with the kernel's layout in data. NT_PRSTATUS
 * holds only the general registers here (user_regs_struct, user_pt_regs); elfcore.c wraps them in a
 * struct elf_prstatus. Data is owned by the arena that the image lives in, 16-byte aligned. */
struct tf_regset {
	uint32_t type; /* NT_* of <elf.h> */
	uint32_t size;
	uint8_t *data;
};

struct tf_regs {
	uint32_t n;
	struct tf_regset set[TF_REGSETS_MAX];
};

/* The processor as the program saw it: what restore and compat need to convert and to refuse. */
struct tf_cpu {
	uint32_t n_words;
	uint64_t features[TF_FEATURE_WORDS]; /* features *in use*; meaning of each bit:
						tf_arch.features */
	uint64_t xcr0;                       /* x86_64: enabled XSAVE components; else 0 */
	uint32_t xsave_size;                 /* x86_64: bytes of a standard-format area for xcr0 */
	struct {
		uint32_t offset, size; /* standard format, CPUID(0xD, i).EBX/EAX; size 0: absent */
	} xcomp[TF_XCOMPONENTS];
	uint32_t vl;      /* aarch64: SVE vector length of the thread, bytes; 0: no SVE */
	uint32_t vl_mask; /* aarch64: bit n: vectors of 16*(n+1) bytes are possible (n < 16) */
	uint32_t reserved;
};

/* One named feature bit, for refusals ("AVX512F") and for telefork run --baseline. */
struct tf_feature {
	const char *name;    /* as /proc/cpuinfo or the manual has it */
	uint16_t word, bit;  /* in tf_cpu.features */
	const char *tunable; /* what stands behind "-" in GLIBC_TUNABLES glibc.cpu.hwcaps, or NULL.
				What glibc itself does not know it ignores; tf_arch_cpu() takes it
				as a declaration. */
	bool hint; /* only a matter of speed, or the kernel's: shown, never a reason to refuse */
};

/* A set of features that a program can be held to, by a name that people know. Each holds what the
 * one before it in the table holds. */
struct tf_baseline {
	const char *name;     /* "x86-64-v3" */
	const char *features; /* names that it adds, separated by blanks */
	const char *what;     /* processors that have it, for people */
};

/* One register for display, comparison and counting. Offsets are into the regset's data. */
struct tf_reg {
	const char *name;
	uint32_t regset; /* NT_* */
	uint32_t offset; /* bytes */
	uint32_t size;   /* bytes */
	uint32_t klass;  /* TF_REG_*: which kind of state this is, for mutants and reports */
};

enum tf_reg_class {
	TF_REG_GENERAL, /* GPRs, sp */
	TF_REG_PC,
	TF_REG_FLAGS,     /* rflags, NZCV */
	TF_REG_THREAD,    /* fs/gs base, TPIDR_EL0 */
	TF_REG_FPCONTROL, /* x87 control/status/tag, MXCSR, FPCR, FPSR */
	TF_REG_X87,       /* st0-7 */
	TF_REG_VECTOR,    /* xmm/ymm/zmm, v/z */
	TF_REG_PREDICATE, /* k0-7, p0-15, ffr */
	TF_REG_PKRU,
	TF_REG_PAC,    /* keys */
	TF_REG_SYSTEM, /* segment selectors, orig_rax, system call number: shown, never compared */
	TF_REG_CLASSES,
};

/* Static name of a class ("vector"). */
const char *tf_reg_class_name(enum tf_reg_class klass);

/* Longest register value: z0 at the architectural maximum of 256 bytes. */
#define TF_REG_VALUE_MAX 256

typedef int tf_reg_fn(void *ctx, const struct tf_reg *reg, const uint8_t *value);

/* What any build knows about an architecture. */
struct tf_arch {
	const char *name;        /* "x86_64" */
	uint32_t machine;        /* ELF e_machine */
	uint32_t prstatus_gregs; /* bytes of the general registers inside struct elf_prstatus */
	uint32_t max_user_bits;  /* 57, 52: addresses above are refused by the decoder */
	uint32_t red_zone;       /* bytes below sp that no signal handler overwrites (psABI) */
	const struct tf_feature *features;
	size_t n_features;
	const struct tf_baseline *baselines; /* from the least on */
	size_t n_baselines;

	/* Calls fn for every register that regs holds, in a fixed order: composed values (a whole
	 * ymm or zmm gathered from its components by cpu's XSAVE layout, components in their
	 * initial state read as such (XSTATE_BV), z and p at the vector length of NT_ARM_SVE). The
	 * struct passed has the value's size; value has that many bytes. Stops when fn returns
	 * non-zero, and returns that. */
	int (*each)(const struct tf_regs *regs, const struct tf_cpu *cpu, tf_reg_fn *fn, void *ctx);

	/* Structure check of decoded regsets (sizes, XSAVE header and components inside the area,
	 * SVE header against size and vector length). 0 or -TELEFORK_E_IMAGE. */
	int (*check)(const struct tf_regs *regs, const struct tf_cpu *cpu, struct tf_err *e);

	uint64_t (*pc)(const struct tf_regs *regs);
	uint64_t (*sp)(const struct tf_regs *regs);
	/* The register that holds a function's integer result: rax, x0. */
	void (*set_result)(struct tf_regs *regs, uint64_t value);
	void (*set_pc)(struct tf_regs *regs, uint64_t value);
};

/* By ELF machine; NULL if unknown. */
const struct tf_arch *tf_arch_by_machine(uint32_t machine);

/* By name; NULL if unknown. */
const struct tf_arch *tf_arch_by_name(const char *name);

extern const struct tf_arch tf_arch_x86_64, tf_arch_aarch64;

/* Whether a processor has a feature. */
bool tf_cpu_has(const struct tf_cpu *cpu, const struct tf_feature *f);

/* Whether a program that is held to baseline (an element of arch->baselines) may use f. Hints are
 * in every baseline. */
bool tf_baseline_has(
	const struct tf_arch *arch, const struct tf_baseline *baseline, const struct tf_feature *f);

/* By name, NULL if there is none. */
const struct tf_baseline *tf_baseline_by_name(const struct tf_arch *arch, const char *name);

/* The greatest baseline all of whose features cpu has; NULL if there is none. */
const struct tf_baseline *tf_baseline_within(const struct tf_arch *arch, const struct tf_cpu *cpu);

/* The set of that type, or NULL. */
struct tf_regset *tf_regs_find(const struct tf_regs *regs, uint32_t type);

/* Appends a zeroed set of size bytes; NULL when the arena or the array is full. */
struct tf_regset *tf_regs_add(
	struct tf_regs *regs, struct tf_arena *a, uint32_t type, uint32_t size);

/* Number of registers that `each` visits and that are compared (class other than TF_REG_SYSTEM). */
unsigned tf_regs_count(
	const struct tf_arch *arch, const struct tf_regs *regs, const struct tf_cpu *cpu);

/* Compares two sets register by register (TF_REG_SYSTEM left out). Vector registers that differ in
 * width only in their name's first letter (xmm3, zmm3; v3, z3) are the same register: the wider
 * one's rest is compared with zero. A thread, vector, predicate or PKRU register that one side's
 * machine lacks equals its initial state there. Calls differ (may be NULL) for
 * each inequality with both values (NULL if absent on that side; sizes are those of the register).
 * Returns the number of differences; *ret_equal (may be NULL) the number equal. */
typedef void tf_reg_diff_fn(
	void *ctx, const struct tf_reg *reg, const uint8_t *a, const uint8_t *b);
unsigned tf_regs_diff(const struct tf_arch *arch, const struct tf_regs *a,
	const struct tf_cpu *cpu_a, const struct tf_regs *b, const struct tf_cpu *cpu_b,
	tf_reg_diff_fn *differ, void *ctx, unsigned *ret_equal);

#endif
