/* SPDX-License-Identifier: MIT */
/*
 * The memory probe's parts. An area is a piece of address space with content, protections and flags
 * that has to arrive as it was; memory_areas.c makes and checks one of every sort, memory_maps.c
 * compares the kernel's list of all mappings before and after. Nothing here calls telefork.
 */
#ifndef TESTS_PROBES_MEMORY_H
#define TESTS_PROBES_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/probes/probe.h"

/* What is counted, for the verdict. */
struct mem_counts {
	unsigned areas, faults, skipped;
	uint64_t bytes;
	uint64_t huge_before, huge_after; /* bytes in huge pages */
};

extern struct mem_counts mem_counts;
extern uint64_t mem_seed;

/* One thing that cannot be seen here: counted, and named on standard error. */
void mem_skip(const char *what);

/* The word that belongs to address p under the seed. */
uint64_t mem_word(const void *p);

/* Fills, or compares and counts, [p, p + size); mem_compare returns how many words differ. */
void mem_fill(void *p, size_t size);
uint64_t mem_compare(const void *p, size_t size);

/* A mapping, or NULL with its name in the list of what was lost. */
uint8_t *mem_map(const char *name, size_t size, int prot, int flags);

/* Signal that an access at p raises (SIGSEGV or SIGBUS, at that very address), 0 if none, -1 if it
 * is another signal or address. */
int mem_fault(volatile uint8_t *p, bool write);

/* Bytes that this machine can spare, at most max: a twentieth of what is available. */
size_t mem_scale(size_t max);

/* The areas that a table describes (memory_areas.c), and those that need more (memory_special.c).
 * The scribblers write into everything that is writable, which is what a parent does while its
 * snapshot travels, and return the bytes written. */
void mem_areas_make(void);
void mem_areas_check(void);
uint64_t mem_areas_scribble(void);
/* Whether addr lies in the area that no child has (MADV_DONTFORK). */
bool mem_is_absent(uint64_t addr);

void mem_special_make(void);
void mem_special_check(void);
uint64_t mem_special_scribble(void);

/* 60,000 mappings, no two neighbours alike. The check takes them away again. */
void mem_small_make(void);
void mem_small_check(void);

/* Reserves room for the lists of mappings. */
void mem_maps_init(void);

/* Takes the list of mappings before and after. Allocates nothing. */
void mem_maps_take(bool after);

/* Takes the flags (smaps) of every mapping: without the small ones, which take the kernel long. */
void mem_flags_take(bool after);

/* Compare before with after, by the table of exceptions in memory_maps.c. */
void mem_maps_compare(void);
void mem_flags_compare(void);

#endif
