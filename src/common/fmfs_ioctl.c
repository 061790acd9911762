/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a mounted fmfs. */
#include <config.h>

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "common/fmfs_ioctl.h"

int fmfs_is_fuse(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) < 0 ? -errno : st.f_type == FUSE_SUPER_MAGIC;
}

int fmfs_ask(int fd, unsigned long request, void *data)
{
	if (ioctl(fd, request, data) >= 0)
		return 0;
	return errno == ENOSYS ? -ENOTTY : -errno;
}

int fmfs_ask_info(int fd, struct fmfs_info *info)
{
	int ret = fmfs_is_fuse(fd);

	memset(info, 0, sizeof(*info));
	/* The numbers of ioctls are not unique: nobody but FUSE is asked. */
	if (ret >= 0)
		ret = ret ? fmfs_ask(fd, FMFS_IOC_INFO, info) : -ENOTTY;
	if (ret != 0)
		return ret;
	if (info->abi != FMFS_ABI ||
	    memchr(info->why_not, '\0', sizeof(info->why_not)) == NULL)
		return -EPROTO;
	return 0;
}
