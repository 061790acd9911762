/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which zones a pool has, and loading them: checking a zone's page table and
 * working out what is free in it.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/bits.h"
#include "heap/error.h"
#include "heap/judge.h"
#include "heap/zone.h"

/* --- the zone directory ------------------------------------------------------- */

enum fm_zone_kind zone_kind(const struct fm_heap *h, uint32_t index)
{
	if (index == 0)
		return FM_ZONE_NORMAL;
	if (index >= heap_nzones(h))
		return FM_ZONE_UNUSED;
	return __atomic_load_n(&h->zonedir[index], __ATOMIC_ACQUIRE);
}

void zone_set_kind(struct fm_heap *h, uint32_t index, enum fm_zone_kind kind)
{
	__atomic_store_n(&h->zonedir[index], (uint16_t)kind, __ATOMIC_RELEASE);
}

struct fm_zone_disk *zone_header(const struct fm_heap *h, uint32_t index)
{
	if (index == 0)
		return &h->super->zone0;
	return (struct fm_zone_disk *)(h->base + index * FM_ZONE_LEN);
}

uint32_t *zone_table(const struct fm_heap *h, uint32_t index)
{
	return (uint32_t *)(h->base + index * FM_ZONE_LEN + FM_ZONE_TABLE_OFF);
}

uint32_t zone_nreserved(const struct fm_heap *h, uint32_t index)
{
	const struct fm_zone_disk *disk = zone_header(h, index);
	uint32_t n = __atomic_load_n(&disk->npages_reserved, __ATOMIC_ACQUIRE);

	if (judge_zone(disk, index) != NULL || judge_nreserved(n, index, heap_end(h)) != NULL)
		return 0;
	return n;
}

uint32_t zone_huge_span(const struct fm_heap *h, uint32_t index)
{
	const struct fm_zone_disk *disk = zone_header(h, index);

	if (judge_zone(disk, index) != NULL ||
	    judge_huge(disk, index, heap_end(h)) != NULL)
		return 0;
	return judge_huge_span(disk);
}

void zone_write_header(struct fm_heap *h, uint32_t index, struct fm_zone_disk disk)
{
	disk.magic = FM_ZONE_MAGIC;
	disk.index = index;
	*zone_header(h, index) = disk;
}

void zone_raise_end(struct fm_heap *h, uint64_t end)
{
	if (end <= heap_end(h))
		return;
	__atomic_store_n(&h->grown, true, __ATOMIC_RELEASE);
	__atomic_store_n(&h->super->heap_end, end, __ATOMIC_RELEASE);
}

/* The first such, so that the file stays short. */
int zone_find_unused(struct fm_heap *h, uint32_t n, uint32_t *index)
{
	uint32_t limit = h->map_len >> FM_ZONE_SHIFT, i, free = 0;

	for (i = 1; i < limit; i++) {
		free = zone_kind(h, i) == FM_ZONE_UNUSED ? free + 1 : 0;
		if (free == n) {
			*index = i - n + 1;
			return 0;
		}
	}
	return err_set(ENOMEM, "the pool's %" PRIu64 " bytes of address space"
		       " are used up", h->map_len);
}

bool zone_is_spare(const struct fm_heap *h, uint32_t index)
{
	return bits_has(h->spare, index);
}

void zone_set_spare(struct fm_heap *h, uint32_t index, bool spare)
{
	if (zone_is_spare(h, index) == spare)
		return;
	h->spare[index / 64] ^= UINT64_C(1) << index % 64;
	__atomic_store_n(&h->nspare_zones, h->nspare_zones + (spare ? 1 : -1),
			 __ATOMIC_RELAXED);
}

static int bad_zone(uint32_t index, const char *what)
{
	return err_set(EUCLEAN, "the pool is damaged: zone %" PRIu32
		       " at offset %" PRIu64 ": %s",
		       index, index * FM_ZONE_LEN, what);
}

static int check_directory(const struct fm_heap *h)
{
	uint32_t nzones = heap_nzones(h), i, n, covered = 1;

	/* At hand anyway; the others' are met when they are needed. */
	if (zone_nreserved(h, 0) == 0)
		return bad_zone(0, "bad header");
	for (i = 1; i < nzones; i++) {
		bool within = i < covered;

		switch (h->zonedir[i]) {
		case FM_ZONE_UNUSED:
		case FM_ZONE_NORMAL:
			break;
		case FM_ZONE_HUGE:
			n = zone_huge_span(h, i);
			if (n == 0)
				return bad_zone(i, "bad header of a huge block");
			covered = i + n;
			break;
		case FM_ZONE_HUGE_MORE:
			continue;
		default:
			return bad_zone(i, "unknown kind");
		}
		if (within)
			return bad_zone(i, "lies within a huge block");
	}
	return 0;
}

