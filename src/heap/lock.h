/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One writer a pool.  The lock is the kernel's (an OFD lock, fcntl(2)), so it
 * dies with its owner.  A lock taken through an fmfs mount is held by the
 * daemon and dies with that instead, though the writer's mapping lives on;
 * therefore the super also names the writer.
 */
#ifndef FM_HEAP_LOCK_H
#define FM_HEAP_LOCK_H

#include <stdbool.h>

#include "heap/layout.h"

/* Take the writer lock on the open file description: 0, -EBUSY if another has
 * it or the process named in the super is alive, or -errno. */
int lock_take(int fd);
void lock_release(int fd);
/* Take it again, as the one that the super of the file with this inode number names:
 * 0, -ESTALE if another has been the writer since, or -errno. */
int lock_take_back(int fd, uint64_t ino);
/* Whether somebody has it, without taking it: 0 or as above. */
int lock_look(int fd);

/* A reader: while it has the pool open no writer may cut the file.  It waits for
 * one that is at it, and goes without if there are no locks. */
void lock_share(int fd);
/* The same, but it must be had: 0, or -EBUSY if a writer does not let go of it within so
 * many milliseconds.  (Where there are no locks it is had.) */
int lock_share_wait(int fd, int timeout_ms);
#define LOCK_WAIT_MS 10000	/* longer than any checkpoint */
/* The same, now or not at all. */
bool lock_share_now(int fd);
/* A writer that is about to cut the file: 0 if there are no readers, and none
 * comes until the description is closed; or -errno. */
int lock_bar_readers(int fd);
/* Of either: give it up. */
void lock_unshare(int fd);

/* Enter this process as the writer of the file with this inode number; or nobody. */
int lock_sign(uint64_t ino, struct fm_writer_disk *writer);
void lock_unsign(struct fm_writer_disk *writer);

#endif
