/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a commit has to write: comparing the pages that were written with what the last
 * commit had, and the way back.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#else
#define __libc_single_threaded 0
#endif

#include "common/align.h"
#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"

#define PAGE_NWORDS (FM_PAGE_LEN / 8)
#define HEAD_NWORDS (sizeof(struct fm_record_disk) / 8)
#define LINE_NWORDS 8u

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

/* The page may have been written. */
static int capture_page(struct fm_heap *h, uint64_t page)
{
	uint64_t first[PAGE_NWORDS] __attribute__((aligned(64))), *end,
		off = page << FM_PAGE_SHIFT;
	const unsigned char *now = h->base + off;
	struct atomic *a = h->atomic;
	struct overlay_chunk *c;
	uint32_t i = page % FM_CHUNK_NPAGES;
	unsigned char *was;
	int rc;

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
	c = overlay_chunk(&a->overlay, page);
	c->open[i / 64] |= UINT64_C(1) << i % 64;
	if (a->heat[page / FM_CHUNK_NPAGES].nchanged++ == 0)
		a->touched[a->ntouched++] = page / FM_CHUNK_NPAGES;
	return 0;
}

static int capture_run(void *arg, uint64_t off, uint64_t len)
{
	struct fm_heap *h = arg;
	uint64_t end = off + len;
	int rc = 0;

	for (; off < end && rc == 0; off += FM_PAGE_LEN)
		rc = capture_page(h, off >> FM_PAGE_SHIFT);
	/* The kernel will not tell of what follows again. */
	if (rc < 0)
		h->atomic->rescan = true;
	return rc;
}

/* --- where to look ------------------------------------------------------------ */

static bool has_bit(const uint64_t *bits, uint64_t chunk)
{
	return (bits[chunk / 64] >> chunk % 64 & 1) != 0;
}

static void set_bit(uint64_t *bits, uint64_t chunk, bool on)
{
	if (on)
		bits[chunk / 64] |= UINT64_C(1) << chunk % 64;
	else
		bits[chunk / 64] &= ~(UINT64_C(1) << chunk % 64);
}

/* The first chunk behind this one that is not of its kind: hot or not, armed or not;
 * `end` at most. */
static uint64_t end_of_kind(const struct atomic *a, uint64_t chunk, uint64_t end)
{
	uint64_t hot = has_bit(a->hot, chunk) ? UINT64_MAX : 0, bits;
	uint64_t armed = has_bit(a->armed, chunk) ? UINT64_MAX : 0;

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
		if (!has_bit(a->hot, from))
			what |= DIRTY_PROTECT;
		if (!has_bit(a->armed, from))
			what |= DIRTY_PRIVATE;
		rc = dirty_find(&a->dirty, off, limit - off, what, fn, h);
	}
	return rc;
}

/* Call fn for the pages that an earlier capture found to differ, of a commit that was
 * not made. */
