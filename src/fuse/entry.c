/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in a folder.  A name with '@' is a snapshot's, POOL@TAG: it is made by
 * link(2), or of a file that was received (tmpfile.c), and nothing else makes one or
 * turns one into something else.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/caller.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/snapshot.h"

#define SMALL_BLOCKS 256 /* of 512 bytes: a file that is freed after its name is gone */

int entry_refuse(const char *name, const char *why)
{
	static struct log_limit refusals;

	if (log_allowed(&refusals))
		log_info("%s: refused: %s", name, why);
	return -EPERM;
}

/* --- replies ----------------------------------------------------------- */

bool entry_visible(const struct fmfs *f, const char *name, const struct stat *st)
{
	return (S_ISREG(st->st_mode) ||
		(S_ISDIR(st->st_mode) && !name_is_snapshot(name))) &&
	       store_owns(&f->store, st);
}

int entry_fill(struct fmfs *f, struct node *parent, const char *name,
	       const struct stat *st, struct fuse_entry_param *e)
{
	struct node *n = node_enter(&f->nodes, parent, name, st);

	if (n == NULL)
		return -ENOMEM;
	*e = (struct fuse_entry_param){
		.ino = n->id,
		.attr = *st,
		.attr_timeout = f->attr_timeout,
		/* The name of a snapshot changes with that of its pool. */
		.entry_timeout = name_is_snapshot(name) ? 0 : f->entry_timeout,
	};
	return 0;
}

void entry_reply(fuse_req_t req, const struct fuse_entry_param *e)
{
	struct fmfs *f = fmfs_of(req);

	if (fuse_reply_entry(req, e) < 0)
		node_forget(&f->nodes, node_find(&f->nodes, e->ino), 1);
}

static void reply(fuse_req_t req, int rc, const struct fuse_entry_param *e)
{
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		entry_reply(req, e);
}

int entry_find(struct fmfs *f, struct node *parent, const char *name,
	       char path[NODE_PATH_LEN], struct stat *st)
{
	int rc;

	if (parent == NULL)
		return -ESTALE;
	rc = node_child_path(&f->nodes, parent, name, path);
	if (rc < 0)
		return rc;
	if (fstatat(f->store.pools_fd, path, st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return entry_visible(f, name, st) ? 0 : -ENOENT;
}

int entry_stat(struct fmfs *f, struct node *parent, const char *name, struct stat *st)
{
	char path[NODE_PATH_LEN];
	int rc;

	node_hold_names(&f->nodes);
	rc = entry_find(f, parent, name, path, st);
	node_let_names(&f->nodes);
	return rc;
}

void fmfs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	struct fuse_entry_param e;
	struct stat st;
	int rc;

	/* The kernel need not have locked the folder for this. */
	node_hold_names(&f->nodes);
	rc = entry_stat(f, dir, name, &st);
	if (rc == 0)
		rc = entry_fill(f, dir, name, &st, &e);
	node_let_names(&f->nodes);
	reply(req, rc, &e);
}

static void forget_one(struct fmfs *f, fuse_ino_t ino, uint64_t nlookup)
{
	struct node *n = node_find(&f->nodes, ino);

	if (n != NULL)
		node_forget(&f->nodes, n, nlookup);
}

void fmfs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget_one(fmfs_of(req), ino, nlookup);
	fuse_reply_none(req);
}

