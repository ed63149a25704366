/* SPDX-License-Identifier: MIT */
/*
 * What is the same for every architecture's registers: lookup of an architecture and of a regset,
 * counting, comparing. All of it goes through tf_arch.each; no layout is known in here, nothing
 * touches the machine it runs on, nothing is allocated but the arena's memory.
 */
#include "arch/regs.h"

#include <string.h>

static const struct tf_arch *const arches[] = {&tf_arch_x86_64, &tf_arch_aarch64};

#define N_ARCHES (sizeof(arches) / sizeof(arches[0]))

const struct tf_arch *tf_arch_by_machine(uint32_t machine)
{
	for (size_t i = 0; i < N_ARCHES; i++)
		if (arches[i]->machine == machine)
			return arches[i];
	return NULL;
}

const struct tf_arch *tf_arch_by_name(const char *name)
{
	for (size_t i = 0; i < N_ARCHES; i++)
		if (!strcmp(arches[i]->name, name))
			return arches[i];
	return NULL;
}

bool tf_cpu_has(const struct tf_cpu *cpu, const struct tf_feature *f)
{
	return f->word < cpu->n_words && f->word < TF_FEATURE_WORDS &&
	       cpu->features[f->word] >> f->bit & 1;
}

/* Whether word stands in a list separated by blanks. */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	return false;
}

bool tf_baseline_has(
	const struct tf_arch *arch, const struct tf_baseline *baseline, const struct tf_feature *f)
{
	if (f->hint)
		return true;
	for (const struct tf_baseline *b = arch->baselines; b <= baseline; b++)
		if (has_word(b->features, f->name))
			return true;
	return false;
}

const struct tf_baseline *tf_baseline_by_name(const struct tf_arch *arch, const char *name)
{
	for (size_t i = 0; i < arch->n_baselines; i++)
		if (!strcmp(arch->baselines[i].name, name))
			return &arch->baselines[i];
	return NULL;
}

static bool has_all(
	const struct tf_arch *arch, const struct tf_baseline *b, const struct tf_cpu *cpu)
{
	for (size_t i = 0; i < arch->n_features; i++)
		if (has_word(b->features, arch->features[i].name) &&
			!tf_cpu_has(cpu, &arch->features[i]))
			return false;
	return true;
}

const struct tf_baseline *tf_baseline_within(const struct tf_arch *arch, const struct tf_cpu *cpu)
{
	const struct tf_baseline *found = NULL;

	for (size_t i = 0; i < arch->n_baselines && has_all(arch, &arch->baselines[i], cpu); i++)
		found = &arch->baselines[i];
	return found;
}

const char *tf_reg_class_name(enum tf_reg_class klass)
{
	static const char *const names[TF_REG_CLASSES] = {
		[TF_REG_GENERAL] = "general",
		[TF_REG_PC] = "pc",
		[TF_REG_FLAGS] = "flags",
		[TF_REG_THREAD] = "thread",
		[TF_REG_FPCONTROL] = "fpcontrol",
		[TF_REG_X87] = "x87",
		[TF_REG_VECTOR] = "vector",
		[TF_REG_PREDICATE] = "predicate",
		[TF_REG_PKRU] = "pkru",
		[TF_REG_PAC] = "pac",
		[TF_REG_SYSTEM] = "system",
	};

	return (unsigned)klass < TF_REG_CLASSES ? names[klass] : "?";
}

struct tf_regset *tf_regs_find(const struct tf_regs *regs, uint32_t type)
{
	for (uint32_t i = 0; i < regs->n && i < TF_REGSETS_MAX; i++)
		if (regs->set[i].type == type)
			return (struct tf_regset *)&regs->set[i];
	return NULL;
}

struct tf_regset *tf_regs_add(
	struct tf_regs *regs, struct tf_arena *a, uint32_t type, uint32_t size)
{
	struct tf_regset *set;
	uint8_t *data;

	if (regs->n >= TF_REGSETS_MAX || size > TF_REGSET_MAX)
		return NULL;
	data = tf_arena_alloc(a, size ? size : 1);
	if (!data)
		return NULL;
	set = &regs->set[regs->n++];
	*set = (struct tf_regset){.type = type, .size = size, .data = data};
	return set;
}

