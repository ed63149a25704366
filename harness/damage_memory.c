/* SPDX-License-Identifier: MIT */
/*
 * Faults of mappings and of what is in them. Of mappings of one sort, with equal attributes, the
 * one with most in it stands for all: what the program asked for itself, not the pages of programs
 * and libraries, stack and vDSO, which differ from machine to machine.
 */
#include "harness/damage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tf_kind *map_kind(void)
{
	const struct tf_kind *k = tf_kinds;

	while (strcmp(k->name, "map") != 0)
		k++;
	return k;
}

static uint64_t data_of(const struct tf_specimen *s, const struct tf_map *m)
{
	uint64_t first, size = 0, n = tf_specimen_runs(s, m, &first);

	for (uint64_t i = first; i < first + n; i++)
		size += s->runs[i].end - s->runs[i].start;
	return size;
}

static bool same_sort(const struct tf_map *a, const struct tf_map *b)
{
	return a->kind == b->kind && a->prot == b->prot && a->flags == b->flags &&
	       a->vmflags == b->vmflags && a->key == b->key && !strcmp(a->path, b->path);
}

/* Programs and libraries are files that can be run. */
static bool is_program(const struct tf_image *img, const struct tf_map *m)
{
	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].prot & 4 && !strcmp(img->maps[i].path, m->path))
			return true;
	return false;
}

static bool stands(const struct tf_damage_walk *w, uint32_t i)
{
	const struct tf_image *img = &w->s->file.image;
	const struct tf_map *m = &img->maps[i];
	uint64_t data = data_of(w->s, m);

	if (m->kind == TF_MAP_FILE && !is_program(img, m))
		return !m->path[0] || strncmp(m->path, "/usr/", 5);
	if (m->kind == TF_MAP_STAGE)
		return data != 0;
	if (m->kind == TF_MAP_HEAP)
		return data >= w->least;
	if (m->kind != TF_MAP_ANON || data < w->least)
		return false;
	for (uint32_t k = 0; k < img->n_maps; k++) {
		uint64_t other = data_of(w->s, &img->maps[k]);

		if (k != i && same_sort(m, &img->maps[k]) &&
			(other > data || (other == data && k < i)))
			return false;
	}
	return true;
}

/* --- where it is --- */

static void move(struct tf_specimen *s, struct tf_map *m, uint64_t by)
{
	uint64_t first, n = tf_specimen_runs(s, m, &first);

	for (uint64_t k = first; k < first + n; k++) {
		s->runs[k].start += by;
		s->runs[k].end += by;
	}
	m->start += by;
	m->end += by;
	m->data_end += by;
}

static void shorten(struct tf_specimen *s, struct tf_map *m)
{
	uint64_t end = m->end - s->file.image.source.page_size;

	if (tf_specimen_page(s, end))
		tf_specimen_drop_page(s, end);
	m->end = m->data_end = end;
}

static void remove_map(struct tf_specimen *s, uint32_t i)
{
	struct tf_image *img = &s->file.image;
	uint64_t first, n = tf_specimen_runs(s, &img->maps[i], &first);

	tf_specimen_drop(s, first, n);
	memmove(img->maps + i, img->maps + i + 1, (img->n_maps - i - 1) * sizeof(*img->maps));
	img->n_maps--;
}

static void damage_place(struct tf_damage_walk *w, const char *item, uint32_t i)
{
	struct tf_image *img = &w->s->file.image;
	struct tf_map *m = &img->maps[i];
	uint64_t page = m->huge ? UINT64_C(1) << m->huge : img->source.page_size;
	uint64_t next = i + 1 < img->n_maps ? m[1].start : UINT64_MAX;

	tf_damage_at(w, item, "map.address");
	if (next - m->end >= page && m->end + page <= img->source.max_map_end &&
		tf_damage_offer(w, "off"))
		move(w->s, m, page);
	if (m->end - m->start > page && m->data_end == m->end && !m->huge &&
		tf_damage_offer(w, "flip"))
		shorten(w->s, m);
	tf_damage_at(w, item, "map");
	if (tf_damage_offer(w, "drop"))
		remove_map(w->s, i);
}

/* --- what is in it --- */

/* One that is not zero: behind the end of a file there is nothing but zeros. */
static uint64_t some_byte(const struct tf_damage_walk *w, const uint8_t *p, uint64_t page)
{
	uint64_t from = tf_damage_hash(w->seed, w->now.item), i = 0;

	while (i < page && !p[(from + i) % page])
		i++;
	return (from + i) % page;
}

/* A file that has a name, or a private mapping of any. */
static bool is_from_file(const struct tf_image *img, const struct tf_map *m)
{
	const struct tf_object *o = m->object ? &img->objects[m->object - 1] : NULL;

	return m->kind == TF_MAP_FILE &&
	       (!o || (o->kind == TF_OBJECT_FILE && !(o->flags & TF_OBJECT_DELETED)));
}

static void damage_page(
	struct tf_damage_walk *w, const struct tf_map *m, uint64_t at, uint64_t page)
{
	static const uint8_t zero[65536];
	uint8_t *p = tf_specimen_page(w->s, at), *next = tf_specimen_page(w->s, at + page);
	const uint8_t *old = w->older ? tf_specimen_page(w->older, at) : NULL;
	uint8_t keep[65536];
	bool from_file = is_from_file(&w->s->file.image, m);

