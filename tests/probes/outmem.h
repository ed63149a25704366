/* SPDX-License-Identifier: MIT */
/*
 * The outmem probe's parts: memory of a program that knows nothing of telefork and is looked at
 * from outside. Each kind of memory is made, with a name; what the kernel's list says of it is
 * noted, and compared once the program is told that it is somewhere else.
 */
#ifndef TESTS_PROBES_OUTMEM_H
#define TESTS_PROBES_OUTMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUT_PAGE  ((size_t)out_page)
#define OUT_WORDS (65536 / 8) /* of the largest page */

extern long out_page;
extern unsigned out_checks;

/* Says what is wrong; the program goes on and fails in the end. */
void out_wrong(const char *name, const char *what);

/* Counts a check, and says so if it does not hold. */
void out_check(bool holds, const char *name, const char *what);

/* A kind that this machine does not have: said, not counted. */
void out_skip(const char *name, const char *why);

/* Fills, or compares, n bytes with what belongs to name. */
void out_fill(void *p, size_t n, const char *name);
bool out_same(const void *p, size_t n, const char *name);

/* Ends the program where p is MAP_FAILED or negative. */
void *out_must(void *p, const char *name);
int out_must_fd(int fd, const char *name);

/* The signal that reading or writing p raises, 0: none. */
int out_fault(volatile uint8_t *p, bool write);

/* Notes what /proc/self/smaps says of the mapping at p: size, protection, sharing, name, flags,
 * key. */
void out_note(const char *name, const void *p);

/* The same but for the size: it may become one with a neighbour. */
void out_note_unsized(const char *name, const void *p);

/* Compares all that was noted; named: with the name. */
void out_compare_notes(void);

/* The name that /proc/self/maps has for p; "" if none. */
const char *out_name_at(const void *p);

/* The inode of what is mapped at p: of System V shared memory its id. */
unsigned long out_inode(const void *p);

/* Bytes of p's mapping that are the process's own copies. */
size_t out_private(const void *p);

/* outmem_files.c: files in dir, mapped. outmem_shared.c: shared memory. outmem_flags.c: advice,
 * protections, stacks, brk. outmem_process.c: locks, what /proc shows. outmem_arch: tags, keys. */
void out_files_make(const char *dir);
void out_files_check(void);
void out_shared_make(const char *dir);
void out_shared_check(void);
void out_flags_make(void);
void out_flags_check(void);
void out_process_make(bool lock);
void out_process_check(void);

#endif
