/* SPDX-License-Identifier: MIT */
/* The bump allocator of arena.h. Calls of the kernel only; no libc allocator, no lock. */
#include "core/base/arena.h"
#include "core/telefork.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST ((size_t)4 << 20)   /* writable from the start */
#define APART ((uint64_t)1 << 30) /* so far from others stands who is to grow */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Where the kernel counts what it promises (vm.overcommit_memory 2) MAP_NORESERVE means nothing,
 * and only what cannot be written is free: so it becomes writable as it is needed. */
int tf_arena_init_at(struct tf_arena *a, uint64_t place, size_t size)
{
	void *p;

	size = (size + 0xffff) & ~(size_t)0xffff;
	p = mmap((void *)place, size, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (place ? MAP_FIXED_NOREPLACE : 0), -1,
		0);
	if (p == MAP_FAILED)
		return TELEFORK_E_NOMEM;
	*a = (struct tf_arena){.base = p, .size = size};
	/* A huge page for a few kilobytes would be zeroed for nothing. */
	madvise(p, size, MADV_NOHUGEPAGE);
	if ((!place || (uint64_t)p == place) && tf_arena_ready(a, 1))
		return 0;
	tf_arena_done(a);
	return TELEFORK_E_NOMEM;
}

int tf_arena_init(struct tf_arena *a, size_t size)
{
	return tf_arena_init_at(a, 0, size);
}

int tf_arena_init_small(struct tf_arena *a, size_t size, size_t most)
{
	struct tf_arena near;
	int rc = tf_arena_init(&near, size);

	if (rc)
		return rc;
	/* Who is placed by the system comes to stand beside who was placed last. */
	rc = tf_arena_init_at(a, (uint64_t)near.base + APART, size);
	if (rc)
		*a = near;
	else
		tf_arena_done(&near);
	a->most = most < a->size ? 0 : most;
	return 0;
}

/* QEMU 7.2 and kernels before 4.17 take MAP_FIXED_NOREPLACE for a hint. */
static bool grow(struct tf_arena *a, size_t need)
{
	size_t more = a->size;
	void *at = a->base + a->size, *p;

	if (need > a->most)
		return false;
	while (more < need - a->size)
		more *= 2;
	more = more < a->most - a->size ? more : a->most - a->size;
	p = mmap(at, more, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (p != at && p != MAP_FAILED)
		munmap(p, more);
	if (p != at)
		return false;
	madvise(p, more, MADV_NOHUGEPAGE);
	a->size += more;
	return true;
}

/* At least twice as much each time: a few calls do for all of it. */
bool tf_arena_ready(struct tf_arena *a, size_t size)
{
	size_t need = a->used + size, most;

	if (need < size || (need > a->size && !grow(a, need)))
		return false;
	if (need <= a->ready)
		return true;
	most = 2 * a->ready > FIRST ? 2 * a->ready : FIRST;
	need = (need + 0xffff) & ~(size_t)0xffff;
	if (most < need)
		most = need;
	if (most > a->size)
		most = a->size;
	/* If that is too much, no more than is needed. */
	if (mprotect(a->base, most, PROT_READ | PROT_WRITE)) {
		most = need < a->size ? need : a->size;
		if (mprotect(a->base, most, PROT_READ | PROT_WRITE))
			return false;
	}
	a->ready = most;
	return true;
}

int tf_arena_share(struct tf_arena *a, size_t size)
{
	void *p;

	size = (size + 0xffff) & ~(size_t)0xffff;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		0);
	if (p == MAP_FAILED)
		return TELEFORK_E_NOMEM;
	*a = (struct tf_arena){.base = p, .size = size, .ready = size};
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
	size_t n = (size + 15) & ~(size_t)15;
	uint8_t *p = a->base + a->used;

	if (n < size || !tf_arena_ready(a, n))
		return NULL;
	a->used += n;
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

	if (from >= a->size)
		return;
	size = size < a->size - from ? size : a->size - from;
	if (tf_arena_ready(a, from - a->used + size))
		madvise(a->base + from, size, MADV_POPULATE_WRITE);
}
