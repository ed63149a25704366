/* SPDX-License-Identifier: MIT */
/*
 * Reads image files. The head is read into memory once (never mapped: a file that shrinks under a
 * mapping kills the reader with SIGBUS), memory is read on demand.
 */
#include "core/image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads exactly n bytes. 0, TELEFORK_E_CLOSED at the file's end, TELEFORK_E_IO (errno is set). */
static int read_all(int fd, void *buf, size_t n, uint64_t offset)
{
	char *p = buf;

	while (n) {
		ssize_t got = pread(fd, p, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? TELEFORK_E_IO : TELEFORK_E_CLOSED;
		p += got;
		n -= (size_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}

static int read_head(struct tf_file *f, const char *path, uint8_t *head, size_t n, struct tf_err *e)
{
	int r = read_all(f->fd, head, n, 0);

	if (r == TELEFORK_E_CLOSED)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"%s: offset %llu: truncated: the file ends too early", path,
			(unsigned long long)f->size);
	if (r)
		return tf_fail_errno(e, r, errno, "%s: read", path);
	return 0;
}

static int decode(struct tf_file *f, const char *path, struct tf_err *e)
{
	uint8_t peek[TF_HEAD_PEEK], *bytes;
	struct tf_arena scratch = {0};
	struct tf_err why = {0};
	uint64_t head_size;
	uint32_t machine;
	int r = read_head(f, path, peek, sizeof(peek), e);

	if (r)
		return r;
	r = tf_image_peek(peek, &machine, &head_size, &why);
	if (r)
		return tf_fail(e, r, "%s: %s", path, why.text);
	r = tf_arena_init(&scratch, head_size);
	if (r)
		return tf_fail(e, r, "%s: no room for a head of %llu bytes", path,
			(unsigned long long)head_size);
	bytes = tf_arena_alloc(&scratch, head_size);
	r = read_head(f, path, bytes, head_size, e);
	if (!r) {
		r = tf_image_decode(&f->image, &f->arena, bytes, head_size, &why);
		if (r)
			tf_fail(e, r, "%s: %s", path, why.text);
	}
	tf_arena_done(&scratch);
	if (!r && f->image.data_end > f->size)
		return tf_fail(e, TELEFORK_E_IMAGE,
			"%s: offset %llu: truncated: memory reaches to offset %llu", path,
			(unsigned long long)f->size, (unsigned long long)f->image.data_end);
	return r;
}

static int open_regular(struct tf_file *f, const char *path, struct tf_err *e)
{
	struct stat st;

	/* O_NONBLOCK: a pipe's name must not make us wait. */
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (f->fd < 0)
		return tf_fail_errno(e, TELEFORK_E_IO, errno, "%s: open", path);
	if (fstat(f->fd, &st))
		return tf_fail_errno(e, TELEFORK_E_IO, errno, "%s: fstat", path);
	if (!S_ISREG(st.st_mode))
		return tf_fail(e, TELEFORK_E_IO, "%s: not a regular file", path);
	f->size = (uint64_t)st.st_size;
	return 0;
}

int tf_file_open(struct tf_file *f, const char *path, struct tf_err *e)
{
	int r;

	*f = (struct tf_file){.fd = -1};
	r = open_regular(f, path, e);
	if (!r) {
		r = tf_arena_init(&f->arena, TF_ARENA_DEFAULT);
		if (r)
			tf_fail(e, r, "%s: no address space for an image", path);
	}
	if (!r)
		r = decode(f, path, e);
	if (r)
		tf_file_close(f);
	return r;
}

void tf_file_close(struct tf_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	tf_arena_done(&f->arena);
	*f = (struct tf_file){.fd = -1};
}

/* The first segment that ends behind addr; n_segments if there is none. */
static uint32_t segment_at(const struct tf_image *img, uint64_t addr)
{
	uint32_t low = 0, high = img->n_segments;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (img->segments[mid].vaddr + img->segments[mid].memsz <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

ssize_t tf_file_read(const struct tf_file *f, uint64_t addr, void *buf, size_t n)
{
	const struct tf_image *img = &f->image;
	uint32_t i = segment_at(img, addr);
	uint8_t *p = buf;
	size_t left = n;

	while (left) {
		const struct tf_segment *s = &img->segments[i];
		uint64_t skip, part;

		if (i == img->n_segments || addr < s->vaddr)
			return TELEFORK_E_INVAL;
		skip = addr - s->vaddr;
		part = skip < s->filesz ? s->filesz - skip : s->memsz - skip;
		if (part > left)
			part = left;
		if (skip >= s->filesz)
			memset(p, 0, part);
		else if (read_all(f->fd, p, part, s->offset + skip))
			return TELEFORK_E_IO;
		p += part;
		addr += part;
		left -= part;
		if (addr >= s->vaddr + s->memsz)
			i++;
	}
	return (ssize_t)n;
}

/* The first part of [from, to) of the file that is no hole; a file system without holes has one
 * part.
 */
static bool data_run(int fd, uint64_t from, uint64_t to, uint64_t *ret_from, uint64_t *ret_to)
{
	off_t data = lseek(fd, (off_t)from, SEEK_DATA), hole;

	if (data < 0 || (uint64_t)data >= to)
		return false;
	hole = lseek(fd, data, SEEK_HOLE);
	*ret_from = (uint64_t)data;
	*ret_to = hole <= data || (uint64_t)hole > to ? to : (uint64_t)hole;
	return true;
}

/* Bytes of [from, to) of the file that are not holes. */
static uint64_t data_bytes(int fd, uint64_t from, uint64_t to)
{
	uint64_t sum = 0, start, end;

	for (; from < to && data_run(fd, from, to, &start, &end); from = end)
		sum += end - start;
	return sum;
}

bool tf_file_run(const struct tf_file *f, uint64_t start, uint64_t end, struct tf_run *ret_run)
{
	const struct tf_image *img = &f->image;
	uint64_t mask = ~((uint64_t)img->source.page_size - 1);

	for (uint32_t i = segment_at(img, start); i < img->n_segments; i++) {
		const struct tf_segment *s = &img->segments[i];
		uint64_t shift = s->offset - s->vaddr, from = s->vaddr > start ? s->vaddr : start;
		uint64_t to = s->vaddr + s->filesz < end ? s->vaddr + s->filesz : end;

		if (s->vaddr >= end)
			return false;
		if (to <= from || !data_run(f->fd, from + shift, to + shift, &from, &to))
			continue;
		/* Blocks of a file system may be smaller than pages. */
		from = (from - shift) & mask;
		ret_run->start = from > start ? from : start;
		to = (to - shift + ~mask) & mask;
		ret_run->end = to < end ? to : end;
		return true;
	}
	return false;
}

uint64_t tf_file_present(const struct tf_file *f, uint64_t start, uint64_t end)
{
	const struct tf_image *img = &f->image;
	uint64_t sum = 0;

	for (uint32_t i = segment_at(img, start); i < img->n_segments; i++) {
		const struct tf_segment *s = &img->segments[i];
		uint64_t from = s->vaddr > start ? s->vaddr : start;
		uint64_t to = s->vaddr + s->filesz < end ? s->vaddr + s->filesz : end;

		if (s->vaddr >= end)
			break;
		if (to > from)
			sum += data_bytes(
				f->fd, s->offset + (from - s->vaddr), s->offset + (to - s->vaddr));
	}
	return sum;
}
