/* SPDX-License-Identifier: MIT */
/*
 * Mappings compared by address: kernels merge neighbours that are alike and split none that differ,
 * so a mapping of a may be part of one of b, or several; every address has to have the same
 * attributes on both sides. See compare.h.
 */
#include "core/image/compare_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/image/notes.h"

/* QEMU user mode's own in a new process: a signal trampoline, descriptor tables, the page at brk.
 */
#define EMULATOR_PAGES 16

/* A range in which each side has one mapping, or none. */
struct piece {
	uint64_t start, end;
	const struct tf_map *a, *b;
	bool different, lost;
};

static void tell(struct tf_comparison *c, struct piece *p, const char *name,
	enum tf_compare_exception except, const char *a, const char *b)
{
	struct tf_difference d = {.kind = TF_COMPARE_MAPPING,
		.except = except,
		.name = name,
		.a = a,
		.b = b,
		.address = p->start,
		.size = p->end - p->start,
		.map_a = p->a,
		.map_b = p->b};

	p->different = true;
	p->lost |= tf_compare_tell(c, &d);
}

/* The text of a field of the map's note. */
static const char *field(const char *name, const struct tf_map *m, char *buf, size_t n)
{
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];

		for (uint32_t f = 0; k->items == offsetof(struct tf_image, maps) && f < k->n_fields;
			f++)
			if (!strcmp(k->fields[f].name, name))
				tf_field_text(&k->fields[f], m, 0, buf, n);
	}
	return buf;
}

static void tell_field(struct tf_comparison *c, struct piece *p, const char *name,
	const char *shown, enum tf_compare_exception except)
{
	char a[256] = "", b[256] = "";

	field(name, p->a, a, sizeof(a));
	field(name, p->b, b, sizeof(b));
	tell(c, p, shown, except, a, b);
}

static bool is_kernels(const struct tf_map *m)
{
	return m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR;
}

/* --- one piece --- */

static void compare_protection(struct tf_comparison *c, struct piece *p)
{
	uint32_t changed = p->a->prot ^ p->b->prot;
	enum tf_compare_exception except = TF_EXCEPT_NONE;

	if (!changed)
		return;
	if (is_kernels(p->a))
		except = TF_EXCEPT_VDSO;
	else if (changed == PROT_EXEC && c->emulated)
		except = TF_EXCEPT_EXEC;
	tell_field(c, p, "prot", "protection", except);
}

static void compare_shared(struct tf_comparison *c, struct piece *p)
{
	bool a = p->a->flags & TF_MAP_SHARED, b = p->b->flags & TF_MAP_SHARED;

	if (a != b)
		tell(c, p, "sharing", TF_EXCEPT_NONE, a ? "shared" : "private",
			b ? "shared" : "private");
}

static bool same_file(const struct piece *p)
{
	return p->a->dev == p->b->dev && p->a->ino == p->b->ino &&
	       p->a->offset + (p->start - p->a->start) == p->b->offset + (p->start - p->b->start) &&
	       !strcmp(p->a->path, p->b->path);
}

/* Plain memory, whatever the kernel calls it. */
static bool is_memory(const struct tf_map *m)
{
	return m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP || m->kind == TF_MAP_STACK;
}

static void compare_kind(struct tf_comparison *c, struct piece *p)
{
	enum tf_compare_exception except = TF_EXCEPT_NONE;

	if (p->a->kind == TF_MAP_FILE && p->b->kind == TF_MAP_FILE) {
		/* Behind a file's end the restorer maps an empty file. */
		if (p->start >= p->a->data_end && p->start >= p->b->data_end)
			except = TF_EXCEPT_BY_VALUE;
		if (!same_file(p))
			tell(c, p, "file", except, p->a->path, p->b->path);
		return;
	}
	if (p->a->kind == p->b->kind)
		return;
	if (is_kernels(p->a))
		except = TF_EXCEPT_VDSO;
	else if (p->a->kind == TF_MAP_FILE && is_memory(p->b))
		except = TF_EXCEPT_BY_VALUE;
	else if (is_memory(p->a) && is_memory(p->b))
		except = TF_EXCEPT_LABEL;
	tell_field(c, p, "kind", "kind", except);
}

/* Flags that a landing changes. MAP_STACK means no huge pages since Linux 6.7. */
static enum tf_compare_exception except_vmflags(const struct piece *p)
{
	uint32_t gained = p->b->vmflags & ~p->a->vmflags, gone = p->a->vmflags & ~p->b->vmflags;
	bool stack = p->a->kind == TF_MAP_STACK;

	if (is_kernels(p->a))
		return TF_EXCEPT_VDSO;
	if (stack && !(gone & ~TF_VMF_GROWSDOWN) &&
		!(gained & ~(TF_VMF_NORESERVE | TF_VMF_NOHUGEPAGE)))
		return TF_EXCEPT_STACK;
	if (gone == TF_VMF_LOCKED && !(gained & ~TF_VMF_NORESERVE))
		return TF_EXCEPT_LOCK;
	return !gone && gained == TF_VMF_NORESERVE ? TF_EXCEPT_RESERVE : TF_EXCEPT_NONE;
}

