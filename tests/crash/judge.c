/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing a pool with the journal of the program that was killed. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash/contents.h"
#include "crash/journal.h"
#include "heap/error.h"
#include "heap/inspect.h"
#include "heap/layout.h"
#include "unit/checkpool.h"

#define SMALL_MAX 16384u	/* bytes of the largest block of a slab */

struct handed {
	unsigned char *mem;
	size_t size;
	uint64_t seed;
};

struct trial {
	const char *path;
	struct journal *j;
	unsigned flags;
	char *why;
	struct fm_info *fi;
	const struct fm_super_disk *super;
	struct checked_pool pool;	/* as it was opened */
	bool *claimed;			/* of each of its blocks */
	size_t nclaimed, nmay_leak;
	struct handed *handed;
	size_t nhanded;
};

static int wrong(struct trial *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int wrong(struct trial *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, 300, fmt, ap);
	va_end(ap);
	return -1;
}

static unsigned char *at(const struct trial *t, uint64_t off)
{
	return (unsigned char *)t->fi->mem + off;
}

/* --- the heap's own ------------------------------------------------------------ */

static int no_intents_left(struct trial *t)
{
	const struct fm_intents_disk *page;
	unsigned i;

	if (t->super->intent.where_off != 0)
		return wrong(t, "the intent of the super is not settled");
	if (t->super->pending_intents_off != 0 || t->super->pending_rootpage_off != 0)
		return wrong(t, "a page is pending");
	if (t->super->intents_off == 0)
		return 0;
	page = (const struct fm_intents_disk *)at(t, t->super->intents_off);
	for (i = 0; i < FM_NINTENTS; i++)
		if (page->intent[i].where_off != 0)
			return wrong(t, "intent %u is not settled", i);
	return 0;
}

/* The heap has no more pages for itself than it has a use for. */
static int no_meta_leaked(struct trial *t)
{
	uint64_t len = t->super->intents_off != 0 ? FM_INTENTS_NPAGES * FM_PAGE_LEN : 0;
	const struct fm_rootpage_disk *page = (void *)at(t, FM_APP_OFF);

	while (memcmp(page->magic, FM_ROOT_MAGIC, 8) == 0 && page->next_off != 0) {
		page = (void *)at(t, page->next_off);
		len += FM_ROOTPAGE_LEN;
	}
	if (len != t->pool.meta_len)
		return wrong(t, "%" PRIu64 " bytes of the heap's own, not %" PRIu64,
			     t->pool.meta_len, len);
	return 0;
}

static int any_root(const char *name, void *ptr, const char *type, void *arg)
{
	(void)name;
	(void)ptr;
	(void)type;
	(void)arg;
	return 0;
}

static int roots_readable(struct trial *t)
{
	if (fm_root_each(t->fi, any_root, NULL) != 0)
		return wrong(t, "%s", fm_errmsg());
	return 0;
}

/* --- slots ------------------------------------------------------------------------ */

/* The block at off is one that the journal knows: false if there is none, or
 * another slot has it. */
static bool claim(struct trial *t, uint64_t off, uint64_t *len)
{
	const struct checked_block *b = off == 0 ? NULL : checkpool_find(&t->pool, off);

	if (b == NULL || t->claimed[b - t->pool.blocks])
		return false;
	t->claimed[b - t->pool.blocks] = true;
	t->nclaimed++;
	*len = b->len;
	return true;
}

static int contents_kept(struct trial *t, int i)
{
	const struct slot *s = &t->j->slot[i];

	if (fmalloc_usable_size(at(t, s->off)) < s->size)
		return wrong(t, "slot %d: the block at %#" PRIx64 " has %zu bytes, not %"
			     PRIu64, i, s->off, fmalloc_usable_size(at(t, s->off)),
			     s->size);
	if (s->seed != 0 && !contents_right(at(t, s->off), s->size, s->seed))
		return wrong(t, "slot %d: the block at %#" PRIx64 " of %" PRIu64
			     " bytes has other contents", i, s->off, s->size);
	return 0;
}

static int claim_own(struct trial *t, int i)
{
	struct slot *s = &t->j->slot[i];
	uint64_t len;

	if (!claim(t, s->off, &len))
		return wrong(t, "slot %d: the block at %#" PRIx64 " of %" PRIu64
			     " bytes is lost, or another's, too", i, s->off, s->size);
	return contents_kept(t, i);
}

