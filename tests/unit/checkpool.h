/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second opinion on the bytes of a pool: reads heap/layout.h and nothing else
 * of the library.  For pools that may have been left by a kill, not for hostile
 * ones.
 */
#ifndef FM_TESTS_CHECKPOOL_H
#define FM_TESTS_CHECKPOOL_H

#include <stddef.h>
#include <stdint.h>

struct checked_block {
	uint64_t off, len;
};

struct checked_pool {
	struct checked_block *blocks;	/* allocated, ascending */
	size_t nblocks, cap;
	uint64_t meta_len;		/* bytes of the heap's own extents */
	char why[200];			/* the first thing that is wrong, or "" */
};

/* Check the pool whose bytes are at `base`; 0, or -1 with `why`.  checkpool_free()
 * afterwards in any case. */
int checkpool(const unsigned char *base, uint64_t len, struct checked_pool *out);
int checkpool_file(const char *path, struct checked_pool *out);
void checkpool_free(struct checked_pool *out);

/* The allocated block that starts at off, or NULL. */
const struct checked_block *checkpool_find(const struct checked_pool *pool, uint64_t off);

#endif
