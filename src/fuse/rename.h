/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renaming.  A pool takes its snapshots along, POOL@TAG to NEW@TAG: all of them, or
 * the rename fails with EEXIST and nothing has changed.
 *
 * Several files cannot be renamed at once.  What is to be done is therefore written to
 * the file `rename` of the store first, and the next mount does what is left of it.  It
 * has, each with a NUL behind it: "fmfs rename 1", the inode number of the pool in
 * decimal, that of the file that it replaces, or 0, the pool's path below pools/, and the
 * path that it gets.  No other file is replaced, whatever it says.
 */
#ifndef FM_FUSE_RENAME_H
#define FM_FUSE_RENAME_H

#include "fuse/fuse_version.h"

struct store;

/* Finish what another daemon had begun; what cannot be is logged. */
void rename_recover(struct store *s);

void fmfs_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		 fuse_ino_t newparent, const char *newname, unsigned int flags);

#endif
