/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs do with files, done in a folder of a mount and looked at there
 * and in the store.
 *
 *   file-ops MOUNT POOLS
 *
 * A line for each case, "ok NAME" or "not ok NAME: WHY"; test-files.tap makes
 * TAP of them.  The files are removed again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

static int mnt, store; /* the folders */
static const char *mnt_path;
static char why[256];

/* In a case: end it as failed unless the expression is true. */
#define want(expr)                                                               \
	do {                                                                     \
		if (!(expr)) {                                                   \
			snprintf(why, sizeof(why), "line %d: %s (%s)", __LINE__, \
				 #expr, strerror(errno));                        \
			return false;                                            \
		}                                                                \
	} while (0)
#define want_errno(expr, err) want((expr) < 0 && errno == (err))

static bool same_bytes(int fd, off_t off, const void *bytes, size_t len)
{
	char *buf = malloc(len);
	bool same = buf != NULL && pread(fd, buf, len, off) == (ssize_t)len &&
		    memcmp(buf, bytes, len) == 0;

	free(buf);
	return same;
}

static bool all_zero(int fd, off_t off, size_t len)
{
	char *zero = calloc(1, len);
	bool same = zero != NULL && same_bytes(fd, off, zero, len);

	free(zero);
	return same;
}

/* A file of `len` bytes 'x', open for reading and writing. */
static int make(const char *name, size_t len)
{
	int fd = openat(mnt, name, O_RDWR | O_CREAT | O_TRUNC, 0644);
	char *x = malloc(len + 1);

	memset(x, 'x', len + 1);
	if (fd >= 0 && len > 0 && write(fd, x, len) != (ssize_t)len) {
		close(fd);
		fd = -1;
	}
	free(x);
	return fd;
}

static bool create(void)
{
	struct stat at_mnt, in_store;
	int fd;

	umask(027);
	fd = openat(mnt, "f", O_RDWR | O_CREAT | O_EXCL, 0666);
	umask(022);
	want(fd >= 0);
	want_errno(openat(mnt, "f", O_RDWR | O_CREAT | O_EXCL, 0666), EEXIST);
	want(write(fd, "hello", 5) == 5);
	want(fstat(fd, &at_mnt) == 0 && fstatat(store, "f", &in_store, 0) == 0);
	want(at_mnt.st_size == 5 && in_store.st_size == 5);
	want(at_mnt.st_ino == in_store.st_ino);
	want((at_mnt.st_mode & 07777) == 0640 && at_mnt.st_uid == getuid());
	want(at_mnt.st_nlink == 1);
	want(close(fd) == 0);
	return true;
}

static bool open_missing(void)
{
	want_errno(openat(mnt, "none", O_RDONLY), ENOENT);
	want_errno(unlinkat(mnt, "none", 0), ENOENT);
	return true;
}

static bool append(void)
{
	int a = make("f", 10), b = openat(mnt, "f", O_WRONLY | O_APPEND);

	want(a >= 0 && b >= 0);
	want(write(b, "12", 2) == 2);
	want(pwrite(a, "34", 2, 12) == 2);
	want(write(b, "56", 2) == 2);
	want(same_bytes(a, 10, "123456", 6));
	close(a);
	close(b);
	return true;
}

static bool truncates(void)
{
	int fd = make("f", 10000), other;
	struct stat st;

	want(fd >= 0);
	want(ftruncate(fd, 5000) == 0 && fstat(fd, &st) == 0 && st.st_size == 5000);
	want(ftruncate(fd, 20000) == 0 && all_zero(fd, 5000, 15000));
	other = openat(mnt, "f", O_RDWR | O_TRUNC);
	want(other >= 0 && fstat(fd, &st) == 0 && st.st_size == 0);
	close(other);
	close(fd);
	fd = openat(store, "f", O_RDONLY);
	want(fstat(fd, &st) == 0 && st.st_size == 0);
	close(fd);
	return true;
}

static bool truncate_by_name(void)
{
	char path[PATH_MAX];
	struct stat st;
	int fd = make("f", 100);

	want(fd >= 0 && close(fd) == 0);
	snprintf(path, sizeof(path), "%s/f", mnt_path);
	want(truncate(path, 33) == 0 && stat(path, &st) == 0 && st.st_size == 33);
	return true;
}

static bool preallocates(void)
{
	struct stat st;
	int fd = make("f", 0);

	want(fallocate(fd, 0, 0, 1 << 20) == 0);
	want(fstat(fd, &st) == 0 && st.st_size == 1 << 20);
	want(fallocate(fd, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20) == 0);
	want(fstat(fd, &st) == 0 && st.st_size == 1 << 20);
	want(st.st_blocks * 512 >= 2 << 20);
	close(fd);
	return true;
}

static bool punches(void)
{
	int fd = make("f", 1 << 20);
	struct stat before, after;

	want(fd >= 0 && fsync(fd) == 0 && fstat(fd, &before) == 0);
	want(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 64 << 10,
		       512 << 10) == 0);
	want(fstat(fd, &after) == 0 && after.st_size == 1 << 20);
	want(after.st_blocks <= before.st_blocks - 1024);
	want(all_zero(fd, 64 << 10, 512 << 10));
	want(same_bytes(fd, (64 << 10) - 1, "x", 1) &&
	     same_bytes(fd, (64 + 512) << 10, "x", 1));
	close(fd);
	return true;
}

