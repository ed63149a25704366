/* SPDX-License-Identifier: MIT */
/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst: a word for each page, and (Linux
 * 6.7) PAGEMAP_SCAN, include/uapi/linux/fs.h, which Debian 12's headers do not have yet. */
#ifndef TF_CAPTURE_PAGEMAP_H
#define TF_CAPTURE_PAGEMAP_H

#include <stdint.h>
#include <sys/ioctl.h>

#define TF_PM_PRESENT    (UINT64_C(1) << 63)
#define TF_PM_SWAPPED    (UINT64_C(1) << 62)
#define TF_PM_EXCLUSIVE  (UINT64_C(1) << 56) /* nobody else has it */
#define TF_PM_SOFT_DIRTY (UINT64_C(1) << 55)
#define TF_PM_FRAME      ((UINT64_C(1) << 55) - 1) /* number; of what is swapped: its place there */

struct tf_pm_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct tf_page_region {
	uint64_t start, end, categories;
};

#define TF_PAGEMAP_SCAN    _IOWR('f', 16, struct tf_pm_scan)
#define TF_PAGE_WATCHED    (1u << 0) /* PAGE_IS_WPALLOWED */
#define TF_PAGE_WRITTEN    (1u << 1)
#define TF_PAGE_PRESENT    (1u << 3)
#define TF_PAGE_SWAPPED    (1u << 4)
#define TF_PAGE_PFNZERO    (1u << 5)
#define TF_PAGE_HUGE       (1u << 6) /* in one piece */
#define TF_PM_SCAN_PROTECT 1u        /* PM_SCAN_WP_MATCHING */

#endif
