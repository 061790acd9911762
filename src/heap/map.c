/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mapping pools and reserving their space: the one file of this folder that
 * calls mmap, msync and fallocate.
 *
 * A pool has an aligned window of address space to itself for as long as it is
 * open.  The file is mapped once, far beyond its end, over as much of the
 * window as the process and the file system allow; pages of the file can be
 * touched as soon as the file has grown over them, and the base never moves.
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
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/align.h"
#include "common/clock.h"
#include "common/fmfs_ioctl.h"
#include "common/holes.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/memtool.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23	/* since Linux 5.14 */
#endif

/* What the kernel knows, without asking the daemon of a mount.  (Its length of the file
 * is right but for what was done behind the mount.) */
static int ask_kernel(int fd, struct statx *st)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO | STATX_SIZE,
		     st);
}

/*
 * Programs that become daemons, or start others, close descriptors that they know
 * nothing of, and open files that get the same numbers.  So the pool's is looked at
 * before each use; uses are rare, and looking takes less than a microsecond.
 */
static int look(const struct fm_heap *h, struct statx *st)
{
	uint64_t dev;

	if (h->fd < 0 || ask_kernel(h->fd, st) < 0)
		return -1;
	dev = makedev(st->stx_dev_major, st->stx_dev_minor);
	if (st->stx_ino != h->ino ||
	    (dev != __atomic_load_n(&h->dev[0], __ATOMIC_ACQUIRE) &&
	     dev != __atomic_load_n(&h->dev[1], __ATOMIC_ACQUIRE)))
		return -1;
	return h->fd;
}

int map_fd(const struct fm_heap *h)
{
	struct statx st;

	return look(h, &st);
}

uint64_t map_file_len(const struct fm_heap *h)
{
	struct statx st;

	return look(h, &st) < 0 ? UINT64_MAX : st.stx_size;
}

void map_close_fd(struct fm_heap *h)
{
	int fd = map_fd(h);

	if (fd >= 0)
		close(fd);
	h->fd = -1;
}

/*
 * The file, opened once more: a mapping keeps its open file description alive,
 * and the writer lock with it if that is on the same one; a forked child that
 * has the mapping would hold the lock when the parent is dead.  -1: cannot.
 */
static int reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, FMFS_OPEN_RESERVING | O_CLOEXEC);
}

