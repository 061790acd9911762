/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the kernel sends reads, writes and page faults straight to the
 * store's files (FUSE passthrough), and registering the files with it.
 *
 * It is all or nothing for a mount, decided once: the kernel refuses (EIO) to
 * have one inode open both ways, or with two backing ids at a time.
 */
#ifndef FM_FUSE_PASSTHROUGH_H
#define FM_FUSE_PASSTHROUGH_H

#include <pthread.h>
#include <stdbool.h>

#include "fuse/fuse_version.h"

struct node;
struct state;
struct store;

struct passthrough {
	pthread_mutex_t lock;
	const char *mountpoint;
	bool wanted;  /* negotiated with the kernel */
	bool decided; /* by a first try, which needs a request */
	bool on;
	char why_not[232]; /* if it is not on: the reason */
	bool slow;	   /* and the kernel's limit of dirty pages could not be lifted */
};

/* While the session is negotiated. */
void passthrough_init(struct passthrough *p, const struct store *s, bool refused,
		      struct fuse_conn_info *conn);

/* Handing over (handover.h): instead of passthrough_init() in the next daemon. */
void passthrough_save(const struct passthrough *p, struct state *s);
void passthrough_load(struct passthrough *p, struct state *s);

/* Is it on?  The first call tries. */
bool passthrough_on(fuse_req_t req);

/* Complete the reply to an open of the node, which is held: 0 or -errno. */
int passthrough_attach(fuse_req_t req, struct node *n, struct fuse_file_info *fi);

/* Give back what node_release() returned. */
void passthrough_detach(fuse_req_t req, int backing_id);

#endif
