/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of calls that name files, with what POSIX and Linux say they come to: errno,
 * modes, owners, sizes, and whose times change.  For a folder of any file system, and for
 * the root of a mount, where some of it is otherwise on purpose: so says the table.
 *
 *   posix-table FOLDER
 *   posix-table -m MOUNT
 *
 * A line for each group of calls, "ok GROUP", or "not ok GROUP: CALL: WHY" for each call
 * that came to something else; "# ..." for the log.  The folder is emptied, and must not
 * be below one that other users cannot search.  As root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Users; bob is in alice's group, too. */
enum user { ROOT, ALICE, BOB };
#define ALICE_ID 61001
#define BOB_ID 61002

/* What is seen at a mount where it is not as elsewhere.  0 is a result. */
#define OK_AT_MOUNT (-1)
/* In calls that take an owner. */
#define SAME (-1L)

struct call {
	const char *name;
	int (*run)(const struct call *c); /* 0 or errno */
	const char *a, *b;                /* names, see expand() */
	long x, y;                        /* what else there is to say */
	enum user as;
	int want;                         /* errno */
	int at_mount;                     /* if not 0: errno there, or OK_AT_MOUNT */
	/* Whose times must be others after it: c, m of `a`; C, M of its folder; or must
	 * not: N of its folder's, n of the mtime of `a`. */
	const char *times;
};

static bool is_mount;
static char name255[256], name256[257], long_path[PATH_MAX + 1];

/* "<255>" and so on: names that are too long to be written down. */
static const char *expand(const char *name)
{
	if (name == NULL)
		return NULL;
	if (strcmp(name, "<255>") == 0)
		return name255;
	if (strcmp(name, "<256>") == 0)
		return name256;
	return strcmp(name, "<path>") == 0 ? long_path : name;
}

static int result(long rc)
{
	return rc < 0 ? errno : 0;
}

/* --- calls ------------------------------------------------------------------- */

