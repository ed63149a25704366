/* SPDX-License-Identifier: MIT */
/*
 * Faults of registers, through the table of registers alone: the byte of a regset that shows in a
 * register, and nowhere else, is searched, so no layout is known here.
 */
#include "harness/damage.h"

#include <stdio.h>
#include <string.h>

#define NAMES 256

struct value {
	const char *name; /* of the register that is looked for */
	uint8_t at[TF_REG_VALUE_MAX];
	uint32_t size;
	uint32_t klass;
	uint32_t others; /* a digest of all other registers */
};

static int take(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct value *v = ctx;

	if (!strcmp(v->name, reg->name)) {
		memcpy(v->at, value, reg->size);
		v->size = reg->size;
		v->klass = reg->klass;
	} else {
		for (uint32_t i = 0; i < reg->size; i++)
			v->others = v->others * 31 + value[i];
	}
	return 0;
}

static struct value value_of(const struct tf_specimen *s, const char *name)
{
	struct value v = {.name = name};

	s->arch->each(&s->file.image.threads[0].regs, &s->file.image.cpu, take, &v);
	return v;
}

/* Whether byte i of a set, changed so, makes exactly that of the register. */
static bool does(struct tf_specimen *s, struct tf_regset *set, uint32_t i, uint8_t change,
	const struct value *want)
{
	struct value now;

	if (i >= set->size)
		return false;
	set->data[i] ^= change;
	now = value_of(s, want->name);
	if (!memcmp(now.at, want->at, want->size) && now.others == want->others)
		return true;
	set->data[i] ^= change;
	return false;
}

/* Gives byte k of a register a value. From the end: an XSAVE header, whose bits switch whole
 * components, stands before those. Most often the byte before stands before. */
static bool set_byte(struct tf_specimen *s, const char *name, uint32_t k, uint8_t to)
{
	static struct tf_regset *last;
	static uint32_t at;
	struct tf_regs *regs = &s->file.image.threads[0].regs;
	struct value v = value_of(s, name);
	uint8_t change = v.at[k] ^ to;

	if (!change) {
		at++;
		return true;
	}
	v.at[k] = to;
	for (uint32_t n = 0; n < regs->n; n++)
		if (&regs->set[n] == last && does(s, last, at + 1, change, &v)) {
			at++;
			return true;
		}
	for (uint32_t n = regs->n; n-- > 0;)
		for (uint32_t i = regs->set[n].size; i-- > 0;)
			if (does(s, &regs->set[n], i, change, &v)) {
				last = &regs->set[n];
				at = i;
				return true;
			}
	return false;
}

/* Some bit, from the middle on, that is set: a clear one may be reserved. */
static void flip(struct tf_specimen *s, const struct value *v)
{
	for (uint32_t i = 0; i < v->size * 8; i++) {
		uint32_t bit = (v->size * 4 + i) % (v->size * 8);

		if (v->at[bit / 8] >> bit % 8 & 1 &&
			set_byte(s, v->name, bit / 8, v->at[bit / 8] ^ (uint8_t)(1u << bit % 8)))
			return;
	}
}

static void set_value(struct tf_specimen *s, const char *name, const uint8_t *to, uint32_t size)
{
	for (uint32_t k = 0; k < size; k++)
		set_byte(s, name, k, to[k]);
}

static void add_one(struct tf_specimen *s, const struct value *v)
{
	uint8_t to[TF_REG_VALUE_MAX];
	uint32_t k = 0;

	memcpy(to, v->at, v->size);
	while (k < v->size && !++to[k])
		k++;
	set_value(s, v->name, to, v->size);
}

static bool same(const struct value *a, const struct value *b)
{
	return a->size == b->size && !memcmp(a->at, b->at, a->size);
}

static void damage(struct tf_damage_walk *w, const char *name, const char *neighbour)
{
	struct value v = value_of(w->s, name), n = neighbour ? value_of(w->s, neighbour) : v;
	struct value old = w->older ? value_of(w->older, name) : v;
	struct value zero = {.size = v.size};
	char both[sizeof(w->now.item)];

	tf_damage_at(w, name, "register.%s", tf_reg_class_name(v.klass));
	if (!same(&v, &zero) && tf_damage_offer(w, "flip"))
		flip(w->s, &v);
	if (!same(&v, &zero) && tf_damage_offer(w, "drop"))
		set_value(w->s, name, zero.at, v.size);
	if (v.klass == TF_REG_GENERAL && tf_damage_offer(w, "off"))
		add_one(w->s, &v);
	if (old.size == v.size && !same(&old, &v) && !same(&old, &zero) &&
		tf_damage_offer(w, "stale"))
		set_value(w->s, name, old.at, v.size);
	if (v.size >= 32 && tf_damage_offer(w, "upper")) {
		memset(v.at + v.size / 2, 0, v.size / 2);
		set_value(w->s, name, v.at, v.size);
	}
	if (!neighbour || v.size != n.size || same(&v, &n))
		return;
	snprintf(both, sizeof(both), "%s+%s", name, neighbour);
	tf_damage_at(w, both, "register.%s", tf_reg_class_name(v.klass));
	if (tf_damage_offer(w, "swap")) {
		set_value(w->s, name, n.at, n.size);
		set_value(w->s, neighbour, v.at, v.size);
	}
}

struct names {
	const char *of[TF_REG_CLASSES][NAMES];
	unsigned n[TF_REG_CLASSES];
};

static int collect(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct names *names = ctx;

	(void)value;
	if (names->n[reg->klass] < NAMES)
		names->of[reg->klass][names->n[reg->klass]++] = reg->name;
	return 0;
}

void tf_damage_registers(struct tf_damage_walk *w)
{
	struct names names = {0};

	w->s->arch->each(&w->s->file.image.threads[0].regs, &w->s->file.image.cpu, collect, &names);
	for (unsigned c = 0; c < TF_REG_CLASSES; c++)
		for (unsigned i = 0, n = names.n[c]; i < n && !w->made && c != TF_REG_SYSTEM; i++)
			damage(w, names.of[c][i],
				n > 1 ? names.of[c][i + 1 < n ? i + 1 : i - 1] : NULL);
}
