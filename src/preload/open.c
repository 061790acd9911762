/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pool: what the environment says, before main().
 *
 * Without the pool that was asked for the program does not run: it would find out
 * that it has no memory when it is in the middle of its work.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "heap/error.h"
#include "heap/heap.h"
#include "heap/lock.h"
#include "preload/open.h"

#define POOL_VAR "FMALLOC_PRELOAD_POOL"
#define DIR_VAR "FMALLOC_PRELOAD_DIR"
#define EXIT_STATUS 125	/* as env(1) and others, when they fail themselves */

bool open_done;

/* Where forked children have their files. */
static char dir[PATH_MAX] = "/var/tmp";

static void refuse(const char *what, const char *name, const char *why)
{
	dprintf(STDERR_FILENO, "libfmalloc-preload: %s'%s': %s\n", what, name, why);
	_exit(EXIT_STATUS);
}

/* --- a named pool --------------------------------------------------------------------- */

/* The file must be new, or empty, and nobody else's: what is in it would be lost. */
static int open_named(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		refuse("cannot open pool ", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		refuse("cannot use pool ", path, "it is not a regular file");
	if (lock_take(fd) < 0)
		refuse("cannot use pool ", path, err_words());
	if (fstat(fd, &st) < 0 || st.st_size != 0)
		refuse("cannot use pool ", path, "it is not empty, and what is in it is"
		       " kept: remove it, or name another file");
	return fd;
}

static void set_dir_of(const char *path)
{
	char copy[PATH_MAX], *parent;

	if (strlen(path) >= sizeof(copy))
		refuse("cannot use pool ", path, strerror(ENAMETOOLONG));
	strcpy(copy, path);
	parent = dirname(copy);
	if (realpath(parent, dir) == NULL)
		refuse("cannot find the folder ", parent, strerror(errno));
}

/* The pool is this program's.  Those that it starts have pools without a name, in the
 * same folder, unless they are told another one. */
static void pass_on(void)
{
	if (unsetenv(POOL_VAR) < 0 || setenv(DIR_VAR, dir, 0) < 0)
		refuse("cannot set ", DIR_VAR, strerror(errno));
}

/* --- a pool without a name --------------------------------------------------------------- */

static int open_in(const char *path)
{
	int fd = realpath(path, dir) == NULL ? -errno : scratch_file(dir);

	if (fd < 0)
		errno = -fd;
	return fd;
}

static int open_unnamed(void)
{
	const char *chosen = secure_getenv(DIR_VAR), *tmp = secure_getenv("TMPDIR");
	int fd = -1;

	if (chosen != NULL && *chosen != '\0') {
		fd = open_in(chosen);
		if (fd < 0)
			refuse(DIR_VAR ": cannot make a file in ", chosen,
			       strerror(errno));
		return fd;
	}
	if (tmp != NULL && *tmp != '\0')
		fd = open_in(tmp);
	if (fd < 0)
		fd = open_in("/var/tmp");
	if (fd < 0)
		refuse("cannot make a file in ", "/var/tmp", strerror(errno));
	return fd;
}

__attribute__((constructor)) static void start(void)
{
	const char *path = secure_getenv(POOL_VAR);
	bool named = path != NULL && *path != '\0';
	struct fm_heap *h;
	int fd, saved = errno;

	if (named)
		set_dir_of(path);
	fd = named ? open_named(path) : open_unnamed();
	if (scratch_open(fd, named ? path : dir, dir, &h) < 0)
		refuse("cannot make a pool in ", named ? path : dir, err_words());
	fmalloc_set_target(&h->info);
	open_done = true;
	if (named)
		pass_on();
	errno = saved;
}
