/* SPDX-License-Identifier: MIT */
/* The restorer's place: a range of addresses that is free in the image and at the destination. */
#ifndef TF_RESTORE_HOLE_H
#define TF_RESTORE_HOLE_H

#include <stddef.h>
#include <stdint.h>

struct tf_range {
	uint64_t start, end;
};

/* Kept free on both sides of the hole: no mapping that grows down runs into it. */
#define TF_HOLE_MARGIN (UINT64_C(4) << 20)

/* The search starts here and goes down; far from programs, heaps and stacks of 47-bit and 48-bit
 * address spaces. */
#define TF_HOLE_TOP UINT64_C(0x200000000000)

/* Highest start of size bytes below top that, with the margin, meets no range of a[n_a] or b[n_b]
 * (each sorted, non-overlapping) and lies above bottom. 0 if there is none. size is
 * page-aligned. */
uint64_t tf_hole_find(const struct tf_range *a, size_t n_a, const struct tf_range *b, size_t n_b,
	uint64_t size, uint64_t bottom, uint64_t top);

#endif
