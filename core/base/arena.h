/* SPDX-License-Identifier: MIT */
/*
 * A bump allocator over one reserved mapping. Everything that describes a process (image, plan)
 * lives in an arena: it works in a forked child and in a signal handler, its address range does
 * not move or multiply while a plan is being made, and one munmap frees it all.
 */
#ifndef TF_BASE_ARENA_H
#define TF_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tf_arena {
	uint8_t *base; /* NULL: not set up */
	size_t size;   /* bytes of address space: only touched pages cost memory */
	size_t used;
	size_t ready; /* bytes that may be written, and that a strict kernel counts */
	size_t most;  /* bytes that it may become, where nothing else comes to stand behind it */
};

/* What a receiver or a capture reserves: room for the plan of 1,000,000 mappings. */
#define TF_ARENA_DEFAULT ((size_t)1 << 30)

/* Reserves size bytes (page-rounded), at place if that is not 0. 0 or -TELEFORK_E_NOMEM. */
int tf_arena_init(struct tf_arena *a, size_t size);
int tf_arena_init_at(struct tf_arena *a, uint64_t place, size_t size);

/* The same for one that grows in place, up to most bytes. */
int tf_arena_init_small(struct tf_arena *a, size_t size, size_t most);

/* The same; a child of a fork sees what comes to stand there, and nobody else may allocate. */
int tf_arena_share(struct tf_arena *a, size_t size);

/* Unmaps everything; safe on a zeroed or already freed arena. */
void tf_arena_done(struct tf_arena *a);

/* size zeroed bytes aligned to 16, or NULL when the reservation is used up. Owned by the arena. */
void *tf_arena_alloc(struct tf_arena *a, size_t size);

/* count * size zeroed bytes, NULL on overflow too. */
void *tf_arena_array(struct tf_arena *a, size_t count, size_t size);

/* Gives back what was allocated since used was mark. */
void tf_arena_rewind(struct tf_arena *a, size_t mark);

/* The next size bytes may be written, before they are allocated; whoever does and does not allocate
 * them zeroes them again. False: there is no such room. */
bool tf_arena_ready(struct tf_arena *a, size_t size);

/* Has the next size bytes in memory, if there is any, so that using them takes no faults. */
void tf_arena_touch(struct tf_arena *a, size_t size);

/* Copy of n bytes; of a string of at most n bytes, terminated. NULL as above. */
void *tf_arena_dup(struct tf_arena *a, const void *p, size_t n);
char *tf_arena_strn(struct tf_arena *a, const char *s, size_t n);

#endif
