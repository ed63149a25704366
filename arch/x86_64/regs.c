/* SPDX-License-Identifier: MIT */
/*
 * x86_64 in every build: its registers as a table over NT_PRSTATUS, NT_FPREGSET and NT_X86_XSTATE,
 * the structure check of those regsets, and the names of processor features. No instruction and no
 * header of an x86_64 host is needed here.
 */
#include <elf.h>

#include "arch/x86_64/layout.h"

/* Word numbers: glibc's leaf order (sys/platform/x86.h, CPUID_INDEX_*) * 4 + {eax, ebx, ecx, edx}.
 */
#define LEAF_1_ECX        2
#define LEAF_1_EDX        3
#define LEAF_7_EBX        5
#define LEAF_7_ECX        6
#define LEAF_7_EDX        7
#define LEAF_80000001_ECX 10
#define LEAF_D_1_EAX      12
#define LEAF_7_1_EAX      24

#define F(name, word, bit)                   \
	{                                    \
		name, word, bit, name, false \
	}
#define HINT(name, word, bit)               \
	{                                   \
		name, word, bit, name, true \
	}

/* Bits: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. Names as glibc.cpu.hwcaps spells
 * them where it knows them. */
static const struct tf_feature features[] = {
	F("SSE3", LEAF_1_ECX, 0),
	F("PCLMULQDQ", LEAF_1_ECX, 1),
	F("SSSE3", LEAF_1_ECX, 9),
	F("FMA", LEAF_1_ECX, 12),
	F("CMPXCHG16B", LEAF_1_ECX, 13),
	F("SSE4_1", LEAF_1_ECX, 19),
	F("SSE4_2", LEAF_1_ECX, 20),
	F("MOVBE", LEAF_1_ECX, 22),
	F("POPCNT", LEAF_1_ECX, 23),
	F("AES", LEAF_1_ECX, 25),
	F("XSAVE", LEAF_1_ECX, 26),
	F("OSXSAVE", LEAF_1_ECX, 27),
	/* glibc 2.36 decides for its AVX memcpy by the second word alone. */
	{"AVX", LEAF_1_ECX, 28, "AVX,-AVX_Fast_Unaligned_Load", false},
	F("F16C", LEAF_1_ECX, 29),
	F("RDRAND", LEAF_1_ECX, 30),
	F("CX8", LEAF_1_EDX, 8),
	F("CMOV", LEAF_1_EDX, 15),
	F("MMX", LEAF_1_EDX, 23),
	F("FXSR", LEAF_1_EDX, 24),
	F("SSE", LEAF_1_EDX, 25),
	F("SSE2", LEAF_1_EDX, 26),
	F("BMI1", LEAF_7_EBX, 3),
	HINT("HLE", LEAF_7_EBX, 4), /* prefixes that other processors ignore */
	F("AVX2", LEAF_7_EBX, 5),
	F("BMI2", LEAF_7_EBX, 8),
	HINT("ERMS", LEAF_7_EBX, 9), /* rep movsb is everywhere, fast or not */
	F("RTM", LEAF_7_EBX, 11),
	F("AVX512F", LEAF_7_EBX, 16),
	F("AVX512DQ", LEAF_7_EBX, 17),
	F("RDSEED", LEAF_7_EBX, 18),
	F("ADX", LEAF_7_EBX, 19),
	F("AVX512_IFMA", LEAF_7_EBX, 21),
	F("CLFLUSHOPT", LEAF_7_EBX, 23),
	F("CLWB", LEAF_7_EBX, 24),
	F("AVX512PF", LEAF_7_EBX, 26),
	F("AVX512ER", LEAF_7_EBX, 27),
	F("AVX512CD", LEAF_7_EBX, 28),
	F("SHA", LEAF_7_EBX, 29),
	F("AVX512BW", LEAF_7_EBX, 30),
	F("AVX512VL", LEAF_7_EBX, 31),
	F("AVX512_VBMI", LEAF_7_ECX, 1),
	/* Whoever uses protection keys has a PKRU that says so: that is checked instead. */
	HINT("PKU", LEAF_7_ECX, 3),
	HINT("OSPKE", LEAF_7_ECX, 4),
	F("WAITPKG", LEAF_7_ECX, 5),
	F("AVX512_VBMI2", LEAF_7_ECX, 6),
	F("GFNI", LEAF_7_ECX, 8),
	F("VAES", LEAF_7_ECX, 9),
	F("VPCLMULQDQ", LEAF_7_ECX, 10),
	F("AVX512_VNNI", LEAF_7_ECX, 11),
	F("AVX512_BITALG", LEAF_7_ECX, 12),
	F("AVX512_VPOPCNTDQ", LEAF_7_ECX, 14),
	F("RDPID", LEAF_7_ECX, 22),
	F("MOVDIRI", LEAF_7_ECX, 27),
	F("MOVDIR64B", LEAF_7_ECX, 28),
	F("AVX512_4VNNIW", LEAF_7_EDX, 2),
	F("AVX512_4FMAPS", LEAF_7_EDX, 3),
	HINT("FSRM", LEAF_7_EDX, 4),
	F("AVX512_VP2INTERSECT", LEAF_7_EDX, 8),
	F("AMX_BF16", LEAF_7_EDX, 22),
	F("AVX512_FP16", LEAF_7_EDX, 23),
	F("AMX_TILE", LEAF_7_EDX, 24),
	F("AMX_INT8", LEAF_7_EDX, 25),
	F("LAHF64_SAHF64", LEAF_80000001_ECX, 0),
	F("LZCNT", LEAF_80000001_ECX, 5),
	F("SSE4A", LEAF_80000001_ECX, 6),
	F("XOP", LEAF_80000001_ECX, 11),
	F("FMA4", LEAF_80000001_ECX, 16),
	F("TBM", LEAF_80000001_ECX, 21),
	F("XSAVEC", LEAF_D_1_EAX, 1),
	F("AVX_VNNI", LEAF_7_1_EAX, 4),
	F("AVX512_BF16", LEAF_7_1_EAX, 5),
};