void fmfs_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < n; i++)
		forget_one(fmfs_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static int refuse_at(const char *name)
{
	return entry_refuse(name,
			    "names with '@' are those of snapshots: ln POOL POOL@TAG");
}

/* --- making ------------------------------------------------------------- */

int entry_give_to_caller(fuse_req_t req, struct node *parent, int fd, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fmfs *f = fmfs_of(req);
	uid_t uid = f->may_chown ? ctx->uid : (uid_t)-1;
	gid_t gid = f->may_chown ? ctx->gid : (gid_t)-1;
	struct stat dir;
	int rc;

	rc = node_stat(&f->nodes, parent, &dir);
	if (rc < 0)
		return rc;
	if (fchown(fd, uid, dir.st_mode & S_ISGID ? dir.st_gid : gid) < 0)
		return -errno;
	return fchmod(fd, mode & 07777) < 0 ? -errno : 0;
}

static int make_at(fuse_req_t req, struct node *parent, const char *name, mode_t mode,
		   struct stat *st)
{
	struct fmfs *f = fmfs_of(req);
	char path[NODE_PATH_LEN];
	int fd, rc;

	rc = node_child_path(&f->nodes, parent, name, path);
	if (rc < 0)
		return rc;
	fd = openat(f->store.pools_fd, path,
		    O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = entry_give_to_caller(req, parent, fd, mode);
	if (rc == 0 && fstat(fd, st) < 0)
		rc = -errno;
	if (rc < 0) {
		unlinkat(f->store.pools_fd, path, 0);
		close(fd);
		return rc;
	}
	return fd;
}

int entry_make_file(fuse_req_t req, struct node *parent, const char *name, mode_t mode,
		    struct stat *st)
{
	struct fmfs *f = fmfs_of(req);
	int fd;

	if (name_is_snapshot(name))
		return refuse_at(name);
	node_hold_names(&f->nodes);
	fd = make_at(req, parent, name, mode, st);
	node_let_names(&f->nodes);
	return fd;
}

void fmfs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		dev_t dev)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	struct fuse_entry_param e;
	struct stat st;
	int rc;

	(void)dev;
	if (!S_ISREG(mode) && (mode & S_IFMT) != 0)
		rc = entry_refuse(name, "only regular files can be made here");
	else
		rc = entry_make_file(req, dir, name, mode, &st);
	if (rc >= 0) {
		close(rc);
		rc = entry_fill(f, dir, name, &st, &e);
	}
	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	index_created(f->index, fmfs_node(req, e.ino));
	entry_reply(req, &e);
}

int entry_publish(struct fmfs *f, const char *tmp, struct node *dir, const char *name)
{
	char path[NODE_PATH_LEN];
	int rc;

	node_hold_names(&f->nodes);
	rc = node_child_path(&f->nodes, dir, name, path);
	if (rc == 0)
		rc = store_publish(&f->store, tmp, path);
	if (rc < 0)
		unlinkat(f->store.tmp_fd, tmp, 0);
	else
		rc = store_sync_folder(&f->store, path);
	node_let_names(&f->nodes);
	return rc;
}

int entry_may_make(fuse_req_t req, struct node *dir)
{
	struct fmfs *f = fmfs_of(req);
	char path[NODE_PATH_LEN];
	int rc;

	node_hold_names(&f->nodes);
	rc = node_path(&f->nodes, dir, path);
	if (rc == 0)
		rc = caller_may_make(req, path);
	node_let_names(&f->nodes);
	return rc;
}

struct node *entry_tell(struct fmfs *f, struct node *dir, const char *name, int fd)
{
	struct stat st;
	struct node *n;

	n = fstat(fd, &st) < 0 ? NULL : node_enter(&f->nodes, dir, name, &st);
	/* The folder's times. */
	fuse_lowlevel_notify_inval_inode(f->session, dir->id, -1, 0);
	return n;
}

/* In a set-group-ID folder it is one, too. */
static int give_folder(fuse_req_t req, struct node *parent, int fd, mode_t mode,
		       struct stat *st)
{
	int rc;

	if (fstat(fd, st) < 0)
		return -errno;
	rc = entry_give_to_caller(req, parent, fd,
				  (mode & 01777) | (st->st_mode & S_ISGID));
	return rc == 0 && fstat(fd, st) < 0 ? -errno : rc;
}