/* The slot has what its call left, whole, or nothing. */
static void settle(struct trial *t, int i, uint64_t off)
{
	struct slot *s = &t->j->slot[i];
	uint64_t len;

	s->state = EMPTY;
	if (!claim(t, off, &len))
		return;
	s->off = off;
	s->size = len;
	s->seed += NSLOTS;
	contents_fill(at(t, off), len, s->seed);
	s->state = OWN;
}

static int judge_plain(struct trial *t, int i)
{
	struct slot *s = &t->j->slot[i];

	if (s->state == OWN || s->state == EMPTY)
		return 0;
	if (s->state != FREEING)
		t->nmay_leak++;
	settle(t, i, s->state == ALLOCATING ? 0 : s->off);
	return 0;
}

/* What the pointer or the root of a slot refers to must be so, by its state. */
static int judge_linked(struct trial *t, int i, uint64_t off)
{
	struct slot *s = &t->j->slot[i];
	uint64_t state = s->state;

	if ((state == EMPTY && off != 0) ||
	    ((state == OWN || state == RESIZING) && off == 0) ||
	    ((state == OWN || (state == FREEING && off != 0)) && off != s->off))
		return wrong(t, "slot %d, state %" PRIu64 ": refers to %#" PRIx64
			     ", not %#" PRIx64, i, state, off, s->off);
	if (state == OWN || state == EMPTY)
		return 0;
	settle(t, i, off);
	if (off != 0 && s->state != OWN)
		return wrong(t, "slot %d, state %" PRIu64 ": refers to %#" PRIx64 ", where %s",
			     i, state, off, checkpool_find(&t->pool, off) == NULL ?
			     "no block is" : "another's is");
	return 0;
}

static int root_off(struct trial *t, int i, const char *type, uint64_t *off)
{
	char name[16];
	void *p;

	snprintf(name, sizeof(name), "slot%d", i);
	p = fm_root_get(t->fi, name, type);
	if (p == NULL && errno != ENOENT)
		return wrong(t, "%s", fm_errmsg());
	*off = p == NULL ? 0 : (uint64_t)((unsigned char *)p - at(t, 0));
	return 0;
}

static int judge_into(struct trial *t, int i)
{
	if (t->j->anchor_off == 0)
		return 0;
	return judge_linked(t, i, *(uint64_t *)at(t, t->j->anchor_off + (i - NPLAIN) *
						     sizeof(uint64_t)));
}

static int judge_object(struct trial *t, int i)
{
	uint64_t off;

	if (root_off(t, i, "object", &off) < 0)
		return -1;
	/* The root may be gone and its object not freed yet: see judge_rootless(). */
	if (t->j->slot[i].state == FREEING && off == 0)
		return 0;
	return judge_linked(t, i, off);
}

static void judge_rootless(struct trial *t, int i)
{
	struct slot *s = &t->j->slot[i];

	settle(t, i, s->off);
	if (s->state == OWN) {
		ffree(at(t, s->off));
		t->nclaimed--;
		s->state = EMPTY;
	}
}

static int judge_name(struct trial *t, int i)
{
	struct slot *s = &t->j->slot[i];
	uint64_t off, state = s->state;
	bool old, new;

	if (root_off(t, i, "name", &off) < 0)
		return -1;
	old = off == (state == EMPTY || state == ALLOCATING ? 0 : s->off);
	new = (state == FREEING && off == 0) ||
	      ((state == ALLOCATING || state == RESIZING) && off == s->next_off);
	if (!old && !new)
		return wrong(t, "root slot%d is %#" PRIx64 ", not %#" PRIx64, i, off,
			     s->off);
	s->off = off;
	s->state = off == 0 ? EMPTY : OWN;
	return 0;
}

static int judge_anchor(struct trial *t)
{
	unsigned char *mem = fm_root_get(t->fi, "anchor", "anchor");
	uint64_t off = mem == NULL ? 0 : mem - at(t, 0), len;

	if (mem == NULL && errno != ENOENT)
		return wrong(t, "%s", fm_errmsg());
	if (t->j->anchor_off != 0 && off != t->j->anchor_off)
		return wrong(t, "the anchor is lost");
	t->j->anchor_off = off;
	return off == 0 || claim(t, off, &len) ? 0 : wrong(t, "the anchor is no block");
}

