/* SPDX-License-Identifier: MIT */
/*
 * Memory tags (aarch64) of a process that is captured from outside: read from whoever stands still
 * for it (tags.c).
 */
#include "core/capture/task_impl.h"

/* Shared memory and that of files: who else tagged it cannot be told. */
static int refuse_others(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;

	for (uint32_t i = 0; i < c->image.n_maps; i++) {
		const struct tf_map *m = &c->image.maps[i];

		if (m->vmflags & TF_VMF_MTE && !tf_map_may_have_tags(m))
			tf_fail_more(&c->err, TELEFORK_E_UNSUPPORTED,
				"mapping %llx-%llx (%s) has memory tags, which travel for private "
				"memory only: start it without memory tagging",
				(unsigned long long)m->start, (unsigned long long)m->end, m->path);
	}
	return c->err.code;
}

bool tf_task_keeps_tags(const struct tf_map *maps, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (maps[i].vmflags & TF_VMF_MTE &&
			maps[i].vmflags & (TF_VMF_DONTFORK | TF_VMF_WIPEONFORK | TF_VMF_HUGETLB))
			return true;
	return false;
}

int tf_task_tags(struct tf_task *t)
{
	int rc = refuse_others(t);

	return rc ? rc : tf_capture_tags(&t->capture, t->seen);
}
