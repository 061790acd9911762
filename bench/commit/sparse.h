/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomic pools that are larger than the disk.  In a program that has sparse.c the
 * library gets no space by fallocate(2), though it is told that it did: the file is
 * only made longer.  So what is on the disk is what has been written, and all else is
 * as in any pool.  (A full disk would not be noticed in time, but that is not measured
 * here.)
 */
#ifndef BENCH_COMMIT_SPARSE_H
#define BENCH_COMMIT_SPARSE_H

#include <fmalloc.h>

#define SPARSE_NBLOCKS_MAX 64

/* What is in such a pool: blocks of 1 GiB each, less a page.  The first has been written
 * all over, and the others never. */
struct sparse {
	uint64_t nblocks;
	FM_PTR(uint64_t) block[SPARSE_NBLOCKS_MAX];
};

#define SPARSE_BLOCK_LEN ((UINT64_C(1) << 30) - 4096)
#define SPARSE_BLOCK_NPAGES (SPARSE_BLOCK_LEN / 4096)

/* Make the pool, of so many GiB, and open it, in the state that any has after it is
 * opened.  Its contents are in *contents.  What fails ends the program. */
struct fm_info *sparse_make(const char *path, unsigned ngib, struct sparse **contents);

/* Count a word of some page of the first block, and commit. */
void sparse_commit(struct fm_info *pool, struct sparse *contents);

#endif
