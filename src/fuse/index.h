/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping the catalog right.  Operations only tell what happened; one thread
 * reads the pools (scan.h) and writes the catalog, in the order it was told, up to
 * half a second later.  A failure of the catalog is logged and never one of an
 * operation: what could not be written is found by a scan of the store, at the
 * next occasion or the next mount.
 */
#ifndef FM_FUSE_INDEX_H
#define FM_FUSE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

struct fmfs;
struct index;
struct node;
struct state;
struct catalog_pool;
struct catalog_root;

/*
 * Open the catalog, fill it from the store, and start the thread.  0 or -errno, after a
 * message.  `taken`: another daemon had it till now, and it is `complete`, or else filled
 * later, for nothing of the store may be read before there are answers to requests.
 */
int index_open(struct fmfs *f, bool taken, bool complete, struct index **out);
/* Writes what is left to write. */
void index_close(struct index *x);

/* Wait until all that was told till now is written. */
void index_drain(struct index *x);
/*
 * Handing over (handover.h).  Stop the thread, while requests are served: it may be waiting
 * for a program that has a pool, which waits for an answer.  What is told after that stays
 * in the queue, for going on (0 or -errno), or for the next daemon.
 */
void index_pause(struct index *x);
int index_resume(struct index *x);
/* While nothing is told: close the catalog.  True: but for what is in the queue, what the
 * store has is in the catalog's file. */
bool index_let_go(struct index *x);
void index_save(const struct index *x, struct state *s);
void index_load(struct index *x, struct state *s);

/* What happened.  A pool that is being written to is read again at most every
 * half a second (index_touched), others soon. */
void index_created(struct index *x, struct node *n);
void index_snapshot(struct index *x, struct node *n);
/* The file was made of another, or put in its place by one: "clone", "rollback". */
void index_made_of(struct index *x, struct node *n, const char *what,
		   const char *source);
void index_changed(struct index *x, struct node *n);
void index_touched(struct index *x, struct node *n);
void index_removed(struct index *x, const char *path);
/* A pool, a snapshot, or a folder with all that is in it. */
void index_renamed(struct index *x, struct node *n, const char *from, const char *to);
void index_exchanged(struct index *x, struct node *at_a, const char *a,
		     struct node *at_b, const char *b);

/* As catalog_each_in() and catalog_each_root(), of a catalog that is up to
 * date (for the roots: with what the pool says now). */
int index_each_pool(struct index *x, struct node *folder, const char *after,
		    int (*fn)(const struct catalog_pool *pool, void *arg), void *arg);
int index_each_root(struct index *x, struct node *n, const char *after,
		    int (*fn)(const struct catalog_root *root, void *arg), void *arg);
/* Are the roots that are listed all?  0; -EUCLEAN: the pool is damaged, or they are;
 * -EFBIG: none is, whoever wants them must look into the pool. */
int index_has_roots(struct index *x, struct node *n);

#endif
