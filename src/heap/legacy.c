/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of the first version: their threads kept free blocks at hand in magazines
 * that lay in the pool ("lanes"), and there were no second bitmaps.
 */
#include <config.h>

#include <errno.h>
#include <unistd.h>

#include "common/rw.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/judge.h"

/*
 * From now on what the first version does not know may be in the pool, so it must
 * not write to it.  One write of bytes in one page: a kill does not split it.
 */
static int renew_super(struct fm_heap *h)
{
	struct fm_super_disk super = *h->super;
	const size_t len = offsetof(struct fm_super_disk, heap_end);
	int rc;

	if (super.ro_compat & FM_RO_COMPAT_SECOND)
		return 0;
	super_renew(&super);
	rc = write_at(h->fd, &super, len, 0);
	if (rc < 0)
		return err_sys(-rc, "write");
	return map_sync_part(h, 0, FM_PAGE_LEN);
}

static bool lane_sound(const struct fm_heap *h, uint64_t off)
{
	return off % FM_PAGE_LEN == 0 &&
	       zone_entry(h, off) == FM_EXTENT(FM_EXTENT_META, 0, FM_LANE_NPAGES) &&
	       judge_lane((struct fm_lane_disk *)(h->base + off), off) == NULL;
}

/* Clear the bits of what is in the magazines, and then the counts. */
static void empty(struct fm_heap *h, struct fm_lane_disk *lane)
{
	struct fm_magazine_disk *mag;
	uint32_t i, n;
	unsigned cls;

	for (cls = 0; cls < FM_LANE_NMAGAZINES; cls++) {
		mag = &lane->magazine[cls];
		n = mag->count < FM_MAGAZINE_NSLOTS ? mag->count : FM_MAGAZINE_NSLOTS;
		for (i = 0; i < n; i++)
			slab_unmark(h, cls, mag->slot[i]);
		__atomic_store_n(&mag->count, 0, __ATOMIC_RELEASE);
	}
}

/* A lane that was being made is in the chain, or it is of no use. */
static void settle_pending(struct fm_heap *h)
{
	uint64_t pending = h->super->pending_intents_off, off = h->super->lanes_off;
	uint32_t n;

	for (n = 0; n < FM_MAX_NLANES && off != 0 && off != pending; n++) {
		if (!lane_sound(h, off))
			return;		/* it may be behind this one */
		off = ((struct fm_lane_disk *)(h->base + off))->next_off;
	}
	if (off == 0 &&
	    zone_entry(h, pending) == FM_EXTENT(FM_EXTENT_META, 0, FM_LANE_NPAGES))
		pages_drop(h, FM_EXTENT_META, pending);
}

int legacy_open(struct fm_heap *h)
{
	uint64_t off, *pending = &h->super->pending_intents_off;
	struct fm_lane_disk *lane;
	int rc, n;

	rc = renew_super(h);
	if (rc < 0)
		return rc;
	if (*pending != 0 && h->super->lanes_off != 0)
		settle_pending(h);
	for (n = 0; n < (int)FM_MAX_NLANES; n++) {
		off = h->super->lanes_off;
		/* What a damaged one and those behind it hold stays allocated. */
		if (off == 0 || !lane_sound(h, off))
			break;
		lane = (struct fm_lane_disk *)(h->base + off);
		empty(h, lane);
		/* It is of no more use: into_open() frees it, if we die. */
		__atomic_store_n(pending, off, __ATOMIC_RELEASE);
		__atomic_store_n(&h->super->lanes_off, lane->next_off, __ATOMIC_RELEASE);
		pages_drop(h, FM_EXTENT_META, off);
		__atomic_store_n(pending, 0, __ATOMIC_RELEASE);
	}
	return 0;
}
