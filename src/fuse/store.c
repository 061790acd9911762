/* SPDX-License-Identifier: Apache-2.0 */
/* The layout of a store, and who may use it. */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/nocow.h"
#include "fuse/store.h"

#define STORE_VERSION 1
#define STORE_MARK "fmfs-store"
#define STORE_LOCK "lock"
#define STORE_POOLS "pools"
#define STORE_TMP "tmp"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)

static int fail(int err, const struct store *s, const char *what)
{
	log_error("%s: %s: %s", s->path, what, strerror(-err));
	return err;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

DIR *store_list(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, DIR_FLAGS);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (d == NULL && fd >= 0) {
		close(fd);
		errno = ENOMEM;
	}
	return d;
}

/* 1 if the folder is empty, but for what mkfs leaves; 0 if not; or -errno. */
static int is_empty(int dirfd)
{
	DIR *d = store_list(dirfd, ".");
	struct dirent *de;
	int empty = 1;

	if (d == NULL)
		return -errno;
	while ((de = readdir(d)) != NULL)
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0 &&
		    strcmp(de->d_name, "lost+found") != 0)
			empty = 0;
	closedir(d);
	return empty;
}

static int write_mark(struct store *s)
{
	char text[64];
	int fd, len;
	int err = 0;

	len = snprintf(text, sizeof(text), "fmfs store\nversion %d\n", STORE_VERSION);
	fd = openat(s->dirfd, STORE_MARK ".new",
		    O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(-errno, s, "cannot make " STORE_MARK);
	if (write(fd, text, len) != len || fsync(fd) < 0 ||
	    renameat(s->dirfd, STORE_MARK ".new", s->dirfd, STORE_MARK) < 0)
		err = fail(errno != 0 ? -errno : -EIO, s, "cannot write " STORE_MARK);
	close(fd);
	return err;
}

/* Check the version of the layout.  -ENOENT, silently: there is none. */
static int read_mark(struct store *s)
{
	char text[64];
	int version = 0;
	ssize_t n;
	int fd;

	fd = openat(s->dirfd, STORE_MARK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0)
		return fail(-EIO, s, "cannot read " STORE_MARK);
	text[n] = '\0';
	if (sscanf(text, "fmfs store\nversion %d", &version) != 1 || version < 1) {
		log_error("%s: " STORE_MARK " is not as fmfs writes it", s->path);
		return -EUCLEAN;
	}
	if (version > STORE_VERSION) {
		log_error("%s: the store has version %d; this fmfs knows up to %d",
			  s->path, version, STORE_VERSION);
		return -ENOTSUP;
	}
	return 0;
}

/* Is the folder that the first len bytes of the path name marked as a store? */
static bool is_marked(const char *path, int len)
{
	char mark[PATH_MAX];
	struct stat st;

	return snprintf(mark, sizeof(mark), "%.*s/" STORE_MARK, len, path) <
		       (int)sizeof(mark) &&
	       lstat(mark, &st) == 0 && S_ISREG(st.st_mode);
}

bool store_is(const char *path)
{
	return is_marked(path, (int)strlen(path));
}

bool store_has(const char *path)
{
	const char *at = path;

	while ((at = strstr(at, "/" STORE_POOLS "/")) != NULL) {
		if (is_marked(path, (int)(at - path)))
			return true;
		at++;
	}
	return false;
}

static int make_store(struct store *s)
{
	int rc = is_empty(s->dirfd);

	if (rc < 0)
		return fail(rc, s, "cannot read the folder");
	if (rc == 0) {
		log_error("%s: neither an fmfs store nor an empty folder", s->path);
		return -ENOTEMPTY;
	}
	if (s->readonly) {
		log_error("%s: empty, and no store can be made in it: it is read-only",
			  s->path);
		return -EROFS;
	}
	/* Modes are checked at the mount; nobody is to go around it. */
	if (fchmod(s->dirfd, 0700) < 0)
		return fail(-errno, s, "cannot make the folder private");
	return write_mark(s);
}

static int open_folder(struct store *s, const char *name, mode_t mode, int *out)
{
	if (!s->readonly && mkdirat(s->dirfd, name, mode) < 0 && errno != EEXIST)
		return fail(-errno, s, name);
	*out = openat(s->dirfd, name, DIR_FLAGS);
	return *out < 0 ? fail(-errno, s, name) : 0;
}

static void say_locked(const struct store *s)
{
	char text[32] = "";
	ssize_t n;

	n = pread(s->lock_fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	log_error("%s: the store is mounted already, by process %" PRIdMAX, s->path,
		  strtoimax(text, NULL, 10));
}

/* Many may share a store that nobody can change. */
static int lock_store(const struct store *s, unsigned int wait_ms)
{
	int how = (s->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB;

	while (flock(s->lock_fd, how) < 0) {
		if (errno != EWOULDBLOCK || wait_ms < 20)
			return -errno;
		clock_sleep(20000000);
		wait_ms -= 20;
	}
	return 0;
}

/* For messages only, and a full store is to be mounted as well. */
static void write_pid(const struct store *s)
{
	char pid[32];
	int len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

	if (!s->readonly &&
	    (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, pid, len, 0) != len))
		log_warn("%s: " STORE_LOCK ": cannot write our pid to it: %s", s->path,
			 strerror(errno));
}

static int take_lock(struct store *s, unsigned int wait_ms)
{
	int rc;

	s->lock_fd = openat(s->dirfd, STORE_LOCK,
			    s->readonly ? O_RDONLY | O_CLOEXEC | O_NOFOLLOW
					: O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			    0600);
	if (s->lock_fd < 0) {
		if (s->readonly && errno == ENOENT)
			return 0;
		return fail(-errno, s, STORE_LOCK);
	}
	rc = lock_store(s, wait_ms);
	if (rc < 0) {
		if (rc != -EWOULDBLOCK)
			return fail(rc, s, STORE_LOCK);
		say_locked(s);
		close_fd(&s->lock_fd); /* not ours to write to */
		return -EBUSY;
	}
	write_pid(s);
	return 0;
}

static int empty_tmp(struct store *s)
{
	DIR *d = store_list(s->tmp_fd, ".");
	struct dirent *de;

	if (d == NULL)
		return fail(-errno, s, STORE_TMP);
	while ((de = readdir(d)) != NULL) {
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (unlinkat(s->tmp_fd, de->d_name, 0) < 0)
			log_warn("%s/" STORE_TMP "/%s: cannot remove: %s", s->path,
				 de->d_name, strerror(errno));
		else
			log_info("%s/" STORE_TMP "/%s: half-made, removed", s->path,
				 de->d_name);
	}
	closedir(d);
	return 0;
}

int store_tmp_file(struct store *s, char name[STORE_TMP_NAME_LEN])
{
	static atomic_uint seq;
	int fd;

	if (s->readonly)
		return -EROFS;
	/* The daemon before us may have left some that are in use. */
	do {
		snprintf(name, STORE_TMP_NAME_LEN, "%u", atomic_fetch_add(&seq, 1));
		fd = openat(s->tmp_fd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC,
			    0600);
	} while (fd < 0 && errno == EEXIST);
	return fd < 0 ? -errno : fd;
}

static int rename_new(int from_fd, const char *from, int to_fd, const char *to)
{
	if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* This file system cannot: a link does not replace either. */
	if (linkat(from_fd, from, to_fd, to, 0) < 0 || unlinkat(from_fd, from, 0) < 0)
		return -errno;
	return 0;
}

int store_publish(const struct store *s, const char *tmp_name, const char *path)
{
	return rename_new(s->tmp_fd, tmp_name, s->pools_fd, path);
}

int store_rename(const struct store *s, const char *from, const char *to)
{
	return rename_new(s->pools_fd, from, s->pools_fd, to);
}

void store_folder_of(const char *path, char folder[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	snprintf(folder, PATH_MAX, "%.*s", slash == NULL ? 1 : (int)(slash - path),
		 slash == NULL ? "." : path);
}

const char *store_name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

int store_sync_folder(const struct store *s, const char *path)
{
	char folder[PATH_MAX];
	int fd, rc;

	store_folder_of(path, folder);
	fd = openat(s->pools_fd, folder, DIR_FLAGS);
	if (fd < 0)
		return -errno;
	rc = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* Some file systems say that they can only after looking at real extents. */
static bool probe_reflink(struct store *s)
{
	static const char block[4096] = "x";
	char a[STORE_TMP_NAME_LEN], b[STORE_TMP_NAME_LEN];
	bool ok = false;
	int fa, fb;

	fa = store_tmp_file(s, a);
	if (fa < 0)
		return false;
	fb = store_tmp_file(s, b);
	if (fb >= 0) {
		ok = pwrite(fa, block, sizeof(block), 0) == sizeof(block) &&
		     ioctl(fb, FICLONE, fa) == 0;
		close(fb);
		unlinkat(s->tmp_fd, b, 0);
	}
	close(fa);
	unlinkat(s->tmp_fd, a, 0);
	return ok;
}

static bool is_stacked(int fd)
{
	struct statfs st;

	if (fstatfs(fd, &st) < 0)
		return false;
	return st.f_type == OVERLAYFS_SUPER_MAGIC ||
	       st.f_type == ECRYPTFS_SUPER_MAGIC || st.f_type == FUSE_SUPER_MAGIC;
}

static int look_at_fs(struct store *s)
{
	struct statvfs fs;

	if (fstatvfs(s->dirfd, &fs) < 0)
		return fail(-errno, s, "cannot look at the store");
	if (fs.f_flag & ST_RDONLY)
		s->readonly = true;
	return 0;
}

static int open_dir(struct store *s, const char *path)
{
	if (!s->readonly && mkdir(path, 0700) < 0 && errno != EEXIST &&
	    errno != EROFS) {
		log_error("%s: cannot make the store: %s", path, strerror(errno));
		return -errno;
	}
	if (realpath(path, s->path) == NULL) {
		log_error("%s: %s", path, strerror(errno));
		return -errno;
	}
	s->dirfd = open(s->path, DIR_FLAGS);
	if (s->dirfd < 0)
		return fail(-errno, s, "cannot open the store");
	return look_at_fs(s);
}

static void warn_of_mode(const struct store *s)
{
	struct stat st;

	if (fstat(s->dirfd, &st) == 0 && (st.st_mode & 077) != 0)
		log_warn("%s: the store is open to other users (mode %04o), who can go "
			 "around the permissions of the mount",
			 s->path, st.st_mode & 07777);
}

/* With the lock. */
static int open_parts(struct store *s)
{
	struct stat st;
	int rc;

	rc = open_folder(s, STORE_POOLS, 0755, &s->pools_fd);
	if (rc < 0)
		return rc;
	if (fstat(s->pools_fd, &st) < 0)
		return fail(-errno, s, STORE_POOLS);
	s->dev = st.st_dev;
	s->stacked = is_stacked(s->pools_fd);
	if (s->readonly)
		return 0;
	/* New pools have it from the folder. */
	nocow_set(s->pools_fd, true);
	rc = open_folder(s, STORE_TMP, 0700, &s->tmp_fd);
	if (rc == 0)
		s->reflink = probe_reflink(s);
	return rc;
}

static int open_all(struct store *s, const char *path, unsigned int wait_ms)
{
	int rc = open_dir(s, path);

	if (rc < 0)
		return rc;
	rc = read_mark(s);
	if (rc == -ENOENT)
		rc = make_store(s);
	if (rc == 0)
		rc = take_lock(s, wait_ms);
	if (rc == 0)
		rc = open_parts(s);
	if (rc < 0)
		return rc;
	warn_of_mode(s);
	return s->readonly ? 0 : empty_tmp(s);
}

static const struct store closed = {
	.dirfd = -1,
	.pools_fd = -1,
	.tmp_fd = -1,
	.lock_fd = -1,
};

static int open_store(struct store *s, const char *path, bool readonly,
		      unsigned int wait_ms)
{
	int rc;

	*s = closed;
	s->readonly = readonly;
	rc = open_all(s, path, wait_ms);
	if (rc < 0)
		store_close(s);
	return rc;
}

int store_open(struct store *s, const char *path, unsigned int wait_ms)
{
	return open_store(s, path, false, wait_ms);
}

int store_open_readonly(struct store *s, const char *path)
{
	return open_store(s, path, true, 0);
}

int store_take(struct store *s, const char *path, int dirfd, int lock_fd)
{
	int rc;

	*s = closed;
	s->dirfd = dirfd;
	s->lock_fd = lock_fd;
	if (snprintf(s->path, sizeof(s->path), "%s", path) >= (int)sizeof(s->path))
		rc = -ENAMETOOLONG;
	else
		rc = look_at_fs(s);
	if (rc == 0)
		rc = open_parts(s);
	if (rc < 0) {
		store_close(s);
		return rc;
	}
	write_pid(s);
	return 0;
}

void store_close(struct store *s)
{
	close_fd(&s->tmp_fd);
	close_fd(&s->pools_fd);
	close_fd(&s->dirfd);
	/* Last: the store is another's from here on.  The file stays, so that
	 * nobody can hold a lock on one that was removed. */
	if (s->lock_fd >= 0 && !s->readonly && ftruncate(s->lock_fd, 0) < 0)
		log_debug("%s: " STORE_LOCK ": %s", s->path, strerror(errno));
	close_fd(&s->lock_fd);
}
