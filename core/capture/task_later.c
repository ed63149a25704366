/* SPDX-License-Identifier: MIT */
/*
 * Post-copy: which memory a process needs to begin with, and which may come when it runs over there
 * (task_serve.c). What goes first is what the receiver itself looks at before the process runs
 * (lists of locks, ids that the kernel or the C library keeps in memory), and where the threads are
 * about to look.
 */
#include "core/capture/task_call.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/restore/owners.h"

#define BELOW_STACK 4096u
#define ABOVE_STACK 16384u
#define AROUND_TID  8192u
#define RETURNS     1024u  /* bytes of the stack that are looked at for addresses */
#define SMALL       65536u /* of a program or library: its data, tables of what it calls included */

/* --- what goes first --- */

struct first {
	struct tf_run *v;
	size_t n, room;
};

static int add(struct first *f, uint64_t start, uint64_t size)
{
	if (f->n == f->room) {
		size_t room = f->room ? 2 * f->room : 256;
		struct tf_run *v = realloc(f->v, room * sizeof(*v));

		if (!v)
			return TELEFORK_E_NOMEM;
		f->v = v;
		f->room = room;
	}
	f->v[f->n++] = (struct tf_run){start, start + size};
	return 0;
}

static int by_start(const void *a, const void *b)
{
	uint64_t x = ((const struct tf_run *)a)->start, y = ((const struct tf_run *)b)->start;

	return (x > y) - (x < y);
}

/* Whole pages, sorted, none twice. */
static void tidy(struct first *f, uint64_t page)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++) {
		f->v[i].start &= ~(page - 1);
		f->v[i].end = (f->v[i].end + page - 1) & ~(page - 1);
	}
	if (f->n)
		qsort(f->v, f->n, sizeof(*f->v), by_start);
	for (size_t i = 0; i < f->n; i++) {
		if (!n || f->v[i].start > f->v[n - 1].end)
			f->v[n++] = f->v[i];
		else if (f->v[i].end > f->v[n - 1].end)
			f->v[n - 1].end = f->v[i].end;
	}
	f->n = n;
}

static int add_around(struct first *f, uint64_t at, uint64_t below, uint64_t above)
{
	if (!at || at > TF_MAX_ADDR)
		return 0;
	below = below < at ? below : at;
	return add(f, at - below, below + above);
}

/* A word of the process; 0 if it cannot be read. */
static uint64_t word_at(const struct tf_task *t, uint64_t at)
{
	uint64_t word = 0;

	return pread(t->mem, &word, sizeof(word), (off_t)at) == sizeof(word) ? word : 0;
}

/* As tf_owner_list() will walk it. */
static int add_locks(struct tf_task *t, struct first *f, const struct tf_thread *x)
{
	uint64_t entry, offset, end = x->robust_head;
	int rc;

	if (!end || end & 7)
		return 0;
	rc = add(f, end, 24);
	offset = word_at(t, end + 8);
	entry = word_at(t, end) & ~UINT64_C(1);
	for (unsigned n = 0; n < TF_OWNER_ROBUST && entry && entry != end && !rc; n++) {
		rc = add_around(f, entry, 0, 8);
		if (!rc)
			rc = add_around(f, entry + offset, 0, 16);
		entry = word_at(t, entry) & ~UINT64_C(1);
	}
	entry = word_at(t, end + 16) & ~UINT64_C(1);
	return rc || !entry ? rc : add_around(f, entry + offset, 0, 16);
}

/* Whatever a register holds may be an address; pages that are none are in no run. */
static int add_registers(struct first *f, const struct tf_thread *x)
{
	const struct tf_regset *general = &x->regs.set[0];
	int rc = 0;

	for (size_t at = 0; at + 8 <= general->size && !rc; at += 8) {
		uint64_t word;

		memcpy(&word, (const uint8_t *)general->data + at, sizeof(word));
		rc = add_around(f, word, 0, 8);
	}
	return rc;
}

/* Where it returns to, and what it has at hand: whatever looks like an address, as above. */
static int add_stack(struct tf_task *t, struct first *f, uint64_t sp)
{
	uint64_t word[RETURNS / 8];
	ssize_t n = pread(t->mem, word, sizeof(word), (off_t)sp);
	int rc = 0;

	for (ssize_t i = 0; i < n / 8 && !rc; i++)
		if (tf_image_map_at(&t->capture.image, word[i]))
			rc = add(f, word[i], 8);
	return rc;
}

