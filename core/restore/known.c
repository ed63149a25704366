/* SPDX-License-Identifier: MIT */
/* See known.h. The new process opens files by their names once more: so it is looked again, whether
 * the names lead to the same files, unchanged. */
#include "core/restore/known.h"
#include "core/base/cleanup.h"
#include "core/base/crc32c.h"
#include "core/image/known.h"
#include "core/restore/build.h"
#include "core/restore/files.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tf_known_file {
	const char *path;
	struct stat st;
};

/* What is at that path, and what it is known by. */
static bool look(const char *path, struct stat *st, struct tf_known *ret)
{
	TF_CLOSE int fd = tf_files_open(path, O_RDONLY, S_IFREG, st);
	uint8_t page[TF_KNOWN_PAGE];

	if (fd < 0 || pread(fd, page, sizeof(page), 0) != sizeof(page))
		return false;
	ret->size = (uint64_t)st->st_size;
	return tf_known_by(page, ret);
}

/* The last file that was looked at: a file's mappings stand together. */
struct last {
	const char *path;
	struct tf_known file;
	bool usable;
};

/* Whether the mapping's file is known by something: l->file. It is in p->known then. */
static bool is_usable(struct tf_pad *p, const struct tf_map *m, struct last *l)
{
	if (!l->path || strcmp(l->path, m->path) != 0) {
		l->path = m->path;
		l->usable = look(l->path, &p->known[p->n_known].st, &l->file);
		if (l->usable)
			p->known[p->n_known++].path = l->path;
	}
	return l->usable;
}

static void list(struct tf_pad *p, struct tf_known *k, uint32_t *ret_n)
{
	struct last l = {0};

	for (uint32_t i = 0; i < p->image.n_maps && *ret_n < TF_KNOWN_MAX; i++) {
		const struct tf_map *m = &p->image.maps[i];

		if (!m->here || m->object || !is_usable(p, m, &l))
			continue;
		l.file.map = i;
		k[(*ret_n)++] = l.file;
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

	p->known = tf_arena_array(&p->arena, room + 1, sizeof(*p->known));
	if (!k || !p->known)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for a list of files");
	list(p, k, &n);
	return tell(p, k, n);
}

int tf_known_choose(struct tf_pad *p)
{
	struct tf_image *img = &p->image;
	struct tf_known *k = tf_arena_array(&p->arena, img->n_known + 1, sizeof(*k));
	struct last l = {0};
	struct tf_files_as as;

	p->known = tf_arena_array(&p->arena, img->n_known + 1, sizeof(*p->known));
	if (!k || !p->known)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for a list of files");
	tf_files_as(&as, img, &p->facts);
	for (uint32_t i = 0; i < img->n_known; i++) {
		const struct tf_map *m = &img->maps[img->known[i].map];

		if (m->here && is_usable(p, m, &l) && tf_known_same(&l.file, &img->known[i]))
			k[p->n_stay++] = img->known[i];
	}
	tf_files_back(&as, img, &p->facts);
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
	for (uint32_t i = 0; i < p->n_known; i++) {
		struct stat st;

		if (stat(p->known[i].path, &st) || !is_same(&st, &p->known[i].st))
			return tf_fail(&p->err, TELEFORK_E_INCOMPATIBLE,
				"the file %s was changed meanwhile: try again", p->known[i].path);
	}
	return 0;
}