static int count_one(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	(void)value;
	if (reg->klass != TF_REG_SYSTEM)
		++*(unsigned *)ctx;
	return 0;
}

unsigned tf_regs_count(
	const struct tf_arch *arch, const struct tf_regs *regs, const struct tf_cpu *cpu)
{
	unsigned n = 0;

	arch->each(regs, cpu, count_one, &n);
	return n;
}

/* A search for one register of the other side, by name. */
struct lookup {
	const struct tf_reg *want;
	bool found;
	uint32_t size;
	uint8_t value[TF_REG_VALUE_MAX];
};

/* xmm3 and zmm3, v3 and z3 are one register seen at two widths. */
static bool same_register(const struct tf_reg *a, const struct tf_reg *b)
{
	if (a->klass != b->klass)
		return false;
	if (a->klass == TF_REG_VECTOR)
		return a->name[0] && b->name[0] && !strcmp(a->name + 1, b->name + 1);
	return !strcmp(a->name, b->name);
}

static int lookup_one(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct lookup *l = ctx;

	if (!same_register(reg, l->want) || reg->size > sizeof(l->value))
		return 0;
	l->found = true;
	l->size = reg->size;
	memcpy(l->value, value, reg->size);
	return 1;
}

static bool all_zero(const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* Whether a register that the other side's machine does not have loses nothing by its absence:
 * components that a processor lacks are in their initial state by definition. */
static bool initial(const struct tf_reg *reg, const uint8_t *value)
{
	/* What exec gives on Linux: init_pkru_value, only key 0 may be used. */
	static const uint8_t linux_pkru[4] = {0x54, 0x55, 0x55, 0x55};

	switch (reg->klass) {
	case TF_REG_THREAD:
	case TF_REG_VECTOR:
	case TF_REG_PREDICATE:
		return all_zero(value, reg->size);
	case TF_REG_PKRU:
		return all_zero(value, reg->size) ||
		       (reg->size == 4 && !memcmp(value, linux_pkru, 4));
	default:
		return false;
	}
}

struct diff {
	const struct tf_arch *arch;
	const struct tf_regs *other;
	const struct tf_cpu *other_cpu;
	bool second; /* walking b: only what a does not have */
	tf_reg_diff_fn *differ;
	void *ctx;
	unsigned n, equal;
};

static bool equal_values(const struct tf_reg *reg, const uint8_t *value, const struct lookup *l)
{
	uint32_t common = reg->size < l->size ? reg->size : l->size;

	return !memcmp(value, l->value, common) && all_zero(value + common, reg->size - common) &&
	       all_zero(l->value + common, l->size - common);
}

static int diff_one(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct diff *d = ctx;
	struct lookup l = {.want = reg};
	struct tf_reg wide = *reg;
	uint8_t padded[TF_REG_VALUE_MAX] = {0};

	if (reg->klass == TF_REG_SYSTEM || reg->size > sizeof(padded))
		return 0;
	d->arch->each(d->other, d->other_cpu, lookup_one, &l);
	if (d->second && l.found)
		return 0;
	if (l.found ? equal_values(reg, value, &l) : initial(reg, value)) {
		d->equal++;
		return 0;
	}
	d->n++;
	if (!d->differ)
		return 0;
	memcpy(padded, value, reg->size);
	if (l.found && l.size > wide.size)
		wide.size = l.size;
	if (d->second)
		d->differ(d->ctx, &wide, NULL, padded);
	else
		d->differ(d->ctx, &wide, padded, l.found ? l.value : NULL);
	return 0;
}

unsigned tf_regs_diff(const struct tf_arch *arch, const struct tf_regs *a,
	const struct tf_cpu *cpu_a, const struct tf_regs *b, const struct tf_cpu *cpu_b,
	tf_reg_diff_fn *differ, void *ctx, unsigned *ret_equal)
{
	struct diff d = {
		.arch = arch, .other = b, .other_cpu = cpu_b, .differ = differ, .ctx = ctx};

	arch->each(a, cpu_a, diff_one, &d);
	d.second = true;
	d.other = a;
	d.other_cpu = cpu_a;
	arch->each(b, cpu_b, diff_one, &d);
	if (ret_equal)
		*ret_equal = d.equal;
	return d.n;
}
