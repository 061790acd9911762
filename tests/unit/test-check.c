/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking pools with one thing wrong in them: for every kind of structure the finding
 * is there, at its offset; nothing is changed unless asked to; what can be repaired is,
 * and then the pool is clean and has all that it had.
 */
#include <config.h>

#include "scratch.h"

#include <signal.h>

#include <fmalloc.h>

#include "common/crc32c.h"
#include "heap/heap.h"
#include "heap/judge.h"
#include "heap/rootscan.h"
#include "unit/poke.h"

#define MIB (1ull << 20)
#define SUPER(field) offsetof(struct fm_super_disk, field)
#define ZONE(field) offsetof(struct fm_zone_disk, field)
#define NROOTS 300	/* a page of them besides the first, and one more */

static int nwrites, writes_left = -1;	/* -1: any number */

ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off);

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off)
{
	if (writes_left == 0)
		kill(getpid(), SIGKILL);
	if (writes_left > 0)
		writes_left--;
	nwrites++;
	return __real_pwrite(fd, buf, n, off);
}

static int reads_left = -1;	/* before the file is cut; -1: it is not */

ssize_t __real_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off);

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off)
{
	if (reads_left >= 0 && reads_left-- == 0)
		assert_int_equal(truncate(P, 5000), 0);
	return __real_pread(fd, buf, n, off);
}

/* What is on the disk is not what is tested here, and would be waited for. */
int __wrap_fsync(int fd);
int __wrap_msync(void *mem, size_t len, int flags);

int __wrap_fsync(int fd)
{
	(void)fd;
	return 0;
}

int __wrap_msync(void *mem, size_t len, int flags)
{
	(void)mem;
	(void)len;
	(void)flags;
	return 0;
}

/* --- a pool with everything in it -------------------------------------------- */

/* Offsets in it. */
static struct {
	uint64_t tiny, small, run, far_run, huge, intents, page2, page3, gap;
} at;

static uint64_t off_of(struct fm_info *fi, const void *p)
{
	assert_non_null(p);
	return (uint64_t)((const char *)p - (const char *)fi->mem);
}

static uint64_t make_root(struct fm_info *fi, const char *name, size_t size)
{
	unsigned char *p = fmalloc_in(fi, size);

	assert_non_null(p);
	memset(p, (int)(size % 251), size < MIB ? size : MIB);
	assert_int_equal(fm_root_set(fi, name, p, "bytes"), 0);
	return off_of(fi, p);
}

static void make_pool(void)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	char name[16];
	void *gap;
	int i;

	assert_non_null(fi);
	at.tiny = make_root(fi, "tiny", 16);
	at.small = make_root(fi, "small", 100);
	gap = fmalloc_in(fi, 10 * FM_PAGE_LEN);
	at.gap = off_of(fi, gap);
	at.run = make_root(fi, "run", 100000);
	make_root(fi, "full", 62 * MIB);
	at.huge = make_root(fi, "huge", 65 * MIB);
	at.far_run = make_root(fi, "far", 60 * MIB);
	for (i = 0; i < NROOTS; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		make_root(fi, name, 1000 + i);
	}
	/* A page of intents. */
	assert_int_equal(fmalloc_into((char *)fi->mem + at.small, 32), 0);
	assert_int_equal(ffree_from((char *)fi->mem + at.small), 0);
	memset((char *)fi->mem + at.small, 100, 8);
	ffree(gap);
	assert_int_equal(fmalloc_close(fi), 0);
	at.intents = get64(SUPER(intents_off));
	at.page2 = get64(FM_APP_OFF + offsetof(struct fm_rootpage_disk, next_off));
	at.page3 = get64(at.page2 + offsetof(struct fm_rootpage_disk, next_off));
	assert_true(at.intents != 0 && at.page2 != 0 && at.page3 != 0);
}

static void expect_root(struct fm_info *fi, const char *name, size_t size)
{
	const unsigned char *p = fm_root_get(fi, name, "bytes");
	size_t i, n = size < MIB ? size : MIB;

	assert_non_null(p);
	assert_true(fmalloc_usable_size(p) >= size);
	for (i = 0; i < n; i++)
		if (p[i] != size % 251)
			fail_msg("root %s: byte %zu", name, i);
}

