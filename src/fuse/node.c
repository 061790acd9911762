/* SPDX-License-Identifier: Apache-2.0 */
/* The table of nodes, and the way from a node to its file. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/fuse_version.h"
#include "fuse/locks.h"
#include "fuse/node.h"

/* --- table ----------------------------------------------------------- */

/* Numbers of nodes beside the inode number have something in these bits. */
#define BESIDE_SHIFT 56
#define NBESIDE 128
#define BESIDE_MASK (UINT64_C(127) << BESIDE_SHIFT)
#define ID_OF_1 (UINT64_C(1) << 63) /* 1 is taken by the root */

static uint64_t id_of(ino_t ino)
{
	return ino == FUSE_ROOT_ID ? ID_OF_1 : ino;
}

/* All numbers for one inode number are in one bucket. */
static struct node **bucket_of(struct node_table *t, uint64_t id)
{
	return &t->bucket[(id & ~BESIDE_MASK) * 0x9e3779b97f4a7c15ull >> 32 &
			  (t->nbuckets - 1)];
}

static struct node *find(struct node_table *t, uint64_t id)
{
	struct node *n = *bucket_of(t, id);

	while (n != NULL && (n->id != id || node_is_retired(n)))
		n = n->next;
	return n;
}

/* The node of the file that has the inode number now. */
static struct node *find_ino(struct node_table *t, ino_t ino)
{
	struct node *n = *bucket_of(t, id_of(ino));

	while (n != NULL && (n->ino != ino || n->gone || n == t->root))
		n = n->next;
	return n;
}

/* A number that is free, for a file with the inode number; 0: there is none. */
static uint64_t free_id(struct node_table *t, ino_t ino)
{
	uint64_t id = id_of(ino), i;

	for (i = 0; i < NBESIDE && (i == 0 || (ino & BESIDE_MASK) == 0); i++)
		if (find(t, id | i << BESIDE_SHIFT) == NULL)
			return id | i << BESIDE_SHIFT;
	return 0;
}

/* More buckets when they are full; if there is no memory, long chains work. */
static void grow(struct node_table *t)
{
	struct node **old = t->bucket, **bucket, *n, *next;
	size_t nold = t->nbuckets;

	bucket = calloc(nold * 2, sizeof(*bucket));
	if (bucket == NULL)
		return;
	t->bucket = bucket;
	t->nbuckets = nold * 2;
	for (size_t i = 0; i < nold; i++)
		for (n = old[i]; n != NULL; n = next) {
			struct node **b = bucket_of(t, n->id);

			next = n->next;
			n->next = *b;
			*b = n;
		}
	free(old);
}

static struct node *make(struct node_table *t, uint64_t id, const struct stat *st)
{
	struct node *n = calloc(1, sizeof(*n));
	struct node **b;

	if (n == NULL)
		return NULL;
	pthread_mutex_init(&n->lock, NULL);
	n->id = id;
	n->ino = st->st_ino;
	n->dir = S_ISDIR(st->st_mode);
	n->fd = -1;
	n->old_fd = -1;
	if (t->nnodes >= t->nbuckets)
		grow(t);
	b = bucket_of(t, id);
	n->next = *b;
	*b = n;
	t->nnodes++;
	return n;
}

static void drop_if_unused(struct node_table *t, struct node *n)
{
	struct node **p;
	struct node *parent;

	while (n != t->root && n->nlookup == 0 && n->nref == 0) {
		for (p = bucket_of(t, n->id); *p != n; p = &(*p)->next)
			;
		*p = n->next;
		t->nnodes--;
		parent = n->parent;
		pthread_mutex_destroy(&n->lock);
		free(n->tmp_name);
		free(n->name);
		free(n);
		parent->nref--;
		n = parent;
	}
}

/* Give it its place; false: no memory, and nothing changed. */
static bool place(struct node_table *t, struct node *n, struct node *parent,
		  const char *name)
{
	struct node *old = n->parent;
	char *copy;

	if (name_is_snapshot(name))
		parent->lacks_snapshots = false;
	if (!n->gone && old == parent && strcmp(n->name, name) == 0)
		return true;
	copy = strdup(name);
	if (copy == NULL)
		return false;
	free(n->name);
	n->name = copy;
	n->gone = false;
	parent->nref++;
	n->parent = parent;
	if (old != NULL) {
		old->nref--;
		drop_if_unused(t, old);
	}
	return true;
}

