/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on open files. */
#ifndef FM_FUSE_FILE_H
#define FM_FUSE_FILE_H

#include <stdbool.h>

#include "fuse/fuse_version.h"

/* Was the file opened for reading? */
static inline bool file_reads(const struct fuse_file_info *fi)
{
	return fi->fh & 1;
}

void fmfs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		 struct fuse_file_info *fi);
void fmfs_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode,
		  struct fuse_file_info *fi);
void fmfs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
	       struct fuse_file_info *fi);
void fmfs_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		    struct fuse_file_info *fi);
void fmfs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fmfs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		struct fuse_file_info *fi);
void fmfs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		    struct fuse_file_info *fi);
void fmfs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		struct fuse_file_info *fi);
void fmfs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			  struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			  off_t off_out, struct fuse_file_info *fi_out, size_t len,
			  int flags);

#endif
