/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing folders.  The kernel knows an open one by its place in a table, which it keeps
 * when another daemon goes on (handover.h), with the same description.
 */
#ifndef FM_FUSE_DIR_H
#define FM_FUSE_DIR_H

#include <pthread.h>
#include <stddef.h>

#include "fuse/fuse_version.h"

struct dir;
struct state;

struct dir_table {
	pthread_mutex_t lock;
	struct dir **dir; /* NULL: free */
	size_t n;
};

void dirs_init(struct dir_table *t);
void dirs_destroy(struct dir_table *t);
void dirs_save(const struct dir_table *t, struct state *s);
void dirs_load(struct dir_table *t, struct state *s); /* to an empty one */

void fmfs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		  struct fuse_file_info *fi);
void fmfs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi);
void fmfs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
		   struct fuse_file_info *fi);

#endif
