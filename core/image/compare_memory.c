/* SPDX-License-Identifier: MIT */
/*
 * Memory compared page by page, where both images can read it. A page that neither file holds is
 * zero on both sides and costs nothing, so a reservation of a terabyte is compared in no time. What
 * is excused is excused byte by byte. See compare.h.
 */
#include "core/image/compare_impl.h"

#include <stdio.h>
#include <string.h>

#define STEP     (1u << 18)  /* bytes read at once; a multiple of every page size */
#define RSEQ_MAX 256u        /* struct rseq has 32 bytes, and may grow */
#define OWN_MAX  (64u << 10) /* a mailbox cannot excuse more than this */

/* A range whose bytes may differ. Sorted by start when complete; the first that fits decides. */
struct excuse {
	uint64_t start, end;
	enum tf_compare_exception except;
};

struct memory {
	struct tf_comparison *c;
	struct tf_arena arena;
	struct excuse *excuses;
	uint32_t n_excuses, max_excuses;
	uint8_t *a, *b; /* STEP bytes each */
};

static void excuse(struct memory *m, uint64_t start, uint64_t end, enum tf_compare_exception except)
{
	if (start < end && m->n_excuses < m->max_excuses)
		m->excuses[m->n_excuses++] = (struct excuse){start, end, except};
}

/* --- what may differ --- */

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* A signal may be delivered at any moment, so nothing below the stack pointer and the red zone can
 * be relied on. Only on what is known to be a stack: elsewhere it could be anybody's memory. */
static void excuse_dead_stack(
	struct memory *m, const struct tf_thread *a, const struct tf_thread *b)
{
	const struct tf_comparison *c = m->c;
	uint64_t sp = min(c->arch->sp(&a->regs), c->arch->sp(&b->regs));

	sp -= min(sp, c->arch->red_zone);
	if (c->stack && sp >= c->stack->start && sp <= c->stack->end)
		excuse(m, c->stack->start, sp, TF_EXCEPT_DEAD_STACK);
	/* The alternate stack: all of it while the thread is elsewhere. */
	if (sp < a->altstack.sp || sp > a->altstack.sp + a->altstack.size)
		sp = a->altstack.sp + a->altstack.size;
	excuse(m, a->altstack.sp, sp, TF_EXCEPT_DEAD_STACK);
}

static bool holds(const struct tf_file *f, uint64_t addr, int32_t expected)
{
	int32_t word;

	return tf_file_read(f, addr, &word, sizeof(word)) == sizeof(word) && word == expected;
}

static void excuse_thread(struct memory *m, const struct tf_thread *a, const struct tf_thread *b)
{
	const struct tf_comparison *c = m->c;
	uint64_t tid = a->tid_addr ? a->tid_addr : b->tid_addr;
	const struct tf_rseq *rseq = a->rseq.addr ? &a->rseq : &b->rseq;

	excuse_dead_stack(m, a, b);
	if (tid && holds(c->file_a, tid, a->tid) && holds(c->file_b, tid, b->tid))
		excuse(m, tid, tid + sizeof(int32_t), TF_EXCEPT_TID);
	if (rseq->addr)
		excuse(m, rseq->addr, rseq->addr + min(rseq->len, RSEQ_MAX), TF_EXCEPT_RSEQ);
}

static void excuse_library(struct memory *m)
{
	const struct tf_mailbox *box = &m->c->mailbox_a;

	if (!m->c->mailbox)
		return;
	excuse(m, m->c->mailbox, m->c->mailbox + sizeof(*box), TF_EXCEPT_LIBRARY);
	if (box->own_end - box->own_start <= OWN_MAX)
		excuse(m, box->own_start, box->own_end, TF_EXCEPT_LIBRARY);
}

static void find_excuses(struct memory *m)
{
	const struct tf_image *a = m->c->a, *b = m->c->b;

	for (uint32_t i = 0; i < a->n_threads; i++)
		excuse_thread(m, &a->threads[i], &b->threads[i]);
	excuse_library(m);
	for (uint32_t i = 0; i < a->n_maps; i++) {
		const struct tf_map *map = &a->maps[i];

		if (map->kind == TF_MAP_VDSO)
			excuse(m, map->start, map->end, TF_EXCEPT_VDSO);
		else if (map->vmflags & TF_VMF_WIPEONFORK)
			excuse(m, map->start, map->end, TF_EXCEPT_FORK);
	}
}

static enum tf_compare_exception except_at(const struct memory *m, uint64_t addr)
{
	for (uint32_t i = 0; i < m->n_excuses; i++)
		if (addr >= m->excuses[i].start && addr < m->excuses[i].end)
			return m->excuses[i].except;
	return TF_EXCEPT_NONE;
}

/* --- pages --- */

/* What one page has to tell under one exception. */
struct finding {
	uint64_t first, size;
	uint8_t a, b;
};

static void tell_page(struct memory *m, const struct finding found[static TF_EXCEPTIONS])
{
	char a[8], b[8];

	for (unsigned i = 0; i < TF_EXCEPTIONS; i++) {
		struct tf_difference d = {.kind = TF_COMPARE_MEMORY,
			.except = (enum tf_compare_exception)i,
			.name = "bytes",
			.a = a,
			.b = b,
			.address = found[i].first,
			.size = found[i].size,
			.map_a = tf_image_map_at(m->c->a, found[i].first),
			.map_b = tf_image_map_at(m->c->b, found[i].first)};
		struct tf_compare_count *n = &m->c->sum->count[TF_COMPARE_MEMORY];

		if (!found[i].size)
			continue;
		snprintf(a, sizeof(a), "%02x", found[i].a);
		snprintf(b, sizeof(b), "%02x", found[i].b);
		if (tf_compare_tell(m->c, &d))
			n->different += d.size;
		else
			n->excepted += d.size;
	}
}

