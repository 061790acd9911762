/* SPDX-License-Identifier: Apache-2.0 */
/* Holes of a file, by FIEMAP. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/holes.h"

/* Where blocks are shared, so much must be free: all of what is shared would be too
 * much to ask for, since most of it is never stored into. */
#define SHARED_LEN_FREE (UINT64_C(64) << 20)
/* And for the file system's own trees, which grow when a file gets blocks of its own one
 * by one: XFS wanted 190 KiB for 4 MiB, and a store that it has none for is a signal. */
#define SHARED_LEN_TREES(shared_len) ((UINT64_C(1) << 20) + (shared_len) / 16)

#define NEXTENTS 64u
/* XFS and Btrfs take 6 to 12 us for each extent once there were clones, to find out
 * whether it is shared.  Beyond so many it counts how full the disk is. */
#define NEXTENTS_CHEAP 256u

union extents {
	struct fiemap map;
	unsigned char bytes[sizeof(struct fiemap) +
			    NEXTENTS * sizeof(struct fiemap_extent)];
};

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int add(struct holes *h, uint64_t off, uint64_t end, bool sure)
{
	struct hole *last = h->n > 0 ? &h->hole[h->n - 1] : NULL;

	if (off >= end)
		return 0;
	if (sure)
		h->len += end - off;
	if (last != NULL && last->off + last->len == off && last->sure == sure) {
		last->len += end - off;
		return 0;
	}
	if (h->n == h->size) {
		size_t size = h->size == 0 ? 16 : h->size * 2;
		struct hole *more = reallocarray(h->hole, size, sizeof(*more));

		if (more == NULL)
			return -ENOMEM;
		h->hole = more;
		h->size = size;
	}
	h->hole[h->n++] = (struct hole){ .off = off, .len = end - off, .sure = sure };
	return 0;
}

/* Add what is not covered by the extents, from *off on, which is moved behind them. */
static int add_between(struct holes *h, const struct fiemap *map, uint64_t *off,
		       uint64_t end)
{
	uint32_t i;
	int rc = 0;

	for (i = 0; i < map->fm_mapped_extents && rc == 0; i++) {
		const struct fiemap_extent *e = &map->fm_extents[i];
		uint64_t from = least_of(e->fe_logical, end);
		uint64_t to = least_of(e->fe_logical + e->fe_length, end);

		rc = add(h, *off, from, true);
		if (e->fe_flags & FIEMAP_EXTENT_SHARED && to > *off)
			h->shared_len += to - (from > *off ? from : *off);
		if (to > *off)
			*off = to;
	}
	return rc;
}

/* Is so much free that no reservation of len bytes can fail for want of it? */
static bool is_plenty(int fd, uint64_t len)
{
	struct statvfs fs;

	return fstatvfs(fd, &fs) == 0 && fs.f_bavail / 2 > len / fs.f_frsize;
}

int holes_find(int fd, uint64_t off, uint64_t len, bool all, struct holes *h)
{
	uint64_t end = off + len, within, from;
	uint32_t nseen = 0;
	union extents x;
	struct statx st;
	int rc = 0;

	/* Without asking the daemon, should it be at a mount. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &st) < 0)
		return add(h, off, end, false);
	within = least_of(end, st.stx_size);
	while (off < within && rc == 0) {
		from = off;
		memset(&x, 0, sizeof(x));
		x.map.fm_start = off;
		x.map.fm_length = within - off;
		x.map.fm_extent_count = NEXTENTS;
		if (ioctl(fd, FS_IOC_FIEMAP, &x) < 0)
			return add(h, off, end, false);
		rc = add_between(h, &x.map, &off, within);
		if (x.map.fm_mapped_extents < NEXTENTS)
			break;
		nseen += NEXTENTS;
		if (rc == 0 && (off == from ||
				(!all && nseen == NEXTENTS_CHEAP && is_plenty(fd, len))))
			return add(h, off, end, false);
	}
	return rc == 0 ? add(h, off, end, true) : rc;
}

void holes_free(struct holes *h)
{
	free(h->hole);
	memset(h, 0, sizeof(*h));
}

static uint64_t needed_for_shared(uint64_t shared_len)
{
	if (shared_len == 0)
		return 0;
	return least_of(shared_len + SHARED_LEN_TREES(shared_len), SHARED_LEN_FREE);
}

int holes_check(int fd, const struct holes *h)
{
	uint64_t need = h->len + needed_for_shared(h->shared_len), nfree;
	struct statvfs fs;

	if (need == 0 || fstatvfs(fd, &fs) < 0)
		return 0;
	/* The one has what only root gets, on ext4, which shares nothing; and on Btrfs what
	 * only its trees get. */
	nfree = h->shared_len > 0 ? fs.f_bavail : fs.f_bfree;
	return need / fs.f_frsize > nfree ? -ENOSPC : 0;
}
