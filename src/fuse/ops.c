/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of the file system.  Not there, because libfuse or the kernel
 * answer rightly without: access (default_permissions), readlink, poll, bmap.
 */
#include <config.h>

#include "fuse/attr.h"
#include "fuse/control.h"
#include "fuse/dir.h"
#include "fuse/entry.h"
#include "fuse/file.h"
#include "fuse/locks.h"
#include "fuse/ops.h"
#include "fuse/rename.h"

const struct fuse_lowlevel_ops fmfs_ops = {
	.lookup = fmfs_lookup,
	.forget = fmfs_forget,
	.forget_multi = fmfs_forget_multi,
	.getattr = fmfs_getattr,
	.setattr = fmfs_setattr,
	.mknod = fmfs_mknod,
	.mkdir = fmfs_mkdir,
	.symlink = fmfs_symlink,
	.unlink = fmfs_unlink,
	.rmdir = fmfs_rmdir,
	.rename = fmfs_rename,
	.link = fmfs_link,
	.open = fmfs_open,
	.create = fmfs_create,
	.tmpfile = fmfs_tmpfile,
	.read = fmfs_read,
	.write_buf = fmfs_write_buf,
	.flush = fmfs_flush,
	.release = fmfs_release,
	.fsync = fmfs_fsync,
	.fallocate = fmfs_fallocate,
	.lseek = fmfs_lseek,
	.copy_file_range = fmfs_copy_file_range,
	.opendir = fmfs_opendir,
	.readdir = fmfs_readdir,
	.readdirplus = fmfs_readdirplus,
	.releasedir = fmfs_releasedir,
	.fsyncdir = fmfs_fsyncdir,
	.statfs = fmfs_statfs,
	.getxattr = fmfs_getxattr,
	.listxattr = fmfs_listxattr,
	.setxattr = fmfs_setxattr,
	.removexattr = fmfs_removexattr,
	.getlk = fmfs_getlk,
	.setlk = fmfs_setlk,
	.flock = fmfs_flock,
	.ioctl = fmfs_ioctl,
};
