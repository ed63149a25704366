/* SPDX-License-Identifier: MIT */
/*
 * A plan played on paper: the receiver's mappings and the restorer's range as a list of areas, each
 * step applied to it by the kernel's rules. Whatever touches what is not there, replaces what is,
 * or leaves something behind ends in PLAN_BROKEN(format, ...), which the includer defines: a failed
 * test, or the end of a fuzzer. Header only; knows nothing of how build.c makes a
 * plan. */
#ifndef TESTS_UNIT_PLAN_MODEL_H
#define TESTS_UNIT_PLAN_MODEL_H

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arch/arch.h"
#include "core/restore/build.h"

#define MODEL_AREAS 4096

enum model_owner { MODEL_RECEIVER, MODEL_HOLE, MODEL_PARKED, MODEL_NEW };

struct model_area {
	uint64_t start, end;
	uint32_t prot;
	enum model_owner owner;
};

struct model {
	const struct tf_restore *r;
	const struct tf_image *img;
	const struct tf_facts *f;
	struct model_area area[MODEL_AREAS];
	size_t n;
	uint64_t step, started, arrived, ended;
	bool filled;
};

/* Step n of those with this comment, or NULL; and how many there are. */
static inline const struct tf_step *plan_step(
	const struct tf_restore *r, const char *comment, unsigned n)
{
	for (uint64_t i = 0; i < r->plan.n_steps; i++) {
		const struct tf_step *s = &r->plan.steps[i];

		if (s->comment && !strcmp(s->comment, comment) && !n--)
			return s;
	}
	return NULL;
}

static inline unsigned plan_count(const struct tf_restore *r, const char *comment)
{
	unsigned n = 0;

	while (plan_step(r, comment, n))
		n++;
	return n;
}

static inline void model_add(
	struct model *m, uint64_t start, uint64_t end, uint32_t prot, enum model_owner owner)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->area[i].start < end && m->area[i].end > start)
			PLAN_BROKEN("step %llu maps %llx-%llx over %llx-%llx",
				(unsigned long long)m->step, (unsigned long long)start,
				(unsigned long long)end, (unsigned long long)m->area[i].start,
				(unsigned long long)m->area[i].end);
	if (start >= end || m->n == MODEL_AREAS)
		PLAN_BROKEN("step %llu: an empty area, or too many", (unsigned long long)m->step);
	m->area[m->n++] = (struct model_area){start, end, prot, owner};
}

/* Cuts every area at addr, so that whole areas can be removed and changed. */
static inline void model_cut(struct model *m, uint64_t addr)
{
	for (size_t i = 0; i < m->n; i++) {
		struct model_area *a = &m->area[i];

		if (a->start >= addr || a->end <= addr)
			continue;
		if (m->n == MODEL_AREAS)
			PLAN_BROKEN("too many areas");
		m->area[m->n] = *a;
		m->area[m->n++].start = addr;
		a->end = addr;
	}
}

/* Whether all of [start, end) is mapped with at least prot. */
static inline bool model_has(const struct model *m, uint64_t start, uint64_t end, uint32_t prot)
{
	for (bool found = true; found && start < end;) {
		found = false;
		for (size_t i = 0; i < m->n && !found; i++)
			if (m->area[i].start <= start && m->area[i].end > start &&
				(m->area[i].prot & prot) == prot) {
				start = m->area[i].end;
				found = true;
			}
	}
	return start >= end;
}

static inline void model_need(
	const struct model *m, uint64_t start, uint64_t n, uint32_t prot, const char *what)
{
	if (start + n < start || !model_has(m, start, start + n, prot))
		PLAN_BROKEN("step %llu, %s: %llx-%llx is not mapped so",
			(unsigned long long)m->step, what, (unsigned long long)start,
			(unsigned long long)(start + n));
}

static inline void model_unmap(struct model *m, uint64_t start, uint64_t end)
{
	if (start >= end)
		PLAN_BROKEN("step %llu unmaps nothing", (unsigned long long)m->step);
	model_cut(m, start);
	model_cut(m, end);
	for (size_t i = 0; i < m->n;) {
		if (m->area[i].start < start || m->area[i].end > end) {
			i++;
			continue;
		}
		if (m->area[i].owner != MODEL_RECEIVER)
			PLAN_BROKEN("step %llu unmaps what it made", (unsigned long long)m->step);
		m->area[i] = m->area[--m->n];
	}
}

static inline void model_move(struct model *m, uint64_t from, uint64_t size, uint64_t to)
{
	size_t i = 0;

	while (i < m->n && (m->area[i].start != from || m->area[i].end != from + size))
		i++;
	if (i == m->n || (m->area[i].owner != MODEL_RECEIVER && m->area[i].owner != MODEL_PARKED))
		PLAN_BROKEN("step %llu moves what is no area", (unsigned long long)m->step);
	struct model_area a = m->area[i];

	m->area[i] = m->area[--m->n];
	model_add(m, to, to + size, a.prot, a.owner == MODEL_RECEIVER ? MODEL_PARKED : MODEL_NEW);
}

