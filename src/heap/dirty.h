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

/* Whether pages are protected. */
static inline bool dirty_protects(const struct dirty *d)
{
	return d->watch_fd >= 0;
}

/* What dirty_open() may use; less, for tests. */
#define DIRTY_WATCH 1u
#define DIRTY_SCAN 2u
extern unsigned dirty_uses __attribute__((visibility("hidden")));

/* 0, or -errno: private memory cannot be told from that of a file. */
int dirty_open(struct dirty *d, unsigned char *base, uint64_t len);
void dirty_close(struct dirty *d);
/* This part was mapped anew. */
void dirty_watch(struct dirty *d, uint64_t off, uint64_t len);

/* What to look for: pages written since they were last protected; private ones.  (Of
 * those that are neither written nor protected yet, DIRTY_WRITTEN alone finds also the
 * file's, and some that are not there.)  DIRTY_PROTECT: what is found is protected, and
 * not found again until it is written again. */
#define DIRTY_WRITTEN 1u
#define DIRTY_PRIVATE 2u
#define DIRTY_PROTECT 4u

/* Nothing is protected here any more, and the kernel need keep no notes of it. */
void dirty_forget(struct dirty *d, uint64_t off, uint64_t len);

/* The first page from off on that may be there, the program's or the file's; `end`: none
 * is, and scanning costs nothing. */
uint64_t dirty_next_mapped(struct dirty *d, uint64_t off, uint64_t end);

/* Call fn for runs of pages, in order, until it returns non-zero: that, 0, or
 * -errno. */
int dirty_find(struct dirty *d, uint64_t off, uint64_t len, unsigned what,
	       int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg);

#endif
