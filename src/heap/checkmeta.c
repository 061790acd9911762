/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking what the heap keeps for itself outside of the zones' heads: lanes, intents,
 * pages that were being made, and named roots.  What they lead to is written down for
 * the walk of the zones.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "heap/check.h"
#include "heap/heap.h"
#include "heap/judge.h"
#include "heap/rootscan.h"

#define META_LANE FM_EXTENT(FM_EXTENT_META, 0, FM_LANE_NPAGES)
#define SUPER(field) offsetof(struct fm_super_disk, field)

static const char lane_words[] = "lane", intent_words[] = "intent",
		  root_words[] = "root", rootpage_words[] = "page of roots",
		  super_words[] = "super";

void check_claim(struct check *c, uint64_t off, uint32_t npages, const char *what)
{
	struct check_claim *claim = check_add(c, &c->claims, sizeof(*claim));

	if (claim != NULL)
		*claim = (struct check_claim){ off, npages, what };
}

static void add_ref(struct check *c, uint64_t off, uint64_t from_off, uint64_t size,
		    int cls)
{
	struct check_ref *ref = check_add(c, &c->refs, sizeof(*ref));

	if (ref != NULL)
		*ref = (struct check_ref){ off, from_off, size, cls };
}

/* --- lanes ------------------------------------------------------------------- */

static void check_magazine(struct check *c, uint64_t off,
			   const struct fm_magazine_disk *mag, int cls)
{
	uint64_t slot_off = off + offsetof(struct fm_magazine_disk, slot);
	uint32_t i;

	if (mag->count > FM_MAGAZINE_NSLOTS) {
		/* Which slots count cannot be told: their blocks stay allocated. */
		check_damage(c, check_fix32(c, off, 0), off, "magazine",
			     "it has %" PRIu32 " blocks, and room for %u", mag->count,
			     FM_MAGAZINE_NSLOTS);
		return;
	}
	for (i = 0; i < mag->count && !c->stopped; i++)
		add_ref(c, mag->slot[i], slot_off + i * sizeof(mag->slot[0]), 0, cls);
}

/* One lane: where the next is, or 0. */
static uint64_t check_lane(struct check *c, uint64_t off, struct fm_lane_disk *lane)
{
	struct check_head head = checkmend_self_head(FM_LANE_MAGIC, off);
	const char *why;
	unsigned cls;

	if (!check_read(c, off, lane, sizeof(*lane)))
		return 0;
	why = judge_lane(lane, off);
	if (why != NULL &&
	    (c->fd < 0 || !checkmend_linked(c, &head, META_LANE, lane_words))) {
		check_damage(c, false, off, lane_words, "%s", why);
		c->all_claimed = false;
		return 0;
	}
	check_claim(c, off, FM_LANE_NPAGES, lane_words);
	for (cls = 0; cls < FM_LANE_NMAGAZINES; cls++)
		check_magazine(c,
			       off + offsetof(struct fm_lane_disk, magazine) +
				       cls * sizeof(lane->magazine[0]),
			       &lane->magazine[cls], cls);
	return lane->next_off;
}

static void check_lanes(struct check *c)
{
	uint64_t off = c->super.lanes_off, from_off = SUPER(lanes_off);
	struct fm_lane_disk lane;
	uint32_t n = 0;

	if (off != 0)
		check_later(c, from_off, super_words,
			    "the lanes of version 0.1 have not been emptied");
	while (off != 0 && !c->stopped) {
		if (!checkmend_may_be_page(c, off, FM_LANE_NPAGES) ||
		    n++ == FM_MAX_NLANES) {
			check_damage(
				c, false, from_off, lane_words,
				"the chain leads to %#" PRIx64 ", which is no %s", off,
				n > FM_MAX_NLANES ? "end of it" : "page of the heap");
			c->all_claimed = false;
			break;
		}
		from_off = off + offsetof(struct fm_lane_disk, next_off);
		off = check_lane(c, off, &lane);
	}
}

/* --- intents ----------------------------------------------------------------- */

