/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thing that somebody might try with a file.
 *
 *   attempt WHAT FILE [OTHER]
 *
 * prints OK, or the name of the errno.  WHAT is one of the table below; OTHER a second
 * name, which some need.  It tries to change nothing that would tell of it elsewhere.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"

static const char *file, *other;

/* 0 and more is success, -1 is a failure with errno. */
typedef int attempt_fn(void);

/* --- opening and what comes after ---------------------------------------------- */

/* If it fails, that is the answer. */
static int open_for(int flags)
{
	int fd = open(file, flags | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	puts(strerrorname_np(errno));
	exit(0);
}

static int do_read(void)
{
	char c;

	return read(open_for(O_RDONLY), &c, 1);
}

static int do_write(void)
{
	return write(open_for(O_WRONLY), "x", 1);
}

static int do_append(void)
{
	return write(open_for(O_WRONLY | O_APPEND), "x", 1);
}

static int do_open_rdwr(void)
{
	return open_for(O_RDWR);
}

static int do_open_trunc(void)
{
	return open_for(O_WRONLY | O_TRUNC);
}

/* Needs neither reading nor writing elsewhere. */
static int do_open_rdonly_trunc(void)
{
	return open_for(O_RDONLY | O_TRUNC);
}

static int do_open_noatime(void)
{
	return open_for(O_RDONLY | O_NOATIME);
}

static int do_create(void)
{
	return open(file, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static int do_list(void)
{
	return opendir(file) == NULL ? -1 : 0;
}

static int map(int flags, int prot, int share)
{
	int fd = open_for(flags);

	return mmap(NULL, 4096, prot, share, fd, 0) == MAP_FAILED ? -1 : 0;
}

static int do_map(void)
{
	return map(O_RDONLY, PROT_READ, MAP_SHARED);
}

static int do_map_private(void)
{
	return map(O_RDONLY, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static int do_map_write(void)
{
	return map(O_RDONLY, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static int do_map_wronly(void)
{
	return map(O_WRONLY, PROT_READ, MAP_SHARED);
}

static int do_protect(void)
{
	int fd = open_for(O_RDONLY);
	void *mem = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	return mem == MAP_FAILED ? -1 : mprotect(mem, 4096, PROT_READ | PROT_WRITE);
}

/* By the name that /proc has for a descriptor. */
static int reopen(int first, int flags)
{
	int fd = open_for(first);
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

static int do_reopen_write(void)
{
	return reopen(O_RDONLY, O_RDWR);
}

static int do_reopen_path(void)
{
	return reopen(O_PATH, O_RDONLY);
}

static int do_read_path(void)
{
	char c;

	return read(open_for(O_PATH), &c, 1);
}

static int do_read_wronly(void)
{
	char c;

	return read(open_for(O_WRONLY), &c, 1);
}

static int do_ftruncate(void)
{
	return ftruncate(open_for(O_RDONLY), 0);
}

static int do_fallocate(void)
{
	return fallocate(open_for(O_RDONLY), 0, 0, 1);
}

static int do_punch(void)
{
	return fallocate(open_for(O_RDONLY), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			 4096);
}

static int do_copy_into(void)
{
	int from = open(other, O_RDONLY);

	return copy_file_range(from, NULL, open_for(O_RDONLY), NULL, 1, 0);
}

static int do_copy_from_wronly(void)
{
	int to = open(other, O_RDWR);

	return copy_file_range(open_for(O_WRONLY), NULL, to, NULL, 1, 0);
}

static int do_execute(void)
{
	return execl(file, file, NULL);
}

/* --- attributes ------------------------------------------------------------------ */

static int do_stat(void)
{
	struct stat st;

	return stat(file, &st);
}

static int do_access_read(void)
{
	return access(file, R_OK);
}

static int do_access_write(void)
{
	return access(file, W_OK);
}

static int do_truncate(void)
{
	return truncate(file, 0);
}

static int do_chmod(void)
{
	return chmod(file, 0666);
}

static int do_fchmod(void)
{
	return fchmod(open_for(O_RDONLY), 0666);
}

static int do_chown(void)
{
	return chown(file, geteuid(), -1);
}

static int do_chgrp(void)
{
	return chown(file, -1, getegid());
}

static int do_give_away(void)
{
	return chown(file, 0, -1);
}

static int do_touch(void)
{
	return utimensat(AT_FDCWD, file, NULL, 0);
}

static int do_set_times(void)
{
	static const struct timespec then[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };

	return utimensat(AT_FDCWD, file, then, 0);
}

static int do_setxattr(void)
{
	return setxattr(file, "user.mine", "x", 1, 0);
}

static int do_fsetxattr(void)
{
	return fsetxattr(open_for(O_RDONLY), "user.mine", "x", 1, 0);
}

static int do_getxattr(void)
{
	char value[16];

	return getxattr(file, "user.note", value, sizeof(value));
}

static int do_removexattr(void)
{
	return removexattr(file, "user.note");
}

static int do_set_trusted(void)
{
	return setxattr(file, "trusted.mine", "x", 1, 0);
}

static int do_set_capability(void)
{
	static const unsigned char none[20] = { 0, 0, 0, 2 };

	return setxattr(file, "security.capability", none, sizeof(none), 0);
}

static int do_set_flags(void)
{
	int fd = open_for(O_RDONLY), flags = 0;

	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* --- names ----------------------------------------------------------------------- */

static int do_link(void)
{
	return link(file, other);
}

static int do_link_path(void)
{
	char path[32];
	int fd = open_for(O_PATH);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, AT_FDCWD, other, AT_SYMLINK_FOLLOW);
}

static int do_rename(void)
{
	return rename(file, other);
}

static int do_exchange(void)
{
	return renameat2(AT_FDCWD, file, AT_FDCWD, other, RENAME_EXCHANGE);
}

static int do_unlink(void)
{
	return unlink(file);
}

static int do_handle(void)
{
	union {
		struct file_handle h;
		char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} handle = { .h.handle_bytes = MAX_HANDLE_SZ };
	int mount_id;

	if (name_to_handle_at(AT_FDCWD, file, &handle.h, &mount_id, 0) < 0)
		return -1;
	return open_by_handle_at(AT_FDCWD, &handle.h, O_RDONLY);
}

/* --- locks ------------------------------------------------------------------------ */

static int lock(int flags, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET };

	return fcntl(open_for(flags), F_OFD_SETLK, &lock);
}

static int do_lock(void)
{
	return lock(O_RDWR, F_WRLCK);
}

static int do_lock_rdonly(void)
{
	return lock(O_RDONLY, F_WRLCK);
}

static int do_lock_shared(void)
{
	return lock(O_RDONLY, F_RDLCK);
}

static int do_flock(void)
{
	return flock(open_for(O_RDONLY), LOCK_EX | LOCK_NB);
}

static int do_lease(void)
{
	return fcntl(open_for(O_RDONLY), F_SETLEASE, F_RDLCK);
}

/* --- what an fmfs mount is asked ----------------------------------------------------- */

static int ask(int flags, unsigned long request)
{
	static struct fmfs_roots roots;

	return ioctl(open_for(flags), request, &roots);
}

static int do_ask_roots(void)
{
	return ask(O_RDONLY, FMFS_IOC_ROOTS);
}

static int do_ask_roots_wronly(void)
{
	return ask(O_WRONLY, FMFS_IOC_ROOTS);
}

static int do_ask_roots_path(void)
{
	return ask(O_PATH, FMFS_IOC_ROOTS);
}

static int do_ask_rollback(void)
{
	return ask(O_RDONLY, FMFS_IOC_ROLLBACK);
}

static int ask_clone(int flags, const char *folder, uint64_t number)
{
	struct fmfs_clone to = { .mode = 07777 };
	const char *name = strrchr(other, '/');
	int dir = open(folder, O_PATH | O_DIRECTORY), fd = open_for(flags);
	struct stat st;

	if (fstat(dir, &st) < 0)
		return -1;
	to.folder = number != 0 ? number : st.st_ino;
	snprintf(to.name, sizeof(to.name), "%s", name == NULL ? other : name + 1);
	return ioctl(fd, FMFS_IOC_CLONE, &to);
}

static int folder_and_clone(int flags)
{
	char folder[4096];
	const char *slash = strrchr(other, '/');

	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - other) : 1,
		 slash ? other : ".");
	return ask_clone(flags, folder, 0);
}

static int do_ask_clone(void)
{
	return folder_and_clone(O_RDONLY);
}

static int do_ask_clone_wronly(void)
{
	return folder_and_clone(O_WRONLY);
}

/* OTHER is all of the name. */
static int do_ask_clone_name(void)
{
	struct fmfs_clone to = { .mode = 0600 };
	int fd = open_for(O_RDONLY);
	struct stat st;
	char folder[4096];

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(file, '/') - file), file);
	if (stat(folder, &st) < 0)
		return -1;
	to.folder = st.st_ino;
	memset(to.name, 'x', sizeof(to.name));	/* too long to end */
	if (strlen(other) < sizeof(to.name))
		strcpy(to.name, other);
	return ioctl(fd, FMFS_IOC_CLONE, &to);
}

static int do_ask_clone_nowhere(void)
{
	return ask_clone(O_RDONLY, "/", 12345678987654321);
}

/* A file's number is no folder's. */
static int do_ask_clone_in_file(void)
{
	struct stat st;

	return stat(file, &st) < 0 ? -1 : ask_clone(O_RDONLY, "/", st.st_ino);
}

#define ATTEMPT(name) { #name, do_##name }

static const struct {
	const char *name;
	attempt_fn *fn;
} attempts[] = {
	ATTEMPT(read),		 ATTEMPT(write),
	ATTEMPT(append),	 ATTEMPT(open_rdwr),
	ATTEMPT(open_trunc),	 ATTEMPT(open_rdonly_trunc),
	ATTEMPT(open_noatime),	 ATTEMPT(create),
	ATTEMPT(list),		 ATTEMPT(map),
	ATTEMPT(map_private),	 ATTEMPT(map_write),
	ATTEMPT(map_wronly),	 ATTEMPT(protect),
	ATTEMPT(reopen_write),	 ATTEMPT(reopen_path),
	ATTEMPT(read_path),	 ATTEMPT(read_wronly),
	ATTEMPT(ftruncate),	 ATTEMPT(fallocate),
	ATTEMPT(punch),		 ATTEMPT(copy_into),
	ATTEMPT(copy_from_wronly), ATTEMPT(execute),
	ATTEMPT(stat),		 ATTEMPT(access_read),
	ATTEMPT(access_write),	 ATTEMPT(truncate),
	ATTEMPT(chmod),		 ATTEMPT(fchmod),
	ATTEMPT(chown),		 ATTEMPT(chgrp),
	ATTEMPT(give_away),	 ATTEMPT(touch),
	ATTEMPT(set_times),	 ATTEMPT(setxattr),
	ATTEMPT(fsetxattr),	 ATTEMPT(getxattr),
	ATTEMPT(removexattr),	 ATTEMPT(set_trusted),
	ATTEMPT(set_capability), ATTEMPT(set_flags),
	ATTEMPT(link),		 ATTEMPT(link_path),
	ATTEMPT(rename),	 ATTEMPT(exchange),
	ATTEMPT(unlink),	 ATTEMPT(handle),
	ATTEMPT(lock),		 ATTEMPT(lock_rdonly),
	ATTEMPT(lock_shared),	 ATTEMPT(flock),
	ATTEMPT(lease),		 ATTEMPT(ask_roots),
	ATTEMPT(ask_roots_wronly), ATTEMPT(ask_roots_path),
	ATTEMPT(ask_rollback),	 ATTEMPT(ask_clone),
	ATTEMPT(ask_clone_wronly), ATTEMPT(ask_clone_name),
	ATTEMPT(ask_clone_nowhere), ATTEMPT(ask_clone_in_file),
};

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	file = argv[2];
	other = argc > 3 ? argv[3] : "";
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
		if (strcmp(attempts[i].name, argv[1]) == 0) {
			puts(attempts[i].fn() >= 0 ? "OK" : strerrorname_np(errno));
			return 0;
		}
	fprintf(stderr, "attempt: no such: %s\n", argv[1]);
	return 2;
}
