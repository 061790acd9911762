/* SPDX-License-Identifier: Apache-2.0 */
/* fmfs send: a snapshot, or what changed since another one, as a stream of bytes. */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "heap/error.h"
#include "stream/stream.h"

/* Higher ones take longer and save little of a heap. */
#define LEVEL -1

struct options {
	const char *base; /* NULL: all of the snapshot */
	bool quiet, compress, has_level;
	int level;
};

/* A file is to be small whatever its disk can take. */
static bool writes_file(void)
{
	struct stat st;

	return fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode);
}

static int open_snapshot(const char *path, int *fd)
{
	int status = cli_open_pool(path, fd);

	if (status != CLI_OK || cli_is_snapshot(path))
		return status;
	close(*fd);
	return cli_fail(path, "not a snapshot of a mount, and only what does not change can"
			      " be sent: fmfs snapshot");
}

/* The name of the file itself, also if the path is that of a symbolic link. */
static char *name_of(const char *path)
{
	char *real = realpath(path, NULL), *name;

	name = cli_printf("%s", real ? strrchr(real, '/') + 1 : "");
	free(real);
	return name;
}

/* "@TAG" is a snapshot of the same pool. */
static char *base_path(const char *path, const char *base)
{
	const char *at = strrchr(path, '@');

	if (*base != '@' || at == NULL)
		return cli_printf("%s", base);
	return cli_printf("%.*s%s", (int)(at - path), path, base);
}

static int send_open(const char *path, const struct options *options,
		     struct stream_send *send)
{
	struct progress progress;
	int rc;

	send->out_fd = STDOUT_FILENO;
	send->compress = options->compress;
	send->spare_time = !options->has_level && !writes_file();
	send->level = options->level;
	send->progress = progress_show;
	send->arg = &progress;
	progress_begin(&progress, options->quiet);
	rc = stream_send(send);
	progress_end(&progress);
	return rc < 0 ? cli_fail(path, "%s", err_words()) : CLI_OK;
}

static int send_it(const char *path, const struct options *options)
{
	struct stream_send send = { .base_fd = -1 };
	char *name, *base = NULL, *base_name = NULL;
	int status = open_snapshot(path, &send.fd);

	if (status != CLI_OK)
		return status;
	send.name = name = name_of(path);
	if (options->base != NULL) {
		base = base_path(path, options->base);
		send.base_name = base_name = name_of(base);
		status = open_snapshot(base, &send.base_fd);
	}
	if (status == CLI_OK)
		status = send_open(path, options, &send);
	if (send.base_fd >= 0)
		close(send.base_fd);
	close(send.fd);
	free(base_name);
	free(base);
	free(name);
	return status;
}

static bool parse_level(const char *word, int *level)
{
	int min, max;
	char *end;
	long n;

	errno = 0;
	n = strtol(word, &end, 10);
	stream_levels(&min, &max);
	if (errno != 0 || end == word || *end != '\0' || n < min || n > max) {
		cli_fail(word, "a level is a number from %d to %d", min, max);
		return false;
	}
	*level = n;
	return true;
}

static bool parse(int argc, char **argv, struct options *options, int *status)
{
	static const struct option long_options[] = {
		{ "incremental", required_argument, NULL, 'i' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "level", required_argument, NULL, 'l' },
		{ "no-compress", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "i:q", long_options, NULL)) != -1) {
		if (opt == 'i')
			options->base = optarg;
		else if (opt == 'q')
			options->quiet = true;
		else if (opt == 'n')
			options->compress = false;
		else if (opt == 'h')
			*status = cli_help(&verb_send);
		else if (opt != 'l')
			*status = cli_usage(&verb_send);
		else if (!parse_level(optarg, &options->level))
			*status = CLI_USAGE;
		options->has_level |= opt == 'l';
		if (opt == 'h' || *status != CLI_OK)
			return false;
	}
	return true;
}

static int run(int argc, char **argv)
{
	struct options options = { .compress = true, .level = LEVEL };
	int status = CLI_OK;

	if (!parse(argc, argv, &options, &status))
		return status;
	if (argc - optind != 1)
		return cli_usage(&verb_send);
	if (isatty(STDOUT_FILENO))
		return cli_fail("standard output", "a terminal: a stream is for a file, or"
						   " for a pipe to 'fmfs receive'");
	return send_it(argv[optind], &options);
}

const struct verb verb_send = {
	.name = "send",
	.synopsis = "send [-i BASE] [-q] [--level N | --no-compress] POOL@TAG",
	.summary = "Write a snapshot as a stream",
	.help = "The stream goes to standard output; 'fmfs receive' makes the snapshot of it\n"
		"again, at another mount:\n\n"
		"  fmfs send POOL@TAG | ssh HOST fmfs receive POOL@TAG\n\n"
		"  -i, --incremental BASE  only what changed since BASE, another snapshot of\n"
		"                          the pool (@TAG will do), which the receiver must have\n"
		"  -q, --quiet             no progress on the terminal\n"
		"      --level N           pack all with zstd, so hard; if not told, a file at -1,\n"
		"                          and other things while the receiver is waited for\n"
		"      --no-compress       as it is\n",
	.run = run,
};
