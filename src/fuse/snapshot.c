/* SPDX-License-Identifier: Apache-2.0 */
/* Taking snapshots. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/log.h"
#include "common/nocow.h"
#include "fuse/caller.h"
#include "fuse/copy.h"
#include "fuse/defrag.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/reflink.h"
#include "fuse/snapshot.h"
#include "heap/inspect.h"

/* What is to be free for commits of a program that goes on, if its pool is larger. */
#define COMMITS_LEN (64ul << 20)

/* How a snapshot of a pool that a program writes to is taken. */
enum moment { CLONE_LIVE, CLONE_ATOMIC, COPY_ATOMIC };

static struct log_limit refusals;

int snapshot_check_name(const char *name, const char *pool, size_t pool_len)
{
	const char *tag;

	if (strncmp(name, pool, pool_len) != 0 || name[pool_len] != '@')
		return -EPERM;
	tag = name + pool_len + 1;
	return *tag == '\0' || strchr(tag, '@') != NULL ? -EINVAL : 0;
}

/*
 * A link to a file of somebody else's that one cannot read and write is refused
 * by the kernel if the system is set up so (fs.protected_hardlinks); here it
 * always is.
 */
bool snapshot_allowed(fuse_req_t req, const struct stat *st)
{
	return fuse_req_ctx(req)->uid == st->st_uid || caller_may(req, st, 06);
}

/* --- a moment ----------------------------------------------------------------- */

static int refuse_busy(const char *name, const char *why)
{
	if (log_allowed(&refusals))
		log_warn("%s: refused: a program has the pool open for writing, and %s",
			 name, why);
	return -EBUSY;
}

/*
 * After a clone every store of the writer needs a new block, preallocated or
 * not, and a store through a mapping that does not get one is a signal.  A commit
 * of an atomic pool that does not get one fails, which the program can bear; some
 * there should be, for the log, which also gets longer while a copy is made.
 */
static uint64_t needed_len(const struct stat *st, enum moment how)
{
	uint64_t taken = (uint64_t)st->st_blocks * 512;
	uint64_t commits = taken < COMMITS_LEN ? taken : COMMITS_LEN;

	switch (how) {
	case CLONE_LIVE:
		return taken;
	case CLONE_ATOMIC:
		return commits;
	case COPY_ATOMIC:
		return taken + commits;
	}
	return 0;
}

static int check_space(struct fmfs *f, int fd, enum moment how, const char *name)
{
	struct statvfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatvfs(f->store.pools_fd, &fs) < 0)
		return -errno;
	if ((uint64_t)fs.f_bavail * fs.f_frsize >= needed_len(&st, how))
		return 0;
	if (log_allowed(&refusals))
		log_warn("%s: refused: a program has the pool open for writing, and could "
			 "run out of space: less than %llu bytes are free",
			 name, (unsigned long long)needed_len(&st, how));
	return -ENOSPC;
}

static bool cannot_clone(int err)
{
	return err == -EOPNOTSUPP || err == -EXDEV || err == -EINVAL || err == -ENOTTY;
}

/* Also of a pool that is being written to: see the head of snapshot.h. */
static int clone_now(fuse_req_t req, int from, int to, enum moment how, const char *name)
{
	struct fmfs *f = fmfs_of(req);
	int64_t stall;
	int rc;

	rc = locks_pool_in_use(from) ? check_space(f, from, how, name) : 0;
	if (rc == 0)
		rc = reflink_in_pieces(req, from, to);
	if (rc == 0 && locks_pool_in_use(from)) /* that took a while */
		rc = check_space(f, from, how, name);
	if (rc < 0)
		return rc;
	stall = reflink_whole(from, to);
	if (stall < 0)
		return stall;
	defrag_after(&f->defrag, from, stall, name);
	return 0;
}