static int judge_slots(struct trial *t)
{
	static const struct {
		enum slot_kind kind;
		int (*fn)(struct trial *t, int i);
	} next[] = {
		{ INTO, judge_into }, { OBJECT, judge_object }, { NAME, judge_name },
		{ PLAIN, judge_plain },
	};
	unsigned k;
	int i;

	if (judge_anchor(t) < 0)
		return -1;
	/* First what is certain, then what pointers and roots say: what a slot without
	 * had, whose call was under way, may be somebody else's by now. */
	for (i = 0; i < NSLOTS; i++)
		if (t->j->slot[i].state == OWN && journal_kind(i) != NAME &&
		    claim_own(t, i) < 0)
			return -1;
	for (k = 0; k < sizeof(next) / sizeof(next[0]); k++)
		for (i = 0; i < NSLOTS; i++)
			if (journal_kind(i) == next[k].kind && next[k].fn(t, i) < 0)
				return -1;
	for (i = 0; i < NSLOTS; i++)
		if (journal_kind(i) == OBJECT && t->j->slot[i].state == FREEING)
			judge_rootless(t, i);
	return 0;
}

/* Blocks that the pool has and nobody knows; they are freed. */
static int judge_leaks(struct trial *t)
{
	uint64_t nbad = fm_bad_free_count();
	size_t i, n = 0;

	for (i = 0; i < t->pool.nblocks; i++) {
		if (t->claimed[i])
			continue;
		if (++n > t->nmay_leak)
			return wrong(t, "the block at %#" PRIx64 " of %" PRIu64
				     " bytes leaked; %zu may have", t->pool.blocks[i].off,
				     t->pool.blocks[i].len, t->nmay_leak);
		ffree(at(t, t->pool.blocks[i].off));
	}
	return fm_bad_free_count() == nbad ? 0 : wrong(t, "%s", fm_errmsg());
}

/* --- handing everything out ------------------------------------------------------------ */

