/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uses a mount in every way that a daemon has to know of, until a file appears; no call may
 * fail, and nothing may be lost, whatever becomes of the daemon meanwhile.
 *
 *   handover-user use MNT STOP     exit status 1 and a line for each failure
 *   handover-user rival STORE STOP try to get the locks that "use" has, in the store
 *
 * "use" prints "ready" when it has its locks.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"

enum { NFILES = 300, LEN = 65536 };

static const char *stop_path;
static atomic_int nfailures, inside;

static bool is_over(void)
{
	return access(stop_path, F_OK) == 0;
}

static void nap(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

static bool good(bool ok, const char *what)
{
	if (!ok) {
		nfailures++;
		printf("%s: %s\n", what, strerror(errno));
		fflush(stdout);
		nap(100000);
	}
	return ok;
}

static int open_file(const char *name, int flags)
{
	int fd = open(name, flags, 0666);

	return good(fd >= 0, name) ? fd : -1;
}

/* --- files ------------------------------------------------------------------------ */

/* Numbers at random places of the file, by calls, each of which is to be read again. */
static void use_file(int fd, const char *what)
{
	uint32_t *want = calloc(LEN, sizeof(*want)), got, i;
	unsigned int seed = (uintptr_t)what;
	struct stat st;

	good(ftruncate(fd, LEN * sizeof(*want)) == 0, what);
	while (!is_over()) {
		i = rand_r(&seed) % LEN;
		want[i] = rand_r(&seed);
		errno = 0;
		good(pwrite(fd, &want[i], sizeof(got), i * sizeof(got)) == sizeof(got),
		     what);
		i = rand_r(&seed) % LEN;
		good(pread(fd, &got, sizeof(got), i * sizeof(got)) == sizeof(got) &&
			     got == want[i],
		     what);
		good(fstat(fd, &st) == 0 && st.st_size == (off_t)(LEN * sizeof(*want)),
		     what);
		good(i % 64 != 0 || fsync(fd) == 0, what);
	}
	free(want);
	good(close(fd) == 0, what);
}

static void *use_removed(void *arg)
{
	int fd = open_file("removed", O_RDWR | O_CREAT);

	good(unlink("removed") == 0, "unlink");
	use_file(fd, "a removed file");
	return arg;
}

static void *use_nameless(void *arg)
{
	use_file(open_file(".", O_RDWR | O_TMPFILE), "a file without a name");
	return arg;
}

static void *use_mapping(void *arg)
{
	int fd = open_file("mapped", O_RDWR | O_CREAT);
	volatile uint64_t *mem;
	uint64_t got, n = 0;

	good(ftruncate(fd, LEN) == 0, "ftruncate");
	mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!good(mem != MAP_FAILED, "mmap"))
		return arg;
	for (; !is_over(); n++) {
		mem[n % (LEN / 8)] = n;
		good(pread(fd, &got, 8, n % (LEN / 8) * 8) == 8 && got == n,
		     "a mapping");
		good(n % 64 != 0 || msync((void *)mem, LEN, MS_SYNC) == 0, "msync");
	}
	munmap((void *)mem, LEN);
	close(fd);
	return arg;
}

/* --- names ------------------------------------------------------------------------ */

static void *use_names(void *arg)
{
	char a[40], b[40];
	struct stat st;
	int fd;

	good(mkdir("names", 0777) == 0, "mkdir");
	for (int i = 0; !is_over(); i++) {
		snprintf(a, sizeof(a), "names/%d", i);
		snprintf(b, sizeof(b), "names/%d-%d", i, i % 7);
		fd = open(a, O_RDWR | O_CREAT | O_EXCL, 0666);
		good(fd >= 0 && write(fd, a, 5) == 5 && close(fd) == 0, "create");
		good(rename(a, b) == 0, "rename");
		good(stat(b, &st) == 0 && st.st_size == 5, "stat");
		errno = 0;
		good(stat(a, &st) < 0 && errno == ENOENT, "the old name");
		good(unlink(b) == 0, "unlink");
	}
	return arg;
}

static void *use_snapshots(void *arg)
{
	int fd = open_file("source", O_RDWR | O_CREAT);
	char name[40];

	good(fd >= 0 && write(fd, "words", 5) == 5 && close(fd) == 0, "source");
	for (int i = 0; !is_over(); i++) {
		snprintf(name, sizeof(name), "source@%d", i);
		good(link("source", name) == 0, "snapshot");
		good(unlink(name) == 0, "unlink of a snapshot");
	}
	return arg;
}

/* A folder, name by name, with what may be a new daemon for each; all are there once. */
static void list(DIR *d)
{
	bool seen[NFILES] = { false };
	struct dirent *de;
	int n = 0;

	while ((de = readdir(d)) != NULL) {
		int i = atoi(de->d_name);

		if (de->d_name[0] == '.')
			continue;
		good(!seen[i], "a name that was listed twice");
		seen[i] = true;
		if (++n % 16 == 0)
			nap(3000);
	}
	errno = ENOENT;
	good(n == NFILES, "names that were not listed");
}

