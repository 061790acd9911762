/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repairing what leads to the heap's own pages: their heads, and the offsets of the
 * page of intents and of pages of roots.
 *
 * Such a page is known by its entry in the page table, by what leads to it, and by its
 * head, which names its own place and has a checksum: if one of these is damaged the
 * others prove what it was.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "heap/check.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/judge.h"
#include "heap/rootscan.h"

#define META_ROOTS FM_EXTENT(FM_EXTENT_META, 0, FM_ROOTPAGE_NPAGES)
#define META_INTENTS FM_EXTENT(FM_EXTENT_META, 0, FM_INTENTS_NPAGES)

/* --- heads ------------------------------------------------------------------- */

struct check_head checkmend_self_head(uint32_t magic, uint64_t off)
{
	return (struct check_head){
		.off = off,
		.word = { (uint64_t)judge_self_crc(off) << 32 | magic, off },
		.which = { 0, 1 },
		.n = 2,
	};
}

struct check_head checkmend_root_head(uint64_t off)
{
	struct check_head head = { .off = off, .which = { 0, 1, 3 }, .n = 3 };
	struct fm_rootpage_disk page;

	rootscan_make_head(&page, off);
	memcpy(head.word, &page, sizeof(head.word));
	return head;
}

unsigned checkmend_nright(struct check *c, const struct check_head *head)
{
	uint64_t word[4];
	unsigned i, n = 0;

	if (head->off + sizeof(word) > c->heap_end ||
	    !check_read(c, head->off, word, sizeof(word)))
		return 0;
	for (i = 0; i < head->n; i++)
		n += word[head->which[i]] == head->word[head->which[i]];
	return n;
}

static bool write_head(struct check *c, const struct check_head *head)
{
	unsigned i;

	for (i = 0; i < head->n; i++)
		if (!check_fix64(c, head->off + head->which[i] * sizeof(uint64_t),
				 head->word[head->which[i]]))
			return false;
	return true;
}

bool checkmend_may_be_page(const struct check *c, uint64_t off, uint32_t npages)
{
	return off % FM_PAGE_LEN == 0 && off >= FM_ZONE_DATA_OFF && off < c->heap_end &&
	       npages * FM_PAGE_LEN <= c->heap_end - off;
}

bool checkmend_linked(struct check *c, const struct check_head *head, uint32_t entry,
		      const char *structure)
{
	unsigned n = checkmend_nright(c, head);

	if (n == head->n)
		return true;
	/* (One word may be right of another kind of page, too.) */
	if ((n < 2 && checkzone_entry(c, head->off) != entry) || !write_head(c, head))
		return false;
	check_damage(c, true, head->off, structure, "its head was damaged");
	return true;
}

bool checkmend_lost_magic(struct check *c)
{
	struct check_head head = checkmend_root_head(FM_APP_OFF);
	unsigned char region[FM_APP_LEN];

	if (checkmend_nright(c, &head) + 1 != head.n ||
	    !check_read(c, FM_APP_OFF, region, sizeof(region)) ||
	    memcmp(region, FM_ROOT_MAGIC, sizeof(uint64_t)) == 0)
		return false;
	/* Somebody may have been killed making it: there are no slots then. */
	return region[0] != 0 ||
	       memcmp(region + FM_ROOTPAGE_HEAD_LEN - 1, region + FM_ROOTPAGE_HEAD_LEN,
		      FM_APP_LEN - FM_ROOTPAGE_HEAD_LEN) != 0;
}

/* --- intents ----------------------------------------------------------------- */

static void look_for_intents(struct check *c, uint64_t off, void *arg)
{
	struct check_head head = checkmend_self_head(FM_INTENTS_MAGIC, off);
	uint64_t *found = arg;

	if (off != c->super.pending_intents_off && checkmend_nright(c, &head) == head.n)
		*found = off;
}

/* If there is no such page where the super says, there may be one elsewhere.  If not,
 * none is found again: what its intents were about stays allocated. */
void checkmend_intents(struct check *c)
{
	const uint64_t at = offsetof(struct fm_super_disk, intents_off);
	uint64_t off = c->super.intents_off, found = 0;
	struct check_head head = checkmend_self_head(FM_INTENTS_MAGIC, off);

	if (off == 0 || (checkmend_may_be_page(c, off, FM_INTENTS_NPAGES) &&
			 checkmend_linked(c, &head, META_INTENTS, "page of intents")))
		return;
	checkzone_each_meta(c, FM_INTENTS_NPAGES, look_for_intents, &found);
	c->super.intents_off = found;
	check_damage(c, check_fix64(c, at, found), at, "super",
		     "there is no page of intents at %#" PRIx64,
		     off);
}

