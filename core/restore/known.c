/* SPDX-License-Identifier: MIT */
/* See known.h. The new process opens files by their names once more: so it is looked again, whether
 * the names lead to the same files, unchanged. */
#include "core/restore/known.h"
#include "core/base/crc32c.h"
#include "core/restore/build.h"

#include <string.h>
#include <sys/stat.h>

/* The mapping's file, if that is known by something; NULL. Mappings are asked for in their order,
 * *at is 0 at first. */
static struct tf_found_file *file_of(struct tf_pad *p, uint32_t map, uint32_t *at)
{
	const struct tf_found *f = &p->found;
	const struct tf_map *m = &p->image.maps[map];

	while (*at + 1 < f->n && f->file[*at + 1].by.map <= map)
		++*at;
	return m->here && *at < f->n && f->file[*at].by.map <= map && f->file[*at].usable &&
			       !strcmp(f->file[*at].path, m->path)
		       ? &f->file[*at]
		       : NULL;
}

static struct tf_known shown_by(struct tf_found_file *f, uint32_t map)
{
	struct tf_known k = f->by;

	f->told = true;
	k.map = map;
	return k;
}

static void list(struct tf_pad *p, struct tf_known *k, uint32_t *ret_n)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < p->image.n_maps && *ret_n < TF_KNOWN_MAX; i++) {
		struct tf_found_file *f = p->image.maps[i].object ? NULL : file_of(p, i, &at);

		if (f)
			k[(*ret_n)++] = shown_by(f, i);
	}
}

static int tell(struct tf_pad *p, struct tf_known *k, uint32_t n)
{
	size_t size = n * sizeof(*k);
	struct tf_known_header h = {
		.magic = TF_KNOWN_MAGIC, .count = n, .crc = tf_crc32c(0, k, size)};
	struct iovec iov[2] = {{&h, sizeof(h)}, {k, size}};

	return tf_io_writev(&p->io, iov, 2, &p->err);
}

int tf_known_tell(struct tf_pad *p)
{
	uint32_t room = p->image.n_maps < TF_KNOWN_MAX ? p->image.n_maps : TF_KNOWN_MAX, n = 0;
	struct tf_known *k = tf_arena_array(&p->arena, room + 1, sizeof(*k));

	if (!k)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for a list of files");
	list(p, k, &n);
	return tell(p, k, n);
}

int tf_known_choose(struct tf_pad *p)
{
	struct tf_image *img = &p->image;
	struct tf_known *k = tf_arena_array(&p->arena, img->n_known + 1, sizeof(*k));
	uint32_t at = 0;

	if (!k)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for a list of files");
	for (uint32_t i = 0; i < img->n_known; i++) {
		struct tf_found_file *f = file_of(p, img->known[i].map, &at);

		if (f && tf_known_same(&f->by, &img->known[i]))
			k[p->n_stay++] = shown_by(f, img->known[i].map);
	}
	p->stay = k;
	tf_image_drop_later(img, k, p->n_stay);
	return 0;
}

int tf_known_answer(struct tf_pad *p)
{
	return p->n_stay ? tell(p, p->stay, p->n_stay) : 0;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

int tf_known_check(struct tf_pad *p)
{
	for (uint32_t i = 0; i < p->found.n; i++) {
		const struct tf_found_file *f = &p->found.file[i];
		struct stat st;

		if (f->told && (stat(f->path, &st) || !is_same(&st, &f->st)))
			return tf_fail(&p->err, TELEFORK_E_INCOMPATIBLE,
				"the file %s was changed meanwhile: try again", f->path);
	}
	return 0;
}
