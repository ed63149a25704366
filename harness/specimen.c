/* SPDX-License-Identifier: MIT */
/* See specimen.h. */
#include "harness/specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/io.h"
#include "core/image/stream.h"

static int by_start(const void *a, const void *b)
{
	const struct tf_run *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Whether two neighbours in memory are of one mapping: then they become one run. */
static bool joins(const struct tf_specimen *s, const struct tf_run *a, const struct tf_run *b)
{
	const struct tf_map *m = tf_image_map_at(&s->file.image, a->start);

	return a->end == b->start && m && b->end <= m->end;
}

static void find_runs(struct tf_specimen *s, const struct tf_extent *table, uint32_t count)
{
	const struct tf_image *img = &s->file.image;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t start = tf_image_address(img, table[i].offset, NULL);

		if (table[i].offset >= img->head_size && start != UINT64_MAX)
			s->runs[s->n_runs++] = (struct tf_run){start, start + table[i].size};
	}
	qsort(s->runs, s->n_runs, sizeof(*s->runs), by_start);
	for (uint64_t i = 1; i < s->n_runs;)
		if (joins(s, &s->runs[i - 1], &s->runs[i])) {
			s->runs[i - 1].end = s->runs[i].end;
			memmove(&s->runs[i], &s->runs[i + 1], (--s->n_runs - i) * sizeof(*s->runs));
		} else {
			i++;
		}
}

/* The image's memory, by the extents of its table. */
static int read_memory(struct tf_specimen *s, struct tf_err *e)
{
	struct tf_table_header header;
	struct tf_extent *table;
	int rc = tf_table_read(s->file.fd, &s->file.image, &s->file.arena, &header, &table, e);

	if (rc)
		return rc;
	/* With room for one that is split. */
	s->runs = calloc((size_t)header.count + 2, sizeof(*s->runs));
	s->bytes = calloc((size_t)header.count + 2, sizeof(*s->bytes));
	if (!s->runs || !s->bytes)
		return tf_fail(e, TELEFORK_E_NOMEM, "memory of an image");
	find_runs(s, table, header.count);
	for (uint64_t i = 0; i < s->n_runs; i++) {
		size_t size = s->runs[i].end - s->runs[i].start;

		s->bytes[i] = malloc(size);
		if (!s->bytes[i])
			return tf_fail(e, TELEFORK_E_NOMEM, "memory of an image");
		if (tf_file_read(&s->file, s->runs[i].start, s->bytes[i], size) != (ssize_t)size)
			return tf_fail(e, TELEFORK_E_IO, "memory of an image");
	}
	return 0;
}

int tf_specimen_read(struct tf_specimen *s, const char *path, struct tf_err *e)
{
	int rc;

	*s = (struct tf_specimen){.file.fd = -1};
	rc = tf_file_open(&s->file, path, e);
	if (!rc)
		rc = read_memory(s, e);
	if (rc)
		tf_specimen_done(s);
	else
		s->arch = tf_arch_by_machine(s->file.image.source.machine);
	return rc;
}

void tf_specimen_done(struct tf_specimen *s)
{
	for (uint64_t i = 0; s->bytes && i < s->n_runs; i++)
		free(s->bytes[i]);
	free(s->bytes);
	free(s->runs);
	tf_file_close(&s->file);
	*s = (struct tf_specimen){.file.fd = -1};
}

int tf_specimen_wake(struct tf_specimen *s, int signo, struct tf_err *e)
{
	struct tf_image *img = &s->file.image;
	struct tf_pending *more = tf_arena_array(&s->file.arena, img->n_pending + 1, sizeof(*more));
	siginfo_t info = {.si_signo = signo, .si_code = SI_QUEUE};

	if (!more)
		return tf_fail(e, TELEFORK_E_NOMEM, "signals of an image");
	if (img->n_pending)
		memcpy(more, img->pending, img->n_pending * sizeof(*more));
	more[img->n_pending].signo = (uint32_t)signo;
	memcpy(more[img->n_pending].info, &info, TF_SIGINFO);
	img->pending = more;
	img->n_pending++;
	return 0;
}