static bool slab_was_used(const struct trial *t, uint64_t off)
{
	size_t lo = 0, hi = t->pool.nblocks, mid;

	off &= ~(FM_SLAB_LEN - 1);
	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (t->pool.blocks[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < t->pool.nblocks && t->pool.blocks[lo].off < off + FM_SLAB_LEN;
}

/* A block more: its offset, or 0. */
static uint64_t hand_out(struct trial *t, size_t size)
{
	struct handed *h;

	if (t->nhanded % 1024 == 0) {
		t->handed = realloc(t->handed, (t->nhanded + 1024) * sizeof(*h));
		if (t->handed == NULL)
			abort();
	}
	h = &t->handed[t->nhanded];
	h->mem = fmalloc_in(t->fi, size);
	if (h->mem == NULL)
		return 0;
	h->size = size;
	h->seed = UINT64_C(1) << 40 | t->nhanded++;
	contents_fill(h->mem, size, h->seed);
	return h->mem - at(t, 0);
}

/* Blocks of the size until one is from a slab that had none. */
static int hand_out_class(struct trial *t, size_t size)
{
	uint64_t off;

	do {
		off = hand_out(t, size);
		if (off == 0)
			return wrong(t, "%zu bytes more: %s", size, fm_errmsg());
	} while (slab_was_used(t, off));
	return 0;
}

/* Runs until the pool has grown. */
static int hand_out_runs(struct trial *t)
{
	uint64_t end = t->super->heap_end;
	unsigned n;

	for (n = 0; n < 600 && t->super->heap_end == end; n++)
		if (hand_out(t, 5 * FM_PAGE_LEN) == 0)
			return wrong(t, "a run more: %s", fm_errmsg());
	return 0;
}

static int hand_out_all(struct trial *t)
{
	bool seen[SMALL_MAX / 16 + 1] = { false };
	size_t i;

	for (i = 0; i < t->pool.nblocks; i++) {
		uint64_t len = t->pool.blocks[i].len;

		if (len > SMALL_MAX || seen[len / 16])
			continue;
		seen[len / 16] = true;
		if (hand_out_class(t, len) < 0)
			return -1;
	}
	if (hand_out_runs(t) < 0)
		return -1;
	if (t->flags & JUDGE_ZONE && hand_out(t, FM_ZONE_LEN - FM_ZONE_DATA_OFF) == 0)
		return wrong(t, "a zone more: %s", fm_errmsg());
	return 0;
}

/* Nothing that was handed out overlaps anything else. */
static int judge_handed(struct trial *t)
{
	struct checked_pool now;
	size_t n, i;
	int k;

	if (hand_out_all(t) < 0)
		return -1;
	for (i = 0; i < t->nhanded; i++)
		if (!contents_right(t->handed[i].mem, t->handed[i].size,
				    t->handed[i].seed))
			return wrong(t, "handed out twice: %#" PRIx64,
				     (uint64_t)(t->handed[i].mem - at(t, 0)));
	for (k = 0; k < NSLOTS; k++)
		if (t->j->slot[k].state == OWN && journal_kind(k) != NAME &&
		    contents_kept(t, k) < 0)
			return -1;
	if (checkpool_file(t->path, &now) < 0)
		return wrong(t, "handed out: %s", now.why);
	n = now.nblocks;
	checkpool_free(&now);
	if (n != t->nclaimed + t->nhanded)
		return wrong(t, "handed out: %zu blocks are %zu and %zu", n, t->nclaimed,
			     t->nhanded);
	for (i = 0; i < t->nhanded; i++)
		ffree(t->handed[i].mem);
	return 0;
}

/* --- the whole ----------------------------------------------------------------------------- */

static int judge_open(struct trial *t)
{
	uint64_t nbad = fm_bad_free_count();

	if (checkpool_file(t->path, &t->pool) < 0)
		return wrong(t, "%s", t->pool.why);
	t->claimed = calloc(t->pool.nblocks + 1, 1);
	if (t->claimed == NULL)
		abort();
	if (no_intents_left(t) < 0 || no_meta_leaked(t) < 0 ||
	    roots_readable(t) < 0 || judge_slots(t) < 0 ||
	    judge_leaks(t) < 0)
		return -1;
	if (t->flags & JUDGE_HAND_OUT && judge_handed(t) < 0)
		return -1;
	return fm_bad_free_count() == nbad ? 0 : wrong(t, "%s", fm_errmsg());
}

static int judge_closed(struct trial *t)
{
	checkpool_free(&t->pool);
	if (checkpool_file(t->path, &t->pool) < 0)
		return wrong(t, "closed: %s", t->pool.why);
	if (t->pool.nblocks != t->nclaimed)
		return wrong(t, "closed: %zu blocks, not %zu", t->pool.nblocks,
			     t->nclaimed);
	return 0;
}

/* The library's figures of the file are those of the pool that the first judge sees,
 * and no two blocks overlap. */
static int same_figures(struct trial *t, const char *when)
{
	int fd = open(t->path, O_RDONLY | O_CLOEXEC), rc;
	struct checked_pool pool;
	struct fm_stats stats;
	uint64_t len = 0;
	size_t i;

	rc = stat_file(fd, &stats);
	close(fd);
	if (rc < 0)
		return wrong(t, "%s: %s", when, err_words());
	if (checkpool_file(t->path, &pool) < 0)
		return wrong(t, "%s: %s", when, pool.why);
	for (i = 0; i < pool.nblocks; i++) {
		len += pool.blocks[i].len;
		if (rc == 0 && i > 0 && pool.blocks[i].off <
		    pool.blocks[i - 1].off + pool.blocks[i - 1].len)
			rc = wrong(t, "%s: the blocks at %#" PRIx64 " and %#" PRIx64
				   " overlap", when, pool.blocks[i - 1].off,
				   pool.blocks[i].off);
	}
	if (stats.nlive != pool.nblocks || stats.live_len != len ||
	    stats.meta_len != pool.meta_len)
		rc = wrong(t, "%s: %" PRIu64 " blocks of %" PRIu64 " bytes, and %" PRIu64
			   ", are %zu of %" PRIu64 ", and %" PRIu64, when, stats.nlive,
			   stats.live_len, stats.meta_len, pool.nblocks, len,
			   pool.meta_len);
	checkpool_free(&pool);
	return rc;
}

/* A second judge, who reads the file: what a kill leaves is no damage. */
static int checked(struct trial *t, const char *when)
{
	if (fm_check(t->path) == 0)
		return same_figures(t, when);
	/* Not made yet, or zeroes. */
	if (t->flags & JUDGE_CREATE && (errno == EINVAL || errno == ENOENT))
		return 0;
	return wrong(t, "%s: %s", when, fm_errmsg());
}

int judge(const char *path, struct journal *j, unsigned flags, char why[300])
{
	struct trial t = { .path = path, .j = j, .flags = flags, .why = why };
	int rc;

	why[0] = '\0';
	if (checked(&t, "killed") < 0)
		return -1;
	t.fi = fmalloc_open(path, flags & JUDGE_CREATE ? FM_CREATE : 0, NULL);
	if (t.fi == NULL)
		return wrong(&t, "%s", fm_errmsg());
	t.super = t.fi->mem;
	rc = judge_open(&t);
	if (rc == 0 && !(flags & JUDGE_CLOSE))
		goto out;
	if (fmalloc_close(t.fi) != 0)
		rc = wrong(&t, "%s", fm_errmsg());
	if (rc == 0)
		rc = judge_closed(&t);
	if (rc == 0)
		rc = checked(&t, "closed");
out:
	checkpool_free(&t.pool);
	free(t.claimed);
	free(t.handed);
	return rc;
}
