/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, making and closing pools.
 *
 * A new pool becomes one with the write of its first page, which is the last
 * step: killed before, it leaves a file of zeroes, which the next
 * fmalloc_init() takes for new.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"
#include "common/nocow.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/lane.h"
#include "heap/lock.h"
#include "heap/memtool.h"

/* --- the file ------------------------------------------------------------------ */

/* fd, or -errno with words.  *made: the file was not there. */
static int open_file(const char *path, int flags, bool *made)
{
	/* O_NONBLOCK: a FIFO must not make us wait; for files it means nothing, but see
	 * FMFS_OPEN_RESERVING. */
	int mode = (flags & FM_RDONLY ? O_RDONLY | O_NONBLOCK : FMFS_OPEN_RESERVING) |
		   O_CLOEXEC;
	int fd, tries;

	*made = false;
	for (tries = 0; tries < 8; tries++) {
		if (!(flags & FM_EXCL)) {
			fd = open(path, mode);
			if (fd >= 0)
				return fd;
			if (errno != ENOENT || !(flags & FM_CREATE))
				return err_sys(errno, "open");
		}
		fd = open(path, mode | O_CREAT | O_EXCL, 0666);
		if (fd >= 0) {
			*made = true;
			return fd;
		}
		/* Somebody else made it just now: take that one. */
		if (errno != EEXIST || flags & FM_EXCL)
			return err_sys(errno, "create");
	}
	/* A dangling symbolic link is there for one call and not for the other. */
	return err_set(ENOENT, "it is a symbolic link to nowhere");
}

/* What the kernel knows of a file at a mount without asking its daemon; or, with
 * AT_STATX_FORCE_SYNC, what the daemon says now. */
static int look_at(int fd, int sync, struct statx *st)
{
	if (statx(fd, "", AT_EMPTY_PATH | sync, STATX_TYPE | STATX_INO | STATX_SIZE,
		  st) < 0)
		return err_sys(errno, "statx");
	return 0;
}

static int check_regular(int fd)
{
	struct statx st;
	int rc = look_at(fd, AT_STATX_DONT_SYNC, &st);

	if (rc < 0)
		return rc;
	if (S_ISDIR(st.stx_mode))
		return err_set(EISDIR, "it is a directory");
	if (!S_ISREG(st.stx_mode))
		return err_set(EINVAL, "it is not a regular file");
	return 0;
}

/* Whether [off, end) reads as zeroes: 1, 0, or -errno. */
static int range_is_zero(int fd, uint64_t off, uint64_t end)
{
	static const size_t len = 1 << 16;
	unsigned char *buf = malloc(len);
	int zero = buf == NULL ? -ENOMEM : 1;
	ssize_t n;

	while (zero == 1 && off < end) {
		n = pread(fd, buf, end - off < len ? end - off : len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			zero = n < 0 ? -errno : 1;
			break;
		}
		if (buf[0] != 0 || memcmp(buf, buf + 1, n - 1) != 0)
			zero = 0;
		off += n;
	}
	free(buf);
	return zero;
}

/* Whether the file is empty or all zeroes; holes are not read. */
static int file_is_zero(int fd, uint64_t size)
{
	off_t data, hole;
	int zero = 1;

	for (hole = 0; zero == 1 && (uint64_t)hole < size;) {
		data = lseek(fd, hole, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)	/* no such thing here: read it all */
			return range_is_zero(fd, hole, size);
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			hole = size;
		zero = range_is_zero(fd, data, hole);
	}
	return zero;
}

static int read_super(int fd, struct fm_super_disk *super, size_t *len)
{
	ssize_t n;

	memset(super, 0, sizeof(*super));
	n = read_at(fd, super, sizeof(*super), 0);
	if (n < 0)
		return err_sys(-n, "read");
	*len = n;
	return 0;
}

