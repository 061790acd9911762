/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several processes that do all that can be done with names in one folder, at random and
 * on the same few names: files, snapshots, folders, pools.
 *
 *   tree-exerciser [-s SEED] [-n OPERATIONS] [-p PROCESSES] FOLDER
 *   tree-exerciser -r TIMES FOLDER
 *
 * With -r: so many times a file takes the name of one just removed, and two just made
 * exchange theirs, faster than a catalog can follow.
 *
 * Says how often each operation was done and refused.  Exit status 1 if an operation
 * gave an errno that it may not give.  What there is afterwards is for the caller to
 * look at.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fmalloc.h>

#define NNAMES 8   /* of each kind */
#define NFOLDERS 3
#define NTAGS 3
#define MAX_LEN (256 << 10)
#define MAX_PROCESSES 64

/* Pools have names of their own, or a program that has one mapped would be killed by
 * another that cuts it. */
enum kind { PLAIN = 'f', POOL = 'p' };

static unsigned short rng[3];
static sigjmp_buf beyond_end;
static char names[2][64]; /* of the operation that is under way */

static int below(int n)
{
	return (int)(nrand48(rng) % n);
}

/* In the folder or in one below it, "d1/f3". */
static char *name_of(char *to, enum kind kind)
{
	char *at = to;

	if (below(3) == 0)
		at += sprintf(at, "d%d/", below(NFOLDERS));
	sprintf(at, "%c%d", kind, below(NNAMES));
	return to;
}

static char *folder_name(char *to)
{
	sprintf(to, "d%d", below(NFOLDERS));
	return to;
}

static enum kind any_kind(void)
{
	return below(2) == 0 ? PLAIN : POOL;
}

static void add_tag(char *name)
{
	sprintf(name + strlen(name), "@t%d", below(NTAGS));
}

/* Of a file, of a pool, or of a snapshot of one. */
static char *any_name(char *to)
{
	name_of(to, any_kind());
	if (below(3) == 0)
		add_tag(to);
	return to;
}

/* close(fd), which must succeed, and `rc` with its errno. */
static int and_close(int fd, int rc)
{
	int err = errno;

	if (close(fd) < 0)
		return -1;
	errno = err;
	return rc;
}

/* --- operations: as system calls, 0 or -1 with errno ----------------------- */

static int create(void)
{
	int fd = open(name_of(names[0], PLAIN), O_RDWR | O_CREAT | O_EXCL, 0644);

	return fd < 0 ? -1 : and_close(fd, 0);
}

static int write_file(void)
{
	static char bytes[16 << 10];
	int fd, rc;

	name_of(names[0], PLAIN);
	if (below(8) == 0)
		add_tag(names[0]);
	fd = open(names[0], O_WRONLY | (below(4) == 0 ? O_TRUNC : 0));
	if (fd < 0)
		return -1;
	memset(bytes, below(256), sizeof(bytes));
	rc = pwrite(fd, bytes, 1 + below(sizeof(bytes)), below(MAX_LEN)) < 0 ? -1 : 0;
	if (rc == 0 && below(4) == 0)
		rc = fsync(fd);
	return and_close(fd, rc);
}

static void is_cut(int sig)
{
	(void)sig;
	siglongjmp(beyond_end, 1);
}

/* Another may cut the file meanwhile: that is a signal anywhere. */
static int store_into(unsigned char *map, size_t len)
{
	if (sigsetjmp(beyond_end, 1) != 0)
		return 0;
	for (int i = 0; i < 8; i++)
		map[below((int)len)]++;
	return msync(map, len, MS_SYNC) < 0 && errno != EIO ? -1 : 0;
}

static int map_file(void)
{
	int fd = open(name_of(names[0], PLAIN), O_RDWR), rc;
	unsigned char *map;
	struct stat st;

	if (fd < 0)
		return -1;
	rc = fstat(fd, &st);
	if (rc < 0 || st.st_size == 0)
		return and_close(fd, rc);
	map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return and_close(fd, -1);
	rc = store_into(map, st.st_size);
	munmap(map, st.st_size);
	return and_close(fd, rc);
}

static int read_file(void)
{
	static char bytes[MAX_LEN];
	int fd = open(any_name(names[0]), O_RDONLY);

	return fd < 0 ? -1 : and_close(fd, read(fd, bytes, MAX_LEN) < 0 ? -1 : 0);
}

static int truncate_file(void)
{
	return truncate(name_of(names[0], PLAIN), below(MAX_LEN));
}

static int allocate(void)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
	};
	int fd = open(name_of(names[0], PLAIN), O_RDWR);

	if (fd < 0)
		return -1;
	return and_close(fd, fallocate(fd, modes[below(3)], below(MAX_LEN),
				       1 + below(MAX_LEN)));
}

