/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In what pieces the page cache holds a pool: advice to the kernel, which one that
 * does not know it does without.
 *
 * New space is best had in large folios: one page fault for 2 MiB, and few misses
 * of the TLB.  But a store makes the kernel write the whole folio, so what is there
 * to be updated is best had in single pages.  So what a pool had when it was opened
 * is read by single pages, and what is added comes in large folios, which are split
 * when they have been written to the disk.
 */
#include <config.h>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/align.h"
#include "heap/heap.h"
#include "heap/pagemap.h"

#ifndef MADV_COLD
#define MADV_COLD 20
#endif

void pagecache_advise_fresh(struct fm_heap *h, uint64_t off)
{
	h->fresh_off = off;
	if (off < h->map_len)
		madvise(h->base + off, h->map_len - off, MADV_HUGEPAGE);
}

void pagecache_advise(struct fm_heap *h)
{
	uint64_t old = align_up(heap_end(h), FM_CHUNK_LEN);

	madvise(h->base, old, MADV_RANDOM);
	pagecache_advise_fresh(h, old);
}

void pagecache_prefetch(struct fm_heap *h, uint64_t off, uint64_t len)
{
	const uint64_t step = UINT64_C(128) << 10;
	uint64_t n;

	/* The kernel begins to read this much of what it is asked for at a time. */
	for (; len > 0; off += n, len -= n) {
		n = len < step ? len : step;
		madvise(h->base + off, n, MADV_WILLNEED);
	}
}

/* To say that a part of a folio is cold makes the kernel split it, if it is
 * clean. */
static void split_at(struct fm_heap *h, uint64_t off)
{
	madvise(h->base + off, FM_PAGE_LEN, MADV_COLD);
}

/* What was added since the last time, up to `end`: no more large folios, and what
 * there are are split.  Near the end of a file they are shorter than chunks. */
static void settle_fresh(struct fm_heap *h, uint64_t end)
{
	const uint64_t step = UINT64_C(64) << 10;
	uint64_t off = h->fresh_off;

	if (end <= off)
		return;
	h->fresh_off = end;
	madvise(h->base + off, end - off, MADV_NOHUGEPAGE);
	madvise(h->base + off, end - off, MADV_RANDOM);
	for (; off < end; off += step)
		split_at(h, off);
}

/* Split what is mapped by 2 MiB below `end`: how many. */
static uint64_t settle_mapped_huge(struct fm_heap *h, int fd, uint64_t end)
{
	struct page_region region[64];
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)h->base,
		.end = (uintptr_t)h->base + end,
		.vec = (uintptr_t)region,
		.vec_len = 64,
		.category_mask = CATEGORY_HUGE,
		.return_mask = CATEGORY_HUGE,
	};
	uint64_t n = 0, at;
	int i, nregions;

	while (scan.start < scan.end) {
		nregions = ioctl(fd, SCAN_PAGEMAP, &scan);
		if (nregions < 0)
			break;
		for (i = 0; i < nregions; i++)
			for (at = region[i].start; at < region[i].end; at += FM_CHUNK_LEN, n++)
				split_at(h, at - (uintptr_t)h->base);
		scan.start = scan.walk_end;
	}
	return n;
}

/* What was there already may be in large folios that an earlier process left in the
 * page cache.  Looking costs some 0.5 ms a GiB, so it is done ever more rarely when
 * nothing is found. */
static void settle_old(struct fm_heap *h)
{
	uint64_t n = 0;
	int fd;

	if (h->settle_in-- > 0)
		return;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = settle_mapped_huge(h, fd, h->fresh_off);
		close(fd);
	}
	h->settle_every = n > 0 ? 0 : h->settle_every * 2 + 1;
	h->settle_in = h->settle_every;
}

void pagecache_settle(struct fm_heap *h, uint64_t end)
{
	int state = cancel_disable();

	pthread_mutex_lock(&h->settle_lock);
	settle_old(h);
	settle_fresh(h, end);
	pthread_mutex_unlock(&h->settle_lock);
	cancel_restore(state);
}
