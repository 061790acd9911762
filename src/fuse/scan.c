/* SPDX-License-Identifier: Apache-2.0 */
/* Reading pools for the catalog: one, or all that are in a folder. */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "common/log.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/scan.h"
#include "heap/inspect.h"

/* --- from a file to a row ------------------------------------------------- */

struct root_list {
	struct pool_root *root;
	size_t n, size;
};

static int collect_root(const struct pool_root *root, void *arg)
{
	struct root_list *l = arg;

	if (l->n == CATALOG_NROOTS_MAX)
		return -EFBIG;
	if (l->n == l->size) {
		size_t size = l->size == 0 ? 16 : l->size * 2;
		struct pool_root *p = reallocarray(l->root, size, sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		l->root = p;
		l->size = size;
	}
	l->root[l->n++] = *root;
	return 0;
}

/* Let the catalog have the pool, and these roots of it. */
static int put_pool(struct catalog *c, const struct catalog_pool *pool,
		    const struct root_list *l)
{
	struct catalog_root *roots = calloc(l->n + 1, sizeof(*roots));
	int rc;

	if (roots == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < l->n; i++)
		roots[i] = (struct catalog_root){
			.name = l->root[i].name,
			.type = l->root[i].type,
			.off = l->root[i].off,
			.size = l->root[i].size,
		};
	rc = catalog_put(c, pool, roots, l->n);
	free(roots);
	return rc;
}

static uint64_t birth_ns(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0 ||
	    !(stx.stx_mask & STATX_BTIME))
		return 0;
	return stx.stx_btime.tv_sec * 1000000000ull + stx.stx_btime.tv_nsec;
}

static uint64_t ctime_ns(const struct stat *st)
{
	return st->st_ctim.tv_sec * 1000000000ull + st->st_ctim.tv_nsec;
}

int scan_kind(const struct pool_info *info)
{
	switch (info->state) {
	case POOL_NONE:
		return CATALOG_FILE;
	case POOL_GOOD:
		return info->incompat & FM_INCOMPAT_ATOMIC ? CATALOG_ATOMIC
							   : CATALOG_LIVE;
	default:
		return CATALOG_DAMAGED;
	}
}

static int note_ino(const struct catalog_pool *pool, void *arg)
{
	*(uint64_t *)arg = pool->ino;
	return 0;
}

static bool is_known(struct catalog *c, const struct catalog_pool *pool)
{
	uint64_t ino = 0;

	return catalog_get(c, pool->name, note_ino, &ino) == 0 &&
	       ino == pool->ino;
}

/* 1: the catalog is to keep what it has of the pool. */
static int find_roots(struct catalog *c, int fd, struct catalog_pool *pool,
		      struct root_list *roots)
{
	int rc = inspect_roots(fd, collect_root, roots);

	if (rc >= 0)
		return 0;
	if (rc == -EUCLEAN) {
		pool->kind = CATALOG_DAMAGED;
		pool->why = "the named roots are damaged";
		return 0;
	}
	/* A checkpoint, after which it will be told again; or somebody just has the lock.
	 * Nobody else's file waits for that, or for what is too much. */
	if (rc == -EBUSY && is_known(c, pool))
		return 1;
	roots->n = 0;
	pool->why = rc == -EFBIG ? "too much to be in the catalog" : strerror(-rc);
	if (rc != -EFBIG)
		pool->stamp_ns = 0;
	return 0;
}

/* Of a snapshot: the pool that it is of, to be freed. */
static char *parent_of(const char *path)
{
	const char *base = store_name_of(path);

	return strndup(path, base - path + strcspn(base, "@"));
}

/*
 * Put the file into the catalog.  `in_use`: somebody may be writing to it, in
 * ways that do not show in its times; so it is read again at the next scan.
 */
static int put_file(struct catalog *c, const char *path, int fd, bool in_use)
{
	const bool is_snapshot = name_is_snapshot(store_name_of(path));
	struct catalog_pool pool = { .name = path };
	struct root_list roots = { 0 };
	struct pool_info info;
	char *parent = NULL;
	struct stat st;
	int rc;

	/* The times first: what changes later is then seen as changed. */
	if (fstat(fd, &st) < 0)
		return -errno;
	rc = inspect_pool(fd, &info);
	if (rc < 0)
		return rc;
	pool.kind = scan_kind(&info);
	pool.ino = st.st_ino;
	pool.stamp_ns = in_use || locks_pool_in_use(fd) ? 0 : ctime_ns(&st);
	pool.created_ns = birth_ns(fd);
	if (info.state == POOL_GOOD) {
		memcpy(pool.uuid, info.uuid, sizeof(pool.uuid));
		if (!is_snapshot)
			pool.created_ns = info.created_ns;
		rc = find_roots(c, fd, &pool, &roots);
	}
	if (pool.kind == CATALOG_DAMAGED && pool.why == NULL)
		pool.why = info.why;
	if (is_snapshot)
		pool.parent = parent = parent_of(path);
	if (is_snapshot && parent == NULL)
		rc = -ENOMEM;
	if (rc == 0)
		rc = put_pool(c, &pool, &roots);
	free(parent);
	free(roots.root);
	return rc < 0 ? rc : 0;
}

static int open_node(struct node_table *t, struct node *n, char path[NODE_PATH_LEN])
{
	int fd;

	/* The path and the file are to be of one moment. */
	node_hold_names(t);
	fd = node_path(t, n, path);
	if (fd == 0)
		fd = node_open(t, n, O_RDONLY | O_NOATIME);
	node_let_names(t);
	return fd;
}

