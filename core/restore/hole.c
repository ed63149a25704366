/* SPDX-License-Identifier: MIT */
/* A pure function of two lists, see hole.h. */
#include "core/restore/hole.h"

#include <stdbool.h>

/* The last range that begins below end; NULL if none reaches into [start, end). */
static const struct tf_range *overlap(
	const struct tf_range *r, size_t n, uint64_t start, uint64_t end)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (r[middle].start < end)
			low = middle + 1;
		else
			high = middle;
	}
	return low && r[low - 1].end > start ? &r[low - 1] : NULL;
}

uint64_t tf_hole_find(const struct tf_range *a, size_t n_a, const struct tf_range *b, size_t n_b,
	uint64_t size, uint64_t bottom, uint64_t top)
{
	uint64_t need = size + 2 * TF_HOLE_MARGIN;
	uint64_t end = top;

	while (end > bottom && end - bottom >= need) {
		const struct tf_range *hit = overlap(a, n_a, end - need, end);

		if (!hit)
			hit = overlap(b, n_b, end - need, end);
		if (!hit)
			return end - need + TF_HOLE_MARGIN;
		end = hit->start;
	}
	return 0;
}
