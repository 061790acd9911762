/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages, help and exit statuses of the verbs.
 */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const struct verb *current;

void cli_set_verb(const struct verb *verb)
{
	current = verb;
}

static void put_prefix(void)
{
	fflush(stdout);
	fprintf(stderr, current ? "fmfs %s: " : "fmfs: ", current ? current->name : "");
}

int cli_fail(const char *thing, const char *fmt, ...)
{
	char *safe_thing = cli_escape(thing), *safe_cause, *cause;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&cause, fmt, ap) < 0)
		abort();
	va_end(ap);
	safe_cause = cli_escape(cause);
	put_prefix();
	fprintf(stderr, "%s: %s\n", safe_thing, safe_cause);
	free(cause);
	free(safe_cause);
	free(safe_thing);
	return current && current->failed ? current->failed : CLI_FAILED;
}

int cli_fail_errno(const char *thing, int err)
{
	switch (-err) {
	case ENOTCONN:
		return cli_fail(thing, "the daemon of this mount is gone:"
				       " run 'fmfs umount' and mount again");
	case ENOTTY:
		return cli_fail(thing, "not on an fmfs mount");
	case EPROTO:
		return cli_fail(thing,
				"the daemon of this mount answers in a way that this"
				" version does not understand");
	default:
		return cli_fail(thing, "%s", strerror(-err));
	}
}

int cli_help(const struct verb *verb)
{
	printf("Usage: fmfs %s\n\n%s.\n\n%s", verb->synopsis, verb->summary,
	       verb->help);
	return CLI_OK;
}

int cli_usage(const struct verb *verb)
{
	fprintf(stderr, "Usage: fmfs %s\nTry 'fmfs help %s'.\n", verb->synopsis,
		verb->name);
	return CLI_USAGE;
}

int cli_close_stdout(int status)
{
	int failed = ferror(stdout);

	errno = 0;
	if (fclose(stdout) != 0 || failed)
		return cli_fail("standard output", "%s",
				errno ? strerror(errno) : "could not be written");
	return status;
}
