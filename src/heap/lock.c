/* SPDX-License-Identifier: Apache-2.0 */
/* The writer lock, and the record of who holds it. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "heap/error.h"
#include "heap/inspect.h"
#include "heap/lock.h"

/* Readers share it, and a writer that cuts the file has it to itself. */
#define READERS_LOCK_OFF (POOL_LOCK_OFF + 1)

/* The whole of a small file of /proc, NUL-terminated: its length or -errno. */
static ssize_t slurp(const char *path, char *buf, size_t len)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, len - 1);
	if (n < 0)
		n = -errno;
	else
		buf[n] = '\0';
	close(fd);
	return n;
}

static int get_boot_id(uint8_t id[16])
{
	static const char digits[] = "0123456789abcdef";
	const char *p, *digit;
	char text[64];
	ssize_t n;
	int i = 0;

	n = slurp("/proc/sys/kernel/random/boot_id", text, sizeof(text));
	if (n < 0)
		return n;
	for (p = text; *p != '\0' && i < 32; p++) {
		digit = strchr(digits, *p);
		if (digit == NULL)
			continue;	/* a hyphen */
		id[i / 2] = i % 2 ? id[i / 2] | (digit - digits) : (digit - digits) << 4;
		i++;
	}
	return i == 32 ? 0 : -EINVAL;
}

static int get_pidns(uint64_t *ino)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st) < 0)
		return -errno;
	*ino = st.st_ino;
	return 0;
}

/*
 * When the process started, in clock ticks since boot: with the pid it names a
 * process for good.  -ESRCH: there is none, or it is a zombie of which no
 * thread, and so no mapping, is left.
 */
static int get_start_ticks(uint64_t pid, uint64_t *ticks)
{
	char path[64], text[1024], state;
	long nthreads;
	ssize_t n;
	char *p;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/stat", pid);
	n = slurp(path, text, sizeof(text));
	if (n < 0)
		return n == -ENOENT ? -ESRCH : n;
	/* The name in parentheses may hold anything; fields count from 3. */
	p = strrchr(text, ')');
	if (p == NULL ||
	    sscanf(p + 1,
		   " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
		   " %*s %*s %*s %ld %*s %" SCNu64,
		   &state, &nthreads, ticks) != 3)
		return -EINVAL;
	return (state == 'Z' || state == 'X') && nthreads <= 1 ? -ESRCH : 0;
}

/*
 * Whether the process still maps the file of this inode: it does not after an
 * execve(2).  Mappings that may not be looked at count.
 */
static bool maps_inode(uint64_t pid, uint64_t ino)
{
	char path[64], line[512];
	bool found = false;
	uint64_t got;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/maps", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return errno != ENOENT;
	while (!found && fgets(line, sizeof(line), f) != NULL)
		found = sscanf(line, "%*s %*s %*s %*s %" SCNu64, &got) == 1 &&
			got == ino;
	found = found || ferror(f);
	fclose(f);
	return found;
}

static bool writer_alive(const struct fm_writer_disk *w, uint64_t ino)
{
	uint8_t boot_id[16];
	uint64_t pidns = 0, ticks = 0;
	int rc;

	if (w->pid == 0 || w->ino != ino)
		return false;
	if (get_boot_id(boot_id) < 0 || memcmp(boot_id, w->boot_id, 16) != 0 ||
	    get_pidns(&pidns) < 0 || pidns != w->pidns)
		return false;	/* another boot or machine: see doc/format.md */
	rc = get_start_ticks(w->pid, &ticks);
	if (rc < 0)
		return rc != -ESRCH;
	return ticks == w->start_ticks && maps_inode(w->pid, ino);
}

/* A lock of one byte. */
static struct flock byte_lock(uint64_t off, short type)
{
	return (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = off,
		.l_len = 1,
	};
}

