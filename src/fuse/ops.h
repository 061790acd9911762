/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of the file system, as libfuse wants them. */
#ifndef FM_FUSE_OPS_H
#define FM_FUSE_OPS_H

#include "fuse/fuse_version.h"

/* All but init, which mount.c adds.  The session's user data is struct fmfs. */
extern const struct fuse_lowlevel_ops fmfs_ops;

#endif