/* 0: a pool; 1: nothing yet, to be made; else -errno with words. */
static int judge(int fd, int flags, uint64_t size, struct fm_super_disk *super)
{
	struct statx st;
	size_t len;
	int rc, zero;

	rc = read_super(fd, super, &len);
	if (rc < 0)
		return rc;
	rc = super_check(super);
	if (rc == -EINVAL) {
		if (size >= FM_APP_OFF && super->magic[0] != 0)
			return rc;
		zero = file_is_zero(fd, size);
		if (zero < 0)
			return err_sys(-zero, "read");
		if (zero == 0)
			return rc;
		if (!(flags & FM_CREATE) || flags & FM_RDONLY)
			return err_set(EINVAL, "it is not a pool (%s)",
				       size == 0 ? "it is empty" : "it is all zeroes");
		err_clear();
		return 1;
	}
	if (rc < 0)
		return rc;
	if (flags & FM_ATOMIC && (super->incompat & FM_INCOMPAT_ATOMIC) == 0)
		return err_set(EINVAL, "it is a live pool, and stays one: only a new pool"
			       " can be made atomic");
	/* A writer that makes the file longer, and then the heap, may have done so since
	 * the length was looked at. */
	if (size < super->heap_end) {
		rc = look_at(fd, AT_STATX_FORCE_SYNC, &st);
		if (rc < 0)
			return rc;
		size = st.stx_size;
	}
	/* How long the heap of an atomic pool is its log may say. */
	if (size < super->heap_end && (super->incompat & FM_INCOMPAT_ATOMIC) == 0)
		return err_set(EUCLEAN, "the pool is cut short: %" PRIu64 " bytes of %"
			       PRIu64, size, super->heap_end);
	if (!(flags & FM_RDONLY) && (super->ro_compat & ~FM_RO_COMPAT_KNOWN) != 0)
		return err_set(EROFS, "the pool has features that this library may"
			       " only read (ro_compat bits %#" PRIx64 ")",
			       super->ro_compat & ~FM_RO_COMPAT_KNOWN);
	return 0;
}

/* --- a new pool -------------------------------------------------------------------- */

static int sync_parent(const char *path)
{
	char *copy = strdup(path);
	int fd, rc = 0;

	if (copy == NULL)
		return err_sys(ENOMEM, "path");
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return 0;	/* not ours to read; the file is there */
	if (fsync(fd) < 0 && errno != EINVAL)
		rc = err_sys(errno, "fsync of the directory");
	close(fd);
	return rc;
}

/*
 * Reserved space must count (see nocow.h), and only an empty file can be told so.  One
 * that is all zeroes loses nothing by being emptied; it keeps its mode, owner and
 * length.  Killed in between it is empty, which is as good.
 */
static int stop_copying(int fd, uint64_t size)
{
	if (size > 0 && !nocow_lacks(fd))
		return 0;
	if (size > 0 && ftruncate(fd, 0) < 0)
		return err_sys(errno, "ftruncate");
	nocow_set(fd, true);
	if (size > 0 && ftruncate(fd, size) < 0)
		return err_sys(errno, "ftruncate");
	return 0;
}

static int write_pool(int fd, uint64_t size, int flags, struct fm_super_disk *super)
{
	int rc;

	rc = stop_copying(fd, size);
	if (rc == 0)
		rc = super_make(super);
	if (rc == 0)
		rc = flags & FM_ATOMIC ? atomic_format(fd, super) :
					 map_reserve(fd, 0, FM_ZONE_DATA_OFF);
	if (rc == 0) {
		rc = write_at(fd, super, sizeof(*super), 0);
		if (rc < 0)
			err_sys(-rc, "write");
	}
	if (rc < 0 && size < FM_ZONE_DATA_OFF && ftruncate(fd, size) < 0)
		return rc;	/* longer, but still nothing but zeroes */
	return rc;
}

/* Whether the file is at a mount that makes new pools atomic. */
static bool mount_wants_atomic(int fd)
{
	struct fmfs_info info;

	return fmfs_ask_info(fd, &info) == 0 && info.flags & FMFS_F_ATOMIC;
}

static int make_pool(int fd, const char *path, uint64_t size, int flags,
		     struct fm_super_disk *super)
{
	int rc;