/* x86-64 psABI, "Micro-Architecture Levels"; OSXSAVE says that XSAVE may be used. */
static const struct tf_baseline baselines[] = {
	{"x86-64", "CMOV CX8 FXSR MMX SSE SSE2", "every 64-bit processor"},
	{"x86-64-v2", "CMPXCHG16B LAHF64_SAHF64 POPCNT SSE3 SSE4_1 SSE4_2 SSSE3",
		"Nehalem, Silvermont, Bulldozer and later"},
	{"x86-64-v3", "AVX AVX2 BMI1 BMI2 F16C FMA LZCNT MOVBE OSXSAVE XSAVE",
		"Haswell, Excavator, Zen and later; QEMU's max"},
	{"x86-64-v4", "AVX512F AVX512BW AVX512CD AVX512DQ AVX512VL", "Skylake-SP, Zen 4 and later"},
};

#define GREG(name, index, klass)                       \
	{                                              \
		name, NT_PRSTATUS, (index)*8, 8, klass \
	}

static const struct tf_reg gregs[] = {
	GREG("rax", G_RAX, TF_REG_GENERAL),
	GREG("rbx", G_RBX, TF_REG_GENERAL),
	GREG("rcx", G_RCX, TF_REG_GENERAL),
	GREG("rdx", G_RDX, TF_REG_GENERAL),
	GREG("rsi", G_RSI, TF_REG_GENERAL),
	GREG("rdi", G_RDI, TF_REG_GENERAL),
	GREG("rbp", G_RBP, TF_REG_GENERAL),
	GREG("rsp", G_RSP, TF_REG_GENERAL),
	GREG("r8", G_R8, TF_REG_GENERAL),
	GREG("r9", G_R9, TF_REG_GENERAL),
	GREG("r10", G_R10, TF_REG_GENERAL),
	GREG("r11", G_R11, TF_REG_GENERAL),
	GREG("r12", G_R12, TF_REG_GENERAL),
	GREG("r13", G_R13, TF_REG_GENERAL),
	GREG("r14", G_R14, TF_REG_GENERAL),
	GREG("r15", G_R15, TF_REG_GENERAL),
	GREG("rip", G_RIP, TF_REG_PC),
	GREG("rflags", G_EFLAGS, TF_REG_FLAGS),
	GREG("fs_base", G_FS_BASE, TF_REG_THREAD),
	GREG("gs_base", G_GS_BASE, TF_REG_THREAD),
	GREG("cs", G_CS, TF_REG_SYSTEM),
	GREG("ss", G_SS, TF_REG_SYSTEM),
	GREG("ds", G_DS, TF_REG_SYSTEM),
	GREG("es", G_ES, TF_REG_SYSTEM),
	GREG("fs", G_FS, TF_REG_SYSTEM),
	GREG("gs", G_GS, TF_REG_SYSTEM),
	GREG("orig_rax", G_ORIG_RAX, TF_REG_SYSTEM),
};