/* All that was in the pool is, and it can be worked with. */
static void expect_contents(void)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	char name[16];
	void *p;
	int i;

	if (fi == NULL)
		fail_msg("%s", fm_errmsg());
	expect_root(fi, "tiny", 16);
	expect_root(fi, "small", 100);
	expect_root(fi, "run", 100000);
	expect_root(fi, "full", 62 * MIB);
	expect_root(fi, "huge", 65 * MIB);
	expect_root(fi, "far", 60 * MIB);
	for (i = 0; i < NROOTS; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		expect_root(fi, name, 1000 + i);
	}
	for (i = 0; i < 1000; i++) {
		p = fmalloc_in(fi, 1 << i % 18);
		assert_non_null(p);
		memset(p, 0xff, 1 << i % 18);
	}
	expect_root(fi, "tiny", 16);
	expect_root(fi, "run", 100000);
	expect_root(fi, "r299", 1299);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- where things are -------------------------------------------------------- */

static uint64_t zone_of(uint64_t off)
{
	return off >> FM_ZONE_SHIFT;
}

static uint64_t dir_off(uint64_t off)
{
	return FM_ZONEDIR_OFF + zone_of(off) * sizeof(uint16_t);
}

static uint64_t header_off(uint64_t off)
{
	return zone_of(off) == 0 ? FM_ZONE0_HEADER_OFF : off & ~(FM_ZONE_LEN - 1);
}

