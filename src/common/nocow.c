/* SPDX-License-Identifier: Apache-2.0 */
/* The attribute FS_NOCOW_FL, on Btrfs only. */
#include <config.h>

#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "common/nocow.h"

static bool is_btrfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC;
}

bool nocow_get(int fd)
{
	int flags = 0;	/* an int, whatever the number of the ioctl says */

	return is_btrfs(fd) && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 &&
	       (flags & FS_NOCOW_FL) != 0;
}

bool nocow_lacks(int fd)
{
	return is_btrfs(fd) && !nocow_get(fd);
}

void nocow_set(int fd, bool on)
{
	int flags = 0;

	if (!is_btrfs(fd) || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 ||
	    ((flags & FS_NOCOW_FL) != 0) == on)
		return;
	flags = on ? flags | FS_NOCOW_FL : flags & ~FS_NOCOW_FL;
	/* EINVAL for a file with data: then it stays as it is. */
	if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)
		return;
}