static inline void model_protect(struct model *m, uint64_t start, uint64_t end, uint32_t prot)
{
	model_need(m, start, end - start, 0, "mprotect");
	model_cut(m, start);
	model_cut(m, end);
	for (size_t i = 0; i < m->n; i++)
		if (m->area[i].start >= start && m->area[i].end <= end) {
			if (m->area[i].owner != MODEL_NEW)
				PLAN_BROKEN("step %llu protects what is not the image's",
					(unsigned long long)m->step);
			m->area[i].prot = prot;
		}
}

/* What the plan has mapped itself goes, to be mapped in another way. */
static inline void model_again(struct model *m, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->area[i].start == start && m->area[i].end == end &&
			m->area[i].owner == MODEL_NEW) {
			m->area[i] = m->area[--m->n];
			return;
		}
	PLAN_BROKEN("step %llu maps again what it did not", (unsigned long long)m->step);
}

/* A pointer that a system call reads: the plan's data. */
static inline void model_data(const struct model *m, uint64_t at, uint64_t n)
{
	const struct tf_restore *r = m->r;

	if (at < r->data_at || n > r->data_size || at - r->data_at > r->data_size - n)
		PLAN_BROKEN("step %llu reads outside the plan's data", (unsigned long long)m->step);
}

#define TF_PAGE_UP_MODEL(x, page) (((x) + (page)-1) & ~((page)-1))

/* Bytes of the segment that is mapped there. */
static inline uint64_t model_segment(const struct model *m, uint64_t at)
{
	const struct tf_map *map = tf_image_map_at(m->img, at);

	if (!map || !map->object || map->start != at)
		PLAN_BROKEN("step %llu attaches somewhere", (unsigned long long)m->step);
	return m->img->objects[map->object - 1].size;
}

static inline void model_syscall(struct model *m, const struct tf_step *s)
{
	const uint64_t *a = s->arg;
	uint64_t page = m->f->page_size;

	switch (s->nr) {
	case SYS_mmap:
		if (s->expect != TF_EXPECT_VALUE || s->expected != a[0] || a[0] % page ||
			a[1] % page || !(a[3] & (MAP_FIXED_NOREPLACE | MAP_FIXED)))
			PLAN_BROKEN("step %llu: mmap somewhere", (unsigned long long)m->step);
		if (a[3] & MAP_FIXED) /* again, as it was mapped before */
			model_again(m, a[0], a[0] + a[1]);
		model_add(m, a[0], a[0] + a[1], (uint32_t)a[2], MODEL_NEW);
		return;
	case SYS_munmap:
		if (tf_image_map_at(m->img, a[0]) &&
			tf_image_map_at(m->img, a[0])->kind == TF_MAP_STAGE && m->filled)
			model_again(m, a[0], a[0] + a[1]);
		else
			model_unmap(m, a[0], a[0] + a[1]);
		return;
	case SYS_mremap:
		model_move(m, a[0], a[1], a[4]);
		return;
	case SYS_shmat:
		if (a[2] & 040000 /* SHM_REMAP */)
			model_again(m, a[1], a[1] + TF_PAGE_UP_MODEL(model_segment(m, a[1]), page));
		model_add(m, a[1], a[1] + TF_PAGE_UP_MODEL(model_segment(m, a[1]), page),
			PROT_READ | (a[2] & 010000 /* SHM_RDONLY */ ? 0 : PROT_WRITE), MODEL_NEW);
		return;
	case SYS_pkey_mprotect:
	case SYS_mprotect:
		model_protect(m, a[0], a[0] + a[1], (uint32_t)a[2]);
		return;
	case SYS_madvise:
		model_need(m, a[0], a[1], 0, "madvise");
		return;
	case SYS_rt_sigaction:
		model_data(m, a[1], sizeof(struct tf_sigaction));
		return;
	case SYS_chdir:
	case SYS_memfd_create:
		model_data(m, a[0], 1);
		return;
	default:
		return;
	}
}

/* Its list begins behind another's end, and its stack is its own. */
static inline void model_thread(struct model *m, const struct tf_step *s)
{
	const struct tf_step *steps = m->r->plan.steps;
	uint64_t first = s->arg[0];

	m->started++;
	if (first <= m->step || first >= m->r->plan.n_steps ||
		steps[first - 1].op != TF_OP_SIGRETURN)
		PLAN_BROKEN("step %llu starts no list", (unsigned long long)m->step);
	if (s->arg[1] != m->r->thread_stacks + m->started * TF_THREAD_STACK ||
		s->arg[1] > m->r->code_at)
		PLAN_BROKEN("step %llu: a stack is not where it should be",
			(unsigned long long)m->step);
	for (uint64_t i = 0; i < m->step; i++)
		if (steps[i].op == TF_OP_THREAD && steps[i].arg[0] == first)
			PLAN_BROKEN("step %llu starts a list again", (unsigned long long)m->step);
}