	if (tf_damage_offer(w, "flip"))
		p[some_byte(w, p, page)] ^= 0x10;
	/* What is absent is read from the file, and may be the same. */
	if (memcmp(p, zero, page) && !from_file && tf_damage_offer(w, "drop"))
		tf_specimen_drop_page(w->s, at);
	if (w->made) /* the page may be gone */
		return;
	if (tf_damage_offer(w, "off"))
		memmove(p + 1, p, page - 1);
	if (old && memcmp(old, zero, page) && memcmp(old, p, page) && tf_damage_offer(w, "stale"))
		memcpy(p, old, page);
	if (next && memcmp(next, p, page) && tf_damage_offer(w, "swap")) {
		memcpy(keep, p, page);
		memcpy(p, next, page);
		memcpy(next, keep, page);
	}
}

/* Of the heap all but its end is the C library's. */
static bool ends_heap(const struct tf_image *img, const struct tf_map *m)
{
	return m->kind == TF_MAP_HEAP &&
	       (m + 1 == img->maps + img->n_maps || m[1].kind != TF_MAP_HEAP);
}

/* The first page, the last, and one in the middle, of those that are present. */
static void damage_pages(struct tf_damage_walk *w, const char *item, const struct tf_map *m)
{
	uint64_t page = w->s->file.image.source.page_size, first,
		 n = tf_specimen_runs(w->s, m, &first);
	uint64_t count = data_of(w->s, m) / page, seen = 0;

	for (uint64_t r = first; r < first + n; r++)
		for (uint64_t at = w->s->runs[r].start; at < w->s->runs[r].end && !w->made;
			at += page, seen++) {
			const char *which = seen == 0           ? "first"
					    : seen == count - 1 ? "last"
					    : seen == count / 2 ? "middle"
								: NULL;

			if (!which)
				continue;
			if (m->kind == TF_MAP_HEAP)
				tf_damage_at(w, item, "memory.heap");
			else
				tf_damage_at(w, item, "memory.%s", which);
			if (m->kind != TF_MAP_HEAP ||
				(ends_heap(&w->s->file.image, m) && !strcmp(which, "last")))
				damage_page(w, m, at, page);
		}
}

/* A thread's own note of who it is: the kernel clears it at its end, so its place is known. */
static void damage_tids(struct tf_damage_walk *w)
{
	const struct tf_image *img = &w->s->file.image;
	uint32_t *before = NULL;

	for (uint32_t i = 0; i < img->n_threads && !w->made; i++) {
		const struct tf_thread *t = &img->threads[i];
		uint32_t *at = (uint32_t *)(void *)tf_specimen_page(w->s, t->tid_addr);
		char item[16];

		if (!at || *at != (uint32_t)t->tid)
			continue;
		snprintf(item, sizeof(item), "%u", i);
		tf_damage_at(w, item, "memory.tid");
		tf_damage_word(w, at, before);
		before = at;
	}
}

#define ROBUST     0x10u /* its own list says who holds it */
#define INHERITING 0x20u
#define RECURSIVE  1u
#define CHECKING   2u

/* Whether this word looks like the owner in a glibc mutex of a sort that heeds it: behind lock and
 * count, before the number of users and the sort. */
static bool is_owner(const struct tf_image *img, const uint32_t at[static 5])
{
	uint32_t t = 0, sort = at[4];

	while (t < img->n_threads && at[2] != (uint32_t)img->threads[t].tid)
		t++;
	return t < img->n_threads && at[0] && at[1] < 16 && at[3] == 1 && sort < 512 &&
	       !(sort & ROBUST) &&
	       (sort & INHERITING || (sort & 3) == RECURSIVE || (sort & 3) == CHECKING);
}

/* Locks that know who holds them. */
static void damage_owners(struct tf_damage_walk *w)
{
	uint32_t *before = NULL;

	for (uint64_t r = 0; r < w->s->n_runs; r++)
		for (uint64_t i = 0; i + 20 <= w->s->runs[r].end - w->s->runs[r].start && !w->made;
			i += 4) {
			uint32_t *at = (uint32_t *)(void *)(w->s->bytes[r] + i);
			char item[32];

			if (!is_owner(&w->s->file.image, at))
				continue;
			snprintf(item, sizeof(item), "%" PRIx64, w->s->runs[r].start + i);
			tf_damage_at(w, item, "memory.owner");
			tf_damage_word(w, at + 2, before);
			before = at + 2;
		}
}

void tf_damage_memory(struct tf_damage_walk *w)
{
	struct tf_image *img = &w->s->file.image;

	damage_tids(w);
	damage_owners(w);
	for (uint32_t i = 0; i < img->n_maps && !w->made; i++) {
		char item[16];

		if (!stands(w, i))
			continue;
		snprintf(item, sizeof(item), "%u", i);
		damage_pages(w, item, &img->maps[i]);
		if (img->maps[i].kind == TF_MAP_STAGE || w->made)
			continue;
		tf_damage_record(w, map_kind(), i);
		if (!w->made)
			damage_place(w, item, i);
	}
}
