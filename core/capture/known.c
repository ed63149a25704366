/* SPDX-License-Identifier: MIT */
/*
 * Memory on its way out, without what the destination has (core/image/known.h): first whatever
 * cannot be known there, then mappings of files, once the receiver has told. Forked child: no
 * allocator, no lock.
 */
#include "core/capture/capture.h"
#include "core/base/crc32c.h"
#include "core/image/known.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bits of /proc/PID/pagemap: there, and a page of a file (or shared). */
#define PM_THERE (UINT64_C(3) << 62)
#define PM_FILE  (UINT64_C(1) << 61)

bool tf_known_offers(const struct tf_capture *c)
{
	/* What came to a copy of ours is not looked at as a file's: it has none. */
	return c->io.socket && !c->file && !c->many && c->drop && !c->base &&
	       !(c->image.source.flags & TF_SOURCE_EMULATED);
}

/* What this process knows its mapping's file by. The name may lead to another file by now. */
static bool own_file(const struct tf_capture *c, const struct tf_map *m, struct tf_known *ret)
{
	const struct tf_map *first = m;
	struct stat st;

	while (first > c->image.maps && first[-1].ino == m->ino && !strcmp(first[-1].path, m->path))
		first--;
	if (first->offset || first->data_end - first->start < TF_KNOWN_PAGE ||
		!(first->prot & PROT_READ) || !m->ino || stat(m->path, &st) ||
		st.st_ino != m->ino || !S_ISREG(st.st_mode))
		return false;
	ret->size = (uint64_t)st.st_size;
	return tf_known_by((const uint8_t *)first->start, ret);
}

static void believe(struct tf_capture *c, const struct tf_known *k)
{
	const struct tf_map *m = &c->image.maps[k->map];
	struct tf_known own;

	if (tf_map_may_be_known(m) && own_file(c, m, &own) && tf_known_same(&own, k))
		c->known[k->map / 8] |= (uint8_t)(1u << k->map % 8);
}

int tf_known_read(
	struct tf_io *io, const struct tf_known_header *h, struct tf_known *to, struct tf_err *e)
{
	int rc = tf_io_read(io, to, h->count * sizeof(*to), e);

	if (!rc && tf_crc32c(0, to, h->count * sizeof(*to)) != h->crc)
		return tf_fail(
			e, TELEFORK_E_CHECKSUM, "the receiver's list of files arrived damaged");
	return rc;
}

/* The receiver's word has come, or comes. */
static int take(struct tf_capture *c, struct tf_io *io, struct tf_err *e)
{
	struct tf_known_header h;
	struct tf_known *k;
	int rc = tf_io_read(io, &h, sizeof(h), e);

	c->known_told = true;
	io->told = NULL;
	if (!rc &&
		(memcmp(h.magic, TF_KNOWN_MAGIC, sizeof(h.magic)) != 0 || h.count > TF_KNOWN_MAX))
		return tf_fail(
			e, TELEFORK_E_PROTOCOL, "the receiver does not tell which files it has");
	k = c->known_list;
	if (!rc)
		rc = tf_known_read(io, &h, k, e);
	for (uint32_t i = 0; i < h.count && !rc; i++)
		if (k[i].map < c->image.n_maps)
			believe(c, &k[i]);
	return rc;
}

/* Something has come while we send: 1 if that was it, 0 if it is something else. */
static int told(struct tf_io *io, struct tf_err *e)
{
	char magic[8];
	int rc;

	if (recv(io->fd, magic, sizeof(magic), MSG_PEEK | MSG_DONTWAIT) != sizeof(magic) ||
		memcmp(magic, TF_KNOWN_MAGIC, sizeof(magic)) != 0)
		return 0;
	rc = take(io->told_ctx, io, e);
	return rc ? rc : 1;
}

int tf_known_begin(struct tf_capture *c)
{
	c->known = tf_arena_alloc(&c->arena, c->image.n_maps / 8 + 1);
	c->known_list = tf_arena_alloc(&c->arena, TF_KNOWN_MAX * sizeof(*c->known_list));
	if (!c->known || !c->known_list)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a list of files");
	c->known_told = false;
	c->io.told = told;
	c->io.told_ctx = c;
	return 0;
}

/* Pages of the run that are the process's own, as runs. */
static int send_own(struct tf_capture *c, const struct tf_run *r, int pagemap)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t entry[512], from = 0;
	int rc = 0;

	for (uint64_t at = r->start; at < r->end && !rc;) {
		size_t n = (r->end - at) / page < 512 ? (r->end - at) / page : 512;
		ssize_t got = pread(pagemap, entry, n * 8, (off_t)(at / page * 8));

		if (got <= 0)
			return tf_fail(&c->err, TELEFORK_E_SYSTEM, "/proc/self/pagemap at %llx",
				(unsigned long long)at);
		for (size_t i = 0; i < (size_t)got / 8 && !rc; i++, at += page) {
			bool own = entry[i] & PM_THERE && !(entry[i] & PM_FILE);

			if (own && !from)
				from = at;
			if (!own && from) {
				rc = tf_capture_send_run(c, &(struct tf_run){from, at});
				from = 0;
			}
		}
	}
	return rc || !from ? rc : tf_capture_send_run(c, &(struct tf_run){from, r->end});
}

static bool is_known(const struct tf_capture *c, const struct tf_map *m)
{
	uint64_t i = (uint64_t)(m - c->image.maps);

	return c->known[i / 8] >> i % 8 & 1;
}

bool tf_known_later(const struct tf_capture *c, const struct tf_run *r)
{
	const struct tf_map *m = c->known ? tf_image_map_at(&c->image, r->start) : NULL;

	return m && tf_map_may_be_known(m);
}

int tf_known_send(struct tf_capture *c)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int rc = tf_sink_flush(&c->sink, &c->err);

	if (!rc && !c->known_told)
		rc = tf_io_heed(&c->io, &c->err);
	for (uint64_t i = 0; i < c->n_runs && !rc; i++) {
		const struct tf_run *r = &c->runs[i];

		if (!tf_known_later(c, r))
			continue;
		rc = pagemap >= 0 && is_known(c, tf_image_map_at(&c->image, r->start))
			     ? send_own(c, r, pagemap)
			     : tf_capture_send_run(c, r);
	}
	if (pagemap >= 0)
		close(pagemap);
	return rc;
}
