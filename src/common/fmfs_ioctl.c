/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a mounted fmfs. */
#include <config.h>

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "common/fmfs_ioctl.h"

/* The numbers of ioctls are not unique: nobody but FUSE is asked. */
static int check_is_fuse(int fd)
{
	struct statfs st;

	if (fstatfs(fd, &st) != 0)
		return -errno;
	return st.f_type == FUSE_SUPER_MAGIC ? 0 : -ENOTTY;
}

int fmfs_ask(int fd, unsigned long request, void *data)
{
	if (ioctl(fd, request, data) >= 0)
		return 0;
	return errno == ENOSYS ? -ENOTTY : -errno;
}

int fmfs_ask_info(int fd, struct fmfs_info *info)
{
	int ret = check_is_fuse(fd);

	memset(info, 0, sizeof(*info));
	if (ret == 0)
		ret = fmfs_ask(fd, FMFS_IOC_INFO, info);
	if (ret != 0)
		return ret;
	if (info->abi != FMFS_ABI ||
	    memchr(info->why_not, '\0', sizeof(info->why_not)) == NULL)
		return -EPROTO;
	return 0;
}