int node_table_init(struct node_table *t, const struct store *s)
{
	struct stat st;

	*t = (struct node_table){ .store = s, .nbuckets = 1024 };
	pthread_mutex_init(&t->lock, NULL);
	if (fstat(s->pools_fd, &st) < 0)
		return -errno;
	t->bucket = calloc(t->nbuckets, sizeof(*t->bucket));
	if (t->bucket == NULL)
		return -ENOMEM;
	t->root = make(t, FUSE_ROOT_ID, &st);
	if (t->root == NULL)
		return -ENOMEM;
	return 0;
}

void node_table_destroy(struct node_table *t)
{
	struct node *n, *next;

	for (size_t i = 0; t->bucket != NULL && i < t->nbuckets; i++)
		for (n = t->bucket[i]; n != NULL; n = next) {
			next = n->next;
			locks_drop_all(n);
			if (n->nopen > 0)
				close(n->fd);
			if (n->old_fd >= 0)
				close(n->old_fd);
			pthread_mutex_destroy(&n->lock);
			free(n->tmp_name);
			free(n->name);
			free(n);
		}
	free(t->bucket);
	t->bucket = NULL;
	pthread_mutex_destroy(&t->lock);
}

struct node *node_find(struct node_table *t, uint64_t id)
{
	struct node *n;

	if (id == FUSE_ROOT_ID)
		return t->root;
	pthread_mutex_lock(&t->lock);
	n = find(t, id);
	pthread_mutex_unlock(&t->lock);
	return n;
}

/* The node for the file, with its place still to be found; NULL: no memory. */
static struct node *find_or_make(struct node_table *t, const struct stat *st)
{
	struct node *n = find_ino(t, st->st_ino);
	uint64_t id;

	if (n != NULL && n->dir == S_ISDIR(st->st_mode))
		return n;
	if (n != NULL)
		n->gone = true; /* removed in the store */
	id = free_id(t, st->st_ino);
	return id == 0 ? NULL : make(t, id, st);
}

/* `st` may be from just before its file was replaced: that file's node. */
static struct node *find_replaced(struct node_table *t, const struct stat *st)
{
	struct node *n = *bucket_of(t, id_of(st->st_ino));

	while (n != NULL && (n->ino != st->st_ino || n->old_fd < 0))
		n = n->next;
	return n;
}