	if (mount_wants_atomic(fd))
		flags |= FM_ATOMIC;
	rc = write_pool(fd, size, flags, super);
	if (rc < 0)
		return rc;
	if (fsync(fd) < 0)
		return err_sys(errno, "fsync");
	return sync_parent(path);
}

/* --- the mapping ----------------------------------------------------------------------- */

/* Whether the address is that of a window; then *window is its number. */
static bool is_window(uint64_t addr, uint32_t *window)
{
	uint64_t at = addr - FM_REGION_BASE;

	*window = at >> FM_WINDOW_BITS;
	return at < WINDOW_REGION_LEN && at % WINDOW_LEN == 0;
}

/* The window that the pool usually gets, so that it often comes back where it
 * was: the one that it has a claim to, or one by its UUID. */
static uint32_t usual_window(const struct fm_super_disk *super)
{
	uint32_t n;

	if (is_window(super->home_addr, &n))
		return n;
	memcpy(&n, super->uuid, sizeof(n));
	return n % FM_NWINDOWS;
}

/* Map into a window: -EEXIST if it is not free. */
static int try_window(int fd, int flags, uint64_t size, uint32_t w,
		      struct fm_heap **out)
{
	struct fm_heap *h = registry_storage(w);
	int rc;

	if (h == NULL)
		return -EEXIST;
	memset(h, 0, offsetof(struct fm_heap, zones));
	h->window = w;
	h->fd = fd;
	h->writable = !(flags & FM_RDONLY);
	rc = map_pool(h, size);
	if (rc == 0)
		*out = h;
	return rc;
}

/* Map into the first window, from the usual one on, that is free. */
static int find_window(int fd, int flags, uint64_t size,
		       const struct fm_super_disk *super, struct fm_heap **out)
{
	uint32_t first = usual_window(super), i;
	int rc;

	for (i = 0; i < FM_NWINDOWS; i++) {
		rc = try_window(fd, flags, size, (first + i) % FM_NWINDOWS, out);
		if (rc != -EEXIST)
			return rc;
	}
	return err_set(ENOMEM, "no address window is free: %u pools can be open at"
		       " once", (unsigned)FM_NWINDOWS);
}

/* Map where FM_FIXED says that the pool must be; the first time that is any
 * window. */
static int find_home(int fd, int flags, uint64_t size,
		     const struct fm_super_disk *super, struct fm_heap **out)
{
	uint32_t w;
	int rc;

	if (super->home_addr == 0) {
		if (flags & FM_RDONLY)
			return err_set(EINVAL, "it has no address of its own: it was"
				       " never opened with FM_FIXED for writing");
		return find_window(fd, flags, size, super, out);
	}
	if (!is_window(super->home_addr, &w))
		return err_set(EADDRNOTAVAIL, "its address %#" PRIx64 " is none that"
			       " this library maps pools at", super->home_addr);
	rc = try_window(fd, flags, size, w, out);
	if (rc == -EEXIST)
		return err_set(EADDRINUSE, "its address %#" PRIx64 " is in use",
			       super->home_addr);
	return rc;
}

static int settle_home(struct fm_heap *h, int flags)
{
	if (!(flags & FM_FIXED) || h->super->home_addr != 0)
		return 0;
	__atomic_store_n(&h->super->home_addr, (uintptr_t)h->base, __ATOMIC_RELEASE);
	return h->atomic != NULL ? 0 : map_sync_part(h, 0, FM_PAGE_LEN);
}

/*
 * A copy made by a tool that turns zeroes into holes has less space than the
 * heap was promised; get it now, for a store into a hole of a full disk would
 * be a signal.  If it is not to be had the file stays as it is.  Where nothing is
 * missing it takes some us a zone, or one request to a mount's daemon.  (What
 * st_blocks says is no proof: it counts the file system's own blocks, too.)
 */
static int claim_space(struct fm_heap *h)
{
	int rc = space_claim(h);

	return rc < 0 ? err_in(rc, "the file is sparse, or shares its blocks") : 0;
}