static bool zeroes(void)
{
	int fd = make("f", 8192), in_store = openat(store, "f", O_RDWR);

	want(fd >= 0 && in_store >= 0);
	if (fallocate(in_store, FALLOC_FL_ZERO_RANGE, 0, 1) == 0)
		want(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096) == 0 &&
		     all_zero(fd, 0, 4096) && same_bytes(fd, 4096, "x", 1));
	else /* as the file system below */
		want_errno(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096), EOPNOTSUPP);
	close(fd);
	close(in_store);
	return true;
}

static bool seeks_holes(void)
{
	int fd = make("f", 0);

	want(pwrite(fd, "data", 4, 1 << 20) == 4 && ftruncate(fd, 2 << 20) == 0);
	want(fsync(fd) == 0);
	want(lseek(fd, 0, SEEK_DATA) == 1 << 20);
	want(lseek(fd, 1 << 20, SEEK_HOLE) == (1 << 20) + 4096);
	want_errno(lseek(fd, (1 << 20) + 4096, SEEK_DATA), ENXIO);
	want(lseek(fd, -1, SEEK_END) == (2 << 20) - 1);
	close(fd);
	return true;
}

static bool xattrs(void)
{
	char path[PATH_MAX], value[64];
	int fd = make("f", 0);

	want(fd >= 0);
	snprintf(path, sizeof(path), "%s/f", mnt_path);
	want(fsetxattr(fd, "user.colour", "blue", 4, 0) == 0);
	want(getxattr(path, "user.colour", value, sizeof(value)) == 4 &&
	     memcmp(value, "blue", 4) == 0);
	want(getxattr(path, "user.colour", NULL, 0) == 4);
	want_errno(getxattr(path, "user.colour", value, 2), ERANGE);
	want_errno(setxattr(path, "user.colour", "red", 3, XATTR_CREATE), EEXIST);
	want(listxattr(path, value, sizeof(value)) == sizeof("user.colour"));
	want(removexattr(path, "user.colour") == 0);
	want_errno(getxattr(path, "user.colour", value, sizeof(value)), ENODATA);
	want(listxattr(path, value, sizeof(value)) == 0);
	close(fd);
	return true;
}

static bool chmods(void)
{
	struct stat st;
	int fd = make("f", 0);

	want(fchmodat(mnt, "f", 0604, 0) == 0);
	want(fstatat(mnt, "f", &st, 0) == 0 && (st.st_mode & 07777) == 0604);
	want(fchmod(fd, 0640) == 0 && fstat(fd, &st) == 0);
	want((st.st_mode & 07777) == 0640);
	want(fstatat(store, "f", &st, 0) == 0 && (st.st_mode & 07777) == 0640);
	close(fd);
	return true;
}

