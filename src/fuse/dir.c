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

struct dir { /* an open folder */
	pthread_mutex_t lock;
	DIR *stream;
	off_t pos; /* where the stream stands */
};

static struct dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct dir *)(uintptr_t)fi->fh;
}

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

void fmfs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir *d = calloc(1, sizeof(*d));
	int rc;

	rc = d == NULL ? -ENOMEM
		       : open_stream(fmfs_of(req), fmfs_node(req, ino), &d->stream);
	if (rc < 0) {
		free(d);
		fuse_reply_err(req, -rc);
		return;
	}
	pthread_mutex_init(&d->lock, NULL);
	fi->fh = (uintptr_t)d;
	if (fuse_reply_open(req, fi) == -ENOENT)
		fmfs_releasedir(NULL, ino, fi);
}

void fmfs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir *d = dir_of(fi);

	(void)ino;
	closedir(d->stream);
	pthread_mutex_destroy(&d->lock);
	free(d);
	if (req != NULL)
		fuse_reply_err(req, 0);
}

void fmfs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
		   struct fuse_file_info *fi)
{
	int fd = dirfd(dir_of(fi)->stream);
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
	list(req, ino, size, off, dir_of(fi), false);
}

void fmfs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	list(req, ino, size, off, dir_of(fi), true);
}