static inline void model_step(struct model *m, const struct tf_step *s)
{
	for (unsigned i = 0; i < 6; i++)
		if (s->refs & 1u << i && s->arg[i] >= m->step)
			PLAN_BROKEN("step %llu refers forward", (unsigned long long)m->step);
	switch (s->op) {
	case TF_OP_SYSCALL:
		model_syscall(m, s);
		return;
	case TF_OP_FILL:
		m->filled = true;
		for (uint64_t i = 0; i < m->r->n_fills; i++)
			if (m->r->fills[i].address)
				model_need(m, m->r->fills[i].address, m->r->fills[i].size,
					m->r->fills[i].how == TF_FILL_EQUAL ? PROT_READ
									    : PROT_WRITE,
					"fill");
		return;
	case TF_OP_STORE:
	case TF_OP_STORE_IF:
		model_need(m, s->arg[0], s->arg[2], PROT_WRITE, "store");
		return;
	case TF_OP_COPY:
		model_need(m, s->arg[0], s->arg[2], PROT_WRITE, "copy");
		model_data(m, s->arg[1], s->arg[2]);
		return;
	case TF_OP_THREAD:
		model_thread(m, s);
		return;
	case TF_OP_ARRIVE:
		m->arrived++;
		return;
	case TF_OP_GATHER:
		if (m->started != m->img->n_threads - 1 || s->arg[0] != m->started)
			PLAN_BROKEN("step %llu: %llu threads were started",
				(unsigned long long)m->step, (unsigned long long)m->started);
		return;
	case TF_OP_SIGRETURN:
		m->ended++;
		if (m->arrived + 1 != m->ended)
			PLAN_BROKEN("step %llu: a thread does not wait for the others",
				(unsigned long long)m->step);
		return;
	default:
		return;
	}
}

/* What is there at the end: every mapping of the image with its protection, the restorer's range,
 * and pages that an emulator needs. */
static inline void model_end(struct model *m)
{
	const struct tf_restore *r = m->r;
	uint64_t page = m->f->page_size;

	for (uint32_t i = 0; i < m->img->n_maps; i++) {
		struct tf_range range = tf_restore_map_range(m->img, i);
		uint32_t prot = tf_restore_map_prot(m->img, i);
		const struct tf_map *map = &m->img->maps[i];

		if (prot)
			prot |= tf_arch_map_prot(map->vmflags, &m->f->cpu);
		if (map->kind == TF_MAP_STAGE)
			continue;
		if (r->vdso_equal && (map->kind == TF_MAP_VDSO || map->kind == TF_MAP_VVAR))
			prot = 0; /* the destination's own: as they are */
		model_need(m, range.start, range.end - range.start, prot, "the image");
		for (size_t k = 0; k < m->n; k++) {
			struct model_area *a = &m->area[k];

			if (a->start >= range.start && a->end <= range.end) {
				if (prot && a->prot != prot)
					PLAN_BROKEN("map %u has protection %x", i, a->prot);
				*a = m->area[--m->n];
				k--;
			}
		}
	}
	for (size_t i = 0; i < m->n; i++) {
		const struct model_area *a = &m->area[i];
		bool kept = false;

		for (uint32_t k = 0; k < m->f->n_keep; k++)
			kept |= a->start <= m->f->keep[k] && a->end >= m->f->keep[k] + page;
		if (a->owner == MODEL_RECEIVER && !kept && !(m->f->vdso.base == a->start))
			PLAN_BROKEN("%llx-%llx of the receiver stays", (unsigned long long)a->start,
				(unsigned long long)a->end);
		if (a->owner == MODEL_NEW && (a->prot || a->end - a->start != page))
			PLAN_BROKEN("%llx-%llx is not of the image", (unsigned long long)a->start,
				(unsigned long long)a->end);
	}
	for (uint32_t k = 0; k < m->f->n_keep; k++)
		if (model_has(m, m->f->keep[k], m->f->keep[k] + page, 0) == 0)
			PLAN_BROKEN("page %llx is lost", (unsigned long long)m->f->keep[k]);
}

/* Plays the plan r, which was built from img and f. */
static inline void model_play(struct model *m, const struct tf_restore *r,
	const struct tf_image *img, const struct tf_facts *f)
{
	*m = (struct model){.r = r, .img = img, .f = f};
	for (uint32_t i = 0; i < f->n_maps; i++)
		model_add(m, f->maps[i].start, f->maps[i].end, f->maps[i].prot, MODEL_RECEIVER);
	model_add(m, r->hole.start, r->park_at, PROT_READ | PROT_WRITE, MODEL_HOLE);
	for (; m->step < r->plan.n_steps; m->step++)
		model_step(m, &r->plan.steps[m->step]);
	if (!m->step || r->plan.steps[m->step - 1].op != TF_OP_SIGRETURN)
		PLAN_BROKEN("the plan does not end in rt_sigreturn");
	if (m->ended != img->n_threads)
		PLAN_BROKEN("%llu of %u threads run", (unsigned long long)m->ended, img->n_threads);
	model_end(m);
}

#endif
