/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fmfs verbs ask a mounted fmfs, by ioctl(2) on a pool or a folder.
 * Requests are "restricted" (the size is in the number), so that the kernel
 * moves the bytes.  Listings are fetched page by page: set `after` to the last
 * name of the page before, "" at first.
 */
#ifndef FM_FMFS_IOCTL_H
#define FM_FMFS_IOCTL_H

#include <fcntl.h>
#include <linux/ioctl.h>
#include <stdint.h>

#define FMFS_NAME_LEN 256	/* with the terminating NUL */

#define FMFS_F_PASSTHROUGH 0x1u	/* mappings go straight to the store's files */
#define FMFS_F_REFLINK 0x2u	/* snapshots share space (FICLONE works) */
#define FMFS_F_READONLY 0x4u
#define FMFS_F_ATOMIC 0x8u	/* new pools are to be atomic */
#define FMFS_F_SLOW 0x10u	/* no passthrough, and large shared mappings are slow */

struct fmfs_info {		/* FMFS_IOC_INFO: any file of the mount */
	uint32_t abi;		/* FMFS_ABI */
	uint32_t flags;		/* FMFS_F_ */
	uint64_t pid;		/* of the daemon */
	char why_not[232];	/* no passthrough: the reason; else "" */
	/* Was part of why_not, which ended before: 0 is what a daemon that knows no quotas
	 * says, unless it has that much to say. */
	uint64_t max_pool;	/* bytes that a file may have; 0: no limit */
	uint64_t max_store;	/* bytes that all may have; 0: no limit */
	uint64_t used;		/* bytes of these that they have; 0: not counted */
};
#define FMFS_ABI 1u

/*
 * How the library opens a pool, among other flags; without O_TRUNC and O_APPEND.  Who opens
 * a file of a mount so has space reserved, by fallocate(2), for all that he writes to it:
 * so with quotas his write(2) need not be looked at, and goes straight to the file all the
 * same.
 */
#define FMFS_OPEN_RESERVING (O_RDWR | O_NONBLOCK)

/* The caller may not read the file; nor is he told its UUID, age and number of roots. */
#define FMFS_KIND_UNKNOWN UINT32_MAX

#define FMFS_NROOTS_UNKNOWN UINT64_MAX
struct fmfs_pool_rec {
	char name[FMFS_NAME_LEN];	/* in the folder */
	char parent[FMFS_NAME_LEN];	/* snapshots; else "" */
	uint8_t uuid[16];
	uint64_t created_ns;	/* nanoseconds since 1970 UTC */
	uint64_t nroots;	/* FMFS_NROOTS_UNKNOWN: not in the catalog */
	uint32_t kind;		/* enum catalog_kind, or FMFS_KIND_UNKNOWN */
	uint32_t reserved;
};

#define FMFS_LIST_MAX 24
struct fmfs_list {		/* FMFS_IOC_LIST: a folder; pools right in it */
	char after[FMFS_NAME_LEN];	/* in */
	uint32_t n;			/* out: records; 0 at the end */
	uint32_t reserved;
	struct fmfs_pool_rec pool[FMFS_LIST_MAX];
};

struct fmfs_root_rec {
	char name[128];
	char type[88];
	uint64_t off;		/* bytes */
	uint64_t size;		/* bytes, 0 if not known */
};

#define FMFS_ROOTS_MAX 64
struct fmfs_roots {		/* FMFS_IOC_ROOTS: a pool; the catalog is brought
				 * up to date with the pool first.  EUCLEAN at
				 * the end if the pool is damaged, EFBIG if its
				 * roots are not in the catalog */
	char after[128];		/* in */
	uint32_t n;			/* out: records; 0 at the end */
	uint32_t reserved;
	struct fmfs_root_rec root[FMFS_ROOTS_MAX];
};

/*
 * FMFS_IOC_CLONE: a pool or a snapshot, open for reading.  Makes a pool that can be written
 * to of it, as it is at one moment; see src/fuse/restore.h for who may, and for
 * the errors.  On the disk when it returns.
 */
struct fmfs_clone {
	uint64_t folder;	/* inode number of the one to make it in; the caller has
				 * that open meanwhile */
	uint32_t mode;		/* 0777 at most; the caller's umask has been applied */
	uint32_t reserved;	/* 0 */
	char name[FMFS_NAME_LEN];	/* in the folder */
};

/*
 * FMFS_IOC_SNAPSHOT: a pool, open for reading.  Makes the snapshot `name` of it, beside it,
 * as link(2) does; but programs that write to the pool wait for the moment alone, while
 * the kernel keeps them waiting for link(2) from its start to its end if they write
 * otherwise than through a mapping.  See src/fuse/snapshot.h.  On the disk when it returns.
 */
struct fmfs_snapshot {
	char name[FMFS_NAME_LEN];	/* POOL@TAG */
};

/*
 * FMFS_IOC_ROLLBACK: a snapshot, POOL@TAG, open for reading.  POOL becomes what it
 * holds: src/fuse/restore.h.  On the disk when it returns.
 */

/*
 * FMFS_IOC_ADOPT: a file of the mount, made by open(2) with O_TMPFILE or with a name, to
 * become the snapshot `name` of the folder it was made in.  It is durable on return, has
 * lost the name it had, and can no more be opened for writing; the caller's descriptor
 * is the last that could.
 *
 * EINVAL: `name` is not POOL@TAG; EEXIST: it is there; EPERM: the file is somebody
 * else's, or a snapshot, or POOL is there and not for the caller to take snapshots
 * of; EACCES, EPERM: nor the folder to make names in; EBUSY: others have it open;
 * EUCLEAN: it is no sound pool; ENOENT: it was removed; EROFS.
 */
struct fmfs_adopt {
	char name[FMFS_NAME_LEN];
};

struct fmfs_daemon {		/* FMFS_IOC_DAEMON: any file of the mount */
	uint64_t pid;
	uint64_t nbefore;	/* daemons that have handed the mount over */
	uint64_t nfailed;	/* this one's tries to do so; SIGHUP is one */
	char version[64];	/* of fmfs */
	char why[128];		/* the last of the tries failed; else "" */
};

#define FMFS_IOC_INFO _IOR('f', 0x60, struct fmfs_info)
#define FMFS_IOC_LIST _IOWR('f', 0x61, struct fmfs_list)
#define FMFS_IOC_ROOTS _IOWR('f', 0x62, struct fmfs_roots)
#define FMFS_IOC_ADOPT _IOW('f', 0x63, struct fmfs_adopt)
#define FMFS_IOC_CLONE _IOW('f', 0x64, struct fmfs_clone)
#define FMFS_IOC_ROLLBACK _IO('f', 0x65)
#define FMFS_IOC_SNAPSHOT _IOW('f', 0x66, struct fmfs_snapshot)
#define FMFS_IOC_DAEMON _IOR('f', 0x67, struct fmfs_daemon)

/* Whether the file is on FUSE, which its daemon is asked: 1, 0 or -errno. */
int fmfs_is_fuse(int fd);

/*
 * Ask the mount that fd is a file of: 0 or -errno, -ENOTTY of what is no fmfs mount.
 * The first may be asked of any file, and its answer is sound (or -EPROTO); the second
 * only of one of which the first has answered.
 */
int fmfs_ask_info(int fd, struct fmfs_info *info);
int fmfs_ask(int fd, unsigned long request, void *data);

_Static_assert(sizeof(struct fmfs_list) < 1 << 14, "fits an ioctl number");
_Static_assert(sizeof(struct fmfs_roots) < 1 << 14, "fits an ioctl number");

#endif
