/* SPDX-License-Identifier: MIT */
/* See faults.h: the fields of the table of kinds, and whole records. */
#include "harness/damage.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define VALUES 8

bool tf_damage_offer(struct tf_damage_walk *w, const char *how)
{
	if (w->made)
		return false;
	snprintf(w->now.how, sizeof(w->now.how), "%s", how);
	return w->made = w->fn(w->ctx, &w->now);
}

void tf_damage_at(struct tf_damage_walk *w, const char *item, const char *state, ...)
{
	va_list ap;

	va_start(ap, state);
	vsnprintf(w->now.state, sizeof(w->now.state), state, ap);
	va_end(ap);
	snprintf(w->now.item, sizeof(w->now.item), "%s", item);
}

uint64_t tf_damage_hash(uint64_t seed, const char *text)
{
	uint64_t h = seed + UINT64_C(0xcbf29ce484222325);

	while (*text)
		h = (h ^ (uint8_t)*text++) * UINT64_C(0x100000001b3);
	h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 32;
}

/* --- numbers --- */

struct number {
	struct tf_damage_walk *w;
	uint8_t *at;
	unsigned size; /* 4 or 8 */
	uint64_t tried[VALUES];
	unsigned n;
};

static uint64_t get(const void *at, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, at, size);
	return v;
}

/* Each value once. */
static bool is_new(struct number *n, uint64_t to)
{
	if (n->size == 4)
		to &= UINT32_MAX;
	if (to == get(n->at, n->size))
		return false;
	for (unsigned i = 0; i < n->n; i++)
		if (n->tried[i] == to)
			return false;
	n->tried[n->n++ % VALUES] = to;
	return true;
}

static void try(struct number *n, const char *how, uint64_t to)
{
	if (is_new(n, to) && tf_damage_offer(n->w, how))
		memcpy(n->at, &to, n->size);
}

/* A bit of those that are set: others may mean nothing. */
static uint64_t some_bit(struct tf_damage_walk *w, uint64_t v)
{
	uint64_t h = tf_damage_hash(w->seed, w->now.state) ^ tf_damage_hash(w->seed, w->now.item);
	unsigned n = (unsigned)__builtin_popcountll(v);

	if (!n)
		return 1;
	for (n = (unsigned)(h % n); n--;)
		v &= v - 1;
	return v & -v;
}

static void fault_set(struct number *n, uint64_t was, uint64_t bits)
{
	try(n, "flip", was ^ some_bit(n->w, was & bits ?: bits));
	try(n, "off", was << 1 & bits);
}

static void swap(struct number *n, void *next)
{
	uint64_t was = get(n->at, n->size);

	if (next && is_new(n, get(next, n->size)) && tf_damage_offer(n->w, "swap")) {
		memcpy(n->at, next, n->size);
		memcpy(next, &was, n->size);
	}
}

static bool is_wide(const struct tf_field *f)
{
	return f->type == TF_FIELD_U64 || f->type == TF_FIELD_HEX64 || f->type == TF_FIELD_ADDR ||
	       f->type == TF_FIELD_TIME || f->type == TF_FIELD_SIGSET;
}

/* One more, or for sets of bits the next one; an offset in a file by a page. */
static uint64_t off_by_one(const struct tf_damage_walk *w, const struct tf_field *f, uint64_t was)
{
	if (f->type == TF_FIELD_HEX32)
		return was << 1;
	if (!strcmp(f->name, "offset") && f->type == TF_FIELD_HEX64)
		return was + w->s->file.image.source.page_size;
	return was == (is_wide(f) ? UINT64_MAX : UINT32_MAX) ? was - 1 : was + 1;
}

/* Another key that the process has: one that it has not is the kernel's own. */
static void fault_key(struct number *n, uint64_t was)
{
	uint64_t others = n->w->s->file.image.mm.keys & ~(UINT64_C(1) << was);

	try(n, "drop", 0);
	if (others)
		try(n, "flip", (uint64_t)__builtin_ctzll(others));
}