static bool is_touched(const struct first *f, const struct tf_map *m)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].start < m->end && f->v[i].end > m->start)
			return true;
	return false;
}

/* A call leads through a table of its program or library. Those that are offered are not waited for
 * where there is the same file; where not, they are asked for. */
static int add_data(struct tf_task *t, struct first *f)
{
	const struct tf_image *img = &t->capture.image;
	bool in_use = false;
	uint32_t k = 0;
	int rc = 0;

	tidy(f, img->source.page_size);
	for (uint32_t i = 0; i < img->n_maps && !rc; i++) {
		const struct tf_map *m = &img->maps[i];

		if (m->kind != TF_MAP_FILE)
			continue;
		while (k < img->n_known && img->known[k].map < i)
			k++;
		if (!i || m->ino != m[-1].ino || m->dev != m[-1].dev)
			in_use = false;
		in_use |= m->prot & PROT_EXEC && is_touched(f, m);
		if (in_use && !(m->prot & PROT_EXEC) && m->end - m->start <= SMALL &&
			(k == img->n_known || img->known[k].map != i))
			rc = add(f, m->start, m->end - m->start);
	}
	return rc;
}

static int add_thread(struct tf_task *t, struct first *f, const struct tf_thread *x)
{
	const struct tf_arch *arch = tf_arch_native();
	uint64_t cs = x->rseq.addr ? word_at(t, x->rseq.addr + 8) : 0;
	int rc = add_registers(f, x);

	if (!rc)
		rc = add_around(f, arch->sp(&x->regs), BELOW_STACK, ABOVE_STACK);
	if (!rc)
		rc = add_stack(t, f, arch->sp(&x->regs));
	if (!rc)
		rc = add_around(f, arch->pc(&x->regs), 0, 64);
	if (!rc)
		rc = add_around(f, x->tid_addr, AROUND_TID, AROUND_TID);
	if (!rc)
		rc = add_around(f, x->rseq.addr, 0, 64);
	if (!rc)
		rc = add_around(f, cs, 0, 64);
	return rc ? rc : add_locks(t, f, x);
}

static int find_first(struct tf_task *t, struct first *f)
{
	const struct tf_image *img = &t->capture.image;
	int rc = 0;

	for (uint32_t i = 0; i < img->n_threads && !rc; i++)
		rc = add_thread(t, f, &img->threads[i]);
	if (!rc)
		rc = add_data(t, f);
	tidy(f, img->source.page_size);
	return rc;
}

/* --- what is left --- */

static int put_later(struct tf_task *t, uint64_t start, uint64_t end)
{
	struct tf_image *img = &t->capture.image;
	struct tf_run *r;

	if (start >= end)
		return 0;
	if (img->n_later == TF_MAX_LATER)
		return TELEFORK_E_LIMIT;
	/* They grow at the arena's end: nothing else is allocated meanwhile. */
	r = tf_arena_array(&t->capture.arena, 1, sizeof(*r));
	if (!r)
		return TELEFORK_E_NOMEM;
	if (!img->n_later)
		img->later = r;
	img->later[img->n_later++] = (struct tf_run){start, end};
	return 0;
}

static int leave(struct tf_task *t, const struct first *f)
{
	struct tf_capture *c = &t->capture;
	size_t k = 0;
	int rc = 0;

	for (uint64_t i = 0; i < c->n_runs && !rc; i++) {
		const struct tf_map *m = tf_image_map_at(&c->image, c->runs[i].start);
		uint64_t at = c->runs[i].start, end = c->runs[i].end;

		if (!m || !tf_map_may_wait(m) || tf_capture_frozen_at(c, at))
			continue;
		for (; k < f->n && f->v[k].end <= at; k++)
			;
		for (size_t j = k; j < f->n && f->v[j].start < end && !rc; j++) {
			rc = put_later(t, at, f->v[j].start);
			at = f->v[j].end;
		}
		if (!rc)
			rc = put_later(t, at, end);
	}
	return rc;
}

int tf_task_choose_later(struct tf_task *t)
{
	struct first f = {0};
	int rc = tf_task_offer_known(t);

	if (!rc)
		rc = find_first(t, &f);
	if (!rc)
		rc = leave(t, &f);
	free(f.v);
	return rc ? tf_fail(&t->capture.err, rc, "out of memory for what is to come later") : 0;
}
