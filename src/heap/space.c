/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What space the file has: growing, and giving back.
 *
 * Space is reserved in the file before an extent can lie there, so that no store
 * into a block can fail.  What is given back are whole chunks of 2 MiB, for that
 * is as long as a folio of the page cache gets: a store into a folio that has a
 * hole in it makes the kernel want space for the hole, and on a full disk that
 * is a signal.  For the same reason zones end at chunks, but for the last one in
 * the file.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/align.h"
#include "common/holes.h"
#include "heap/error.h"
#include "heap/lock.h"
#include "heap/memtool.h"
#include "heap/zone.h"

#define GROW_NPAGES_MIN 64u	/* 256 KiB */
#define GROW_NPAGES_MAX FM_ZONE_NPAGES	/* 64 MiB */
#define SMALL_LEN (4 * FM_CHUNK_LEN)	/* a pool up to here grows by less than chunks */
#define SLACK_NCHUNKS_MIN 2u	/* so much may lie idle in any pool */
#define SHRINK_LEN_MIN (UINT64_C(1) << 20)

/* --- what was promised ------------------------------------------------------- */

/* If anything lies behind `end` in the file a folio might reach over it: then the
 * whole chunk needs space.  (The heap may end before the file does, if somebody was
 * killed in between.) */
static uint64_t end_of_space(const struct fm_heap *h, uint64_t end)
{
	if (end >= heap_end(h) && end >= map_file_len(h))
		return end;
	return align_up(end, FM_CHUNK_LEN);
}

static int claim(struct fm_heap *h, uint64_t from, uint64_t to)
{
	return from == to ? 0 : map_claim(h, from, end_of_space(h, to) - from);
}

/* Some file systems (ext4) keep what they had got when there is no more.  Nothing lies
 * in [off, off + len) yet; but what was not last in the file has had its chunk to the
 * end, and keeps it. */
static void undo_add(struct fm_heap *h, uint64_t off, uint64_t len)
{
	uint64_t from = off < heap_end(h) ? align_up(off, FM_CHUNK_LEN) : off;
	int fd = map_fd(h);

	if (from < off + len)
		map_give_back(h, from, off + len - from);
	/* The file of a scratch pool is as long as it can be; that of an atomic pool may
	 * have readers of an earlier commit. */
	if (h->scratch_dir == NULL && h->atomic == NULL && fd >= 0 &&
	    map_file_len(h) > heap_end(h))
		map_cut(fd, heap_end(h));
}

int space_add(struct fm_heap *h, uint64_t off, uint64_t len)
{
	uint64_t end = heap_end(h);
	int rc = 0;

	/* What is last in the file now will not be. */
	if (off > end)
		rc = claim(h, end, align_up(end, FM_CHUNK_LEN));
	if (rc == 0)
		rc = map_check_full(h, len);
	if (rc < 0)
		return rc;
	rc = claim(h, off, off + len);
	if (rc < 0)
		undo_add(h, off, len);
	return rc;
}

/* --- at opening ---------------------------------------------------------------- */

/* List what has no space, though it should. */
static int look_for(struct fm_heap *h, uint64_t from, uint64_t to, struct holes *missing)
{
	return from == to ? 0 : map_find_holes(h, from, end_of_space(h, to) - from, missing);
}

/* Of the zone's pages, but for its holes.  (What is said to be one and has extents
 * would be a signal on a full disk: blocks are used without a look at this.) */
static int look_in_zone(struct fm_heap *h, uint32_t index, struct holes *missing)
{
	uint64_t base = index * FM_ZONE_LEN, from = base;
	uint64_t end = base + (uint64_t)zone_nreserved(h, index) * FM_PAGE_LEN;
	uint32_t holes = zone_holes(h, index), c;
	int rc = 0;

	for (c = 1; rc == 0 && c < 32; c++) {
		uint64_t at = base + c * FM_CHUNK_LEN;

		if ((holes >> c & 1) == 0)
			continue;
		if (at > from)
			rc = look_for(h, from, at, missing);
		from = at + FM_CHUNK_LEN;
	}
	return rc == 0 && end > from ? look_for(h, from, end, missing) : rc;
}

