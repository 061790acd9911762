/* SPDX-License-Identifier: Apache-2.0 */
/* The ioctl of /proc/PID/pagemap, since Linux 6.7; older headers do not have it. */
#ifndef FM_HEAP_PAGEMAP_H
#define FM_HEAP_PAGEMAP_H

#include <stdint.h>
#include <sys/ioctl.h>

struct page_region {
	uint64_t start, end, categories;
};

struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_PAGEMAP _IOWR('f', 16, struct pagemap_scan)
#define SCAN_PROTECT (UINT64_C(1) << 0)
#define CATEGORY_WRITTEN (UINT64_C(1) << 1)
#define CATEGORY_FILE (UINT64_C(1) << 2)
#define CATEGORY_PRESENT (UINT64_C(1) << 3)
#define CATEGORY_SWAPPED (UINT64_C(1) << 4)
#define CATEGORY_HUGE (UINT64_C(1) << 6)

#endif
