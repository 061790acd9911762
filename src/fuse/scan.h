/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pools for the catalog.  All that is in one is untrusted.
 */
#ifndef FM_FUSE_SCAN_H
#define FM_FUSE_SCAN_H

#include <sys/queue.h>

struct catalog;
struct fmfs;
struct node;
struct pool_info;

struct folder {
	STAILQ_ENTRY(folder) link;
	char path[]; /* below pools/; "": that itself */
};

STAILQ_HEAD(folder_queue, folder);

/* 0 or -ENOMEM. */
int scan_add_folder(struct folder_queue *q, const char *path);

/* What the catalog has of such a file: an enum catalog_kind. */
int scan_kind(const struct pool_info *info);

/* Put the node's file into the catalog, if it has a name.  0 or -errno, as of the
 * catalog. */
int scan_node(struct fmfs *f, struct catalog *c, struct node *n);

/* Make the catalog what the folder is, "" for the store, in one transaction: files whose
 * inode number and time of change it has are not read.  0 or -errno. */
int scan_tree(struct fmfs *f, struct catalog *c, const char *folder);

#endif