#define ST(n)                                                          \
	{                                                              \
		"st" #n, NT_FPREGSET, FX_ST + 16 * (n), 10, TF_REG_X87 \
	}

/* fop is SYSTEM: AMD stores it only with an exception pending (APM volume 2, 11.5.4), QEMU never.
 */
static const struct tf_reg legacy[] = {
	{"fcw", NT_FPREGSET, FX_FCW, 2, TF_REG_FPCONTROL},
	{"fsw", NT_FPREGSET, FX_FSW, 2, TF_REG_FPCONTROL},
	{"ftw", NT_FPREGSET, FX_FTW, 1, TF_REG_FPCONTROL},
	{"fop", NT_FPREGSET, FX_FOP, 2, TF_REG_SYSTEM},
	{"mxcsr", NT_FPREGSET, FX_MXCSR, 4, TF_REG_FPCONTROL},
	ST(0),
	ST(1),
	ST(2),
	ST(3),
	ST(4),
	ST(5),
	ST(6),
	ST(7),
};

#define N8(p, x) p "0" x, p "1" x, p "2" x, p "3" x, p "4" x, p "5" x, p "6" x, p "7" x
#define N16(p)   N8(p, ""), p "8", p "9", p "10", p "11", p "12", p "13", p "14", p "15"
#define N32(p)                                                                                  \
	N16(p), p "16", p "17", p "18", p "19", p "20", p "21", p "22", p "23", p "24", p "25", \
		p "26", p "27", p "28", p "29", p "30", p "31"

static const char *const xmm_names[] = {N16("xmm")};
static const char *const ymm_names[] = {N16("ymm")};
static const char *const zmm_names[] = {N32("zmm")};
static const char *const k_names[] = {N8("k", "")};

/* What `each` walks over. */
struct walk {
	const uint8_t *area; /* NT_X86_XSTATE, or NULL */
	uint32_t size;
	uint32_t type;       /* NT_X86_XSTATE or NT_FPREGSET: where the legacy registers stand */
	uint8_t fx[FX_SIZE]; /* legacy region, initial state filled in */
	const struct tf_cpu *cpu;
	tf_reg_fn *fn;
	void *ctx;
};

static int each_general(const struct tf_regset *set, tf_reg_fn *fn, void *ctx)
{
	for (size_t i = 0; i < sizeof(gregs) / sizeof(gregs[0]); i++) {
		uint64_t value = x86_get64(set->data + gregs[i].offset);
		int r;

		if (gregs[i].klass == TF_REG_FLAGS)
			value &= X86_FLAGS_MASK;
		r = fn(ctx, &gregs[i], (const uint8_t *)&value);
		if (r)
			return r;
	}
	return 0;
}

static int each_legacy(const struct walk *w)
{
	for (size_t i = 0; i < sizeof(legacy) / sizeof(legacy[0]); i++) {
		struct tf_reg reg = legacy[i];
		int r;

		reg.regset = w->type;
		r = w->fn(w->ctx, &reg, w->fx + reg.offset);
		if (r)
			return r;
	}
	return 0;
}

/* Copies n bytes at offset of component i into out; zero where it is absent or initial. */
static void gather(const struct walk *w, unsigned i, uint32_t offset, uint8_t *out, uint32_t n)
{
	const uint8_t *p = w->area ? x86_component(w->area, w->size, w->cpu, i) : NULL;

	if (p && offset + n <= w->cpu->xcomp[i].size)
		memcpy(out, p + offset, n);
	else
		memset(out, 0, n);
}

static int each_vector(const struct walk *w)
{
	bool zmm = w->area && (w->cpu->xcr0 & XC_AVX512) == XC_AVX512;
	bool ymm = w->area && (w->cpu->xcr0 & XC_BIT(XC_AVX));
	unsigned n = zmm ? 32 : 16;

	for (unsigned i = 0; i < n; i++) {
		struct tf_reg reg = {.regset = w->type, .klass = TF_REG_VECTOR};
		uint8_t value[64];
		int r;

		reg.name = zmm ? zmm_names[i] : ymm ? ymm_names[i] : xmm_names[i];
		reg.size = zmm ? 64 : ymm ? 32 : 16;
		if (i < 16) {
			reg.offset = FX_XMM + 16 * i;
			memcpy(value, w->fx + reg.offset, 16);
			gather(w, XC_AVX, 16 * i, value + 16, 16);
			gather(w, XC_ZMM_HI256, 32 * i, value + 32, 32);
		} else {
			reg.offset = w->cpu->xcomp[XC_HI16_ZMM].offset + 64 * (i - 16);
			gather(w, XC_HI16_ZMM, 64 * (i - 16), value, 64);
		}
		r = w->fn(w->ctx, &reg, value);
		if (r)
			return r;
	}
	return 0;
}

