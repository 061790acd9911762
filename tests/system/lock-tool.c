/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File locks from the command line.
 *
 *   lock-tool KIND hold FILE      lock it, say "ready", until standard input ends
 *   lock-tool KIND try FILE       exit status 0 if it could be locked, 1 if not
 *   lock-tool KIND wait FILE      wait for the lock; SIGALRM interrupts: status 4
 *   lock-tool KIND test FILE      F_GETLK: 0 if it could be locked, 1 if not
 *   lock-tool KIND reopen FILE    lock at once, close, open again: 1,000 times
 *
 * KIND: ofd, posix (whole file; exclusive), ofd-shared, posix-shared, flock,
 * flock-shared, range (POSIX, the first 100 bytes).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *kind;

static bool is(const char *name)
{
	return strncmp(kind, name, strlen(name)) == 0;
}

static bool is_shared(void)
{
	return strstr(kind, "-shared") != NULL;
}

static struct flock range(void)
{
	return (struct flock){
		.l_type = is_shared() ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
		.l_len = is("range") ? 100 : 0,
	};
}

static int lock(int fd, bool wait)
{
	struct flock fl = range();

	if (is("flock"))
		return flock(fd,
			     (is_shared() ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB));
	if (is("ofd"))
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &fl);
	return fcntl(fd, wait ? F_SETLKW : F_SETLK, &fl);
}

static int test(int fd)
{
	struct flock fl = range();

	if (fcntl(fd, is("ofd") ? F_OFD_GETLK : F_GETLK, &fl) < 0)
		return 3;
	return fl.l_type == F_UNLCK ? 0 : 1;
}

static int result(int rc)
{
	if (rc == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return 1;
	if (errno == EINTR)
		return 4;
	perror("lock-tool");
	return 3;
}

static int reopen(const char *path)
{
	for (int i = 0; i < 1000; i++) {
		int fd = open(path, O_RDWR), rc = lock(fd, false);

		if (rc != 0)
			return result(rc);
		close(fd);
	}
	return 0;
}

static void nothing(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	struct sigaction alarm = { .sa_handler = nothing };
	int fd, rc;

	if (argc != 4)
		return 2;
	kind = argv[1];
	sigaction(SIGALRM, &alarm, NULL);
	fd = open(argv[3], O_RDWR);
	if (fd < 0)
		return result(-1);
	if (strcmp(argv[2], "test") == 0)
		return test(fd);
	if (strcmp(argv[2], "reopen") == 0)
		return reopen(argv[3]);
	rc = result(lock(fd, strcmp(argv[2], "wait") == 0));
	if (rc == 0 && strncmp(argv[2], "hold", 4) == 0) {
		puts("ready");
		fflush(stdout);
		while (getchar() != EOF)
			;
	}
	return rc;
}
