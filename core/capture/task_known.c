/* SPDX-License-Identifier: MIT */
/*
 * Post-copy: mappings of files that the destination may have (core/image/known.h). Only those of
 * which the process has made no page its own: nothing of them has to come then. Of others the
 * tables of calls and the like go first, as ever.
 */
#include "core/capture/task_impl.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_same_file(const struct tf_map *a, const struct tf_map *b)
{
	return a->ino == b->ino && a->dev == b->dev && !strcmp(a->path, b->path);
}

/* What the process itself has mapped of its file's beginning. The name may lead to another file by
 * now. */
static bool know(const struct tf_task *t, const struct tf_map *first, struct tf_known *ret)
{
	char path[TF_TASK_PATH + TF_MAX_STR];
	uint8_t page[TF_KNOWN_PAGE];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/root%s", (int)t->seen, first->path);
	if (first->offset || !first->ino || stat(path, &st) || st.st_ino != first->ino ||
		!S_ISREG(st.st_mode) ||
		pread(t->mem, page, sizeof(page), (off_t)first->start) != sizeof(page))
		return false;
	ret->size = (uint64_t)st.st_size;
	return tf_known_by(page, ret);
}

int tf_task_offer_known(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	uint32_t room = img->n_maps < TF_KNOWN_MAX ? img->n_maps : TF_KNOWN_MAX;
	const struct tf_map *first = NULL;
	struct tf_known file = {0};
	bool usable = false;

	img->known = tf_arena_array(&t->capture.arena, room, sizeof(*img->known));
	if (!img->known)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_maps && img->n_known < room; i++) {
		const struct tf_map *m = &img->maps[i];

		if (!tf_map_may_be_known(m) || !tf_map_may_wait(m))
			continue;
		if (!first || !is_same_file(first, m)) {
			first = m;
			usable = know(t, first, &file);
		}
		file.map = i;
		if (usable && !m->own)
			img->known[img->n_known++] = file;
	}
	return 0;
}

/* It can be anything; what was not offered is not believed. */
static int check(struct tf_task *t, const struct tf_known *k, uint32_t n)
{
	const struct tf_image *img = &t->capture.image;
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		while (at < img->n_known && img->known[at].map < k[i].map)
			at++;
		if (at == img->n_known || memcmp(&img->known[at++], &k[i], sizeof(*k)) != 0)
			return tf_fail(&t->capture.err, TELEFORK_E_PROTOCOL,
				"the receiver has a file that it was not asked for");
	}
	return 0;
}

int tf_task_hear_known(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct tf_known_header h;
	struct tf_known *k;
	size_t magic = sizeof(h.magic);
	int rc = tf_io_read(&c->io, (char *)&h + magic, sizeof(h) - magic, &c->err);

	if (!rc && h.count > c->image.n_known)
		return tf_fail(&c->err, TELEFORK_E_PROTOCOL,
			"the receiver has more files than it was asked for");
	k = rc ? NULL : tf_arena_array(&c->arena, h.count + 1, sizeof(*k));
	if (!rc && !k)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a list of files");
	if (!rc)
		rc = tf_known_read(&c->io, &h, k, &c->err);
	if (!rc)
		rc = check(t, k, h.count);
	if (!rc)
		c->memory -= tf_image_drop_later(&c->image, k, h.count);
	return rc;
}
