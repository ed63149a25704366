/* SPDX-License-Identifier: MIT */
/*
 * What an earlier journey left in a process: where the receiver could not trace it, the restorer's
 * range stays mapped (docs/architecture.md). Nothing leads there any more, so it does not travel
 * again: a process does not grow by being moved.
 */
#include "core/capture/task_impl.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/restore/plan.h"

static bool is_plain(const struct tf_map *m, uint32_t prot)
{
	return m->kind == TF_MAP_ANON && !(m->flags & TF_MAP_SHARED) && m->prot == prot;
}

/* The second of the two mappings of a range has the restorer's code, the first begins with a header
 * that says where it is: a copy of it elsewhere is none. */
static bool is_restorer(struct tf_task *t, const struct tf_map *m)
{
	struct tf_plan_header h;

	return is_plain(m, PROT_READ | PROT_WRITE) && is_plain(m + 1, PROT_READ | PROT_EXEC) &&
	       m->end == m[1].start && pread(t->mem, &h, sizeof(h), (off_t)m->start) == sizeof(h) &&
	       h.mark == TF_PLAN_MARK && h.start == m->start && h.end == m[1].end;
}

/* While it is being made, threads stand there. */
static bool is_in_use(struct tf_task *t, uint64_t start, uint64_t end)
{
	const struct tf_arch *arch = tf_arch_native();

	for (uint32_t i = 0; i < t->n_traced; i++) {
		uint64_t pc = arch->pc(&t->traced[i].as_found);
		uint64_t sp = arch->sp(&t->traced[i].as_found);

		if ((pc >= start && pc < end) || (sp >= start && sp <= end))
			return true;
	}
	return false;
}

void tf_task_drop_leftovers(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i + 1 < img->n_maps;) {
		struct tf_map *m = &img->maps[i];

		if (!is_restorer(t, m) || is_in_use(t, m->start, m[1].end)) {
			i++;
			continue;
		}
		memmove(m, m + 2, (img->n_maps - i - 2) * sizeof(*m));
		img->n_maps -= 2;
	}
}
