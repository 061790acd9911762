/* SPDX-License-Identifier: Apache-2.0 */
/* Clones of files that share their blocks. */
#include <config.h>

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/rw.h"
#include "fuse/copy.h"
#include "fuse/reflink.h"

/* So many extents are cloned in 50 ms at most. */
#define FEW_EXTENTS 1024u

/* What a piece is to take, and of how many extents it is: the first, and those after it. */
#define PIECE_NS 10000000
#define PIECE_EXTENTS 128u
#define PIECE_EXTENTS_MIN 16u
#define PIECE_EXTENTS_MAX 1024u
#define PAUSE_NS_MAX 100000000

/* The largest block of a file system that shares blocks. */
#define BLOCK_LEN (64l << 10)

/*
 * XFS reserves 128 KiB around each block that a writer makes its own after a clone, unless
 * told not to.  Of a pool that is written to at random that is many times what it needs,
 * until XFS takes it back, and leaves no long run of free blocks for defrag.c.
 */
static void reserve_single_blocks(int fd, struct fsxattr *x)
{
	struct stat st;

	if (x->fsx_xflags & FS_XFLAG_COWEXTSIZE || fstat(fd, &st) < 0)
		return;
	x->fsx_xflags |= FS_XFLAG_COWEXTSIZE;
	x->fsx_cowextsize = st.st_blksize;
	/* EOPNOTSUPP: not XFS. */
	if (ioctl(fd, FS_IOC_FSSETXATTR, x) < 0)
		return;
}

static off_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : st.st_size;
}

int reflink_range(int from, off_t off, off_t len, int to, off_t to_off)
{
	const struct file_clone_range range = {
		.src_fd = from,
		.src_offset = off,
		.src_length = len,
		.dest_offset = to_off,
	};

	return ioctl(to, FICLONERANGE, &range) < 0 ? -errno : 0;
}

static int64_t clone_piece(int from, int to, off_t off, off_t len)
{
	uint64_t start = clock_ns();
	int rc = reflink_range(from, off, len, to, off);

	return rc < 0 ? rc : (int64_t)(clock_ns() - start);
}

/* Where the n-th extent from `off` on ends; `end` if there are not so many; -1. */
static off_t end_of_extents(int fd, struct fiemap *map, unsigned int n, off_t off, off_t end)
{
	const struct fiemap_extent *last = &map->fm_extents[n - 1];
	off_t to;

	map->fm_start = off;
	map->fm_length = end - off;
	map->fm_flags = 0;
	map->fm_extent_count = n;
	if (ioctl(fd, FS_IOC_FIEMAP, map) < 0)
		return -1;
	if (map->fm_mapped_extents < n)
		return end;
	to = last->fe_logical + last->fe_length;
	return to < end ? to : end;
}

static unsigned int next_number(unsigned int n, int64_t took)
{
	if (took > 2 * PIECE_NS && n > PIECE_EXTENTS_MIN)
		return n / 2;
	if (took < PIECE_NS / 2 && n < PIECE_EXTENTS_MAX)
		return n * 2;
	return n;
}

/* The time goes with the extents: bytes say nothing, where there are holes. */
static int clone_pieces(fuse_req_t req, int from, int to, struct fiemap *map)
{
	off_t end = size_of(from) / BLOCK_LEN * BLOCK_LEN, off = 0, piece_end;
	unsigned int n = PIECE_EXTENTS;
	int64_t took;
	int rc;

	while (off < end) {
		if (copy_unwanted(req))
			return -EINTR;
		piece_end = end_of_extents(from, map, n, off, end);
		if (piece_end <= off)
			break;
		/* What is dirty there would be waited for with the file locked. */
		rc = flush_at(from, off, piece_end - off);
		if (rc < 0)
			return rc;
		took = clone_piece(from, to, off, piece_end - off);
		if (took < 0)
			break; /* cut short meanwhile; or whoever clones the whole will see */
		/* Who waited for it is to have as long till the next. */
		clock_sleep(took < PAUSE_NS_MAX ? took : PAUSE_NS_MAX);
		off = piece_end;
		n = next_number(n, took);
	}
	return 0;
}

int reflink_in_pieces(fuse_req_t req, int from, int to)
{
	struct fiemap *map;
	struct fsxattr x;
	int rc;

	if (ioctl(from, FS_IOC_FSGETXATTR, &x) < 0)
		return 0;
	reserve_single_blocks(from, &x);
	if (x.fsx_nextents < FEW_EXTENTS) /* Btrfs says 0 */
		return 0;
	map = malloc(sizeof(*map) + PIECE_EXTENTS_MAX * sizeof(map->fm_extents[0]));
	if (map == NULL)
		return 0;
	rc = clone_pieces(req, from, to, map);
	free(map);
	if (rc < 0)
		return rc;
	/* What was written meanwhile; the moment waits for what is dirty. */
	return fdatasync(from) < 0 ? -errno : 0;
}

/*
 * A clone of the whole file makes `to` longer, but not shorter.  It may have been longer
 * when it was cloned in pieces; so it is cut to less than it is now, and if it is no longer
 * after, it may have got shorter still.
 */
static off_t cut_below(int from, int to)
{
	off_t size = size_of(from), old = size_of(to), cut;

	cut = size < old ? size : old;
	cut = cut > BLOCK_LEN ? (cut - 1) / BLOCK_LEN * BLOCK_LEN : 0;
	return old > 0 && ftruncate(to, cut) < 0 ? -1 : cut;
}

int64_t reflink_whole(int from, int to)
{
	uint64_t start;
	int64_t took;
	off_t cut;

	do {
		cut = cut_below(from, to);
		if (cut < 0)
			return -errno;
		start = clock_ns();
		if (ioctl(to, FICLONE, from) < 0)
			return -errno;
		took = clock_ns() - start;
	} while (cut > 0 && size_of(to) <= cut);
	return took;
}
