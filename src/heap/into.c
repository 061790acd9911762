/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocating and linking a block, or unlinking and freeing it, in one step that
 * a kill does not split.
 *
 * What is about to happen is written down in the pool first, in an intent of the
 * thread's own: which pointer is going to change, which block is being allocated
 * and which one freed.  The store of the pointer decides.  Whoever opens the pool
 * after a kill finds the intent, looks at the pointer, and frees the one block or
 * the other.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "heap/error.h"
#include "heap/heap.h"
#include "heap/judge.h"
#include "heap/lane.h"

static void store(uint64_t *where, uint64_t value)
{
	__atomic_store_n(where, value, __ATOMIC_RELEASE);
}

/* --- the page of intents --------------------------------------------------------- */

static bool page_sound(const struct fm_heap *h, uint64_t off)
{
	return off % FM_PAGE_LEN == 0 &&
	       zone_entry(h, off) == FM_EXTENT(FM_EXTENT_META, 0, FM_INTENTS_NPAGES) &&
	       judge_intents((struct fm_intents_disk *)(h->base + off), off) == NULL;
}

/* intent_lock is held.  A pool without space for it does with the super's. */
static struct fm_intents_disk *make_page(struct fm_heap *h)
{
	uint64_t *pending = &h->super->pending_intents_off;
	struct fm_intents_disk *page;

	if (h->super->intents_off != 0 ||
	    alloc_meta(h, FM_INTENTS_NPAGES, pending) < 0)
		return NULL;
	page = (struct fm_intents_disk *)(h->base + *pending);
	memset(page, 0, sizeof(*page));
	page->magic = FM_INTENTS_MAGIC;
	page->self_off = *pending;
	page->crc = judge_self_crc(*pending);
	store(&h->super->intents_off, page->self_off);
	store(pending, 0);
	__atomic_store_n(&h->intents, page, __ATOMIC_RELEASE);
	return page;
}

bool into_has_page(const struct fm_heap *h, uint64_t off)
{
	return off == h->super->intents_off;
}

/* --- after a kill ------------------------------------------------------------------ */

/* Finish the change of a killed process, or undo it.  Harmless to repeat: nobody
 * has allocated anything since. */
static void settle(struct fm_heap *h, struct fm_intent_disk *intent)
{
	uint64_t value = intent->value != 0 ? intent->value : intent->new_off;
	uint64_t where_off = intent->where_off, word;

	if (where_off == 0)
		return;
	if (judge_where(where_off, heap_end(h)) == NULL) {
		word = *(uint64_t *)(h->base + where_off);
		alloc_drop(h, word == value ? intent->old_off : intent->new_off);
	}
	store(&intent->where_off, 0);
}

void into_open(struct fm_heap *h)
{
	pthread_mutex_init(&h->intent_lock, NULL);
	into_settle(h);
}

void into_settle(struct fm_heap *h)
{
	uint64_t pending = h->super->pending_intents_off;
	uint32_t i;

	h->intents = NULL;
	settle(h, &h->super->intent);
	if (h->super->intents_off != 0 && page_sound(h, h->super->intents_off)) {
		h->intents = (void *)(h->base + h->super->intents_off);
		for (i = 0; i < FM_NINTENTS; i++)
			settle(h, &h->intents->intent[i]);
	}
	if (pending == 0)
		return;
	if (!into_has_page(h, pending) && root_has_page(h, pending) == 0)
		pages_drop(h, FM_EXTENT_META, pending);
	store(&h->super->pending_intents_off, 0);
}

void into_close(struct fm_heap *h)
{
	pthread_mutex_destroy(&h->intent_lock);
}

/* --- intents ------------------------------------------------------------------------ */

/* The intent to use: the thread's own, or one that it must share. */
static struct fm_intent_disk *choose(struct fm_heap *h)
{
	const struct lane *lane = lane_get(h);
	struct fm_intents_disk *page;

	page = __atomic_load_n(&h->intents, __ATOMIC_ACQUIRE);
	if (page != NULL && lane != NULL && lane->number <= FM_NINTENTS)
		return &page->intent[lane->number - 1];
	pthread_mutex_lock(&h->intent_lock);
	if (h->intents == NULL && make_page(h) != NULL) {
		pthread_mutex_unlock(&h->intent_lock);
		return choose(h);
	}
	return &h->super->intent;
}

struct fm_intent_disk *into_begin(struct fm_heap *h, uint64_t where_off,
				  uint64_t old_off)
{
	struct fm_intent_disk *intent = choose(h);

	store(&intent->value, 0);
	store(&intent->new_off, 0);
	store(&intent->old_off, old_off);
	store(&intent->where_off, where_off);
	return intent;
}

void into_end(struct fm_heap *h, struct fm_intent_disk *intent)
{
	store(&intent->where_off, 0);
	if (intent == &h->super->intent)
		pthread_mutex_unlock(&h->intent_lock);
}

/* --- what is done so ----------------------------------------------------------------- */

static uint64_t *pointer_at(const struct fm_heap *h, uint64_t where_off)
{
	return (uint64_t *)(h->base + where_off);
}

int into_alloc(struct fm_heap *h, uint64_t where_off, size_t size)
{
	struct fm_intent_disk *intent = into_begin(h, where_off, 0);
	int rc;

	rc = alloc_block(h, size, 16, &intent->new_off);
	if (rc == 0)
		store(pointer_at(h, where_off), intent->new_off);
	into_end(h, intent);
	return rc;
}

/* The block that the pointer refers to, 0 if it is null. */
static int referent(const struct fm_heap *h, uint64_t where_off, uint64_t *off)
{
	*off = __atomic_load_n(pointer_at(h, where_off), __ATOMIC_ACQUIRE);
	if (*off != 0 && (*off >= h->map_len || alloc_usable(h, *off) == 0))
		return err_set(EINVAL, "it refers to offset %#" PRIx64 ", which is not an"
			       " allocated block", *off);
	return 0;
}

int into_free(struct fm_heap *h, uint64_t where_off)
{
	struct fm_intent_disk *intent;
	uint64_t off;
	int rc;

	rc = referent(h, where_off, &off);
	if (rc < 0 || off == 0)
		return rc;
	intent = into_begin(h, where_off, off);
	store(pointer_at(h, where_off), 0);
	rc = alloc_free(h, off, &intent->where_off);
	if (rc < 0)	/* the zone cannot be loaded, say */
		store(pointer_at(h, where_off), off);
	into_end(h, intent);
	return rc;
}

static int move(struct fm_heap *h, uint64_t where_off, uint64_t off, size_t size)
{
	uint64_t have = alloc_usable(h, off);
	struct fm_intent_disk *intent = into_begin(h, where_off, off);
	int rc;

	rc = alloc_block(h, size, 16, &intent->new_off);
	if (rc == 0) {
		memcpy(h->base + intent->new_off, h->base + off,
		       have < size ? have : size);
		store(pointer_at(h, where_off), intent->new_off);
		rc = alloc_free(h, off, &intent->where_off);
		if (rc < 0) {
			store(pointer_at(h, where_off), off);
			alloc_free(h, intent->new_off, &intent->where_off);
		}
	}
	into_end(h, intent);
	return rc;
}

int into_resize(struct fm_heap *h, uint64_t where_off, size_t size)
{
	uint64_t off;
	int rc;

	rc = referent(h, where_off, &off);
	if (rc < 0)
		return rc;
	if (off == 0)
		return into_alloc(h, where_off, size);
	return alloc_resize(h, off, size) ? 0 : move(h, where_off, off, size);
}
