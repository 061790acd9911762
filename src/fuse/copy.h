/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying files of the store.  -EINTR: the caller was hit by a signal, or the mount
 * ends.  What was copied till an error is in `to`, which is to be thrown away.
 */
#ifndef FM_FUSE_COPY_H
#define FM_FUSE_COPY_H

#include <stdbool.h>

#include "fuse/fuse_version.h"

/* Is nobody waiting for it any more? */
bool copy_unwanted(fuse_req_t req);

/* The first len bytes of `from`, to be all of `to`.  Holes stay holes. */
int copy_data(fuse_req_t req, int from, int to, off_t len);

/* All of a file that nobody writes to, to an empty one: sharing its blocks, if the store
 * can. */
int copy_file(fuse_req_t req, int from, int to);

#endif
