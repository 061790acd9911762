/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of files, plain and extended, and of the file system. */
#ifndef FM_FUSE_ATTR_H
#define FM_FUSE_ATTR_H

#include <stdbool.h>

#include "fuse/fuse_version.h"

struct node;

/*
 * Take set-user-ID and set-group-ID from a file that the caller may write to,
 * if he is not the superuser.  The kernel leaves this to us, and does not show
 * us the writes: so it is done when the file is opened for them.
 */
void attr_drop_suid(fuse_req_t req, struct node *n, int fd);

void fmfs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		  struct fuse_file_info *fi);
void fmfs_statfs(fuse_req_t req, fuse_ino_t ino);
void fmfs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fmfs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fmfs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		   size_t size, int flags);
void fmfs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