static void check_intent(struct check *c, uint64_t off,
			 const struct fm_intent_disk *intent)
{
	const char *why;

	if (intent->where_off == 0)
		return;
	why = judge_where(intent->where_off, c->heap_end);
	if (why == NULL)
		check_later(c, off, intent_words,
			    "the change of %#" PRIx64 " was not finished (new %#" PRIx64
			    ", old %#" PRIx64 ")",
			    intent->where_off, intent->new_off, intent->old_off);
	else
		check_damage(c, check_fix64(c, off, 0), off, intent_words,
			     "%s: %#" PRIx64, why, intent->where_off);
}

static void check_intents_page(struct check *c, uint64_t off)
{
	const char *why = "no page of the heap";
	struct fm_intents_disk page;
	unsigned i;

	if (checkmend_may_be_page(c, off, FM_INTENTS_NPAGES) &&
	    check_read(c, off, &page, sizeof(page)))
		why = judge_intents(&page, off);
	if (why != NULL) {
		c->all_claimed = false;
		check_damage(c, false, SUPER(intents_off), super_words,
			     "the page of intents at %#" PRIx64 ": %s", off, why);
		return;
	}
	check_claim(c, off, FM_INTENTS_NPAGES, "page of intents");
	off += offsetof(struct fm_intents_disk, intent);
	for (i = 0; i < FM_NINTENTS; i++)
		check_intent(c, off + i * sizeof(page.intent[0]), &page.intent[i]);
}

static void check_intents(struct check *c)
{
	check_intent(c, SUPER(intent), &c->super.intent);
	if (c->fd >= 0)
		checkmend_intents(c);
	if (c->super.intents_off != 0)
		check_intents_page(c, c->super.intents_off);
}

/* A page that was being made: the next writer frees it, unless it is linked. */
static void check_pending(struct check *c, uint64_t word_off, uint64_t off)
{
	if (off == 0)
		return;
	if (!checkmend_may_be_page(c, off, 1)) {
		check_damage(c, check_fix64(c, word_off, 0), word_off, super_words,
			     "the page that was being made is at %#" PRIx64 ", which is"
			     " no page of the heap",
			     off);
		return;
	}
	check_later(c, word_off, super_words,
		    "a page of the heap's own was being made at %#" PRIx64, off);
	check_claim(c, off, 0, "page that was being made");
}

/* --- roots ------------------------------------------------------------------- */

static void found_page(void *arg, uint64_t off)
{
	if (off != FM_APP_OFF)
		check_claim(arg, off, FM_ROOTPAGE_NPAGES, rootpage_words);
}

static struct check_root *add_root(struct check *c, uint64_t off,
				   const struct fm_root_disk *slot)
{
	struct check_root *root = check_add(c, &c->roots, sizeof(*root));

	if (root == NULL)
		return NULL;
	root->slot_off = off;
	root->seq = slot->seq;
	memcpy(root->name, slot->name, sizeof(root->name));
	root->name[sizeof(root->name) - 1] = '\0';
	return root;
}

static int found_slot(void *arg, uint64_t off, const struct fm_root_disk *slot)
{
	struct check *c = arg;

	if (slot->state == FM_ROOT_USED) {
		add_root(c, off, slot);
		if (slot->off != 0)
			add_ref(c, slot->off, off, slot->size, CHECK_NO_CLASS);
	}
	return c->stopped;
}

static void found_fault(void *arg, uint64_t off, const char *what,
			const struct fm_root_disk *slot)
{
	struct check_root *root;
	struct check *c = arg;

	if (slot == NULL) { /* a page: the chain ends here */
		c->all_claimed = false;
		check_damage(c, false, off, rootpage_words, "%s", what);
		return;
	}
	/* Whether it can be done without is known when all are. */
	root = add_root(c, off, slot);
	if (root != NULL)
		root->bad = true;
}

/* By name; of a name the sound before the bad, and the latest first. */
static int by_name(const void *a, const void *b)
{
	const struct check_root *ra = a, *rb = b;
	int order = strcmp(ra->name, rb->name);

	if (order == 0)
		order = ra->bad - rb->bad;
	if (order == 0)
		order = (ra->seq < rb->seq) - (ra->seq > rb->seq);
	return order != 0
		       ? order
		       : (ra->slot_off > rb->slot_off) - (ra->slot_off < rb->slot_off);
}

