/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scratch pools: one is the memory of a process that knows nothing of pools, and
 * nobody else's.  What is special is fork(2).
 *
 * Parent and child go on with the same bytes, and neither may see what the other
 * changes.  So before a fork all that the pool has is frozen: mapped privately
 * where it was mapped shared, so that a page that either stores into becomes its own
 * copy, in anonymous memory, and the file stays as it is.  That takes no copying,
 * and it is a moment, also if other threads go on storing.  What is allocated behind
 * that lies in the parent's file, as before, and in a file of the child's, which it
 * makes when it first needs more space: one that only calls execve(2) does not.
 *
 * The file is as long as the mapping, without space for most of that.  So it can
 * grow when the program has closed the descriptor, and no private page is beyond its
 * end.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/align.h"
#include "common/nocow.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/lane.h"

/* Programs expect small numbers for what they open. */
#define HIGH_FD 1000

/* --- the file --------------------------------------------------------------------- */

/* For file systems without O_TMPFILE. */
static int make_and_unlink(const char *dir)
{
	char path[4096];
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/fmalloc-XXXXXX", dir) >=
	    sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

int scratch_file(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)
		return make_and_unlink(dir);
	return -errno;
}

static int move_up(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);

	if (high < 0)	/* the limit is lower than that */
		return fd;
	close(fd);
	return high;
}

/* Let the file be as long as it can be: *len, at most what it is on entry. */
static int lengthen(int fd, uint64_t *len)
{
	struct rlimit limit;

	/* Beyond its limit the kernel would send SIGXFSZ. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < *len)
		*len = align_down(limit.rlim_cur, FM_PAGE_LEN);
	while (ftruncate(fd, *len) < 0) {
		if (errno != EFBIG || *len <= FM_ZONE_LEN)
			return err_sys(errno, "make the file %" PRIu64 " bytes long",
				       *len);
		*len /= 2;
	}
	return 0;
}

/* --- opening ------------------------------------------------------------------------ */

int scratch_open(int fd, const char *name, const char *dir, struct fm_heap **out)
{
	struct fm_heap *h;
	int rc;

	fd = move_up(fd);
	rc = pool_make_scratch(fd, name, dir, &h);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	rc = map_shadow(h);
	h->file_len = h->map_len;
	if (rc == 0)
		rc = lengthen(fd, &h->file_len);
	if (rc < 0) {
		pool_close(h);
		return rc;
	}
	*out = h;
	return 0;
}

/* --- fork ----------------------------------------------------------------------------- */

/* A folio of the page cache that reaches behind what is frozen would be one of both
 * sides, so that ends with a chunk. */
static uint64_t end_of_frozen(const struct fm_heap *h)
{
	uint64_t end = heap_end(h), chunks = align_up(end, FM_CHUNK_LEN);

	return chunks <= h->file_len ? chunks : end;
}

/* The child has the forking thread alone.  With the locks held, and nobody inside,
 * nothing is half changed. */
void scratch_before_fork(struct fm_heap *h)
{
	heap_lock_all(h);
	h->torn = map_freeze(h, end_of_frozen(h)) < 0;
}

void scratch_after_fork(struct fm_heap *h)
{
	heap_unlock_all(h);
}

/* There is no way to let fork(2) fail, and a child that goes on would store into its
 * parent's memory. */
static void give_up(void)
{
	static const char words[] = "fmalloc: a child of fork() cannot have memory of"
				    " its own\n";

	_exit(write(STDERR_FILENO, words, sizeof(words) - 1) < 0 ? 126 : 125);
}

void scratch_in_child(struct fm_heap *h)
{
	if (h->torn)
		give_up();
	map_close_fd(h);
	h->borrowed = true;
	lanes_in_child(h);
}

int scratch_take_file(struct fm_heap *h)
{
	uint64_t len = h->map_len;
	int fd = scratch_file(h->scratch_dir), rc;

	/* The folder may be out of reach by now (chroot(2), other rights). */
	if (fd >= 0)
		nocow_set(fd, true);
	else
		fd = memfd_create("fmalloc", MFD_CLOEXEC);
	if (fd < 0)
		return err_sys(errno, "a file of its own for a forked process");
	fd = move_up(fd);
	rc = lengthen(fd, &len);
	if (rc == 0)
		rc = map_replace(h, fd);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	h->file_len = len;
	h->borrowed = false;
	pagecache_advise_fresh(h, h->frozen_len);
	return 0;
}
