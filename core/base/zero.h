/* SPDX-License-Identifier: MIT */
/* Whether memory is all zeros. Safe in a forked child. */
#ifndef TF_BASE_ZERO_H
#define TF_BASE_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* n bytes, one at least: equal to the first, which is zero, by the C library's fastest comparison.
 */
static inline bool tf_all_zero(const void *p, size_t n)
{
	const char *bytes = p;

	return !*bytes && !memcmp(bytes, bytes + 1, n - 1);
}

#endif