static int each_mask_and_pkru(const struct walk *w)
{
	struct tf_reg reg = {.regset = w->type};
	uint8_t value[8];
	int r = 0;

	for (unsigned i = 0; i < 8 && !r && (w->cpu->xcr0 & XC_BIT(XC_OPMASK)); i++) {
		reg.name = k_names[i];
		reg.klass = TF_REG_PREDICATE;
		reg.offset = w->cpu->xcomp[XC_OPMASK].offset + 8 * i;
		reg.size = 8;
		gather(w, XC_OPMASK, 8 * i, value, 8);
		r = w->fn(w->ctx, &reg, value);
	}
	if (r || !(w->cpu->xcr0 & XC_BIT(XC_PKRU)))
		return r;
	reg.name = "pkru";
	reg.klass = TF_REG_PKRU;
	reg.offset = w->cpu->xcomp[XC_PKRU].offset;
	reg.size = 4;
	gather(w, XC_PKRU, 0, value, 4);
	return w->fn(w->ctx, &reg, value);
}

static int each(const struct tf_regs *regs, const struct tf_cpu *cpu, tf_reg_fn *fn, void *ctx)
{
	const struct tf_regset *gp = tf_regs_find(regs, NT_PRSTATUS);
	const struct tf_regset *fp = tf_regs_find(regs, NT_FPREGSET);
	const struct tf_regset *xs = tf_regs_find(regs, NT_X86_XSTATE);
	struct walk w = {.cpu = cpu, .fn = fn, .ctx = ctx};
	int r;

	if (gp && gp->size >= X86_GREGS_SIZE) {
		r = each_general(gp, fn, ctx);
		if (r)
			return r;
	}
	if (xs && xs->size >= XS_MIN_SIZE) {
		w.type = NT_X86_XSTATE;
		w.area = xs->data;
		w.size = xs->size;
		x86_legacy(w.fx, xs->data, x86_get64(xs->data + XS_XSTATE_BV));
	} else if (fp && fp->size >= FX_SIZE) {
		w.type = NT_FPREGSET;
		x86_legacy(w.fx, fp->data, XC_LEGACY);
	} else {
		return 0;
	}
	r = each_legacy(&w);
	if (!r)
		r = each_vector(&w);
	return r || !w.area ? r : each_mask_and_pkru(&w);
}

/* The source's XSAVE table: every component inside the area, none in another's place. */
static int check_table(const struct tf_cpu *cpu, struct tf_err *e)
{
	if (!cpu->xcr0)
		return 0;
	if ((cpu->xcr0 & XC_LEGACY) != XC_LEGACY || cpu->xcr0 >> TF_XCOMPONENTS ||
		cpu->xsave_size < XS_MIN_SIZE || cpu->xsave_size > TF_REGSET_MAX)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"cpu: XCR0 %#llx with an XSAVE area of %u bytes",
			(unsigned long long)cpu->xcr0, cpu->xsave_size);
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		uint64_t start = cpu->xcomp[i].offset, end = start + cpu->xcomp[i].size;

		if (!(cpu->xcr0 & XC_BIT(i)))
			continue;
		if (start < XS_MIN_SIZE || end > cpu->xsave_size || end == start ||
			cpu->xcomp[i].size < x86_component_size(i))
			return tf_fail(e, TELEFORK_E_IMAGE,
				"cpu: XSAVE component %u (%s) at %u, %u bytes", i,
				x86_component_name(i), cpu->xcomp[i].offset, cpu->xcomp[i].size);
		for (unsigned j = XC_AVX; j < i; j++)
			if ((cpu->xcr0 & XC_BIT(j)) &&
				start < (uint64_t)cpu->xcomp[j].offset + cpu->xcomp[j].size &&
				end > cpu->xcomp[j].offset)
				return tf_fail(e, TELEFORK_E_IMAGE,
					"cpu: XSAVE components %u and %u overlap", j, i);
	}
	return 0;
}

