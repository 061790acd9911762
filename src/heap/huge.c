/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huge blocks: those that no zone can hold have zones of their own.
 *
 * Freed, their zones are unused but keep their space until space_trim(), so
 * that a block that comes and goes costs no system calls but the first time.  So
 * does what they lose by getting shorter.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "common/align.h"
#include "heap/error.h"
#include "heap/memtool.h"
#include "heap/zone.h"

static int alloc_locked(struct fm_heap *h, struct fm_zone_disk disk, uint64_t *off)
{
	uint64_t len = disk.huge_off + disk.huge_len, base;
	uint32_t n = (len + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT, index = 0, i;
	int rc;

	rc = zone_find_unused(h, n, &index);
	if (rc < 0)
		return rc;
	base = index * FM_ZONE_LEN;
	rc = space_add(h, base, len);
	if (rc < 0)
		return rc;
	for (i = 0; i < n; i++)
		zone_set_spare(h, index + i, false);
	zone_raise_end(h, base + len);
	memtool_ours(h->base + base, disk.huge_off);
	zone_write_header(h, index, disk);
	for (i = 1; i < n; i++)
		zone_set_kind(h, index + i, FM_ZONE_HUGE_MORE);
	__atomic_store_n(off, base + disk.huge_off, __ATOMIC_RELEASE);
	zone_set_kind(h, index, FM_ZONE_HUGE);
	return 0;
}

int huge_alloc(struct fm_heap *h, uint64_t len, uint64_t align, uint64_t *off)
{
	struct fm_zone_disk disk = { .huge_off = FM_PAGE_LEN };
	int rc;

	if (align > FM_PAGE_LEN)
		disk.huge_off = align;
	if (len > h->map_len - disk.huge_off)
		return err_set(ENOMEM, "a block of %" PRIu64 " bytes is more than"
			       " the pool's address space", len);
	disk.huge_len = align_up(len, FM_PAGE_LEN);
	pthread_mutex_lock(&h->space_lock);
	rc = alloc_locked(h, disk, off);
	pthread_mutex_unlock(&h->space_lock);
	return rc;
}

uint64_t huge_len(const struct fm_heap *h, uint64_t off)
{
	uint64_t index = off >> FM_ZONE_SHIFT;

	if (index >= FM_MAX_NZONES || zone_kind(h, index) != FM_ZONE_HUGE ||
	    zone_huge_span(h, index) == 0 ||
	    off != index * FM_ZONE_LEN + zone_header(h, index)->huge_off)
		return 0;
	return zone_header(h, index)->huge_len;
}

/* Zones that no block covers any more. */
static void leave(struct fm_heap *h, uint32_t from, uint32_t to)
{
	uint32_t i;

	for (i = from; i < to; i++) {
		zone_set_kind(h, i, FM_ZONE_UNUSED);
		zone_set_spare(h, i, true);
	}
}

/* The first zone's entry decides; what is left of the others counts for nothing. */
static void unset(struct fm_heap *h, uint32_t index, uint64_t *done)
{
	uint32_t n = zone_huge_span(h, index);

	zone_set_kind(h, index, FM_ZONE_UNUSED);
	if (done != NULL)
		__atomic_store_n(done, 0, __ATOMIC_RELEASE);
	leave(h, index, index + n);
}

int huge_free(struct fm_heap *h, uint64_t off, uint64_t *done)
{
	int rc = -EINVAL;

	pthread_mutex_lock(&h->space_lock);
	if (huge_len(h, off) != 0) {
		unset(h, off >> FM_ZONE_SHIFT, done);
		rc = 0;
	}
	pthread_mutex_unlock(&h->space_lock);
	return rc;
}

void huge_drop(struct fm_heap *h, uint64_t off)
{
	if (huge_len(h, off) != 0)
		unset(h, off >> FM_ZONE_SHIFT, NULL);
}

/* Make the block one of `want` bytes, which have space.  The length decides; zones
 * that it does not cover any more count for nothing. */
static void set_len(struct fm_heap *h, uint32_t index, uint64_t want)
{
	struct fm_zone_disk *disk = zone_header(h, index);
	uint64_t had = align_up(disk->huge_off + disk->huge_len, FM_CHUNK_LEN);
	uint32_t n = zone_huge_span(h, index), left;

	zone_raise_end(h, index * FM_ZONE_LEN + disk->huge_off + want);
	__atomic_store_n(&disk->huge_len, want, __ATOMIC_RELEASE);
	left = zone_huge_span(h, index);
	leave(h, index + left, index + n);
	if (align_up(disk->huge_off + want, FM_CHUNK_LEN) < had)
		zone_set_spare(h, index + left - 1, true);
}

int huge_resize(struct fm_heap *h, uint64_t off, uint64_t want)
{
	uint64_t len, end;
	int rc = 0;

	if (want > h->map_len)	/* and what follows cannot overflow */
		return -ENOSPC;
	want = align_up(want, FM_PAGE_LEN);
	pthread_mutex_lock(&h->space_lock);
	len = huge_len(h, off);
	/* It has its zones to itself.  In fewer it goes on, unless it is small by
	 * now: a zone for each of many such is too much of the address space. */
	end = align_up(off + len, FM_ZONE_LEN);
	if (len == 0)
		rc = -EINVAL;
	else if (off + want > end ||
		 (off + want <= end - FM_ZONE_LEN && pages_hold(want, FM_PAGE_LEN)))
		rc = -ENOSPC;
	else if (want > len)
		rc = space_add(h, off + len, want - len);
	if (rc == 0)
		set_len(h, off >> FM_ZONE_SHIFT, want);
	pthread_mutex_unlock(&h->space_lock);
	return rc;
}
