/* SPDX-License-Identifier: Apache-2.0 */
/* Listing folders. */
#ifndef FM_FUSE_DIR_H
#define FM_FUSE_DIR_H

#include "fuse/fuse_version.h"

void fmfs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		  struct fuse_file_info *fi);
void fmfs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi);
void fmfs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
		   struct fuse_file_info *fi);

#endif
