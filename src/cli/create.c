/* SPDX-License-Identifier: Apache-2.0 */
/* fmfs create: new pools, empty ones. */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>

#include <fmalloc.h>

#include "cli/cli.h"
#include "heap/error.h"
#include "heap/heap.h"

static int create(const char *path, int flags)
{
	struct fm_heap *h;
	bool created;
	int rc = pool_open(path, FM_CREATE | FM_EXCL | flags, &created, &h);

	if (rc == -EEXIST)
		return cli_fail(path, "exists already");
	if (rc < 0)
		return cli_fail(path, "%s", err_words());
	pool_close(h);
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "atomic", no_argument, NULL, 'a' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt, flags = 0, status = CLI_OK;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) == 'a')
		flags = FM_ATOMIC;
	if (opt == 'h')
		return cli_help(&verb_create);
	if (opt != -1 || optind == argc)
		return cli_usage(&verb_create);
	for (; optind < argc; optind++)
		if (create(argv[optind], flags) != CLI_OK)
			status = CLI_FAILED;
	return status;
}

const struct verb verb_create = {
	.name = "create",
	.synopsis = "create [--atomic] POOL...",
	.summary = "Make new pools",
	.help = "POOL is the name of a file that does not exist, at a mount or anywhere.  The\n"
		"new pool is empty, and live, unless the mount makes pools atomic (-o atomic).\n\n"
		"  --atomic   let its commits be all or nothing: fmalloc(3), FM_ATOMIC\n",
	.run = run,
};