static int look_everywhere(struct fm_heap *h, struct holes *missing)
{
	uint32_t nzones = heap_nzones(h), i;
	const struct fm_zone_disk *disk;
	int rc = 0;

	for (i = 0; i < nzones && rc == 0; i++)
		switch (zone_kind(h, i)) {
		case FM_ZONE_NORMAL:
			rc = look_in_zone(h, i, missing);
			break;
		case FM_ZONE_HUGE:
			disk = zone_header(h, i);
			rc = look_for(h, i * FM_ZONE_LEN, i * FM_ZONE_LEN +
				      disk->huge_off + disk->huge_len, missing);
			break;
		default:
			break;
		}
	return rc;
}

int space_claim(struct fm_heap *h)
{
	struct holes missing = { 0 };
	int rc;

	rc = look_everywhere(h, &missing);
	if (rc == 0)
		rc = map_fill_holes(h, &missing);
	holes_free(&missing);
	return rc;
}

/* --- growing -------------------------------------------------------------------- */

/* Pages to grow by: in steps that go with the size of the pool, for few system
 * calls and large folios, and 3 % of slack at most. */
static uint32_t step_of(const struct fm_heap *h)
{
	uint64_t step = heap_end(h) >> FM_PAGE_SHIFT >> 5;

	if (step < GROW_NPAGES_MIN)
		return GROW_NPAGES_MIN;
	return step > GROW_NPAGES_MAX ? GROW_NPAGES_MAX : step;
}

/* space_add() without page_lock, which the caller holds. */
static int add_unlocked(struct fm_heap *h, uint64_t off, uint64_t len)
{
	int rc;

	pthread_mutex_unlock(&h->page_lock);
	rc = space_add(h, off, len);
	pthread_mutex_lock(&h->page_lock);
	return rc;
}

int space_extend(struct fm_heap *h, struct zone *z, uint32_t more)
{
	uint32_t from = z->nreserved, to = from + more, p;
	uint64_t base = z->index * FM_ZONE_LEN;
	int rc;

	rc = add_unlocked(h, base + from * FM_PAGE_LEN, more * FM_PAGE_LEN);
	if (rc < 0)
		return rc;
	/* What a damaged table says of pages that the zone does not have. */
	for (p = from; p < to; p++)
		if (z->table[p] != 0)
			z->table[p] = 0;
	zone_raise_end(h, base + to * FM_PAGE_LEN);
	__atomic_store_n(&z->disk->npages_reserved, to, __ATOMIC_RELEASE);
	z->nreserved = to;
	count_backed(h, more);
	if (to == FM_ZONE_NPAGES)
		zone_forget_growable(h, z);
	extent_add(h, z, from, more);
	return 0;
}

/* Pages to add to a zone at its end for it to hold an aligned run; 0: cannot. */
static uint32_t lacks(const struct zone *z, uint32_t npages, uint32_t align)
{
	uint32_t tail, end;

	tail = z->nreserved > FM_ZONE_HEAD_NPAGES ? z->span[z->nreserved - 1] : 0;
	end = align_up(z->nreserved - tail, align) + npages;
	if (end > FM_ZONE_NPAGES)
		return 0;
	/* It fits as it is if extent_take() did not look far enough: then a page
	 * more brings the extent to the front. */
	return end > z->nreserved ? end - z->nreserved : 1;
}

/* The same if the disk is nearly full: then only what must be. */
static int extend_by_steps(struct fm_heap *h, struct zone *z, uint32_t least)
{
	uint32_t more = step_of(h), from = z->nreserved;
	uint64_t end = z->index * FM_ZONE_LEN + (from + least) * FM_PAGE_LEN;
	int rc;

	if (more < least)
		more = least;
	if (heap_end(h) >= SMALL_LEN)
		more = align_up(from + more, FM_CHUNK_NPAGES) - from;
	if (more > FM_ZONE_NPAGES - from)
		more = FM_ZONE_NPAGES - from;
	rc = space_extend(h, z, more);
	if (rc == 0)
		return 0;
	if (end_of_space(h, end) != end)
		least = align_up(from + least, FM_CHUNK_NPAGES) - from;
	return more > least ? space_extend(h, z, least) : rc;
}

