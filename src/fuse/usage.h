/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much each file of the store has allocated, by inode number, and the sum.  A file is
 * set to what it has, never added to, so that whatever was missed is made good when the
 * file is looked at again.  What is not in the table has nothing.  No locks: quota.c has
 * them.
 */
#ifndef FM_FUSE_USAGE_H
#define FM_FUSE_USAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* In which file systems allocate, mostly. */
#define USAGE_BLOCK_LEN 4096

struct node;

struct usage_file {
	ino_t ino; /* 0: a free slot */
	uint64_t len;
	unsigned int scan; /* the one in or after which it was set */
	struct node *open; /* at the mount; else NULL */
};

struct usage {
	struct usage_file *file; /* open addressing; some are of files that are gone */
	size_t n, size;          /* slots taken, slots: a power of two, or 0 */
	uint64_t total;
	unsigned int scan;
};

void usage_free(struct usage *u);

/* What the file has: as far as it is long, since XFS gives a file that gets longer as much
 * again behind its end, and takes that back later. */
uint64_t usage_of(const struct stat *st);

/* NULL: it is not in the table. */
struct usage_file *usage_find(const struct usage *u, ino_t ino);

/* What the file has now; `open` stays.  0 or -ENOMEM. */
int usage_set(struct usage *u, ino_t ino, uint64_t len);

/* Who looks at all files sets them between these two; the second takes those as gone that
 * neither he nor anybody else has set. */
void usage_begin_scan(struct usage *u);
void usage_end_scan(struct usage *u);

#endif
