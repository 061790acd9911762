/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: a folder that holds the files behind a mount.
 *
 *   fmfs-store   text: what this is, and the version of its layout
 *   lock         held (flock) by the daemon that serves the store; its pid
 *   catalog.db   the catalog (index.h), with its -wal and -shm
 *   pools/       what is seen at the mount
 *   tmp/         half-made files; emptied when the store is opened
 *   rename       while a pool with snapshots is being renamed (rename.h)
 */
#ifndef FM_FUSE_STORE_H
#define FM_FUSE_STORE_H

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

struct store {
	char path[PATH_MAX]; /* absolute, without symbolic links */
	int dirfd;
	int pools_fd;
	int tmp_fd;    /* -1 if read-only */
	int lock_fd;   /* -1 if read-only and there is no lock file */
	dev_t dev;     /* of pools/ */
	bool readonly; /* the file system below is */
	bool reflink;  /* FICLONE works: probed at opening */
	bool stacked;  /* lies on overlayfs or the like */
};

/*
 * Open the store, making it if `path` does not exist or is an empty folder.
 * 0, or -errno after an error message: -ENOTEMPTY (neither empty nor a store),
 * -EBUSY (served by another daemon, for so many more milliseconds), -ENOTSUP (of a newer
 * version), ...
 */
int store_open(struct store *s, const char *path, unsigned int wait_ms);
/*
 * The same of a store that is there, to look at it: nothing is made or changed.  As when it
 * is mounted read-only, it cannot be mounted otherwise meanwhile.
 */
int store_open_readonly(struct store *s, const char *path);
/*
 * Go on with one that another daemon of the same mount has opened: with the descriptors
 * that it had of the folder and the lock, which are taken, as is what is in tmp/.
 */
int store_take(struct store *s, const char *path, int dirfd, int lock_fd);
void store_close(struct store *s);

/* Whether the path is a store's. */
bool store_is(const char *path);
/* Whether the file at the path, which is absolute and without symbolic links, is one
 * of a store's pools/. */
bool store_has(const char *path);

/* The names in the folder `path`, from the first on; NULL with errno. */
DIR *store_list(int dirfd, const char *path);

/* Is the file below pools/ of the store's own file system, and not of one that is
 * mounted there?  (On overlayfs files have other devices than folders.) */
static inline bool store_owns(const struct store *s, const struct stat *st)
{
	return s->stacked || st->st_dev == s->dev;
}

/* Make a file of its own in tmp/: its descriptor (O_RDWR) or -errno, and its
 * name in there. */
#define STORE_TMP_NAME_LEN 32
int store_tmp_file(struct store *s, char name[STORE_TMP_NAME_LEN]);

/* Move a file of tmp/ to its place in pools/; -EEXIST if that is taken. */
int store_publish(const struct store *s, const char *tmp_name, const char *path);
/* Rename a file in pools/; -EEXIST if the new name is taken. */
int store_rename(const struct store *s, const char *from, const char *to);

/* Of a path below pools/: the folder and the name in it; and fsync(2) of that folder. */
void store_folder_of(const char *path, char folder[PATH_MAX]);
const char *store_name_of(const char *path);
int store_sync_folder(const struct store *s, const char *path);

#endif