static bool chowns(void)
{
	struct stat st;
	int fd = make("f", 0);

	want(fd >= 0);
	if (getuid() != 0)
		return true;
	want(fchownat(mnt, "f", 12, 34, 0) == 0);
	want(fstatat(store, "f", &st, 0) == 0 && st.st_uid == 12 && st.st_gid == 34);
	want(fchown(fd, -1, 56) == 0 && fstat(fd, &st) == 0);
	want(st.st_uid == 12 && st.st_gid == 56);
	close(fd);
	return true;
}

static bool utimes_(void)
{
	struct timespec ts[2] = { { 1000, 123 }, { 2000, 456 } };
	struct stat st;
	int fd = make("f", 0);

	want(fd >= 0 && utimensat(mnt, "f", ts, 0) == 0);
	want(fstatat(mnt, "f", &st, 0) == 0);
	want(st.st_atim.tv_sec == 1000 && st.st_mtim.tv_sec == 2000 &&
	     st.st_mtim.tv_nsec == 456);
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1].tv_nsec = UTIME_NOW;
	want(futimens(fd, ts) == 0 && fstat(fd, &st) == 0);
	want(st.st_atim.tv_sec == 1000 && st.st_mtim.tv_sec > 1000000);
	close(fd);
	return true;
}

static bool renames(void)
{
	int fd = make("f", 3), other = make("g", 7);
	struct stat st, f;

	want(fd >= 0 && other >= 0 && fstat(fd, &f) == 0);
	want_errno(renameat2(mnt, "f", mnt, "g", RENAME_NOREPLACE), EEXIST);
	want(renameat2(mnt, "f", mnt, "g", RENAME_EXCHANGE) == 0);
	want(fstatat(mnt, "g", &st, 0) == 0 && st.st_size == 3 &&
	     st.st_ino == f.st_ino);
	want(fstatat(mnt, "f", &st, 0) == 0 && st.st_size == 7);
	want(renameat2(mnt, "g", mnt, "h", RENAME_NOREPLACE) == 0);
	want_errno(fstatat(mnt, "g", &st, 0), ENOENT);
	want(fstatat(store, "h", &st, 0) == 0 && st.st_size == 3);
	/* Over one that is open; both descriptors go on. */
	want(renameat(mnt, "h", mnt, "f") == 0);
	want(fstatat(mnt, "f", &st, 0) == 0 && st.st_size == 3);
	want(pwrite(fd, "new", 3, 0) == 3 && fstat(fd, &st) == 0);
	want(st.st_ino == f.st_ino && fchmod(fd, 0600) == 0);
	want(same_bytes(other, 0, "xxxxxxx", 7));
	want(fstat(other, &st) == 0 && st.st_size == 7);
	close(fd);
	close(other);
	fd = openat(mnt, "f", O_RDONLY);
	want(fd >= 0 && same_bytes(fd, 0, "new", 3));
	close(fd);
	return true;
}

static bool unlinks_open(void)
{
	int fd = make("f", 100);
	struct stat st;

	want(fd >= 0 && unlinkat(mnt, "f", 0) == 0);
	want_errno(fstatat(store, "f", &st, 0), ENOENT);
	want(pwrite(fd, "still", 5, 50) == 5 && same_bytes(fd, 50, "still", 5));
	want(ftruncate(fd, 60) == 0 && fstat(fd, &st) == 0);
	want(st.st_size == 60 && st.st_nlink == 0);
	want(fchmod(fd, 0600) == 0 && fsync(fd) == 0);
	want(fallocate(fd, 0, 0, 8192) == 0);
	/* The name is free for another. */
	want(close(make("f", 1)) == 0 && fstat(fd, &st) == 0 && st.st_size == 8192);
	close(fd);
	return true;
}

static bool refusals(void)
{
	want(close(make("f", 1)) == 0);
	want_errno(mkdirat(mnt, "dir@tag", 0755), EPERM);
	want_errno(symlinkat("f", mnt, "sym"), EPERM);
	want_errno(mknodat(mnt, "fifo", S_IFIFO | 0644, 0), EPERM);
	want_errno(linkat(mnt, "f", mnt, "plain", 0), EPERM);
	want_errno(openat(mnt, "f@t", O_CREAT | O_RDWR, 0644), EPERM);
	want_errno(renameat(mnt, "f", mnt, "f@t"), EPERM);
	want_errno(openat(mnt, ".", O_RDWR), EISDIR);
	want_errno(unlinkat(mnt, "f", AT_REMOVEDIR), ENOTDIR);
	want_errno(fstatat(mnt, "f/x", &(struct stat){ 0 }, 0), ENOTDIR);
	return true;
}