/* A process died making a page of roots. */
static void settle_rootpage(struct fm_heap *h)
{
	uint64_t off = h->super->pending_rootpage_off;

	if (off == 0)
		return;
	/* If the roots are damaged it is safer to lose the page. */
	if (root_has_page(h, off) == 0 && !into_has_page(h, off))
		pages_drop(h, FM_EXTENT_META, off);
	__atomic_store_n(&h->super->pending_rootpage_off, 0, __ATOMIC_RELEASE);
}

static size_t slabs_len(const struct fm_heap *h)
{
	return (h->map_len >> FM_SLAB_SHIFT) * sizeof(*h->slab);
}

/* Not of fmalloc_open(): a pool that is new, and nobody else's. */
#define FM_SCRATCH 0x10000

/* What only a writer does; the rest of the pool's state is there. */
static int start_writing(struct fm_heap *h, int flags)
{
	int rc;

	h->slab = map_anon_sparse(slabs_len(h));
	if (h->slab == NULL)
		return err_sys(ENOMEM, "memory for a pool of %" PRIu64 " bytes",
			       h->map_len);
	if (flags & FM_SCRATCH) {
		pagecache_advise(h);
		into_open(h);
		return 0;
	}
	if (h->atomic != NULL) {
		/* Without its space a commit may fail, but no store. */
		rc = atomic_sign(h);
	} else {
		rc = claim_space(h);
		if (rc == 0)
			rc = lock_sign(h->ino, &h->super->writer);
	}
	if (rc == 0)
		rc = settle_home(h, flags);
	if (rc < 0)
		return rc;
	if (h->atomic == NULL)
		pagecache_advise(h);
	settle_rootpage(h);
	rc = legacy_open(h);
	if (rc == 0)
		into_open(h);
	if (rc == 0 && h->atomic != NULL) {
		atomic_settle(h);
		/* The address must hold from the first pointer on that is stored. */
		if (flags & FM_FIXED)
			rc = atomic_commit(h);
	}
	return rc;
}

static int start_heap(struct fm_heap *h, const char *path, int flags)
{
	int rc;

	h->info.mem = h->base;
	h->super = (struct fm_super_disk *)h->base;
	h->zonedir = (uint16_t *)(h->base + FM_ZONEDIR_OFF);
	snprintf(h->path, sizeof(h->path), "%s", path);
	pthread_mutex_init(&h->root_lock, NULL);
	pthread_mutex_init(&h->fd_lock, NULL);
	if (!(flags & FM_SCRATCH))
		revive_note_path(h);
	lane_open(h);
	rc = h->atomic != NULL ? atomic_map(h) : 0;
	h->tiny = (h->super->compat & FM_COMPAT_TINY) != 0;
	if (rc == 0)
		rc = zone_open(h);
	if (rc == 0 && h->writable)
		rc = start_writing(h, flags);
	return rc;
}

static void unmap(struct fm_heap *h)
{
	memtool_ours(h->base, heap_end(h));
	into_close(h);
	lane_destroy(h);
	zone_close(h);
	map_anon_free(h->slab, slabs_len(h));
	map_close(h);
	atomic_free(h->atomic);
	h->atomic = NULL;
	h->info.mem = NULL;
}

static int map_and_start(int fd, const char *path, int flags,
			 struct fm_super_disk *super, struct fm_heap **out)
{
	struct atomic *atomic = NULL;
	struct fm_heap *h = NULL;
	struct statx st;
	int rc;

