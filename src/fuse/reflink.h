/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clones of files that share their blocks (FICLONE), and how long they hold up a program
 * that writes to the file.
 *
 * The kernel has the file locked meanwhile, and the time goes with the number of its
 * extents: 10 to 40 us for each.  A pool that was cloned and written to at random often
 * has 100,000, and its writers would stand still for seconds.  XFS takes 2 us for an extent
 * that the clone has already; so the clone is made piece by piece first, with writers
 * going on in between, and then wholly, which is the moment: as a virtual machine is
 * moved while it runs (Clark et al., NSDI 2005).  Btrfs does not, and what it does not have
 * to clone again is cut down by defrag.h.
 */
#ifndef FM_FUSE_REFLINK_H
#define FM_FUSE_REFLINK_H

#include <stdint.h>
#include <sys/types.h>

#include "fuse/fuse_version.h"

/*
 * Prepare to make `to` a clone of `from`, both open for reading and writing, where that
 * makes the moment shorter.  It is part of it after, and no moment: reflink_whole() is
 * to follow.  If that took a while, `from` was synced after it.  0, -EINTR (see copy.h), or
 * -errno of syncing the file.
 */
int reflink_in_pieces(fuse_req_t req, int from, int to);

/* Make it one.  How long that took, in nanoseconds, or -errno of FICLONE. */
int64_t reflink_whole(int from, int to);

/* A range of blocks of `from` is at to_off of `to`, too: 0 or -errno of FICLONERANGE. */
int reflink_range(int from, off_t off, off_t len, int to, off_t to_off);

#endif