static bool long_names(void)
{
	char name[257];

	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	want(close(make(name, 1)) == 0 && unlinkat(mnt, name, 0) == 0);
	name[255] = 'n';
	name[256] = '\0';
	want_errno(openat(mnt, name, O_CREAT | O_RDWR, 0644), ENAMETOOLONG);
	return true;
}

#define NFILES 500
static int count(bool *dups)
{
	static bool seen[NFILES];
	int n = 0, fd = openat(mnt, ".", O_RDONLY);
	struct dirent *de;
	DIR *d = fdopendir(fd);

	memset(seen, 0, sizeof(seen));
	*dups = false;
	while ((de = readdir(d)) != NULL) {
		int i;

		if (sscanf(de->d_name, "many%d", &i) != 1)
			continue;
		*dups |= seen[i] || de->d_type != DT_REG;
		seen[i] = true;
		n++;
	}
	closedir(d);
	return n;
}

static bool lists(void)
{
	struct dirent *de;
	char name[256];
	bool dups;
	long pos;
	DIR *d;

	for (int i = 0; i < NFILES; i++) {
		snprintf(name, sizeof(name), "many%d", i);
		want(close(openat(mnt, name, O_CREAT | O_WRONLY, 0644)) == 0);
	}
	want(count(&dups) == NFILES && !dups);
	/* A position is good after names have gone. */
	d = fdopendir(openat(mnt, ".", O_RDONLY));
	for (int i = 0; i < 100; i++)
		want(readdir(d) != NULL);
	pos = telldir(d);
	de = readdir(d);
	want(de != NULL);
	snprintf(name, sizeof(name), "%s", de->d_name);
	while (readdir(d) != NULL)
		;
	seekdir(d, pos);
	de = readdir(d);
	want(de != NULL && strcmp(de->d_name, name) == 0);
	closedir(d);
	for (int i = 0; i < NFILES; i++) {
		snprintf(name, sizeof(name), "many%d", i);
		want(unlinkat(mnt, name, 0) == 0);
	}
	want(count(&dups) == 0);
	return true;
}

static bool statfs_(void)
{
	struct statvfs a, b;

	want(fstatvfs(mnt, &a) == 0 && fstatvfs(store, &b) == 0);
	want(a.f_blocks == b.f_blocks && a.f_namemax == 255);
	return true;
}

static bool copies_ranges(void)
{
	int from = make("f", 1 << 20), to = make("g", 0);
	loff_t off_from = 4096, off_to = 0;
	ssize_t n;

	want(pwrite(from, "marked", 6, 8192) == 6);
	while (off_from < 1 << 20) {
		n = copy_file_range(from, &off_from, to, &off_to, (1 << 20) - off_from,
				    0);
		want(n > 0);
	}
	want(same_bytes(to, 4096, "marked", 6));
	want(lseek(to, 0, SEEK_END) == (1 << 20) - 4096);
	close(from);
	close(to);
	return true;
}

static bool syncs(void)
{
	int fd = make("f", 4096);

	want(fsync(fd) == 0 && fdatasync(fd) == 0 && fsync(mnt) == 0);
	close(fd);
	return true;
}

/* What is stored through one mapping is seen through all, and in the store. */
static bool maps(void)
{
	size_t len = 4 << 20;
	int fd = make("f", 0), other;
	char *a, *b;

	want(ftruncate(fd, len) == 0);
	a = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	want(a != MAP_FAILED && b != MAP_FAILED);
	strcpy(a + 12345, "stored");
	want(strcmp(b + 12345, "stored") == 0);
	want(same_bytes(fd, 12345, "stored", 7));
	want(pwrite(fd, "WRITTEN", 8, 2 << 20) == 8 &&
	     strcmp(a + (2 << 20), "WRITTEN") == 0);
	want(msync(a, len, MS_SYNC) == 0);
	other = openat(store, "f", O_RDONLY);
	want(same_bytes(other, 12345, "stored", 7));
	close(other);
	/* Mappings outlive their descriptors. */
	close(fd);
	strcpy(a + 3000000, "after close");
	want(msync(a, len, MS_SYNC) == 0 && munmap(b, len) == 0 && munmap(a, len) == 0);
	fd = openat(mnt, "f", O_RDONLY);
	want(same_bytes(fd, 3000000, "after close", 11));
	close(fd);
	return true;
}