/* Which change of a number is one depends on what it means. */
static void fault_number(struct tf_damage_walk *w, const struct tf_kind *k,
	const struct tf_field *f, uint8_t *at, void *next, const void *older)
{
	struct number n = {.w = w, .at = at, .size = is_wide(f) ? 8 : 4};
	uint64_t was = get(at, n.size), bits = tf_damage_bits(k, f);

	if (f->type == TF_FIELD_ENUM) {
		try(&n, "off", (was + 1) % f->n_names);
		return;
	}
	if (!strcmp(k->name, "map") && !strcmp(f->name, "key")) {
		fault_key(&n, was);
		return;
	}
	if (was & bits)
		try(&n, "drop", 0);
	if (f->type == TF_FIELD_SIGSET)
		fault_set(&n, was, bits);
	else if (f->type == TF_FIELD_TIME) /* no time is exact to its last bits */
		try(&n, "flip", was ? was ^ UINT64_C(1) << (63 - __builtin_clzll(was)) : 0);
	else if (bits != UINT64_MAX)
		try(&n, "flip", was ^ some_bit(w, bits));
	else if (strcmp(f->name, "offset") != 0 || f->type != TF_FIELD_HEX64)
		try(&n, "flip", was ^ some_bit(w, was));
	if (f->type != TF_FIELD_TIME && f->type != TF_FIELD_SIGSET && bits == UINT64_MAX)
		try(&n, "off", off_by_one(w, f, was));
	if (older)
		try(&n, "stale", get(older, n.size));
	swap(&n, next);
}

void tf_damage_word(struct tf_damage_walk *w, uint32_t *at, uint32_t *next)
{
	struct number n = {.w = w, .at = (uint8_t *)at, .size = 4};

	try(&n, "drop", 0);
	try(&n, "flip", *at ^ 1u << 14);
	try(&n, "off", (uint64_t)*at + 1);
	swap(&n, next);
}

/* Each flag for itself. */
static void fault_flags(struct tf_damage_walk *w, const struct tf_kind *k, uint32_t record,
	const struct tf_field *f, uint8_t *at)
{
	char state[sizeof(w->now.state)];
	uint32_t was = (uint32_t)get(at, 4);

	snprintf(state, sizeof(state), "%s", w->now.state);
	for (unsigned i = 0; i < f->n_names; i++) {
		uint32_t to = was ^ 1u << i;

		if (!tf_damage_flag_means(&w->s->file.image, k, record, f, 1u << i))
			continue;
		snprintf(w->now.state, sizeof(w->now.state), "%.40s.%.20s", state, f->names[i]);
		if (tf_damage_offer(w, was >> i & 1 ? "drop" : "flip"))
			memcpy(at, &to, 4);
	}
}

/* --- texts --- */

static void fault_text(struct tf_damage_walk *w, const struct tf_field *f, uint8_t *item,
	uint8_t *next, const void *older)
{
	const char **at = (const char **)(void *)(item + f->offset), *was = *at;
	const char **other = next ? (const char **)(void *)(next + f->offset) : NULL;
	const char *old = older ? tf_field_string(f, older) : NULL;
	size_t n = strlen(was);

	if (n && tf_damage_offer(w, "drop"))
		*at = "";
	if (n && tf_damage_offer(w, "flip"))
		((char *)(uintptr_t)was)[n - 1] ^= 1;
	if (n > 1 && tf_damage_offer(w, "off"))
		((char *)(uintptr_t)was)[n - 1] = '\0';
	if (old && *old && strcmp(old, was) != 0 && tf_damage_offer(w, "stale"))
		*at = tf_arena_strn(&w->s->file.arena, old, TF_MAX_STR);
	if (other && strcmp(*other, was) != 0 && tf_damage_offer(w, "swap")) {
		*at = *other;
		*other = was;
	}
}

