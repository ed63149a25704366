/* SPDX-License-Identifier: MIT */
/*
 * Memory tags (aarch64): page by page of what is present and may have some; only pages with a tag
 * travel. Also in the forked child: no allocator but the arena, no lock.
 */
#include "core/capture/capture.h"

#include <errno.h>
#include <sys/mman.h>

#include "arch/arch.h"

static const struct tf_map *tagged(const struct tf_image *img, const struct tf_run *r)
{
	const struct tf_map *m = tf_image_map_at(img, r->start);

	return m && tf_map_may_have_tags(m) ? m : NULL;
}

static bool any(const uint64_t *word)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < TF_TAGS_WORDS; i++)
		all |= word[i];
	return all;
}

/* A snapshot is a throw-away: what it may not read it makes readable. */
static int read_tags(const struct tf_map *m, int tid, uint64_t at, uint64_t *tags)
{
	if (tid)
		return tf_arch_tags_of_task(tid, at, tags);
	if (!(m->prot & PROT_READ) && mprotect((void *)at, TF_TAGS_SIZE, PROT_READ))
		return -1;
	tf_arch_tags(at, tags);
	return 0;
}

static int read_run(struct tf_capture *c, const struct tf_map *m, const struct tf_run *r, int tid)
{
	struct tf_image *img = &c->image;

	for (uint64_t at = r->start; at < r->end; at += TF_TAGS_SIZE) {
		struct tf_tags *tags = &img->tags[img->n_tags];

		if (read_tags(m, tid, at, tags->tags))
			return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno,
				"memory tags at %llx", (unsigned long long)at);
		tags->address = at;
		if (!any(tags->tags))
			continue;
		if (++img->n_tags > TF_MAX_TAGS)
			return tf_fail(&c->err, TELEFORK_E_LIMIT,
				"more than %u pages of memory have tags", TF_MAX_TAGS);
	}
	return 0;
}

int tf_capture_tags(struct tf_capture *c, int tid)
{
	const struct tf_map *m;
	uint64_t pages = 0;
	int rc = 0;

	for (uint64_t i = 0; i < c->n_runs; i++)
		if (tagged(&c->image, &c->runs[i]))
			pages += (c->runs[i].end - c->runs[i].start) / TF_TAGS_SIZE;
	if (!pages)
		return 0;
	pages = pages < TF_MAX_TAGS ? pages : TF_MAX_TAGS;
	c->image.tags = tf_arena_array(&c->arena, pages + 1, sizeof(*c->image.tags));
	if (!c->image.tags)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for memory tags");
	for (uint64_t i = 0; i < c->n_runs && !rc; i++) {
		m = tagged(&c->image, &c->runs[i]);
		if (m)
			rc = read_run(c, m, &c->runs[i], tid);
	}
	return rc;
}
