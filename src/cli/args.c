/* SPDX-License-Identifier: Apache-2.0 */
/* What verbs are given: options that several have, and files that should be pools. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

bool cli_json_option(const struct verb *verb, int argc, char **argv, bool *json,
		     int *status)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	*json = false;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) == 'j')
		*json = true;
	if (opt != -1)
		*status = opt == 'h' ? cli_help(verb) : cli_usage(verb);
	return opt == -1;
}

int cli_open_pool(const char *path, int *fd)
{
	int status = CLI_OK;
	struct stat st;

	*fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd < 0)
		return cli_fail_errno(path, -errno);
	if (fstat(*fd, &st) != 0)
		status = cli_fail_errno(path, -errno);
	else if (!S_ISREG(st.st_mode))
		status = cli_fail(path, "%s, not a pool", S_ISDIR(st.st_mode) ?
				  "a directory" : "not a regular file");
	if (status != CLI_OK)
		close(*fd);
	return status;
}
