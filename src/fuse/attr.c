/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes.  The kernel has checked the permissions by the time we are asked
 * (default_permissions); what it cannot know is that snapshots do not change.
 *
 * Files that are not open are reached by an O_PATH descriptor of the moment:
 * its name in /proc goes where the calls that want a path are to go.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fuse/attr.h"
#include "fuse/fmfs.h"

#define PROC_PATH_LEN 32

static void proc_path(char path[PROC_PATH_LEN], int fd)
{
	snprintf(path, PROC_PATH_LEN, "/proc/self/fd/%d", fd);
}

/* A descriptor to change the attributes of the node by, or -errno. */
static int open_to_change(struct fmfs *f, struct node *n)
{
	if (n == NULL)
		return -ESTALE;
	if (node_is_snapshot(&f->nodes, n))
		return -EROFS;
	return node_open(&f->nodes, n, O_PATH);
}

static int open_to_look(struct fmfs *f, struct node *n)
{
	return n == NULL ? -ESTALE : node_open(&f->nodes, n, O_PATH);
}

/* --- stat ---------------------------------------------------------------- */

void fmfs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	struct node *n = fmfs_node(req, ino);
	struct stat st;
	int rc;

	(void)fi;
	rc = n == NULL ? -ESTALE : node_stat(&f->nodes, n, &st);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_attr(req, &st, f->attr_timeout);
}

static bool has_suid(mode_t mode)
{
	/* Without S_IXGRP, S_ISGID once meant mandatory locking. */
	return S_ISREG(mode) && ((mode & S_ISUID) ||
				 (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP));
}

void attr_drop_suid(fuse_req_t req, struct node *n, int fd)
{
	struct stat st;

	if (fuse_req_ctx(req)->uid == 0 || fstat(fd, &st) < 0 || !has_suid(st.st_mode))
		return;
	if (fchmod(fd, st.st_mode & 07777 & ~(S_ISUID | S_ISGID)) == 0)
		fuse_lowlevel_notify_inval_inode(fmfs_of(req)->session, n->id, -1, 0);
}