/*
 * The last commit of an atomic pool.  For link(2), which has the file's lock, a writer at
 * this mount waits for us when it next writes, and so does its checkpoint.  Others go on,
 * but make no checkpoint.  -EUCLEAN: nothing was done, for there is none.
 */
static int copy_commit(fuse_req_t req, struct node *n, int from, int to,
		       const char *name, bool link)
{
	struct inspect_view view;
	bool waits;
	int rc = 0;

	if (locks_pool_in_use(from))
		rc = check_space(fmfs_of(req), from, COPY_ATOMIC, name);
	if (rc < 0)
		return rc;
	waits = link && locks_pool_in_use_here(n);
	rc = waits ? inspect_open_still(&view, from) : inspect_open_view(&view, from);
	if (rc == -EBUSY)
		return refuse_busy(name, "does not end its checkpoint");
	if (rc < 0)
		return rc;
	rc = copy_data(req, from, to, view.super.heap_end);
	if (rc == 0)
		rc = inspect_finish_copy(&view, to);
	if (rc == 0 && !view.shared && !locks_pool_in_use_here(n))
		rc = -EAGAIN; /* killed meanwhile: another may have gone on with it */
	inspect_close_view(&view);
	return rc;
}

/* With nobody writing. */
static int copy_quiet(fuse_req_t req, int from, int to, const char *name)
{
	int rc = inspect_hold(from);

	if (rc == -EBUSY)
		return refuse_busy(
			name,
			fmfs_of(req)->store.reflink
				? "without passthrough its stores are not all here yet"
				: "the store's file system cannot share blocks (reflink)");
	if (rc < 0)
		return rc;
	rc = copy_file(req, from, to);
	inspect_release(from);
	return rc;
}

int snapshot_capture(fuse_req_t req, struct node *n, int from, int to, const char *name,
		     bool link)
{
	struct fmfs *f = fmfs_of(req);
	struct pool_info pool;
	bool atomic;
	int rc;

	nocow_set(to, nocow_get(from)); /* or it cannot be a clone */
	/* Cloning waits for what is dirty; have most of it written before. */
	rc = fdatasync(from) < 0 ? -errno : inspect_pool(from, &pool);
	if (rc < 0)
		return rc;
	atomic = pool.state == POOL_GOOD && (pool.incompat & FM_INCOMPAT_ATOMIC) != 0;
	if (f->store.reflink && (atomic || passthrough_on(req))) {
		rc = clone_now(req, from, to, atomic ? CLONE_ATOMIC : CLONE_LIVE, name);
		if (!cannot_clone(rc))
			return rc;
		if (ftruncate(to, 0) < 0)
			return -errno;
	}
	if (atomic) {
		rc = copy_commit(req, n, from, to, name, link);
		if (rc != -EUCLEAN)
			return rc;
	}
	return copy_quiet(req, from, to, name);
}

/* --- the file ----------------------------------------------------------------- */

struct making {
	fuse_req_t req;
	struct node *pool, *dir;
	const char *name; /* in the folder */
	bool link;	  /* for link(2): the kernel has the pool and the folder locked */
	int from, to;
	uint64_t taken; /* of max_store */
};

/* The snapshot in tmp/, complete and on the disk. */
static int fill_tmp(struct making *m)
{
	struct fmfs *f = fmfs_of(m->req);
	struct stat st;
	int rc;

	if (fstat(m->from, &st) < 0)
		return -errno;
	if (!snapshot_allowed(m->req, &st))
		return -EPERM;
	rc = quota_take_copy(f, &st, NULL, m->name, &m->taken);
	if (rc == 0)
		rc = snapshot_capture(m->req, m->pool, m->from, m->to, m->name, m->link);
	if (rc < 0)
		return rc;
	if (f->may_chown && fchown(m->to, st.st_uid, st.st_gid) < 0)
		return -errno;
	if (fchmod(m->to, st.st_mode & 0777) < 0 || fsync(m->to) < 0)
		return -errno;
	return quota_take_rest(f, m->to, m->name, &m->taken);
}

