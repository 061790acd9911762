/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's table of mounts, as this process sees it.
 */
#ifndef FM_FUSE_MOUNTINFO_H
#define FM_FUSE_MOUNTINFO_H

#include <stdbool.h>
#include <sys/types.h>

struct mount_entry {
	dev_t dev;
	char *point;  /* absolute */
	char *source; /* fmfs: the store */
	bool is_fmfs;
};

/*
 * The topmost mount at the absolute path `point`, or the first of the device.
 * 1 and *entry (to be freed), 0 if there is none, or -errno.
 */
int mount_find_point(const char *point, struct mount_entry *entry);
int mount_find_dev(dev_t dev, struct mount_entry *entry);
void mount_entry_free(struct mount_entry *entry);

/* The absolute path of a mount point, to be freed, also if the daemon is dead; NULL with
 * errno. */
char *mount_resolve(const char *path);

/* Take it away; lazily: from sight, while it is in use.  0, 1 after a message of
 * fusermount3, or -errno; -EPERM: not allowed, and there is no fusermount3. */
int mount_detach(const char *point, bool lazy);

#endif
