/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing a mount over to another process of fmfs, a newer version say, while programs use
 * it: they notice nothing but a short wait.
 *
 * On SIGHUP the daemon stops between two requests, and writes what it knows to a file in
 * memory (memfd_create(2)).  That and its descriptors get to the next daemon in one of two
 * ways.  Either it executes the program that is now at the path it was started from, so that
 * the process stays the same; $FMFS_HANDOVER is the number of the file's descriptor.  Or, if
 * the service manager keeps descriptors (service.h), it leaves them there under the names
 * "state" and "fdN", and exits with HANDOVER_EXIT, for which the manager is to start it
 * again.  If it cannot do either, it goes on as before.  First it asks the program whether
 * it takes this version, by 'fmfs mount --takes=VERSION', which ends with status 0 if so:
 * earlier programs, which know nothing of it, do not.
 *
 * The next daemon takes all, makes a session on the same description of /dev/fuse, lets
 * libfuse negotiate with the kernel's FUSE_INIT of long ago (the reply is to a request that
 * the kernel does not know any more, and is dropped), and goes on reading requests.  What
 * the service manager has it keeps till just before that, so that it can be started once
 * more if it dies before; it must not keep it any longer, because while anybody has
 * the device open, callers of a daemon that has died wait instead of failing.
 *
 * A state that is damaged or of another version is refused: the descriptors are closed, by
 * which the old mount dies, and the store is mounted anew in its place.
 *
 * The file, in this machine's byte order:
 *
 *   struct handover_header
 *   int32_t fd[nfds]    the descriptors, by their numbers in the daemon that wrote it
 *   values              each a uint64_t, or bytes behind their number; a text has 0 (there
 *                       is none) or 1 before it; a descriptor is 1 + its place in fd[], or 0
 *
 * The values, in this order (handoverstate.c, and the files that it calls):
 *
 *   the mount      /dev/fuse, mount point, store: path, folder, lock; whether read-only;
 *                  how often it was handed over; struct fmfs_terms; is the catalog
 *                  complete; the last number of an open file
 *   passthrough    wanted, decided, on, slow, why not
 *   nodes          1, number, inode number, folder?, look-ups, gone?, the descriptor of one
 *                  that was replaced, users, descriptor, writable?, backing id, name in
 *                  tmp/, and the owners of locks: 1, owner, handle, process, descriptor;
 *                  0.  At the end 0
 *   names          number of the node, of its folder, name; at the end 0
 *   open folders   how many places, and for each the descriptor
 *   catalog        what was told, and is not written: jobs to be done now, 1, kind, bit of
 *                  the node, of a folder?, number of the node, what, name, other name; 0;
 *                  the same for later; and folders to be scanned, a text each; at the end
 *                  none
 *   waiting        the requests for locks that are not answered, as bytes; at the end none
 *   notices        the ioctls that are not answered: number, folder, name; at the end 0
 *
 * All of it is of HANDOVER_VERSION, which a change of any of it raises.
 */
#ifndef FM_FUSE_HANDOVER_H
#define FM_FUSE_HANDOVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fuse/state.h"

#define HANDOVER_MAGIC "fmfsHAND"
#define HANDOVER_VERSION 2u
#define HANDOVER_EXIT 75 /* EX_TEMPFAIL; the unit has it in RestartForceExitStatus= */

struct handover_header {
	char magic[8];
	uint32_t version;
	uint32_t ntaken; /* how often a process has begun to take it; not in the crc */
	uint32_t crc;    /* CRC-32C of all that follows */
	uint32_t nfds;
	uint64_t len; /* of the values, bytes */
};

struct fmfs;

struct replacing { /* what is told of it: FMFS_IOC_DAEMON */
	pthread_mutex_t lock;
	uint64_t n;       /* daemons that this mount had before */
	uint64_t nfailed; /* tries of this one to be replaced */
	char why[128];    /* the last of them */
};

/* --- the daemon that goes ------------------------------------------------------------ */

/*
 * Hand the mount over.  The program is the one to be executed, if it is not the service
 * manager that does it.  Returns only if that cannot be, after a message; then all is as
 * before.  By the thread that waits for signals, while the loop runs; other threads may be
 * about anything.
 */
void handover_give(struct fmfs *f, const char *program, char *const argv[]);

/* --- the daemon that comes ----------------------------------------------------------- */

/*
 * What was handed to this process: 1, and *s is to be read; 0: nothing; or, after a message,
 * -ENOTSUP (another version), -EUCLEAN (damaged), ...: what there was is closed, as is
 * every other descriptor but 0 to 2.  Before anything is opened.
 */
int handover_take(struct state *s);

/* Close what is left, and have nobody else keep anything: what comes after is not to be
 * undone. */
void handover_done(struct state *s);

/*
 * The values.  First the mount, which opens the store; then what is in the tables, which
 * are there and empty, and before there are threads; and when there is a session, the
 * requests.  0, or -EUCLEAN, -ENOMEM, ... after a message.  *fuse_fd is the caller's, also
 * after a failure, unless it is -1.
 */
int handover_load_mount(struct fmfs *f, struct state *s, int *fuse_fd, bool *complete);
int handover_load_tables(struct fmfs *f, struct state *s);
int handover_load_requests(struct fmfs *f, struct state *s);

/* All of them, while nothing happens. */
void handover_save(struct fmfs *f, struct state *s, bool complete);

#endif