static int c_open(const struct call *c)
{
	int fd = open(expand(c->a), (int)c->x, (mode_t)c->y);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int c_mkdir(const struct call *c)
{
	return result(mkdir(expand(c->a), (mode_t)c->y));
}

static int c_rmdir(const struct call *c)
{
	return result(rmdir(expand(c->a)));
}

static int c_unlink(const struct call *c)
{
	return result(unlink(expand(c->a)));
}

static int c_rename(const struct call *c)
{
	return result(renameat2(AT_FDCWD, expand(c->a), AT_FDCWD, expand(c->b),
				(unsigned)c->x));
}

static int c_link(const struct call *c)
{
	return result(link(expand(c->a), expand(c->b)));
}

static int c_symlink(const struct call *c)
{
	return result(symlink(c->b, expand(c->a)));
}

static int c_mknod(const struct call *c)
{
	return result(mknod(expand(c->a), (mode_t)c->y, (dev_t)c->x));
}

static int c_chmod(const struct call *c)
{
	return result(chmod(expand(c->a), (mode_t)c->y));
}

static int c_chown(const struct call *c)
{
	return result(chown(expand(c->a), (uid_t)c->x, (gid_t)c->y));
}

static int c_truncate(const struct call *c)
{
	return result(truncate(expand(c->a), c->x));
}

/* By a descriptor that was opened with y. */
static int c_ftruncate(const struct call *c)
{
	int fd = open(expand(c->a), (int)c->y), err;

	if (fd < 0)
		return errno;
	err = result(ftruncate(fd, c->x));
	close(fd);
	return err;
}

static int c_fallocate(const struct call *c)
{
	int fd = open(expand(c->a), O_RDWR), err;

	if (fd < 0)
		return errno;
	err = result(fallocate(fd, (int)c->y, 0, c->x));
	close(fd);
	return err;
}

/* x bytes at the beginning. */
static int c_write(const struct call *c)
{
	static const char bytes[4096];
	int fd = open(expand(c->a), O_WRONLY), err;

	if (fd < 0)
		return errno;
	err = result(write(fd, bytes, c->x));
	close(fd);
	return err;
}

static int c_read(const struct call *c)
{
	char bytes[16];
	int fd = open(expand(c->a), O_RDONLY), err;

	if (fd < 0)
		return errno;
	err = result(read(fd, bytes, sizeof(bytes)));
	close(fd);
	return err;
}

/* Both times: x is the nanoseconds, y the seconds. */
static int c_utimens(const struct call *c)
{
	struct timespec ts[2] = { { .tv_sec = c->y, .tv_nsec = c->x },
				  { .tv_sec = c->y, .tv_nsec = c->x } };

	return result(utimensat(AT_FDCWD, expand(c->a), ts, 0));
}

static int c_access(const struct call *c)
{
	return result(faccessat(AT_FDCWD, expand(c->a), (int)c->y, AT_EACCESS));
}

static int c_setxattr(const struct call *c)
{
	return result(setxattr(expand(c->a), c->b, "value", 5, (int)c->x));
}

static int c_getxattr(const struct call *c)
{
	char value[16];

	return result(getxattr(expand(c->a), c->b, value, sizeof(value)));
}

static int c_removexattr(const struct call *c)
{
	return result(removexattr(expand(c->a), c->b));
}

/* --- what there is now: 0, or what could not be a result of a call -------------- */

static int differs(const char *what, intmax_t is)
{
	printf("# %s is %#jo (%jd)\n", what, is, is);
	return EDOM;
}

static int is_mode(const struct call *c)
{
	struct stat st;

	if (lstat(expand(c->a), &st) < 0)
		return errno;
	return (st.st_mode & 07777) == c->y ? 0
					    : differs("the mode", st.st_mode & 07777);
}

static int is_owner(const struct call *c)
{
	struct stat st;

	if (lstat(expand(c->a), &st) < 0)
		return errno;
	if (st.st_uid != (uid_t)c->x)
		return differs("the owner", st.st_uid);
	return st.st_gid == (gid_t)c->y ? 0 : differs("the group", st.st_gid);
}

static int is_size(const struct call *c)
{
	struct stat st;

	if (lstat(expand(c->a), &st) < 0)
		return errno;
	return st.st_size == c->x ? 0 : differs("the size", st.st_size);
}

static int is_nlink(const struct call *c)
{
	struct stat st;
	long want = is_mount && c->y != 0 ? c->y : c->x;

	if (lstat(expand(c->a), &st) < 0)
		return errno;
	return (long)st.st_nlink == want ? 0 : differs("the link count", st.st_nlink);
}

static int is_mtime(const struct call *c)
{
	struct stat st;

	if (lstat(expand(c->a), &st) < 0)
		return errno;
	if (st.st_mtim.tv_sec != c->y)
		return differs("the mtime", st.st_mtim.tv_sec);
	return st.st_mtim.tv_nsec == c->x ? 0 : differs("its ns", st.st_mtim.tv_nsec);
}

/* --- the table ----------------------------------------------------------------- */

#define OPEN .name = "open", .run = c_open
#define MKDIR .name = "mkdir", .run = c_mkdir
#define RMDIR .name = "rmdir", .run = c_rmdir
#define UNLINK .name = "unlink", .run = c_unlink
#define RENAME .name = "rename", .run = c_rename
#define LINK .name = "link", .run = c_link
#define SYMLINK .name = "symlink", .run = c_symlink
#define MKNOD .name = "mknod", .run = c_mknod
#define CHMOD .name = "chmod", .run = c_chmod
#define CHOWN .name = "chown", .run = c_chown
#define TRUNCATE .name = "truncate", .run = c_truncate
#define FTRUNCATE .name = "ftruncate", .run = c_ftruncate
#define FALLOCATE .name = "fallocate", .run = c_fallocate
#define WRITE .name = "write", .run = c_write
#define READ .name = "read", .run = c_read
#define UTIMENS .name = "utimensat", .run = c_utimens
#define ACCESS .name = "access", .run = c_access
#define SETXATTR .name = "setxattr", .run = c_setxattr
#define GETXATTR .name = "getxattr", .run = c_getxattr
#define REMOVEXATTR .name = "removexattr", .run = c_removexattr
#define MODE .name = "its mode", .run = is_mode
#define OWNER .name = "its owner", .run = is_owner
#define SIZE .name = "its size", .run = is_size
#define NLINK .name = "its link count", .run = is_nlink
#define MTIME .name = "its mtime", .run = is_mtime

#define NEW .x = O_CREAT | O_EXCL | O_RDWR
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static const struct call opens[] = {
	{ OPEN, "f", NEW, .y = 0666, .times = "CM" },
	{ MODE, "f", .y = 0644 },
	{ OWNER, "f", .x = 0, .y = 0 },
	{ OPEN, "g", NEW, .y = 07777 },
	{ MODE, "g", .y = 07755 },
	{ OPEN, "none", .x = O_RDONLY, .want = ENOENT },
	{ OPEN, "", .x = O_RDONLY, .want = ENOENT },
	{ OPEN, "f", NEW, .want = EEXIST },
	{ OPEN, "f", .x = O_CREAT | O_RDWR, .y = 0600, .times = "N" },
	{ OPEN, "f/", .x = O_RDONLY, .want = ENOTDIR },
	{ OPEN, "f/x", .x = O_RDONLY, .want = ENOTDIR },
	{ OPEN, "f/x", NEW, .want = ENOTDIR },
	{ OPEN, "none/x", NEW, .want = ENOENT },
	{ OPEN, "new/", NEW, .want = EISDIR },
	{ OPEN, ".", .x = O_WRONLY, .want = EISDIR },
	{ OPEN, ".", .x = O_RDONLY | O_DIRECTORY },
	{ OPEN, "f", .x = O_RDONLY | O_DIRECTORY, .want = ENOTDIR },
	{ OPEN, "f", .x = O_RDONLY | O_NOFOLLOW },
	{ OPEN, "<255>", NEW, .y = 0644 },
	{ OPEN, "<255>", .x = O_RDONLY },
	{ UNLINK, "<255>" },
	{ OPEN, "<256>", NEW, .want = ENAMETOOLONG },
	{ OPEN, "<256>", .x = O_RDONLY, .want = ENAMETOOLONG },
	{ OPEN, "<path>", .x = O_RDONLY, .want = ENAMETOOLONG },
	{ WRITE, "f", .x = 100, .times = "cmN" },
	{ READ, "f", .times = "nN" },
	{ OPEN, "f", .x = O_WRONLY | O_TRUNC, .times = "cmN" },
	{ SIZE, "f", .x = 0 },
	{ OPEN, ".", .x = O_TMPFILE | O_RDWR, .y = 0600 },
	{ OPEN, "x@y", NEW, .y = 0644, .at_mount = EPERM },
	{ 0 }
};

static const struct call permissions[] = {
	{ OPEN, "f", NEW, .y = 0600, .as = ALICE },
	{ OWNER, "f", .x = ALICE_ID, .y = ALICE_ID },
	{ OPEN, "f", .x = O_RDWR, .as = ALICE },
	{ OPEN, "f", .x = O_RDONLY, .as = BOB, .want = EACCES },
	{ OPEN, "f", .x = O_RDWR },
	{ CHMOD, "f", .y = 0640, .as = ALICE },
	{ OPEN, "f", .x = O_RDONLY, .as = BOB },
	{ OPEN, "f", .x = O_WRONLY, .as = BOB, .want = EACCES },
	{ OPEN, "f", .x = O_RDONLY | O_TRUNC, .as = BOB, .want = EACCES },
	{ TRUNCATE, "f", .x = 1, .as = BOB, .want = EACCES },
	{ ACCESS, "f", .y = R_OK, .as = BOB },
	{ ACCESS, "f", .y = W_OK, .as = BOB, .want = EACCES },
	{ ACCESS, "f", .y = X_OK, .as = BOB, .want = EACCES },
	{ ACCESS, "f", .y = X_OK, .want = EACCES },
	{ ACCESS, "f", .y = R_OK | W_OK },
	{ CHMOD, "f", .y = 0046, .as = ALICE },
	{ OPEN, "f", .x = O_RDONLY, .as = ALICE, .want = EACCES },
	{ OPEN, "f", .x = O_RDONLY, .as = BOB },
	{ OPEN, "f", .x = O_RDWR, .as = BOB, .want = EACCES },
	{ CHMOD, "f", .y = 0602, .as = ALICE },
	{ CHOWN, "f", .x = ALICE_ID, .y = 0 },
	{ OPEN, "f", .x = O_WRONLY, .as = BOB },
	{ OPEN, "f", .x = O_RDWR, .as = BOB, .want = EACCES },
	/* Whoever made it may do what its mode says others may not. */
	{ CHMOD, ".", .y = 0755 },
	{ OPEN, "g", NEW, .as = ALICE, .want = EACCES },
	{ UNLINK, "f", .as = ALICE, .want = EACCES },
	{ RENAME, "f", "g", .as = ALICE, .want = EACCES },
	{ CHMOD, ".", .y = 0766 },
	{ OPEN, "f", .x = O_RDONLY, .as = ALICE, .want = EACCES },
	{ ACCESS, "f", .y = F_OK, .as = ALICE, .want = EACCES },
	{ 0 }
};

static const struct call unlinks[] = {
	{ OPEN, "f", NEW, .y = 0644 },
	{ UNLINK, "none", .want = ENOENT },
	{ UNLINK, "f/", .want = ENOTDIR },
	{ UNLINK, "f/x", .want = ENOTDIR },
	{ UNLINK, ".", .want = EISDIR },
	{ UNLINK, "<256>", .want = ENAMETOOLONG },
	{ UNLINK, "<path>", .want = ENAMETOOLONG },
	{ UNLINK, "f", .times = "CM" },
	{ UNLINK, "f", .want = ENOENT },
	{ OPEN, "f", NEW, .y = 0644 },
	{ UNLINK, "f" },
	{ 0 }
};

/* In a folder with the sticky bit only the owners of files, or of the folder. */
static const struct call sticky[] = {
	{ CHMOD, ".", .y = 01777 },
	{ OPEN, "f", NEW, .y = 0666, .as = ALICE },
	{ OPEN, "g", NEW, .y = 0666, .as = BOB },
	{ UNLINK, "f", .as = BOB, .want = EPERM },
	{ RENAME, "f", "h", .as = BOB, .want = EPERM },
	{ RENAME, "g", "f", .as = BOB, .want = EPERM },
	{ RENAME, "g", "f", .x = RENAME_EXCHANGE, .as = BOB, .want = EPERM },
	{ RENAME, "f", "h", .as = ALICE },
	{ RENAME, "g", "f", .as = BOB },
	{ UNLINK, "h", .as = ALICE },
	{ CHOWN, ".", .x = ALICE_ID, .y = ALICE_ID },
	{ UNLINK, "f", .as = ALICE },
	{ CHOWN, ".", .x = 0, .y = 0 },
	{ 0 }
};

static const struct call renames[] = {
	{ OPEN, "f", NEW, .y = 0644 },
	{ WRITE, "f", .x = 5 },
	{ RENAME, "none", "g", .want = ENOENT },
	{ RENAME, "f", "none/g", .want = ENOENT },
	{ RENAME, "f", "f/g", .want = ENOTDIR },
	{ RENAME, "f", "<256>", .want = ENAMETOOLONG },
	{ RENAME, "<256>", "f", .want = ENAMETOOLONG },
	{ RENAME, "f", "<path>", .want = ENAMETOOLONG },
	{ RENAME, "f", "f", .times = "N" },
	{ RENAME, "f", "g", .times = "CM" },
	{ RENAME, "g", "f" },
	{ OPEN, "g", NEW, .y = 0600 },
	{ RENAME, "f", "g", .x = RENAME_NOREPLACE, .want = EEXIST },
	{ RENAME, "f", "none", .x = RENAME_EXCHANGE, .want = ENOENT },
	{ RENAME, "f", "g", .x = RENAME_EXCHANGE | RENAME_NOREPLACE, .want = EINVAL },
	{ RENAME, "f", "g", .x = RENAME_EXCHANGE, .times = "cCM" },
	{ SIZE, "g", .x = 5 },
	{ MODE, "f", .y = 0600 },
	{ RENAME, "f", "g" },
	{ SIZE, "g", .x = 0 },
	{ OPEN, "f", .x = O_RDONLY, .want = ENOENT },
	{ RENAME, "g", "h", .x = RENAME_NOREPLACE },
	{ RENAME, "h", "h@t", .at_mount = EPERM },
	{ RENAME, ".", "x", .want = EBUSY },
	{ 0 }
};

static const struct call truncates[] = {
	{ OPEN, "f", NEW, .y = 0644 },
	{ TRUNCATE, "f", .x = 10000, .times = "cmN" },
	{ SIZE, "f", .x = 10000 },
	{ TRUNCATE, "f", .x = 10, .times = "cm" },
	{ SIZE, "f", .x = 10 },
	{ TRUNCATE, "f", .x = 10, .times = "cm" },
	{ FTRUNCATE, "f", .x = 20, .y = O_RDWR, .times = "cm" },
	{ SIZE, "f", .x = 20 },
	{ FTRUNCATE, "f", .x = 20, .y = O_RDONLY, .want = EINVAL },
	{ TRUNCATE, "f", .x = -1, .want = EINVAL },
	{ FTRUNCATE, "f", .x = -1, .y = O_RDWR, .want = EINVAL },
	{ TRUNCATE, "f", .x = LONG_MAX, .want = EFBIG },
	{ TRUNCATE, "none", .x = 0, .want = ENOENT },
	{ TRUNCATE, "f/x", .x = 0, .want = ENOTDIR },
	{ TRUNCATE, ".", .x = 0, .want = EISDIR },
	{ TRUNCATE, "<256>", .x = 0, .want = ENAMETOOLONG },
	{ FALLOCATE, "f", .x = 8192, .times = "cm" },
	{ SIZE, "f", .x = 8192 },
	{ FALLOCATE, "f", .x = 16384, .y = FALLOC_FL_KEEP_SIZE, .times = "c" },
	{ SIZE, "f", .x = 8192 },
	{ FALLOCATE, "f", .x = 4096, .y = PUNCH, .times = "cm" },
	{ SIZE, "f", .x = 8192 },
	{ FALLOCATE, "f", .x = 0, .want = EINVAL },
	{ FALLOCATE, "f", .x = -1, .want = EINVAL },
	{ FALLOCATE, "f", .x = 1, .y = FALLOC_FL_PUNCH_HOLE, .want = EOPNOTSUPP },
	/* A file that nobody may write to can be written by who has just made it. */
	{ OPEN, "g", NEW, .y = 0444, .as = ALICE },
	{ TRUNCATE, "g", .x = 1, .as = ALICE, .want = EACCES },
	{ TRUNCATE, "g", .x = 1 },
	{ 0 }
};

static const struct call chmods[] = {
	{ OPEN, "f", NEW, .y = 0644, .as = ALICE },
	{ CHMOD, "f", .y = 0, .as = ALICE, .times = "cnN" },
	{ MODE, "f", .y = 0 },
	{ CHMOD, "f", .y = 0777, .as = BOB, .want = EPERM },
	{ CHMOD, "f", .y = 07777, .as = ALICE },
	{ MODE, "f", .y = 07777 },
	{ CHMOD, "none", .want = ENOENT },
	{ CHMOD, "f/x", .want = ENOTDIR },
	{ CHMOD, "<256>", .want = ENAMETOOLONG },
	/* Set-group-ID is for those in the group. */
	{ CHOWN, "f", .x = ALICE_ID, .y = BOB_ID },
	{ CHMOD, "f", .y = 02755, .as = ALICE },
	{ MODE, "f", .y = 0755 },
	{ CHMOD, "f", .y = 02755 },
	{ MODE, "f", .y = 02755 },
	/* Writing takes the set-ID bits, unless root does. */
	{ CHMOD, "f", .y = 06777 },
	{ WRITE, "f", .x = 1 },
	{ MODE, "f", .y = 06777 },
	{ WRITE, "f", .x = 1, .as = BOB },
	{ MODE, "f", .y = 0777 },
	{ CHMOD, "f", .y = 06777 },
	{ TRUNCATE, "f", .x = 100, .as = BOB },
	{ MODE, "f", .y = 0777 },
	{ CHMOD, "f", .y = 04777 },
	{ OPEN, "f", .x = O_WRONLY | O_TRUNC, .as = BOB },
	{ MODE, "f", .y = 0777 },
	{ CHMOD, "f", .y = 04777 },
	{ FALLOCATE, "f", .x = 4096, .as = BOB },
	{ MODE, "f", .y = 0777 },
	{ 0 }
};

static const struct call chowns[] = {
	{ OPEN, "f", NEW, .y = 0644, .as = ALICE },
	{ CHOWN, "f", .x = BOB_ID, .y = SAME, .as = ALICE, .want = EPERM },
	{ CHOWN, "f", .x = SAME, .y = BOB_ID, .as = ALICE, .want = EPERM },
	{ CHOWN, "f", .x = ALICE_ID, .y = ALICE_ID, .as = ALICE, .times = "cnN" },
	{ CHOWN, "f", .x = BOB_ID, .y = BOB_ID, .as = BOB, .want = EPERM },
	{ CHOWN, "f", .x = BOB_ID, .y = BOB_ID, .times = "cnN" },
	{ OWNER, "f", .x = BOB_ID, .y = BOB_ID },
	{ CHOWN, "f", .x = SAME, .y = ALICE_ID, .as = BOB },
	{ OWNER, "f", .x = BOB_ID, .y = ALICE_ID },
	{ CHOWN, "f", .x = SAME, .y = SAME, .as = BOB },
	{ CHOWN, "none", .want = ENOENT },
	{ CHOWN, "f/x", .want = ENOTDIR },
	{ CHOWN, "<256>", .want = ENAMETOOLONG },
	{ CHMOD, "f", .y = 06755 },
	{ CHOWN, "f", .x = SAME, .y = BOB_ID, .as = BOB },
	{ MODE, "f", .y = 0755 },
	{ CHMOD, "f", .y = 06755 },
	{ CHOWN, "f", .x = ALICE_ID, .y = SAME },
	{ MODE, "f", .y = 0755 },
	/* Without execution by the group it is no set-group-ID. */
	{ CHMOD, "f", .y = 02644 },
	{ CHOWN, "f", .x = BOB_ID, .y = SAME },
	{ MODE, "f", .y = 02644 },
	{ 0 }
};

static const struct call utimes[] = {
	{ OPEN, "f", NEW, .y = 0666, .as = ALICE },
	{ CHMOD, "f", .y = 0664, .as = ALICE },
	{ UTIMENS, "f", .x = 123456789, .y = 1000000000, .as = ALICE, .times = "cN" },
	{ MTIME, "f", .x = 123456789, .y = 1000000000 },
	{ UTIMENS, "f", .x = 0, .y = 0 },
	{ MTIME, "f", .x = 0, .y = 0 },
	{ UTIMENS, "f", .x = 5, .y = -100 },
	{ MTIME, "f", .x = 5, .y = -100 },
	{ UTIMENS, "f", .x = UTIME_OMIT, .times = "nN" },
	{ MTIME, "f", .x = 5, .y = -100 },
	{ UTIMENS, "f", .x = 1000000000, .y = 0, .want = EINVAL },
	{ UTIMENS, "f", .x = -1, .y = 0, .want = EINVAL },
	{ UTIMENS, "f", .x = 1, .y = 1, .as = BOB, .want = EPERM },
	{ UTIMENS, "f", .x = UTIME_NOW, .as = BOB, .times = "cm" },
	{ CHMOD, "f", .y = 0644, .as = ALICE },
	{ UTIMENS, "f", .x = UTIME_NOW, .as = BOB, .want = EACCES },
	{ UTIMENS, "none", .want = ENOENT },
	{ UTIMENS, "f/x", .want = ENOTDIR },
	{ 0 }
};

static const struct call folders[] = {
	{ MKDIR, "d", .y = 0777, .times = "CM" },
	{ MODE, "d", .y = 0755 },
	{ NLINK, "d", .x = 2 },
	{ MKDIR, "d", .want = EEXIST },
	{ MKDIR, ".", .want = EEXIST },
	{ MKDIR, "none/x", .want = ENOENT },
	{ OPEN, "f", NEW, .y = 0644 },
	{ MKDIR, "f", .want = EEXIST },
	{ MKDIR, "f/x", .want = ENOTDIR },
	{ MKDIR, "<256>", .want = ENAMETOOLONG },
	{ MKDIR, "<255>", .y = 0700 },
	{ RMDIR, "<255>" },
	{ MKDIR, "e", .y = 0700, .as = ALICE },
	{ OWNER, "e", .x = ALICE_ID, .y = ALICE_ID },
	{ MKDIR, "e/x", .as = BOB, .want = EACCES },
	{ OPEN, "e/x", .x = O_RDONLY, .as = BOB, .want = EACCES },
	{ MKDIR, "e/x", .y = 0755, .as = ALICE, .times = "CM" },
	{ NLINK, "e", .x = 3 },
	{ RMDIR, "e", .want = ENOTEMPTY },
	{ RMDIR, "f", .want = ENOTDIR },
	{ RMDIR, "none", .want = ENOENT },
	{ RMDIR, ".", .want = EINVAL },
	{ RMDIR, "e/..", .want = ENOTEMPTY },
	{ RMDIR, "e/x", .as = BOB, .want = EACCES },
	{ RMDIR, "e/x", .as = ALICE, .times = "CM" },
	{ NLINK, "e", .x = 2 },
	{ UNLINK, "e", .want = EISDIR },
	{ OPEN, "e", .x = O_WRONLY, .want = EISDIR },
	{ OPEN, "e", NEW, .want = EEXIST },
	{ OPEN, "e/f", NEW, .y = 0644, .as = ALICE, .times = "CM" },
	{ RMDIR, "e", .want = ENOTEMPTY },
	{ TRUNCATE, "e", .x = 0, .want = EISDIR },
	{ LINK, "e", "e2", .want = EPERM },
	{ LINK, "e", "e@t", .want = EPERM },
	{ MKDIR, "x@y", .y = 0755, .at_mount = EPERM },
	{ 0 }
};

static const struct call moves[] = {
	{ MKDIR, "d", .y = 0755 },
	{ MKDIR, "e", .y = 0755 },
	{ MKDIR, "e/sub", .y = 0755 },
	{ OPEN, "f", NEW, .y = 0644 },
	{ RENAME, "f", "d", .want = EISDIR },
	{ RENAME, "d", "f", .want = ENOTDIR },
	{ RENAME, "d", "d/x", .want = EINVAL },
	{ RENAME, "e", "e/sub/x", .want = EINVAL },
	{ RENAME, "e/sub", "e", .want = ENOTEMPTY },
	{ RENAME, "d", "e", .want = ENOTEMPTY },
	{ RENAME, "e", "d", .times = "CM" },
	{ MODE, "d/sub", .y = 0755 },
	{ RENAME, "f", "d/f", .times = "CM" },
	{ RENAME, "d/f", "d/sub/f", .times = "CM" },
	{ RENAME, "d/sub", "sub" },
	{ SIZE, "sub/f", .x = 0 },
	{ RENAME, "sub", "d", .x = RENAME_EXCHANGE },
	{ SIZE, "d/f", .x = 0 },
	{ RENAME, "d", "d" },
	{ RENAME, "d/", "d3/" },
	{ RENAME, "d3/f", "f/", .want = ENOTDIR },
	/* Moving a folder changes it: its "..". */
	{ MKDIR, "a", .y = 0777, .as = ALICE },
	{ MKDIR, "b", .y = 0755, .as = BOB },
	{ CHMOD, "a", .y = 0777, .as = ALICE },
	{ CHMOD, "b", .y = 0777, .as = BOB },
	{ MKDIR, "a/x", .y = 0755, .as = ALICE },
	{ RENAME, "a/x", "b/x", .as = BOB, .want = EACCES },
	{ RENAME, "a/x", "a/y", .as = BOB },
	{ CHMOD, "a", .y = 01777, .as = ALICE },
	{ RENAME, "a/y", "a/z", .as = BOB, .want = EPERM },
	{ RMDIR, "a/y", .as = BOB, .want = EPERM },
	{ 0 }
};

/* Set-group-ID of a folder: what is made in it has its group. */
static const struct call groups[] = {
	{ CHMOD, ".", .y = 02777 },
	{ CHOWN, ".", .x = 0, .y = BOB_ID },
	{ CHMOD, ".", .y = 02777 },
	{ OPEN, "f", NEW, .y = 0644, .as = ALICE },
	{ OWNER, "f", .x = ALICE_ID, .y = BOB_ID },
	/* Of a file that would run as a group that its maker is not in. */
	{ OPEN, "g", NEW, .y = 02755, .as = ALICE },
	{ MODE, "g", .y = 0755 },
	{ OPEN, "h", NEW, .y = 02755, .as = BOB },
	{ MODE, "h", .y = 02755 },
	{ CHOWN, ".", .x = 0, .y = 0 },
	{ 0 }
};

static const struct call folder_groups[] = {
	{ CHOWN, ".", .x = 0, .y = BOB_ID },
	{ CHMOD, ".", .y = 02777 },
	{ MKDIR, "d", .y = 0755, .as = ALICE },
	{ OWNER, "d", .x = ALICE_ID, .y = BOB_ID },
	{ MODE, "d", .y = 02755 },
	{ OPEN, "d/f", NEW, .y = 0644, .as = ALICE },
	{ OWNER, "d/f", .x = ALICE_ID, .y = BOB_ID },
	{ CHOWN, ".", .x = 0, .y = 0 },
	{ 0 }
};

static const struct call links[] = {
	{ OPEN, "f", NEW, .y = 0644 },
	{ LINK, "none", "f@t", .want = ENOENT },
	{ LINK, "f", "f@t" },
	{ NLINK, "f", .x = 2, .y = 1 },
	{ LINK, "f", "f@t", .want = EEXIST },
	{ LINK, "f", "f@t/x", .want = ENOTDIR },
	{ LINK, "f", "<256>", .want = ENAMETOOLONG },
	{ LINK, ".", "x", .want = EPERM },
	{ LINK, "f", "g", .at_mount = EPERM },
	{ LINK, "f", "g@t", .at_mount = EPERM },
	{ LINK, "f", "f@", .at_mount = EINVAL },
	{ LINK, "f@t", "f@u", .at_mount = EPERM },
	{ OPEN, "f@t", .x = O_WRONLY, .at_mount = EROFS },
	{ OPEN, "f@t", .x = O_RDONLY | O_TRUNC, .at_mount = EROFS },
	{ OPEN, "f@t", .x = O_RDONLY },
	{ CHMOD, "f@t", .y = 0666, .at_mount = EROFS },
	{ CHOWN, "f@t", .x = ALICE_ID, .y = SAME, .at_mount = EROFS },
	{ TRUNCATE, "f@t", .x = 9, .at_mount = EROFS },
	{ UTIMENS, "f@t", .x = 0, .y = 0, .at_mount = EROFS },
	{ SETXATTR, "f@t", "user.a", .at_mount = EROFS },
	{ RENAME, "f@t", "f@v", .times = "CM" },
	{ RENAME, "f@v", "other", .at_mount = EPERM },
	{ 0 }
};

static const struct call specials[] = {
	{ OPEN, "f", NEW, .y = 0644 },
	{ SYMLINK, "link", "f", .at_mount = EPERM },
	{ SYMLINK, "f", "x", .want = EEXIST },
	{ SYMLINK, "none/x", "x", .want = ENOENT },
	{ MKNOD, "fifo", .y = S_IFIFO | 0644, .at_mount = EPERM },
	{ MKNOD, "socket", .y = S_IFSOCK | 0644, .at_mount = EPERM },
	{ MKNOD, "null", .x = 259, .y = S_IFCHR | 0644, .at_mount = EPERM },
	{ MKNOD, "null2", .x = 259, .y = S_IFCHR | 0644, .as = ALICE, .want = EPERM },
	{ MKNOD, "g", .y = S_IFREG | 0640, .times = "CM" },
	{ MODE, "g", .y = 0640 },
	{ MKNOD, "f", .y = S_IFREG | 0640, .want = EEXIST },
	{ MKNOD, "h", .y = 0604 },
	{ MODE, "h", .y = 0604 },
	{ 0 }
};

static const struct call xattrs[] = {
	{ OPEN, "f", NEW, .y = 0640, .as = ALICE },
	{ CHOWN, "f", .x = ALICE_ID, .y = 0 },
	{ GETXATTR, "f", "user.a", .want = ENODATA },
	{ REMOVEXATTR, "f", "user.a", .want = ENODATA },
	{ SETXATTR, "f", "user.a", .x = XATTR_REPLACE, .want = ENODATA },
	{ SETXATTR, "f", "user.a", .as = ALICE, .times = "cnN" },
	{ SETXATTR, "f", "user.a", .x = XATTR_CREATE, .want = EEXIST },
	{ GETXATTR, "f", "user.a", .as = ALICE },
	{ GETXATTR, "f", "user.a", .as = BOB, .want = EACCES },
	{ SETXATTR, "f", "user.b", .as = BOB, .want = EACCES },
	{ REMOVEXATTR, "f", "user.a", .as = BOB, .want = EACCES },
	{ SETXATTR, "f", "trusted.a", .as = ALICE, .want = EPERM },
	{ GETXATTR, "f", "trusted.a", .as = ALICE, .want = ENODATA },
	{ SETXATTR, "f", "trusted.a" },
	{ SETXATTR, "f", "nowhere.a", .want = EOPNOTSUPP },
	{ SETXATTR, "none", "user.a", .want = ENOENT },
	{ REMOVEXATTR, "f", "user.a", .as = ALICE, .times = "cnN" },
	{ 0 }
};

static const struct part {
	const char *name;
	const struct call *calls;
} table[] = {
	{ "open", opens },
	{ "permissions", permissions },
	{ "unlink", unlinks },
	{ "sticky bit", sticky },
	{ "rename", renames },
	{ "truncate, fallocate", truncates },
	{ "chmod", chmods },
	{ "chown", chowns },
	{ "utimensat", utimes },
	{ "mkdir, rmdir", folders },
	{ "rename of folders", moves },
	{ "set-group-ID of a folder", groups },
	{ "set-group-ID of a folder, for folders", folder_groups },
	{ "link", links },
	{ "special files", specials },
	{ "extended attributes", xattrs },
};

/* --- running it ------------------------------------------------------------------ */

static void become(enum user user)
{
	static const gid_t groups_of_bob[] = { ALICE_ID };
	static const uid_t ids[] = { 0, ALICE_ID, BOB_ID };

	/* Only root may change. */
	if (seteuid(0) < 0 || setegid(ids[user]) < 0 ||
	    setgroups(user == BOB, groups_of_bob) < 0 || seteuid(ids[user]) < 0) {
		perror("posix-table: becoming another user");
		exit(2);
	}
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

struct times {
	struct stat file, folder;
};

/* All zeroes of what is not there. */
static void get_times(const struct call *c, struct times *t)
{
	const char *path = expand(c->a), *slash = strrchr(path, '/');
	char folder[PATH_MAX] = ".";

	memset(t, 0, sizeof(*t));
	lstat(path, &t->file);
	if (slash != NULL)
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	stat(folder, &t->folder);
}

/* The first of c->times that is not so, or 0. */
static char wrong_time(const struct call *c, const struct times *was)
{
	struct times now;

	get_times(c, &now);
	for (const char *t = c->times; *t != '\0'; t++) {
		const struct stat *a = strchr("CMN", *t) ? &was->folder : &was->file;
		const struct stat *b = strchr("CMN", *t) ? &now.folder : &now.file;
		bool same = strchr("cC", *t) ? same_time(&a->st_ctim, &b->st_ctim)
					     : same_time(&a->st_mtim, &b->st_mtim);

		if (same != (*t == 'n' || *t == 'N'))
			return *t;
	}
	return 0;
}

static int wanted(const struct call *c)
{
	if (!is_mount || c->at_mount == 0)
		return c->want;
	return c->at_mount == OK_AT_MOUNT ? 0 : c->at_mount;
}

static bool run_call(const struct part *p, const struct call *c)
{
	struct times was;
	char wrong = 0;
	int err;

	if (c->times != NULL) {
		get_times(c, &was);
		usleep(20000); /* clocks of file systems tick slowly */
	}
	become(c->as);
	err = c->run(c);
	become(ROOT);
	if (err == wanted(c) && c->times != NULL)
		wrong = wrong_time(c, &was);
	if (err == wanted(c) && wrong == 0)
		return true;
	printf("not ok %s: %td: %s %s %s %#lo %#lo by user %d: ", p->name,
	       c - p->calls + 1, c->name, c->a, c->b != NULL ? c->b : "", c->x, c->y,
	       (int)c->as);
	if (wrong != 0)
		printf("time '%c'\n", wrong);
	else
		printf("%s, not %s\n", strerrorname_np(err), strerrorname_np(wanted(c)));
	return false;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	return at->level == 0 ? 0 : remove(path);
}

static void empty_folder(void)
{
	if (nftw(".", remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0 ||
	    chmod(".", 0777) < 0) {
		perror("posix-table: emptying the folder");
		exit(2);
	}
}

static bool run_part(const struct part *p)
{
	bool good = true;

	empty_folder();
	for (const struct call *c = p->calls; c->run != NULL; c++)
		good &= run_call(p, c);
	if (good)
		printf("ok %s\n", p->name);
	return good;
}

int main(int argc, char **argv)
{
	bool good = true;

	is_mount = argc == 3 && strcmp(argv[1], "-m") == 0;
	if (argc != 2 && !is_mount)
		return 2;
	if (chdir(argv[argc - 1]) < 0) {
		perror(argv[argc - 1]);
		return 2;
	}
	umask(022);
	memset(name255, 'n', 255);
	memset(name256, 'n', 256);
	memset(long_path, '/', PATH_MAX);
	for (size_t i = 1; i < PATH_MAX; i += 2)
		long_path[i - 1] = '.';
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		good &= run_part(&table[i]);
	empty_folder();
	return good ? 0 : 1;
}