static void compare_vmflags(struct tf_comparison *c, struct piece *p)
{
	uint32_t changed = (p->a->vmflags ^ p->b->vmflags);

	if (!changed || (c->a->source.flags | c->b->source.flags) & TF_SOURCE_NO_SMAPS)
		return;
	tell_field(c, p, "vmflags", "flags", except_vmflags(p));
}

/* Where reading ends: a mapped file may be shorter than its mapping. */
static void compare_end(struct tf_comparison *c, struct piece *p)
{
	uint64_t a = p->a->data_end < p->end ? p->a->data_end : p->end;
	uint64_t b = p->b->data_end < p->end ? p->b->data_end : p->end;
	char text_a[24], text_b[24];

	a = a > p->start ? a : p->start;
	b = b > p->start ? b : p->start;
	if (a == b || p->a->kind == TF_MAP_VVAR)
		return;
	snprintf(text_a, sizeof(text_a), "0x%" PRIx64, a);
	snprintf(text_b, sizeof(text_b), "0x%" PRIx64, b);
	tell(c, p, "end of the file", TF_EXCEPT_NONE, text_a, text_b);
}

static void compare_piece(struct tf_comparison *c, struct piece *p)
{
	compare_protection(c, p);
	compare_shared(c, p);
	compare_kind(c, p);
	compare_vmflags(c, p);
	compare_end(c, p);
}

/* --- what only one side has --- */

static bool in_hole(const struct tf_mailbox *m, const struct piece *p)
{
	return m->hole_size && p->start >= m->hole_start && p->end - m->hole_start <= m->hole_size;
}

static void tell_missing(struct tf_comparison *c, struct piece *p)
{
	enum tf_compare_exception except = TF_EXCEPT_NONE;
	char text[256];

	if (in_hole(&c->mailbox_a, p))
		except = TF_EXCEPT_HOLE;
	else if (p->a->vmflags & TF_VMF_DONTFORK && !is_kernels(p->a))
		except = TF_EXCEPT_FORK;
	tell(c, p, "missing", except, field("kind", p->a, text, sizeof(text)), "-");
}

static enum tf_compare_exception except_extra(const struct tf_comparison *c, const struct piece *p)
{
	if (is_kernels(p->b))
		return TF_EXCEPT_VDSO;
	if (in_hole(&c->mailbox_b, p))
		return TF_EXCEPT_HOLE;
	if (c->stack && p->end == c->stack->start && !(p->b->flags & TF_MAP_SHARED))
		return TF_EXCEPT_STACK;
	if (c->b->source.flags & TF_SOURCE_EMULATED && !(p->b->flags & TF_MAP_SHARED) &&
		(p->end - p->start) / c->b->source.page_size <= EMULATOR_PAGES)
		return TF_EXCEPT_EMULATOR;
	return TF_EXCEPT_NONE;
}

static void tell_extra(struct tf_comparison *c, struct piece *p)
{
	char text[256];

	tell(c, p, "unexpected", except_extra(c, p), "-", field("kind", p->b, text, sizeof(text)));
	tf_compare_count(c, TF_COMPARE_MAPPING, true, p->lost);
}

/* Pieces of one mapping of a. *at: the first mapping of b that ends behind its start. */
static void compare_map(struct tf_comparison *c, const struct tf_map *m, uint32_t *at)
{
	const struct tf_image *b = c->b;
	bool different = false, lost = false;
	uint32_t i;

	while (*at < b->n_maps && b->maps[*at].end <= m->start)
		++*at;
	i = *at;
	for (uint64_t from = m->start; from < m->end;) {
		struct piece p = {.start = from, .end = m->end, .a = m};

		while (i < b->n_maps && b->maps[i].end <= from)
			i++;
		if (i < b->n_maps && b->maps[i].start < m->end) {
			const struct tf_map *n = &b->maps[i];

			p.b = n->start <= from ? n : NULL;
			p.end = p.b ? n->end : n->start;
		}
		if (p.end > m->end)
			p.end = m->end;
		if (p.b)
			compare_piece(c, &p);
		else
			tell_missing(c, &p);
		different |= p.different;
		lost |= p.lost;
		from = p.end;
	}
	tf_compare_count(c, TF_COMPARE_MAPPING, different, lost);
}

/* Parts of one mapping of b where a has none. */
static void find_extra(struct tf_comparison *c, const struct tf_map *n, uint32_t *at)
{
	const struct tf_image *a = c->a;
	uint32_t i;

	while (*at < a->n_maps && a->maps[*at].end <= n->start)
		++*at;
	i = *at;
	for (uint64_t from = n->start; from < n->end; i++) {
		struct piece p = {.start = from, .end = n->end, .b = n};

		if (i < a->n_maps && a->maps[i].start < p.end)
			p.end = a->maps[i].start;
		if (p.end > p.start)
			tell_extra(c, &p);
		from = i < a->n_maps ? a->maps[i].end : n->end;
	}
}

int tf_compare_maps(struct tf_comparison *c)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < c->a->n_maps; i++)
		compare_map(c, &c->a->maps[i], &at);
	at = 0;
	for (uint32_t i = 0; i < c->b->n_maps; i++)
		find_extra(c, &c->b->maps[i], &at);
	return 0;
}