static int check_request(const struct making *m)
{
	struct fmfs *f = fmfs_of(m->req);
	const struct node *n = m->pool;
	int rc;

	if (n->dir)
		return -EPERM;
	pthread_mutex_lock(&f->nodes.lock);
	if (n->gone)
		rc = n->old_fd >= 0 ? -ESTALE : -ENOENT;
	else if (n->parent != m->dir || name_is_snapshot(n->name))
		rc = -EPERM;
	else
		rc = snapshot_check_name(m->name, n->name, strlen(n->name));
	pthread_mutex_unlock(&f->nodes.lock);
	if ((rc == -EPERM || rc == -EINVAL) && log_allowed(&refusals))
		log_info("%s: refused: a link must be a snapshot beside its pool: "
			 "ln POOL POOL@TAG",
			 m->name);
	return rc;
}

/* For link(2) the kernel tells itself, and who asked, that the name is there. */
static int publish(const struct making *m, const char *tmp)
{
	struct fmfs *f = fmfs_of(m->req);
	struct node *made;
	int rc;

	/* The pool does not get another name before it is known that it has this snapshot. */
	node_hold_names(&f->nodes);
	rc = check_request(m);
	if (rc == 0)
		rc = entry_publish(f, tmp, m->dir, m->name);
	else
		unlinkat(f->store.tmp_fd, tmp, 0);
	made = rc < 0 || m->link ? NULL : entry_tell(f, m->dir, m->name, m->to);
	if (made != NULL) {
		index_snapshot(f->index, made);
		node_forget(&f->nodes, made, 1);
	}
	node_let_names(&f->nodes);
	return rc == -EPERM ? -EAGAIN : rc;
}

static int make_in_tmp(struct making *m, struct stat *st)
{
	struct fmfs *f = fmfs_of(m->req);
	char tmp[STORE_TMP_NAME_LEN];
	int rc;

	m->to = store_tmp_file(&f->store, tmp);
	if (m->to < 0)
		return m->to;
	rc = fill_tmp(m);
	if (rc == 0)
		rc = publish(m, tmp);
	else
		unlinkat(f->store.tmp_fd, tmp, 0);
	if (rc == 0 && fstat(m->to, st) < 0)
		rc = -errno;
	quota_settle(f, m->to, m->taken);
	close(m->to);
	return rc;
}

static int make(struct making *m, struct stat *st)
{
	struct fmfs *f = fmfs_of(m->req);
	int rc;

	rc = check_request(m);
	if (rc == 0 && entry_stat(f, m->dir, m->name, st) == 0)
		rc = -EEXIST; /* before the work */
	if (rc < 0)
		return rc;
	m->from = node_open(&f->nodes, m->pool, O_RDWR);
	if (m->from < 0)
		return m->from;
	rc = make_in_tmp(m, st);
	close(m->from);
	return rc;
}

int snapshot_make(fuse_req_t req, struct node *n, struct node *dir, const char *name,
		  struct stat *st)
{
	struct making m = {
		.req = req, .pool = n, .dir = dir, .name = name, .link = true
	};

	return make(&m, st);
}

int snapshot_take(fuse_req_t req, struct node *n, const char *name, size_t size)
{
	struct making m = { .req = req, .pool = n, .name = name };
	struct fmfs *f = fmfs_of(req);
	char pool[NAME_MAX + 1];
	struct stat st;
	int rc;

	if (f->readonly)
		return -EROFS;
	if (memchr(name, '\0', size) == NULL || strchr(name, '/') != NULL)
		return -EINVAL;
	m.dir = node_folder(&f->nodes, n, pool);
	if (m.dir == NULL)
		return -ENOENT;
	rc = entry_may_make(req, m.dir);
	if (rc == 0)
		rc = make(&m, &st);
	node_unref(&f->nodes, m.dir);
	return rc;
}