static void fault_comm(struct tf_damage_walk *w, char *at, char *next, const char *older)
{
	char was[16];
	size_t n = strlen(at);

	memcpy(was, at, sizeof(was));
	if (n && tf_damage_offer(w, "drop"))
		memset(at, 0, sizeof(was));
	if (n && tf_damage_offer(w, "flip"))
		at[n - 1] ^= 1;
	if (n && tf_damage_offer(w, "off"))
		at[n - 1] = '\0';
	if (older && strcmp(older, was) != 0 && tf_damage_offer(w, "stale"))
		memcpy(at, older, sizeof(was));
	if (next && strcmp(next, was) != 0 && tf_damage_offer(w, "swap")) {
		memcpy(at, next, sizeof(was));
		memcpy(next, was, sizeof(was));
	}
}

/* --- records --- */

static void *item_of(const struct tf_kind *k, const struct tf_specimen *s, uint32_t i)
{
	if (!s || i >= tf_kind_count(k, &s->file.image))
		return NULL;
	return (void *)(uintptr_t)tf_kind_item(k, &s->file.image, i);
}

/* What an image of before can tell of this record: signals and the process have no other. */
static const void *older_of(const struct tf_damage_walk *w, const struct tf_kind *k, uint32_t i)
{
	bool first = !strcmp(k->name, "thread") || !strcmp(k->name, "attributes") ||
		     !strcmp(k->name, "rights");

	if (k->max != 1 && !first && strcmp(k->name, "sigaction") != 0)
		return NULL;
	return item_of(k, w->older, first ? 0 : i);
}

static void fault_field(
	struct tf_damage_walk *w, const struct tf_kind *k, uint32_t i, const struct tf_field *f)
{
	uint8_t *item = item_of(k, w->s, i), *next = item_of(k, w->s, i + 1), *other;
	const uint8_t *older = older_of(w, k, i);
	unsigned size = is_wide(f) ? 8 : 4;

	for (unsigned e = 0, at = f->offset; e < f->count; e++, at += size) {
		char name[48];

		if (!tf_damage_means(&w->s->file.image, k, i, f, e))
			continue;
		other = f->count > 1 ? (e + 1 < f->count ? item + at + size : NULL)
				     : (next ? next + at : NULL);
		snprintf(name, sizeof(name), f->count > 1 ? "%u.%u" : "%u", i, e);
		tf_damage_at(w, name, "%s.%s", k->name, f->name);
		if (f->type == TF_FIELD_FLAGS)
			fault_flags(w, k, i, f, item + at);
		else if (f->type == TF_FIELD_STR || f->type == TF_FIELD_STR_ARG)
			fault_text(w, f, item, next, older);
		else if (f->type == TF_FIELD_COMM)
			fault_comm(w, (char *)item + at, (char *)other,
				older ? (const char *)older + at : NULL);
		else
			fault_number(w, k, f, item + at, other, older ? older + at : NULL);
	}
}

/* A record that is missing, or stands behind the next one. */
static void fault_record(struct tf_damage_walk *w, const struct tf_kind *k, uint32_t i)
{
	struct tf_image *img = &w->s->file.image;
	uint32_t *count = (uint32_t *)(void *)((uint8_t *)img + k->count);
	uint8_t *item = item_of(k, w->s, i), *next = item_of(k, w->s, i + 1), keep[4096];
	char name[16];

	if (k->max == 1 || !strcmp(k->name, "map") || !strcmp(k->name, "sigaction"))
		return;
	snprintf(name, sizeof(name), "%u", i);
	tf_damage_at(w, name, "%s", k->name);
	if (*count > 1 && tf_damage_offer(w, "drop")) {
		memmove(item, item + k->size, (*count - i - 1) * k->size);
		--*count;
		if (!strcmp(k->name, "thread") && img->n_attributes) {
			memmove(img->attributes + i, img->attributes + i + 1,
				(img->n_attributes - i - 1) * sizeof(*img->attributes));
			img->n_attributes--;
		}
	}
	if (next && k->size <= sizeof(keep) && memcmp(item, next, k->size) &&
		tf_damage_offer(w, "swap")) {
		memcpy(keep, item, k->size);
		memcpy(item, next, k->size);
		memcpy(next, keep, k->size);
	}
}

