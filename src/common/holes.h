/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What parts of a file have no space on the disk.  The file system is asked by
 * FIEMAP, which tells space that is reserved from holes; lseek(2) does not.
 */
#ifndef FM_COMMON_HOLES_H
#define FM_COMMON_HOLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hole {
	uint64_t off, len;
	bool sure;	/* false: the file system does not tell, or it would take long and
			 * was not to be: so it may be none */
};

struct holes {	/* in the order of being found */
	struct hole *hole;
	size_t n, size;
	uint64_t len;		/* of those that are sure */
	uint64_t shared_len;	/* has space that other files have as well (a reflink):
				 * the next store there needs more */
};

/* Add the holes of [off, off + len) to the list, which is all zeroes at first; what
 * lies behind the end of the file counts as one.  Without `all`, where much is free, a
 * file in very many pieces may be one hole that is not sure.  0 or -ENOMEM. */
int holes_find(int fd, uint64_t off, uint64_t len, bool all, struct holes *h);
void holes_free(struct holes *h);

/* -ENOSPC if the file system has less than the holes lack, or where blocks are
 * shared, not enough for some stores; 0: there is, or it cannot be said. */
int holes_check(int fd, const struct holes *h);

#endif
