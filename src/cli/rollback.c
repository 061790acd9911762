/* SPDX-License-Identifier: Apache-2.0 */
/* fmfs rollback: a pool becomes what a snapshot of it holds. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"

static int explain(const char *pool, int err)
{
	switch (-err) {
	case EBUSY:
		return cli_fail(pool, "a program has it open for writing: try again when"
				      " the program has closed it");
	case EAGAIN:
		return cli_fail(pool, "it was removed or replaced meanwhile: try again");
	case EACCES:
		return cli_fail(pool, "not allowed: rolling back needs a snapshot that you"
				      " may read, and a pool and a folder that you may"
				      " write to");
	case EPERM:
		return cli_fail(pool, "not allowed: the folder is sticky, and neither it nor"
				      " the pool is yours");
	case ENOSPC:
		return cli_fail(pool, "no space left in the store");
	case EROFS:
		return cli_fail(pool, "the mount is read-only");
	default:
		return cli_fail_errno(pool, err);
	}
}

/* Where the last '@' is, in the name of the file itself. */
static char *find_tag(const char *snapshot)
{
	char *at = strrchr(snapshot, '@');

	return at == NULL || strchr(at, '/') || at == snapshot || at[-1] == '/' ? NULL
										: at;
}

static int roll_back(const char *snapshot, int fd)
{
	/* It may have been named by a symbolic link. */
	char *pool = realpath(snapshot, NULL), *at = pool ? find_tag(pool) : NULL;
	struct fmfs_info info;
	int ret = fmfs_ask_info(fd, &info), status;

	if (ret != 0) {
		status = cli_fail_errno(snapshot, ret);
	} else if (!at) {
		status = cli_fail(snapshot, "no snapshot: its name is not POOL@TAG");
	} else {
		*at = '\0';
		ret = fmfs_ask(fd, FMFS_IOC_ROLLBACK, NULL);
		status = ret == 0 ? CLI_OK : explain(pool, ret);
	}
	free(pool);
	return status;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt = getopt_long(argc, argv, "", options, NULL), fd, status;

	if (opt == 'h')
		return cli_help(&verb_rollback);
	if (opt != -1 || argc - optind != 1)
		return cli_usage(&verb_rollback);
	status = cli_open_pool(argv[optind], &fd);
	if (status != CLI_OK)
		return status;
	status = roll_back(argv[optind], fd);
	close(fd);
	return status;
}

const struct verb verb_rollback = {
	.name = "rollback",
	.synopsis = "rollback POOL@TAG",
	.summary = "Let a pool be what a snapshot of it holds",
	.help = "POOL is replaced by a copy of its snapshot, in one step, or made again if it was\n"
		"removed.  It keeps its owner, group, mode and attributes; all snapshots stay.\n"
		"What was stored in it since the snapshot was taken is lost.  A program that has\n"
		"POOL open for reading keeps the old one; while one has it open for writing,\n"
		"nothing is done.  When the command ends, POOL is on the disk.\n",
	.run = run,
};
