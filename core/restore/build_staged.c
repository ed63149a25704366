/* SPDX-License-Identifier: MIT */
/*
 * Memory that came before (stage.h): each mapping that some of it lies in is made whole where it
 * stands, moved to its place in one step, and rid of what does not count any more. So it is one
 * mapping, however many places it came from.
 */
#include "core/restore/build_impl.h"

#include <sys/mman.h>
#include <sys/syscall.h>

static int bad(struct tf_build *b, const struct tf_map *m)
{
	b->rc = TELEFORK_E_IMAGE;
	return tf_fail(b->e, b->rc,
		"memory of mapping %llx-%llx is said to have come before, and has not",
		(unsigned long long)m->start, (unsigned long long)m->end);
}

/* The runs of the map: [*first, *end); false: there are none. Maps are asked for in order. */
static bool find_runs(struct tf_build *b, const struct tf_map *m, uint32_t *ret_end)
{
	const struct tf_image *img = b->img;
	uint32_t k;

	while (b->staged < img->n_staged && img->staged[b->staged].end <= m->start)
		b->staged++;
	for (k = b->staged; k < img->n_staged && img->staged[k].start < m->end; k++)
		;
	*ret_end = k;
	return k > b->staged;
}

/* All runs lie in slots with the same flags: *ret. */
static bool find_flags(const struct tf_build *b, uint32_t end, uint64_t *ret)
{
	const struct tf_staging *s = b->r->staging;
	uint64_t at = b->img->staged[b->staged].start;
	uint32_t i = tf_stage_slot(s, at);

	*ret = i < s->n_slots ? s->slot[i].vmflags : 0;
	for (uint32_t k = b->staged; k < end; k++) {
		at = b->img->staged[k].start;
		while (at < b->img->staged[k].end) {
			while (i < s->n_slots && s->slot[i].end <= at)
				i++;
			if (i == s->n_slots || s->slot[i].start > at || s->slot[i].vmflags != *ret)
				return false;
			at = s->slot[i].end;
		}
	}
	return true;
}

/* What the mapping has beside its slots, and in their place where those are others. */
static void plan_gap(struct tf_build *b, uint64_t start, uint64_t end, uint64_t flags)
{
	uint64_t at = tf_stage_at(b->r->staging, start), n = end - start;
	struct tf_step *s;

	if (start >= end)
		return;
	s = tf_plan_syscall(&b->r->plan, "beside what came before", SYS_mmap, 6, at, n,
		(uint64_t)(PROT_READ | PROT_WRITE),
		(uint64_t)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
			   (flags & TF_VMF_NORESERVE ? MAP_NORESERVE : 0)),
		~UINT64_C(0), UINT64_C(0));
	s->expect = TF_EXPECT_VALUE;
	s->expected = at;
	if (flags & (TF_VMF_HUGEPAGE | TF_VMF_NOHUGEPAGE))
		tf_plan_syscall(&b->r->plan, "advice", SYS_madvise, 3, at, n,
			(uint64_t)(flags & TF_VMF_HUGEPAGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
			->expect = TF_EXPECT_ANY;
}

static void plan_whole(struct tf_build *b, const struct tf_map *m, uint64_t flags)
{
	const struct tf_staging *s = b->r->staging;
	uint64_t at = m->start;

	for (uint32_t i = tf_stage_slot(s, at); i < s->n_slots && s->slot[i].start < m->end; i++) {
		if (s->slot[i].vmflags != flags)
			continue;
		plan_gap(b, at, s->slot[i].start, flags);
		at = s->slot[i].end;
	}
	plan_gap(b, at, m->end, flags);
}

static void plan_drop(struct tf_build *b, uint64_t start, uint64_t end)
{
	if (start < end)
		tf_plan_syscall(&b->r->plan, "no longer true", SYS_madvise, 3, start, end - start,
			(uint64_t)MADV_DONTNEED);
}

bool tf_build_staged_map(struct tf_build *b, uint32_t i)
{
	const struct tf_map *m = &b->img->maps[i];
	uint64_t flags, from, at = m->start, n = m->end - m->start;
	struct tf_step *s;
	uint32_t end;

	if (!b->img->n_staged || !find_runs(b, m, &end))
		return false;
	from = b->r->staging ? tf_stage_at(b->r->staging, m->start) : 0;
	if (!from || tf_stage_at(b->r->staging, m->end - 1) - from != n - 1 ||
		!tf_map_may_be_staged(m) || !find_flags(b, end, &flags)) {
		bad(b, m);
		return true;
	}
	plan_whole(b, m, flags);
	s = tf_plan_syscall(&b->r->plan, "came before", SYS_mremap, 5, from, n, n,
		(uint64_t)(MREMAP_MAYMOVE | MREMAP_FIXED), m->start);
	s->expect = TF_EXPECT_VALUE;
	s->expected = m->start;
	for (uint32_t k = b->staged; k < end; k++) {
		plan_drop(b, at, b->img->staged[k].start);
		at = b->img->staged[k].end;
	}
	plan_drop(b, at, m->end);
	return true;
}

void tf_build_staged_done(struct tf_build *b)
{
	const struct tf_staging *s = b->r->staging;

	for (uint32_t i = 0; s && i < s->n_slots; i++)
		tf_plan_syscall(&b->r->plan, "what came in vain", SYS_munmap, 2,
			tf_stage_at(s, s->slot[i].start), s->slot[i].end - s->slot[i].start);
}

/* In the order of where they are. */
static uint32_t next_window(const struct tf_staging *s, uint64_t from)
{
	uint32_t best = s->n_windows;

	for (uint32_t i = 0; i < s->n_windows; i++)
		if (s->window[i].to >= from &&
			(best == s->n_windows || s->window[i].to < s->window[best].to))
			best = i;
	return best;
}

void tf_build_unmap_but_staged(struct tf_build *b, uint64_t start, uint64_t end)
{
	const struct tf_staging *s = b->r->staging;

	while (s && start < end) {
		uint32_t i = next_window(s, start);

		if (i == s->n_windows || s->window[i].to >= end)
			break;
		if (s->window[i].to > start)
			tf_plan_syscall(&b->r->plan, "receiver", SYS_munmap, 2, start,
				s->window[i].to - start);
		start = s->window[i].to + s->span;
	}
	if (start < end)
		tf_plan_syscall(&b->r->plan, "receiver", SYS_munmap, 2, start, end - start);
}

int tf_build_check_staging(struct tf_build *b)
{
	const struct tf_staging *s = b->r->staging;

	for (uint32_t i = 0; s && i < s->n_windows; i++)
		for (uint32_t k = 0; k < b->img->n_maps; k++) {
			struct tf_range m = tf_restore_map_range(b->img, k);

			if (m.start < s->window[i].to + s->span && m.end > s->window[i].to)
				return tf_fail(b->e, TELEFORK_E_COLLISION,
					"a new mapping %llx-%llx is where memory is kept that came "
					"before: try again, or without --precopy",
					(unsigned long long)m.start, (unsigned long long)m.end);
		}
	return b->img->n_staged && !s ? bad(b, b->img->maps) : 0;
}

uint64_t tf_build_staged_steps(const struct tf_build *b)
{
	const struct tf_staging *s = b->r->staging;

	return s ? b->img->n_staged + 5ull * s->n_slots + s->n_windows + 4ull * b->img->n_maps : 0;
}
