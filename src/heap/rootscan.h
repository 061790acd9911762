/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the named roots of a pool, mapped or not, trusting nothing: every
 * offset is bounded, every chain ends, every string is terminated.
 */
#ifndef FM_HEAP_ROOTSCAN_H
#define FM_HEAP_ROOTSCAN_H

#include <stddef.h>
#include <stdint.h>

#include "heap/layout.h"

struct rootscan {
	/* Copy len bytes at off, which is within heap_end: 0 or -errno. */
	int (*read)(void *src, uint64_t off, void *buf, size_t len);
	void *src;
	uint64_t heap_end;	/* bytes */
	uint64_t max_npages;	/* more pages count as damage; 0: no limit */
	/* Called for every slot; state is FM_ROOT_USED only if the slot is
	 * sound, FM_ROOT_FREE else.  Non-zero ends the walk. */
	int (*slot)(void *arg, uint64_t slot_off, const struct fm_root_disk *slot);
	/* If not NULL: called for every page that is sound, before its slots; and for
	 * every page (then rootscan_run() returns -EUCLEAN) and used slot that is
	 * not, with what is wrong, and the slot.  Of a page that the chain must not
	 * go on to, off is that of the word that says so. */
	void (*page)(void *arg, uint64_t off);
	void (*fault)(void *arg, uint64_t off, const char *what,
		      const struct fm_root_disk *slot);
	void *arg;		/* of these three */

	uint64_t last_page_off;	/* out */
	uint64_t nbad;		/* out: used slots that are damaged */
};

/*
 * 0: all pages walked; 1: the region is all zero, there are no roots yet;
 * -EEXIST: the program uses the region itself; -EUCLEAN with words: the chain
 * of pages is damaged; or what read() or slot() returned.
 */
int rootscan_run(struct rootscan *scan);

/* Where the root's object is, or 0.  A heap that got shorter may end before what was
 * freed while a root referred to it. */
static inline uint64_t rootscan_object(const struct fm_root_disk *slot,
				       uint64_t heap_end)
{
	return slot->off < heap_end ? slot->off : 0;
}

/* The head that a page at off has, but for next_off. */
void rootscan_make_head(struct fm_rootpage_disk *head, uint64_t off);

uint32_t rootscan_slot_crc(const struct fm_root_disk *slot);
uint32_t rootscan_page_crc(const struct fm_rootpage_disk *page);

#endif
