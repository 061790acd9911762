/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the caller of a request may do with files of the store: the kernel's rules, by
 * owner, group and mode, for what the kernel does not check because an ioctl asks for it.
 * (Of the capabilities only the superuser's are known.)
 */
#ifndef FM_FUSE_CALLER_H
#define FM_FUSE_CALLER_H

#include <stdbool.h>
#include <sys/stat.h>

#include "fuse/fuse_version.h"

/* `want`: of 4 (read), 2 (write) and 1 (execute, or search a folder). */
bool caller_may(fuse_req_t req, const struct stat *st, mode_t want);

/* Take the name of the file `st` away from the folder `dir`, as far as that is sticky: who
 * may not, owns neither. */
bool caller_may_take(fuse_req_t req, const struct stat *dir, const struct stat *st);

/* Make names in the folder with this path below pools/: 0; -EACCES if the folder is not
 * for him to write to, or one above it not to search; or -errno of stat(2). */
int caller_may_make(fuse_req_t req, const char *folder);

/* Take away, or replace, the name of the file in the folder, which may be sticky: 0,
 * -EPERM, or as above. */
int caller_may_replace(fuse_req_t req, const struct stat *st, const char *folder);

#endif
