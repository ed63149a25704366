/* SPDX-License-Identifier: MIT */
/*
 * aarch64 in every build: its registers as a table over NT_PRSTATUS, NT_FPREGSET, NT_ARM_SVE,
 * NT_ARM_TLS and the pointer authentication keys, the structure check of those regsets, and the
 * names of processor features (AT_HWCAP is word 0, AT_HWCAP2 word 1). No instruction and no header
 * of an aarch64 host is needed here.
 */
#include <elf.h>

#include "arch/aarch64/layout.h"

#define F(name, word, bit)                   \
	{                                    \
		name, word, bit, NULL, false \
	}
#define HINT(name, word, bit)               \
	{                                   \
		name, word, bit, NULL, true \
	}

/* arch/arm64/include/uapi/asm/hwcap.h of Linux 6.1, names as /proc/cpuinfo has them. */
static const struct tf_feature features[] = {
	F("fp", 0, 0),
	F("asimd", 0, 1),
	HINT("evtstrm", 0, 2), /* wfe wakes up now and then */
	F("aes", 0, 3),
	F("pmull", 0, 4),
	F("sha1", 0, 5),
	F("sha2", 0, 6),
	F("crc32", 0, 7),
	F("atomics", 0, 8),
	F("fphp", 0, 9),
	F("asimdhp", 0, 10),
	HINT("cpuid", 0, 11), /* the kernel emulates mrs of ID registers: read at program start */
	F("asimdrdm", 0, 12),
	F("jscvt", 0, 13),
	F("fcma", 0, 14),
	F("lrcpc", 0, 15),
	F("dcpop", 0, 16),
	F("sha3", 0, 17),
	F("sm3", 0, 18),
	F("sm4", 0, 19),
	F("asimddp", 0, 20),
	F("sha512", 0, 21),
	F("sve", 0, 22),
	F("asimdfhm", 0, 23),
	F("dit", 0, 24),
	F("uscat", 0, 25),
	F("ilrcpc", 0, 26),
	F("flagm", 0, 27),
	F("ssbs", 0, 28),
	F("sb", 0, 29),
	F("paca", 0, 30),
	F("pacg", 0, 31),
	F("dcpodp", 1, 0),
	F("sve2", 1, 1),
	F("sveaes", 1, 2),
	F("svepmull", 1, 3),
	F("svebitperm", 1, 4),
	F("svesha3", 1, 5),
	F("svesm4", 1, 6),
	F("flagm2", 1, 7),
	F("frint", 1, 8),
	F("svei8mm", 1, 9),
	F("svef32mm", 1, 10),
	F("svef64mm", 1, 11),
	F("svebf16", 1, 12),
	F("i8mm", 1, 13),
	F("bf16", 1, 14),
	HINT("dgh", 1, 15), /* in the hint space */
	F("rng", 1, 16),
	HINT("bti", 1, 17), /* in the hint space */
	F("mte", 1, 18),
	HINT("ecv", 1, 19), /* the virtual counter is everywhere */
	F("afp", 1, 20),
	F("rpres", 1, 21),
	HINT("mte3", 1, 22), /* how a tag fault is reported */
	F("sme", 1, 23),
	F("smei16i64", 1, 24),
	F("smef64f64", 1, 25),
	F("smei8i32", 1, 26),
	F("smef16f32", 1, 27),
	F("smeb16f32", 1, 28),
	F("smef32f32", 1, 29),
	F("smefa64", 1, 30),
	F("wfxt", 1, 31),
	F("ebf16", 1, 32),
	F("sveebf16", 1, 33),
};

#define N8(p)  p "0", p "1", p "2", p "3", p "4", p "5", p "6", p "7"
#define N16(p) N8(p), p "8", p "9", p "10", p "11", p "12", p "13", p "14", p "15"
#define N31(p)                                                                                  \
	N16(p), p "16", p "17", p "18", p "19", p "20", p "21", p "22", p "23", p "24", p "25", \
		p "26", p "27", p "28", p "29", p "30"
