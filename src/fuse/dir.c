/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing folders: the store's own listing, with the positions of its file
 * system, which stay right while the folder changes.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/dir.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/state.h"

#define DIRS_MAX ((size_t)1 << 24) /* that can have been open */

struct dir { /* an open folder */
	pthread_mutex_t lock;
	DIR *stream;
	off_t pos; /* where the stream stands; -1: nobody knows */
};

/* --- the table ----------------------------------------------------------------- */

static struct dir *dir_of(fuse_req_t req, const struct fuse_file_info *fi)
{
	struct dir_table *t = &fmfs_of(req)->dirs;
	struct dir *d;

	pthread_mutex_lock(&t->lock);
	d = fi->fh < t->n ? t->dir[fi->fh] : NULL;
	pthread_mutex_unlock(&t->lock);
	return d;
}

/* With t->lock held. */
static int grow(struct dir_table *t, size_t n)
{
	struct dir **dir = realloc(t->dir, n * sizeof(*dir));

	if (dir == NULL)
		return -ENOMEM;
	memset(dir + t->n, 0, (n - t->n) * sizeof(*dir));
	t->dir = dir;
	t->n = n;
	return 0;
}

/* Give it the first number that is free. */
static int add(struct dir_table *t, struct dir *d, uint64_t *fh)
{
	size_t i = 0;
	int rc = 0;

	pthread_mutex_lock(&t->lock);
	while (i < t->n && t->dir[i] != NULL)
		i++;
	if (i == t->n)
		rc = grow(t, t->n == 0 ? 16 : 2 * t->n);
	if (rc == 0) {
		t->dir[i] = d;
		*fh = i;
	}
	pthread_mutex_unlock(&t->lock);
	return rc;
}

static struct dir *take(struct dir_table *t, uint64_t fh)
{
	struct dir *d;

	pthread_mutex_lock(&t->lock);
	d = t->dir[fh];
	t->dir[fh] = NULL;
	pthread_mutex_unlock(&t->lock);
	return d;
}

/* Takes the stream. */
static struct dir *make(DIR *stream, off_t pos)
{
	struct dir *d = calloc(1, sizeof(*d));

	if (d == NULL) {
		closedir(stream);
		return NULL;
	}
	pthread_mutex_init(&d->lock, NULL);
	d->stream = stream;
	d->pos = pos;
	return d;
}

static void close_dir(struct dir *d)
{
	if (d == NULL)
		return;
	closedir(d->stream);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void dirs_init(struct dir_table *t)
{
	*t = (struct dir_table){ .n = 0 };
	pthread_mutex_init(&t->lock, NULL);
}

void dirs_destroy(struct dir_table *t)
{
	for (size_t i = 0; i < t->n; i++)
		close_dir(t->dir[i]);
	free(t->dir);
	pthread_mutex_destroy(&t->lock);
}

void dirs_save(const struct dir_table *t, struct state *s)
{
	state_put(s, t->n);
	for (size_t i = 0; i < t->n; i++)
		state_put_fd(s, t->dir[i] == NULL ? -1 : dirfd(t->dir[i]->stream));
}

/* At the number that it had; the descriptor is ours. */
static int load(struct dir_table *t, size_t i, int fd)
{
	DIR *stream = fdopendir(fd);

	if (stream == NULL) {
		close(fd);
		return -ENOMEM;
	}
	t->dir[i] = make(stream, -1);
	return t->dir[i] == NULL ? -ENOMEM : 0;
}

void dirs_load(struct dir_table *t, struct state *s)
{
	size_t n = state_get(s);
	int fd;

	if (n > DIRS_MAX || (n > 0 && grow(t, n) < 0))
		s->failed = true;
	for (size_t i = 0; i < n && !s->failed; i++) {
		fd = state_get_fd(s);
		if (fd >= 0 && load(t, i, fd) < 0)
			s->failed = true;
	}
}

/* --- operations ---------------------------------------------------------------- */

static int open_stream(struct fmfs *f, struct node *n, DIR **out)
{
	int fd;

	if (n == NULL)
		return -ESTALE;
	fd = node_open(&f->nodes, n, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	*out = fdopendir(fd);
	if (*out == NULL) {
		close(fd);
		return -ENOMEM;
	}
	return 0;
}

static int open_dir(struct fmfs *f, struct node *n, uint64_t *fh)
{
	DIR *stream;
	struct dir *d;
	int rc = open_stream(f, n, &stream);

	if (rc < 0)
		return rc;
	d = make(stream, 0);
	rc = d == NULL ? -ENOMEM : add(&f->dirs, d, fh);
	if (rc < 0)
		close_dir(d);
	return rc;
}

void fmfs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	int rc = open_dir(f, fmfs_node(req, ino), &fi->fh);

	if (rc < 0)
		fuse_reply_err(req, -rc);
	else if (fuse_reply_open(req, fi) == -ENOENT)
		close_dir(take(&f->dirs, fi->fh));
}

void fmfs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	close_dir(take(&fmfs_of(req)->dirs, fi->fh));
	fuse_reply_err(req, 0);
}