struct node *node_enter(struct node_table *t, struct node *parent, const char *name,
			const struct stat *st)
{
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = find_replaced(t, st);
	if (n == NULL) {
		n = find_or_make(t, st);
		if (n != NULL && !place(t, n, parent, name)) {
			/* A new one has neither parent nor name yet. */
			if (n->parent == NULL) {
				n->parent = parent;
				parent->nref++;
			}
			drop_if_unused(t, n);
			n = NULL;
		}
	}
	if (n != NULL)
		n->nlookup++;
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct node *node_restore(struct node_table *t, uint64_t id, ino_t ino, bool dir)
{
	struct stat st = { .st_ino = ino, .st_mode = dir ? S_IFDIR : S_IFREG };

	return find(t, id) != NULL ? NULL : make(t, id, &st);
}

void node_restore_place(struct node *n, struct node *parent, char *name)
{
	n->name = name;
	n->parent = parent;
	parent->nref++;
}

/* Let go of the lock, and of the node if nobody uses it.  Closing a large file that has
 * no name any more may take long. */
static void unlock_and_drop(struct node_table *t, struct node *n)
{
	int old_fd = n->nlookup == 0 && n->nref == 0 ? n->old_fd : -1;

	drop_if_unused(t, n);
	pthread_mutex_unlock(&t->lock);
	if (old_fd >= 0)
		close(old_fd);
}

void node_forget(struct node_table *t, struct node *n, uint64_t nlookup)
{
	pthread_mutex_lock(&t->lock);
	n->nlookup -= nlookup < n->nlookup ? nlookup : n->nlookup;
	unlock_and_drop(t, n);
}

void node_ref(struct node_table *t, struct node *n)
{
	pthread_mutex_lock(&t->lock);
	n->nref++;
	pthread_mutex_unlock(&t->lock);
}

void node_unref(struct node_table *t, struct node *n)
{
	pthread_mutex_lock(&t->lock);
	n->nref--;
	unlock_and_drop(t, n);
}

/* Without memory for the name the node is lost to the kernel, which looks the name up
 * again. */
static void rename_node(struct node_table *t, struct node *n, struct node *parent,
			const char *name)
{
	if (!place(t, n, parent, name))
		n->gone = true;
}

void node_set_name(struct node_table *t, struct node *n, struct node *parent,
		   const char *name)
{
	pthread_mutex_lock(&t->lock);
	rename_node(t, n, parent, name);
	pthread_mutex_unlock(&t->lock);
}

void node_gone(struct node_table *t, ino_t ino)
{
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = find_ino(t, ino);
	if (n != NULL)
		n->gone = true;
	pthread_mutex_unlock(&t->lock);
}

uint64_t node_replaced(struct node_table *t, ino_t ino, int fd)
{
	uint64_t id = 0;
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = find_ino(t, ino);
	if (n != NULL) {
		n->gone = true;
		n->old_fd = fd;
		id = n->id;
	}
	pthread_mutex_unlock(&t->lock);
	if (id == 0)
		close(fd);
	return id;
}

struct node *node_find_folder(struct node_table *t, ino_t ino)
{
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = ino == t->root->ino ? t->root : find_ino(t, ino);
	if (n != NULL && (!n->dir || n->gone))
		n = NULL;
	if (n != NULL)
		n->nref++;
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct node *node_folder(struct node_table *t, struct node *n, char name[NAME_MAX + 1])
{
	struct node *folder = NULL;

	pthread_mutex_lock(&t->lock);
	if (!n->gone && n->parent != NULL) {
		folder = n->parent;
		folder->nref++;
		snprintf(name, NAME_MAX + 1, "%s", n->name);
	}
	pthread_mutex_unlock(&t->lock);
	return folder;
}

void node_hold_names(struct node_table *t)
{
	pthread_rwlock_rdlock(&t->names);
}

void node_change_names(struct node_table *t)
{
	pthread_rwlock_wrlock(&t->names);
}

void node_let_names(struct node_table *t)
{
	pthread_rwlock_unlock(&t->names);
}

/* --- paths ------------------------------------------------------------ */

/* Put `name` before what is at *p, within buf; *p is its new start. */
static int prepend(char *buf, char **p, const char *name)
{
	size_t len = strlen(name);

	if ((size_t)(*p - buf) < len + 1)
		return -ENAMETOOLONG;
	if (**p != '\0')
		*--*p = '/';
	*p -= len;
	memcpy(*p, name, len);
	return 0;
}

/* `name`, if not NULL, in the folder n, with t->lock held. */
static int build_path(struct node_table *t, struct node *n, const char *name,
		      char path[NODE_PATH_LEN])
{
	char *p = path + NODE_PATH_LEN - 1;
	int rc = 0;

	*p = '\0';
	if (name != NULL)
		rc = prepend(path, &p, name);
	for (; rc == 0 && n != t->root; n = n->parent)
		rc = n->gone ? -ENOENT : prepend(path, &p, n->name);
	if (rc < 0)
		return rc;
	if (*p == '\0')
		*--p = '.';
	memmove(path, p, path + NODE_PATH_LEN - p);
	return 0;
}

int node_path(struct node_table *t, struct node *n, char path[NODE_PATH_LEN])
{
	return node_child_path(t, n, NULL, path);
}

bool node_has_name(struct node_table *t, struct node *n)
{
	bool has;

	pthread_mutex_lock(&t->lock);
	has = !n->gone;
	pthread_mutex_unlock(&t->lock);
	return has;
}

int node_child_path(struct node_table *t, struct node *parent, const char *name,
		    char path[NODE_PATH_LEN])
{
	int rc;

	pthread_mutex_lock(&t->lock);
	rc = build_path(t, parent, name, path);
	pthread_mutex_unlock(&t->lock);
	return rc;
}

bool name_is_snapshot(const char *name)
{
	return strchr(name, '@') != NULL;
}

bool node_is_snapshot(struct node_table *t, struct node *n)
{
	bool is;

	pthread_mutex_lock(&t->lock);
	is = n->name != NULL && name_is_snapshot(n->name);
	pthread_mutex_unlock(&t->lock);
	return is;
}

/* --- files ------------------------------------------------------------- */

int fd_reopen(int fd, int flags)
{
	char path[32];
	int out;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	out = open(path, flags | O_CLOEXEC);
	return out < 0 ? -errno : out;
}

static int check_is(const struct node *n, const struct node_table *t,
		    const struct stat *st)
{
	return st->st_ino == n->ino && store_owns(t->store, st) &&
			       S_ISDIR(st->st_mode) == n->dir
		       ? 0
		       : -ESTALE;
}

/* The way to a file that is not open: its path, or if it was replaced, the descriptor,
 * which stays while we have the node; else that is -1. */
static int find_way(struct node_table *t, struct node *n, char path[NODE_PATH_LEN],
		    int *old_fd)
{
	int rc = 0;

	pthread_mutex_lock(&t->lock);
	*old_fd = n->old_fd;
	if (n->old_fd < 0)
		rc = build_path(t, n, NULL, path);
	pthread_mutex_unlock(&t->lock);
	return rc;
}

static int stat_by_name(struct node_table *t, struct node *n, struct stat *st)
{
	char path[NODE_PATH_LEN];
	int old_fd, rc = find_way(t, n, path, &old_fd);

	if (rc < 0)
		return rc;
	if (old_fd >= 0)
		return fstat(old_fd, st) < 0 ? -errno : 0;
	return fstatat(t->store->pools_fd, path, st, AT_SYMLINK_NOFOLLOW) < 0
		       ? -errno
		       : check_is(n, t, st);
}

int node_stat(struct node_table *t, struct node *n, struct stat *st)
{
	int rc;

	pthread_mutex_lock(&n->lock);
	if (n->nopen > 0) {
		rc = fstat(n->fd, st) < 0 ? -errno : 0;
		pthread_mutex_unlock(&n->lock);
		return rc;
	}
	pthread_mutex_unlock(&n->lock);
	node_hold_names(t);
	rc = stat_by_name(t, n, st);
	node_let_names(t);
	return rc;
}

static int open_way(struct node_table *t, struct node *n, int flags)
{
	char path[NODE_PATH_LEN];
	struct stat st;
	int fd, old_fd, rc = find_way(t, n, path, &old_fd);

	if (rc < 0)
		return rc;
	if (old_fd >= 0)
		return fd_reopen(old_fd, flags);
	fd = openat(t->store->pools_fd, path, flags | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	rc = fstat(fd, &st) < 0 ? -errno : check_is(n, t, &st);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

/* By its name, whatever is open. */
static int open_by_name(struct node_table *t, struct node *n, int flags)
{
	int fd;

	node_hold_names(t);
	fd = open_way(t, n, flags | O_CLOEXEC | O_NONBLOCK);
	node_let_names(t);
	return fd;
}

int node_open(struct node_table *t, struct node *n, int flags)
{
	int fd;

	pthread_mutex_lock(&n->lock);
	if (n->nopen > 0) {
		fd = fd_reopen(n->fd, flags);
		pthread_mutex_unlock(&n->lock);
		return fd;
	}
	pthread_mutex_unlock(&n->lock);
	return open_by_name(t, n, flags);
}

static bool cannot_write(int err)
{
	return err == -EROFS || err == -EACCES || err == -EPERM || err == -ETXTBSY;
}

/* The first use, with n->lock held. */
static int open_first(struct node_table *t, struct node *n, bool write)
{
	int fd = open_by_name(t, n, O_RDWR);

	n->writable = fd >= 0;
	if (cannot_write(fd) && !write)
		fd = open_by_name(t, n, O_RDONLY);
	if (fd < 0)
		return fd;
	n->fd = fd;
	n->backing_id = 0;
	return 0;
}

/* A further use wants to write, and the first could not: with n->lock held. */
static int make_writable(struct node *n)
{
	int fd = fd_reopen(n->fd, O_RDWR);
	int rc = 0;

	if (fd < 0)
		return fd;
	/* In place, for those who are using the number. */
	if (dup3(fd, n->fd, O_CLOEXEC) < 0)
		rc = -errno;
	else
		n->writable = true;
	close(fd);
	return rc;
}

int node_hold(struct node_table *t, struct node *n, bool write)
{
	int rc = 0;

	pthread_mutex_lock(&n->lock);
	if (n->nopen == 0)
		rc = open_first(t, n, write);
	else if (write && !n->writable)
		rc = make_writable(n);
	if (rc == 0)
		n->nopen++;
	pthread_mutex_unlock(&n->lock);
	return rc;
}

void node_hold_new(struct node *n, int fd)
{
	pthread_mutex_lock(&n->lock);
	if (n->nopen++ == 0) {
		n->fd = fd;
		n->writable = true;
		n->backing_id = 0;
	} else {
		close(fd);
	}
	pthread_mutex_unlock(&n->lock);
}

int node_release(struct node *n)
{
	int backing_id = 0;

	pthread_mutex_lock(&n->lock);
	if (--n->nopen == 0) {
		backing_id = n->backing_id;
		n->backing_id = 0;
		close(n->fd);
		n->fd = -1;
	}
	pthread_mutex_unlock(&n->lock);
	return backing_id;
}
