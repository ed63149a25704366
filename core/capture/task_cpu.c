/* SPDX-License-Identifier: MIT */
/* Which features of the processor the stopped program uses: its C library chose when it began, by
 * the machine on which that was and the environment it had. Reads /proc. */
#include "core/capture/task_impl.h"

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/arch.h"

#define SPAN (UINT64_C(8) << 20) /* a loader, or a static program, up to its static storage */
#define MOST (UINT64_C(1) << 20) /* of one mapping */

static uint64_t auxv_value(const struct tf_image *img, uint64_t type)
{
	for (uint32_t i = 0; i < img->n_auxv; i++)
		if (img->auxv[2 * i] == type)
			return img->auxv[2 * i + 1];
	return 0;
}

/* In a process that moved before, the loader is plain memory by now. */
static bool may_have_notes(const struct tf_map *m, uint64_t from)
{
	return m->end > from && m->start < from + SPAN && m->end - m->start <= MOST &&
	       (m->kind == TF_MAP_FILE || m->kind == TF_MAP_ANON) && m->prot & PROT_READ &&
	       !(m->prot & PROT_EXEC);
}

/* The loader notes it, or the program if it has none. */
static const uint8_t *find_notes(struct tf_task *t, uint8_t *buf)
{
	const struct tf_image *img = &t->capture.image;
	uint64_t from = auxv_value(img, AT_BASE);

	if (!from)
		from = auxv_value(img, AT_PHDR);
	for (uint32_t i = 0; i < img->n_maps; i++) {
		const struct tf_map *m = &img->maps[i];
		ssize_t n = 0;
		size_t at;

		if (may_have_notes(m, from))
			n = pread(t->mem, buf, m->end - m->start, (off_t)m->start);
		at = n > 0 ? tf_arch_cpu_noted(buf, (size_t)n) : 0;
		if (n > 0 && at < (size_t)n)
			return buf + at;
	}
	return NULL;
}

int tf_task_cpu(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	uint8_t *buf = tf_arena_alloc(&t->capture.arena, MOST);
	struct tf_cpu_clues clues = {.auxv = img->auxv, .n_auxv = img->n_auxv};
	char *env;
	int rc = tf_task_read_text(t, "environ", &env, &clues.env_size);

	if (rc || !buf)
		return rc ? rc : TELEFORK_E_NOMEM;
	clues.env = env;
	clues.noted = find_notes(t, buf);
	tf_arch_cpu_of(&img->cpu, &t->here, &clues);
	return 0;
}
