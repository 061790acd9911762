/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files without a name, made by open(2) with O_TMPFILE, and how a file becomes a
 * snapshot that was not taken here but received.
 *
 * Such a file lies in the store's tmp/ (so it needs nothing of the store's file system)
 * until it is adopted or closed for the last time; what a daemon that was killed left is
 * removed when the store is mounted again.
 */
#ifndef FM_FUSE_TMPFILE_H
#define FM_FUSE_TMPFILE_H

#include "fuse/fuse_version.h"

struct fmfs;
struct node;

/* Make one for the caller, as if it were in the folder, with its node held: 0 or -errno. */
int tmpfile_make(fuse_req_t req, struct node *dir, mode_t mode,
		 struct fuse_entry_param *e);

/* The node was released: remove its file, if nobody has it and it has no name. */
void tmpfile_closed(struct fmfs *f, struct node *n);

/* FMFS_IOC_ADOPT, of a node that is open; answers.  `name` has `size` bytes. */
void tmpfile_adopt(fuse_req_t req, struct node *n, const char *name, size_t size);

#endif
