/* SPDX-License-Identifier: MIT */
/*
 * Memory tags (aarch64) of a process that is captured from outside: read from whoever stands still
 * for it, page by page of what is present and may have some; only pages with a tag travel.
 */
#include "core/capture/task_impl.h"

#include <errno.h>

#include "arch/arch.h"

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

static bool is_tagged(const struct tf_image *img, const struct tf_run *r)
{
	const struct tf_map *m = tf_image_map_at(img, r->start);

	return m && tf_map_may_have_tags(m);
}

static bool any(const uint64_t *word)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < TF_TAGS_WORDS; i++)
		all |= word[i];
	return all;
}

static int read_run(struct tf_task *t, const struct tf_run *r)
{
	struct tf_capture *c = &t->capture;
	struct tf_image *img = &c->image;

	for (uint64_t at = r->start; at < r->end; at += TF_TAGS_SIZE) {
		struct tf_tags *tags = &img->tags[img->n_tags];

		if (tf_arch_tags_of_task(t->seen, at, tags->tags))
			return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno,
				"memory tags of process %d at %llx", (int)t->seen,
				(unsigned long long)at);
		tags->address = at;
		if (!any(tags->tags))
			continue;
		if (++img->n_tags > TF_MAX_TAGS)
			return tf_fail(&c->err, TELEFORK_E_LIMIT,
				"more than %u pages of memory have tags", TF_MAX_TAGS);
	}
	return 0;
}

int tf_task_tags(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	uint64_t pages = 0;
	int rc = refuse_others(t);

	for (uint64_t i = 0; i < c->n_runs; i++)
		if (is_tagged(&c->image, &c->runs[i]))
			pages += (c->runs[i].end - c->runs[i].start) / TF_TAGS_SIZE;
	if (rc || !pages)
		return rc;
	pages = pages < TF_MAX_TAGS ? pages : TF_MAX_TAGS;
	c->image.tags = tf_arena_array(&c->arena, pages + 1, sizeof(*c->image.tags));
	if (!c->image.tags)
		return TELEFORK_E_NOMEM;
	for (uint64_t i = 0; i < c->n_runs && !rc; i++)
		if (is_tagged(&c->image, &c->runs[i]))
			rc = read_run(t, &c->runs[i]);
	return rc;
}
