/* SPDX-License-Identifier: Apache-2.0 */
/* Walking the pages and slots of named roots. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "common/crc32c.h"
#include "heap/error.h"
#include "heap/rootscan.h"

uint32_t rootscan_slot_crc(const struct fm_root_disk *slot)
{
	return crc32c(0, &slot->seq, sizeof(*slot) - offsetof(struct fm_root_disk, seq));
}

uint32_t rootscan_page_crc(const struct fm_rootpage_disk *page)
{
	uint32_t crc;

	crc = crc32c(0, page->magic, sizeof(page->magic));
	crc = crc32c(crc, &page->self_off, sizeof(page->self_off));
	return crc32c(crc, &page->nslots, sizeof(page->nslots));
}

static uint64_t page_len(uint64_t off)
{
	return off == FM_APP_OFF ? FM_APP_LEN : FM_ROOTPAGE_LEN;
}

void rootscan_make_head(struct fm_rootpage_disk *head, uint64_t off)
{
	memset(head, 0, sizeof(*head));
	memcpy(head->magic, FM_ROOT_MAGIC, sizeof(head->magic));
	head->self_off = off;
	head->nslots = (page_len(off) - FM_ROOTPAGE_HEAD_LEN) /
		       sizeof(struct fm_root_disk);
	head->crc = rootscan_page_crc(head);
}

static bool printable(const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len && s[i] != '\0'; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return i < len;		/* terminated */
}

/* NULL, or what is wrong with the slot. */
static const char *judge_slot(const struct fm_root_disk *slot)
{
	if (slot->crc != rootscan_slot_crc(slot))
		return "bad checksum";
	if (slot->name[0] == '\0' || !printable(slot->name, sizeof(slot->name)))
		return "bad name";
	return printable(slot->type, sizeof(slot->type)) ? NULL : "bad type";
}

static int walk_slot(struct rootscan *scan, uint64_t off, struct fm_root_disk *slot)
{
	const char *what = slot->state == FM_ROOT_USED ? judge_slot(slot) : NULL;

	if (what != NULL) {
		scan->nbad++;
		if (scan->fault != NULL)
			scan->fault(scan->arg, off, what, slot);
		return 0;	/* neither used nor to be overwritten */
	}
	if (slot->state != FM_ROOT_USED)
		slot->state = FM_ROOT_FREE;
	return scan->slot(scan->arg, off, slot);
}

static int walk_slots(struct rootscan *scan, uint64_t page_off, uint32_t nslots)
{
	struct fm_root_disk slot[16];
	uint64_t off = page_off + FM_ROOTPAGE_HEAD_LEN;
	uint32_t i, n;
	int rc;

	for (; nslots > 0; nslots -= n) {
		n = nslots < 16 ? nslots : 16;
		rc = scan->read(scan->src, off, slot, n * sizeof(slot[0]));
		for (i = 0; i < n && rc == 0; i++, off += sizeof(slot[0]))
			rc = walk_slot(scan, off, &slot[i]);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* NULL, or what is wrong with the head of the page at off. */
static const char *judge_page(const struct rootscan *scan, uint64_t off,
			      const struct fm_rootpage_disk *page)
{
	struct fm_rootpage_disk head;

	rootscan_make_head(&head, off);
	if (memcmp(page->magic, head.magic, sizeof(head.magic)) != 0)
		return "no magic number";
	if (page->self_off != off)
		return "offset of another page";
	if (page->nslots != head.nslots)
		return "another number of slots";
	if (page->crc != head.crc)
		return "bad checksum";
	return off + page_len(off) > scan->heap_end ? "beyond the end of the heap" :
						      NULL;
}

/* NULL, or why the chain must not go on to off: the nth step, and from where a
 * circle would be noticed. */
static const char *judge_next(const struct rootscan *scan, uint64_t off, uint64_t mark,
			      uint64_t nth)
{
	if (off % FM_PAGE_LEN != 0 || off < FM_ZONE_DATA_OFF || off >= scan->heap_end)
		return "it leads to what is no page of the heap";
	/* Brent's cycle detection. */
	if (off == mark)
		return "it leads back into the chain";
	/* Pages that do not overlap are no more than there is room for. */
	if (nth > scan->heap_end / FM_ROOTPAGE_LEN ||
	    (scan->max_npages != 0 && nth > scan->max_npages))
		return "the chain is too long";
	return NULL;
}

/* at: of the bytes that are wrong. */
static int bad_page(struct rootscan *scan, uint64_t at, uint64_t off, const char *what)
{
	if (scan->fault != NULL)
		scan->fault(scan->arg, at, what, NULL);
	return err_set(EUCLEAN, "the pool is damaged: bad page of named roots at"
		       " offset %" PRIu64, off);
}

/*
 * Whether a process died making the first page, between one store and the next:
 * see make_region() in root.c.
 */
static bool half_made(const unsigned char *region)
{
	struct fm_rootpage_disk head;
	const size_t len = sizeof(head);

	rootscan_make_head(&head, FM_APP_OFF);
	memset(head.magic, 0, sizeof(head.magic));
	if (region[len] != 0 || memcmp(region + len, region + len + 1,
				       FM_APP_LEN - len - 1) != 0)
		return false;
	if (memcmp(region, &head, len) == 0)
		return true;
	head.self_off = 0;
	return memcmp(region, &head, len) == 0;
}

/* The first page, if it is one: 0, 1, -EEXIST as rootscan_run(). */
static int look_at_region(struct rootscan *scan)
{
	unsigned char region[FM_APP_LEN];
	int rc;

	rc = scan->read(scan->src, FM_APP_OFF, region, sizeof(region));
	if (rc < 0)
		return rc;
	if (memcmp(region, FM_ROOT_MAGIC, 8) == 0)
		return 0;
	if (region[0] == 0 && memcmp(region, region + 1, sizeof(region) - 1) == 0)
		return 1;
	if (half_made(region))
		return 1;
	return err_set(EEXIST, "the application region holds the program's own"
		       " data, not named roots");
}

int rootscan_run(struct rootscan *scan)
{
	uint64_t off = FM_APP_OFF, mark = 0, nsteps = 0, next_mark = 1;
	struct fm_rootpage_disk page;
	const char *what;
	int rc;

	scan->nbad = 0;
	rc = look_at_region(scan);
	if (rc != 0)
		return rc;
	for (;;) {
		rc = scan->read(scan->src, off, &page, sizeof(page));
		if (rc < 0)
			return rc;
		what = judge_page(scan, off, &page);
		if (what != NULL)
			return bad_page(scan, off, off, what);
		if (scan->page != NULL)
			scan->page(scan->arg, off);
		rc = walk_slots(scan, off, page.nslots);
		if (rc != 0)
			return rc;
		scan->last_page_off = off;
		if (page.next_off == 0)
			return 0;
		what = judge_next(scan, page.next_off, mark, ++nsteps);
		if (what != NULL)
			return bad_page(scan, off + offsetof(struct fm_rootpage_disk,
							     next_off),
					page.next_off, what);
		if (nsteps == next_mark) {
			mark = page.next_off;
			next_mark *= 2;
		}
		off = page.next_off;
	}
}
