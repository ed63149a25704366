/* SPDX-License-Identifier: MIT */
/*
 * A zygote in a plan: where it stays, and what each of its forks does first. Before stands whatever
 * fork(2) inherits and is the same for all; behind it, the rest of the plan.
 */
#include "core/restore/build_impl.h"
#include "core/restore/zygote.h"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define RANDOM_SIZE 16 /* bytes at AT_RANDOM, getauxval(3) */

/* Areas that no fork would have are in the zygote's. */
static void plan_absent(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];

		if (m->vmflags & TF_VMF_DONTFORK && m->data_end > m->start)
			tf_plan_syscall(&b->r->plan, "advice", SYS_madvise, 3, m->start,
				m->data_end - m->start, (uint64_t)MADV_DONTFORK)
				->expect = TF_EXPECT_ANY;
	}
}

/* The kernel does it, but not QEMU user mode. */
static void plan_wiped(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];
		struct tf_step *s;

		if (!(m->vmflags & TF_VMF_WIPEONFORK) || !(b->f->flags & TF_FACT_EMULATED))
			continue;
		s = tf_plan_syscall(&b->r->plan, "wiped", SYS_mmap, 6, m->start, m->end - m->start,
			(uint64_t)tf_restore_map_prot(b->img, i),
			(uint64_t)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), ~UINT64_C(0),
			UINT64_C(0));
		s->expect = TF_EXPECT_VALUE;
		s->expected = m->start;
	}
}

/* Memory that a program shares with its own children, not with other copies. A file that is there
 * is everybody's, and who cannot write may share. */
static bool is_own(const struct tf_image *img, const struct tf_map *m)
{
	return m->flags & TF_MAP_SHARED && !tf_build_is_found(img, m) &&
	       (m->prot & PROT_WRITE || m->vmflags & TF_VMF_MAYWRITE);
}

bool tf_zygote_parts(const struct tf_image *img, const struct tf_map *m)
{
	return is_own(img, m) && !m->object && !m->key && !m->huge && m->data_end == m->end;
}

bool tf_zygote_shares(const struct tf_image *img, const struct tf_map *m)
{
	if (!is_own(img, m) || tf_zygote_parts(img, m))
		return false;
	return !m->object || m->key || !tf_build_is_nameless(&img->objects[m->object - 1]);
}

static void copy_parts(struct tf_build *b, const struct tf_map *m, uint64_t to)
{
	for (uint32_t i = 0; i < b->img->n_segments; i++) {
		const struct tf_segment *g = &b->img->segments[i];
		struct tf_step *s;

		if (!g->filesz || g->vaddr < m->start || g->vaddr >= m->end)
			continue;
		s = tf_plan_add(&b->r->plan, TF_OP_COPY, "shared memory");
		s->arg[0] = to + (g->vaddr - m->start);
		s->arg[1] = g->vaddr;
		s->arg[2] = g->filesz;
	}
}

/* Made aside, and moved to where the zygote's is. */
static void plan_part(struct tf_build *b, uint32_t i)
{
	const struct tf_map *m = &b->img->maps[i];
	struct tf_plan *p = &b->r->plan;
	uint64_t size = m->end - m->start, prot = tf_restore_map_prot(b->img, i);
	struct tf_step *s;

	tf_build_mmap(b, "shared memory", b->r->aside, b->r->aside + size, PROT_READ | PROT_WRITE,
		MAP_SHARED | (m->vmflags & TF_VMF_NORESERVE ? MAP_NORESERVE : 0));
	if (!(prot & PROT_READ))
		tf_plan_syscall(
			p, "shared memory", SYS_mprotect, 3, m->start, size, (uint64_t)PROT_READ);
	copy_parts(b, m, b->r->aside);
	tf_plan_syscall(p, "shared memory", SYS_mprotect, 3, b->r->aside, size, prot);
	s = tf_plan_syscall(p, "shared memory", SYS_mremap, 5, b->r->aside, size, size,
		(uint64_t)(MREMAP_MAYMOVE | MREMAP_FIXED), m->start);
	s->expect = TF_EXPECT_VALUE;
	s->expected = m->start;
	tf_build_advice(b, i);
}

static void plan_parts(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++)
		if (tf_zygote_parts(b->img, &b->img->maps[i]))
			plan_part(b, i);
}

/* Who asks getauxval(AT_RANDOM) from now on gets bytes of his own. */
static void plan_random(struct tf_build *b)
{
	const struct tf_image *img = b->img;

	for (uint32_t i = 0; i < img->n_auxv; i++) {
		uint64_t at = img->auxv[2 * i + 1];
		struct tf_step *s;

		if (img->auxv[2 * i] != AT_RANDOM || !tf_build_inside_map(img, at, RANDOM_SIZE))
			continue;
		s = tf_plan_syscall(&b->r->plan, "AT_RANDOM", SYS_getrandom, 3, at,
			(uint64_t)RANDOM_SIZE, UINT64_C(0));
		s->expect = TF_EXPECT_VALUE;
		s->expected = RANDOM_SIZE;
	}
}

void tf_build_zygote(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;
	struct tf_step *s;

	if (!b->r->zygote)
		return;
	tf_build_owners_noted(b);
	tf_plan_syscall(p, "channel", SYS_close, 1, (uint64_t)b->r->fds.channel);
	tf_plan_syscall(p, "scratch, which forks need not have", SYS_madvise, 3, b->r->buffer_at,
		(uint64_t)TF_PLAN_BUFFER, (uint64_t)MADV_DONTNEED)
		->expect = TF_EXPECT_ANY;
	s = tf_plan_add(p, TF_OP_ZYGOTE, "stays");
	s->arg[0] = (uint64_t)b->r->fds.control;
	s->arg[1] = !!(b->f->flags & TF_FACT_EMULATED);
	b->index_step = tf_plan_last(p);
	plan_parts(b);
	tf_build_objects_anew(b);
	plan_absent(b);
	plan_wiped(b);
	plan_random(b);
}

void tf_build_gate(struct tf_build *b)
{
	struct tf_step *s = tf_plan_add(&b->r->plan, TF_OP_GATE, "ready");

	s->arg[0] = (uint64_t)b->r->fds.control;
	s->arg[1] = b->index_step;
	s->refs = 1u << 1;
}

uint64_t tf_build_zygote_steps(const struct tf_image *img, uint64_t *data)
{
	return 8 + 12 * (uint64_t)img->n_maps + img->n_segments + tf_build_anew_steps(img, data);
}

uint64_t tf_build_zygote_aside(const struct tf_image *img)
{
	uint64_t most = 0;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		const struct tf_map *m = &img->maps[i];

		if (tf_zygote_parts(img, m) && m->end - m->start > most)
			most = m->end - m->start;
	}
	return most;
}
