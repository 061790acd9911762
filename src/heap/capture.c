/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a commit has to write: comparing the pages that were written with what the last
 * commit had, and the way back.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/align.h"
#include "common/bits.h"
#include "common/clock.h"
#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"

#define PAGE_NWORDS (FM_PAGE_LEN / 8)
#define HEAD_NWORDS (sizeof(struct fm_record_disk) / 8)
#define LINE_NWORDS 8u
/* Pages that are nobody's are logged nevertheless if there are fewer: writing them in
 * their place takes another sync. */
#define FRESH_RUN_LEN_MIN (8 * FM_PAGE_LEN)
#define FRESH_NPAGES_MIN 64u

/* --- the record --------------------------------------------------------------- */

/* Room for n more words. */
static int reserve(struct atomic *a, uint64_t n)
{
	uint64_t cap = a->cap_words == 0 ? UINT64_C(1) << 16 : a->cap_words * 2;
	uint64_t *mem;

	if (a->nwords + n <= a->cap_words)
		return 0;
	mem = map_anon_sparse(cap * 8);
	if (mem == NULL)
		return err_sys(ENOMEM, "memory for what is to be committed");
	if (a->nwords > 0)
		memcpy(mem, a->record, a->nwords * 8);
	map_anon_free(a->record, a->cap_words * 8);
	a->record = mem;
	a->cap_words = cap;
	return 0;
}

/* Of what every processor with vectors has; others do it by words. */
typedef uint64_t pair __attribute__((vector_size(16), may_alias));

/* Lines of 64 bytes, aligned. */
static inline bool same_line(const uint64_t *a, const uint64_t *b)
{
	const pair *x = (const pair *)a, *y = (const pair *)b;
	pair diff = (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]);

	return (diff[0] | diff[1]) == 0;
}

/* The words of a page that differ, as runs, to `to`: its end.  A word that is the same
 * between two that are not costs no more than another run. */
static uint64_t *diff_page(uint64_t off, const uint64_t *now, const uint64_t *was,
			   uint64_t *to)
{
	uint32_t i = 0, start, end;

	while (i < PAGE_NWORDS) {
		if (i % LINE_NWORDS == 0 && same_line(now + i, was + i)) {
			i += LINE_NWORDS;
			continue;
		}
		if (now[i] == was[i]) {
			i++;
			continue;
		}
		start = i;
		end = ++i;
		for (; i < PAGE_NWORDS; i++) {
			if (now[i] != was[i])
				end = i + 1;
			else if (i > end)
				break;
		}
		*to++ = FM_RUN(off + start * 8, end - start);
		memcpy(to, now + start, (end - start) * 8);
		to += end - start;
		i = end + 1;
	}
	return to;
}

/* What of the first page is of the file, not of its contents. */
static void keep_own(unsigned char *now, const unsigned char *was)
{
	const size_t log_at = offsetof(struct fm_super_disk, log_off);
	const size_t at = offsetof(struct fm_super_disk, writer);

	memcpy(now + log_at, was + log_at, sizeof(uint64_t));
	memcpy(now + at, was + at, sizeof(struct fm_writer_disk));
}

static void note_changed(struct atomic *a, uint64_t page)
{
	uint64_t chunk = page / FM_CHUNK_NPAGES;

	if (a->heat[chunk].nchanged++ == 0)
		a->touched[a->ntouched++] = chunk;
}

/* The page may have been written.  (One of the log's, to have been read: what memory has
 * there is nothing, and is there once somebody looks.) */
static int capture_page(struct fm_heap *h, uint64_t page)
{
	uint64_t first[PAGE_NWORDS] __attribute__((aligned(64))), *end,
		off = page << FM_PAGE_SHIFT;
	const unsigned char *now = h->base + off;
	struct atomic *a = h->atomic;
	unsigned char *was;
	int rc;

	if (log_has_page(&a->log, off))
		return 0;
	a->ncompared++;
	rc = reserve(a, 2 * PAGE_NWORDS);
	if (rc == 0)
		rc = overlay_get(&a->overlay, h->fd, page, &was);
	if (rc < 0)
		return rc;
	if (page == 0) {
		memcpy(first, now, FM_PAGE_LEN);
		keep_own((unsigned char *)first, was);
		now = (const unsigned char *)first;
	}
	end = diff_page(off, (const uint64_t *)now, (const uint64_t *)was,
			a->record + a->nwords);
	if (end == a->record + a->nwords)
		return 0;
	a->nwords = end - a->record;
	overlay_set_open(&a->overlay, page);
	note_changed(a, page);
	return 0;
}

/* One that an earlier capture found to differ, of a commit that was not made. */
static int capture_open(void *arg, uint64_t off, const unsigned char *was)
{
	(void)was;
	return capture_page(arg, off >> FM_PAGE_SHIFT);
}

