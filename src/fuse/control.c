/* SPDX-License-Identifier: Apache-2.0 */
/* Answers to the fmfs verbs. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "common/fmfs_ioctl.h"
#include "fuse/caller.h"
#include "fuse/control.h"
#include "fuse/file.h"
#include "fuse/fmfs.h"
#include "fuse/restore.h"
#include "fuse/snapshot.h"
#include "fuse/tmpfile.h"

static void copy_name(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from == NULL ? "" : from);
}

static void reply_info(fuse_req_t req, size_t out_max)
{
	struct fmfs *f = fmfs_of(req);
	struct fmfs_info info = { .abi = FMFS_ABI, .pid = getpid() };

	if (out_max < sizeof(info)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (passthrough_on(req))
		info.flags |= FMFS_F_PASSTHROUGH;
	else
		copy_name(info.why_not, sizeof(info.why_not), f->passthrough.why_not);
	if (f->passthrough.slow)
		info.flags |= FMFS_F_SLOW;
	if (f->store.reflink)
		info.flags |= FMFS_F_REFLINK;
	if (f->readonly)
		info.flags |= FMFS_F_READONLY;
	if (f->atomic)
		info.flags |= FMFS_F_ATOMIC;
	info.max_pool = f->quota.max_pool;
	info.max_store = f->quota.max_store;
	info.used = quota_used(f);
	fuse_reply_ioctl(req, 0, &info, sizeof(info));
}

static void reply_daemon(fuse_req_t req, size_t out_max)
{
	struct replacing *r = &fmfs_of(req)->replacing;
	struct fmfs_daemon d = { .pid = getpid(), .version = PACKAGE_VERSION };

	if (out_max < sizeof(d)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	pthread_mutex_lock(&r->lock);
	d.nbefore = r->n;
	d.nfailed = r->nfailed;
	copy_name(d.why, sizeof(d.why), r->why);
	pthread_mutex_unlock(&r->lock);
	fuse_reply_ioctl(req, 0, &d, sizeof(d));
}

struct listing {
	fuse_req_t req;
	bool may_search; /* the folder */
	struct fmfs_list *page;
};

static bool may_read(fuse_req_t req, const char *path)
{
	struct stat st;

	return fstatat(fmfs_of(req)->store.pools_fd, path, &st, AT_SYMLINK_NOFOLLOW) ==
		       0 &&
	       caller_may(req, &st, 04);
}

static int add_pool(const struct catalog_pool *pool, void *arg)
{
	struct listing *listing = arg;
	struct fmfs_list *l = listing->page;
	struct fmfs_pool_rec *r = &l->pool[l->n];

	copy_name(r->name, sizeof(r->name), store_name_of(pool->name));
	copy_name(r->parent, sizeof(r->parent), pool->parent == NULL ? NULL : store_name_of(pool->parent));
	r->kind = FMFS_KIND_UNKNOWN;
	if (!listing->may_search || !may_read(listing->req, pool->name))
		return ++l->n == FMFS_LIST_MAX;
	memcpy(r->uuid, pool->uuid, sizeof(r->uuid));
	r->created_ns = pool->created_ns;
	r->nroots = catalog_lacks_roots(pool) ? FMFS_NROOTS_UNKNOWN : pool->nroots;
	r->kind = pool->kind;
	return ++l->n == FMFS_LIST_MAX;
}

/* A page of a listing to fill; NULL: the reply was an error. */
static void *new_page(fuse_req_t req, size_t len, size_t in_len, size_t out_max)
{
	void *page;

	if (in_len < len || out_max < len) {
		fuse_reply_err(req, EINVAL);
		return NULL;
	}
	page = calloc(1, len);
	if (page == NULL)
		fuse_reply_err(req, ENOMEM);
	return page;
}

static void reply_page(fuse_req_t req, int rc, void *page, size_t len)
{
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_ioctl(req, 0, page, len);
	free(page);
}