/* A new, empty normal zone, where there is none, of which nreserved pages have space. */
static int add_zone_at(struct fm_heap *h, uint32_t index, uint32_t nreserved)
{
	struct fm_zone_disk disk = { .npages_reserved = nreserved };
	uint64_t base, len = nreserved * FM_PAGE_LEN;
	struct zone *z;
	int rc;

	base = index * FM_ZONE_LEN;
	rc = add_unlocked(h, base, len);
	if (rc < 0)
		return rc;
	z = zone_new(h, index, nreserved);
	if (z == NULL)
		return err_sys(ENOMEM, "memory for zone %u", (unsigned)index);
	memtool_ours(h->base + base, FM_ZONE_DATA_OFF);
	/* One that was used before has old bytes in its table; so may what lies behind
	 * the heap's end, if somebody was killed shortening the pool. */
	memset(z->table, 0, FM_ZONE_TABLE_LEN);
	zone_set_spare(h, index, false);
	zone_raise_end(h, base + len);
	zone_write_header(h, index, disk);
	zone_set_kind(h, index, FM_ZONE_NORMAL);
	count_backed(h, zone_nbacked(z));
	extent_add(h, z, FM_ZONE_HEAD_NPAGES, zone_nbacked(z));
	return 0;
}

static int add_zone(struct fm_heap *h, uint32_t nreserved)
{
	uint32_t index = 0;
	int rc = zone_find_unused(h, 1, &index);

	return rc < 0 ? rc : add_zone_at(h, index, nreserved);
}

/* One that holds the run, by a step as well. */
static int add_zone_by_steps(struct fm_heap *h, uint32_t npages, uint32_t align)
{
	uint32_t least = align_up(FM_ZONE_HEAD_NPAGES, align) + npages;
	uint32_t n = step_of(h);
	int rc;

	least = align_up(least, FM_CHUNK_NPAGES);
	n = n < least ? least : align_up(n, FM_CHUNK_NPAGES);
	rc = add_zone(h, n);
	return rc < 0 && n > least ? add_zone(h, least) : rc;
}

int space_last_zone(struct fm_heap *h, uint32_t npages, struct zone **z)
{
	uint32_t n = heap_nzones(h);
	int rc;

	*z = NULL;
	if (zone_kind(h, n - 1) == FM_ZONE_NORMAL && zone_load(h, n - 1) == 0)
		*z = h->zones[n - 1];
	if (*z != NULL && npages <= FM_ZONE_NPAGES - (*z)->nreserved &&
	    (n - 1) * FM_ZONE_LEN + (*z)->nreserved * FM_PAGE_LEN == heap_end(h))
		return 0;
	if (n >= h->map_len >> FM_ZONE_SHIFT)
		return err_set(ENOMEM, "the pool's %" PRIu64 " bytes of address space"
			       " are used up", h->map_len);
	rc = add_zone_at(h, n, FM_CHUNK_NPAGES);
	*z = h->zones[n];
	return rc;
}

/* --- filling holes again --------------------------------------------------------- */

static bool in_hole(const struct zone *z, uint32_t p)
{
	return (z->holes >> p / FM_CHUNK_NPAGES & 1) != 0;
}

/* The next page of the zone that is neither free nor in a hole, from p on. */
static uint32_t end_of_gap(const struct zone *z, uint32_t p)
{
	while (p < z->nreserved) {
		if (z->span[p] != 0)
			p += z->span[p];
		else if (in_hole(z, p))
			p = (p / FM_CHUNK_NPAGES + 1) * FM_CHUNK_NPAGES;
		else
			break;
	}
	return p;
}

/* Where an aligned run of pages lies among free pages and holes; 0: nowhere. */
static uint32_t find_gap(const struct zone *z, uint32_t npages, uint32_t align)
{
	uint32_t p = FM_ZONE_HEAD_NPAGES, end, start;

	while (p < z->nreserved) {
		end = end_of_gap(z, p);
		start = align_up(p, align);
		if (end >= start + npages)
			return start;
		p = end > p ? end : p + zone_npages_at(z, p);
	}
	return 0;
}

/* How many bits of the mask are set from c on. */
static uint32_t run_of(uint32_t mask, uint32_t c)
{
	uint32_t n = 0;

	while (c + n < 32 && mask >> (c + n) & 1)
		n++;
	return n;
}

/* The holes that the pages lie in, as a mask. */
static uint32_t holes_of(const struct zone *z, uint32_t p, uint32_t npages)
{
	uint32_t first = p / FM_CHUNK_NPAGES;
	uint32_t n = (p + npages - 1) / FM_CHUNK_NPAGES - first + 1;

	return z->holes & (uint32_t)(((UINT64_C(1) << n) - 1) << first);
}