/* The pages of a run, or with `fresh` those that are nobody's, from off on. */
static uint64_t end_of_fresh(struct fm_heap *h, uint64_t off, uint64_t end, bool fresh)
{
	struct atomic *a = h->atomic;

	while (off < end && fresh_has(&a->fresh, h->fd, off >> FM_PAGE_SHIFT) == fresh)
		off += FM_PAGE_LEN;
	return off;
}

static int capture_pages(struct fm_heap *h, uint64_t off, uint64_t end)
{
	int rc = 0;

	for (; off < end && rc == 0; off += FM_PAGE_LEN)
		rc = capture_page(h, off >> FM_PAGE_SHIFT);
	return rc;
}

static int capture_run(void *arg, uint64_t off, uint64_t len)
{
	struct fm_heap *h = arg;
	struct atomic *a = h->atomic;
	uint64_t end = off + len, to;
	int rc = 0;

	/* Whether a few pages are nobody's is not worth to be known. */
	for (; off < end && rc == 0 && len >= FRESH_RUN_LEN_MIN; off = to) {
		to = end_of_fresh(h, off, end, false);
		rc = capture_pages(h, off, to);
		off = to;
		to = end_of_fresh(h, off, end, true);
		if (rc == 0 && to > off)
			rc = fresh_add(&a->fresh, off, to - off);
	}
	if (rc == 0)
		rc = capture_pages(h, off, end);
	/* The kernel will not tell of what follows again. */
	if (rc < 0)
		a->rescan = true;
	return rc;
}

/* --- where to look ------------------------------------------------------------ */

/* The first chunk behind this one that is not of its kind: hot or not, armed or not;
 * `end` at most. */
static uint64_t end_of_kind(const struct atomic *a, uint64_t chunk, uint64_t end)
{
	uint64_t hot = bits_has(a->hot, chunk) ? UINT64_MAX : 0, bits;
	uint64_t armed = bits_has(a->armed, chunk) ? UINT64_MAX : 0;

	for (; chunk < end; chunk = (chunk / 64 + 1) * 64) {
		bits = (a->hot[chunk / 64] ^ hot) | (a->armed[chunk / 64] ^ armed);
		bits &= UINT64_MAX << chunk % 64;
		if (bits != 0) {
			chunk = chunk / 64 * 64 + __builtin_ctzll(bits);
			break;
		}
	}
	return chunk < end ? chunk : end;
}

/* Call fn for the pages below committed_end that may have been written. */
static int find_written(struct fm_heap *h,
			int (*fn)(void *arg, uint64_t off, uint64_t len))
{
	struct atomic *a = h->atomic;
	uint64_t end = a->committed_end;
	uint64_t nchunks = align_up(end, FM_CHUNK_LEN) >> FM_CHUNK_SHIFT;
	uint64_t from = 0, to, off, limit;
	unsigned what;
	int rc = 0;

	if (a->rescan) {
		a->rescan = false;
		return dirty_find(&a->dirty, 0, end, DIRTY_PRIVATE | DIRTY_PROTECT, fn,
				  h);
	}
	for (; from < nchunks && rc == 0; from = to) {
		to = end_of_kind(a, from, nchunks);
		off = from << FM_CHUNK_SHIFT;
		limit = to << FM_CHUNK_SHIFT < end ? to << FM_CHUNK_SHIFT : end;
		what = DIRTY_WRITTEN;
		if (!bits_has(a->hot, from))
			what |= DIRTY_PROTECT;
		if (!bits_has(a->armed, from))
			what |= DIRTY_PRIVATE;
		rc = dirty_find(&a->dirty, off, limit - off, what, fn, h);
	}
	return rc;
}

static void clear_all_open(struct overlay *o)
{
	uint64_t c;

	for (c = overlay_next_chunk(o, 0); c < o->nchunks;
	     c = overlay_next_chunk(o, c + 1))
		memset(o->chunk[c]->open, 0, sizeof(o->chunk[c]->open));
}

/* Those of the capture that is now made. */
static void clear_open(struct atomic *a)
{
	struct overlay_chunk *c;
	uint32_t i;

	for (i = 0; i < a->ntouched; i++) {
		c = a->overlay.chunk[a->touched[i]];
		if (c != NULL)
			memset(c->open, 0, sizeof(c->open));
	}
}

/* --- new pages ---------------------------------------------------------------- */

static bool page_is_zero(const unsigned char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, FM_PAGE_LEN - 1) == 0;
}

static int write_home(struct fm_heap *h, uint64_t off, uint64_t len)
{
	int rc = write_at(h->fd, h->base + off, len, off);

	return rc < 0 ? err_sys(-rc, "write of new pages") : 0;
}