static int make_folder(fuse_req_t req, struct node *parent, const char *name,
		       mode_t mode, struct stat *st)
{
	struct fmfs *f = fmfs_of(req);
	char path[NODE_PATH_LEN];
	int fd, rc;

	if (name_is_snapshot(name))
		return refuse_at(name);
	rc = node_child_path(&f->nodes, parent, name, path);
	if (rc < 0)
		return rc;
	if (mkdirat(f->store.pools_fd, path, 0700) < 0)
		return -errno;
	fd = openat(f->store.pools_fd, path,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	rc = fd < 0 ? -errno : give_folder(req, parent, fd, mode, st);
	if (fd >= 0)
		close(fd);
	if (rc < 0)
		unlinkat(f->store.pools_fd, path, AT_REMOVEDIR);
	return rc;
}

void fmfs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	struct fuse_entry_param e;
	struct stat st;
	int rc;

	node_hold_names(&f->nodes);
	rc = dir == NULL ? -ESTALE : make_folder(req, dir, name, mode, &st);
	if (rc == 0)
		rc = entry_fill(f, dir, name, &st, &e);
	node_let_names(&f->nodes);
	reply(req, rc, &e);
}

void fmfs_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)to;
	fuse_reply_err(req, -entry_refuse(name, "symbolic links cannot be made here"));
}

/* --- removing ------------------------------------------------------------- */

/* Held, so that its inode number is not another file's before its node is known to be
 * gone. */
static int remove_held(struct fmfs *f, int fd, const char *name, int flags,
		       const char *path, struct stat *st)
{
	if (fstat(fd, st) < 0)
		return -errno;
	if (!entry_visible(f, name, st))
		return -ENOENT;
	if (unlinkat(f->store.pools_fd, path, flags) < 0)
		return -errno;
	node_gone(&f->nodes, st->st_ino);
	quota_removed(f, st->st_ino);
	if (!S_ISDIR(st->st_mode))
		index_removed(f->index, path);
	return 0;
}

/* flags: as of unlinkat(2).  A descriptor of what was removed, O_PATH, or -errno. */
static int remove_name(struct fmfs *f, struct node *dir, const char *name, int flags,
		       struct stat *st)
{
	char path[NODE_PATH_LEN];
	int fd, rc;

	if (dir == NULL)
		return -ESTALE;
	node_hold_names(&f->nodes);
	rc = node_child_path(&f->nodes, dir, name, path);
	fd = rc < 0 ? -1
		    : openat(f->store.pools_fd, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		rc = remove_held(f, fd, name, flags, path, st);
	else if (rc == 0)
		rc = -errno;
	node_let_names(&f->nodes);
	if (rc < 0 && fd >= 0)
		close(fd);
	return rc < 0 ? rc : fd;
}

void fmfs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct stat st;
	bool is_late;
	int fd;

	fd = remove_name(fmfs_of(req), fmfs_node(req, parent), name, 0, &st);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	/* To free the file, which its last descriptor does, takes as long as to remove the
	 * name.  Who waits for space waits for it; of little space nobody does. */
	is_late = st.st_blocks <= SMALL_BLOCKS;
	if (!is_late)
		close(fd);
	fuse_reply_err(req, 0);
	if (is_late)
		close(fd);
}

void fmfs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct stat st;
	int fd;

	fd = remove_name(fmfs_of(req), fmfs_node(req, parent), name, AT_REMOVEDIR, &st);
	if (fd >= 0)
		close(fd);
	fuse_reply_err(req, fd < 0 ? -fd : 0);
}

/* --- snapshots ---------------------------------------------------------------- */

void fmfs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent,
	       const char *newname)
{
	struct fmfs *f = fmfs_of(req);
	struct node *n = fmfs_node(req, ino);
	struct node *dir = fmfs_node(req, newparent);
	struct fuse_entry_param e;
	struct stat st;
	int rc;

	rc = n == NULL || dir == NULL ? -ESTALE
				      : snapshot_make(req, n, dir, newname, &st);
	if (rc == 0)
		rc = entry_fill(f, dir, newname, &st, &e);
	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	index_snapshot(f->index, fmfs_node(req, e.ino));
	entry_reply(req, &e);
}
