/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: what the kernel knows of the mount by a number.  A node remembers
 * where its file is (a name in a parent) and which file it is (the inode
 * number); it holds a descriptor only while somebody has the file open, so that
 * a store may have any number of files.
 *
 * A node's number is the inode number of its file, which is what stat(2) says at
 * the mount.  A file that was removed may still be asked for by the kernel, and
 * another file have its inode number already: that one's node has a number beside
 * it, so that what is meant for the one is not done to the other.
 *
 * A node lives while the kernel has it (nlookup), or something here refers to
 * it (nref): a child, an index job.  When it is gone, and the kernel does not have it any
 * more, it has no number: another may get that (node_is_retired()).
 */
#ifndef FM_FUSE_NODE_H
#define FM_FUSE_NODE_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fuse/store.h"

struct lock_owner;

struct node {
	/* Guarded by the table's lock. */
	struct node *next;   /* in the hash chain */
	struct node *parent; /* NULL: the root */
	char *name;          /* in the parent */
	uint64_t nlookup;
	unsigned int nref;
	unsigned int queued; /* index.c: puts that wait; its own lock */
	bool gone;           /* no longer has a name */
	int old_fd;          /* node_replaced(); else -1 */

	uint64_t id; /* never changes */
	ino_t ino;
	bool dir;

	/* Guarded by `lock`. */
	pthread_mutex_t lock;
	unsigned int nopen;        /* users of fd: handles, and operations */
	int fd;                    /* if nopen: the file */
	bool writable;             /* if nopen: fd is O_RDWR, else O_RDONLY */
	int backing_id;            /* if nopen: passthrough; 0: none yet */
	char *tmp_name;		   /* of a file without a name: in the store's tmp/ */
	struct lock_owner *owners; /* locks.c */

	/* Of a folder, set by who changes the names, when it was found to have none; a
	 * snapshot that gets a name there has the names held, or the kernel has locked
	 * the folder. */
	bool lacks_snapshots;
};

struct node_table {
	pthread_mutex_t lock;
	pthread_rwlock_t names; /* node_hold_names() */
	struct node **bucket;
	size_t nbuckets; /* a power of two */
	size_t nnodes;
	struct node *root;
	const struct store *store;
};

static inline bool node_is_retired(const struct node *n)
{
	return n->gone && n->nlookup == 0 && n->old_fd < 0;
}

int node_table_init(struct node_table *t, const struct store *s);
void node_table_destroy(struct node_table *t);

/* As another daemon had it (handover.h): a node of this number, NULL if there is one or no
 * memory; and its place, with the name, which it takes.  Before there are threads. */
struct node *node_restore(struct node_table *t, uint64_t id, ino_t ino, bool dir);
void node_restore_place(struct node *n, struct node *parent, char *name);

/* NULL: the kernel named a number that it does not have. */
struct node *node_find(struct node_table *t, uint64_t id);

/* The node of the file `st` that has this name, made if need be, with one more
 * look-up of the kernel's.  NULL: no memory. */
struct node *node_enter(struct node_table *t, struct node *parent, const char *name,
			const struct stat *st);
void node_forget(struct node_table *t, struct node *n, uint64_t nlookup);
void node_ref(struct node_table *t, struct node *n);
void node_unref(struct node_table *t, struct node *n);

/* The file has another name; that of this inode number has none any more. */
void node_set_name(struct node_table *t, struct node *n, struct node *parent,
		   const char *name);
void node_gone(struct node_table *t, ino_t ino);

/*
 * Another file has been put in the place of the one of this inode number, and the kernel
 * does not know yet.  `fd` is the old one's, for reading and writing.  It is closed when
 * the kernel has forgotten the node, or now if it has none: so till then who found the old
 * file by its name gets that, its number is not used again, and if the writer's lock is
 * on `fd`, nobody becomes its writer.  Returns the node's number, 0: there is none.
 */
uint64_t node_replaced(struct node_table *t, ino_t ino, int fd);

/* With a reference each: the folder of this inode number, NULL if the kernel has none;
 * the one that a node's file is in, and its name there, NULL if it has none any more. */
struct node *node_find_folder(struct node_table *t, ino_t ino);
struct node *node_folder(struct node_table *t, struct node *n, char name[NAME_MAX + 1]);

/*
 * The kernel locks the folder that a request is about, and not those above it, which may be
 * renamed meanwhile.  From asking for a path to having used it the names must stay; what
 * is held so may be held again by the same thread.  Renaming changes them, alone.
 */
void node_hold_names(struct node_table *t);
void node_change_names(struct node_table *t);
void node_let_names(struct node_table *t);

/* The path below pools/: "." for the root.  -ENOENT if it has none any more,
 * -ENAMETOOLONG. */
#define NODE_PATH_LEN PATH_MAX
int node_path(struct node_table *t, struct node *n, char path[NODE_PATH_LEN]);
bool node_has_name(struct node_table *t, struct node *n);

/* The path that the name has in the folder. */
int node_child_path(struct node_table *t, struct node *parent, const char *name,
		    char path[NODE_PATH_LEN]);

/* Files have a name with '@' if they are snapshots, POOL@TAG. */
bool name_is_snapshot(const char *name);
bool node_is_snapshot(struct node_table *t, struct node *n);

/*
 * The file itself: of a file without a name only while it is open.  -ENOENT:
 * it is not there any more; -ESTALE: another file has its name.
 */
int node_stat(struct node_table *t, struct node *n, struct stat *st);

/* A descriptor of the caller's own (he closes it), or -errno; O_PATH will do. */
int node_open(struct node_table *t, struct node *n, int flags);

/*
 * Share the node's descriptor until node_release(): node->fd can be used by
 * any thread.  Opened for writing as well, whatever the first user wants, if
 * the file system lets us; -EROFS, -EACCES if `write` is needed and it does not.
 */
int node_hold(struct node_table *t, struct node *n, bool write);
/* As node_hold(), with the descriptor of a file just made, which it takes. */
void node_hold_new(struct node *n, int fd);
/* What backing id to close: 0 for none. */
int node_release(struct node *n);

/* Make a new description of an open file: its descriptor or -errno. */
int fd_reopen(int fd, int flags);

#endif