/* What was found to be nobody's from run number `from` on. */
static int write_nobodys(struct fm_heap *h, uint64_t from)
{
	struct atomic *a = h->atomic;
	struct fresh *f = &a->fresh;
	uint64_t i, off, end;
	int rc = 0;

	if (f->nruns == 0)
		return 0;
	if (!a->has_fresh && f->npages < FRESH_NPAGES_MIN) {
		for (i = 0; i < f->nruns && rc == 0; i++)
			rc = capture_pages(h, f->run[i].off,
					   f->run[i].off + f->run[i].len);
		fresh_clear(f);
		return rc;
	}
	a->has_fresh = true;
	for (i = from; i < f->nruns && rc == 0; i++) {
		off = f->run[i].off;
		end = off + f->run[i].len;
		rc = write_home(h, off, end - off);
		for (; off < end; off += FM_PAGE_LEN) {
			note_changed(a, off >> FM_PAGE_SHIFT);
			/* It is not as of the last commit any more. */
			overlay_drop(&a->overlay, off >> FM_PAGE_SHIFT);
		}
	}
	return rc;
}

/* They are in the file, and in memory once more than need be. */
static void count_nobodys(struct atomic *a)
{
	const struct fresh *f = &a->fresh;
	uint64_t i, off;

	for (i = 0; i < f->nruns; i++)
		for (off = f->run[i].off; off < f->run[i].off + f->run[i].len;
		     off += FM_PAGE_LEN)
			a->heat[off >> FM_CHUNK_SHIFT].nhome++;
	a->nhome += f->npages;
}

/* Pages of zeroes are zero in the file, unless they were something else before. */
static bool is_to_go_home(const struct fm_heap *h, uint64_t off)
{
	return !log_has_page(&h->atomic->log, off) &&
	       (h->atomic->fresh_written || !page_is_zero(h->base + off));
}

static int write_fresh(void *arg, uint64_t off, uint64_t len)
{
	struct fm_heap *h = arg;
	uint64_t end = off + len, to;
	int rc = 0;

	h->atomic->has_fresh = true;
	for (; off < end && rc == 0; off = to + FM_PAGE_LEN) {
		for (to = off; to < end && is_to_go_home(h, to); to += FM_PAGE_LEN)
			;
		rc = write_home(h, off, to - off);
	}
	return rc;
}

/* --- how hot it is ------------------------------------------------------------ */

/* A fault and protecting a page again cost as much as comparing three pages or more. */
#define HOT_NPAGES_MIN 16u
#define HOT_SHARE 3u
#define HOT_STREAK 3u

static void set_hot(struct atomic *a, uint64_t chunk, bool hot)
{
	a->heat[chunk].streak = 0;
	if (hot)
		bits_set(a->hot, chunk);
	else
		bits_clear(a->hot, chunk);
}

static int ignore(void *arg, uint64_t off, uint64_t len)
{
	(void)arg;
	(void)off;
	(void)len;
	return 0;
}

/*
 * Protect all pages of the chunk that the last commit has, there or not: then what is not
 * protected has been written, and the kernel need not find out whose page each is,
 * which takes it some 20 times as long.  (What this costs: pages of the file come in
 * one by one here.)
 */
static void arm(struct atomic *a, uint64_t chunk)
{
	uint64_t off = chunk << FM_CHUNK_SHIFT, end = off + FM_CHUNK_LEN;

	if (end > a->committed_end)
		end = a->committed_end;
	if (off >= end || !dirty_protects(&a->dirty))
		return;
	/* What was written has just been found, and nothing is being written. */
	if (dirty_find(&a->dirty, off, end - off, DIRTY_WRITTEN | DIRTY_PROTECT, ignore,
		       NULL) == 0)
		bits_set(a->armed, chunk);
}

static void judge_heat(struct atomic *a, uint64_t chunk)
{
	const struct overlay_chunk *c =
		overlay_chunk(&a->overlay, chunk * FM_CHUNK_NPAGES);
	struct chunk_heat *heat = &a->heat[chunk];
	bool again = heat->last != 0 && a->ncaptures - heat->last <= ATOMIC_NCOLD;
	bool want = c != NULL && heat->nchanged >= HOT_NPAGES_MIN &&
		    heat->nchanged * HOT_SHARE >= c->npages;

	if (heat->nchanged > 0) {
		heat->last = a->ncaptures;
		if (again && !bits_has(a->armed, chunk))
			arm(a, chunk);
	}
	heat->nchanged = 0;
	if (want == bits_has(a->hot, chunk))
		heat->streak = 0;
	else if (++heat->streak >= HOT_STREAK)
		set_hot(a, chunk, want);
}