static int find_open(struct fm_heap *h,
		     int (*fn)(void *arg, uint64_t off, uint64_t len))
{
	struct overlay *o = &h->atomic->overlay;
	uint64_t c, bits;
	uint32_t w;
	int rc = 0;

	for (c = overlay_next_chunk(o, 0); c < o->nchunks && rc == 0;
	     c = overlay_next_chunk(o, c + 1))
		for (w = 0; w < FM_CHUNK_NPAGES / 64 && rc == 0; w++)
			for (bits = o->chunk[c]->open[w]; bits != 0 && rc == 0;
			     bits &= bits - 1)
				rc = fn(h,
					(c << FM_CHUNK_SHIFT) +
						((uint64_t)(w * 64 +
							    __builtin_ctzll(bits))
						 << FM_PAGE_SHIFT),
					FM_PAGE_LEN);
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
	uint32_t i;

	for (i = 0; i < a->ntouched; i++)
		memset(a->overlay.chunk[a->touched[i]]->open, 0,
		       sizeof(a->overlay.chunk[0]->open));
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

/* Pages of zeroes are zero in the file, unless they were something else before. */
static int write_fresh(void *arg, uint64_t off, uint64_t len)
{
	struct fm_heap *h = arg;
	uint64_t end = off + len, to;
	int rc = 0;

	h->atomic->has_fresh = true;
	for (; off < end && rc == 0; off = to + FM_PAGE_LEN) {
		for (to = off; to < end && (h->atomic->fresh_written ||
					    !page_is_zero(h->base + to));
		     to += FM_PAGE_LEN)
			;
		rc = write_home(h, off, to - off);
	}
	return rc;
}

/* --- how hot it is ------------------------------------------------------------ */

/* A fault and protecting a page again cost as much as comparing three pages or more. */
#define COLD_NCAPTURES 64u
#define HOT_NPAGES_MIN 16u
#define HOT_SHARE 3u
#define HOT_STREAK 3u

static void set_hot(struct atomic *a, uint64_t chunk, bool hot)
{
	a->heat[chunk].streak = 0;
	set_bit(a->hot, chunk, hot);
}

static int ignore(void *arg, uint64_t off, uint64_t len)
{
	(void)arg;
	(void)off;
	(void)len;
	return 0;
}

/*
 * Protect all pages of the chunk, also those that are not there: then what is not
 * protected has been written, and the kernel need not find out whose page each is,
 * which takes it some 20 times as long.  (What this costs: pages of the file come in
 * one by one here.)
 */
static void arm(struct atomic *a, uint64_t chunk)
{
	uint64_t off = chunk << FM_CHUNK_SHIFT, end = off + FM_CHUNK_LEN;

	if (end > a->committed_end || !dirty_protects(&a->dirty))
		return;
	/* What was written has just been found, and nothing is being written. */
	if (dirty_find(&a->dirty, off, FM_CHUNK_LEN, DIRTY_WRITTEN | DIRTY_PROTECT,
		       ignore, NULL) == 0)
		set_bit(a->armed, chunk, true);
}

static void judge_heat(struct atomic *a, uint64_t chunk)
{
	const struct overlay_chunk *c =
		overlay_chunk(&a->overlay, chunk * FM_CHUNK_NPAGES);
	struct chunk_heat *heat = &a->heat[chunk];
	bool again = heat->last != 0 && a->ncaptures - heat->last <= COLD_NCAPTURES;
	bool want = c != NULL && heat->nchanged >= HOT_NPAGES_MIN &&
		    heat->nchanged * HOT_SHARE >= c->npages;

	if (heat->nchanged > 0) {
		heat->last = a->ncaptures;
		if (again && !has_bit(a->armed, chunk))
			arm(a, chunk);
	}
	heat->nchanged = 0;
	if (want == has_bit(a->hot, chunk))
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

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

/* What it took, but for comparing pages, is for scanning what is mapped. */
static int find_and_time(struct fm_heap *h)
{
	const uint64_t compare_ns = 1500;
	struct atomic *a = h->atomic;
	uint64_t start = now_ns(), took;
	int rc;

	a->ncompared = 0;
	rc = find_written(h, capture_run);
	took = now_ns() - start;
	a->scan_ns =
		took > a->ncompared * compare_ns ? took - a->ncompared * compare_ns : 0;
	return rc;
}

int capture_take(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	a->nwords = 0;
	rc = reserve(a, HEAD_NWORDS);
	if (rc < 0)
		return rc;
	a->nwords = HEAD_NWORDS;
	a->ntouched = 0;
	a->captured_end = heap_end(h);
	a->has_fresh = a->captured_end > a->committed_end;
	if (a->reopen)
		rc = find_open(h, capture_run);
	a->reopen = true;
	if (rc == 0)
		rc = find_and_time(h);
	if (rc == 0 && a->captured_end > a->committed_end)
		rc = dirty_find(&a->dirty, a->committed_end,
				a->captured_end - a->committed_end,
				DIRTY_PRIVATE | DIRTY_PROTECT, write_fresh, h);
	if (rc == 0)
		judge_all(h);
	else
		forget_touched(a);
	if (rc < 0 && a->has_fresh)
		a->fresh_written = true;
	return rc;
}

int capture_accept(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	rc = overlay_apply(&a->overlay, h->fd, a->record + HEAD_NWORDS,
			   a->nwords - HEAD_NWORDS);
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
		page = off >> FM_PAGE_SHIFT;
		rc = overlay_get(o, h->fd, page, &was);
		/* From here on it is found without being written again. */
		if (rc == 0)
			overlay_chunk(o, page)->open[page % FM_CHUNK_NPAGES / 64] |=
				UINT64_C(1) << page % 64;
	}
	if (rc < 0)
		h->atomic->rescan = true;
	return rc;
}

static int restore_run(void *arg, uint64_t off, uint64_t len)
{
	struct fm_heap *h = arg;
	const unsigned char *was =
		overlay_find(&h->atomic->overlay, off >> FM_PAGE_SHIFT);

	(void)len; /* a page */
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
	find_open(h, restore_run);
	clear_all_open(&a->overlay);
	a->reopen = false;
	if (end > a->committed_end)
		map_drop(h, a->committed_end, end - a->committed_end);
	return 0;
}

/* --- giving up memory --------------------------------------------------------- */

#define SWEEP_NS_MIN 20000u     /* scanning that takes less is left as it is */
#define SWEEP_NCHUNKS_MAX 4096u /* looked at in one go */
#define ANON_LEN_MAX (UINT64_C(64) << 20)
#define ANON_LEN_MIN (UINT64_C(1) << 20)

/* A store that another thread makes just now would be lost.  Those in brackets are not
 * being made. */
static bool nobody_stores(const struct atomic *a)
{
	return __libc_single_threaded ||
	       __atomic_load_n(&a->bracketed, __ATOMIC_RELAXED);
}

/* A chunk that is as in the file, and nothing has been stored there for some time. */
static bool is_cold(const struct atomic *a, uint64_t chunk)
{
	const struct overlay_chunk *c =
		overlay_chunk(&a->overlay, chunk * FM_CHUNK_NPAGES);
	const struct chunk_heat *heat = &a->heat[chunk];

	return !has_bit(a->hot, chunk) && (c == NULL || c->nlogged == 0) &&
	       (heat->last == 0 || a->ncaptures - heat->last > COLD_NCAPTURES) &&
	       (int32_t)(a->ncaptures - heat->keep_until) >= 0;
}

/* If the program is still reading it, it will be back: then the next time is later. */
static void drop_chunk(struct fm_heap *h, uint64_t chunk)
{
	struct atomic *a = h->atomic;
	struct chunk_heat *heat = &a->heat[chunk];
	uint32_t i;

	if (has_bit(a->armed, chunk)) {
		set_bit(a->armed, chunk, false);
		dirty_forget(&a->dirty, chunk << FM_CHUNK_SHIFT, FM_CHUNK_LEN);
	}
	map_drop(h, chunk << FM_CHUNK_SHIFT, FM_CHUNK_LEN);
	for (i = 0; overlay_chunk(&a->overlay, chunk * FM_CHUNK_NPAGES) != NULL &&
		    i < FM_CHUNK_NPAGES;
	     i++)
		overlay_drop(&a->overlay, chunk * FM_CHUNK_NPAGES + i);
	heat->keep_until = a->ncaptures + (COLD_NCAPTURES << heat->ndrops);
	if (heat->ndrops < 12)
		heat->ndrops++;
}

static void drop_cold(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t start = now_ns(), nchunks = a->mapped_end >> FM_CHUNK_SHIFT, n;

	for (n = 0; n < SWEEP_NCHUNKS_MAX && n < nchunks; n++) {
		if (a->sweep >= nchunks)
			a->sweep = 0;
		if (is_cold(a, a->sweep))
			drop_chunk(h, a->sweep);
		a->sweep++;
		if (n % 8 == 7 && now_ns() - start > a->scan_ns)
			break;
	}
}

/* What has been committed since, and is anonymous memory, becomes the file's.  Pages
 * that differ from the file are moved along. */
static void map_committed(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t off = a->mapped_end, end = a->committed_end, page;
	unsigned char *mem = map_part(h, off, end - off);

	if (mem == NULL)
		return;
	for (page = off >> FM_PAGE_SHIFT; page < end >> FM_PAGE_SHIFT; page++) {
		if (overlay_chunk(&a->overlay, page) == NULL) {
			page |= FM_CHUNK_NPAGES - 1;
			continue;
		}
		if (overlay_find(&a->overlay, page) != NULL)
			memcpy(mem + (page << FM_PAGE_SHIFT) - off,
			       h->base + (page << FM_PAGE_SHIFT), FM_PAGE_LEN);
	}
	if (map_part_over(h, mem, off, end - off) < 0)
		return;
	a->mapped_end = end;
	for (page = off >> FM_CHUNK_SHIFT; page << FM_CHUNK_SHIFT < end; page++)
		set_bit(a->armed, page, false);
	dirty_watch(&a->dirty, off, end - off);
}

void capture_sweep(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t anon_len =
		a->committed_end > a->mapped_end ? a->committed_end - a->mapped_end : 0;

	if (!nobody_stores(a))
		return;
	if (anon_len > ANON_LEN_MAX ||
	    (anon_len > ANON_LEN_MIN && a->scan_ns > SWEEP_NS_MIN))
		map_committed(h);
	if (a->scan_ns > SWEEP_NS_MIN)
		drop_cold(h);
}