static void *use_listing(void *arg)
{
	char name[40];
	DIR *d;

	mkdir("listed", 0777);
	for (int i = 0; i < NFILES; i++) {
		snprintf(name, sizeof(name), "listed/%d", i);
		close(open_file(name, O_RDWR | O_CREAT));
	}
	d = opendir("listed");
	if (!good(d != NULL, "opendir"))
		return arg;
	while (!is_over()) {
		list(d);
		rewinddir(d);
	}
	good(closedir(d) == 0, "closedir");
	return arg;
}

static void *use_removed_folder(void *arg)
{
	int fd;

	mkdir("gone", 0777);
	fd = open_file("gone", O_RDONLY | O_DIRECTORY);
	good(rmdir("gone") == 0, "rmdir");
	while (!is_over()) {
		good(fsync(fd) == 0, "fsync of a removed folder");
		nap(1000);
	}
	close(fd);
	return arg;
}

/* What was found by its name is opened, though another file has that by then. */
static void *use_replaced(void *arg)
{
	struct stat found, opened;
	char path[40];
	int by_name, snapshot, fd;

	fd = open_file("replaced", O_RDWR | O_CREAT);
	good(link("replaced", "replaced@1") == 0, "snapshot");
	close(fd);
	while (!is_over()) {
		by_name = open_file("replaced", O_PATH);
		snapshot = open_file("replaced@1", O_RDONLY);
		good(ioctl(snapshot, FMFS_IOC_ROLLBACK) == 0, "rollback");
		nap(20000);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", by_name);
		fd = open(path, O_RDWR);
		good(fd >= 0 && fstat(fd, &opened) == 0 &&
			     fstat(by_name, &found) == 0 &&
			     opened.st_ino == found.st_ino,
		     "a file that was replaced");
		close(fd);
		close(snapshot);
		close(by_name);
	}
	return arg;
}

/* --- locks ------------------------------------------------------------------------ */

/* Each waits for the lock, and has it alone. */
static void *use_wait(void *arg)
{
	struct flock un = { .l_type = F_UNLCK }, wr = { .l_type = F_WRLCK };
	int fd = open_file("waited-for", O_RDWR | O_CREAT);

	while (!is_over()) {
		good(fcntl(fd, F_OFD_SETLKW, &wr) == 0, "F_OFD_SETLKW");
		errno = EDEADLK;
		good(++inside == 1, "who waited and is not alone");
		nap(2000);
		inside--;
		good(fcntl(fd, F_OFD_SETLK, &un) == 0, "unlock");
		nap(100);
	}
	close(fd);
	return arg;
}

static bool try_lock(int fd, const char *kind)
{
	struct flock fl = { .l_type = F_WRLCK };

	if (strcmp(kind, "flock") == 0)
		return flock(fd, LOCK_EX | LOCK_NB) == 0;
	return fcntl(fd, strcmp(kind, "ofd") == 0 ? F_OFD_SETLK : F_SETLK, &fl) == 0;
}

static const char *const kinds[] = { "flock", "ofd", "posix" };

static void hold_locks(void)
{
	for (int i = 0; i < 3; i++)
		good(try_lock(open_file(kinds[i], O_RDWR | O_CREAT), kinds[i]),
		     kinds[i]);
}

/* By another handle, the end of which is not that of the lock. */
static void *use_locked(void *arg)
{
	while (!is_over()) {
		for (int i = 0; i < 2; i++)
			close(open_file(kinds[i], O_RDWR));
		nap(500);
	}
	return arg;
}

/* OFD locks of a rival at the store conflict with all that the daemon has. */
static int rival(void)
{
	bool has[3] = { false };
	long n;

	for (n = 0; !is_over(); n++)
		for (int i = 0; i < 3; i++) {
			int fd = open_file(kinds[i], O_RDWR);

			if (try_lock(fd, i == 0 ? "flock" : "ofd") && !has[i]) {
				has[i] = true;
				printf("got the lock: %s\n", kinds[i]);
				nfailures++;
			}
			close(fd);
		}
	return n > 0 && nfailures == 0 ? 0 : 1;
}

/* ---------------------------------------------------------------------------------- */

static int use(void)
{
	void *(*const job[])(void *) = {
		use_removed,   use_nameless, use_mapping,        use_names,
		use_snapshots, use_listing,  use_removed_folder, use_replaced,
		use_locked,    use_wait,     use_wait,           use_wait,
	};
	enum { NJOBS = sizeof(job) / sizeof(*job) };
	pthread_t thread[NJOBS];

	hold_locks();
	for (int i = 0; i < NJOBS; i++)
		pthread_create(&thread[i], NULL, job[i], NULL);
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < NJOBS; i++)
		pthread_join(thread[i], NULL);
	return nfailures == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	char *here = realpath(".", NULL), *path = NULL;
	int rc;

	if (argc != 4 || asprintf(&path, "%s/%s", here, argv[3]) < 0 ||
	    chdir(argv[2]) < 0)
		return 2;
	stop_path = path;
	rc = strcmp(argv[1], "use") == 0 ? use() : rival();
	free(path);
	free(here);
	return rc;
}
