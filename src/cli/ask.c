/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the daemon of a mount: see ask.h.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"

static bool ends(const char *s, size_t max)
{
	return memchr(s, '\0', max) != NULL;
}

int ask_info_at(const char *path, struct fmfs_info *info)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = fmfs_ask_info(fd, info);
	close(fd);
	return ret;
}

int ask_daemon(int fd, struct fmfs_daemon *daemon)
{
	struct fmfs_info info;
	int ret = fmfs_ask_info(fd, &info);

	memset(daemon, 0, sizeof(*daemon));
	if (ret == 0) {
		ret = fmfs_ask(fd, FMFS_IOC_DAEMON, daemon);
		if (ret == -ENOTTY)
			ret = -EOPNOTSUPP;
	}
	if (ret == 0 && (daemon->pid == 0 || daemon->pid > INT32_MAX ||
			 !ends(daemon->version, sizeof(daemon->version)) ||
			 !ends(daemon->why, sizeof(daemon->why))))
		ret = -EPROTO;
	return ret;
}

/* The names of a page come after `after` and in order; it ends in the last. */
static bool next_name(char *after, const char *name, size_t max)
{
	if (!ends(name, max) || strcmp(name, after) <= 0)
		return false;
	strcpy(after, name);
	return true;
}

int ask_pools(int root_fd, int (*fn)(const struct fmfs_pool_rec *pool, void *arg),
	      void *arg)
{
	struct fmfs_list list = { .n = 1 };
	char after[FMFS_NAME_LEN] = "";
	struct fmfs_info info;
	int ret = fmfs_ask_info(root_fd, &info);

	while (ret == 0 && list.n > 0) {
		memset(&list, 0, sizeof(list));
		strcpy(list.after, after);
		ret = fmfs_ask(root_fd, FMFS_IOC_LIST, &list);
		if (ret == 0 && list.n > FMFS_LIST_MAX)
			ret = -EPROTO;
		for (uint32_t i = 0; ret == 0 && i < list.n; i++) {
			const struct fmfs_pool_rec *pool = &list.pool[i];

			if (!next_name(after, pool->name, sizeof(pool->name)) ||
			    !ends(pool->parent, sizeof(pool->parent)))
				ret = -EPROTO;
			else
				ret = fn(pool, arg);
		}
	}
	return ret;
}

int ask_roots(int fd, int (*fn)(const struct fmfs_root_rec *root, void *arg), void *arg)
{
	struct fmfs_roots roots = { .n = 1 };
	char after[sizeof(roots.after)] = "";
	struct fmfs_info info;
	int ret = fmfs_ask_info(fd, &info);

	while (ret == 0 && roots.n > 0) {
		memset(&roots, 0, sizeof(roots));
		strcpy(roots.after, after);
		ret = fmfs_ask(fd, FMFS_IOC_ROOTS, &roots);
		if (ret == 0 && roots.n > FMFS_ROOTS_MAX)
			ret = -EPROTO;
		for (uint32_t i = 0; ret == 0 && i < roots.n; i++) {
			const struct fmfs_root_rec *root = &roots.root[i];

			if (!next_name(after, root->name, sizeof(root->name)) ||
			    !ends(root->type, sizeof(root->type)))
				ret = -EPROTO;
			else
				ret = fn(root, arg);
		}
	}
	return ret;
}