#define N32(p) N31(p), p "31"

static const char *const x_names[] = {N31("x")};
static const char *const v_names[] = {N32("v")};
static const char *const z_names[] = {N32("z")};
static const char *const p_names[] = {N16("p")};

/* What stands whole in a regset, after x0-x30. Order is that of display. */
static const struct tf_reg fixed[] = {
	{"tpidr_el0", NT_ARM_TLS, 0, 8, TF_REG_THREAD},
	{"tpidr2", NT_ARM_TLS, 8, 8, TF_REG_THREAD},
	{"fpsr", NT_FPREGSET, FP_FPSR, 4, TF_REG_FPCONTROL},
	{"fpcr", NT_FPREGSET, FP_FPCR, 4, TF_REG_FPCONTROL},
	{"apiakey", NT_ARM_PACA_KEYS, 0, 16, TF_REG_PAC},
	{"apibkey", NT_ARM_PACA_KEYS, 16, 16, TF_REG_PAC},
	{"apdakey", NT_ARM_PACA_KEYS, 32, 16, TF_REG_PAC},
	{"apdbkey", NT_ARM_PACA_KEYS, 48, 16, TF_REG_PAC},
	{"apgakey", NT_ARM_PACG_KEYS, 0, 16, TF_REG_PAC},
	{"pac_enabled", NT_ARM_PAC_ENABLED_KEYS, 0, 8, TF_REG_PAC},
	{"tagged_addr_ctrl", NT_ARM_TAGGED_ADDR_CTRL, 0, 8, TF_REG_THREAD},
	{"syscall", NT_ARM_SYSTEM_CALL, 0, 4, TF_REG_SYSTEM},
};

static int each_general(const struct tf_regset *set, tf_reg_fn *fn, void *ctx)
{
	static const struct tf_reg tail[] = {
		{"sp", NT_PRSTATUS, G_SP * 8, 8, TF_REG_GENERAL},
		{"pc", NT_PRSTATUS, G_PC * 8, 8, TF_REG_PC},
	};
	uint32_t pstate = arm_get32(set->data + G_PSTATE * 8);
	const uint32_t nzcv = pstate & PSTATE_NZCV, rest = pstate & ~PSTATE_NZCV;
	struct tf_reg reg = {.regset = NT_PRSTATUS, .size = 8, .klass = TF_REG_GENERAL};
	int r = 0;

	for (unsigned i = 0; i <= G_LR && !r; i++) {
		reg.name = x_names[i];
		reg.offset = i * 8;
		r = fn(ctx, &reg, set->data + reg.offset);
	}
	for (unsigned i = 0; i < 2 && !r; i++)
		r = fn(ctx, &tail[i], set->data + tail[i].offset);
	reg = (struct tf_reg){"nzcv", NT_PRSTATUS, G_PSTATE * 8, 4, TF_REG_FLAGS};
	if (!r)
		r = fn(ctx, &reg, (const uint8_t *)&nzcv);
	reg = (struct tf_reg){"pstate", NT_PRSTATUS, G_PSTATE * 8, 4, TF_REG_SYSTEM};
	return r ? r : fn(ctx, &reg, (const uint8_t *)&rest);
}

static int each_sve(const struct tf_regset *set, tf_reg_fn *fn, void *ctx)
{
	uint32_t vl = arm_get16(set->data + SVE_VL);
	struct tf_reg reg = {.regset = NT_ARM_SVE, .size = vl, .klass = TF_REG_VECTOR};
	int r = 0;

	for (unsigned i = 0; i < 32 && !r; i++) {
		reg.name = z_names[i];
		reg.offset = SVE_HEADER + sve_z(vl, i);
		r = fn(ctx, &reg, set->data + reg.offset);
	}
	reg.size = vl / 8;
	reg.klass = TF_REG_PREDICATE;
	for (unsigned i = 0; i < 17 && !r; i++) {
		reg.name = i < 16 ? p_names[i] : "ffr";
		reg.offset = SVE_HEADER + sve_p(vl, i);
		r = fn(ctx, &reg, set->data + reg.offset);
	}
	return r;
}