static int fill_run(struct fm_heap *h, struct zone *z, uint32_t c, uint32_t n)
{
	int rc = add_unlocked(h, z->index * FM_ZONE_LEN + c * FM_CHUNK_LEN,
			      n * FM_CHUNK_LEN);

	if (rc < 0)
		return rc;
	z->holes &= ~(((1u << n) - 1) << c);
	__atomic_store_n(&z->disk->holes, z->holes, __ATOMIC_RELEASE);
	h->nhole_chunks -= n;
	count_backed(h, (int64_t)n * FM_CHUNK_NPAGES);
	extent_add(h, z, c * FM_CHUNK_NPAGES, n * FM_CHUNK_NPAGES);
	return 0;
}

static int fill(struct fm_heap *h, struct zone *z, uint32_t mask)
{
	uint32_t c, n;
	int rc = 0;

	for (c = 1; rc == 0 && c < 32; c += n + 1) {
		n = run_of(mask, c);
		if (n > 0)
			rc = fill_run(h, z, c, n);
	}
	return rc;
}

/* Fill the first holes that will do: 0, -EAGAIN (there are none), or what the
 * file system says. */
static int fill_holes(struct fm_heap *h, uint32_t npages, uint32_t align)
{
	uint32_t nzones = heap_nzones(h), i, start, step = step_of(h), least, mask;
	struct zone *z;
	int rc;

	for (i = 0; i < nzones && h->nhole_chunks > 0; i++) {
		z = h->zones[i];
		start = z != NULL && z->holes != 0 ? find_gap(z, npages, align) : 0;
		if (start == 0)
			continue;
		/* None in it: extent_take() did not look far enough. */
		mask = least = holes_of(z, start, npages);
		if (mask == 0)
			continue;
		/* Some more, as when growing; if the disk is nearly full, only what
		 * must be. */
		if (step > npages && start + step <= FM_ZONE_NPAGES)
			mask |= holes_of(z, start, step);
		rc = fill(h, z, mask);
		return rc < 0 && mask != least ? fill(h, z, least & z->holes) : rc;
	}
	return -EAGAIN;
}

int space_grow(struct fm_heap *h, uint32_t npages, uint32_t align)
{
	uint32_t least = 0;
	struct zone *z;
	int rc;

	rc = fill_holes(h, npages, align);
	if (rc != -EAGAIN)
		return rc;
	for (z = h->growable; z != NULL && least == 0;) {
		least = lacks(z, npages, align);
		if (least == 0)
			z = z->next_growable;
	}
	if (z == NULL)
		return add_zone_by_steps(h, npages, align);
	return extend_by_steps(h, z, least);
}

/* --- giving back -------------------------------------------------------------------- */

