/* SPDX-License-Identifier: MIT */
/*
 * All other state compared: the fields of the notes' table, record by record, and the auxiliary
 * vector. A field that is in no row of `rules` has to be equal: what is added to the table of notes
 * is compared without a change here. See compare.h.
 */
#include "core/image/compare_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/image/notes.h"

/* When a rule holds. */
enum when {
	ALWAYS,
	UNKNOWN,  /* one of the values is zero or empty: not known there */
	EMULATED, /* one of the images is of QEMU user mode */
	OUTSIDE,  /* one of the images is a witness's that could not ask the process itself */
	INSIDE,   /* one is of the process itself, which leaves behind what a fork() does */
};

/* field NULL: all of the kind's. The first row that fits counts. */
static const struct {
	const char *kind, *field;
	enum when when;
	enum tf_compare_exception except;
} rules[] = {
	{"source", "mailbox", UNKNOWN, TF_EXCEPT_UNKNOWN},
	{"source", "flags", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "origin", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "max_map_end", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "pid", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "ppid", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "realtime_ns", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "monotonic_ns", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "boottime_ns", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "stack_limit", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "generation", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "release", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "exe", ALWAYS, TF_EXCEPT_NATURE},
	{"source", "version", ALWAYS, TF_EXCEPT_NATURE},
	{"process", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"rights", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"group", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"filter", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"code", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"attributes", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"timer", NULL, INSIDE, TF_EXCEPT_UNKNOWN},
	{"process", "flags", ALWAYS, TF_EXCEPT_NATURE}, /* who was asked; whose session it is */
	{"process", "n_cpus", ALWAYS, TF_EXCEPT_NATURE},
	{"process", "boot", ALWAYS, TF_EXCEPT_NATURE},
	{"process", "itimers", ALWAYS, TF_EXCEPT_NATURE},      /* they run on */
	{"attributes", "pdeathsig", ALWAYS, TF_EXCEPT_NATURE}, /* the receiver is the parent */
	{"object", NULL, ALWAYS, TF_EXCEPT_FDS},
	{"timer", "tid", ALWAYS, TF_EXCEPT_NATURE},
	{"timer", "left", ALWAYS, TF_EXCEPT_NATURE},
	{"wait", NULL, ALWAYS, TF_EXCEPT_NATURE}, /* time passes */
	{"cpu", NULL, ALWAYS, TF_EXCEPT_NATURE},
	{"mm", "brk", OUTSIDE, TF_EXCEPT_UNKNOWN},
	{"mm", NULL, EMULATED, TF_EXCEPT_EMULATOR},
	{"vdso", NULL, ALWAYS, TF_EXCEPT_VDSO},
	{"symbol", NULL, ALWAYS, TF_EXCEPT_VDSO},
	{"fd", NULL, ALWAYS, TF_EXCEPT_FDS},
	{"thread", "tid", ALWAYS, TF_EXCEPT_NATURE},
	{"thread", "altstack.sp", OUTSIDE, TF_EXCEPT_UNKNOWN},
	{"thread", "altstack.size", OUTSIDE, TF_EXCEPT_UNKNOWN},
	{"thread", "altstack.flags", OUTSIDE, TF_EXCEPT_UNKNOWN},
	{"thread", "tid_addr", OUTSIDE, TF_EXCEPT_UNKNOWN},
	{"thread", "robust_head", EMULATED, TF_EXCEPT_EMULATOR},
	{"thread", "robust_len", EMULATED, TF_EXCEPT_EMULATOR},
	{"thread", "rseq.addr", EMULATED, TF_EXCEPT_EMULATOR},
	{"thread", "rseq.len", EMULATED, TF_EXCEPT_EMULATOR},
	{"thread", "rseq.sig", EMULATED, TF_EXCEPT_EMULATOR},
};

