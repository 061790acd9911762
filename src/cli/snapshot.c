/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs snapshot: the friendly form of `ln POOL POOL@TAG`.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"

static int explain(const char *pool, const char *snapshot, int err)
{
	switch (err) {
	case EBUSY:
		return cli_fail(
			pool, "a program has it open for writing, and this store cannot"
			      " share blocks between files (no reflink): try again when"
			      " the program has closed it (an atomic pool need not be)");
	case EAGAIN:
		return cli_fail(pool, "a commit of the program that has it open failed,"
				      " or it was renamed, meanwhile: try again");
	case EEXIST:
		return cli_fail(snapshot, "exists already");
	case EPERM:
		return cli_fail(pool,
				"not allowed: a snapshot needs a pool (not a snapshot)"
				" that you own or may read and write");
	case EXDEV:
		return cli_fail(pool, "not on an fmfs mount");
	case ENOSPC:
		return cli_fail(snapshot, "no space left in the store");
	default:
		return cli_fail_errno(snapshot, -err);
	}
}

/* Elsewhere linkat() would make an ordinary hard link. */
static int check_mount(const char *pool)
{
	struct fmfs_info info;
	int ret = ask_info_at(pool, &info);

	return ret == 0 ? CLI_OK : cli_fail_errno(pool, ret);
}

/* By the descriptor, so that the pool's writer does not wait from start to end. */
static int ask_snapshot(const char *path, const char *snapshot)
{
	struct fmfs_snapshot as = { .name = "" };
	const char *name = strrchr(snapshot, '/') + 1;
	int fd, ret;

	if (strlen(name) >= sizeof(as.name))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	strcpy(as.name, name);
	ret = fmfs_ask(fd, FMFS_IOC_SNAPSHOT, &as);
	close(fd);
	return ret;
}

/* The snapshot lies beside the pool itself, also if `pool` is a symbolic link. */
static int take(const char *pool, const char *tag)
{
	char *path, *snapshot;
	int status = check_mount(pool);
	int ret;

	if (status != CLI_OK)
		return status;
	path = realpath(pool, NULL);
	if (!path)
		return cli_fail_errno(pool, -errno);
	snapshot = cli_printf("%s@%s", path, tag);
	ret = ask_snapshot(path, snapshot);
	/* The owner of a pool that he may not read; a daemon older than we are. */
	if (ret == -EACCES || ret == -ENOTTY)
		ret = linkat(AT_FDCWD, path, AT_FDCWD, snapshot, 0) < 0 ? -errno : 0;
	if (ret < 0)
		status = explain(pool, snapshot, -ret);
	free(snapshot);
	free(path);
	return status;
}

static int usage_error(const char *thing, const char *cause)
{
	cli_fail(thing, "%s", cause);
	return CLI_USAGE;
}

static int take_checked(const char *pool, const char *tag)
{
	if (*pool == '\0' || pool[strlen(pool) - 1] == '/')
		return usage_error(pool, "no name of a pool");
	if (*tag == '\0')
		return usage_error(pool, "the tag is empty");
	if (strpbrk(tag, "/@"))
		return usage_error(tag, "a tag cannot contain '/' or '@'");
	return take(pool, tag);
}

/* POOL@TAG in one word: split at the last '@' of the file's name. */
static int take_joined(char *word)
{
	char *at = strrchr(word, '@');

	if (!at || strchr(at, '/'))
		return cli_usage(&verb_snapshot);
	*at = '\0';
	return take_checked(word, at + 1);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt = getopt_long(argc, argv, "", options, NULL);

	if (opt == 'h')
		return cli_help(&verb_snapshot);
	if (opt != -1)
		return cli_usage(&verb_snapshot);
	if (argc - optind == 2)
		return take_checked(argv[optind], argv[optind + 1]);
	if (argc - optind == 1)
		return take_joined(argv[optind]);
	return cli_usage(&verb_snapshot);
}

const struct verb verb_snapshot = {
	.name = "snapshot",
	.synopsis = "snapshot POOL TAG | snapshot POOL@TAG",
	.summary = "Take a snapshot of a pool",
	.help = "The snapshot is the read-only pool POOL@TAG beside POOL, which must be at a\n"
		"mount.  'ln POOL POOL@TAG' does the same.  Copy it with cp to get a pool that\n"
		"can be written, remove it with rm.\n",
	.run = run,
};