static uint64_t entry_off(uint64_t off)
{
	return (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_TABLE_OFF +
	       off % FM_ZONE_LEN / FM_PAGE_LEN * sizeof(uint32_t);
}

static uint64_t slab_of(uint64_t off)
{
	return off & ~(FM_SLAB_LEN - 1);
}

static uint64_t bitmap_off(uint64_t off)
{
	return (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_BITMAP_OFF +
	       off % FM_ZONE_LEN / FM_SLAB_LEN * FM_BITMAP_LEN;
}

/* A free page, not aligned as a slab is, with 8 more behind it. */
static uint64_t free_pages(void)
{
	return at.gap % FM_SLAB_LEN == 0 ? at.gap + FM_PAGE_LEN : at.gap;
}

static uint64_t slot_off(uint64_t page_off, unsigned i)
{
	return page_off + FM_ROOTPAGE_HEAD_LEN + i * sizeof(struct fm_root_disk);
}

/* A copy of the first root in another slot, with changes. */
static uint64_t copy_root(int more_seq, bool sound)
{
	struct fm_root_disk root;
	uint64_t to = slot_off(at.page3, 250);

	file_read(P, slot_off(FM_APP_OFF, 0), &root, sizeof(root));
	assert_int_equal(root.state, FM_ROOT_USED);
	root.seq += more_seq;
	root.crc = rootscan_slot_crc(&root) ^ !sound;
	assert_true(get32(to) != FM_ROOT_USED);
	put(to, &root, sizeof(root));
	return to;
}

/* --- one thing wrong: returns where ------------------------------------------ */

static uint64_t nothing(void)
{
	return 0;
}

static uint64_t bad_magic(void)
{
	put64(0, 1);
	return 0;
}

static uint64_t bad_version(void)
{
	put32(SUPER(version), 3);
	return SUPER(version);
}

static uint64_t bad_geometry(void)
{
	put32(SUPER(zone_shift), 25);
	return SUPER(zone_shift);
}

static uint64_t bad_reserved(void)
{
	put32(200, 1);
	return 200;
}

static uint64_t bad_uuid(void)
{
	put64(SUPER(uuid), 99);
	return SUPER(crc);
}

static uint64_t low_heap_end(void)
{
	put64(SUPER(heap_end), 2 * MIB);
	return SUPER(heap_end);
}

static uint64_t high_heap_end(void)
{
	put64(SUPER(heap_end), file_size(P) + FM_PAGE_LEN);
	return SUPER(heap_end);
}

static uint64_t odd_heap_end(void)
{
	put64(SUPER(heap_end), file_size(P) - 1);
	return SUPER(heap_end);
}

static uint64_t cut_file(void)
{
	assert_int_equal(truncate(P, file_size(P) - MIB), 0);
	return SUPER(heap_end);
}

static uint64_t bad_pending_intents(void)
{
	put64(SUPER(pending_intents_off), 12345);
	return SUPER(pending_intents_off);
}

static uint64_t bad_pending_roots(void)
{
	put64(SUPER(pending_rootpage_off), UINT64_MAX - 4095);
	return SUPER(pending_rootpage_off);
}

/* An extent of the heap's own, that was being made. */
static uint64_t pending_page(void)
{
	uint64_t off = free_pages();

	put32(entry_off(off), FM_EXTENT(FM_EXTENT_META, 0, 2));
	put64(SUPER(pending_intents_off), off);
	return SUPER(pending_intents_off);
}

static uint64_t lost_page(void)
{
	uint64_t off = free_pages();

	put32(entry_off(off), FM_EXTENT(FM_EXTENT_META, 0, 2));
	return entry_off(off);
}

static uint64_t intents_nowhere(void)
{
	put64(SUPER(intents_off), 4096ull * 1000000);
	return SUPER(intents_off);
}

static uint64_t intents_elsewhere(void)
{
	put64(SUPER(intents_off), at.page2);
	return SUPER(intents_off);
}

static uint64_t intents_without_magic(void)
{
	put32(at.intents, 0);
	return SUPER(intents_off);
}

static uint64_t intents_without_entry(void)
{
	put32(entry_off(at.intents), 0);
	return entry_off(at.intents);
}

static uint64_t odd_intent(void)
{
	put64(SUPER(intent), 4097);
	return SUPER(intent);
}

static uint64_t far_intent(void)
{
	uint64_t off = at.intents + offsetof(struct fm_intents_disk, intent[3]);

	put64(off, 1ull << 50);
	return off;
}

static uint64_t pending_intent(void)
{
	uint64_t off = at.intents + offsetof(struct fm_intents_disk, intent[254]);

	put64(off, at.small);
	return off;
}

static uint64_t dead_writer(void)
{
	struct fm_writer_disk w = { .pid = 1, .start_ticks = UINT64_MAX };
	struct stat st;

	assert_int_equal(stat(P, &st), 0);
	w.ino = st.st_ino;
	put(SUPER(writer), &w, sizeof(w));
	return SUPER(writer);
}

static uint64_t zone_0_in_directory(void)
{
	put16(FM_ZONEDIR_OFF, 1);
	return FM_ZONEDIR_OFF;
}

static uint64_t unknown_zone(void)
{
	put16(dir_off(at.far_run), 77);
	return dir_off(at.far_run);
}

static uint64_t unknown_huge_zone(void)
{
	put16(dir_off(at.huge), 78);
	return dir_off(at.huge);
}

/* A zone that is covered by a huge block, said to be free. */
static uint64_t uncovered_zone(void)
{
	put16(dir_off(at.huge) + 2, FM_ZONE_UNUSED);
	return dir_off(at.huge) + 2;
}

static uint64_t zone_in_huge(void)
{
	put16(dir_off(at.huge) + 2, FM_ZONE_NORMAL);
	return dir_off(at.huge) + 2;
}

static uint64_t zone_without_magic(void)
{
	put32(header_off(at.far_run), 0);
	return header_off(at.far_run);
}

static uint64_t zone_of_another_number(void)
{
	put32(FM_ZONE0_HEADER_OFF + ZONE(index), 5);
	return FM_ZONE0_HEADER_OFF;
}

static uint64_t zone_without_header(void)
{
	char zero[64] = { 0 };

	put(header_off(at.far_run), zero, sizeof(zero));
	return header_off(at.far_run);
}

static uint64_t few_pages(void)
{
	put32(FM_ZONE0_HEADER_OFF + ZONE(npages_reserved), 3);
	return FM_ZONE0_HEADER_OFF + ZONE(npages_reserved);
}

static uint64_t many_pages(void)
{
	put32(header_off(at.far_run) + ZONE(npages_reserved), FM_ZONE_NPAGES + 1);
	return header_off(at.far_run) + ZONE(npages_reserved);
}

static uint64_t too_few_pages(void)
{
	put32(FM_ZONE0_HEADER_OFF + ZONE(npages_reserved), 500);
	return FM_ZONE0_HEADER_OFF + ZONE(npages_reserved);
}

static uint64_t bad_huge_off(void)
{
	put64(header_off(at.huge) + ZONE(huge_off), 100);
	return header_off(at.huge);
}

static uint64_t bad_huge_len(void)
{
	put64(header_off(at.huge) + ZONE(huge_len), UINT64_MAX & ~4095ull);
	return header_off(at.huge);
}

static uint64_t extent_in_hole(void)
{
	put32(header_off(at.far_run) + ZONE(holes), 4);
	return header_off(at.far_run) + ZONE(holes);
}

static uint64_t hole_in_head(void)
{
	uint32_t holes = get32(header_off(at.far_run) + ZONE(holes));

	put32(header_off(at.far_run) + ZONE(holes), holes | 1);
	return header_off(at.far_run) + ZONE(holes);
}

static uint64_t entry_in_head(void)
{
	put32(FM_ZONE_TABLE_OFF + 7 * 4, FM_EXTENT(FM_EXTENT_RUN, 0, 1));
	return FM_ZONE_TABLE_OFF + 7 * 4;
}

static uint64_t unknown_extent(void)
{
	uint64_t off = free_pages();

	put32(entry_off(off), 0xffu);
	return entry_off(off);
}

static uint64_t endless_extent(void)
{
	uint64_t off = free_pages();

	put32(entry_off(off), FM_EXTENT(FM_EXTENT_RUN, 0, 16000));
	return entry_off(off);
}

static uint64_t empty_extent(void)
{
	uint64_t off = free_pages();

	put32(entry_off(off), FM_EXTENT_RUN);
	return entry_off(off);
}

static uint64_t short_slab(void)
{
	uint64_t off = entry_off(slab_of(at.small));

	put32(off, get32(off) - (2 << 12));
	return off;
}

static uint64_t odd_slab(void)
{
	uint64_t off = free_pages();

	put32(entry_off(off), FM_EXTENT(FM_EXTENT_SLAB, 4, 1));
	return entry_off(off);
}

static uint64_t unknown_class(void)
{
	uint64_t off = entry_off(slab_of(at.small));

	put32(off, FM_EXTENT(FM_EXTENT_SLAB, 200, 16));
	return off;
}

static uint64_t run_with_class(void)
{
	put32(entry_off(at.run), get32(entry_off(at.run)) | 5 << 4);
	return entry_off(at.run);
}

static uint64_t entry_in_extent(void)
{
	put32(entry_off(at.run) + 8, 0xf00f);
	return entry_off(at.run) + 8;
}

static uint64_t extent_in_extent(void)
{
	put32(entry_off(at.run) + 8, FM_EXTENT(FM_EXTENT_RUN, 0, 2));
	return entry_off(at.run) + 8;
}

static uint64_t entry_behind_zone(void)
{
	uint64_t n = get32(header_off(at.far_run) + ZONE(npages_reserved));
	uint64_t off = header_off(at.far_run) + FM_ZONE_TABLE_OFF + n * 4;

	assert_true(n < FM_ZONE_NPAGES);
	put32(off, FM_EXTENT(FM_EXTENT_RUN, 0, 1));
	return off;
}

static uint64_t bits_beyond(void)
{
	put64(bitmap_off(at.small) + 248, 1ull << 63);
	return bitmap_off(at.small) + 248;
}

static uint64_t bits_beyond_tiny(void)
{
	put64(bitmap_off(at.tiny) + 504, 1ull << 63);
	return bitmap_off(at.tiny) + 504;
}

static uint64_t second_alone(void)
{
	put64(bitmap_off(at.small) + FM_SECOND_OFF + 64, 1);
	return bitmap_off(at.small) + FM_SECOND_OFF + 64;
}

static uint64_t second_alone_tiny(void)
{
	put64(slab_of(at.tiny) + FM_TINY_SECOND_OFF + 64, 1);
	return slab_of(at.tiny) + FM_TINY_SECOND_OFF + 64;
}

static uint64_t region_without_magic(void)
{
	put64(FM_APP_OFF, 0x1234567);
	return FM_APP_OFF;
}

static uint64_t region_with_bad_crc(void)
{
	put32(FM_APP_OFF + offsetof(struct fm_rootpage_disk, crc), 1);
	return FM_APP_OFF;
}

static uint64_t page_without_head(void)
{
	char zero[FM_ROOTPAGE_HEAD_LEN] = { 0 };

	/* And with it goes what leads to the page behind it. */
	put(at.page2, zero, sizeof(zero));
	return at.page2;
}

static uint64_t page_without_entry(void)
{
	put32(entry_off(at.page2), 0);
	return entry_off(at.page2);
}

static uint64_t page_with_another_entry(void)
{
	put32(entry_off(at.page2), 0x777);
	return entry_off(at.page2);
}

static uint64_t chain_to_nowhere(void)
{
	uint64_t off = FM_APP_OFF + offsetof(struct fm_rootpage_disk, next_off);

	put64(off, 17);
	return off;
}

static uint64_t chain_in_a_circle(void)
{
	uint64_t off = at.page2 + offsetof(struct fm_rootpage_disk, next_off);

	put64(off, at.page2);
	return off;
}

/* That the page behind has a bad head is seen when the chain leads there again. */
static uint64_t chain_to_a_page_without_head(void)
{
	put64(FM_APP_OFF + offsetof(struct fm_rootpage_disk, next_off), 1);
	put64(at.page3, 0);
	put64(at.page3 + 8, 0);
	return FM_APP_OFF + offsetof(struct fm_rootpage_disk, next_off);
}

/* The last page, which nothing leads to any more, is what can be seen of it. */
static uint64_t chain_cut_short(void)
{
	put64(at.page2 + offsetof(struct fm_rootpage_disk, next_off), 0);
	return entry_off(at.page3);
}

static uint64_t bad_slot(void)
{
	put64(slot_off(at.page2, 9) + offsetof(struct fm_root_disk, off), 1);
	return slot_off(at.page2, 9);
}

static uint64_t bad_slot_and_a_good_one(void)
{
	return copy_root(1000, false);
}

static uint64_t replaced_root(void)
{
	return copy_root(-1, true);
}

static uint64_t same_root(void)
{
	return copy_root(0, true);
}

static uint64_t bad_name(void)
{
	uint64_t off = slot_off(at.page2, 9);
	struct fm_root_disk root;

	file_read(P, off, &root, sizeof(root));
	memset(root.name, 'x', sizeof(root.name));
	root.crc = rootscan_slot_crc(&root);
	put(off, &root, sizeof(root));
	return off;
}

static uint64_t root_of_free_block(void)
{
	uint64_t off = slot_off(at.page3, 250);
	struct fm_root_disk root = {
		.state = FM_ROOT_USED,
		.seq = 5000,
		.off = free_pages(),
		.name = "nothing",
	};

	root.crc = rootscan_slot_crc(&root);
	put(off, &root, sizeof(root));
	return off;
}

/* --- each of them ------------------------------------------------------------ */

enum outcome { GOOD, NOTE, KEPT_NOTE, REPAIRED, LEFT };

static const struct {
	const char *name;
	uint64_t (*damage)(void);
	enum outcome outcome;	/* KEPT_NOTE: there is nothing to repair; LEFT: it
				 * cannot be */
	const char *structure;
} rows[] = {
#define ROW(fn, outcome, structure) { #fn, fn, outcome, structure }
	ROW(nothing, GOOD, NULL),
	ROW(bad_magic, REPAIRED, "super"),
	ROW(bad_version, REPAIRED, "super"),
	ROW(bad_geometry, REPAIRED, "super"),
	ROW(bad_reserved, REPAIRED, "super"),
	ROW(bad_uuid, LEFT, "super"),
	ROW(low_heap_end, REPAIRED, "super"),
	ROW(high_heap_end, REPAIRED, "super"),
	ROW(odd_heap_end, REPAIRED, "super"),
	ROW(cut_file, LEFT, "super"),
	ROW(bad_pending_intents, REPAIRED, "super"),
	ROW(bad_pending_roots, REPAIRED, "super"),
	ROW(pending_page, NOTE, "super"),
	ROW(lost_page, REPAIRED, "page table"),
	ROW(intents_nowhere, REPAIRED, "super"),
	ROW(intents_elsewhere, REPAIRED, "super"),
	ROW(intents_without_magic, REPAIRED, "super"),
	ROW(intents_without_entry, REPAIRED, "page table"),
	ROW(odd_intent, REPAIRED, "intent"),
	ROW(far_intent, REPAIRED, "intent"),
	ROW(pending_intent, NOTE, "intent"),
	ROW(dead_writer, NOTE, "writer"),
	ROW(zone_0_in_directory, REPAIRED, "zone directory"),
	ROW(unknown_zone, REPAIRED, "zone directory"),
	ROW(unknown_huge_zone, REPAIRED, "zone directory"),
	ROW(uncovered_zone, REPAIRED, "zone directory"),
	ROW(zone_in_huge, LEFT, "zone directory"),
	ROW(zone_without_magic, REPAIRED, "zone header"),
	ROW(zone_of_another_number, REPAIRED, "zone header"),
	ROW(zone_without_header, LEFT, "zone header"),
	ROW(few_pages, REPAIRED, "zone header"),
	ROW(many_pages, REPAIRED, "zone header"),
	ROW(too_few_pages, REPAIRED, "zone header"),
	ROW(bad_huge_off, LEFT, "zone header"),
	ROW(bad_huge_len, LEFT, "zone header"),
	ROW(extent_in_hole, REPAIRED, "zone header"),
	ROW(hole_in_head, REPAIRED, "zone header"),
	ROW(entry_in_head, REPAIRED, "page table"),
	ROW(unknown_extent, REPAIRED, "page table"),
	ROW(endless_extent, REPAIRED, "page table"),
	ROW(empty_extent, REPAIRED, "page table"),
	ROW(short_slab, REPAIRED, "page table"),
	ROW(odd_slab, REPAIRED, "page table"),
	ROW(unknown_class, LEFT, "page table"),
	ROW(run_with_class, REPAIRED, "page table"),
	ROW(entry_in_extent, REPAIRED, "page table"),
	ROW(extent_in_extent, LEFT, "page table"),
	ROW(entry_behind_zone, REPAIRED, "page table"),
	ROW(bits_beyond, NOTE, "slab"),
	ROW(bits_beyond_tiny, NOTE, "slab"),
	ROW(second_alone, NOTE, "slab"),
	ROW(second_alone_tiny, NOTE, "slab"),
	ROW(region_without_magic, REPAIRED, "page of roots"),
	ROW(region_with_bad_crc, REPAIRED, "page of roots"),
	ROW(page_without_head, REPAIRED, "page of roots"),
	ROW(page_without_entry, REPAIRED, "page table"),
	ROW(page_with_another_entry, REPAIRED, "page table"),
	ROW(chain_to_nowhere, REPAIRED, "page of roots"),
	ROW(chain_in_a_circle, REPAIRED, "page of roots"),
	ROW(chain_cut_short, REPAIRED, "page table"),
	ROW(chain_to_a_page_without_head, REPAIRED, "page of roots"),
	ROW(bad_slot, LEFT, "root"),
	ROW(bad_slot_and_a_good_one, REPAIRED, "root"),
	ROW(replaced_root, NOTE, "root"),
	ROW(same_root, REPAIRED, "root"),
	ROW(bad_name, LEFT, "root"),
	ROW(root_of_free_block, KEPT_NOTE, "root"),
};

/* What one call said. */
struct said {
	uint64_t off;		/* looked for, of ... */
	const char *structure;
	int level;		/* ... and found with; 0: not */
	unsigned nnotes, ndamage, nrepaired;
	char text[2000];	/* all of it */
};

static int listen(const struct fm_finding *f, void *arg)
{
	struct said *said = arg;
	size_t n = strlen(said->text);

	assert_true(f->level == FM_FINDING_NOTE || f->level == FM_FINDING_DAMAGE);
	if (f->off == said->off && said->structure != NULL &&
	    strcmp(f->structure, said->structure) == 0)
		said->level = f->level;
	if (f->level == FM_FINDING_NOTE)
		said->nnotes++;
	else
		said->ndamage++;
	said->nrepaired += f->repaired;
	snprintf(said->text + n, sizeof(said->text) - n, "%#llx: %s: %s (%d %d)\n",
		 (unsigned long long)f->off, f->structure, f->what, f->level,
		 f->repaired);
	return 0;
}

static int check(int flags, uint64_t off, const char *structure, struct said *said)
{
	memset(said, 0, sizeof(*said));
	said->off = off;
	said->structure = structure;
	return fm_check_each(P, flags, listen, said);
}

static void expect_found(size_t row, uint64_t off)
{
	enum outcome outcome = rows[row].outcome;
	struct said said;
	int rc, level;

	nwrites = 0;
	level = outcome == GOOD ? 0 : outcome == NOTE || outcome == KEPT_NOTE ?
		FM_FINDING_NOTE : FM_FINDING_DAMAGE;
	rc = check(0, off, rows[row].structure, &said);
	if (said.level != level || rc != (level == FM_FINDING_DAMAGE ? -1 : 0) ||
	    (rc < 0 && errno != EUCLEAN) || said.nrepaired != 0 ||
	    (said.ndamage == 0) != (rc == 0) || (level == 0 && said.nnotes > 0))
		fail_msg("%s at %#llx: %d, errno %d, level %d:\n%s", rows[row].name,
			 (unsigned long long)off, rc, errno, said.level, said.text);
	assert_int_equal(fm_check(P), rc);
	assert_int_equal(nwrites, 0);
}

static void expect_repaired(size_t row)
{
	enum outcome outcome = rows[row].outcome;
	struct said said;
	int rc;

	rc = check(FM_CHECK_REPAIR, 0, NULL, &said);
	if (rc != (outcome == LEFT ? -1 : 0) || (rc < 0 && errno != EUCLEAN) ||
	    ((outcome == NOTE || outcome == REPAIRED) &&
	     said.nrepaired != said.nnotes + said.ndamage) ||
	    (outcome == KEPT_NOTE && (said.nrepaired != 0 || said.nnotes != 1)))
		fail_msg("%s: repair: %d, errno %d:\n%s%s", rows[row].name, rc, errno,
			 said.text, rc < 0 ? fm_errmsg() : "");
	rc = check(0, 0, NULL, &said);
	if (outcome == LEFT ? rc != -1 || said.ndamage == 0 :
	    rc != 0 || said.ndamage != 0 || said.nnotes != (outcome == KEPT_NOTE))
		fail_msg("%s: after the repair: %d:\n%s", rows[row].name, rc,
			 said.text);
	if (outcome != LEFT)
		expect_contents();
}

static void damage_is_found_and_repaired(void **state)
{
	uint64_t off;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unlink(P);
		make_pool();
		off = rows[i].damage();
		expect_found(i, off);
		expect_repaired(i);
	}
}

/* --- a repair that is killed ------------------------------------------------- */

static void repair(void *arg)
{
	writes_left = *(int *)arg;
	child_check(fm_check_each(P, FM_CHECK_REPAIR, NULL, NULL) == 0);
}

/* The findings that one write does not repair. */
static uint64_t (*const large[])(void) = {
	page_without_head, chain_in_a_circle, intents_without_magic, intents_elsewhere,
};

/* Killed before any of its writes, it is done by the next. */
static void a_killed_repair_is_finished(void **state)
{
	int n, status, nkilled = 0;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(large) / sizeof(large[0]); i++)
		for (n = 0, status = SIGKILL; status != 0; n++) {
			unlink(P);
			make_pool();
			large[i]();
			status = child_wait(child_start(repair, &n));
			assert_true(status == 0 || status == SIGKILL);
			nkilled += status != 0;
			if (fm_check_each(P, FM_CHECK_REPAIR, NULL, NULL) != 0)
				fail_msg("%s", fm_errmsg());
			assert_int_equal(fm_check(P), 0);
			expect_contents();
		}
	/* Each of them takes two writes or more. */
	assert_true(nkilled >= 8);
}

