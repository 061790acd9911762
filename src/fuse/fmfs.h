/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mounted store: what every operation gets at through its request, and the
 * rules of the folder.
 *
 * Threads.  The loop's workers (loop.c) run the operations; one thread keeps the
 * catalog (index.c), one serves lock requests that must wait (locks.c), one tells
 * the kernel of names (notify.c), one rewrites files (defrag.c), one waits for signals
 * (mount.c), and with max_store one counts what files have (quotascan.c).  Lock order,
 * outermost first:
 *
 *   index.work       the catalog: held during SQLite's work; only the index
 *                    thread and listings take it
 *   locks.lock       requests that wait for a file lock
 *   nodes.names      paths: who uses one has it shared, who renames, alone
 *   node.lock        the open state of one file, and its locks; has nodes.names
 *                    shared within it, so that who renames takes those of folders only
 *   quota.lock       what files have allocated
 *   nodes.lock       the table of nodes: names, parents, counts
 *
 * index.lock (the queue of what happened), notifier.lock, defrag.lock, dirs.lock, loop.lock,
 * replacing.lock and passthrough.lock are leaves.
 */
#ifndef FM_FUSE_FMFS_H
#define FM_FUSE_FMFS_H

#include <limits.h>
#include <stdatomic.h>

#include "fuse/defrag.h"
#include "fuse/dir.h"
#include "fuse/fuse_version.h"
#include "fuse/handover.h"
#include "fuse/index.h"
#include "fuse/locks.h"
#include "fuse/loop.h"
#include "fuse/node.h"
#include "fuse/notify.h"
#include "fuse/passthrough.h"
#include "fuse/quota.h"
#include "fuse/store.h"

/* What was negotiated with the kernel, which is so as long as the mount. */
struct fmfs_terms {
	unsigned char init[256]; /* its FUSE_INIT */
	size_t init_len;
	uint64_t want;		/* FUSE_CAP_ */
	unsigned int max_write; /* bytes */
};

struct fmfs {
	char mountpoint[PATH_MAX]; /* absolute */
	struct store store;
	struct node_table nodes;
	struct dir_table dirs;
	struct lock_waits locks;
	struct notifier notifier;
	struct defrag defrag;
	struct passthrough passthrough;
	struct quota quota;
	struct index *index;
	struct fuse_session *session;
	struct fmfs_terms terms;
	struct loop loop;
	struct replacing replacing;
	atomic_uint_fast64_t last_fh; /* of an open file: file.c */
	bool readonly;        /* mounted so, or the store's file system is */
	bool atomic;	      /* new pools are to be so */
	bool may_chown;       /* the daemon can give files to others */
	double attr_timeout;  /* seconds */
	double entry_timeout; /* seconds */
};

static inline struct fmfs *fmfs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The node of a request; the kernel holds it for as long as that lasts. */
static inline struct node *fmfs_node(fuse_req_t req, fuse_ino_t id)
{
	return node_find(&fmfs_of(req)->nodes, id);
}

#endif
