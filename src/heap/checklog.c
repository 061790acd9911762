/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking the log of an atomic pool: its extents, which are the heap's own.  (Its
 * records have been judged when they were replayed: what the check looks at is the pool
 * with them.)
 */
#include <config.h>

#include <inttypes.h>

#include "heap/check.h"
#include "heap/heap.h"
#include "heap/judge.h"

#define SUPER(field) offsetof(struct fm_super_disk, field)

static const char log_words[] = "log";

/* The head of an extent: false if it is not sound. */
static bool read_head(struct check *c, uint64_t off, struct fm_log_disk *head,
		      const char **why)
{
	*why = "no page of the heap";
	if (off % FM_PAGE_LEN != 0 || off < FM_ZONE_DATA_OFF ||
	    off + sizeof(*head) > c->heap_end || off > c->heap_end)
		return false;
	if (!check_read(c, off, head, sizeof(*head)))
		return false;
	*why = judge_log(head, off, c->file_len);
	return *why == NULL;
}

static bool is_allocated(struct check *c, uint64_t off, uint64_t npages)
{
	return off + (npages << FM_PAGE_SHIFT) <= c->heap_end &&
	       checkzone_entry(c, off) == FM_EXTENT(FM_EXTENT_META, 0, npages);
}

/* What was added for a commit that was not made, or is to be freed: the next writer
 * knows. */
static void check_rest(struct check *c, uint64_t off, const char *what)
{
	struct fm_log_disk head;
	const char *why;
	uint32_t n;

	for (n = 0; off != 0 && n < FM_LOG_NEXTENTS_MAX && !c->stopped; n++) {
		if (!read_head(c, off, &head, &why) ||
		    !is_allocated(c, off, head.npages))
			break;
		check_claim(c, off, 0, log_words);
		off = head.next_off;
	}
	if (n > 0)
		check_later(c, c->super.log_off, log_words, "%" PRIu32 " extents %s", n,
			    what);
}

static void check_laps(struct check *c, const struct fm_log_disk *head)
{
	const uint64_t at = offsetof(struct fm_log_disk, lap);
	int i;

	for (i = 0; i < 2; i++)
		if (judge_lap(&head->lap[i]) == NULL)
			return;
	check_damage(c, false, head->self_off + at, log_words, "no lap is sound");
}

/* Whether the chain has come back. */
static bool is_claimed(const struct check *c, uint64_t off)
{
	const struct check_claim *claim = c->claims.item;
	size_t i;

	for (i = 0; i < c->claims.n; i++)
		if (claim[i].off == off)
			return true;
	return false;
}

void checklog_run(struct check *c)
{
	uint64_t off = c->super.log_off, from_off = SUPER(log_off), free_off = 0;
	struct fm_log_disk head;
	const char *why;
	uint32_t n = 0;

	if ((c->super.incompat & FM_INCOMPAT_ATOMIC) == 0)
		return;
	while ((off != 0 || n == 0) && !is_claimed(c, off)) {
		if (!read_head(c, off, &head, &why) ||
		    !is_allocated(c, off, head.npages) || n == FM_LOG_NEXTENTS_MAX) {
			if (n == 0 && !c->stopped) {
				c->all_claimed = false;
				check_damage(c, false, from_off, log_words,
					     "its first extent, at %#" PRIx64 ": %s",
					     off, why != NULL ? why : "not allocated");
			}
			break;
		}
		check_claim(c, off, head.npages, log_words);
		if (n++ == 0) {
			check_laps(c, &head);
			free_off = head.free_off;
		}
		from_off = off + offsetof(struct fm_log_disk, next_off);
		off = head.next_off;
	}
	check_rest(c, free_off, "are to be freed");
}
