/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fmfs program: finds the verb and runs it.  What a verb does is in the
 * file of its name.  Called as mount.fmfs it is the helper of mount(8).
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "fuse/mount.h"

static int run_mount(int argc, char **argv)
{
	argv[0] = (char *)"mount";
	return fmfs_mount_main(argc, argv);
}

const struct verb verb_mount = {
	.name = "mount",
	.synopsis = "mount STORE MOUNTPOINT [-o OPTIONS] [-f]",
	.summary = "Mount the store directory STORE at MOUNTPOINT",
	.run = run_mount,
};

static int run_help(int argc, char **argv);

static const struct verb verb_help = {
	.name = "help",
	.synopsis = "help [VERB]",
	.summary = "Explain fmfs, or one verb",
	.help = "",
	.run = run_help,
};

static const struct verb *const verbs[] = {
	&verb_mount,  &verb_umount,   &verb_reload, &verb_info,	    &verb_ls,
	&verb_create, &verb_roots,    &verb_stat,   &verb_check,    &verb_snapshot,
	&verb_clone,  &verb_rollback, &verb_send,   &verb_receive,  &verb_diff,
	&verb_help,
};
#define NVERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < NVERBS; i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return verbs[i];
	return NULL;
}

static int unknown_verb(const char *name)
{
	cli_set_verb(NULL);
	cli_fail(name, "no such verb; try 'fmfs help'");
	return CLI_USAGE;
}

static int print_overview(void)
{
	puts("Usage: fmfs VERB [ARGUMENT...]\n\n"
	     "A file system whose files are heaps (pools), with named roots and snapshots.\n");
	for (size_t i = 0; i < NVERBS; i++)
		printf("  fmfs %-44s %s\n", verbs[i]->synopsis, verbs[i]->summary);
	puts("\nExit status: 0 done, 1 failed, 2 wrong usage.  'fmfs VERB --help' says more,"
	     "\nand so does the manual page fmfs(1).");
	return CLI_OK;
}

static int run_help(int argc, char **argv)
{
	const struct verb *verb;
	char *mount_argv[] = { argv[0], (char *)"--help", NULL };

	if (argc > 2)
		return cli_usage(&verb_help);
	if (argc < 2 || strcmp(argv[1], "--help") == 0)
		return print_overview();
	verb = find_verb(argv[1]);
	if (!verb)
		return unknown_verb(argv[1]);
	return verb->help ? cli_help(verb) : verb->run(2, mount_argv);
}

static int run_verb(const struct verb *verb, int argc, char **argv)
{
	char *name = cli_printf("fmfs %s", verb->name);
	int status;

	cli_set_verb(verb);
	argv[0] = name;
	status = verb->run(argc, argv);
	free(name);
	return status;
}

static int run(int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 2) {
		fputs("Usage: fmfs VERB [ARGUMENT...]\nTry 'fmfs help'.\n", stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("fmfs " PACKAGE_VERSION);
		return CLI_OK;
	}
	if (strcmp(argv[1], "--help") == 0)
		return print_overview();
	verb = find_verb(argv[1]);
	return verb ? run_verb(verb, argc - 1, argv + 1) : unknown_verb(argv[1]);
}

/* Were one of them closed, a pool could be opened in its place and be written
 * to by a message. */
static void keep_standard_fds(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			/* for reading: writing to it stays an error */
			if (open("/dev/null", O_RDONLY) != fd)
				_exit(CLI_FAILED);
}

int main(int argc, char **argv)
{
	const char *name = argc > 0 && argv[0] ? argv[0] : "fmfs";
	const char *slash = strrchr(name, '/');

	keep_standard_fds();
	setlocale(LC_CTYPE, "C.UTF-8"); /* for the width of characters only */
	if (strcmp(slash ? slash + 1 : name, "mount.fmfs") == 0)
		return cli_close_stdout(fmfs_mount_main(argc, argv));
	return cli_close_stdout(run(argc, argv));
}
