/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pool file says of itself, read with pread(2) and trusting nothing in
 * it: for programs that index or copy pools without mapping them.  Safe on any
 * file, whoever wrote it and whoever is writing to it.
 */
#ifndef FM_HEAP_INSPECT_H
#define FM_HEAP_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fmalloc.h>

#include "layout.h"

enum pool_state {
	POOL_NONE,	/* an empty or all-zero beginning, or some other file */
	POOL_GOOD,
	POOL_DAMAGED,	/* begins like a pool, but the super is not right */
	POOL_FOREIGN	/* of a newer version, or of another byte order */
};

struct pool_info {
	enum pool_state state;
	char why[160];		/* in words, unless POOL_GOOD; else "" */
	uint32_t version;	/* the rest: only if POOL_GOOD */
	uint64_t compat, ro_compat, incompat;
	uint8_t uuid[16];
	uint64_t created_ns;
	uint64_t heap_end;	/* bytes */
};

/* Read the super of the file.  0 (also for a file that is no pool: see
 * `state`), or -errno of pread(2). */
int inspect_pool(int fd, struct pool_info *info);

/*
 * A pool as of its last commit, for reading: an atomic pool with its log replayed in
 * memory, others as they are.  An atomic pool gets no checkpoint meanwhile, so the view
 * should not stay open for long.
 */
struct inspect_view {
	int fd;
	struct atomic *atomic;	/* NULL: the file is as it is */
	bool shared;
	uint64_t nrecords;	/* commits that the file does not have */
	struct fm_super_disk super;	/* of an atomic pool */
};

/* 0; with words: -EUCLEAN, the log is damaged; -EFBIG, it is longer, or changes more, than
 * 1/32 of the machine's memory, or 256 MiB if that is more; -EBUSY, its writer has been in a
 * checkpoint for 10 s; or -errno. */
int inspect_open_view(struct inspect_view *view, int fd);
void inspect_close_view(struct inspect_view *view);
/*
 * The same of an atomic pool whose writer the caller keeps from writing meanwhile: it may
 * be in the middle of a checkpoint, which is then not waited for.  `shared` tells whether
 * it is not.
 */
int inspect_open_still(struct inspect_view *view, int fd);
/* Copy len bytes at off of the view at src: 0, -EUCLEAN (the file ends before), or -errno
 * of pread(2). */
int inspect_read(void *src, uint64_t off, void *buf, size_t len);

/* Whether the page at off is of the view's log: how the pool is kept, and no part of it. */
bool inspect_is_log(const struct inspect_view *view, uint64_t off);

/*
 * Let `copy` be the atomic pool of the view: a sound one by itself, whose log is empty.
 * It has what the view's file has of its first super.heap_end bytes, copied since the
 * view was opened, in any order, while the pool's writer went on: what of that belongs
 * to the view nobody changes meanwhile.  Only close the view then.
 * 0; -EAGAIN: the view was of a commit that has failed since, and the copy may be
 * nothing that ever was; or -errno, with words.
 */
int inspect_finish_copy(struct inspect_view *view, int copy);

struct pool_root {
	char name[FM_ROOT_NAME_LEN];	/* NUL-terminated, 1 byte or more */
	char type[FM_ROOT_TYPE_LEN];	/* NUL-terminated */
	uint64_t off;			/* bytes; within heap_end, or 0 */
	uint64_t size;			/* bytes, 0 if not known */
};

/*
 * Call fn for every named root of the pool until it returns non-zero; returns
 * that, or the number of roots, 0 if the file has none (no pool, or the region
 * is used by the program itself), -EUCLEAN if what is there is damaged or has
 * more than 1,024 pages (after the good ones were reported), -EBUSY if the writer
 * of an atomic pool is in a checkpoint, -EFBIG if its log has more than 1 GiB of
 * commits, or -errno of pread(2).  Whatever is in the file, it takes some seconds
 * and 200 MiB at most.
 */
int inspect_roots(int fd, int (*fn)(const struct pool_root *root, void *arg),
		  void *arg);

/*
 * The writer of a pool.  inspect_hold() becomes the pool's writer in the eyes
 * of others, as fmalloc_open() does, until inspect_release() or close of the
 * file description; it changes nothing in the file.  -EBUSY: a living writer
 * has it, by its lock or by its record in the super.  fd must be open for
 * writing.
 */
int inspect_hold(int fd);
void inspect_release(int fd);

/* The byte of the file (far beyond any pool) that the writer's OFD lock is on. */
#define POOL_LOCK_OFF (1ll << 61)

/* --- check.c, stat.c --- */

/* fm_check_each(), but 0 or -errno with words; *result: what fn returned last. */
int check_file(const char *path, int flags,
	       int (*fn)(const struct fm_finding *finding, void *arg), void *arg,
	       int *result);

/* fm_stat() of a file that is open for reading, but for `size`: 0, or -errno with
 * words.  Beside a writer the figures are those of more than one moment. */
int stat_file(int fd, struct fm_stats *stats);

#endif
