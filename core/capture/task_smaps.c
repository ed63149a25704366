/* SPDX-License-Identifier: MIT */
/*
 * smaps of a fork, in no time. Only smaps has the flags of mappings, and while the kernel writes it
 * it walks every page table, for sums that nobody wants here: nearly as long as the fork took. So a
 * large mapping is empty while its turn comes: mremap(2) moves the pages away, tables and all, and
 * leaves the mapping (MREMAP_DONTUNMAP), and another one moves them back. The fork is ours; each
 * call is 20 us, whatever the size.
 */
#include "core/capture/task_impl.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/maps.h"

#define LARGE    (UINT64_C(8) << 20) /* smaller ones are walked sooner than moved */
#define MAPS_MAX 1024u               /* with more, so many small reads take longer than the walk */
#define STEP     512u                /* less than what one mapping takes: a read adds one at most */
#define LEAP     65536u              /* once no mapping is to be empty any more */
#define TABLES   (UINT64_C(1) << 30) /* whole tables are moved where addresses agree below this */

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* Linux 5.7 */
#endif

struct reader {
	struct tf_task *t;
	struct tf_map *maps;
	uint32_t n, seen; /* mappings; of which the text has begun */
	uint32_t away;    /* whose pages are elsewhere; n: none */
	uint64_t at;      /* there */
	char *text;
	size_t size;
};

static bool is_large(const struct tf_map *m)
{
	return m->end - m->start >= LARGE && !(m->flags & TF_MAP_SHARED) &&
	       (m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP);
}

/* Free addresses for as many bytes that are like `like` below TABLES; 0: none. */
static uint64_t find_room(const struct reader *r, uint64_t like, uint64_t size)
{
	uint64_t from = TABLES;

	for (uint32_t i = 0; i < r->n; i++) {
		const struct tf_map *m = &r->maps[i];
		uint64_t at = (from & ~(TABLES - 1)) + like % TABLES;

		at += at < from ? TABLES : 0;
		if (m->start >= at && m->start - at >= size)
			return at;
		from = m->end > from ? m->end : from;
	}
	return 0;
}

static int64_t move(struct reader *r, uint64_t from, uint64_t to, uint64_t size, uint64_t how)
{
	const uint64_t arg[6] = {from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | how, to};

	return tf_task_shot_calls(r->t, SYS_mremap, arg);
}

/* Where that is not to be had, it is walked. */
static void empty_next(struct reader *r)
{
	const struct tf_map *m = &r->maps[r->seen];
	uint64_t size = m->end - m->start;

	if (r->seen >= r->n || r->away == r->seen || !is_large(m))
		return;
	r->at = find_room(r, m->start, size);
	if (r->at && move(r, m->start, r->at, size, MREMAP_DONTUNMAP) == (int64_t)r->at)
		r->away = r->seen;
}

static int bring_back(struct reader *r)
{
	const struct tf_map *m = &r->maps[r->away];

	r->away = r->n;
	if (move(r, r->at, m->start, m->end - m->start, 0) == (int64_t)m->start)
		return 0;
	return tf_fail(&r->t->capture.err, TELEFORK_E_SYSTEM,
		"memory of the fork of process %d at %llx", (int)r->t->pid,
		(unsigned long long)m->start);
}

/* A mapping's text begins with its address, all else with a capital letter. */
static void take(struct reader *r, size_t got)
{
	for (size_t i = r->size; i < r->size + got; i++)
		if ((!i || r->text[i - 1] == '\n') && (r->text[i] < 'A' || r->text[i] > 'Z'))
			r->seen++;
	r->size += got;
}

static size_t next_step(const struct reader *r)
{
	for (uint32_t i = r->seen; i < r->n; i++)
		if (is_large(&r->maps[i]))
			return STEP;
	return r->away < r->n ? STEP : LEAP;
}

static int read_all(struct reader *r, int fd)
{
	struct tf_arena *a = &r->t->capture.arena;
	ssize_t got = 1;
	int rc = 0;

	while (got > 0 && !rc) {
		size_t step = next_step(r);

		if (!tf_arena_ready(a, r->size + step + 1))
			return tf_fail(&r->t->capture.err, TELEFORK_E_NOMEM, "out of memory");
		empty_next(r);
		got = read(fd, r->text + r->size, step);
		if (got > 0)
			take(r, (size_t)got);
		if (r->away < r->n && (got <= 0 || r->seen > r->away))
			rc = bring_back(r);
	}
	return rc ? rc : got ? TELEFORK_E_SYSTEM : 0;
}

/* What smaps said of this mapping. When one comes back the kernel may make one of it and its
 * neighbour, which had been two: then that was said of both. */
static const struct tf_map *find(const struct tf_map *said, uint32_t n, const struct tf_map *m)
{
	const struct tf_map *found = NULL;

	for (uint32_t i = 0; i < n; i++) {
		if (said[i].start > m->start || said[i].end < m->end)
			continue;
		found = &said[i];
		if (found->start == m->start && found->end == m->end)
			break;
	}
	return found;
}

static int take_flags(struct reader *r)
{
	struct tf_capture *c = &r->t->capture;
	struct tf_map *said;
	uint32_t n;
	int rc = tf_maps_parse(&c->arena, r->text, r->size, &said, &n, &c->err);

	for (uint32_t i = 0; i < r->n && !rc; i++) {
		const struct tf_map *f = find(said, n, &r->maps[i]);

		if (!f)
			return tf_fail(&c->err, TELEFORK_E_SYSTEM, "smaps of process %d: not %llx",
				(int)r->t->seen, (unsigned long long)r->maps[i].start);
		r->maps[i].vmflags = f->vmflags;
		r->maps[i].huge = f->huge;
		r->maps[i].key = f->key;
		if (f->end == r->maps[i].end && f->start == r->maps[i].start)
			r->maps[i].own = f->own;
	}
	c->image.maps = r->maps;
	c->image.n_maps = r->n;
	return rc;
}

int tf_task_smaps(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct reader r = {.t = t};
	char path[TF_TASK_PATH];
	TF_CLOSE int fd = -1;
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)t->seen);
	rc = t->shot.x.tid == t->seen ? tf_maps_read(&c->arena, path, &r.maps, &r.n, &c->err) : 0;
	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)t->seen);
	if (rc)
		return rc;
	if (!r.n || r.n > MAPS_MAX)
		return tf_maps_read(&c->arena, path, &c->image.maps, &c->image.n_maps, &c->err);
	r.away = r.n;
	r.text = (char *)c->arena.base + c->arena.used;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	rc = read_all(&r, fd);
	if (rc || !tf_arena_alloc(&c->arena, r.size + 1))
		return tf_fail(&c->err, rc ? rc : TELEFORK_E_NOMEM, "%s", path);
	r.text[r.size] = '\0';
	return take_flags(&r);
}
