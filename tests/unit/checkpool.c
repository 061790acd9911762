/* SPDX-License-Identifier: Apache-2.0 */
/* The structural check of a pool, by its format alone. */
#include <config.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "heap/layout.h"

#include "unit/checkpool.h"

static const uint32_t class_size[] = {
	16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256,
	288, 320, 352, 384, 416, 448, 480, 512, 576, 640, 704, 768, 832, 896, 960,
	1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2560, 2816, 3072, 3584,
	4096, 4608, 5376, 5888, 6528, 7168, 8192, 9344, 10880, 13056, 16384,
};
#define NCLASSES (sizeof(class_size) / sizeof(class_size[0]))

struct check {
	const unsigned char *base;
	uint64_t len;
	uint64_t heap_end;
	const struct fm_super_disk *super;
	struct checked_pool *out;
};

static int wrong(struct check *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int wrong(struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->out->why, sizeof(c->out->why), fmt, ap);
	va_end(ap);
	return -1;
}

static void found(struct check *c, uint64_t off, uint64_t len)
{
	struct checked_pool *out = c->out;

	if (out->nblocks == out->cap) {
		out->cap = out->cap == 0 ? 1024 : out->cap * 2;
		out->blocks = realloc(out->blocks, out->cap * sizeof(*out->blocks));
		if (out->blocks == NULL)
			abort();
	}
	out->blocks[out->nblocks++] = (struct checked_block){ off, len };
}

static void slab_blocks(struct check *c, uint64_t off, uint32_t size)
{
	uint64_t zone = off & ~(FM_ZONE_LEN - 1);
	const unsigned char *bitmap = c->base + zone + FM_ZONE_BITMAP_OFF +
				      (off - zone) / FM_SLAB_LEN * FM_BITMAP_LEN;
	bool tiny = size == 16 && c->super->compat & 1;
	const unsigned char *second = tiny ? c->base + off + 65024 : bitmap + 256;
	uint32_t n = tiny ? 4064 : FM_SLAB_LEN / size, i;

	for (i = 0; i < n; i++)
		if (bitmap[i / 8] >> i % 8 & 1 &&
		    ((size == 16 && !tiny) || (second[i / 8] >> i % 8 & 1) == 0))
			found(c, off + (uint64_t)i * size, size);
}

static int extent(struct check *c, uint64_t off, uint32_t entry)
{
	uint32_t cls = FM_EXTENT_CLASS(entry), npages = FM_EXTENT_NPAGES(entry);

	switch (FM_EXTENT_KIND(entry)) {
	case FM_EXTENT_SLAB:
		if (off % FM_SLAB_LEN != 0 || npages != FM_SLAB_NPAGES || cls >= NCLASSES)
			return wrong(c, "slab at %#" PRIx64 ": entry %#x", off, entry);
		slab_blocks(c, off, class_size[cls]);
		return 0;
	case FM_EXTENT_RUN:
		if (cls != 0)
			return wrong(c, "run at %#" PRIx64 ": entry %#x", off, entry);
		found(c, off, npages * FM_PAGE_LEN);
		return 0;
	case FM_EXTENT_META:
		if (cls != 0)
			return wrong(c, "meta at %#" PRIx64 ": entry %#x", off, entry);
		c->out->meta_len += npages * FM_PAGE_LEN;
		return 0;
	default:
		return wrong(c, "extent at %#" PRIx64 ": entry %#x", off, entry);
	}
}

static bool holes_among(uint32_t holes, uint32_t p, uint32_t npages)
{
	uint32_t q;

	for (q = p; q < p + npages && q < 16384; q++)
		if (holes >> q / 512 & 1)
			return true;
	return false;
}

static int normal_zone(struct check *c, uint32_t index)
{
	uint64_t zone = index * FM_ZONE_LEN;
	const struct fm_zone_disk *head = index == 0 ?
		&c->super->zone0 : (const struct fm_zone_disk *)(c->base + zone);
	const uint32_t *table = (const uint32_t *)(c->base + zone + FM_ZONE_TABLE_OFF);
	uint32_t p, q, npages;

	if (head->magic != FM_ZONE_MAGIC || head->index != index)
		return wrong(c, "zone %u: bad header", index);
	if (head->npages_reserved < FM_ZONE_HEAD_NPAGES ||
	    head->npages_reserved > FM_ZONE_NPAGES ||
	    zone + head->npages_reserved * FM_PAGE_LEN > c->heap_end)
		return wrong(c, "zone %u: %u pages reserved", index, head->npages_reserved);
	for (p = 0; p < FM_ZONE_HEAD_NPAGES; p++)
		if (table[p] != 0)
			return wrong(c, "zone %u: entry in the head, page %u", index, p);
	for (; p < head->npages_reserved; p += npages) {
		npages = table[p] == 0 ? 1 : FM_EXTENT_NPAGES(table[p]);
		if (table[p] != 0 && holes_among(head->holes, p, npages))
			return wrong(c, "zone %u page %u: in a hole", index, p);
		if (npages == 0 || npages > head->npages_reserved - p)
			return wrong(c, "zone %u page %u: entry %#x", index, p, table[p]);
		for (q = p + 1; q < p + npages; q++)
			if (table[q] != 0)
				return wrong(c, "zone %u page %u: overlap", index, q);
		if (table[p] != 0 && extent(c, zone + p * FM_PAGE_LEN, table[p]) < 0)
			return -1;
	}
	for (; p < FM_ZONE_NPAGES; p++)
		if (table[p] != 0)
			return wrong(c, "zone %u page %u: beyond the reserved", index, p);
	return 0;
}