static bool equal(const struct tf_field *f, const void *a, const void *b, unsigned i)
{
	const char *s = tf_field_string(f, a), *t = tf_field_string(f, b);

	return s ? !strcmp(s, t) : tf_field_number(f, a, i) == tf_field_number(f, b, i);
}

static bool empty(const struct tf_field *f, const void *item, unsigned i)
{
	const char *s = tf_field_string(f, item);

	return s ? !*s : !tf_field_number(f, item, i);
}

static bool outside(const struct tf_comparison *c)
{
	return (c->a->source.flags | c->b->source.flags) & TF_SOURCE_OUTSIDE;
}

/* Whether a rule holds for all of its kind. */
static bool holds(const struct tf_comparison *c, enum when when)
{
	switch (when) {
	case ALWAYS:
		return true;
	case EMULATED:
		return c->emulated;
	case OUTSIDE:
		return outside(c);
	case INSIDE:
		return (c->a->process.flags & c->b->process.flags & TF_PROCESS_KNOWN) == 0;
	case UNKNOWN:
		break;
	}
	return false;
}

static enum tf_compare_exception except_field(const struct tf_comparison *c,
	const struct tf_kind *k, const struct tf_field *f, const void *a, const void *b, unsigned n)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		if (!strcmp(rules[i].kind, k->name) &&
			(!rules[i].field || !strcmp(rules[i].field, f->name)) &&
			(rules[i].when == UNKNOWN ? empty(f, a, n) || empty(f, b, n)
						  : holds(c, rules[i].when)))
			return rules[i].except;
	return TF_EXCEPT_NONE;
}

static void tell(struct tf_comparison *c, const char *name, enum tf_compare_exception except,
	const char *a, const char *b)
{
	struct tf_difference d = {
		.kind = TF_COMPARE_STATE, .except = except, .name = name, .a = a, .b = b};

	tf_compare_count(c, TF_COMPARE_STATE, true, tf_compare_tell(c, &d));
}

/* One element of one field; label is "sigaction[10]" or "source". */
static void compare_element(struct tf_comparison *c, const struct tf_kind *k,
	const struct tf_field *f, const char *label, const void *a, const void *b, unsigned i)
{
	char text_a[TF_MAX_STR + 1], text_b[TF_MAX_STR + 1], name[160], index[16] = "";

	if (equal(f, a, b, i)) {
		tf_compare_count(c, TF_COMPARE_STATE, false, false);
		return;
	}
	if (f->count > 1)
		snprintf(index, sizeof(index), "[%u]", i);
	snprintf(name, sizeof(name), "%s.%s%s", label, f->name, index);
	tf_field_text(f, a, i, text_a, sizeof(text_a));
	tf_field_text(f, b, i, text_b, sizeof(text_b));
	tell(c, name, except_field(c, k, f, a, b, i), text_a, text_b);
}

static void compare_record(struct tf_comparison *c, const struct tf_kind *k, const char *label,
	const void *a, const void *b)
{
	for (uint32_t n = 0; n < k->n_fields; n++)
		for (unsigned i = 0; i < k->fields[n].count; i++)
			compare_element(c, k, &k->fields[n], label, a, b, i);
}

/* A record that only one side has. */
static void tell_record(
	struct tf_comparison *c, const struct tf_kind *k, const char *label, bool in_a)
{
	enum tf_compare_exception except = TF_EXCEPT_NONE;

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		if (!rules[i].field && holds(c, rules[i].when) && !strcmp(rules[i].kind, k->name))
			except = rules[i].except;
	tell(c, label, except, in_a ? "present" : "-", in_a ? "-" : "present");
}