/* --- a pool that cannot be opened ------------------------------------------------ */

static int take_away(const struct fm_finding *f, void *arg)
{
	if (f->repaired && !*(bool *)arg) {
		*(bool *)arg = true;
		assert_int_equal(rename(P, "away"), 0);
	}
	return 0;
}

/* What a kill left cannot be settled then, and that is said, though nothing else is
 * wrong. */
static void what_cannot_be_settled_is_said(void **state)
{
	bool away = false;
	struct said said;

	(void)state;
	make_pool();
	root_of_free_block();
	dead_writer();
	hole_in_head();
	assert_int_equal(fm_check_each(P, FM_CHECK_REPAIR, take_away, &away), -1);
	assert_int_equal(errno, ENOENT);
	assert_non_null(strstr(fm_errmsg(), "settling"));
	assert_true(away);
	assert_int_equal(rename("away", P), 0);
	assert_int_equal(check(FM_CHECK_REPAIR, SUPER(writer), "writer", &said), 0);
	assert_int_equal(said.level, FM_FINDING_NOTE);
	assert_int_equal(said.nnotes, 2);
	expect_contents();
}

/* --- a file that is cut ---------------------------------------------------------- */

/* Whenever it happens: an error, and no signal. */
static void a_file_that_is_cut_meanwhile_is_no_trap(void **state)
{
	int n, rc, ncut = 0, nlate = 0;

	(void)state;
	make_pool();
	file_copy(P, "whole");
	for (n = 0; n < 200; n++) {
		reads_left = n;
		rc = fm_check(P);
		if (reads_left >= 0)
			break;		/* it was over before */
		assert_true(rc == 0 || errno == EUCLEAN || errno == EBUSY);
		ncut += rc != 0;
		nlate += rc == 0;
		reads_left = -1;
		file_copy("whole", P);
	}
	reads_left = -1;
	assert_true(n < 200 && ncut > 20);
	/* The last look at the writer comes when the length has been compared. */
	assert_in_range(nlate, 0, 1);
}