static int set_owner(int fd, const struct stat *attr, int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int set_size(const char *path, off_t size, bool kill_suid)
{
	struct stat st;

	if (truncate(path, size) < 0)
		return -errno;
	if (kill_suid && stat(path, &st) == 0 && has_suid(st.st_mode))
		chmod(path, st.st_mode & 07777 & ~(S_ISUID | S_ISGID));
	return 0;
}

static struct timespec time_to_set(const struct timespec *ts, int to_set, int set,
				   int now)
{
	if (to_set & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	if (to_set & set)
		return *ts;
	return (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(const char *path, const struct stat *attr, int to_set)
{
	const struct timespec ts[2] = {
		time_to_set(&attr->st_atim, to_set, FUSE_SET_ATTR_ATIME,
			    FUSE_SET_ATTR_ATIME_NOW),
		time_to_set(&attr->st_mtim, to_set, FUSE_SET_ATTR_MTIME,
			    FUSE_SET_ATTR_MTIME_NOW),
	};

	return utimensat(AT_FDCWD, path, ts, 0) < 0 ? -errno : 0;
}

/* A change of the owner takes the set-ID bits, so the mode comes after it. */
static int set_all(int fd, const struct stat *attr, int to_set)
{
	char path[PROC_PATH_LEN];
	int rc = 0;

	proc_path(path, fd);
	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		rc = set_owner(fd, attr, to_set);
	if (rc == 0 && (to_set & FUSE_SET_ATTR_MODE))
		rc = chmod(path, attr->st_mode & 07777) < 0 ? -errno : 0;
	if (rc == 0 && (to_set & FUSE_SET_ATTR_SIZE))
		rc = set_size(path, attr->st_size, to_set & FUSE_SET_ATTR_KILL_SUID);
	if (rc == 0 && (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
				  FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)))
		rc = set_times(path, attr, to_set);
	return rc;
}

static int check_size(struct fmfs *f, struct node *n, int fd, off_t size)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? -errno : quota_check_size(f, n, &st, size);
}

void fmfs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		  struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	struct node *n = fmfs_node(req, ino);
	struct stat st;
	int fd, rc;

	(void)fi;
	fd = open_to_change(f, n);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	rc = to_set & FUSE_SET_ATTR_SIZE ? check_size(f, n, fd, attr->st_size) : 0;
	if (rc == 0)
		rc = set_all(fd, attr, to_set);
	if (to_set & FUSE_SET_ATTR_SIZE)
		quota_look(f, fd);
	if (rc == 0 && fstatat(fd, "", &st, AT_EMPTY_PATH) < 0)
		rc = -errno;
	close(fd);
	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	if (to_set & FUSE_SET_ATTR_SIZE)
		index_touched(f->index, n);
	fuse_reply_attr(req, &st, f->attr_timeout);
}

void fmfs_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fmfs *f = fmfs_of(req);
	struct statvfs st;

	(void)ino;
	if (fstatvfs(f->store.pools_fd, &st) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	quota_statfs(f, &st);
	fuse_reply_statfs(req, &st);
}

/* --- extended attributes ---------------------------------------------------- */

/* ACLs would be kept and not obeyed; so there are none. */
static bool is_refused(const char *name)
{
	return strncmp(name, "system.", 7) == 0;
}

/* What anybody but the superuser does not get to see. */
static bool is_hidden(fuse_req_t req, const char *name)
{
	return is_refused(name) ||
	       (strncmp(name, "trusted.", 8) == 0 && fuse_req_ctx(req)->uid != 0);
}

/* Reply with what `get` returned: a length, or a value of it in buf. */
static void reply_value(fuse_req_t req, ssize_t len, const char *buf, size_t size)
{
	if (len < 0)
		fuse_reply_err(req, -len);
	else if (size == 0)
		fuse_reply_xattr(req, len);
	else if ((size_t)len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, buf, len);
}

/* Of a file that is open the kernel asks often: before each change, if it has
 * capabilities.  -EBADF: it is not open. */
static ssize_t get_from_open(struct node *n, const char *name, char *buf, size_t size)
{
	ssize_t len = -EBADF;

	if (n == NULL)
		return -ESTALE;
	pthread_mutex_lock(&n->lock);
	if (n->nopen > 0) {
		len = fgetxattr(n->fd, name, buf, size);
		if (len < 0)
			len = -errno;
	}
	pthread_mutex_unlock(&n->lock);
	return len;
}

static ssize_t get_by_path(struct fmfs *f, struct node *n, const char *name, char *buf,
			   size_t size)
{
	char path[PROC_PATH_LEN];
	int fd = open_to_look(f, n);
	ssize_t len;

	if (fd < 0)
		return fd;
	proc_path(path, fd);
	len = getxattr(path, name, buf, size);
	if (len < 0)
		len = -errno;
	close(fd);
	return len;
}

void fmfs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct node *n = fmfs_node(req, ino);
	char *buf = NULL;
	ssize_t len;

	if (is_refused(name)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (size > 0)
		buf = malloc(size);
	if (size > 0 && buf == NULL)
		len = -ENOMEM;
	else
		len = get_from_open(n, name, buf, size);
	if (len == -EBADF)
		len = get_by_path(fmfs_of(req), n, name, buf, size);
	reply_value(req, len, buf, size);
	free(buf);
}

/* Take the hidden names out of a list: its new length. */
static size_t filter_names(fuse_req_t req, char *list, size_t len)
{
	char *to = list, *p;
	size_t n;

	for (p = list; p < list + len; p += n) {
		n = strlen(p) + 1;
		if (is_hidden(req, p))
			continue;
		memmove(to, p, n);
		to += n;
	}
	return to - list;
}

void fmfs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *buf = malloc(XATTR_LIST_MAX + 1);
	char path[PROC_PATH_LEN];
	ssize_t len;
	int fd;

	fd = buf == NULL ? -ENOMEM : open_to_look(fmfs_of(req), fmfs_node(req, ino));
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		free(buf);
		return;
	}
	proc_path(path, fd);
	len = listxattr(path, buf, XATTR_LIST_MAX);
	if (len < 0) {
		len = -errno;
	} else {
		buf[len] = '\0';
		len = filter_names(req, buf, len);
	}
	reply_value(req, len, buf, size);
	free(buf);
	close(fd);
}

struct xattr_value {
	const char *bytes;
	size_t size;
	int flags;
};

/* NULL: there is to be none any more. */
static void change_xattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			 const struct xattr_value *to)
{
	char path[PROC_PATH_LEN];
	int fd, rc;

	if (is_refused(name)) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	fd = open_to_change(fmfs_of(req), fmfs_node(req, ino));
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	proc_path(path, fd);
	rc = to != NULL ? setxattr(path, name, to->bytes, to->size, to->flags)
			: removexattr(path, name);
	if (rc < 0)
		rc = errno;
	close(fd);
	fuse_reply_err(req, rc);
}

void fmfs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		   size_t size, int flags)
{
	struct xattr_value to = { value, size, flags };

	change_xattr(req, ino, name, &to);
}

void fmfs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	change_xattr(req, ino, name, NULL);
}
