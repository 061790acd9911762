/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the heap share: cmocka, an empty working directory for each
 * case, and running a piece of a case in a child.  Knows nothing of pools.
 */
#ifndef FM_TESTS_SCRATCH_H
#define FM_TESTS_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define P "pool"	/* the pool that most cases use */

struct scratch {
	char path[256];
	int old_cwd;
};

static inline int scratch_make(void **state)
{
	struct scratch *s = calloc(1, sizeof(*s));
	const char *tmp = getenv("TMPDIR");

	if (s == NULL)
		return -1;
	snprintf(s->path, sizeof(s->path), "%s/fmalloc-test.XXXXXX",
		 tmp != NULL && *tmp != '\0' ? tmp : "/tmp");
	s->old_cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->old_cwd < 0 || mkdtemp(s->path) == NULL || chdir(s->path) != 0)
		return -1;
	*state = s;
	return 0;
}

/* Cases make files only, no folders with something in them. */
static inline int scratch_remove(void **state)
{
	struct scratch *s = *state;
	DIR *dir = opendir(".");
	struct dirent *e;
	int rc;

	while (dir != NULL && (e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    unlink(e->d_name) != 0)
			rmdir(e->d_name);
	closedir(dir);
	rc = fchdir(s->old_cwd);
	close(s->old_cwd);
	rc |= rmdir(s->path);
	free(s);
	return rc;
}

#define scratch_test(fn) cmocka_unit_test_setup_teardown(fn, scratch_make, scratch_remove)

/*
 * In a child: a check that fails says where and ends the child with status 1;
 * cmocka's assertions belong to the parent.
 */
#define child_check(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "# child: %s:%d: %s (errno %d)\n", \
				__FILE__, __LINE__, #cond, errno); \
			_exit(1); \
		} \
	} while (0)

static inline pid_t child_start(void (*fn)(void *arg), void *arg)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(60);
		fn(arg);
		_exit(0);
	}
	return pid;
}

/* The wait status of the child. */
static inline int child_wait(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	return status;
}

/* Kill the child: false if it ended otherwise. */
static inline bool child_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	status = child_wait(pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static inline void child_run(void (*fn)(void *arg), void *arg)
{
	assert_int_equal(child_wait(child_start(fn, arg)), 0);
}

static inline uint64_t file_size(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* A file of these bytes, from its start. */
static inline void file_make(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(close(fd), 0);
}

static inline void file_write(const char *path, uint64_t off, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, off), len);
	assert_int_equal(close(fd), 0);
}

static inline void file_read(const char *path, uint64_t off, void *bytes, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, len, off), len);
	assert_int_equal(close(fd), 0);
}

/* The next run of bytes that are not in a hole, from `end` on: false at the end. */
static inline bool file_next_data(int fd, off_t *start, off_t *end)
{
	*start = lseek(fd, *end, SEEK_DATA);
	if (*start < 0)
		return false;
	*end = lseek(fd, *start, SEEK_HOLE);
	return *end > *start;
}

/* A sum of the contents (FNV-1a); holes and zeroes are the same. */
static inline uint64_t file_sum(const char *path)
{
	static uint64_t buf[8192];
	uint64_t sum = 0xcbf29ce484222325u, prime = 0x100000001b3u;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t off, end = 0;
	ssize_t n, i;

	assert_true(fd >= 0);
	while (file_next_data(fd, &off, &end))
		for (; off < end; off += n) {
			memset(buf, 0, sizeof(buf));
			/* No further: where data ends varies with the page cache. */
			n = end - off < (off_t)sizeof(buf) ? end - off : (off_t)sizeof(buf);
			n = pread(fd, buf, n, off);
			if (n <= 0)
				break;
			for (i = 0; i < (n + 7) / 8; i++)
				if (buf[i] != 0)
					sum = ((sum ^ buf[i]) * prime ^ (off + i * 8)) * prime;
		}
	close(fd);
	return sum;
}

/* A copy with holes for zeroes; permissions are those of a new file. */
static inline void file_copy(const char *from, const char *to)
{
	static char buf[1 << 16];
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	off_t off, end = 0;
	ssize_t n;

	assert_true(in >= 0);
	out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	assert_true(out >= 0);
	assert_int_equal(ftruncate(out, file_size(from)), 0);
	while (file_next_data(in, &off, &end))
		for (; off < end; off += n) {
			n = end - off < (off_t)sizeof(buf) ? end - off : (off_t)sizeof(buf);
			n = pread(in, buf, n, off);
			assert_true(n > 0);
			if (buf[0] != 0 || memcmp(buf, buf + 1, n - 1) != 0)
				assert_int_equal(pwrite(out, buf, n, off), n);
		}
	close(in);
	close(out);
}

/* A generator with a state of its own, so that a failure can be repeated. */
static inline uint64_t rnd(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

#endif
