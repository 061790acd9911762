/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PMDK: libpmemobj's transactions, each counter announced before it is changed
 * (pmemobj_tx_add_range).  The file lies on an ordinary file system, not on persistent
 * memory, so the library makes things durable by msync(2); it does as it finds right,
 * and the variables of the environment that forbid it are refused.
 *
 * The transaction is begun by the first update after a commit.
 */
#include <libpmemobj.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "commit/peer.h"
#include "tools.h"

#define POOL_LEN ((size_t)256 << 20) /* it cannot grow; the undo log is in it, too */

static PMEMobjpool *pool;
static PMEMoid root;
static uint64_t *counters;

static void done(bool ok, const char *what)
{
	need(ok, what, pmemobj_errormsg());
}

static void refuse(const char *variable)
{
	need(getenv(variable) == NULL, variable, "with it no commit is durable");
}

static void open_pool(const char *path)
{
	refuse("PMEM_NO_FLUSH");
	refuse("PMEM_IS_PMEM_FORCE");
	pool = pmemobj_create(path, "bench", POOL_LEN, 0600);
	done(pool != NULL, path);
}

static void close_pool(void)
{
	pmemobj_close(pool);
}

static void make_counters(void)
{
	uint64_t i;

	root = pmemobj_root(pool, NCOUNTERS * sizeof(*counters));
	done(!OID_IS_NULL(root), "pmemobj_root");
	counters = pmemobj_direct(root);
	for (i = 0; i < NCOUNTERS; i++)
		counters[i] = i;
	pmemobj_persist(pool, counters, NCOUNTERS * sizeof(*counters));
}

static void update(uint64_t at)
{
	if (pmemobj_tx_stage() == TX_STAGE_NONE)
		done(pmemobj_tx_begin(pool, NULL, TX_PARAM_NONE) == 0,
		     "pmemobj_tx_begin");
	done(pmemobj_tx_add_range(root, at * sizeof(*counters), sizeof(*counters)) == 0,
	     "pmemobj_tx_add_range");
	counters[at]++;
}

static void commit(void)
{
	pmemobj_tx_commit();
	done(pmemobj_tx_end() == 0, "pmemobj_tx_end");
}

const struct peer peers[] = {
	{ .name = "pmdk",
	  .open = open_pool,
	  .close = close_pool,
	  .make_counters = make_counters,
	  .update = update,
	  .commit = commit },
	{ .name = NULL },
};

const char *peers_version(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "libpmemobj (PMDK) of interface %d.%d",
		 PMEMOBJ_MAJOR_VERSION, PMEMOBJ_MINOR_VERSION);
	return text;
}
