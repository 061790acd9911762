/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: it opens a store, serves a mount, and closes both, by this process from
 * beginning to end.
 */
#ifndef FM_FUSE_DAEMON_H
#define FM_FUSE_DAEMON_H

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "fuse/fmfs.h"
#include "fuse/options.h"

struct state;

/* What a daemon writes to `ready_fd` when it serves; the other: and it has said why there is
 * no passthrough. */
#define DAEMON_READY "r"
#define DAEMON_READY_SLOW "s"

struct mounting {
	struct mount_options opt;
	bool takes_place;          /* of a mount whose daemon has died */
	int ready_fd;              /* to who waits; -1: nobody does */
	/* To be executed when another daemon is to take our place. */
	char program[PATH_MAX];
	char **argv;
	/* From another daemon, whose mount this is; or NULL. */
	struct state *taken;
	int fuse_fd;   /* the device, until the session has it; else -1 */
	bool complete; /* its catalog is */
	bool took;     /* all of it: we serve */
	struct fmfs f;
	/* Signals. */
	sigset_t signals;
	pthread_t signal_thread;
	atomic_bool loop_left;
};

/* From here on nobody listens at standard error. */
void daemon_detach(void);

/* Until the mount has gone: the exit status of the process, after messages. */
int daemon_run(struct mounting *m);

#endif
