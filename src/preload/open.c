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
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "heap/error.h"
#include "heap/heap.h"
#include "heap/lock.h"
#include "preload/open.h"

#define POOL_VAR "FMALLOC_PRELOAD_POOL"
#define DIR_VAR "FMALLOC_PRELOAD_DIR"
/* Below this there is no room for the least window, twice, and a small program. */
#define LEAST_ADDRESS_SPACE 300000u /* KiB */
#define EXIT_STATUS 125	/* as env(1) and others, when they fail themselves */

bool open_done;

/* The folder where forked children have their files, as it is in the environment. */
static char dir_setting[sizeof(DIR_VAR "=") + PATH_MAX] = DIR_VAR "=";
static char *const dir = dir_setting + sizeof(DIR_VAR);

static void refuse(const char *what, const char *name, const char *why)
{
	dprintf(STDERR_FILENO, "libfmalloc-preload: %s'%s': %s\n", what, name, why);
	_exit(EXIT_STATUS);
}

/* --- the environment ------------------------------------------------------------------ */

/* The C library does not know it yet, and takes it as it is then. */
static char **find_setting(char **env, const char *name)
{
	size_t len = strlen(name);

	for (; *env != NULL; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return env;
	return NULL;
}

/* Let there be no more of these, from env on.  (Of several the C library heeds the
 * first, as we do, and shells the last.) */
static void remove_settings(char **env, const char *name)
{
	char **at = env;

	while ((at = find_setting(at, name)) != NULL)
		for (env = at; *env != NULL; env++)
			env[0] = env[1];
}

/* The first of these, and from now on the only one, is the folder. */
static void set_dir(char **at)
{
	*at = dir_setting;
	remove_settings(at + 1, DIR_VAR);
}

/* NULL: it is not set, or empty, or the program has rights that its user lacks. */
static const char *get(char **env, const char *name)
{
	char **at = getauxval(AT_SECURE) != 0 ? NULL : find_setting(env, name);

	return at == NULL || (*at)[strlen(name) + 1] == '\0' ? NULL :
							       *at + strlen(name) + 1;
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
static void pass_on(char **env)
{
	if (find_setting(env, DIR_VAR) == NULL)
		set_dir(find_setting(env, POOL_VAR));
	remove_settings(env, POOL_VAR);
}

/* --- a pool without a name --------------------------------------------------------------- */

static int open_in(const char *path)
{
	int fd = realpath(path, dir) == NULL ? -errno : scratch_file(dir);

	if (fd < 0)
		errno = -fd;
	return fd;
}

static int open_unnamed(char **env)
{
	const char *chosen = get(env, DIR_VAR), *tmp = get(env, "TMPDIR");
	int fd = -1;

	if (chosen != NULL) {
		fd = open_in(chosen);
		if (fd < 0)
			refuse(DIR_VAR ": cannot make a file in ", chosen,
			       strerror(errno));
		return fd;
	}
	if (tmp != NULL)
		fd = open_in(tmp);
	if (fd < 0)
		fd = open_in("/var/tmp");
	if (fd < 0)
		refuse("cannot make a file in ", "/var/tmp", strerror(errno));
	return fd;
}

/* Why there is no pool: of some failures it is the cause that helps. */
static const char *words_for(int rc)
{
	struct rlimit limit;

	if (rc == -ENOMEM && getrlimit(RLIMIT_AS, &limit) == 0 &&
	    limit.rlim_cur < LEAST_ADDRESS_SPACE * 1024ull)
		return "the limit on address space (ulimit -v) leaves no room for it";
	return err_words();
}

__attribute__((constructor)) static void start(int argc, char **argv, char **env)
{
	const char *path = get(env, POOL_VAR), *name = path != NULL ? path : dir;
	int fd, rc, saved = errno;
	struct fm_heap *h;

	(void)argc;
	(void)argv;
	if (path != NULL)
		set_dir_of(path);
	fd = path != NULL ? open_named(path) : open_unnamed(env);
	rc = scratch_open(fd, name, dir, &h);
	if (rc < 0)
		refuse("cannot make a pool in ", name, words_for(rc));
	fmalloc_set_target(&h->info);
	open_done = true;
	if (path != NULL)
		pass_on(env);
	else if (find_setting(env, DIR_VAR) != NULL)	/* it may be a relative path */
		set_dir(find_setting(env, DIR_VAR));
	errno = saved;
}