void fmfs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
		   struct fuse_file_info *fi)
{
	int fd = dirfd(dir_of(req, fi)->stream);
	int rc;

	(void)ino;
	rc = datasync ? fdatasync(fd) : fsync(fd);
	fuse_reply_err(req, rc < 0 ? errno : 0);
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

struct listing {
	fuse_req_t req;
	struct node *node;
	bool plus;
	char *buf;
	size_t len, size; /* bytes used, and in all */
};

/* 1: added; 0: not to be shown; -ENOSPC: does not fit. */
static int add_entry(struct listing *l, int fd, const struct dirent *de)
{
	struct fuse_entry_param e = { .attr.st_ino = de->d_ino };
	struct fmfs *f = fmfs_of(l->req);
	size_t left = l->size - l->len, need;
	char *to = l->buf + l->len;
	struct stat st;

	e.attr.st_mode = DTTOIF(de->d_type);
	if (!is_dots(de->d_name) && (l->plus || de->d_type == DT_UNKNOWN)) {
		if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return 0; /* removed meanwhile */
		if (!entry_visible(f, de->d_name, &st))
			return 0;
		e.attr = st;
	} else if (!is_dots(de->d_name) && de->d_type != DT_REG &&
		   (de->d_type != DT_DIR || name_is_snapshot(de->d_name))) {
		return 0;
	}
	if (!l->plus) {
		need = fuse_add_direntry(l->req, to, left, de->d_name, &e.attr,
					 de->d_off);
		if (need > left)
			return -ENOSPC;
	} else {
		need = fuse_add_direntry_plus(l->req, NULL, 0, de->d_name, NULL, 0);
		if (need > left)
			return -ENOSPC;
		if (!is_dots(de->d_name) &&
		    entry_fill(f, l->node, de->d_name, &st, &e) < 0)
			return 0;
		fuse_add_direntry_plus(l->req, to, left, de->d_name, &e, de->d_off);
	}
	l->len += need;
	return 1;
}

/* Fill the listing from `off` on, with d->lock held. */
static int fill(struct dir *d, struct listing *l, off_t off)
{
	struct dirent *de;

	if (off != d->pos) {
		seekdir(d->stream, off);
		d->pos = off;
	}
	for (;;) {
		errno = 0;
		de = readdir(d->stream);
		if (de == NULL)
			return -errno;
		if (add_entry(l, dirfd(d->stream), de) == -ENOSPC)
			break;
		d->pos = de->d_off;
	}
	/* The stream is one ahead. */
	seekdir(d->stream, d->pos);
	return 0;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct dir *d,
		 bool plus)
{
	struct listing l = {
		.req = req,
		.node = fmfs_node(req, ino),
		.plus = plus,
		.size = size,
	};
	int rc;

	l.buf = malloc(size);
	if (l.buf == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&d->lock);
	rc = fill(d, &l, off);
	pthread_mutex_unlock(&d->lock);
	if (rc < 0 && l.len == 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_buf(req, l.buf, l.len);
	free(l.buf);
}

void fmfs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		  struct fuse_file_info *fi)
{
	list(req, ino, size, off, dir_of(req, fi), false);
}

void fmfs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	list(req, ino, size, off, dir_of(req, fi), true);
}
