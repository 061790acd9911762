/* SPDX-License-Identifier: Apache-2.0 */
/* The files of the fuzz targets, and what space they have. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmalloc.h>

#include "fuzz/fuzz.h"
#include "heap/layout.h"

#define NPAGES (DISK_LEN / FM_PAGE_LEN)

static int fds[DISK_NFILES];
static char paths[DISK_NFILES][32];

static uint8_t backed[NPAGES];
static struct stat watched;
static int watched_fd;
static unsigned allowed = UINT_MAX;
static bool refused;
static bool punches = true;
static ino_t mapped[FM_NWINDOWS];	/* the inode of the file in each window */

int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __real_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len);
void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int __real_madvise(void *addr, size_t len, int advice);
int __wrap_madvise(void *addr, size_t len, int advice);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);

/* --- files ------------------------------------------------------------------ */

/* Nothing is left behind when a check fails. */
static void make_files(void)
{
	int i;

	for (i = 0; i < DISK_NFILES; i++) {
		fds[i] = memfd_create("fuzz", MFD_CLOEXEC);
		fuzz_check(fds[i] >= 0);
		snprintf(paths[i], sizeof(paths[i]), "/proc/self/fd/%d", fds[i]);
	}
}

int disk_fd(unsigned i)
{
	if (fds[0] == 0)
		make_files();
	return fds[i];
}

const char *disk_path(unsigned i)
{
	disk_fd(i);
	return paths[i];
}

void disk_clear(unsigned i)
{
	fuzz_check(__real_ftruncate(disk_fd(i), 0) == 0);
}

void disk_copy(unsigned from, unsigned to)
{
	disk_clear(to);
	disk_copy_tail(from, to);
}

void disk_copy_tail(unsigned from, unsigned to)
{
	int in = disk_fd(from), out = disk_fd(to);
	static char buf[1 << 16];
	struct stat st, had;
	off_t off, end;
	ssize_t n;

	fuzz_check(fstat(in, &st) == 0 && fstat(out, &had) == 0);
	end = had.st_size;
	if (end >= st.st_size)
		return;
	fuzz_check(__real_ftruncate(out, st.st_size) == 0);
	while ((off = lseek(in, end, SEEK_DATA)) >= 0) {
		end = lseek(in, off, SEEK_HOLE);
		for (; off < end; off += n) {
			n = sizeof(buf);
			n = pread(in, buf, end - off < n ? end - off : n, off);
			fuzz_check(n > 0 && pwrite(out, buf, n, off) == n);
		}
	}
}

/* --- space ------------------------------------------------------------------ */

static bool is_watched(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == watched.st_ino;
}

static void set_backed(uint64_t off, uint64_t end, bool has)
{
	if (end > DISK_LEN)
		end = DISK_LEN;
	if (off < end)
		memset(backed + off / FM_PAGE_LEN, has,
		       (end + FM_PAGE_LEN - 1) / FM_PAGE_LEN - off / FM_PAGE_LEN);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	struct stat st;

	if (mode != 0 && !punches) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (mode != 0) {
		if (is_watched(fd))
			set_backed(off, off + len, false);
		return __real_fallocate(fd, mode, off, len);
	}
	if (allowed == 0 || (uint64_t)(off + len) > DISK_LEN) {
		refused = true;
		errno = ENOSPC;
		return -1;
	}
	if (allowed != UINT_MAX)
		allowed--;
	if (is_watched(fd))
		set_backed(off, off + len, true);
	if (fstat(fd, &st) < 0 || st.st_size >= off + len)
		return 0;
	return __real_ftruncate(fd, off + len);
}

int __wrap_ftruncate(int fd, off_t len)
{
	if (is_watched(fd))
		set_backed(len, DISK_LEN, false);
	return __real_ftruncate(fd, len);
}

static uint64_t window_of(const void *addr)
{
	return ((uintptr_t)addr - FM_REGION_BASE) >> FM_WINDOW_BITS;
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *mem = __real_mmap(addr, len, prot, flags, fd, off);
	struct stat st;

	if (mem != MAP_FAILED && fd >= 0 && window_of(mem) < FM_NWINDOWS) {
		fuzz_check(off == 0 && fstat(fd, &st) == 0);
		mapped[window_of(mem)] = st.st_ino;
	}
	return mem;
}

/* This advice punches as well. */
int __wrap_madvise(void *addr, size_t len, int advice)
{
	uint64_t off = (uintptr_t)addr & ((UINT64_C(1) << FM_WINDOW_BITS) - 1);

	if (advice == MADV_REMOVE && !punches) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (advice == MADV_REMOVE) {
		fuzz_check(window_of(addr) < FM_NWINDOWS);
		if (mapped[window_of(addr)] == watched.st_ino)
			set_backed(off, off + len, false);
	}
	return __real_madvise(addr, len, advice);
}

/* The UUID of a new pool, and so its window, which has shadow memory then. */
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
	(void)flags;
	memset(buf, 1, len);
	return len;
}

void disk_watch(unsigned i)
{
	watched_fd = disk_fd(i);
	fuzz_check(fstat(watched_fd, &watched) == 0);
	memset(backed, false, sizeof(backed));
	disk_can(true);
}

void disk_allow(unsigned nrequests)
{
	allowed = nrequests;
	refused = false;
}

void disk_can(bool punch)
{
	disk_allow(UINT_MAX);
	punches = punch;
}

bool disk_refused(void)
{
	bool was = refused;

	refused = false;
	return was;
}

bool disk_backs(uint64_t off, uint64_t len)
{
	uint64_t page = off / FM_CHUNK_LEN * FM_CHUNK_NPAGES, end;
	struct stat st;

	fuzz_check(fstat(watched_fd, &st) == 0);
	end = (off + len + FM_CHUNK_LEN - 1) / FM_CHUNK_LEN * FM_CHUNK_LEN;
	if (end > (uint64_t)st.st_size)
		end = st.st_size;
	if (end > DISK_LEN || off + len > end)
		return false;
	end = (end + FM_PAGE_LEN - 1) / FM_PAGE_LEN;
	return memchr(backed + page, false, end - page) == NULL;
}
