/* SPDX-License-Identifier: Apache-2.0 */
/* Files without a name, and adopting a file as a snapshot. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/nocow.h"
#include "fuse/caller.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/notify.h"
#include "fuse/snapshot.h"
#include "fuse/tmpfile.h"
#include "heap/inspect.h"

/* --- without a name ------------------------------------------------------------- */

static int fill(fuse_req_t req, struct node *dir, int fd, mode_t mode, const char *name,
		struct fuse_entry_param *e)
{
	struct fmfs *f = fmfs_of(req);
	struct node *n;
	struct stat st;
	int rc;

	nocow_set(fd, nocow_get(f->store.pools_fd)); /* as new pools */
	rc = entry_give_to_caller(req, dir, fd, mode);
	if (rc == 0 && fstat(fd, &st) < 0)
		rc = -errno;
	if (rc == 0)
		rc = entry_fill(f, dir, "", &st, e);
	if (rc < 0)
		return rc;
	node_gone(&f->nodes, st.st_ino);
	n = fmfs_node(req, e->ino);
	n->tmp_name = strdup(name);
	if (n->tmp_name == NULL) {
		node_forget(&f->nodes, n, 1);
		return -ENOMEM;
	}
	node_hold_new(n, fd);
	return 0;
}

int tmpfile_make(fuse_req_t req, struct node *dir, mode_t mode,
		 struct fuse_entry_param *e)
{
	struct fmfs *f = fmfs_of(req);
	char name[STORE_TMP_NAME_LEN];
	int fd, rc;

	if (f->readonly)
		return -EROFS;
	fd = store_tmp_file(&f->store, name);
	if (fd < 0)
		return fd;
	rc = fill(req, dir, fd, mode, name, e);
	if (rc < 0) {
		unlinkat(f->store.tmp_fd, name, 0);
		close(fd);
	}
	return rc;
}

static char *take_tmp_name(struct node *n)
{
	char *name;

	pthread_mutex_lock(&n->lock);
	name = n->tmp_name;
	n->tmp_name = NULL;
	pthread_mutex_unlock(&n->lock);
	return name;
}

void tmpfile_closed(struct fmfs *f, struct node *n)
{
	char *name = NULL;

	pthread_mutex_lock(&n->lock);
	if (n->nopen == 0) { /* it cannot be opened again */
		name = n->tmp_name;
		n->tmp_name = NULL;
	}
	pthread_mutex_unlock(&n->lock);
	if (name != NULL)
		unlinkat(f->store.tmp_fd, name, 0);
	free(name);
}

/* --- adopting --------------------------------------------------------------------- */

static bool is_snapshot_name(const char *name, size_t size)
{
	size_t pool_len;

	if (memchr(name, '\0', size) == NULL || strchr(name, '/') != NULL)
		return false;
	pool_len = strcspn(name, "@");
	return pool_len > 0 && snapshot_check_name(name, name, pool_len) == 0;
}

static int check_adoptable(fuse_req_t req, struct node *n)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	struct pool_info info;
	unsigned int nopen;
	struct stat st;
	int rc;

	if (fstat(n->fd, &st) < 0)
		return -errno;
	if ((uid != 0 && uid != st.st_uid) ||
	    node_is_snapshot(&fmfs_of(req)->nodes, n))
		return -EPERM;
	pthread_mutex_lock(&n->lock);
	nopen = n->nopen;
	pthread_mutex_unlock(&n->lock);
	if (nopen > 1)
		return -EBUSY;
	rc = inspect_pool(n->fd, &info);
	return rc == 0 && info.state != POOL_GOOD ? -EUCLEAN : rc;
}

/* The folder of the node, for the caller to node_unref(). */
static struct node *ref_parent(struct node_table *t, struct node *n)
{
	struct node *parent;

	pthread_mutex_lock(&t->lock);
	parent = n->parent;
	parent->nref++;
	pthread_mutex_unlock(&t->lock);
	return parent;
}

/* Out of tmp/, as store_publish(); where that fails it stays there. */
static int give_name(struct fmfs *f, struct node *n, const char *path)
{
	char *tmp = take_tmp_name(n);
	int rc = tmp == NULL ? -ENOENT : store_publish(&f->store, tmp, path);

	if (rc < 0 && tmp != NULL) {
		pthread_mutex_lock(&n->lock);
		n->tmp_name = tmp;
		pthread_mutex_unlock(&n->lock);
		return rc;
	}
	free(tmp);
	return rc;
}

/* Give it the name in the folder; `old` is the path that it has lost, "" if none.  The
 * names are held. */
static int move(struct fmfs *f, struct node *n, struct node *dir, const char *name,
		char old[NODE_PATH_LEN])
{
	char path[NODE_PATH_LEN];
	int rc = node_child_path(&f->nodes, dir, name, path);

	if (rc < 0)
		return rc;
	if (node_path(&f->nodes, n, old) < 0) {
		*old = '\0';
		rc = give_name(f, n, path);
	} else {
		rc = store_rename(&f->store, old, path);
	}
	if (rc < 0)
		return rc;
	node_set_name(&f->nodes, n, dir, name);
	if (*old == '\0')
		index_snapshot(f->index, n);
	else
		index_renamed(f->index, n, old, path);
	return store_sync_folder(&f->store, path);
}

/* If it is to be one of a pool that is there: may the caller take snapshots of that?  And
 * make names in the folder, or take away the one that the file has? */
static int check_place(fuse_req_t req, struct node *n, struct node *dir,
		       const char *name)
{
	struct fmfs *f = fmfs_of(req);
	char pool[NAME_MAX + 1], folder[NODE_PATH_LEN], old[NODE_PATH_LEN];
	struct stat st;
	int rc;

	rc = node_path(&f->nodes, dir, folder);
	if (rc == 0)
		rc = caller_may_make(req, folder);
	if (rc == 0 && node_path(&f->nodes, n, old) == 0)
		rc = fstat(n->fd, &st) < 0 ? -errno
					   : caller_may_replace(req, &st, folder);
	if (rc < 0)
		return rc;
	snprintf(pool, sizeof(pool), "%.*s", (int)strcspn(name, "@"), name);
	rc = entry_stat(f, dir, pool, &st);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return snapshot_allowed(req, &st) ? 0 : -EPERM;
}

static int adopt(fuse_req_t req, struct node *n, struct node *dir, const char *name,
		 char old[NODE_PATH_LEN])
{
	struct fmfs *f = fmfs_of(req);
	int rc = check_adoptable(req, n);

	if (rc == 0 && fsync(n->fd) < 0)
		rc = -errno;
	if (rc < 0)
		return rc;
	node_hold_names(&f->nodes);
	rc = check_place(req, n, dir, name);
	if (rc == 0)
		rc = move(f, n, dir, name, old);
	node_let_names(&f->nodes);
	return rc;
}

void tmpfile_adopt(fuse_req_t req, struct node *n, const char *name, size_t size)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = ref_parent(&f->nodes, n);
	char old[NODE_PATH_LEN] = "";
	int rc = f->readonly ? -EROFS : is_snapshot_name(name, size) ? 0 : -EINVAL;

	if (rc == 0)
		rc = adopt(req, n, dir, name, old);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else if (*old == '\0')
		fuse_reply_ioctl(req, 0, NULL, 0);
	else
		notify_then_reply(req, dir->id, store_name_of(old));
	node_unref(&f->nodes, dir);
}
