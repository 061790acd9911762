/* SPDX-License-Identifier: Apache-2.0 */
/* Judging the structures of a pool one at a time. */
#include <config.h>

#include "common/crc32c.h"
#include "heap/judge.h"

const char *judge_huge(const struct fm_zone_disk *disk, uint32_t index,
		       uint64_t heap_end)
{
	uint64_t room = heap_end - index * FM_ZONE_LEN;

	if (disk->huge_off < FM_PAGE_LEN || disk->huge_off % FM_PAGE_LEN != 0 ||
	    disk->huge_off > room)
		return "huge_off out of bounds";
	if (disk->huge_len == 0 || disk->huge_len % FM_PAGE_LEN != 0)
		return "huge_len out of bounds";
	if (disk->huge_len > room - disk->huge_off)
		return "a huge block beyond the end of the heap";
	return NULL;
}

uint32_t judge_holes(uint32_t holes, const uint32_t *table, uint32_t nreserved)
{
	uint32_t p, c, last;

	/* The first has the zone's head. */
	holes &= ~1u & (uint32_t)((UINT64_C(1) << nreserved / FM_CHUNK_NPAGES) - 1);
	for (p = FM_ZONE_HEAD_NPAGES; p < nreserved && holes != 0; p++) {
		if (table[p] == 0)
			continue;
		if (judge_entry(table[p], p, nreserved) != NULL)
			return 0;
		last = p + FM_EXTENT_NPAGES(table[p]) - 1;
		for (c = p / FM_CHUNK_NPAGES; c <= last / FM_CHUNK_NPAGES; c++)
			holes &= ~(1u << c);
	}
	return holes;
}

uint32_t judge_self_crc(uint64_t self_off)
{
	return crc32c(0, &self_off, sizeof(self_off));
}

static const char *judge_head(uint32_t magic, uint32_t expected, uint32_t crc,
			      uint64_t self_off, uint64_t off)
{
	if (magic != expected)
		return "no magic number";
	if (self_off != off)
		return "offset of another page";
	return crc != judge_self_crc(off) ? "bad checksum" : NULL;
}

const char *judge_lane(const struct fm_lane_disk *lane, uint64_t off)
{
	return judge_head(lane->magic, FM_LANE_MAGIC, lane->crc, lane->self_off, off);
}

const char *judge_intents(const struct fm_intents_disk *page, uint64_t off)
{
	return judge_head(page->magic, FM_INTENTS_MAGIC, page->crc, page->self_off, off);
}

uint32_t judge_log_crc(const struct fm_log_disk *head)
{
	return crc32c(0, &head->self_off, 56);
}

const char *judge_log(const struct fm_log_disk *head, uint64_t off, uint64_t file_len)
{
	if (head->magic != FM_LOG_MAGIC)
		return "no magic number";
	if (head->crc != judge_log_crc(head))
		return "bad checksum";
	if (head->self_off != off)
		return "offset of another page";
	if (head->npages < FM_LOG_NPAGES_MIN || head->npages > FM_LOG_NPAGES_MAX ||
	    off >= file_len || head->npages << FM_PAGE_SHIFT > file_len - off)
		return "npages out of bounds";
	return NULL;
}

uint32_t judge_lap_crc(const struct fm_lap_disk *lap)
{
	return crc32c(0, lap, offsetof(struct fm_lap_disk, crc));
}

const char *judge_lap(const struct fm_lap_disk *lap)
{
	return lap->crc != judge_lap_crc(lap) ? "bad checksum" : NULL;
}

const char *judge_where(uint64_t where_off, uint64_t heap_end)
{
	if (where_off % sizeof(uint64_t) != 0)
		return "where_off is not aligned";
	if (where_off < FM_APP_OFF || where_off > heap_end - sizeof(uint64_t))
		return "where_off is beyond the pool";
	return NULL;
}