/* Two threads have each other's registers. */
static void fault_thread(struct tf_damage_walk *w, uint32_t i)
{
	struct tf_image *img = &w->s->file.image;
	struct tf_thread *t = &img->threads[i];
	char name[16];

	snprintf(name, sizeof(name), "%u", i);
	tf_damage_at(w, name, "thread.registers");
	if (i + 1 < img->n_threads && tf_damage_offer(w, "swap")) {
		struct tf_regs keep = t->regs;

		t->regs = t[1].regs;
		t[1].regs = keep;
	}
}

static void fault_auxv(struct tf_damage_walk *w)
{
	struct tf_image *img = &w->s->file.image;

	for (uint32_t i = 0; i + 1 < img->n_auxv; i++) {
		struct number n = {.w = w, .at = (uint8_t *)&img->auxv[2 * i + 1], .size = 8};
		uint64_t was = get(n.at, 8);
		char name[16];

		snprintf(name, sizeof(name), "%u", (unsigned)img->auxv[2 * i]);
		tf_damage_at(w, name, "auxv");
		try(&n, "flip", was ^ some_bit(w, was));
		try(&n, "off", was + 1);
	}
}

void tf_damage_record(struct tf_damage_walk *w, const struct tf_kind *k, uint32_t i)
{
	for (uint32_t f = 0; f < k->n_fields; f++)
		fault_field(w, k, i, &k->fields[f]);
	fault_record(w, k, i);
}

bool tf_damage_each(struct tf_specimen *s, const struct tf_specimen *older, uint64_t seed,
	uint64_t least, tf_damage_fn *fn, void *ctx)
{
	struct tf_image *img = &s->file.image;
	struct tf_damage_walk w = {
		.s = s, .older = older, .seed = seed, .least = least, .fn = fn, .ctx = ctx};

	tf_damage_registers(&w);
	for (uint32_t i = 0; i < img->n_threads; i++)
		fault_thread(&w, i);
	for (const struct tf_kind *k = tf_kinds; k < tf_kinds + tf_n_kinds; k++)
		for (uint32_t i = 0; strcmp(k->name, "map") && i < tf_kind_count(k, img) && !w.made;
			i++)
			if (tf_damage_record_means(img, k, i))
				tf_damage_record(&w, k, i);
	fault_auxv(&w);
	tf_damage_memory(&w);
	return w.made;
}

void tf_damage_states(void (*fn)(void *ctx, const char *state), void *ctx)
{
	static const char *const others[] = {"thread.registers", "auxv", "map.address",
		"memory.first", "memory.middle", "memory.last", "memory.heap", "memory.tid",
		"memory.owner"};
	char state[64];

	for (unsigned c = 0; c < TF_REG_CLASSES; c++) {
		snprintf(state, sizeof(state), "register.%s", tf_reg_class_name(c));
		fn(ctx, state);
	}
	for (const struct tf_kind *k = tf_kinds; k < tf_kinds + tf_n_kinds; k++) {
		if (k->max != 1 && strcmp(k->name, "sigaction") != 0)
			fn(ctx, k->name);
		for (const struct tf_field *f = k->fields; f < k->fields + k->n_fields; f++)
			for (unsigned n = 0; n < (f->type == TF_FIELD_FLAGS ? f->n_names : 1);
				n++) {
				snprintf(state, sizeof(state),
					f->type == TF_FIELD_FLAGS ? "%s.%s.%s" : "%s.%s", k->name,
					f->name, f->type == TF_FIELD_FLAGS ? f->names[n] : "");
				fn(ctx, state);
			}
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		fn(ctx, others[i]);
}