static uint64_t peek(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

uint64_t space_used(const struct fm_heap *h)
{
	return (peek(&h->nbacked_pages) - peek(&h->nfree_pages)) << FM_PAGE_SHIFT;
}

/* Free chunks that a pool may have at any time without giving some back: a part of
 * what it uses, or did not long ago. */
static uint64_t slack_nchunks(const struct fm_heap *h)
{
	uint64_t nused = space_used(h) / FM_CHUNK_LEN;
	uint64_t npeak = peek(&h->npeak_pages) / FM_CHUNK_NPAGES;
	uint64_t slack = SLACK_NCHUNKS_MIN;

	if (slack < nused / 4)
		slack = nused / 4;
	return slack < npeak / 64 ? npeak / 64 : slack;
}

/* The space that huge blocks left counts as well, by zones. */
static uint64_t nidle_chunks(const struct fm_heap *h)
{
	return peek(&h->nfree_chunks) +
	       (uint64_t)__atomic_load_n(&h->nspare_zones, __ATOMIC_RELAXED) *
		       FM_ZONE_NCHUNKS;
}

uint64_t space_wants_trim(const struct fm_heap *h)
{
	uint64_t slack = slack_nchunks(h);

	return nidle_chunks(h) > slack ? slack / 2 : UINT64_MAX;
}

/* Take up to `most` whole chunks of the zone off the lists: which. */
static uint32_t detach(struct fm_heap *h, struct zone *z, uint32_t most)
{
	uint32_t mask = 0, p, n, first, end;

	/* From the end down, by the boundary tags of the extents' last pages. */
	for (p = z->nreserved; p > FM_ZONE_HEAD_NPAGES && most > 0; p -= n) {
		n = z->span[p - 1] != 0 ? z->span[p - 1] : 1;
		first = (p - n + FM_CHUNK_NPAGES - 1) / FM_CHUNK_NPAGES;
		end = p / FM_CHUNK_NPAGES;
		if (z->span[p - 1] == 0 || first >= end)
			continue;
		if (end - first > most)
			first = end - most;
		extent_cut(h, z, p - n, first * FM_CHUNK_NPAGES,
			   (end - first) * FM_CHUNK_NPAGES);
		most -= end - first;
		for (; first < end; first++)
			mask |= 1u << first;
	}
	return mask;
}

static void punch_chunks(struct fm_heap *h, uint32_t index, uint32_t mask)
{
	uint32_t c, n;

	for (c = 0; c < 32; c += n + 1) {
		n = run_of(mask, c);
		if (n > 0)
			map_give_back(h, index * FM_ZONE_LEN + c * FM_CHUNK_LEN,
				      n * FM_CHUNK_LEN);
	}
}

/* Whether the zone may go as a whole. */
static bool is_empty(const struct zone *z)
{
	return z->index > 0 && z->nfree == zone_nbacked(z);
}

/* The zone, which has no extents, is none any more; both locks are held. */
static void drop_zone(struct fm_heap *h, struct zone *z)
{
	uint32_t index = z->index, p;

	for (p = FM_ZONE_HEAD_NPAGES; z->nfree > 0; p++)
		if (z->span[p] != 0)
			p += extent_remove(h, (index << PAGE_BITS) + p) - 1;
	zone_forget(h, z);
	zone_set_kind(h, index, FM_ZONE_UNUSED);
}

/* Give back up to `most` chunks of a zone, if it is loaded. */
static void trim_zone(struct fm_heap *h, uint32_t index, uint64_t most)
{
	uint32_t mask = 0;
	struct zone *z;

	pthread_mutex_lock(&h->page_lock);
	z = h->zones[index];
	if (z != NULL && is_empty(z)) {
		mask = UINT32_MAX;
		drop_zone(h, z);
	} else if (z != NULL && z->nfree > 0) {
		mask = detach(h, z, most < 32 ? most : 32);
		z->holes |= mask;
		/* What is said to be a hole before it is one does no harm. */
		__atomic_store_n(&z->disk->holes, z->holes, __ATOMIC_RELEASE);
		h->nhole_chunks += __builtin_popcount(mask);
		count_backed(h, -(int64_t)__builtin_popcount(mask) * FM_CHUNK_NPAGES);
	}
	pthread_mutex_unlock(&h->page_lock);
	punch_chunks(h, index, mask);
}

/* Where in the zones that begin with this one, *n of them, that starts which no huge
 * block uses: at the end, if nothing is of that kind. */
static uint64_t unused_from(const struct fm_heap *h, uint32_t index, uint32_t *n)
{
	const struct fm_zone_disk *disk = zone_header(h, index);
	uint64_t base = index * FM_ZONE_LEN;

	*n = 1;
	switch (zone_kind(h, index)) {
	case FM_ZONE_UNUSED:
		return base;
	case FM_ZONE_HUGE:
		*n = zone_huge_span(h, index);
		if (*n > 0)
			return align_up(base + disk->huge_off + disk->huge_len,
					FM_CHUNK_LEN);
		*n = 1;
		break;
	default:
		break;
	}
	return base + FM_ZONE_LEN;
}

/* What huge blocks left that were freed or got shorter; `all`: also those of an
 * earlier process. */
static void trim_huge(struct fm_heap *h, bool all)
{
	uint32_t nzones = heap_nzones(h), i, n;
	uint64_t from, end;

	for (i = 1; i < nzones && (all || h->nspare_zones > 0); i += n) {
		from = unused_from(h, i, &n);
		end = (i + n) * FM_ZONE_LEN;
		if (!all && !zone_is_spare(h, i + n - 1))
			continue;
		zone_set_spare(h, i + n - 1, false);
		if (from < end)
			map_give_back(h, from, end - from);
	}
}

void space_trim(struct fm_heap *h, uint64_t keep)
{
	uint64_t nfree;
	uint32_t i;

	pthread_mutex_lock(&h->space_lock);
	trim_huge(h, keep == 0);
	for (i = heap_nzones(h); i-- > 0;) {
		nfree = peek(&h->nfree_chunks);
		if (nfree <= keep && keep > 0)
			break;
		trim_zone(h, i, nfree - keep);
	}
	pthread_mutex_lock(&h->page_lock);
	__atomic_store_n(&h->npeak_pages, h->npeak_pages - h->npeak_pages / 4,
			 __ATOMIC_RELAXED);
	pthread_mutex_unlock(&h->page_lock);
	pthread_mutex_unlock(&h->space_lock);
}

/* --- shrinking ----------------------------------------------------------------------- */

/* Where the last extent of the zone ends, in pages; page_lock is held. */
static uint32_t used_npages(const struct zone *z)
{
	uint32_t p = z->nreserved;

	while (p > FM_ZONE_HEAD_NPAGES) {
		if (z->span[p - 1] != 0)
			p -= z->span[p - 1];
		else if (in_hole(z, p - 1))
			p = align_down(p - 1, FM_CHUNK_NPAGES);
		else
			break;
	}
	return p;
}

/*
 * The last zone that something lies in, and where that ends.  Loads the zones
 * behind it, if asked to; else one that is not loaded counts as full.
 */
static uint64_t find_end(struct fm_heap *h, bool load, uint32_t *index)
{
	uint32_t i, n;

	for (i = heap_nzones(h); i-- > 0;) {
		const struct fm_zone_disk *disk = zone_header(h, i);

		*index = i;
		switch (zone_kind(h, i)) {
		case FM_ZONE_UNUSED:
		case FM_ZONE_HUGE_MORE:
			continue;
		case FM_ZONE_HUGE:
			return i * FM_ZONE_LEN + disk->huge_off + disk->huge_len;
		case FM_ZONE_NORMAL:
			break;
		}
		if ((load && zone_load(h, i) < 0) || h->zones[i] == NULL)
			break;
		n = used_npages(h->zones[i]);
		if (i == 0 || n > FM_ZONE_HEAD_NPAGES)
			return i * FM_ZONE_LEN + n * FM_PAGE_LEN;
	}
	return heap_end(h);
}

uint64_t space_used_end(struct fm_heap *h)
{
	uint64_t end;
	uint32_t index;

	pthread_mutex_lock(&h->page_lock);
	end = find_end(h, false, &index);
	pthread_mutex_unlock(&h->page_lock);
	return align_up(end, FM_CHUNK_LEN);
}

/* Let the zone have no more pages, nor holes among those that it had. */
static void shorten(struct fm_zone_disk *disk, uint32_t npages)
{
	uint64_t left = (UINT64_C(1) << npages / FM_CHUNK_NPAGES) - 1;

	__atomic_store_n(&disk->npages_reserved, npages, __ATOMIC_RELEASE);
	__atomic_store_n(&disk->holes, disk->holes & (uint32_t)left, __ATOMIC_RELEASE);
}

/* Let zone `index` be the last, and end at `end`.  The file is cut only when all
 * that says so is on disk: a crash of the machine must not leave a heap that is
 * longer than its file. */
static void cut(struct fm_heap *h, int fd, uint32_t index, uint64_t end)
{
	uint32_t i;

	for (i = index + 1; i < heap_nzones(h); i++)
		if (h->zones[i] != NULL)
			drop_zone(h, h->zones[i]);
	if (zone_kind(h, index) == FM_ZONE_NORMAL)
		shorten(zone_header(h, index),
			(end - index * FM_ZONE_LEN) >> FM_PAGE_SHIFT);
	if (h->atomic != NULL) {	/* the rest is a commit's */
		__atomic_store_n(&h->super->heap_end, end, __ATOMIC_RELEASE);
		return;
	}
	if (map_sync_part(h, index * FM_ZONE_LEN, FM_PAGE_LEN) < 0)
		return;
	__atomic_store_n(&h->super->heap_end, end, __ATOMIC_RELEASE);
	if (map_sync_part(h, 0, FM_ZONEDIR_OFF + FM_ZONEDIR_LEN) == 0)
		map_cut(fd, end);
}

void space_shrink(struct fm_heap *h)
{
	uint64_t old = heap_end(h), end, least = old / 16;
	uint32_t index = 0;
	int fd = map_fd(h);

	if (least < SHRINK_LEN_MIN)
		least = SHRINK_LEN_MIN;
	pthread_mutex_lock(&h->space_lock);
	pthread_mutex_lock(&h->page_lock);
	end = find_end(h, true, &index);
	if (end >= SMALL_LEN)
		end = align_up(end, FM_CHUNK_LEN);
	/* A reader would get a signal where it looks beyond the end. */
	if (end + least <= old && fd >= 0 && revive(h) == 0 && lock_bar_readers(fd) == 0)
		cut(h, fd, index, end);
	pthread_mutex_unlock(&h->page_lock);
	pthread_mutex_unlock(&h->space_lock);
}