static int copy(void)
{
	int from, to;
	ssize_t n;

	name_of(names[0], PLAIN);
	if (below(3) == 0)
		add_tag(names[0]);
	from = open(names[0], O_RDONLY);
	if (from < 0)
		return -1;
	to = open(name_of(names[1], PLAIN), O_WRONLY | O_CREAT, 0644);
	if (to < 0)
		return and_close(from, -1);
	n = copy_file_range(from, NULL, to, NULL, MAX_LEN, 0);
	return and_close(from, and_close(to, n < 0 ? -1 : 0));
}

static int rename_file(void)
{
	static const unsigned flags[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	enum kind kind = any_kind();

	name_of(names[0], kind);
	name_of(names[1], kind);
	if (below(4) == 0)
		strcpy(names[1], names[0]); /* may be another tag of a snapshot */
	if (below(4) == 0)
		add_tag(names[0]);
	if (below(4) == 0)
		add_tag(names[1]);
	return renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], flags[below(4)]);
}

static int rename_folder(void)
{
	return rename(folder_name(names[0]), folder_name(names[1]));
}

static int snapshot(void)
{
	strcpy(names[1], name_of(names[0], any_kind()));
	add_tag(names[1]);
	return link(names[0], names[1]);
}

static int remove_file(void)
{
	return unlink(any_name(names[0]));
}

static int make_folder(void)
{
	return mkdir(folder_name(names[0]), 0755);
}

static int remove_folder(void)
{
	return rmdir(folder_name(names[0]));
}

static int look(void)
{
	struct stat st;

	return lstat(any_name(names[0]), &st);
}

static int list(void)
{
	DIR *d = opendir(below(3) == 0 ? folder_name(names[0]) : strcpy(names[0], "."));
	struct dirent *de;

	if (d == NULL)
		return -1;
	errno = 0;
	while ((de = readdir(d)) != NULL)
		;
	return closedir(d) < 0 || errno != 0 ? -1 : 0;
}

static int sync_folder(void)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY);

	return fd < 0 ? -1 : and_close(fd, fsync(fd));
}

static int change_mode(void)
{
	return chmod(any_name(names[0]), 0600 | below(0200));
}

static int change_times(void)
{
	return utimensat(AT_FDCWD, any_name(names[0]), NULL, 0);
}

static int set_attribute(void)
{
	return setxattr(any_name(names[0]), "user.a", "value", 1 + below(5), 0);
}

static int remove_attribute(void)
{
	return removexattr(any_name(names[0]), "user.a");
}

static int get_attribute(void)
{
	char value[16];

	return getxattr(any_name(names[0]), "user.a", value, sizeof(value)) < 0 ? -1 :
										  0;
}

/* Open a pool or make one, change its roots, close it. */
static int use_pool(void)
{
	struct fm_info *pool;
	char root[16];
	int rc = 0;

	name_of(names[0], POOL);
	pool = fmalloc_open(names[0], FM_CREATE | (below(2) == 0 ? FM_ATOMIC : 0), NULL);
	if (pool == NULL && errno == EINVAL) /* it is a live one, and stays so */
		pool = fmalloc_open(names[0], FM_CREATE, NULL);
	if (pool == NULL)
		return -1;
	sprintf(root, "root%d", below(4));
	if (below(3) == 0)
		rc = fm_root_remove(pool, root) < 0 && errno != ENOENT ? -1 : 0;
	else if (fm_root_alloc(pool, root, 1 + below(5000), "bytes") == NULL)
		rc = -1;
	if (below(2) == 0)
		rc = fmalloc_commit(pool);
	return fmalloc_close(pool) < 0 ? -1 : rc;
}

/*
 * What may be refused, and why.  Names come and go: ENOENT, EEXIST.  Snapshots do not
 * change (EROFS) and are made by link(2) only (EPERM); a live pool that is written to has
 * none where nothing can be cloned (EBUSY), and none of a commit that another writer has
 * gone on from (EAGAIN); if the file is renamed after the kernel has looked it up, its
 * snapshot would have another pool's name (EPERM).  Folders are not there or not empty.  What is
 * copied within a file may not overlap (EINVAL).
 */