/* Records are matched by their place; those of a kind that has a number or a name by that. */
static void compare_kind(struct tf_comparison *c, const struct tf_kind *k)
{
	uint32_t n_a = tf_kind_count(k, c->a), n_b = tf_kind_count(k, c->b);
	uint32_t more = n_a > n_b ? n_a : n_b;
	char label[64];

	for (uint32_t i = 0; i < more; i++) {
		if (k->max == 1)
			snprintf(label, sizeof(label), "%s", k->name);
		else
			snprintf(label, sizeof(label), "%s[%u]", k->name, i);
		if (i < n_a && i < n_b)
			compare_record(
				c, k, label, tf_kind_item(k, c->a, i), tf_kind_item(k, c->b, i));
		else
			tell_record(c, k, label, i < n_a);
	}
}

/* --- kinds of which the table does not know how they are matched --- */

/* QEMU user mode keeps the first real-time signals for itself and a signal's trampoline is its own.
 */
static void compare_sigactions(struct tf_comparison *c, const struct tf_kind *k)
{
	if (c->a->n_sigactions != c->b->n_sigactions) {
		tell(c, "sigaction", outside(c) ? TF_EXCEPT_UNKNOWN : TF_EXCEPT_NONE,
			c->a->n_sigactions ? "present" : "-", c->b->n_sigactions ? "present" : "-");
		return;
	}
	for (uint32_t i = 0; i < c->a->n_sigactions; i++) {
		char label[32];

		snprintf(label, sizeof(label), "sigaction[%u]", i + 1);
		compare_record(c, k, label, tf_kind_item(k, c->a, i), tf_kind_item(k, c->b, i));
	}
}

static void compare_fds(struct tf_comparison *c, const struct tf_kind *k)
{
	uint32_t i = 0, n = 0;

	for (;;) {
		const struct tf_fd *a = i < c->a->n_fds ? &c->a->fds[i] : NULL;
		const struct tf_fd *b = n < c->b->n_fds ? &c->b->fds[n] : NULL;
		const struct tf_fd *either;
		char label[32];

		if (a && b && a->fd != b->fd) {
			if (a->fd < b->fd)
				b = NULL;
			else
				a = NULL;
		}
		either = a ? a : b;
		if (!either)
			return;
		snprintf(label, sizeof(label), "fd[%d]", either->fd);
		if (a && b)
			compare_record(c, k, label, a, b);
		else
			tell_record(c, k, label, a != NULL);
		i += a != NULL;
		n += b != NULL;
	}
}

/* The kernel keeps a copy that PR_SET_MM_MAP replaces; QEMU user mode makes its own. */
static void compare_auxv(struct tf_comparison *c)
{
	uint32_t more = c->a->n_auxv > c->b->n_auxv ? c->a->n_auxv : c->b->n_auxv;

	for (uint32_t i = 0; i < more; i++) {
		const uint64_t *a = i < c->a->n_auxv ? c->a->auxv + 2 * i : NULL;
		const uint64_t *b = i < c->b->n_auxv ? c->b->auxv + 2 * i : NULL;
		char name[32], text_a[48] = "-", text_b[48] = "-";

		if (a && b && a[0] == b[0] && a[1] == b[1]) {
			tf_compare_count(c, TF_COMPARE_STATE, false, false);
			continue;
		}
		snprintf(name, sizeof(name), "auxv[%u]", i);
		if (a)
			snprintf(text_a, sizeof(text_a), "%" PRIu64 ": 0x%" PRIx64, a[0], a[1]);
		if (b)
			snprintf(text_b, sizeof(text_b), "%" PRIu64 ": 0x%" PRIx64, b[0], b[1]);
		tell(c, name, c->emulated ? TF_EXCEPT_EMULATOR : TF_EXCEPT_NONE, text_a, text_b);
	}
}

int tf_compare_state(struct tf_comparison *c)
{
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];

		if (k->items == offsetof(struct tf_image, maps))
			continue; /* by address: compare_maps.c */
		if (k->items == offsetof(struct tf_image, sigactions))
			compare_sigactions(c, k);
		else if (k->items == offsetof(struct tf_image, fds))
			compare_fds(c, k);
		else
			compare_kind(c, k);
	}
	compare_auxv(c);
	return 0;
}