/* What a process that died allocating or freeing a huge block left. */
static void clean_directory(struct fm_heap *h)
{
	uint32_t nzones = heap_nzones(h), i, covered = 1;

	for (i = 1; i < nzones; i++) {
		if (h->zonedir[i] == FM_ZONE_HUGE)
			covered = i + zone_huge_span(h, i);
		else if (h->zonedir[i] == FM_ZONE_HUGE_MORE && i >= covered)
			zone_set_kind(h, i, FM_ZONE_UNUSED);
	}
}

int zone_open(struct fm_heap *h)
{
	int rc;

	pthread_mutex_init(&h->space_lock, NULL);
	pthread_mutex_init(&h->settle_lock, NULL);
	pthread_mutex_init(&h->page_lock, NULL);
	h->load_next = heap_nzones(h);
	/* A reader needs none of it, and a writer beside it may be changing it. */
	if (!h->writable)
		return 0;
	rc = check_directory(h);
	if (rc == 0)
		clean_directory(h);
	return rc;
}

static void forget_all(struct fm_heap *h)
{
	uint32_t i;

	for (i = 0; i < FM_MAX_NZONES && h->nzones_loaded > 0; i++)
		if (h->zones[i] != NULL)
			zone_forget(h, h->zones[i]);
}

void zone_reset(struct fm_heap *h)
{
	forget_all(h);
	h->load_next = heap_nzones(h);
	memset(h->bins, 0, sizeof(h->bins));
	memset(h->bins_used, 0, sizeof(h->bins_used));
	memset(h->spare, 0, sizeof(h->spare));
	h->nspare_zones = 0;
	h->nfree_pages = 0;
	h->nfree_chunks = 0;
	h->nbacked_pages = 0;
	h->npeak_pages = 0;
	h->nhole_chunks = 0;
	map_anon_clear(h->slab, (h->map_len >> FM_SLAB_SHIFT) * sizeof(*h->slab));
}

void zone_close(struct fm_heap *h)
{
	forget_all(h);
	pthread_mutex_destroy(&h->page_lock);
	pthread_mutex_destroy(&h->settle_lock);
	pthread_mutex_destroy(&h->space_lock);
}

/* --- loading a zone ------------------------------------------------------------ */

/* Check the whole table before anything is made of it. */
static int check_table(uint32_t index, const uint32_t *table, uint32_t nreserved)
{
	char what[64];
	uint32_t p, q;

	for (p = FM_ZONE_HEAD_NPAGES; p < nreserved;) {
		uint32_t npages = 1;

		if (table[p] != 0) {
			if (judge_entry(table[p], p, nreserved) != NULL)
				goto bad;
			npages = FM_EXTENT_NPAGES(table[p]);
		}
		for (q = p + 1; q < p + npages; q++)
			if (table[q] != 0)
				goto bad;
		p += npages;
	}
	return 0;
bad:
	snprintf(what, sizeof(what), "bad table entry of page %" PRIu32, p);
	return bad_zone(index, what);
}

/* A block must have its space, whatever a damaged file says of holes. */
uint32_t zone_holes(const struct fm_heap *h, uint32_t index)
{
	uint32_t nreserved = zone_nreserved(h, index);
	uint32_t holes = zone_header(h, index)->holes;

	return holes == 0 ? 0 : judge_holes(holes, zone_table(h, index), nreserved);
}

uint32_t zone_npages_at(const struct zone *z, uint32_t p)
{
	/* Atomic: pages that are off the lists are entered without a lock. */
	uint32_t entry = __atomic_load_n(&z->table[p], __ATOMIC_RELAXED);

	return entry != 0 ? FM_EXTENT_NPAGES(entry) : 1;
}

struct zone *zone_new(struct fm_heap *h, uint32_t index, uint32_t nreserved)
{
	struct zone *z = map_anon(sizeof(*z));

