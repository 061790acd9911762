/* SPDX-License-Identifier: Apache-2.0 */
/* What the fmfs verbs ask of a mount: common/fmfs_ioctl.h. */
#ifndef FM_FUSE_CONTROL_H
#define FM_FUSE_CONTROL_H

#include "fuse/fuse_version.h"

void fmfs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
		struct fuse_file_info *fi, unsigned int flags, const void *in,
		size_t in_len, size_t out_max);

#endif
