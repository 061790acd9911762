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
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/snapshot.h"

static struct log_limit refusals;

static int refuse(const char *name, const char *why)
{
	if (log_allowed(&refusals))
		log_info("%s: refused: %s", name, why);
	return -EPERM;
}

/* --- replies ----------------------------------------------------------- */

bool entry_visible(const struct fmfs *f, const struct stat *st)
{
	return S_ISREG(st->st_mode) && store_owns(&f->store, st);
}

int entry_fill(struct fmfs *f, struct node *parent, const char *name,
	       const struct stat *st, struct fuse_entry_param *e)
{
	struct node *n = node_enter(&f->nodes, parent, name, st);

	if (n == NULL)
		return -ENOMEM;
	*e = (struct fuse_entry_param){
		.ino = n->id,
		.generation = n->generation,
		.attr = *st,
		.attr_timeout = f->attr_timeout,
		.entry_timeout = f->entry_timeout,
	};
	return 0;
}

void entry_reply(fuse_req_t req, const struct fuse_entry_param *e)
{
	struct fmfs *f = fmfs_of(req);

	if (fuse_reply_entry(req, e) < 0)
		node_forget(&f->nodes, node_find(&f->nodes, e->ino), 1);
}

static int stat_child(struct fmfs *f, struct node *parent, const char *name,
		      struct stat *st)
{
	char path[NODE_PATH_LEN];
	int rc;

	if (parent == NULL)
		return -ESTALE;
	rc = node_child_path(&f->nodes, parent, name, path);
	if (rc < 0)
		return rc;
	if (fstatat(f->store.pools_fd, path, st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return entry_visible(f, st) ? 0 : -ENOENT;
}

void fmfs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	struct fuse_entry_param e;
	struct stat st;
	int rc;

	rc = stat_child(f, dir, name, &st);
	if (rc == 0)
		rc = entry_fill(f, dir, name, &st, &e);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		entry_reply(req, &e);
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

/* --- making ------------------------------------------------------------- */

int entry_give_to_caller(fuse_req_t req, struct node *parent, int fd, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fmfs *f = fmfs_of(req);
	struct stat dir;

	if (f->may_chown) {
		int rc = node_stat(&f->nodes, parent, &dir);

		if (rc < 0)
			return rc;
		if (fchown(fd, ctx->uid,
			   dir.st_mode & S_ISGID ? dir.st_gid : ctx->gid) < 0)
			return -errno;
	}
	return fchmod(fd, mode & 07777) < 0 ? -errno : 0;
}

int entry_make_file(fuse_req_t req, struct node *parent, const char *name, mode_t mode,
		    struct stat *st)
{
	struct fmfs *f = fmfs_of(req);
	char path[NODE_PATH_LEN];
	int fd, rc;

	if (name_is_snapshot(name))
		return refuse(
			name,
			"names with '@' are those of snapshots: ln POOL POOL@TAG");
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
		rc = refuse(name, "only regular files can be made here");
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

void fmfs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent;
	(void)mode;
	fuse_reply_err(req, -refuse(name, "pools cannot be put in folders"));
}

void fmfs_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)to;
	fuse_reply_err(req, -refuse(name, "symbolic links cannot be made here"));
}

void fmfs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	fuse_reply_err(req, ENOTDIR);
}

/* --- removing ------------------------------------------------------------- */

void fmfs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	char path[NODE_PATH_LEN];
	struct stat st;
	int rc;

	rc = stat_child(f, dir, name, &st);
	if (rc == 0)
		rc = node_child_path(&f->nodes, dir, name, path);
	if (rc == 0 && unlinkat(f->store.pools_fd, path, 0) < 0)
		rc = -errno;
	if (rc == 0) {
		node_gone(&f->nodes, st.st_ino);
		index_removed(f->index, path);
	}
	fuse_reply_err(req, -rc);
}

/* --- renaming --------------------------------------------------------------- */

/* May `from` become `to`, by name alone? */
static int check_rename(const char *from, const char *to, unsigned int flags)
{
	size_t pool_len = strcspn(from, "@");

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (!name_is_snapshot(from) && !name_is_snapshot(to))
		return 0;
	if (!name_is_snapshot(from))
		return refuse(to, "a pool cannot become a snapshot by renaming");
	/* A snapshot may get another tag. */
	if (!(flags & RENAME_EXCHANGE) && snapshot_check_name(to, from, pool_len) == 0)
		return 0;
	return refuse(from,
		      "a snapshot can only get another tag: mv POOL@TAG POOL@NEW");
}

struct renaming {
	char from[NODE_PATH_LEN];
	char to[NODE_PATH_LEN];
	struct stat replaced; /* if had_target */
	bool had_target;
};

static int rename_files(struct fmfs *f, struct node *dir, const char *name,
			struct node *newdir, const char *newname, unsigned int flags,
			struct renaming *r)
{
	int rc;

	rc = stat_child(f, newdir, newname, &r->replaced);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	r->had_target = rc == 0;
	rc = node_child_path(&f->nodes, dir, name, r->from);
	if (rc == 0)
		rc = node_child_path(&f->nodes, newdir, newname, r->to);
	if (rc < 0)
		return rc;
	if (name_is_snapshot(newname) && r->had_target)
		return refuse(newname, "a snapshot cannot be replaced");
	if (renameat2(f->store.pools_fd, r->from, f->store.pools_fd, r->to, flags) < 0)
		return -errno;
	return 0;
}

static void rename_nodes(struct fmfs *f, struct node *dir, const char *name,
			 struct node *newdir, const char *newname, unsigned int flags,
			 const struct renaming *r)
{
	struct node *n;
	struct stat st;

	if (fstatat(f->store.pools_fd, r->to, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return; /* removed in the store meanwhile */
	if (flags & RENAME_EXCHANGE) {
		node_moved(&f->nodes, st.st_ino, newdir, newname);
		node_moved(&f->nodes, r->replaced.st_ino, dir, name);
		index_exchanged(f->index, r->from, r->to);
		return;
	}
	if (r->had_target && r->replaced.st_ino != st.st_ino)
		node_gone(&f->nodes, r->replaced.st_ino);
	/* The kernel looked it up to rename it. */
	n = node_enter(&f->nodes, newdir, newname, &st);
	if (n == NULL)
		return;
	index_renamed(f->index, n, r->from, r->to);
	node_forget(&f->nodes, n, 1);
}

void fmfs_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		 fuse_ino_t newparent, const char *newname, unsigned int flags)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	struct node *newdir = fmfs_node(req, newparent);
	struct renaming r;
	int rc;

	if (dir == NULL || newdir == NULL)
		rc = -ESTALE;
	else
		rc = check_rename(name, newname, flags);
	if (rc == 0)
		rc = rename_files(f, dir, name, newdir, newname, flags, &r);
	if (rc == 0)
		rename_nodes(f, dir, name, newdir, newname, flags, &r);
	fuse_reply_err(req, -rc);
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