static struct operation {
	const char *name;
	int (*run)(void);
	int weight;
	int may[8];
	uint32_t done, refused;
} ops[] = {
	{ "create", create, 6, { ENOENT, EEXIST }, 0, 0 },
	{ "write", write_file, 6, { ENOENT, EROFS }, 0, 0 },
	{ "map", map_file, 3, { ENOENT }, 0, 0 },
	{ "read", read_file, 3, { ENOENT }, 0, 0 },
	{ "truncate", truncate_file, 3, { ENOENT }, 0, 0 },
	{ "allocate", allocate, 3, { ENOENT }, 0, 0 },
	{ "copy", copy, 3, { ENOENT, EINVAL }, 0, 0 },
	{ "rename", rename_file, 8, { ENOENT, EEXIST, EPERM, EROFS }, 0, 0 },
	{ "rename-folder", rename_folder, 2, { ENOENT, ENOTEMPTY, EEXIST }, 0, 0 },
	{ "snapshot", snapshot, 6, { ENOENT, EEXIST, EBUSY, EAGAIN, EPERM }, 0, 0 },
	{ "unlink", remove_file, 6, { ENOENT }, 0, 0 },
	{ "mkdir", make_folder, 2, { EEXIST }, 0, 0 },
	{ "rmdir", remove_folder, 2, { ENOENT, ENOTEMPTY }, 0, 0 },
	{ "stat", look, 4, { ENOENT }, 0, 0 },
	{ "list", list, 2, { ENOENT }, 0, 0 },
	{ "sync-folder", sync_folder, 1, { 0 }, 0, 0 },
	{ "chmod", change_mode, 2, { ENOENT, EROFS }, 0, 0 },
	{ "utimens", change_times, 2, { ENOENT, EROFS }, 0, 0 },
	{ "setxattr", set_attribute, 2, { ENOENT, EROFS }, 0, 0 },
	{ "removexattr", remove_attribute, 1, { ENOENT, EROFS, ENODATA }, 0, 0 },
	{ "getxattr", get_attribute, 1, { ENOENT, ENODATA }, 0, 0 },
	{ "pool", use_pool, 6, { ENOENT, EBUSY }, 0, 0 },
};
#define NOPS (sizeof(ops) / sizeof(ops[0]))

static bool may_give(const struct operation *op, int err)
{
	for (size_t i = 0; i < sizeof(op->may) / sizeof(op->may[0]); i++)
		if (err == op->may[i])
			return true;
	return false;
}

static struct operation *pick(void)
{
	int total = 0, at;
	size_t i = 0;

	for (size_t k = 0; k < NOPS; k++)
		total += ops[k].weight;
	for (at = below(total); at >= ops[i].weight; i++)
		at -= ops[i].weight;
	return &ops[i];
}

static bool one_operation(unsigned long nth)
{
	struct operation *op = pick();
	int err;

	names[0][0] = names[1][0] = '\0';
	errno = 0;
	if (op->run() == 0) {
		op->done++;
		return true;
	}
	err = errno;
	op->refused++;
	if (may_give(op, err))
		return true;
	printf("operation %lu: %s %s %s: %s%s%s\n", nth, op->name, names[0], names[1],
	       strerror(err), op->run == use_pool ? ": " : "",
	       op->run == use_pool ? fm_errmsg() : "");
	return false;
}

static int replace_one(unsigned long i)
{
	char name[4][32];
	int fd;

	for (int k = 0; k < 4; k++) {
		sprintf(name[k], "%c%lu", "abcd"[k], i);
		fd = open(name[k], O_RDWR | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || close(fd) < 0)
			return -1;
	}
	if (unlink(name[1]) < 0 || rename(name[0], name[1]) < 0)
		return -1;
	return renameat2(AT_FDCWD, name[2], AT_FDCWD, name[3], RENAME_EXCHANGE);
}

static int replace(unsigned long times)
{
	for (unsigned long i = 0; i < times; i++)
		if (replace_one(i) < 0) {
			perror("tree-exerciser");
			return 1;
		}
	return 0;
}

static int exercise(unsigned long seed, unsigned long nops)
{
	struct sigaction on_cut = { .sa_handler = is_cut };
	bool good = true;

	sigaction(SIGBUS, &on_cut, NULL);
	rng[0] = (unsigned short)seed;
	rng[1] = (unsigned short)(seed >> 16);
	rng[2] = 0x330e;
	for (unsigned long i = 1; i <= nops; i++)
		good &= one_operation(i);
	for (size_t i = 0; i < NOPS; i++)
		printf("%s %u/%u ", ops[i].name, ops[i].done, ops[i].refused);
	printf("(done/refused)\n");
	fflush(stdout);
	return good ? 0 : 1;
}

/* Wait for all: did all of them end with 0? */
static bool all_good(int n)
{
	bool good = true;
	int status;

	while (n-- > 0)
		if (wait(&status) < 0 || status != 0) {
			printf("a process ended with %#x\n", status);
			good = false;
		}
	return good;
}

int main(int argc, char **argv)
{
	unsigned long seed = 1, nops = 1000, times = 0;
	int nprocesses = 4, opt;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "s:n:p:r:")) != -1)
		if (opt == 's')
			seed = strtoul(optarg, NULL, 0);
		else if (opt == 'n')
			nops = strtoul(optarg, NULL, 0);
		else if (opt == 'p')
			nprocesses = atoi(optarg);
		else if (opt == 'r')
			times = strtoul(optarg, NULL, 0);
		else
			return 2;
	if (argc - optind != 1 || nprocesses < 1 || nprocesses > MAX_PROCESSES)
		return 2;
	if (chdir(argv[optind]) < 0) {
		perror(argv[optind]);
		return 2;
	}
	if (times > 0)
		return replace(times);
	for (int i = 0; i < nprocesses; i++)
		if (fork() == 0)
			_exit(exercise(seed * MAX_PROCESSES + (unsigned long)i, nops));
	return all_good(nprocesses) ? 0 : 1;
}