int scan_node(struct fmfs *f, struct catalog *c, struct node *n)
{
	char path[NODE_PATH_LEN];
	bool in_use;
	int fd, rc;

	pthread_mutex_lock(&n->lock);
	in_use = n->nopen > 0;
	pthread_mutex_unlock(&n->lock);
	fd = open_node(&f->nodes, n, path);
	if (fd < 0)
		return 0; /* removed since */
	rc = put_file(c, path, fd, in_use);
	close(fd);
	return rc;
}

/* --- all that is in a folder -------------------------------------------------- */

struct known { /* a row of the catalog */
	char *name;
	uint64_t ino, stamp_ns;
	bool seen; /* its file is there */
};

struct scan {
	struct fmfs *f;
	struct catalog *catalog;
	const char *prefix;   /* of the names that are in the folder */
	struct known *known;  /* in the order of the names */
	size_t nknown, size;
	struct folder_queue folders; /* to be listed */
};
#define BEYOND 1 /* not one with the prefix, which are one after the other */

int scan_add_folder(struct folder_queue *q, const char *path)
{
	struct folder *f = malloc(sizeof(*f) + strlen(path) + 1);

	if (f == NULL)
		return -ENOMEM;
	strcpy(f->path, path);
	STAILQ_INSERT_TAIL(q, f, link);
	return 0;
}

static int collect_known(const struct catalog_pool *pool, void *arg)
{
	struct scan *s = arg;
	struct known *k;

	if (strncmp(pool->name, s->prefix, strlen(s->prefix)) != 0)
		return BEYOND;
	if (s->nknown == s->size) {
		size_t size = s->size == 0 ? 64 : s->size * 2;

		k = reallocarray(s->known, size, sizeof(*k));
		if (k == NULL)
			return -ENOMEM;
		s->known = k;
		s->size = size;
	}
	k = &s->known[s->nknown];
	*k = (struct known){
		.name = strdup(pool->name),
		.ino = pool->ino,
		.stamp_ns = pool->stamp_ns,
	};
	s->nknown++;
	return k->name == NULL ? -ENOMEM : 0;
}

static void free_known(struct scan *s)
{
	for (size_t i = 0; i < s->nknown; i++)
		free(s->known[i].name);
	free(s->known);
}

static int compare_known(const void *a, const void *b)
{
	return strcmp(((const struct known *)a)->name, ((const struct known *)b)->name);
}

static int scan_file(struct scan *s, const char *path, const struct stat *st)
{
	const struct known key = { .name = (char *)path };
	struct known *k;
	int fd, rc;

	k = s->nknown == 0 ? NULL
			   : bsearch(&key, s->known, s->nknown, sizeof(*k), compare_known);
	if (k != NULL) {
		k->seen = true;
		if (k->ino == st->st_ino && k->stamp_ns == ctime_ns(st))
			return 0;
	}
	fd = openat(s->f->store.pools_fd, path,
		    O_RDONLY | O_NOATIME | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		log_warn("%s: cannot read it for the catalog: %s", path,
			 strerror(errno));
		return 0;
	}
	/* It may be open at the mount, if this scan repairs the catalog. */
	rc = put_file(s->catalog, path, fd, s->f->session != NULL);
	close(fd);
	return rc;
}

static int scan_entry(struct scan *s, const char *folder, int dirfd, const char *name)
{
	char path[NODE_PATH_LEN];
	struct stat st;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	    fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !entry_visible(s->f, name, &st))
		return 0;
	if (snprintf(path, sizeof(path), "%s%s%s", folder, *folder == '\0' ? "" : "/",
		     name) >= (int)sizeof(path))
		return 0; /* nor can it be reached at the mount */
	return S_ISDIR(st.st_mode) ? scan_add_folder(&s->folders, path)
				   : scan_file(s, path, &st);
}

/* What is in it; the folders there only join the queue. */
static int scan_folder(struct scan *s, const char *folder)
{
	DIR *d = store_list(s->f->store.pools_fd, *folder == '\0' ? "." : folder);
	struct dirent *de;
	int rc = 0;

	if (d == NULL) /* removed meanwhile, or another kind of thing */
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	while (rc == 0 && (de = readdir(d)) != NULL)
		rc = scan_entry(s, folder, dirfd(d), de->d_name);
	closedir(d);
	return rc;
}

static int scan_files(struct scan *s, const char *folder)
{
	int rc = scan_add_folder(&s->folders, folder);
	struct folder *f;

	while ((f = STAILQ_FIRST(&s->folders)) != NULL) {
		STAILQ_REMOVE_HEAD(&s->folders, link);
		if (rc == 0)
			rc = scan_folder(s, f->path);
		free(f);
	}
	for (size_t i = 0; rc == 0 && i < s->nknown; i++)
		if (!s->known[i].seen)
			rc = catalog_remove(s->catalog, s->known[i].name);
	return rc;
}

static int collect_all(struct scan *s)
{
	int rc = catalog_each_pool(s->catalog, s->prefix, collect_known, s);

	if (rc == BEYOND)
		rc = 0;
	if (rc == 0 && s->nknown > 0)
		qsort(s->known, s->nknown, sizeof(*s->known), compare_known);
	return rc;
}

int scan_tree(struct fmfs *f, struct catalog *c, const char *folder)
{
	char prefix[NODE_PATH_LEN + 1];
	struct scan s = { .f = f, .catalog = c, .prefix = prefix };
	int rc, end;

	STAILQ_INIT(&s.folders);
	snprintf(prefix, sizeof(prefix), "%s%s", folder, *folder == '\0' ? "" : "/");
	rc = collect_all(&s);
	if (rc == 0)
		rc = catalog_begin(c);
	if (rc == 0) {
		rc = scan_files(&s, folder);
		end = catalog_end(c);
		if (rc == 0)
			rc = end;
	}
	free_known(&s);
	return rc;
}
