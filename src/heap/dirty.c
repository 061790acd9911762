/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Written pages, by PAGEMAP_SCAN (Linux 6.7) or, before that, /proc/self/pagemap.
 *
 * A page of a private mapping of a file is the file's until it is written; of anonymous
 * memory there is none until then.  userfaultfd(2), in the mode in which nobody is told
 * of anything (WP_ASYNC), tells pages that were written again.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "heap/dirty.h"
#include "heap/error.h"
#include "heap/layout.h"
#include "heap/memtool.h"
#include "heap/pagemap.h"

/* Older headers do not have these. */
#define WP_ASYNC (UINT64_C(1) << 15)
#define USER_MODE_ONLY 1

/* Bits of an entry of /proc/self/pagemap. */
#define ENTRY_FILE (UINT64_C(1) << 61)
#define ENTRY_SWAPPED (UINT64_C(1) << 62)
#define ENTRY_PRESENT (UINT64_C(1) << 63)

unsigned dirty_uses = DIRTY_WATCH | DIRTY_SCAN;

/* --- what the kernel has ------------------------------------------------------ */

static int open_pagemap(struct dirty *d)
{
	struct stat st;

	d->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (d->pagemap_fd < 0)
		return err_sys(errno, "/proc/self/pagemap");
	d->pagemap_ino = fstat(d->pagemap_fd, &st) == 0 ? st.st_ino : 0;
	return 0;
}

/* The program may have closed it, and opened something else. */
static int look_at_pagemap(struct dirty *d)
{
	struct stat st;

	if (fstat(d->pagemap_fd, &st) == 0 && st.st_ino == d->pagemap_ino)
		return 0;
	return open_pagemap(d);
}

static int open_watch(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = WP_ASYNC };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int watch(int fd, unsigned char *mem, uint64_t len)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)mem, len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static void stop_watching(struct dirty *d)
{
	if (d->watch_fd >= 0)
		close(d->watch_fd);
	d->watch_fd = -1;
}

static bool can_scan(const struct dirty *d)
{
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)d->base,
		.end = (uintptr_t)d->base + FM_PAGE_LEN,
		.category_mask = CATEGORY_WRITTEN,
		.return_mask = CATEGORY_WRITTEN,
	};

	return ioctl(d->pagemap_fd, SCAN_PAGEMAP, &scan) >= 0;
}

int dirty_open(struct dirty *d, unsigned char *base, uint64_t len)
{
	int rc;

	*d = (struct dirty){ .base = base, .len = len, .watch_fd = -1 };
	rc = open_pagemap(d);
	if (rc < 0)
		return rc;
	d->scans = dirty_uses & DIRTY_SCAN && can_scan(d);
	if (d->scans && dirty_uses & DIRTY_WATCH)
		d->watch_fd = open_watch();
	if (d->watch_fd >= 0 && watch(d->watch_fd, base, len) < 0)
		stop_watching(d);
	return 0;
}

void dirty_close(struct dirty *d)
{
	stop_watching(d);
	if (d->pagemap_fd >= 0)
		close(d->pagemap_fd);
	d->pagemap_fd = -1;
}

void dirty_watch(struct dirty *d, uint64_t off, uint64_t len)
{
	if (d->watch_fd >= 0 && watch(d->watch_fd, d->base + off, len) < 0)
		stop_watching(d);
}

void dirty_forget(struct dirty *d, uint64_t off, uint64_t len)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)d->base + off, len },
	};

	if (d->watch_fd >= 0)
		ioctl(d->watch_fd, UFFDIO_WRITEPROTECT, &wp);
}

/* --- finding ------------------------------------------------------------------ */

#define NREGIONS 512

/* Whose page it is costs the kernel more to say than whether it is protected. */
static void set_categories(struct pagemap_scan *scan, unsigned what)
{
	if (what & DIRTY_WRITTEN)
		scan->category_mask = scan->return_mask = CATEGORY_WRITTEN;
	if ((what & DIRTY_PRIVATE) == 0)
		return;
	scan->category_inverted = CATEGORY_FILE;
	scan->category_mask |= CATEGORY_FILE;
	scan->category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED;
	scan->return_mask = CATEGORY_PRESENT;
}

static int find_by_scan(struct dirty *d, uint64_t off, uint64_t len, unsigned what,
			int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg)
{
	struct page_region region[NREGIONS];
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)d->base + off,
		.end = (uintptr_t)d->base + off + len,
		.vec = (uintptr_t)region,
		.vec_len = NREGIONS,
	};
	int i, n, rc;

	set_categories(&scan, what);
	if (what & DIRTY_PROTECT && d->watch_fd >= 0)
		scan.flags = SCAN_PROTECT;
	for (; scan.start < scan.end; scan.start = scan.walk_end) {
		n = ioctl(d->pagemap_fd, SCAN_PAGEMAP, &scan);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(errno, "PAGEMAP_SCAN");
		/* Valgrind does not know what the kernel has stored. */
		memtool_ours(region, n * sizeof(*region));
		for (i = 0; i < n; i++) {
			rc = fn(arg, region[i].start - (uintptr_t)d->base,
				region[i].end - region[i].start);
			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

uint64_t dirty_next_mapped(struct dirty *d, uint64_t off, uint64_t end)
{
	struct page_region region;
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)d->base + off,
		.end = (uintptr_t)d->base + end,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.max_pages = 1,
		.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
		.return_mask = CATEGORY_PRESENT,
	};
	int n = !d->scans || look_at_pagemap(d) < 0
			? -1
			: ioctl(d->pagemap_fd, SCAN_PAGEMAP, &scan);

	if (n <= 0)
		return n < 0 ? off : end;
	memtool_ours(&region, sizeof(region));
	return region.start - (uintptr_t)d->base;
}

static bool is_private(uint64_t entry)
{
	return (entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) != 0 &&
	       (entry & ENTRY_FILE) == 0;
}

static int find_by_reading(struct dirty *d, uint64_t off, uint64_t len,
			   int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg)
{
	uint64_t entry[1024], n, i, j, end = off + len;
	ssize_t got;
	int rc;

	for (; off < end; off += n << FM_PAGE_SHIFT) {
		n = (end - off) >> FM_PAGE_SHIFT;
		if (n > 1024)
			n = 1024;
		got = pread(d->pagemap_fd, entry, n * 8,
			    ((uintptr_t)d->base + off) / FM_PAGE_LEN * 8);
		if (got != (ssize_t)(n * 8))
			return err_sys(got < 0 ? errno : EIO, "read of pagemap");
		for (i = 0; i < n; i = j + 1) {
			for (j = i; j < n && is_private(entry[j]); j++)
				;
			rc = j == i ? 0
				    : fn(arg, off + (i << FM_PAGE_SHIFT),
					 (j - i) << FM_PAGE_SHIFT);
			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

int dirty_find(struct dirty *d, uint64_t off, uint64_t len, unsigned what,
	       int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg)
{
	int rc = len == 0 ? 0 : look_at_pagemap(d);

	if (rc < 0 || len == 0)
		return rc;
	return d->scans ? find_by_scan(d, off, len, what, fn, arg)
			: find_by_reading(d, off, len, fn, arg);
}