/* What slots there are twice; `best` is the one of its name that counts. */
static void check_root_slot(struct check *c, const struct check_root *root,
			    const struct check_root *best)
{
	bool other = root != best && strcmp(root->name, best->name) == 0 && !best->bad;
	uint64_t off = root->slot_off;

	if (root->bad)
		check_damage(c, other && check_fix32(c, off, FM_ROOT_FREE), off,
			     root_words, "the slot is damaged%s",
			     other ? ", but there is another root of its name" : "");
	else if (root == best)
		c->stats.nroots++;
	else if (root->seq == best->seq)
		check_damage(c, check_fix32(c, off, FM_ROOT_FREE), off, root_words,
			     "there is another of its name and number at %#" PRIx64,
			     best->slot_off);
	else
		check_note(c, check_fix32(c, off, FM_ROOT_FREE), off, root_words,
			   "it was replaced by the one at %#" PRIx64,
			   best->slot_off);
}

static void check_root_slots(struct check *c)
{
	const struct check_root *root = c->roots.item, *best = root;
	size_t i;

	if (c->roots.n > 0)
		qsort(c->roots.item, c->roots.n, sizeof(*root), by_name);
	for (i = 0; i < c->roots.n && !c->stopped; i++) {
		if (strcmp(root[i].name, best->name) != 0)
			best = &root[i];
		check_root_slot(c, &root[i], best);
	}
}

static int read_roots(void *src, uint64_t off, void *buf, size_t len)
{
	return check_read(src, off, buf, len) ? 0 : -EIO;
}

static void check_roots(struct check *c)
{
	struct rootscan scan = {
		.read = read_roots,
		.src = c,
		.heap_end = c->heap_end,
		.slot = found_slot,
		.page = found_page,
		.fault = found_fault,
		.arg = c,
	};

	if (c->fd >= 0)
		checkmend_roots(c);
	if (checkmend_lost_magic(c)) {
		c->all_claimed = false;
		check_damage(c, false, FM_APP_OFF, rootpage_words, "no magic number");
	}
	/* What is wrong has been told then. */
	if (!c->stopped)
		rootscan_run(&scan);
	check_root_slots(c);
}

bool checkmeta_is_lost(struct check *c, uint64_t off)
{
	struct check_head head = checkmend_root_head(off);

	/* Some chain ought to lead to it. */
	return checkmend_nright(c, &head) != head.n;
}

/* --- all of it --------------------------------------------------------------- */

static int by_claim(const void *a, const void *b)
{
	const struct check_claim *ca = a, *cb = b;
	int order = (ca->off > cb->off) - (ca->off < cb->off);

	/* What is pending after what is linked. */
	return order != 0 ? order
			  : (ca->npages < cb->npages) - (ca->npages > cb->npages);
}

static int by_off(const void *a, const void *b)
{
	const struct check_ref *ra = a, *rb = b;
	int order = (ra->off > rb->off) - (ra->off < rb->off);

	return order != 0
		       ? order
		       : (ra->from_off > rb->from_off) - (ra->from_off < rb->from_off);
}

static void check_twice(struct check *c)
{
	const struct check_claim *claim = c->claims.item;
	size_t i;

	for (i = 1; i < c->claims.n; i++)
		if (claim[i].npages != 0 &&
		    claim[i - 1].off + claim[i - 1].npages * FM_PAGE_LEN > claim[i].off)
			check_damage(c, false, claim[i].off, claim[i].what,
				     "it lies in what is a %s, too",
				     claim[i - 1].what);
}

void checkmeta_run(struct check *c)
{
	checklog_run(c);
	check_lanes(c);
	check_intents(c);
	check_roots(c);
	check_pending(c, SUPER(pending_intents_off), c->super.pending_intents_off);
	check_pending(c, SUPER(pending_rootpage_off), c->super.pending_rootpage_off);
	if (c->claims.n > 0)
		qsort(c->claims.item, c->claims.n, sizeof(struct check_claim),
		      by_claim);
	if (c->refs.n > 0)
		qsort(c->refs.item, c->refs.n, sizeof(struct check_ref), by_off);
	check_twice(c);
}