/* A lock that a thread holds knows its owner by the thread's id, maybe with a futex word's two
 * flags, and follows it. */
static bool is_tid(const struct memory *m, const uint8_t *a, const uint8_t *b)
{
	const uint32_t flags = 0xc0000000; /* FUTEX_WAITERS, FUTEX_OWNER_DIED */
	uint32_t word_a, word_b;
	int32_t old, new;

	memcpy(&word_a, a, sizeof(word_a));
	memcpy(&word_b, b, sizeof(word_b));
	if ((word_a ^ word_b) & flags)
		return false;
	old = (int32_t)(word_a & ~flags);
	new = (int32_t)(word_b & ~flags);
	for (uint32_t i = 0; i < m->c->a->n_threads; i++)
		if (m->c->a->threads[i].tid == old && m->c->b->threads[i].tid == new)
			return true;
	return false;
}

static void compare_page(
	struct memory *m, uint64_t addr, const uint8_t *a, const uint8_t *b, uint64_t size)
{
	struct finding found[TF_EXCEPTIONS] = {0};
	uint64_t equal = 0;

	for (uint64_t i = 0; i < size; i++) {
		struct finding *f;

		if (a[i] == b[i]) {
			equal++;
			continue;
		}
		f = &found[except_at(m, addr + i)];
		if (f == found && is_tid(m, a + (i & ~UINT64_C(3)), b + (i & ~UINT64_C(3))))
			f = &found[TF_EXCEPT_TID];
		if (!f->size++)
			*f = (struct finding){addr + i, 1, a[i], b[i]};
	}
	m->c->sum->count[TF_COMPARE_MEMORY].equal += equal;
	tell_page(m, found);
}

static int read_both(struct memory *m, uint64_t addr, uint64_t size)
{
	struct tf_comparison *c = m->c;

	if (tf_file_read(c->file_a, addr, m->a, size) != (ssize_t)size ||
		tf_file_read(c->file_b, addr, m->b, size) != (ssize_t)size)
		return tf_fail(c->e, TELEFORK_E_IO, "memory at 0x%llx cannot be read",
			(unsigned long long)addr);
	return 0;
}

static int compare_run(struct memory *m, struct tf_run run)
{
	uint64_t page = m->c->a->source.page_size;

	for (uint64_t at = run.start; at < run.end; at += STEP) {
		uint64_t size = min(run.end - at, STEP);
		int rc = read_both(m, at, size);

		if (rc)
			return rc;
		if (!memcmp(m->a, m->b, size)) {
			m->c->sum->count[TF_COMPARE_MEMORY].equal += size;
			continue;
		}
		for (uint64_t i = 0; i < size; i += page)
			compare_page(m, at + i, m->a + i, m->b + i, min(page, size - i));
	}
	return 0;
}

/* [start, end) is readable on both sides. Only where a file has bytes there is something to do. */
static int compare_range(struct memory *m, uint64_t start, uint64_t end)
{
	struct tf_run a = {0}, b = {0};

	while (start < end) {
		struct tf_run run;
		int rc;

		/* A run that was found behind start is still the next one. */
		if (a.end <= start && !tf_file_run(m->c->file_a, start, end, &a))
			a = (struct tf_run){end, end};
		if (b.end <= start && !tf_file_run(m->c->file_b, start, end, &b))
			b = (struct tf_run){end, end};
		run.start = a.start < start ? start : a.start;
		run.start = min(run.start, b.start < start ? start : b.start);
		if (run.start >= end)
			return 0;
		run.end = end;
		for (unsigned i = 0; i < 2; i++) {
			const struct tf_run *r = i ? &b : &a;

			run.end = min(run.end, r->start > run.start ? r->start : r->end);
		}
		rc = compare_run(m, run);
		if (rc)
			return rc;
		start = run.end;
	}
	return 0;
}

static int compare_all(struct memory *m)
{
	const struct tf_image *a = m->c->a, *b = m->c->b;
	uint32_t at = 0;

	for (uint32_t i = 0; i < a->n_maps; i++) {
		const struct tf_map *map = &a->maps[i];

		while (at < b->n_maps && b->maps[at].end <= map->start)
			at++;
		for (uint32_t k = at; k < b->n_maps && b->maps[k].start < map->data_end; k++) {
			const struct tf_map *other = &b->maps[k];
			uint64_t start = map->start > other->start ? map->start : other->start;
			int rc;

			if (map->kind == TF_MAP_VVAR || other->kind == TF_MAP_VVAR)
				continue;
			rc = compare_range(m, start, min(map->data_end, other->data_end));
			if (rc)
				return rc;
		}
	}
	return 0;
}

int tf_compare_memory(struct tf_comparison *c)
{
	struct memory m = {.c = c};
	int rc;

	m.max_excuses = 8 * c->a->n_threads + c->a->n_maps + 8;
	rc = tf_arena_init(
		&m.arena, (size_t)m.max_excuses * sizeof(*m.excuses) + 2 * (size_t)STEP + 4096);
	if (rc)
		return tf_fail(c->e, rc, "out of memory for a comparison");
	m.excuses = tf_arena_array(&m.arena, m.max_excuses, sizeof(*m.excuses));
	m.a = tf_arena_alloc(&m.arena, STEP);
	m.b = tf_arena_alloc(&m.arena, STEP);
	if (!m.excuses || !m.a || !m.b) {
		rc = tf_fail(c->e, TELEFORK_E_NOMEM, "out of memory for a comparison");
	} else {
		find_excuses(&m);
		rc = compare_all(&m);
	}
	tf_arena_done(&m.arena);
	return rc;
}
