/* SPDX-License-Identifier: MIT */
/*
 * The mappings of this process, emulated or not. QEMU 7.2 user mode makes /proc/self/maps up from
 * the host's list and leaves out every mapping of the host's that holds pages of its own as well:
 * the kernel merges them, and what the program has there is in no list. No allocator, no lock.
 */
#ifndef TF_BASE_GUEST_H
#define TF_BASE_GUEST_H

#include "core/image/image.h"

/* Reads the list, with room for spare more mappings behind its end. Under QEMU user mode the pages
 * that the emulator's list leaves out are found and added; a page is the program's if a system call
 * takes it. *ret_maps (arena) is sorted. 0, _NOMEM, _SYSTEM. */
int tf_guest_maps(struct tf_arena *a, uint32_t spare, struct tf_map **ret_maps, uint32_t *ret_n,
	struct tf_err *e);

/* Under QEMU user mode: puts a page at the break, so that it stays where it is (malloc(3) turns to
 * mmap(2)), and returns it, of the page size: the caller unmaps it. NULL: elsewhere, or there is
 * something. */
void *tf_guest_hold_break(void);

/* Reserves room for a description. QEMU user mode has a record of each page, used or not: a GiB
 * costs 10 ms there, and every fork after that has the records to copy. So it begins small there.
 * As tf_arena_init(). */
int tf_guest_arena(struct tf_arena *a);

#endif