static int lock_op(int fd, uint64_t off, short type)
{
	struct flock fl = byte_lock(off, type);

	while (fcntl(fd, F_OFD_SETLK, &fl) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* The same, trying for a while if others have it. */
static int lock_wait(int fd, uint64_t off, short type, int timeout_ms)
{
	int tries, rc = -EAGAIN;

	for (tries = 0; tries < timeout_ms; tries++) {
		rc = lock_op(fd, off, type);
		if (rc != -EAGAIN && rc != -EACCES)
			return rc;
		clock_sleep(1000000);
	}
	return -EAGAIN;
}

/* -EBUSY if the process that the super names is alive, or `others` have the lock. */
static int look_at_writer(int fd, bool others)
{
	struct fm_writer_disk writer;
	struct statx st;
	ssize_t n;

	n = pread(fd, &writer, sizeof(writer), offsetof(struct fm_super_disk, writer));
	if (n < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) < 0)
		return err_sys(errno, "read");
	if (n == sizeof(writer) && writer_alive(&writer, st.stx_ino))
		return err_set(EBUSY, "process %" PRIu64 " has it open for writing",
			       writer.pid);
	return others ? err_set(EBUSY, "another program has it open for writing") : 0;
}

int lock_take(int fd)
{
	bool taken;
	int rc;

	rc = lock_op(fd, POOL_LOCK_OFF, F_WRLCK);
	taken = rc == 0;
	if (!taken && rc != -EAGAIN && rc != -EACCES)
		return err_sys(-rc, "lock");
	rc = look_at_writer(fd, !taken);
	if (taken && rc < 0)
		lock_release(fd);
	return rc;
}

static bool names_us(int fd, uint64_t ino)
{
	const ssize_t len = offsetof(struct fm_writer_disk, reserved);
	struct fm_writer_disk ours = { .pid = 0 }, writer;

	lock_sign(ino, &ours);
	return ours.pid != 0 &&
	       pread(fd, &writer, len, offsetof(struct fm_super_disk, writer)) == len &&
	       memcmp(&ours, &writer, len) == 0;
}

int lock_take_back(int fd, uint64_t ino)
{
	/* Who finds us named has it for a moment. */
	int rc = lock_wait(fd, POOL_LOCK_OFF, F_WRLCK, 100);

	if (!names_us(fd, ino))
		return err_set(ESTALE, "another program has opened it for writing"
			       " meanwhile");
	return rc < 0 ? err_sys(-rc, "lock") : 0;
}

int lock_look(int fd)
{
	struct flock fl = byte_lock(POOL_LOCK_OFF, F_WRLCK);

	/* Where there are no locks nobody has one. */
	return look_at_writer(fd, fcntl(fd, F_OFD_GETLK, &fl) == 0 &&
				  fl.l_type != F_UNLCK);
}

void lock_release(int fd)
{
	lock_op(fd, POOL_LOCK_OFF, F_UNLCK);
}

bool lock_share_now(int fd)
{
	return lock_op(fd, READERS_LOCK_OFF, F_RDLCK) != -EAGAIN;
}

void lock_share(int fd)
{
	lock_wait(fd, READERS_LOCK_OFF, F_RDLCK, 100);
}

int lock_share_wait(int fd, int timeout_ms)
{
	int rc = lock_wait(fd, READERS_LOCK_OFF, F_RDLCK, timeout_ms);

	if (err_is_dead(-rc))
		return err_sys(-rc, "lock");
	return rc == -EAGAIN ? err_set(EBUSY, "its writer is at the file") : 0;
}

void lock_unshare(int fd)
{
	lock_op(fd, READERS_LOCK_OFF, F_UNLCK);
}

int lock_bar_readers(int fd)
{
	return lock_op(fd, READERS_LOCK_OFF, F_WRLCK);
}

int lock_sign(uint64_t ino, struct fm_writer_disk *writer)
{
	struct fm_writer_disk w = { .pid = getpid(), .ino = ino };
	int rc;

	rc = get_boot_id(w.boot_id);
	if (rc == 0)
		rc = get_pidns(&w.pidns);
	if (rc == 0)
		rc = get_start_ticks(w.pid, &w.start_ticks);
	if (rc < 0) {
		/* No /proc: the kernel's lock must do. */
		lock_unsign(writer);
		return 0;
	}
	/* The pid is what makes the record count: off first, on last. */
	lock_unsign(writer);
	memcpy(writer->boot_id, w.boot_id, sizeof(w.boot_id));
	writer->pidns = w.pidns;
	writer->start_ticks = w.start_ticks;
	writer->ino = w.ino;
	__atomic_store_n(&writer->pid, w.pid, __ATOMIC_RELEASE);
	return 0;
}

void lock_unsign(struct fm_writer_disk *writer)
{
	__atomic_store_n(&writer->pid, 0, __ATOMIC_RELEASE);
}
