/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the daemon of a mount, by the ioctls of common/fmfs_ioctl.h.
 * Its answers are checked: strings end, names are in order, counts are in
 * bounds; otherwise -EPROTO.  -ENOTTY: the file is not on an fmfs mount.
 */
#ifndef FM_CLI_ASK_H
#define FM_CLI_ASK_H

#include "common/fmfs_ioctl.h"

/* As fmfs_ask_info(). */
int ask_info_at(const char *path, struct fmfs_info *info);

/* Who serves the mount of the open file.  -EOPNOTSUPP: a daemon that does not know the
 * question. */
int ask_daemon(int fd, struct fmfs_daemon *daemon);

/* Call fn for each pool of the mount, or each named root of the pool, in order of
 * name, until it returns non-zero: that, or 0 at the end, or -errno. */
int ask_pools(int root_fd, int (*fn)(const struct fmfs_pool_rec *pool, void *arg),
	      void *arg);
int ask_roots(int fd, int (*fn)(const struct fmfs_root_rec *root, void *arg),
	      void *arg);

#endif
