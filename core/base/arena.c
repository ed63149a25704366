/* SPDX-License-Identifier: MIT */
/* The bump allocator of arena.h. Calls mmap and munmap only; no libc allocator, no lock. */
#include "core/base/arena.h"
#include "core/telefork.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

int tf_arena_init(struct tf_arena *a, size_t size)
{
	void *p;

	size = (size + 0xffff) & ~(size_t)0xffff;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		-1, 0);
	if (p == MAP_FAILED)
		return TELEFORK_E_NOMEM;
	/* A huge page for a few kilobytes would be zeroed for nothing. */
	madvise(p, size, MADV_NOHUGEPAGE);
	*a = (struct tf_arena){.base = p, .size = size};
	return 0;
}

void tf_arena_done(struct tf_arena *a)
{
	if (a->base)
		munmap(a->base, a->size);
	*a = (struct tf_arena){0};
}

void *tf_arena_alloc(struct tf_arena *a, size_t size)
{
	size_t room = a->size - a->used;
	uint8_t *p = a->base + a->used;

	if (size > room || ((size + 15) & ~(size_t)15) > room)
		return NULL;
	a->used += (size + 15) & ~(size_t)15;
	return p;
}

void *tf_arena_array(struct tf_arena *a, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes))
		return NULL;
	return tf_arena_alloc(a, bytes);
}

void *tf_arena_dup(struct tf_arena *a, const void *p, size_t n)
{
	void *q = tf_arena_alloc(a, n ? n : 1);

	if (q && n)
		memcpy(q, p, n);
	return q;
}

char *tf_arena_strn(struct tf_arena *a, const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *q = tf_arena_alloc(a, len + 1);

	if (q)
		memcpy(q, s, len);
	return q;
}

void tf_arena_rewind(struct tf_arena *a, size_t mark)
{
	memset(a->base + mark, 0, a->used - mark);
	a->used = mark;
}

void tf_arena_touch(struct tf_arena *a, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (a->used + page - 1) & ~(page - 1);

	if (from < a->size)
		madvise(a->base + from, size < a->size - from ? size : a->size - from,
			MADV_POPULATE_WRITE);
}