static int each_fpsimd(const struct tf_regset *set, tf_reg_fn *fn, void *ctx)
{
	struct tf_reg reg = {.regset = NT_FPREGSET, .size = 16, .klass = TF_REG_VECTOR};
	int r = 0;

	for (unsigned i = 0; i < 32 && !r; i++) {
		reg.name = v_names[i];
		reg.offset = FP_V + 16 * i;
		r = fn(ctx, &reg, set->data + reg.offset);
	}
	return r;
}

static int each(const struct tf_regs *regs, const struct tf_cpu *cpu, tf_reg_fn *fn, void *ctx)
{
	const struct tf_regset *gp = tf_regs_find(regs, NT_PRSTATUS);
	const struct tf_regset *fp = tf_regs_find(regs, NT_FPREGSET);
	const struct tf_regset *sve = arm_sve_live(tf_regs_find(regs, NT_ARM_SVE));
	int r = 0;

	(void)cpu; /* the vector length is the thread's own: it stands in NT_ARM_SVE */
	if (gp && gp->size >= ARM_GREGS_SIZE)
		r = each_general(gp, fn, ctx);
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]) && !r; i++) {
		const struct tf_regset *set = tf_regs_find(regs, fixed[i].regset);

		if (set && set->size >= fixed[i].offset + fixed[i].size)
			r = fn(ctx, &fixed[i], set->data + fixed[i].offset);
	}
	if (r)
		return r;
	if (sve)
		return each_sve(sve, fn, ctx);
	return fp && fp->size >= FP_SIZE ? each_fpsimd(fp, fn, ctx) : 0;
}

static int check_sve(const struct tf_regset *set, const struct tf_cpu *cpu, struct tf_err *e)
{
	uint32_t vl, max_vl, flags, want;

	if (set->size < SVE_HEADER)
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_ARM_SVE: %u bytes, no header", set->size);
	vl = arm_get16(set->data + SVE_VL);
	max_vl = arm_get16(set->data + SVE_MAX_VL);
	flags = arm_get16(set->data + SVE_FLAGS);
	if (!sve_vl_ok(vl) || !sve_vl_ok(max_vl) || vl > max_vl)
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_ARM_SVE: vectors of %u bytes (at most %u)",
			vl, max_vl);
	if (cpu->vl && vl != cpu->vl)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"NT_ARM_SVE: vectors of %u bytes, but the processor was set to %u", vl,
			cpu->vl);
	if (flags & ~(SVE_FLAG_REGS | SVE_FLAG_VL_INHERIT))
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_ARM_SVE: flags %#x", flags);
	want = flags & SVE_FLAG_REGS ? sve_set_size(vl) : SVE_HEADER + FP_SIZE;
	if (set->size != want || arm_get32(set->data + SVE_SIZE) != want)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"NT_ARM_SVE: %u bytes, %u in its header, instead of %u", set->size,
			arm_get32(set->data + SVE_SIZE), want);
	return 0;
}

