/* SPDX-License-Identifier: Apache-2.0 */
/* Clones, and rolling back. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"
#include "common/nocow.h"
#include "fuse/caller.h"
#include "fuse/copy.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/restore.h"
#include "fuse/snapshot.h"
#include "heap/inspect.h"

/* Where the new file is to be. */
struct place {
	struct node *folder; /* with a reference */
	char name[NAME_MAX + 1];
	char path[NODE_PATH_LEN]; /* below pools/, while the names are held: find_path() */
};

/* --- both ------------------------------------------------------------------ */

static int find_path(struct fmfs *f, struct place *at)
{
	return node_child_path(&f->nodes, at->folder, at->name, at->path);
}

/* Take the name there from the file `st`. */
static int check_may_replace(fuse_req_t req, const struct place *at, const struct stat *st)
{
	struct fmfs *f = fmfs_of(req);
	char folder[NODE_PATH_LEN];
	int rc;

	node_hold_names(&f->nodes);
	rc = node_path(&f->nodes, at->folder, folder);
	if (rc == 0)
		rc = caller_may_replace(req, st, folder);
	node_let_names(&f->nodes);
	return rc;
}

/* The file, which is `new`, has its name: let the catalog and the kernel know. */
static void tell(struct fmfs *f, const struct place *at, int new, const char *what,
		 struct node *source)
{
	char path[NODE_PATH_LEN] = "";
	struct node *n;

	node_path(&f->nodes, source, path);
	n = entry_tell(f, at->folder, at->name, new);
	if (n != NULL) {
		index_made_of(f->index, n, what, path);
		node_forget(&f->nodes, n, 1);
	}
}

/* --- clones ---------------------------------------------------------------- */

