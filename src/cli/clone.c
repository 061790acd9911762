/* SPDX-License-Identifier: Apache-2.0 */
/* fmfs clone: a pool that can be written to, of a snapshot or of a pool. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"

static int explain(const char *source, const char *to, int err)
{
	switch (-err) {
	case EBUSY:
		return cli_fail(
			source, "a program has it open for writing, and this store cannot"
				" share blocks between files (no reflink): clone a snapshot,"
				" or try again when the program has closed it (an atomic"
				" pool need not be)");
	case EAGAIN:
		return cli_fail(source, "a commit of the program that has it open failed"
					" meanwhile: try again");
	case EACCES:
		return cli_fail(to, "not allowed: cloning needs a pool that you may read,"
				    " and a folder that you may write to");
	case EXDEV:
		return cli_fail(to, "not at the mount of %s: use cp", source);
	case EEXIST:
		return cli_fail(to, "exists already");
	case ENOSPC:
		return cli_fail(to, "no space left in the store");
	case EROFS:
		return cli_fail(to, "the mount is read-only");
	default:
		return cli_fail_errno(to, err);
	}
}

/* As cp(1) would make it, but always for its owner to write to. */
static mode_t mode_of(const struct stat *source)
{
	mode_t mask = umask(0);

	umask(mask);
	return ((source->st_mode & 0777) | S_IWUSR) & ~mask;
}

/* The folder stays open for as long as the daemon needs its number. */
static int ask_clone(int from, int folder, const char *name)
{
	struct fmfs_clone to = { .reserved = 0 };
	struct stat source, st;

	if (fstat(from, &source) < 0 || fstat(folder, &st) < 0)
		return -errno;
	if (source.st_dev != st.st_dev)
		return -EXDEV;
	if (strlen(name) >= sizeof(to.name))
		return -ENAMETOOLONG;
	to.folder = st.st_ino;
	to.mode = mode_of(&source);
	strcpy(to.name, name);
	return fmfs_ask(from, FMFS_IOC_CLONE, &to);
}

static int clone_into(const char *source, const char *to, int from)
{
	const char *slash = strrchr(to, '/');
	char *path = cli_printf("%.*s", slash ? (int)(slash - to) + 1 : 2,
				slash ? to : "./");
	int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int ret = folder < 0 ? -errno
			     : ask_clone(from, folder, slash ? slash + 1 : to);

	free(path);
	if (folder >= 0)
		close(folder);
	return ret == 0 ? CLI_OK : explain(source, to, ret);
}

static int clone_pool(const char *source, const char *to)
{
	struct fmfs_info info;
	int from, status, ret;

	status = cli_open_pool(source, &from);
	if (status != CLI_OK)
		return status;
	ret = fmfs_ask_info(from, &info);
	status = ret == 0 ? clone_into(source, to, from) : cli_fail_errno(source, ret);
	close(from);
	return status;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt = getopt_long(argc, argv, "", options, NULL);
	const char *to, *name;

	if (opt == 'h')
		return cli_help(&verb_clone);
	if (opt != -1 || argc - optind != 2)
		return cli_usage(&verb_clone);
	to = argv[optind + 1];
	name = strrchr(to, '/') ? strrchr(to, '/') + 1 : to;
	if (*name != '\0' && !strchr(name, '@'))
		return clone_pool(argv[optind], to);
	cli_fail(to, *name ? "a name with '@' is that of a snapshot" : "no name of a pool");
	return CLI_USAGE;
}

const struct verb verb_clone = {
	.name = "clone",
	.synopsis = "clone POOL[@TAG] NEW",
	.summary = "Make a pool of a snapshot, or of a pool",
	.help = "NEW is a pool at the same mount that can be written to, as POOL@TAG or POOL is at\n"
		"one moment.  It must not exist.  Blocks are shared with it if the store can, and\n"
		"holes stay holes; 'cp POOL@TAG NEW' copies them byte by byte.  NEW is there when\n"
		"it is complete and on the disk, not before.\n",
	.run = run,
};