static int check_xstate(const struct tf_regset *set, const struct tf_cpu *cpu, struct tf_err *e)
{
	uint64_t bv;

	if (!cpu->xcr0 || set->size != cpu->xsave_size)
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_X86_XSTATE: %u bytes instead of %u",
			set->size, cpu->xcr0 ? cpu->xsave_size : 0);
	bv = x86_get64(set->data + XS_XSTATE_BV);
	if (bv & ~cpu->xcr0)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"NT_X86_XSTATE: XSTATE_BV %#llx is not within XCR0 %#llx",
			(unsigned long long)bv, (unsigned long long)cpu->xcr0);
	if (!x86_all_zero(set->data + XS_XCOMP_BV, XS_HEADER_SIZE - 8))
		return tf_fail(e, TELEFORK_E_IMAGE,
			"NT_X86_XSTATE: reserved bytes of the header are set, or it is compacted");
	if (x86_get64(set->data + FX_SW) != cpu->xcr0)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"NT_X86_XSTATE: another XCR0 at offset %u than the processor's", FX_SW);
	if (x86_get32(set->data + FX_MXCSR) & ~X86_MXCSR_VALID)
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_X86_XSTATE: MXCSR %#x has reserved bits",
			x86_get32(set->data + FX_MXCSR));
	return 0;
}

static int check_set(const struct tf_regset *set, const struct tf_cpu *cpu, struct tf_err *e)
{
	switch (set->type) {
	case NT_PRSTATUS:
		if (set->size != X86_GREGS_SIZE)
			return tf_fail(e, TELEFORK_E_IMAGE, "NT_PRSTATUS: %u bytes instead of %u",
				set->size, X86_GREGS_SIZE);
		return 0;
	case NT_FPREGSET:
		if (set->size != FX_SIZE)
			return tf_fail(e, TELEFORK_E_IMAGE, "NT_FPREGSET: %u bytes instead of %u",
				set->size, FX_SIZE);
		if (x86_get32(set->data + FX_MXCSR) & ~X86_MXCSR_VALID)
			return tf_fail(e, TELEFORK_E_IMAGE,
				"NT_FPREGSET: MXCSR %#x has reserved bits",
				x86_get32(set->data + FX_MXCSR));
		return 0;
	case NT_X86_XSTATE:
		return check_xstate(set, cpu, e);
	default:
		return tf_fail(e, TELEFORK_E_IMAGE, "regset %#x: not one of x86_64", set->type);
	}
}

static int check(const struct tf_regs *regs, const struct tf_cpu *cpu, struct tf_err *e)
{
	int r;

	if (regs->n > TF_REGSETS_MAX)
		return tf_fail(e, TELEFORK_E_IMAGE, "%u regsets", regs->n);
	r = check_table(cpu, e);
	for (uint32_t i = 0; i < regs->n && !r; i++) {
		if (tf_regs_find(regs, regs->set[i].type) != &regs->set[i])
			return tf_fail(e, TELEFORK_E_IMAGE, "regset %#x: twice", regs->set[i].type);
		r = check_set(&regs->set[i], cpu, e);
	}
	if (r)
		return r;
	if (!tf_regs_find(regs, NT_PRSTATUS) || !tf_regs_find(regs, NT_FPREGSET))
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_PRSTATUS or NT_FPREGSET is missing");
	if (cpu->xcr0 && !tf_regs_find(regs, NT_X86_XSTATE))
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_X86_XSTATE is missing");
	return 0;
}

static uint64_t greg(const struct tf_regs *regs, enum x86_greg index)
{
	const struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);

	return set && set->size >= X86_GREGS_SIZE ? x86_get64(set->data + index * 8) : 0;
}

static void set_greg(struct tf_regs *regs, enum x86_greg index, uint64_t value)
{
	struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);

	if (set && set->size >= X86_GREGS_SIZE)
		x86_put64(set->data + index * 8, value);
}

static uint64_t pc(const struct tf_regs *regs)
{
	return greg(regs, G_RIP);
}

static uint64_t sp(const struct tf_regs *regs)
{
	return greg(regs, G_RSP);
}

static void set_result(struct tf_regs *regs, uint64_t value)
{
	set_greg(regs, G_RAX, value);
}

static void set_pc(struct tf_regs *regs, uint64_t value)
{
	set_greg(regs, G_RIP, value);
}

const struct tf_arch tf_arch_x86_64 = {
	.name = "x86_64",
	.machine = EM_X86_64,
	.prstatus_gregs = X86_GREGS_SIZE,
	.max_user_bits = 57,
	.red_zone = 128,
	.features = features,
	.n_features = sizeof(features) / sizeof(features[0]),
	.baselines = baselines,
	.n_baselines = sizeof(baselines) / sizeof(baselines[0]),
	.each = each,
	.check = check,
	.pc = pc,
	.sp = sp,
	.set_result = set_result,
	.set_pc = set_pc,
};