static int check_name(const char name[FMFS_NAME_LEN])
{
	size_t len = strnlen(name, FMFS_NAME_LEN);

	if (len == 0 || len == FMFS_NAME_LEN || strchr(name, '/') != NULL ||
	    strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	if (!name_is_snapshot(name))
		return 0;
	return entry_refuse(name, "names with '@' are those of snapshots");
}

static int find_place(fuse_req_t req, const struct fmfs_clone *to, struct place *at)
{
	struct fmfs *f = fmfs_of(req);
	int rc = check_name(to->name);
	struct stat st;

	if (rc < 0)
		return rc;
	at->folder = node_find_folder(&f->nodes, to->folder);
	if (at->folder == NULL)
		return -ENOENT;
	strcpy(at->name, to->name);
	rc = entry_may_make(req, at->folder);
	if (rc == 0 && entry_stat(f, at->folder, at->name, &st) == 0)
		rc = -EEXIST; /* before the work */
	if (rc < 0)
		node_unref(&f->nodes, at->folder);
	return rc;
}

static int fill_clone(fuse_req_t req, struct node *n, const struct place *at,
		      mode_t mode, int from, int to)
{
	int rc;

	if (node_is_snapshot(&fmfs_of(req)->nodes, n)) {
		nocow_set(to, nocow_get(from)); /* or they cannot share blocks */
		rc = copy_file(req, from, to);
	} else {
		rc = snapshot_capture(req, n, from, to, at->name, false);
	}
	if (rc == 0)
		rc = entry_give_to_caller(req, at->folder, to, mode);
	if (rc == 0 && fsync(to) < 0)
		rc = -errno;
	return rc;
}

static int make_clone(fuse_req_t req, struct node *n, struct place *at, mode_t mode,
		      int from, const struct stat *st)
{
	struct fmfs *f = fmfs_of(req);
	char tmp[STORE_TMP_NAME_LEN];
	uint64_t taken;
	int rc, to;

	to = store_tmp_file(&f->store, tmp);
	if (to < 0)
		return to;
	rc = quota_take_copy(f, st, NULL, at->name, &taken);
	if (rc == 0)
		rc = fill_clone(req, n, at, mode, from, to);
	if (rc == 0)
		rc = quota_take_rest(f, to, at->name, &taken);
	if (rc == 0)
		rc = entry_publish(f, tmp, at->folder, at->name);
	else
		unlinkat(f->store.tmp_fd, tmp, 0);
	if (rc == 0)
		tell(f, at, to, "clone", n);
	quota_settle(f, to, taken);
	close(to);
	return rc;
}

/* The node's file, for a description of our own. */
static int open_source(fuse_req_t req, struct node *n, struct stat *st)
{
	struct node_table *t = &fmfs_of(req)->nodes;
	int fd;

	/* A pool's writer's lock may be needed. */
	fd = node_open(t, n, node_is_snapshot(t, n) ? O_RDONLY : O_RDWR);
	if (fd < 0)
		return fd;
	if (fstat(fd, st) < 0) {
		close(fd);
		return -EIO;
	}
	return fd;
}

int restore_clone(fuse_req_t req, struct node *n, const struct fmfs_clone *to)
{
	struct fmfs *f = fmfs_of(req);
	struct place at;
	struct stat st;
	int from, rc;

	if (f->readonly)
		return -EROFS;
	rc = find_place(req, to, &at);
	if (rc < 0)
		return rc;
	rc = from = open_source(req, n, &st);
	if (from >= 0) {
		rc = make_clone(req, n, &at, to->mode & 0777, from, &st);
		close(from);
	}
	node_unref(&f->nodes, at.folder);
	return rc;
}

/* --- rolling back ------------------------------------------------------------ */

struct rollback {
	fuse_req_t req;
	struct node *snapshot;
	struct place at; /* of the pool */
	int from;        /* the snapshot */
	int old;         /* the pool; -1: there is none */
	struct stat st;  /* of the pool, or if there is none, of the snapshot */
};

static int find_pool(struct rollback *r)
{
	struct fmfs *f = fmfs_of(r->req);
	struct place *at = &r->at;
	int rc = 0;

	at->folder = node_folder(&f->nodes, r->snapshot, at->name);
	if (at->folder == NULL)
		return -ENOENT;
	if (name_is_snapshot(at->name))
		at->name[strcspn(at->name, "@")] = '\0';
	else
		rc = -EINVAL;
	if (rc < 0)
		node_unref(&f->nodes, at->folder);
	return rc;
}

static int open_old(struct rollback *r)
{
	struct fmfs *f = fmfs_of(r->req);
	int rc;

	r->old = -1;
	node_hold_names(&f->nodes);
	rc = find_path(f, &r->at);
	if (rc == 0)
		r->old = openat(f->store.pools_fd, r->at.path,
				O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (rc == 0 && r->old < 0 && errno != ENOENT)
		rc = -errno;
	node_let_names(&f->nodes);
	if (r->old < 0)
		return rc;
	if (fstat(r->old, &r->st) == 0 && entry_visible(f, r->at.name, &r->st))
		return 0;
	close(r->old);
	return -EPERM;
}

static int check_allowed(struct rollback *r)
{
	if (r->old >= 0)
		return caller_may(r->req, &r->st, 02)
			       ? check_may_replace(r->req, &r->at, &r->st)
			       : -EACCES;
	return snapshot_allowed(r->req, &r->st) ? entry_may_make(r->req, r->at.folder)
					      : -EACCES;
}

/* Of those that are anybody's; what else there is, says what the contents are. */
static int copy_xattr(int from, int to, const char *name)
{
	char value[XATTR_SIZE_MAX];
	ssize_t len;

	if (strncmp(name, "user.", 5) != 0 && strncmp(name, "trusted.", 8) != 0)
		return 0;
	len = fgetxattr(from, name, value, sizeof(value));
	if (len < 0)
		return errno == ENODATA ? 0 : -errno;
	return fsetxattr(to, name, value, len, 0) < 0 ? -errno : 0;
}

static int copy_xattrs(int from, int to)
{
	char list[XATTR_LIST_MAX];
	ssize_t len = flistxattr(from, list, sizeof(list));
	int rc = 0;

	if (len < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (char *p = list; rc == 0 && p < list + len; p += strlen(p) + 1)
		rc = copy_xattr(from, to, p);
	return rc;
}

/* As when somebody writes to the pool, the set-ID bits go, unless he is the superuser. */
static mode_t mode_of(const struct rollback *r)
{
	mode_t kept = fuse_req_ctx(r->req)->uid == 0 ? 07777 : 01777;

	return r->st.st_mode & kept;
}

/* What the pool has now, it will not have any more, unless somebody has it open. */
static int take_space(struct rollback *r, uint64_t *taken)
{
	struct stat st;

	if (fstat(r->from, &st) < 0)
		return -errno;
	return quota_take_copy(fmfs_of(r->req), &st, r->old >= 0 ? &r->st : NULL,
			       r->at.name, taken);
}

static int fill_new(struct rollback *r, int new, uint64_t *taken)
{
	int rc;

	nocow_set(new, nocow_get(r->from)); /* or they cannot share blocks */
	rc = take_space(r, taken);
	if (rc == 0)
		rc = copy_file(r->req, r->from, new);
	if (rc == 0 && r->old >= 0)
		rc = copy_xattrs(r->old, new);
	if (rc < 0)
		return rc;
	if (fmfs_of(r->req)->may_chown && fchown(new, r->st.st_uid, r->st.st_gid) < 0)
		return -errno;
	if (fchmod(new, mode_of(r)) < 0 || fsync(new) < 0)
		return -errno;
	if (r->old >= 0 && quota_keeps(fmfs_of(r->req), &r->st)) /* by now */
		return quota_take_rest(fmfs_of(r->req), new, r->at.name, taken);
	return 0;
}

static bool is_old(const struct rollback *r, int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_ino == r->st.st_ino;
}

/*
 * The two files change their places; so if another file than the old one turns up, which
 * got the name meanwhile, it can be put back.
 */
static int exchange(const struct rollback *r, const char *tmp)
{
	const struct store *s = &fmfs_of(r->req)->store;

	if (renameat2(s->tmp_fd, tmp, s->pools_fd, r->at.path, RENAME_EXCHANGE) < 0) {
		if (errno != EINVAL && errno != ENOSYS)
			return errno == ENOENT ? -EAGAIN : -errno;
		/* This file system cannot. */
		if (!is_old(r, s->pools_fd, r->at.path))
			return -EAGAIN;
		return renameat(s->tmp_fd, tmp, s->pools_fd, r->at.path) < 0 ? -errno
									     : 0;
	}
	if (is_old(r, s->tmp_fd, tmp))
		return 0;
	renameat2(s->tmp_fd, tmp, s->pools_fd, r->at.path, RENAME_EXCHANGE);
	return -EAGAIN;
}

static int put_in_place(const struct rollback *r, const char *tmp)
{
	int rc;

	if (r->old >= 0)
		return exchange(r, tmp);
	rc = store_publish(&fmfs_of(r->req)->store, tmp, r->at.path);
	return rc == -EEXIST ? -EAGAIN : rc;
}

/* The old file has no name any more, and keeps its writer's lock. */
static void let_go_of_old(struct rollback *r)
{
	struct fmfs *f = fmfs_of(r->req);
	uint64_t id = node_replaced(&f->nodes, r->st.st_ino, r->old);

	r->old = -1;
	quota_removed(f, r->st.st_ino);
	/* By its name it is to be looked at again. */
	if (id != 0)
		fuse_lowlevel_notify_inval_inode(f->session, id, -1, 0);
}

static int replace(struct rollback *r)
{
	struct fmfs *f = fmfs_of(r->req);
	char tmp[STORE_TMP_NAME_LEN];
	uint64_t taken = 0;
	int new, rc;

	new = store_tmp_file(&f->store, tmp);
	if (new < 0)
		return new;
	rc = fill_new(r, new, &taken);
	node_hold_names(&f->nodes);
	if (rc == 0)
		rc = find_path(f, &r->at);
	if (rc == 0)
		rc = put_in_place(r, tmp);
	if (rc == 0 && r->old >= 0)
		let_go_of_old(r);
	/* The new file if that failed, and if not the old one, if there was one. */
	unlinkat(f->store.tmp_fd, tmp, 0);
	if (rc == 0) {
		tell(f, &r->at, new, "rollback", r->snapshot);
		rc = store_sync_folder(&f->store, r->at.path);
	}
	node_let_names(&f->nodes);
	quota_settle(f, new, taken);
	close(new);
	return rc;
}

static int roll_back(struct rollback *r)
{
	int rc = open_old(r);

	if (rc < 0)
		return rc;
	rc = check_allowed(r);
	if (rc == 0 && r->old >= 0)
		rc = inspect_hold(r->old);
	if (rc == 0)
		rc = replace(r);
	if (r->old >= 0)
		close(r->old);
	return rc;
}

static int find_and_roll_back(struct rollback *r)
{
	int rc;

	r->from = open_source(r->req, r->snapshot, &r->st);
	if (r->from < 0)
		return r->from;
	rc = roll_back(r);
	close(r->from);
	return rc;
}

void restore_rollback(fuse_req_t req, struct node *n)
{
	struct rollback r = { .req = req, .snapshot = n };
	struct fmfs *f = fmfs_of(req);
	int rc = f->readonly ? -EROFS : find_pool(&r);

	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	rc = find_and_roll_back(&r);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		notify_then_reply(req, r.at.folder->id, r.at.name);
	node_unref(&f->nodes, r.at.folder);
}
