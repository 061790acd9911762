/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose reserved space counts.  On a file system that copies on every
 * write (Btrfs) a store into a mapping wants new space even where fallocate(2)
 * reserved some, and on a full disk it is a signal; unless the file, while it
 * was empty, got the attribute FS_NOCOW_FL (chattr +C), which a folder hands
 * on to new files.  Its data then have no checksums.  Clones still share blocks.
 */
#ifndef FM_COMMON_NOCOW_H
#define FM_COMMON_NOCOW_H

#include <stdbool.h>

/* Give or take the attribute, of an empty file or a folder; where there is no
 * such thing nothing is done.  Failing is not worth more than a log line. */
void nocow_set(int fd, bool on);
bool nocow_get(int fd);
/* Whether stores into the file copy, and an empty file in its place would not. */
bool nocow_lacks(int fd);

#endif