/* One attempt, of `len` bytes. */
static int map_len(struct fm_heap *h, int fd, void *want, uint64_t len)
{
	int prot = h->writable ? PROT_READ | PROT_WRITE : PROT_READ;
	void *mem;

	mem = mmap(want, len, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	if (mem != want) {	/* a kernel before 4.17 took it as a hint */
		munmap(mem, len);
		return -EEXIST;
	}
	h->base = mem;
	h->map_len = len;
	return 0;
}

int map_pool(struct fm_heap *h, uint64_t file_len)
{
	void *want = (void *)(FM_REGION_BASE +
			      ((uintptr_t)h->window << FM_WINDOW_BITS));
	uint64_t least = align_up(file_len, FM_ZONE_LEN);
	uint64_t most = FM_MAX_NZONES * FM_ZONE_LEN;
	uint64_t len = WINDOW_LEN < most ? WINDOW_LEN : most;
	int rc, fd;

	if (file_len > len)
		return err_set(EFBIG, "its %" PRIu64 " bytes are more than the %"
			       PRIu64 " of an address window", file_len, len);
	/* ulimit -v and file systems with a low limit leave less. */
	fd = h->writable ? reopen(h->fd) : -1;
	for (rc = map_len(h, fd < 0 ? h->fd : fd, want, len);
	     (rc == -ENOMEM || rc == -EOVERFLOW) && len / 2 >= least;
	     rc = map_len(h, fd < 0 ? h->fd : fd, want, len))
		len /= 2;
	if (fd >= 0)
		close(fd);
	if (rc < 0 && rc != -EEXIST)
		return err_sys(-rc, "mmap of %" PRIu64 " bytes", len);
	return rc;
}

static int map_over(struct fm_heap *h, uint64_t off, uint64_t len, int prot, int flags,
		    int fd)
{
	if (len == 0)
		return 0;
	if (mmap(h->base + off, len, prot,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED | flags, fd, fd < 0 ? 0 : off) ==
	    MAP_FAILED)
		return err_sys(errno, "mmap of %" PRIu64 " bytes", len);
	return 0;
}

int map_private(struct fm_heap *h, uint64_t len)
{
	int fd = h->writable ? reopen(h->fd) : -1, rc;

	rc = map_over(h, len, h->map_len - len, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
	if (rc == 0)
		rc = map_over(h, 0, len, PROT_READ | PROT_WRITE, 0, fd < 0 ? h->fd : fd);
	if (fd >= 0)
		close(fd);
	return rc;
}

int map_seal(struct fm_heap *h, bool readonly)
{
	if (mprotect(h->base, h->map_len, readonly ? PROT_READ : PROT_READ | PROT_WRITE) < 0)
		return err_sys(errno, "mprotect");
	return 0;
}

unsigned char *map_part(struct fm_heap *h, uint64_t off, uint64_t len)
{
	int fd = reopen(h->fd);
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
			 fd < 0 ? h->fd : fd, off);

	if (fd >= 0)
		close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

int map_part_over(struct fm_heap *h, unsigned char *mem, uint64_t off, uint64_t len)
{
	if (mremap(mem, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, h->base + off) !=
	    MAP_FAILED)
		return 0;
	munmap(mem, len);
	return -errno;
}

void map_drop(struct fm_heap *h, uint64_t off, uint64_t len)
{
	madvise(h->base + off, len, MADV_DONTNEED);
}

void map_close(struct fm_heap *h)
{
	if (h->shadow != NULL)
		munmap(h->shadow, h->map_len);
	munmap(h->base, h->map_len);
}

/* --- syncing -------------------------------------------------------------------- */

/*
 * msync alone: on a shared mapping it is fdatasync(2) of the range (the length
 * of the file included), and it reaches the backing file even when the mount
 * that the file was opened through has gone.
 */
static int sync_mapped(void *mem, uint64_t len)
{
	int state = cancel_disable(), rc = 0;

	memtool_hush(true);
	if (msync(mem, len, MS_SYNC) < 0)
		rc = err_sys(errno, "msync");
	memtool_hush(false);
	cancel_restore(state);
	return rc;
}

int map_sync_part(struct fm_heap *h, uint64_t off, uint64_t len)
{
	return sync_mapped(h->base + off, len);
}

/* The first len bytes.  False: it cannot be mapped. */
static bool sync_by_mapping(int fd, uint64_t len, int *rc)
{
	void *mem = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);

	if (mem == MAP_FAILED)
		return false;
	/* A child would have the file open, and its locks. */
	madvise(mem, len, MADV_DONTFORK);
	*rc = sync_mapped(mem, len);
	munmap(mem, len);
	return true;
}

/* Whether FUSE has the file.  The kernel knows its device, but asks the daemon what that
 * is: once.  (To be wrong, as when a number is used again, does no harm.) */
static bool is_at_mount(int fd, const struct statx *st)
{
	static uint64_t at_mount, elsewhere; /* devices; atomic */
	uint64_t dev = makedev(st->stx_dev_major, st->stx_dev_minor);
	int is_fuse;

	if (dev == __atomic_load_n(&at_mount, __ATOMIC_RELAXED))
		return true;
	if (dev == __atomic_load_n(&elsewhere, __ATOMIC_RELAXED))
		return false;
	is_fuse = fmfs_is_fuse(fd);
	if (is_fuse >= 0)
		__atomic_store_n(is_fuse ? &at_mount : &elsewhere, dev, __ATOMIC_RELAXED);
	return is_fuse == 1;
}

/*
 * Why a request failed.  A daemon that is killed while it takes one from the kernel lets
 * it fail with EIO, as a disk might; then it is dead before long.  (Whether the disk has
 * failed, too, is asked again.)
 */
static int why_failed(int fd, int err)
{
	int tries, is_fuse;

	for (tries = 0; err == EIO && tries < 20; tries++) {
		is_fuse = fmfs_is_fuse(fd);
		if (is_fuse == 0)
			break;
		if (is_fuse < 0 && err_is_dead(-is_fuse))
			err = ENOTCONN;
		clock_sleep(5000000);
	}
	return err;
}

/* With passthrough a sync of what is mapped need not go by the daemon, which takes as
 * long again as the disk does, and succeeds without one. */
int map_sync_file(int fd)
{
	struct statx st;
	int rc, err;

	if (ask_kernel(fd, &st) < 0)
		return err_sys(errno, "statx");
	if (is_at_mount(fd, &st) && sync_by_mapping(fd, st.stx_size, &rc))
		return rc == -EIO ? err_sys(why_failed(fd, EIO), "msync") : rc;
	if (fdatasync(fd) == 0)
		return 0;
	err = why_failed(fd, errno);
	if (err_is_dead(err) && sync_by_mapping(fd, st.stx_size, &rc))
		return rc;
	return err_sys(err, "fdatasync");
}

/*
 * Have the file's new length on disk before any page that says how long the heap
 * is: otherwise a crash of the machine in the middle of a commit leaves a heap
 * longer than its file.  The last page says nothing, and is mostly not even dirty;
 * to sync it waits for the journal.  (So would a fallocate(2) by a descriptor with
 * O_SYNC, but at a mount that is the daemon's, which has no such flag.)
 */
static int sync_length(struct fm_heap *h, uint64_t end)
{
	int rc;

	if (!__atomic_exchange_n(&h->grown, false, __ATOMIC_ACQ_REL))
		return 0;
	rc = map_sync_part(h, end - FM_PAGE_LEN, FM_PAGE_LEN);
	if (rc < 0)
		__atomic_store_n(&h->grown, true, __ATOMIC_RELEASE);
	return rc;
}

int map_sync(struct fm_heap *h)
{
	uint64_t end = heap_end(h);
	int rc = sync_length(h, end);

	return rc == 0 ? map_sync_part(h, 0, end) : rc;
}

/* --- space ----------------------------------------------------------------------- */

/* Blocks of a file system may be shorter than pages, and so may holes. */
static size_t piece_at(uint64_t off, uint64_t end)
{
	return end - off < FM_PAGE_LEN ? end - off : FM_PAGE_LEN;
}

/* Read the piece of a page: 1 if it is all zeroes, so that it may be a hole, 0 if not,
 * or -errno. */
static int read_piece(int fd, uint64_t off, size_t len, unsigned char page[FM_PAGE_LEN])
{
	ssize_t n;

	memset(page, 0, FM_PAGE_LEN);
	n = read_at(fd, page, len, off);
	if (n < 0)
		return n;
	return page[0] == 0 && memcmp(page, page + 1, FM_PAGE_LEN - 1) == 0;
}

/* For file systems without fallocate(2).  What is not all zeroes has its space, unless
 * blocks are shorter than pages.  Nobody stores there meanwhile: the pages are new, or
 * the pool is just being opened. */
static int reserve_by_zeroes(int fd, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	unsigned char page[FM_PAGE_LEN];
	struct statx st;
	size_t piece;
	int rc;

	if (ask_kernel(fd, &st) < 0)
		return -errno;
	for (; off < end; off += piece) {
		piece = piece_at(off, end);
		rc = read_piece(fd, off, piece, page);
		if (rc == 1 || (rc == 0 && st.stx_blksize < FM_PAGE_LEN))
			rc = write_at(fd, page, piece, off);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Of zeroes that were written: delayed until now, it may yet turn out that there is
 * no space. */
static int sync_zeroes(int fd)
{
	int rc = map_sync_file(fd);

	return rc < 0 ? err_in(rc, "write zeroes") : 0;
}

static int write_zeroes(int fd, uint64_t off, uint64_t len)
{
	int rc = reserve_by_zeroes(fd, off, len);

	return rc < 0 ? err_sys(-rc, "write zeroes") : 0;
}

/* *zeroed is set if sync_zeroes() is still to come. */
static int reserve_part(int fd, uint64_t off, uint64_t len, bool *zeroed)
{
	struct rlimit limit;
	struct statx st;

	/* Beyond its limit the kernel would send SIGXFSZ. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < off + len &&
	    (ask_kernel(fd, &st) < 0 || st.stx_size < off + len))
		return err_set(EFBIG, "the limit on file sizes (ulimit -f) is %" PRIu64
			       " bytes", (uint64_t)limit.rlim_cur);
	while (fallocate(fd, 0, off, len) < 0) {
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP || errno == ENOSYS) {
			*zeroed = true;
			return write_zeroes(fd, off, len);
		}
		return err_sys(why_failed(fd, errno),
			       "reserve %" PRIu64 " bytes of space", len);
	}
	return 0;
}

static int reserve(int fd, uint64_t off, uint64_t len)
{
	bool zeroed = false;
	int rc = reserve_part(fd, off, len, &zeroed);

	return rc == 0 && zeroed ? sync_zeroes(fd) : rc;
}

int map_reserve(int fd, uint64_t off, uint64_t len)
{
	int state = cancel_disable();
	int rc = reserve(fd, off, len);

	cancel_restore(state);
	return rc;
}

/* The daemon of the mount is dead.  Where no other serves the file yet, what is written
 * to it reaches it all the same, if it has passthrough. */
static int reserve_without_daemon(struct fm_heap *h, int fd, uint64_t off, uint64_t len)
{
	int rc = revive(h);

	if (rc == 0)
		return reserve(fd, off, len);
	if (rc == -ENOTCONN)
		rc = write_zeroes(fd, off, len);
	return rc == 0 ? sync_zeroes(fd) : rc;
}

/* Without a descriptor: the mapping still leads to the file.  It cannot make the
 * file longer, but stores make the file system find space, which this does without
 * a signal. */
static int populate(struct fm_heap *h, uint64_t off, uint64_t len)
{
	while (madvise(h->base + off, len, MADV_POPULATE_WRITE) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return err_set(EBADF, "the program has closed the file's"
				       " descriptor, so the file cannot grow");
	return 0;
}

/* How much of [off, off + len) is frozen. */
static uint64_t frozen_part(const struct fm_heap *h, uint64_t off, uint64_t len)
{
	if (off >= h->frozen_len)
		return 0;
	return h->frozen_len - off < len ? h->frozen_len - off : len;
}

int map_check_full(const struct fm_heap *h, uint64_t len)
{
	int fd = h->disk_full ? map_fd(h) : -1;
	struct statvfs fs;

	/* (One without a limit, as that of memfd_create(2), says that it has no blocks.) */
	if (fd < 0 || fstatvfs(fd, &fs) < 0 || fs.f_blocks == 0 ||
	    len / fs.f_frsize <= (geteuid() == 0 ? fs.f_bfree : fs.f_bavail))
		return 0;
	return err_sys(ENOSPC, "reserve %" PRIu64 " bytes of space", len);
}

int map_claim(struct fm_heap *h, uint64_t off, uint64_t len)
{
	uint64_t frozen = frozen_part(h, off, len);
	int state, fd, rc = 0;

	off += frozen;
	len -= frozen;
	if (len == 0)
		return 0;
	state = cancel_disable();
	if (h->borrowed)
		rc = scratch_take_file(h);
	fd = map_fd(h);
	if (rc == 0 && h->atomic != NULL)
		rc = atomic_claim(h, off, len);
	if (rc == 0)
		rc = fd >= 0 ? reserve(fd, off, len) : populate(h, off, len);
	if (rc == -ENOTCONN && fd >= 0)
		rc = reserve_without_daemon(h, fd, off, len);
	h->disk_full = rc == -ENOSPC;
	cancel_restore(state);
	return rc;
}

int map_find_holes(struct fm_heap *h, uint64_t off, uint64_t len, struct holes *holes)
{
	int rc = holes_find(h->fd, off, len, false, holes);

	return rc < 0 ? err_sys(-rc, "a list of holes") : 0;
}

static bool is_zero(int fd, const struct hole *hole)
{
	uint64_t off = hole->off, end = off + hole->len;
	unsigned char page[FM_PAGE_LEN];

	while (off < end && read_piece(fd, off, piece_at(off, end), page) == 1)
		off += piece_at(off, end);
	return off >= end;
}

/* Some file systems (ext4, XFS) keep what they had got when there is no more.  Should
 * one not tell of bytes that it has yet to find a place for, they are not zeroes. */
static void undo_fill(struct fm_heap *h, const struct holes *holes, size_t n,
		      uint64_t file_len)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (holes->hole[i].sure && is_zero(h->fd, &holes->hole[i]))
			map_punch(h->fd, holes->hole[i].off, holes->hole[i].len);
	if (map_file_len(h) > file_len)
		map_cut(h->fd, file_len);
}

int map_fill_holes(struct fm_heap *h, const struct holes *holes)
{
	uint64_t file_len = map_file_len(h);
	int rc = holes_check(h->fd, holes);
	bool zeroed = false;
	size_t i;

	if (rc < 0)
		return err_sys(-rc, "reserve %" PRIu64 " bytes of space (%" PRIu64
			       " are shared with other files)", holes->len,
			       holes->shared_len);
	for (i = 0; i < holes->n && rc == 0; i++)
		rc = reserve_part(h->fd, holes->hole[i].off, holes->hole[i].len, &zeroed);
	if (rc == 0 && zeroed)
		rc = sync_zeroes(h->fd);
	if (rc < 0)
		undo_fill(h, holes, i, file_len);
	return rc;
}

/*
 * By the mapping: what is mapped through a mount with passthrough is the file in the
 * store, so the daemon is not asked; and the program may have closed the descriptor.
 * Where memory is locked (mlock(2)) it takes the descriptor.
 */
static void punch(struct fm_heap *h, uint64_t off, uint64_t len)
{
	int fd;

	if (madvise(h->base + off, len, MADV_REMOVE) == 0)
		return;
	fd = map_fd(h);
	if (fd >= 0)
		map_punch(fd, off, len);
}

void map_give_back(struct fm_heap *h, uint64_t off, uint64_t len)
{
	uint64_t frozen = frozen_part(h, off, len);
	int state = cancel_disable();

	if (h->atomic != NULL) {
		atomic_give_back(h, off, len);
		cancel_restore(state);
		return;
	}
	/* The file is what somebody else may go back to. */
	if (frozen > 0)
		madvise(h->base + off, frozen, MADV_DONTNEED);
	/* Behind that a child without a file of its own yet has its parent's. */
	if (len > frozen && !h->borrowed)
		punch(h, off + frozen, len - frozen);
	cancel_restore(state);
}

void map_punch(int fd, uint64_t off, uint64_t len)
{
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
}

int map_zero(int fd, uint64_t off, uint64_t len)
{
	static const unsigned char zeroes[FM_PAGE_LEN];
	uint64_t end = off + len;
	int rc = 0;

	if (fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS && !err_is_dead(errno))
		return err_sys(errno, "zeroes in the file");
	for (; off < end && rc == 0; off += FM_PAGE_LEN)
		rc = write_at(fd, zeroes, sizeof(zeroes), off);
	return rc < 0 ? err_sys(-rc, "zeroes in the file") : 0;
}

int map_cut(int fd, uint64_t len)
{
	int state = cancel_disable(), rc;

	rc = ftruncate(fd, len) < 0 ? -errno : 0;
	cancel_restore(state);
	return rc;
}

/* --- scratch pools ---------------------------------------------------------------- */

int map_shadow(struct fm_heap *h)
{
	void *mem;

	/* Under ulimit -v it may be too much that the pool has the most it can have. */
	while ((mem = mmap(NULL, h->map_len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_NORESERVE, h->fd, 0)) == MAP_FAILED) {
		if (errno != ENOMEM || h->map_len / 2 < 2 * FM_ZONE_LEN)
			return err_sys(errno, "mmap of %" PRIu64 " bytes", h->map_len);
		h->map_len /= 2;
		munmap(h->base + h->map_len, h->map_len);
	}
	h->shadow = mem;
	return 0;
}

/* The pages move from the shadow in one step, whatever other threads store
 * meanwhile, and it takes no descriptor. */
int map_freeze(struct fm_heap *h, uint64_t len)
{
	uint64_t from = h->frozen_len;

	if (len <= from)
		return 0;
	if (mremap(h->shadow + from, len - from, len - from,
		   MREMAP_MAYMOVE | MREMAP_FIXED, h->base + from) == MAP_FAILED)
		return err_sys(errno, "mremap of %" PRIu64 " bytes", len - from);
	h->frozen_len = len;
	return 0;
}

int map_replace(struct fm_heap *h, int fd)
{
	uint64_t from = h->frozen_len, len = h->map_len - from;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(errno, "fstat");
	if (mmap(h->shadow + from, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, from) == MAP_FAILED ||
	    mmap(h->base + from, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 fd, from) == MAP_FAILED)
		return err_sys(errno, "mmap of %" PRIu64 " bytes", len);
	h->fd = fd;
	h->dev[0] = st.st_dev;
	h->ino = st.st_ino;
	return 0;
}

/* --- memory ------------------------------------------------------------------------ */

static void *anon(size_t len, int flags)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

void *map_anon(size_t len)
{
	return anon(len, 0);
}

void *map_anon_sparse(size_t len)
{
	return anon(len, MAP_NORESERVE);
}

void *map_anon_huge(size_t len)
{
	void *mem = map_anon(len);

	/* Fewer misses of the TLB; a kernel that cannot does as well. */
	if (mem != NULL)
		madvise(mem, len, MADV_HUGEPAGE);
	return mem;
}

void map_anon_clear(void *mem, size_t len)
{
	madvise(mem, len, MADV_DONTNEED);
}

void map_anon_free(void *mem, size_t len)
{
	if (mem != NULL)
		munmap(mem, len);
}
