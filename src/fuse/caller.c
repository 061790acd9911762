/* SPDX-License-Identifier: Apache-2.0 */
/* What the caller of a request may. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fuse/caller.h"
#include "fuse/fmfs.h"

#define MAX_NGROUPS 1024

static bool in_group(fuse_req_t req, gid_t gid)
{
	gid_t groups[MAX_NGROUPS];
	int n;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	n = fuse_req_getgroups(req, MAX_NGROUPS, groups);
	for (int i = 0; i < n && i < MAX_NGROUPS; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

bool caller_may(fuse_req_t req, const struct stat *st, mode_t want)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	mode_t mode = st->st_mode;

	if (uid == 0)
		return true;
	if (uid == st->st_uid)
		mode >>= 6;
	else if (in_group(req, st->st_gid))
		mode >>= 3;
	return (mode & want) == want;
}

bool caller_may_take(fuse_req_t req, const struct stat *dir, const struct stat *st)
{
	uid_t uid = fuse_req_ctx(req)->uid;

	return !(dir->st_mode & S_ISVTX) || uid == 0 || uid == st->st_uid ||
	       uid == dir->st_uid;
}

static int check_folder(fuse_req_t req, const char *path, mode_t want)
{
	struct stat st;

	if (fstatat(fmfs_of(req)->store.pools_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return caller_may(req, &st, want) ? 0 : -EACCES;
}

int caller_may_make(fuse_req_t req, const char *folder)
{
	char above[NODE_PATH_LEN];
	const char *end = folder;
	int rc = check_folder(req, ".", 1);

	while (rc == 0 && (end = strchr(end, '/')) != NULL) {
		snprintf(above, sizeof(above), "%.*s", (int)(end - folder), folder);
		rc = check_folder(req, above, 1);
		end++;
	}
	return rc == 0 ? check_folder(req, folder, 3) : rc;
}

int caller_may_replace(fuse_req_t req, const struct stat *st, const char *folder)
{
	int rc = caller_may_make(req, folder);
	struct stat dir;

	if (rc < 0)
		return rc;
	if (fstatat(fmfs_of(req)->store.pools_fd, folder, &dir, AT_SYMLINK_NOFOLLOW) <
	    0)
		return -errno;
	return caller_may_take(req, &dir, st) ? 0 : -EPERM;
}