/* --- pools of version 0.1 ---------------------------------------------------- */

static void a_pool_of_0_1_is_good(void **state)
{
	struct said said;

	(void)state;
	unpack("pool-0.1-killed.gz");
	assert_int_equal(check(0, SUPER(lanes_off), "super", &said), 0);
	assert_int_equal(said.level, FM_FINDING_NOTE);
	assert_int_equal(check(FM_CHECK_REPAIR, 0, NULL, &said), 0);
	assert_int_equal(check(0, 0, NULL, &said), 0);
	assert_int_equal(said.nnotes, 0);
}

static void damaged_lanes_are_found(void **state)
{
	uint64_t lane, mag;
	struct said said;

	(void)state;
	unpack("pool-0.1-killed.gz");
	lane = get64(SUPER(lanes_off));
	mag = lane + offsetof(struct fm_lane_disk, magazine[3]);
	put32(mag, 64);
	put32(lane, 7);
	assert_int_equal(check(0, lane, "lane", &said), -1);
	assert_int_equal(said.level, FM_FINDING_DAMAGE);
	put32(lane, FM_LANE_MAGIC);
	assert_int_equal(check(0, mag, "magazine", &said), -1);
	assert_int_equal(said.level, FM_FINDING_DAMAGE);
	put32(lane, 7);
	if (check(FM_CHECK_REPAIR, 0, NULL, &said) != 0)
		fail_msg("%s", said.text);
	assert_int_equal(said.ndamage, 2);
	assert_int_equal(check(0, 0, NULL, &said), 0);
	assert_int_equal(said.nnotes, 0);
}

static void a_chain_of_lanes_that_breaks_is_left(void **state)
{
	uint64_t next;
	struct said said;

	(void)state;
	unpack("pool-0.1-killed.gz");
	next = get64(SUPER(lanes_off)) + offsetof(struct fm_lane_disk, next_off);
	put64(next, 4097);
	assert_int_equal(check(0, next, "lane", &said), -1);
	assert_int_equal(said.level, FM_FINDING_DAMAGE);
	assert_int_equal(check(FM_CHECK_REPAIR, 0, NULL, &said), -1);
	assert_int_equal(errno, EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(damage_is_found_and_repaired),
		scratch_test(a_killed_repair_is_finished),
		scratch_test(what_cannot_be_settled_is_said),
		scratch_test(a_file_that_is_cut_meanwhile_is_no_trap),
		scratch_test(a_pool_of_0_1_is_good),
		scratch_test(damaged_lanes_are_found),
		scratch_test(a_chain_of_lanes_that_breaks_is_left),
	};

	return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
