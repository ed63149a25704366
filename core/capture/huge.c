/* SPDX-License-Identifier: MIT */
/*
 * Huge pages after a snapshot: the first write to one that is shared with it makes 512 small ones
 * of it, and only the kernel's khugepaged, in its own time, or the program by MADV_COLLAPSE puts
 * them together again. Forked child: no allocator, no lock.
 */
#include "core/capture/capture.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/capture/pagemap.h"

#define REGIONS 256

/* Of a mapping as it is now. */
static void count(int pagemap, const struct tf_map *m, uint64_t *huge, uint64_t *small)
{
	struct tf_page_region region[REGIONS] = {{0}};
	struct tf_pm_scan arg = {.size = sizeof(arg),
		.start = m->start,
		.end = m->end,
		.vec = (uint64_t)region,
		.vec_len = REGIONS,
		.category_mask = TF_PAGE_PRESENT,
		.return_mask = TF_PAGE_HUGE};
	int n;

	while (arg.start < arg.end && (n = ioctl(pagemap, TF_PAGEMAP_SCAN, &arg)) >= 0) {
		for (int i = 0; i < n; i++)
			*(region[i].categories & TF_PAGE_HUGE ? huge : small) +=
				region[i].end - region[i].start;
		if (arg.walk_end <= arg.start)
			return;
		arg.start = arg.walk_end;
	}
}

uint64_t tf_capture_split(const struct tf_capture *c, pid_t pid)
{
	uint64_t huge = 0, small = 0;
	char path[40];
	TF_CLOSE int pagemap = -1;

	if (!c->huge)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	for (uint32_t i = 0; i < c->image.n_maps && pagemap >= 0; i++) {
		const struct tf_map *m = &c->image.maps[i];

		if (!(m->flags & TF_MAP_SHARED) &&
			(m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP))
			count(pagemap, m, &huge, &small);
	}
	if (huge >= c->huge)
		return 0;
	return c->huge - huge < small ? c->huge - huge : small; /* what was given up is not split */
}