/* --- the chain of root pages ------------------------------------------------- */

/* Pages of roots that the chain does not lead to. */
struct stray {
	uint64_t off, next_off;
	bool led_to; /* by another of them */
};

struct chain {
	unsigned char *seen; /* a bit for each page of the pool: is in the chain */
	struct check_list stray;
};

static int by_off(const void *a, const void *b)
{
	const struct stray *sa = a, *sb = b;

	return (sa->off > sb->off) - (sa->off < sb->off);
}

static bool was_seen(const struct chain *chain, uint64_t off)
{
	return (chain->seen[off >> FM_PAGE_SHIFT >> 3] >> (off >> FM_PAGE_SHIFT & 7) &
		1) != 0;
}

static void look_for_roots(struct check *c, uint64_t off, void *arg)
{
	struct check_head head = checkmend_root_head(off);
	struct fm_rootpage_disk page;
	struct chain *chain = arg;
	struct stray *stray;

	if (off == c->super.pending_rootpage_off ||
	    off == c->super.pending_intents_off || was_seen(chain, off) ||
	    checkmend_nright(c, &head) != head.n ||
	    !check_read(c, off, &page, sizeof(page)))
		return;
	stray = check_add(c, &chain->stray, sizeof(*stray));
	if (stray != NULL)
		*stray = (struct stray){ .off = off, .next_off = page.next_off };
}

/* The one stray page that no other leads to, or 0.  (They are in order.) */
static uint64_t first_stray(struct chain *chain)
{
	struct stray *stray = chain->stray.item, *other, next;
	uint64_t first = 0;
	size_t i;

	for (i = 0; i < chain->stray.n; i++) {
		next.off = stray[i].next_off;
		other = bsearch(&next, stray, chain->stray.n, sizeof(*stray), by_off);
		if (other != NULL)
			other->led_to = true;
	}
	for (i = 0; i < chain->stray.n; i++) {
		if (stray[i].led_to)
			continue;
		if (first != 0)
			return 0;
		first = stray[i].off;
	}
	return first;
}

/* Whether the chain may go on to off. */
static bool is_next(struct check *c, const struct chain *chain, uint64_t off)
{
	struct check_head head = checkmend_root_head(off);

	return checkmend_may_be_page(c, off, FM_ROOTPAGE_NPAGES) &&
	       !was_seen(chain, off) &&
	       checkmend_linked(c, &head, META_ROOTS, "page of roots");
}

/* Follow the chain to its last page: what that goes on to, which is no page of it. */
static bool follow(struct check *c, struct chain *chain, uint64_t *last_off,
		   uint64_t *next_off)
{
	struct check_head head = checkmend_root_head(FM_APP_OFF);
	struct fm_rootpage_disk page;
	uint64_t off = FM_APP_OFF;

	if (!check_read(c, FM_APP_OFF, &page, sizeof(page)))
		return false;
	/* With its magic number it is one; without, it may be the program's own. */
	if (checkmend_lost_magic(c) ||
	    memcmp(page.magic, FM_ROOT_MAGIC, sizeof(page.magic)) == 0)
		checkmend_linked(c, &head, 0, "page of roots");
	if (checkmend_nright(c, &head) != head.n)
		return false; /* the program's own, or nothing */
	do {
		if (!check_read(c, off, &page, sizeof(page)))
			return false;
		chain->seen[off >> FM_PAGE_SHIFT >> 3] |= 1u
							  << (off >> FM_PAGE_SHIFT & 7);
		*last_off = off;
		off = page.next_off;
	} while (off != 0 && is_next(c, chain, off));
	*next_off = off;
	return true;
}

/* The chain goes on to all stray pages of roots, or ends where it breaks. */
void checkmend_roots(struct check *c)
{
	struct chain chain = { .seen = calloc(c->heap_end / FM_PAGE_LEN / 8 + 1, 1) };
	uint64_t last_off = 0, next_off = 0, first, at;

	if (chain.seen == NULL)
		check_fail(c, err_sys(ENOMEM, "memory for a chain of pages"));
	else if (follow(c, &chain, &last_off, &next_off)) {
		checkzone_each_meta(c, FM_ROOTPAGE_NPAGES, look_for_roots, &chain);
		first = first_stray(&chain);
		at = last_off + offsetof(struct fm_rootpage_disk, next_off);
		if (first != next_off && (first != 0 || chain.stray.n == 0))
			check_damage(c, check_fix64(c, at, first), at, "page of roots",
				     "it leads to %#" PRIx64 ", and should to %#"
				     PRIx64,
				     next_off, first);
	}
	free(chain.seen);
	free(chain.stray.item);
}