static void reply_list(fuse_req_t req, struct node *n, const void *in, size_t in_len,
		       size_t out_max)
{
	struct listing listing = { .req = req };
	struct fmfs_list *l;
	struct stat st;
	int rc;

	l = new_page(req, sizeof(*l), in_len, out_max);
	if (l == NULL)
		return;
	listing.page = l;
	listing.may_search = node_stat(&fmfs_of(req)->nodes, n, &st) == 0 &&
			     caller_may(req, &st, 01);
	memcpy(l->after, in, sizeof(l->after) - 1);
	rc = index_each_pool(fmfs_of(req)->index, n, l->after, add_pool, &listing);
	reply_page(req, rc, l, sizeof(*l));
}

static int add_root(const struct catalog_root *root, void *arg)
{
	struct fmfs_roots *l = arg;
	struct fmfs_root_rec *r = &l->root[l->n];

	copy_name(r->name, sizeof(r->name), root->name);
	copy_name(r->type, sizeof(r->type), root->type);
	r->off = root->off;
	r->size = root->size;
	return ++l->n == FMFS_ROOTS_MAX;
}

static void reply_roots(fuse_req_t req, struct node *n, const void *in, size_t in_len,
			size_t out_max)
{
	struct fmfs_roots *l;
	int rc;

	l = new_page(req, sizeof(*l), in_len, out_max);
	if (l == NULL)
		return;
	memcpy(l->after, in, sizeof(l->after) - 1);
	rc = index_each_root(fmfs_of(req)->index, n, l->after, add_root, l);
	/* What is good was listed; at the end, say that it may not be all. */
	if (rc == 0 && l->n == 0)
		rc = index_has_roots(fmfs_of(req)->index, n);
	reply_page(req, rc, l, sizeof(*l));
}

static void reply_done(fuse_req_t req, int rc)
{
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void reply_clone(fuse_req_t req, struct node *n, const void *in, size_t in_len)
{
	struct fmfs_clone to;
	int rc = -EINVAL;

	if (in_len >= sizeof(to)) {
		memcpy(&to, in, sizeof(to));
		rc = restore_clone(req, n, &to);
	}
	reply_done(req, rc);
}

static void reply_snapshot(fuse_req_t req, struct node *n, const void *in, size_t in_len)
{
	struct fmfs_snapshot as;
	int rc = -EINVAL;

	if (in_len >= sizeof(as)) {
		memcpy(&as, in, sizeof(as));
		rc = snapshot_take(req, n, as.name, sizeof(as.name));
	}
	reply_done(req, rc);
}

static void reply_adopt(fuse_req_t req, struct node *n, const void *in, size_t in_len)
{
	struct fmfs_adopt adopt;

	if (in_len < sizeof(adopt)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	memcpy(&adopt, in, sizeof(adopt));
	tmpfile_adopt(req, n, adopt.name, sizeof(adopt.name));
}

void fmfs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
		struct fuse_file_info *fi, unsigned int flags, const void *in,
		size_t in_len, size_t out_max)
{
	struct node *n = fmfs_node(req, ino);

	(void)arg;
	(void)flags;
	if (n == NULL)
		fuse_reply_err(req, ESTALE);
	else if (cmd == FMFS_IOC_INFO)
		reply_info(req, out_max);
	else if (cmd == FMFS_IOC_DAEMON)
		reply_daemon(req, out_max);
	else if (cmd == FMFS_IOC_LIST && n->dir)
		reply_list(req, n, in, in_len, out_max);
	else if (n->dir)
		fuse_reply_err(req, ENOTTY);
	else if (!file_reads(fi))
		fuse_reply_err(req, EBADF); /* all that follows reads it */
	else if (cmd == FMFS_IOC_ROOTS)
		reply_roots(req, n, in, in_len, out_max);
	else if (cmd == FMFS_IOC_CLONE)
		reply_clone(req, n, in, in_len);
	else if (cmd == FMFS_IOC_ROLLBACK)
		restore_rollback(req, n);
	else if (cmd == FMFS_IOC_SNAPSHOT)
		reply_snapshot(req, n, in, in_len);
	else if (cmd == FMFS_IOC_ADOPT)
		reply_adopt(req, n, in, in_len);
	else
		fuse_reply_err(req, ENOTTY);
}
