/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a pool at a mount whose daemon has died.  With passthrough what is mapped,
 * read and written is the file in the store, and goes on.  All else needs a daemon: once
 * another serves the store at the same place, the file is opened again, by the path that
 * it had, and takes the place of the old descriptor, whose number stays.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"
#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"
#include "heap/lock.h"

static bool is_dead(int fd)
{
	struct statx st;

	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &st) < 0 &&
	       err_is_dead(errno);
}

static int still_dead(const struct fm_heap *h, const char *why)
{
	return err_set(ENOTCONN, "the daemon of its mount has ended (mount it again): '%s':"
		       " %s", h->file_path, why);
}

static int open_again(const struct fm_heap *h)
{
	int mode = h->writable ? FMFS_OPEN_RESERVING : O_RDONLY;
	int fd = h->file_path[0] == '\0'
			 ? -1
			 : open(h->file_path, mode | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 ? still_dead(h, strerror(errno)) : fd;
}

static int check_same(const struct fm_heap *h, int fd, struct statx *st)
{
	struct fm_super_disk super;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, st) < 0 ||
	    read_at(fd, &super, sizeof(super), 0) != sizeof(super))
		return still_dead(h, "it cannot be read");
	if (st->stx_ino != h->ino ||
	    memcmp(super.uuid, h->uuid, sizeof(super.uuid)) != 0)
		return still_dead(h, "another file is there");
	return 0;
}

/* Locks died with the daemon.  A reader does without, as when it opened the pool. */
static int lock_again(struct fm_heap *h, int fd)
{
	int rc;

	if (!h->writable) {
		lock_share(fd);
		return 0;
	}
	rc = lock_take_back(fd, h->ino);
	if (rc == 0 && h->atomic != NULL && h->atomic->barred)
		h->atomic->barred = lock_bar_readers(fd) == 0;
	return rc;
}

/* Until the number leads to the new file map_fd() must know both. */
static int put_in_place(struct fm_heap *h, int fd, const struct statx *st)
{
	uint64_t dev = makedev(st->stx_dev_major, st->stx_dev_minor);

	__atomic_store_n(&h->dev[1], h->dev[0], __ATOMIC_RELEASE);
	__atomic_store_n(&h->dev[0], dev, __ATOMIC_RELEASE);
	return dup3(fd, h->fd, O_CLOEXEC) < 0 ? err_sys(errno, "dup3") : 0;
}

/* That the disk failed to take something only the old description tells.  Without
 * passthrough what is mapped is lost, which is all of a live pool.  (A reader cannot
 * know: msync(2) does nothing where nothing can be stored.) */
static int leave(struct fm_heap *h, int old, bool *stale_map)
{
	bool atomic = h->atomic != NULL;
	int rc = !h->writable ? -ENOTCONN : atomic ? map_sync_file(old) : map_sync(h);

	*stale_map = atomic && rc == -ENOTCONN;
	if (rc == -ENOTCONN && h->writable && !atomic)
		return err_set(ENOTCONN, "the daemon of its mount has ended, and had no"
			       " passthrough: what was stored is lost");
	return rc == -ENOTCONN ? 0 : rc;
}

static int replace(struct fm_heap *h, int old)
{
	struct statx st;
	bool stale_map;
	int fd, rc;

	rc = leave(h, old, &stale_map);
	if (rc < 0)
		return rc;
	fd = open_again(h);
	if (fd < 0)
		return fd;
	rc = check_same(h, fd, &st);
	if (rc == 0)
		rc = lock_again(h, fd);
	if (rc == 0)
		rc = put_in_place(h, fd, &st);
	if (rc == 0 && stale_map)
		h->atomic->stale_map = true;
	close(fd);
	return rc;
}

int revive(struct fm_heap *h)
{
	int fd, rc = 0;

	pthread_mutex_lock(&h->fd_lock);
	fd = map_fd(h);
	if (fd >= 0 && is_dead(fd))
		rc = replace(h, fd);
	pthread_mutex_unlock(&h->fd_lock);
	return rc;
}

void revive_note_path(struct fm_heap *h)
{
	char link[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", h->fd);
	n = readlink(link, h->file_path, sizeof(h->file_path));
	/* Cut short it would be another. */
	if (n < 0 || (size_t)n == sizeof(h->file_path))
		n = 0;
	h->file_path[n] = '\0';
}