	rc = look_at(fd, AT_STATX_DONT_SYNC, &st);
	if (rc == 0 && (super->incompat & FM_INCOMPAT_ATOMIC) != 0)
		rc = atomic_load(fd, !(flags & FM_RDONLY), NULL, super, &atomic);
	if (rc < 0)
		return rc;
	registry_lock();
	rc = flags & FM_FIXED ? find_home(fd, flags, st.stx_size, super, &h) :
				find_window(fd, flags, st.stx_size, super, &h);
	if (rc < 0) {
		atomic_free(atomic);
	} else {
		h->dev[0] = makedev(st.stx_dev_major, st.stx_dev_minor);
		h->ino = st.stx_ino;
		memcpy(h->uuid, super->uuid, sizeof(h->uuid));
		h->atomic = atomic;
		rc = start_heap(h, path, flags);
		if (rc == 0) {
			registry_add(h);
			*out = h;
		} else {
			unmap(h);
		}
	}
	registry_unlock();
	return rc;
}

/* A reader of a live pool may do without the lock, if there is none to be had: only its
 * end can be cut.  One of an atomic pool sees what a checkpoint writes. */
static int share(int fd)
{
	struct fm_super_disk super;
	size_t len;

	if (read_super(fd, &super, &len) == 0 && super_check(&super) == 0 &&
	    (super.incompat & FM_INCOMPAT_ATOMIC) != 0)
		return lock_share_wait(fd, LOCK_WAIT_MS);
	lock_share(fd);
	return 0;
}

static int open_pool(const char *path, int flags, bool *created, struct fm_heap **out)
{
	/* ours: made here, under the lock, and nobody else can have used it. */
	bool writable = !(flags & FM_RDONLY), made, ours = false;
	struct fm_super_disk super;
	struct statx st = { 0 };
	int fd, rc;

	fd = open_file(path, flags, &made);
	if (fd < 0)
		return fd;
	rc = check_regular(fd);
	if (rc == 0 && writable)
		rc = lock_take(fd);
	else if (rc == 0)
		rc = share(fd);
	/* What was known before the lock may have changed. */
	if (rc == 0)
		rc = look_at(fd, AT_STATX_FORCE_SYNC, &st);
	if (rc == 0)
		rc = judge(fd, flags, st.stx_size, &super);
	*created = rc == 1;
	if (rc == 1) {
		rc = make_pool(fd, path, st.stx_size, flags, &super);
		ours = made;
	}
	if (rc == 0)
		rc = map_and_start(fd, path, flags, &super, out);
	if (rc < 0 && ours)
		unlink(path);
	if (rc < 0)
		close(fd);
	return rc;
}

int pool_open(const char *path, int flags, bool *created, struct fm_heap **out)
{
	int state = cancel_disable(), rc;

	registry_begin_open();
	rc = open_pool(path, flags, created, out);
	registry_end_open();
	cancel_restore(state);
	return rc;
}

int pool_make_scratch(int fd, const char *name, const char *dir, struct fm_heap **out)
{
	int state = cancel_disable(), rc;
	struct fm_super_disk super;

	registry_begin_open();
	rc = write_pool(fd, 0, 0, &super);
	if (rc == 0)
		rc = map_and_start(fd, name, FM_SCRATCH, &super, out);
	if (rc == 0)
		(*out)->scratch_dir = dir;
	registry_end_open();
	cancel_restore(state);
	return rc;
}

/* A pool that is mostly empty takes little space while nobody uses it. */
#define CLOSED_SLACK 16u

static uint64_t slack_at_close(const struct fm_heap *h)
{
	return 1 + (h->nbacked_pages - h->nfree_pages) / CLOSED_SLACK / FM_CHUNK_NPAGES;
}

void pool_close(struct fm_heap *h)
{
	int state = cancel_disable();

	registry_lock();
	registry_remove(h);
	if (h->writable && h->atomic != NULL) {
		lane_close(h);
		if (atomic_begin_close(h)) {
			space_trim(h, slack_at_close(h));
			space_shrink(h);
			atomic_end_close(h);
		}
		atomic_unsign(h);
	} else if (h->writable) {
		lane_close(h);
		memtool_ours(h->base, heap_end(h));
		space_trim(h, slack_at_close(h));
		space_shrink(h);
		lock_unsign(&h->super->writer);
	}
	root_close(h);
	unmap(h);
	map_close_fd(h);	/* and with it go the locks */
	registry_unlock();
	cancel_restore(state);
}