static void judge_all(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t nwords = align_up(a->overlay.end, 64) / 64, w, bits, chunk;
	uint32_t i;

	a->ncaptures++;
	for (w = 0; w < nwords; w++)
		for (bits = a->hot[w]; bits != 0; bits &= bits - 1) {
			chunk = w * 64 + __builtin_ctzll(bits);
			if (a->heat[chunk].nchanged == 0)
				judge_heat(a, chunk);
		}
	for (i = 0; i < a->ntouched; i++)
		judge_heat(a, a->touched[i]);
}

static void forget_touched(struct atomic *a)
{
	while (a->ntouched > 0)
		a->heat[a->touched[--a->ntouched]].nchanged = 0;
}

/* --- capturing ---------------------------------------------------------------- */

/* What it took, but for comparing pages, is for scanning what is mapped. */
static int find_and_time(struct fm_heap *h)
{
	const uint64_t compare_ns = 1500;
	struct atomic *a = h->atomic;
	uint64_t start = clock_ns(), took;
	int rc;

	a->ncompared = 0;
	rc = find_written(h, capture_run);
	took = clock_ns() - start;
	a->scan_ns =
		took > a->ncompared * compare_ns ? took - a->ncompared * compare_ns : 0;
	return rc;
}

int capture_take(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t nruns = a->fresh.nruns; /* of a capture before, for the same commit */
	int rc;

	a->nwords = 0;
	rc = reserve(a, HEAD_NWORDS);
	if (rc < 0)
		return rc;
	a->nwords = HEAD_NWORDS;
	a->ntouched = 0;
	a->captured_end = heap_end(h);
	a->has_fresh = a->captured_end > a->committed_end || nruns > 0;
	if (a->reopen)
		rc = overlay_each(&a->overlay, OVERLAY_OPEN, capture_open, h);
	a->reopen = true;
	if (rc == 0)
		rc = find_and_time(h);
	if (rc == 0 && a->captured_end > a->committed_end)
		rc = dirty_find(&a->dirty, a->committed_end,
				a->captured_end - a->committed_end,
				DIRTY_PRIVATE | DIRTY_PROTECT, write_fresh, h);
	if (rc == 0)
		rc = write_nobodys(h, nruns);
	if (rc == 0)
		judge_all(h);
	else
		forget_touched(a);
	return rc;
}

void capture_fail(struct fm_heap *h)
{
	struct atomic *a = h->atomic;

	if (a->has_fresh)
		a->fresh_written = true;
	/* They are to be found, and written, again. */
	if (a->fresh.nruns > 0)
		a->rescan = true;
	fresh_clear(&a->fresh);
}

int capture_accept(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	rc = overlay_apply(&a->overlay, h->fd, a->record + HEAD_NWORDS,
			   a->nwords - HEAD_NWORDS);
	if (rc == 0)
		fresh_commit(&a->fresh, &a->overlay, h->fd, a->record + HEAD_NWORDS,
			     a->nwords - HEAD_NWORDS);
	else
		fresh_forget(&a->fresh);
	count_nobodys(a);
	fresh_clear(&a->fresh);
	/* What the last chunk has now was not all protected. */
	if (a->captured_end > a->committed_end)
		bits_clear(a->armed, a->committed_end >> FM_CHUNK_SHIFT);
	a->committed_end = a->captured_end;
	a->fresh_written = false;
	clear_open(a);
	a->reopen = false;
	return rc;
}

/* --- the way back ------------------------------------------------------------- */

static int get_run(void *arg, uint64_t off, uint64_t len)
{
	struct fm_heap *h = arg;
	struct overlay *o = &h->atomic->overlay;
	uint64_t end = off + len, page;
	unsigned char *was;
	int rc = 0;

	for (; off < end && rc == 0; off += FM_PAGE_LEN) {
		if (log_has_page(&h->atomic->log, off))
			continue;
		page = off >> FM_PAGE_SHIFT;
		rc = overlay_get(o, h->fd, page, &was);
		/* From here on it is found without being written again. */
		if (rc == 0)
			overlay_set_open(o, page);
	}
	if (rc < 0)
		h->atomic->rescan = true;
	return rc;
}

static int restore_page(void *arg, uint64_t off, const unsigned char *was)
{
	struct fm_heap *h = arg;

	if (memcmp(h->base + off, was, FM_PAGE_LEN) != 0)
		memcpy(h->base + off, was, FM_PAGE_LEN);
	return 0;
}

int capture_undo(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t end = heap_end(h);
	int rc;

	a->reopen = true;
	rc = find_written(h, get_run);
	if (rc < 0)
		return rc;
	/* From here on nothing fails. */
	overlay_each(&a->overlay, OVERLAY_OPEN, restore_page, h);
	clear_all_open(&a->overlay);
	a->reopen = false;
	if (end > a->committed_end)
		map_drop(h, a->committed_end, end - a->committed_end);
	return 0;
}