static int check_set(const struct tf_regset *set, const struct tf_cpu *cpu, struct tf_err *e)
{
	static const struct {
		uint32_t type, size, other;
		const char *name;
	} sizes[] = {
		{NT_PRSTATUS, ARM_GREGS_SIZE, ARM_GREGS_SIZE, "NT_PRSTATUS"},
		{NT_FPREGSET, FP_SIZE, FP_SIZE, "NT_FPREGSET"},
		{NT_ARM_TLS, 8, 16, "NT_ARM_TLS"},
		{NT_ARM_SYSTEM_CALL, 4, 4, "NT_ARM_SYSTEM_CALL"},
		{NT_ARM_PACA_KEYS, 64, 64, "NT_ARM_PACA_KEYS"},
		{NT_ARM_PACG_KEYS, 16, 16, "NT_ARM_PACG_KEYS"},
		{NT_ARM_PAC_ENABLED_KEYS, 8, 8, "NT_ARM_PAC_ENABLED_KEYS"},
		{NT_ARM_TAGGED_ADDR_CTRL, 8, 8, "NT_ARM_TAGGED_ADDR_CTRL"},
	};

	if (set->type == NT_ARM_SVE)
		return check_sve(set, cpu, e);
	if (set->type == NT_ARM_TAGGED_ADDR_CTRL && set->size == 8 &&
		arm_get64(set->data) & ~ARM_TAGGED_ADDR_BITS)
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_ARM_TAGGED_ADDR_CTRL: unknown bits");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (sizes[i].type != set->type)
			continue;
		if (set->size == sizes[i].size || set->size == sizes[i].other)
			return 0;
		return tf_fail(e, TELEFORK_E_IMAGE, "%s: %u bytes instead of %u", sizes[i].name,
			set->size, sizes[i].size);
	}
	return tf_fail(e, TELEFORK_E_IMAGE, "regset %#x: not one of aarch64", set->type);
}

static int check(const struct tf_regs *regs, const struct tf_cpu *cpu, struct tf_err *e)
{
	int r = 0;

	if (regs->n > TF_REGSETS_MAX)
		return tf_fail(e, TELEFORK_E_IMAGE, "%u regsets", regs->n);
	if (cpu->vl && !sve_vl_ok(cpu->vl))
		return tf_fail(e, TELEFORK_E_IMAGE, "cpu: SVE vectors of %u bytes", cpu->vl);
	for (uint32_t i = 0; i < regs->n && !r; i++) {
		if (tf_regs_find(regs, regs->set[i].type) != &regs->set[i])
			return tf_fail(e, TELEFORK_E_IMAGE, "regset %#x: twice", regs->set[i].type);
		r = check_set(&regs->set[i], cpu, e);
	}
	if (r)
		return r;
	if (!tf_regs_find(regs, NT_PRSTATUS) || !tf_regs_find(regs, NT_FPREGSET) ||
		!tf_regs_find(regs, NT_ARM_TLS))
		return tf_fail(
			e, TELEFORK_E_IMAGE, "NT_PRSTATUS, NT_FPREGSET or NT_ARM_TLS is missing");
	if (!cpu->vl != !tf_regs_find(regs, NT_ARM_SVE))
		return tf_fail(e, TELEFORK_E_IMAGE, "NT_ARM_SVE: %s",
			cpu->vl ? "is missing" : "the processor had no SVE");
	return 0;
}

static uint64_t greg(const struct tf_regs *regs, enum arm_greg index)
{
	const struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);

	return set && set->size >= ARM_GREGS_SIZE ? arm_get64(set->data + index * 8) : 0;
}

static void set_greg(struct tf_regs *regs, enum arm_greg index, uint64_t value)
{
	struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);

	if (set && set->size >= ARM_GREGS_SIZE)
		arm_put64(set->data + index * 8, value);
}

static uint64_t pc(const struct tf_regs *regs)
{
	return greg(regs, G_PC);
}

static uint64_t sp(const struct tf_regs *regs)
{
	return greg(regs, G_SP);
}

static void set_result(struct tf_regs *regs, uint64_t value)
{
	set_greg(regs, G_X0, value);
}

static void set_pc(struct tf_regs *regs, uint64_t value)
{
	set_greg(regs, G_PC, value);
}

const struct tf_arch tf_arch_aarch64 = {
	.name = "aarch64",
	.machine = EM_AARCH64,
	.prstatus_gregs = ARM_GREGS_SIZE,
	.max_user_bits = 52,
	.red_zone = 0,
	.features = features,
	.n_features = sizeof(features) / sizeof(features[0]),
	.each = each,
	.check = check,
	.pc = pc,
	.sp = sp,
	.set_result = set_result,
	.set_pc = set_pc,
};