/* Beyond the end first, as the library reserves its address space. */
static bool grows_while_mapped(void)
{
	size_t len = 16 << 20;
	int fd = make("f", 4096);
	char *p;

	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	want(p != MAP_FAILED && ftruncate(fd, 1 << 20) == 0);
	p[(1 << 20) - 1] = 'a';
	want(fallocate(fd, 0, 0, 8 << 20) == 0);
	p[(8 << 20) - 1] = 'b';
	want(same_bytes(fd, (8 << 20) - 1, "b", 1));
	want(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 << 20) ==
	     0);
	want(p[(1 << 20) - 1] == 0);
	munmap(p, len);
	close(fd);
	return true;
}

static bool many_opens(void)
{
	int fd[64], first = make("f", 10);

	want(first >= 0);
	for (int i = 0; i < 64; i++) {
		fd[i] = openat(mnt, "f", i % 2 ? O_RDONLY : O_RDWR);
		want(fd[i] >= 0);
	}
	want(pwrite(fd[0], "y", 1, 3) == 1);
	for (int i = 0; i < 64; i++)
		want(same_bytes(fd[i], 3, "y", 1) && close(fd[i]) == 0);
	close(first);
	return true;
}

static bool direct_io(void)
{
	void *buf = aligned_alloc(4096, 4096);
	int fd = make("f", 8192), other;

	want(buf != NULL && fsync(fd) == 0);
	other = openat(mnt, "f", O_RDWR | O_DIRECT);
	want(other >= 0);
	memset(buf, 'd', 4096);
	want(pwrite(other, buf, 4096, 4096) == 4096);
	want(same_bytes(fd, 4096, buf, 4096) && same_bytes(fd, 4095, "x", 1));
	want(pread(other, buf, 4096, 0) == 4096 && *(char *)buf == 'x');
	close(other);
	close(fd);
	free(buf);
	return true;
}

static const struct {
	const char *name;
	bool (*run)(void);
} cases[] = {
	{ "create, with umask and same inode number", create },
	{ "what is not there", open_missing },
	{ "append", append },
	{ "truncate, by descriptor and by O_TRUNC", truncates },
	{ "truncate by name", truncate_by_name },
	{ "fallocate", preallocates },
	{ "punch hole", punches },
	{ "zero range", zeroes },
	{ "lseek to data and holes", seeks_holes },
	{ "extended attributes", xattrs },
	{ "chmod", chmods },
	{ "chown", chowns },
	{ "utimensat", utimes_ },
	{ "rename, NOREPLACE, EXCHANGE, over an open file", renames },
	{ "unlink while open", unlinks_open },
	{ "what is refused", refusals },
	{ "long names", long_names },
	{ "listing 500 files", lists },
	{ "statvfs", statfs_ },
	{ "copy_file_range", copies_ranges },
	{ "fsync, fdatasync, fsync of the folder", syncs },
	{ "mappings", maps },
	{ "growing while mapped", grows_while_mapped },
	{ "64 opens of one file", many_opens },
	{ "O_DIRECT", direct_io },
};

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	mnt_path = argv[1];
	mnt = open(argv[1], O_RDONLY | O_DIRECTORY);
	store = open(argv[2], O_RDONLY | O_DIRECTORY);
	if (mnt < 0 || store < 0) {
		perror("file-ops");
		return 2;
	}
	umask(022);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (cases[i].run())
			printf("ok %s\n", cases[i].name);
		else
			printf("not ok %s: %s\n", cases[i].name, why);
		unlinkat(mnt, "f", 0);
		unlinkat(mnt, "g", 0);
		unlinkat(mnt, "h", 0);
	}
	return 0;
}