	if (z == NULL)
		return NULL;
	z->index = index;
	z->nreserved = nreserved;
	z->table = zone_table(h, index);
	z->disk = zone_header(h, index);
	if (nreserved < FM_ZONE_NPAGES) {
		z->next_growable = h->growable;
		h->growable = z;
	}
	h->zones[index] = z;
	h->nzones_loaded++;
	return z;
}

void zone_forget_growable(struct fm_heap *h, struct zone *z)
{
	struct zone **p;

	for (p = &h->growable; *p != NULL; p = &(*p)->next_growable)
		if (*p == z) {
			*p = z->next_growable;
			return;
		}
}

void zone_forget(struct fm_heap *h, struct zone *z)
{
	zone_forget_growable(h, z);
	h->nhole_chunks -= __builtin_popcount(z->holes);
	count_backed(h, -(int64_t)zone_nbacked(z));
	h->zones[z->index] = NULL;
	h->nzones_loaded--;
	map_anon_free(z, sizeof(*z));
}

static bool in_hole(const struct zone *z, uint32_t p)
{
	return (z->holes >> p / FM_CHUNK_NPAGES & 1) != 0;
}

static bool is_free(const struct zone *z, uint32_t p)
{
	return p < z->nreserved && z->table[p] == 0 && !in_hole(z, p);
}

int zone_load(struct fm_heap *h, uint32_t index)
{
	uint32_t nreserved, p, end;
	struct zone *z;
	int rc;

	if (h->zones[index] != NULL)
		return 0;
	nreserved = zone_nreserved(h, index);
	if (nreserved == 0)
		return bad_zone(index, "bad header");
	rc = check_table(index, zone_table(h, index), nreserved);
	if (rc < 0)
		return rc;
	z = zone_new(h, index, nreserved);
	if (z == NULL)
		return err_sys(ENOMEM, "memory for zone %" PRIu32, index);
	z->holes = zone_holes(h, index);
	if (z->holes != z->disk->holes)
		__atomic_store_n(&z->disk->holes, z->holes, __ATOMIC_RELEASE);
	h->nhole_chunks += __builtin_popcount(z->holes);
	count_backed(h, zone_nbacked(z));
	for (p = FM_ZONE_HEAD_NPAGES; p < nreserved; p = end) {
		end = p + zone_npages_at(z, p);
		if (FM_EXTENT_KIND(z->table[p]) == FM_EXTENT_SLAB)
			slab_load(h, index * FM_ZONE_LEN + p * FM_PAGE_LEN,
				  FM_EXTENT_CLASS(z->table[p]));
		if (!is_free(z, p))
			continue;
		while (is_free(z, end))
			end++;
		extent_add(h, z, p, end - p);
	}
	return 0;
}

int zone_load_next(struct fm_heap *h)
{
	while (h->load_next > 0) {
		uint32_t index = --h->load_next;

		if (zone_kind(h, index) != FM_ZONE_NORMAL || h->zones[index] != NULL)
			continue;
		/* A damaged zone gives nothing, and takes nothing from others. */
		zone_load(h, index);
		return 1;
	}
	return 0;
}

bool zone_load_more(struct fm_heap *h)
{
	int rc;

	pthread_mutex_lock(&h->page_lock);
	rc = zone_load_next(h);
	pthread_mutex_unlock(&h->page_lock);
	return rc != 0;
}

int zone_get(struct fm_heap *h, uint64_t off)
{
	uint64_t index = off >> FM_ZONE_SHIFT;	/* off may be any number */
	int rc = -EINVAL;

	if (index >= FM_MAX_NZONES)
		return rc;
	pthread_mutex_lock(&h->page_lock);
	if (zone_kind(h, index) == FM_ZONE_NORMAL)
		rc = zone_load(h, index);
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

uint32_t zone_entry(const struct fm_heap *h, uint64_t off)
{
	uint32_t p = page_in_zone(off >> FM_PAGE_SHIFT), nreserved, entry;
	uint64_t index = off >> FM_ZONE_SHIFT;	/* off is any number from the file */

	if (index >= FM_MAX_NZONES || zone_kind(h, index) != FM_ZONE_NORMAL)
		return 0;
	nreserved = zone_nreserved(h, index);
	if (p < FM_ZONE_HEAD_NPAGES || p >= nreserved)
		return 0;
	entry = __atomic_load_n(&zone_table(h, index)[p], __ATOMIC_ACQUIRE);
	return judge_entry(entry, p, nreserved) == NULL ? entry : 0;
}
