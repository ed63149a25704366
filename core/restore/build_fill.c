/* SPDX-License-Identifier: MIT */
/*
 * Memory is filled from the channel. To read into fresh memory takes a page fault for each page,
 * and each page is zeroed before; so where much comes for ordinary pages, it is read into one
 * buffer that stays in the cache, and the kernel makes pages of that (UFFDIO_COPY): half the time.
 * Whatever is not to be had there, is found by the restorer, which reads into place then.
 */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* Linux 5.11: needs no privilege. We never wait for a fault. */
#endif

#define LEAST \
	(UINT64_C(256) << 10) /* of a mapping with less, the calls cost more than they spare */

/* Memory that may get huge pages is filled in place: one fault for each, and they stay huge. */
bool tf_build_puts(const struct tf_build *b, const struct tf_map *m)
{
	return !(b->f->flags & (TF_FACT_EMULATED | TF_FACT_THP)) && !b->r->post_copy && !m->here &&
	       !(m->vmflags & TF_VMF_HUGEPAGE) && tf_map_may_wait(m) &&
	       m->data_end - m->start >= LEAST && tf_build_has_data(b->img, m);
}

static void plan_ioctl(struct tf_build *b, uint64_t uffd, uint64_t request, void *data, size_t n)
{
	struct tf_step *s = tf_plan_syscall(&b->r->plan, "pages for memory", SYS_ioctl, 3, uffd,
		request, tf_build_data(b, data, n, 8, NULL));

	s->refs = 1;
	s->expect = TF_EXPECT_ANY;
}

void tf_build_fill(struct tf_build *b)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct tf_plan *p = &b->r->plan;
	uint64_t uffd = 0;
	struct tf_step *s;

	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];
		struct uffdio_register reg = {.range = {m->start, m->data_end - m->start},
			.mode = UFFDIO_REGISTER_MODE_MISSING};

		if (!tf_build_puts(b, m))
			continue;
		if (!uffd) {
			tf_plan_syscall(p, "pages for memory", SYS_userfaultfd, 1,
				(uint64_t)(O_CLOEXEC | UFFD_USER_MODE_ONLY))
				->expect = TF_EXPECT_ANY;
			uffd = tf_plan_last(p);
			plan_ioctl(b, uffd, UFFDIO_API, &api, sizeof(api));
		}
		plan_ioctl(b, uffd, UFFDIO_REGISTER, &reg, sizeof(reg));
	}
	s = tf_plan_add(p, TF_OP_FILL, "memory");
	s->arg[0] = (uint64_t)b->r->fds.channel;
	s->arg[1] = uffd ? uffd : UINT64_MAX;
	s->refs = uffd ? 1u << 1 : 0;
	if (!uffd)
		return;
	s = tf_plan_syscall(p, "pages for memory", SYS_close, 1, uffd);
	s->refs = 1;
	s->expect = TF_EXPECT_ANY;
}

uint64_t tf_build_fill_size(const struct tf_image *img)
{
	return sizeof(struct uffdio_api) + 8 + img->n_maps * sizeof(struct uffdio_register);
}