static int write_all(
	struct tf_specimen *s, struct tf_sink *sink, const uint8_t *head, struct tf_err *e)
{
	const struct tf_image *img = &s->file.image;
	int rc = tf_sink_data(sink, 0, head, img->head_size, NULL, e);

	for (uint64_t i = 0; i < s->n_runs && !rc; i++)
		rc = tf_sink_data(sink, tf_image_offset(img, s->runs[i].start), s->bytes[i],
			s->runs[i].end - s->runs[i].start, NULL, e);
	return rc ? rc : tf_sink_end(sink, img, e);
}

int tf_specimen_write(struct tf_specimen *s, const char *path, struct tf_err *e)
{
	static struct tf_sink sink;
	struct tf_image *img = &s->file.image;
	uint64_t memory = 0, extents = 1024;
	struct tf_io io;
	uint8_t *head;
	TF_CLOSE int fd = -1;
	int rc;

	for (uint64_t i = 0; i < s->n_runs; i++) {
		memory += s->runs[i].end - s->runs[i].start;
		extents += 2 + (s->runs[i].end - s->runs[i].start) / TF_EXTENT_SIZE;
	}
	/* Every gap is split off: the file has no holes that a copy of it would fill. */
	rc = tf_image_make_segments(img, &s->file.arena, s->runs, s->n_runs, 0);
	if (!rc)
		rc = tf_image_encode(img, &s->file.arena, &head);
	if (rc)
		return tf_fail(e, rc, "%s: no image can be made of that", path);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return tf_fail(e, TELEFORK_E_IO, "%s: cannot be made", path);
	tf_io_init(&io, fd, NULL);
	rc = tf_sink_begin(&sink, &io, true, img, memory, 0, (uint32_t)extents, &s->file.arena, e);
	return rc ? rc : write_all(s, &sink, head, e);
}

uint64_t tf_specimen_runs(const struct tf_specimen *s, const struct tf_map *m, uint64_t *ret_first)
{
	uint64_t n = 0;

	*ret_first = 0;
	for (uint64_t i = 0; i < s->n_runs; i++)
		if (s->runs[i].start >= m->start && s->runs[i].end <= m->end && !n++)
			*ret_first = i;
	return n;
}

uint8_t *tf_specimen_page(const struct tf_specimen *s, uint64_t addr)
{
	for (uint64_t i = 0; i < s->n_runs; i++)
		if (addr >= s->runs[i].start && addr < s->runs[i].end)
			return s->bytes[i] + (addr - s->runs[i].start);
	return NULL;
}

void tf_specimen_drop(struct tf_specimen *s, uint64_t first, uint64_t n)
{
	uint64_t rest = s->n_runs - first - n;

	for (uint64_t i = first; i < first + n; i++)
		free(s->bytes[i]);
	memmove(s->runs + first, s->runs + first + n, rest * sizeof(*s->runs));
	memmove(s->bytes + first, s->bytes + first + n, rest * sizeof(*s->bytes));
	s->n_runs -= n;
}

int tf_specimen_drop_page(struct tf_specimen *s, uint64_t addr)
{
	uint64_t page = s->file.image.source.page_size, i = 0, keep;
	uint8_t *behind;

	while (i < s->n_runs && (addr < s->runs[i].start || addr >= s->runs[i].end))
		i++;
	if (i == s->n_runs)
		return 0;
	keep = s->runs[i].end - addr - page;
	behind = malloc(keep + 1);
	if (!behind)
		return TELEFORK_E_NOMEM;
	memcpy(behind, s->bytes[i] + (addr - s->runs[i].start) + page, keep);
	memmove(s->runs + i + 1, s->runs + i, (s->n_runs - i) * sizeof(*s->runs));
	memmove(s->bytes + i + 1, s->bytes + i, (s->n_runs - i) * sizeof(*s->bytes));
	s->n_runs++;
	s->runs[i].end = addr;
	s->runs[i + 1].start = addr + page;
	s->bytes[i + 1] = behind;
	if (!keep)
		tf_specimen_drop(s, i + 1, 1);
	if (s->runs[i].end == s->runs[i].start)
		tf_specimen_drop(s, i, 1);
	return 0;
}
