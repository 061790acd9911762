/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of private memory have been written, as the kernel knows it.  What is
 * found may not have changed; what has changed is found.  Knows nothing of pools.
 */
#ifndef FM_HEAP_DIRTY_H
#define FM_HEAP_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

struct dirty {
	unsigned char *base;
	uint64_t len;
	int pagemap_fd;
	int watch_fd;		/* userfaultfd, or -1: written pages cannot be told from
				 * those that were written before */
	uint64_t pagemap_ino;
	bool scans;		/* the kernel has PAGEMAP_SCAN */
};

/* What dirty_open() may use; less, for tests. */
#define DIRTY_WATCH 1u
#define DIRTY_SCAN 2u
extern unsigned dirty_uses __attribute__((visibility("hidden")));

/* 0, or -errno: private memory cannot be told from that of a file. */
int dirty_open(struct dirty *d, unsigned char *base, uint64_t len);
void dirty_close(struct dirty *d);
/* This part was mapped anew. */
void dirty_watch(struct dirty *d, uint64_t off, uint64_t len);

enum dirty_what {
	DIRTY_WRITTEN,		/* written since the last DIRTY_SINCE */
	DIRTY_SINCE,		/* the same, and what is written from now on is found
				 * again */
	DIRTY_PRIVATE		/* all pages that are private; and as DIRTY_SINCE */
};

/* Call fn for runs of pages, in order, until it returns non-zero: that, 0, or -errno. */
int dirty_find(struct dirty *d, uint64_t off, uint64_t len, enum dirty_what what,
	       int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg);

#endif
