/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up memory of an atomic pool that is as in the file: the pages that a program
 * wrote are memory of its process, and become the page cache's again.
 */
#include <config.h>

#include <string.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#else
#define __libc_single_threaded 0
#endif

#include "common/bits.h"
#include "common/clock.h"
#include "heap/atomic.h"

#define SWEEP_NS_MIN 20000u /* scanning that takes less is left as it is */
#define SWEEP_NCAPTURES 16u
#define ANON_LEN_MAX (UINT64_C(64) << 20)
#define ANON_LEN_MIN (UINT64_C(1) << 20)

bool reclaim_may(const struct fm_heap *h)
{
	return __libc_single_threaded ||
	       __atomic_load_n(&h->atomic->bracketed, __ATOMIC_RELAXED);
}

/* A chunk that is as in the file, and nothing has been stored there for some time. */
static bool is_cold(const struct atomic *a, uint64_t chunk)
{
	const struct overlay_chunk *c =
		overlay_chunk(&a->overlay, chunk * FM_CHUNK_NPAGES);
	const struct chunk_heat *heat = &a->heat[chunk];

	return !bits_has(a->hot, chunk) && (c == NULL || c->nlogged == 0) &&
	       (heat->last == 0 || a->ncaptures - heat->last > ATOMIC_NCOLD) &&
	       (int32_t)(a->ncaptures - heat->keep_until) >= 0;
}

/*
 * Each commit looks at the super.  As memory of the process it is there whatever becomes
 * of the file's: at a mount without passthrough the kernel forgets that when somebody
 * opens the file, and has it no more when the daemon is dead.
 */
void reclaim_keep_super(struct fm_heap *h)
{
	volatile unsigned char *magic = h->base;

	*magic = *magic;
}

/* If the program is still reading it, it will be back: then the next time is later. */
static void drop_chunk(struct fm_heap *h, uint64_t chunk)
{
	struct atomic *a = h->atomic;
	struct chunk_heat *heat = &a->heat[chunk];
	uint32_t i;

	if (bits_has(a->armed, chunk)) {
		bits_clear(a->armed, chunk);
		dirty_forget(&a->dirty, chunk << FM_CHUNK_SHIFT, FM_CHUNK_LEN);
	}
	map_drop(h, chunk << FM_CHUNK_SHIFT, FM_CHUNK_LEN);
	if (chunk == 0)
		reclaim_keep_super(h);
	for (i = 0; overlay_chunk(&a->overlay, chunk * FM_CHUNK_NPAGES) != NULL &&
		    i < FM_CHUNK_NPAGES;
	     i++)
		overlay_drop(&a->overlay, chunk * FM_CHUNK_NPAGES + i);
	a->nhome -= heat->nhome;
	heat->nhome = 0;
	heat->keep_until = a->ncaptures + (ATOMIC_NCOLD << heat->ndrops);
	if (heat->ndrops < 12)
		heat->ndrops++;
}

/* Give up the cold chunk that is next, if there is memory of it. */
static void sweep_on(struct fm_heap *h, uint64_t nchunks)
{
	struct atomic *a = h->atomic;
	uint64_t next;

	while (a->sweep < nchunks && !is_cold(a, a->sweep))
		a->sweep++;
	if (a->sweep >= nchunks)
		return;
	next = dirty_next_mapped(&a->dirty, a->sweep << FM_CHUNK_SHIFT,
				 nchunks << FM_CHUNK_SHIFT) >>
	       FM_CHUNK_SHIFT;
	if (next == a->sweep) {
		drop_chunk(h, next++);
		a->swept = true;
	}
	a->sweep = next;
}

/* For as long at most as looking for written pages took; and where nothing was found all
 * the way round, not at once again. */
static void drop_cold(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t start = clock_ns(), nchunks = a->mapped_end >> FM_CHUNK_SHIFT;

	if ((int32_t)(a->ncaptures - a->sweep_from) < 0)
		return;
	do
		sweep_on(h, nchunks);
	while (a->sweep < nchunks && clock_ns() - start < a->scan_ns);
	if (a->sweep < nchunks)
		return;
	if (!a->swept)
		a->sweep_from = a->ncaptures + SWEEP_NCAPTURES;
	a->swept = false;
	a->sweep = 0;
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
		bits_clear(a->armed, page);
	dirty_watch(&a->dirty, off, end - off);
}

void reclaim_sweep(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t anon_len =
		a->committed_end > a->mapped_end ? a->committed_end - a->mapped_end : 0;

	if (!reclaim_may(h) || a->stale_map)
		return;
	if (anon_len > ANON_LEN_MAX ||
	    (anon_len > ANON_LEN_MIN && a->scan_ns > SWEEP_NS_MIN))
		map_committed(h);
	if (a->scan_ns > SWEEP_NS_MIN)
		drop_cold(h);
}

/* --- all of it ---------------------------------------------------------------- */

uint64_t reclaim_len(const struct fm_heap *h)
{
	const struct atomic *a = h->atomic;
	uint64_t end = heap_end(h);

	/* Each page that was written is there twice, but for those that never were. */
	return (2 * a->overlay.npages + a->nhome) * FM_PAGE_LEN +
	       (end > a->mapped_end ? end - a->mapped_end : 0);
}

/* False: cannot. */
static bool replace_stale_map(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t end = a->mapped_end;

	a->mapped_end = 0;
	map_committed(h);
	a->stale_map = a->mapped_end == 0;
	if (a->stale_map)
		a->mapped_end = end;
	return !a->stale_map;
}

void reclaim_all(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t c;

	if (a->stale_map && !replace_stale_map(h))
		return;
	if (a->committed_end > a->mapped_end)
		map_committed(h);
	/* Behind the end of the heap nobody has anything. */
	for (c = 0; c << FM_CHUNK_SHIFT < a->mapped_end; c++)
		if (a->overlay.chunk[c] != NULL || a->heat[c].nhome > 0)
			drop_chunk(h, c);
}