/* The number of zones it covers, or -1. */
static int huge_zone(struct check *c, uint32_t index, const uint16_t *dir, uint32_t nzones)
{
	uint64_t zone = index * FM_ZONE_LEN, end;
	const struct fm_zone_disk *head = (const struct fm_zone_disk *)(c->base + zone);
	uint32_t i, n;

	if (head->magic != FM_ZONE_MAGIC || head->index != index ||
	    head->huge_off < FM_PAGE_LEN || head->huge_len == 0)
		return wrong(c, "zone %u: bad header of a huge block", index);
	end = zone + head->huge_off + head->huge_len;
	if (end > c->heap_end || end < zone)
		return wrong(c, "zone %u: huge block beyond the end", index);
	n = (end - zone + FM_ZONE_LEN - 1) / FM_ZONE_LEN;
	for (i = 1; i < n; i++)
		if (index + i >= nzones || dir[index + i] != FM_ZONE_HUGE_MORE)
			return wrong(c, "zone %u: not of the huge block", index + i);
	found(c, zone + head->huge_off, head->huge_len);
	return n;
}

static int zones(struct check *c)
{
	const uint16_t *dir = (const uint16_t *)(c->base + FM_ZONEDIR_OFF);
	uint32_t nzones = (c->heap_end + FM_ZONE_LEN - 1) / FM_ZONE_LEN, i;
	int n;

	for (i = 0; i < nzones; i += n) {
		n = 1;
		switch (i == 0 ? FM_ZONE_NORMAL : dir[i]) {
		case FM_ZONE_UNUSED:
		case FM_ZONE_HUGE_MORE:	/* without the block: unused */
			break;
		case FM_ZONE_NORMAL:
			if (normal_zone(c, i) < 0)
				return -1;
			break;
		case FM_ZONE_HUGE:
			n = huge_zone(c, i, dir, nzones);
			if (n < 0)
				return -1;
			break;
		default:
			return wrong(c, "zone %u: kind %u", i, dir[i]);
		}
	}
	return 0;
}

static void drop(struct checked_pool *out, uint64_t off)
{
	const struct checked_block *b = checkpool_find(out, off);
	size_t i;

	if (b == NULL)
		return;		/* its bit was not set yet, or not any more */
	i = b - out->blocks;
	memmove(&out->blocks[i], &out->blocks[i + 1],
		(out->nblocks - i - 1) * sizeof(*out->blocks));
	out->nblocks--;
}

/* Blocks in magazines, of pools of the first version, are free. */
static int lanes(struct check *c)
{
	const struct fm_lane_disk *lane;
	unsigned cls, i, n = 0;
	uint64_t off;

	for (off = c->super->lanes_off; off != 0; off = lane->next_off) {
		lane = (const struct fm_lane_disk *)(c->base + off);
		if (off % FM_PAGE_LEN != 0 || off >= c->heap_end ||
		    lane->magic != FM_LANE_MAGIC || lane->self_off != off)
			return wrong(c, "bad lane at %#" PRIx64, off);
		if (++n > FM_MAX_NLANES)
			return wrong(c, "too many lanes");
		for (cls = 0; cls < NCLASSES; cls++) {
			const struct fm_magazine_disk *mag = &lane->magazine[cls];

			if (mag->count > FM_MAGAZINE_NSLOTS)
				return wrong(c, "lane at %#" PRIx64 ": bad count", off);
			for (i = 0; i < mag->count; i++)
				drop(c->out, mag->slot[i]);
		}
	}
	return 0;
}

int checkpool(const unsigned char *base, uint64_t len, struct checked_pool *out)
{
	struct check c = { .base = base, .len = len, .out = out };

	memset(out, 0, sizeof(*out));
	c.super = (const struct fm_super_disk *)base;
	if (len < FM_ZONE_DATA_OFF || memcmp(c.super->magic, FM_MAGIC, 8) != 0)
		return wrong(&c, "no pool");
	c.heap_end = c.super->heap_end;
	if (c.heap_end < FM_ZONE_DATA_OFF || c.heap_end > len ||
	    c.heap_end % FM_PAGE_LEN != 0)
		return wrong(&c, "the heap ends at %" PRIu64 " of %" PRIu64, c.heap_end, len);
	return zones(&c) < 0 || lanes(&c) < 0 ? -1 : 0;
}

int checkpool_file(const char *path, struct checked_pool *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;
	void *base;

	memset(out, 0, sizeof(*out));
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
		snprintf(out->why, sizeof(out->why), "cannot open %s", path);
		return -1;
	}
	base = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return -1;
	rc = checkpool(base, st.st_size, out);
	munmap(base, st.st_size);
	return rc;
}

void checkpool_free(struct checked_pool *out)
{
	free(out->blocks);
	out->blocks = NULL;
}

const struct checked_block *checkpool_find(const struct checked_pool *pool, uint64_t off)
{
	size_t lo = 0, hi = pool->nblocks, mid;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (pool->blocks[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < pool->nblocks && pool->blocks[lo].off == off ? &pool->blocks[lo] : NULL;
}
