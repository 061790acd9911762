/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools that were damaged, by accident or to do harm.  An input names a pool to
 * start from, what is changed in it, and what is done with it then.
 *
 * Whatever the library makes of it, nobody dies, hangs, or reads what is not the
 * pool's; no memory, descriptor or window is lost; and no block that is handed out
 * lies where the pool's own tables say that something is.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmalloc.h>

#include "common/crc32c.h"
#include "fuzz/fuzz.h"
#include "heap/inspect.h"
#include "heap/layout.h"
#include "heap/memtool.h"
#include "heap/rootscan.h"
#include "heap/sizeclass.h"

#define FILE_LEN_MAX (UINT64_C(2) << 30)	/* of a damaged pool */
#define NZONES_MAX (DISK_LEN / FM_ZONE_LEN)
#define NPAGES (DISK_LEN / FM_PAGE_LEN)

/* --- pools to start from ---------------------------------------------------- */

#define NPOOLS 7u
#define NPLACES 96u

/* A pool as a list of the pages that are not zero, and what is where in it. */
static struct seed {
	uint64_t len;
	uint32_t npages;
	uint64_t *page_off;
	unsigned char (*page)[FM_PAGE_LEN];
	uint64_t extents[NPLACES], slots[NPLACES], root_pages[NPLACES];
	uint32_t nextents, nslots, nroot_pages;
} seeds[NPOOLS];

static struct fm_info *new_pool(void)
{
	disk_clear(0);
	disk_watch(0);
	return fmalloc_init(disk_path(0), NULL);
}

static void set_root(struct fm_info *fi, unsigned i, void *ptr)
{
	char name[16];

	snprintf(name, sizeof(name), "r%u", i);
	fuzz_check(fm_root_set(fi, name, ptr, "t") == 0);
}

static void make_fresh(void)
{
	fuzz_check(fmalloc_close(new_pool()) == 0);
}

static void *free_block(void *block)
{
	ffree(block);
	return NULL;
}

static void free_by_another(void *block)
{
	pthread_t thread;

	fuzz_check(pthread_create(&thread, NULL, free_block, block) == 0);
	fuzz_check(pthread_join(thread, NULL) == 0);
}

/* Blocks of all kinds, roots, intents, and a second zone. */
static struct fm_info *fill_pool(void)
{
	static const size_t size[] = { 1, 100, 1000, 5000, 16384, 20000, 300000 };
	struct fm_info *fi = new_pool();
	uint64_t *words = fcalloc(8, sizeof(*words));
	unsigned i;

	for (i = 0; i < 40; i++)
		set_root(fi, i, fmalloc(size[i % 7]));
	fuzz_check(fmalloc_into(words, 200) == 0);
	fuzz_check(fmalloc_into(words + 1, 30000) == 0);
	free_by_another(fmalloc(1));
	free_by_another(fmalloc(1000));
	fuzz_check(fmalloc(FM_ZONE_LEN - 4 * MIB) != NULL);
	return fi;
}

static void make_used(void)
{
	fuzz_check(fmalloc_close(fill_pool()) == 0);
}

static void make_killed(void)
{
	struct fm_info *fi = fill_pool();

	disk_copy(0, 1);
	fuzz_check(fmalloc_close(fi) == 0);
	disk_copy(1, 0);
}

static void make_legacy(void)
{
	const char *top = getenv("SRCDIR");
	static char buf[1 << 16];
	char cmd[1024];
	uint64_t off = 0;
	size_t n;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "gzip -dc '%s/tests/data/pool-0.1-killed.gz'",
		 top != NULL ? top : ".");
	f = popen(cmd, "re");
	fuzz_check(f != NULL);
	disk_clear(0);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0) {
		fuzz_check(pwrite(disk_fd(0), buf, n, off) == (ssize_t)n);
		off += n;
	}
	fuzz_check(pclose(f) == 0);
	fuzz_check(off > FM_ZONE_DATA_OFF);	/* else SRCDIR names another folder */
}

static void make_holes(void)
{
	struct fm_info *fi = new_pool();
	void *block[12];
	unsigned i;

	for (i = 0; i < 12; i++)
		block[i] = fmalloc(i < 10 ? 3 * MIB : 60 * MIB);
	for (i = 0; i < 12; i += 2)
		ffree(block[i]);
	fuzz_check(fm_trim(fi) == 0);
	disk_copy(0, 1);
	fuzz_check(fmalloc_close(fi) == 0);
	disk_copy(1, 0);
}

static void make_many_roots(void)
{
	struct fm_info *fi = new_pool();
	unsigned i;

	for (i = 0; i < 600; i++)
		set_root(fi, i, i % 50 == 0 ? fmalloc(100) : NULL);
	fuzz_check(fmalloc_close(fi) == 0);
}

static void make_huge(void)
{
	struct fm_info *fi = new_pool();
	void *block[3];

	block[0] = fmalloc(65 * MIB);
	block[1] = fmalloc(20 * MIB);
	block[2] = fmalloc(FM_ZONE_LEN);
	set_root(fi, 0, fmalloc(50 * MIB));
	ffree(block[2]);
	disk_copy(0, 1);
	fuzz_check(fmalloc_close(fi) == 0);
	disk_copy(1, 0);
}

/* --- ... and what is where in them ------------------------------------------ */

static void put(uint64_t off, const void *bytes, size_t len)
{
	fuzz_check(pwrite(disk_fd(0), bytes, len, off) == (ssize_t)len);
}

/* What is behind the end reads as zeroes. */
static void get(uint64_t off, void *bytes, size_t len)
{
	memset(bytes, 0, len);
	fuzz_check(pread(disk_fd(0), bytes, len, off) >= 0);
}

static void note(uint64_t *list, uint32_t *n, uint64_t off)
{
	if (*n < NPLACES)
		list[(*n)++] = off;
}

static void note_extents(struct seed *s, uint32_t zone)
{
	static uint32_t table[FM_ZONE_NPAGES];
	uint64_t base = zone * FM_ZONE_LEN;
	uint16_t kind = FM_ZONE_NORMAL;
	uint32_t p;

	if (zone > 0)
		get(FM_ZONEDIR_OFF + 2 * zone, &kind, sizeof(kind));
	if (kind == FM_ZONE_HUGE)
		note(s->extents, &s->nextents, base + FM_PAGE_LEN);
	if (kind != FM_ZONE_NORMAL)
		return;
	get(base + FM_ZONE_TABLE_OFF, table, sizeof(table));
	for (p = 0; p < FM_ZONE_NPAGES; p++)
		if (table[p] != 0)
			note(s->extents, &s->nextents, base + p * FM_PAGE_LEN);
}

static void note_roots(struct seed *s)
{
	struct fm_rootpage_disk page = { .next_off = FM_APP_OFF };
	uint32_t i;

	do {
		note(s->root_pages, &s->nroot_pages, page.next_off);
		get(page.next_off, &page, sizeof(page));
		for (i = 0; i < page.nslots; i++)
			note(s->slots, &s->nslots,
			     page.self_off + FM_ROOTPAGE_HEAD_LEN +
				     i * sizeof(struct fm_root_disk));
	} while (page.next_off != 0);
}

static void keep_page(struct seed *s, uint64_t off)
{
	unsigned char page[FM_PAGE_LEN];
	uint32_t n = s->npages + 1;

	get(off, page, sizeof(page));
	if (page[0] == 0 && memcmp(page, page + 1, sizeof(page) - 1) == 0)
		return;
	s->page_off = realloc(s->page_off, n * sizeof(*s->page_off));
	s->page = realloc(s->page, n * sizeof(*s->page));
	fuzz_check(s->page_off != NULL && s->page != NULL);
	s->page_off[s->npages] = off;
	memcpy(s->page[s->npages++], page, sizeof(page));
}

static void keep(struct seed *s)
{
	off_t off, end = 0;
	struct stat st;
	uint32_t i;

	fuzz_check(fstat(disk_fd(0), &st) == 0);
	s->len = st.st_size;
	while ((off = lseek(disk_fd(0), end, SEEK_DATA)) >= 0) {
		end = lseek(disk_fd(0), off, SEEK_HOLE);
		for (; off < end; off += FM_PAGE_LEN)
			keep_page(s, off);
	}
	for (i = 0; i < (s->len + FM_ZONE_LEN - 1) / FM_ZONE_LEN; i++)
		note_extents(s, i);
	note_roots(s);
}

static void make_seeds(void)
{
	static void (*const make[NPOOLS])(void) = {
		make_fresh, make_used, make_killed, make_legacy, make_holes,
		make_many_roots, make_huge,
	};
	unsigned i;

	for (i = 0; i < NPOOLS; i++) {
		make[i]();
		keep(&seeds[i]);
	}
}

static void restore(const struct seed *s)
{
	uint32_t i;

	disk_clear(0);
	fuzz_check(ftruncate(disk_fd(0), s->len) == 0);
	for (i = 0; i < s->npages; i++)
		put(s->page_off[i], s->page[i], FM_PAGE_LEN);
	disk_watch(0);
}

/* --- damage ----------------------------------------------------------------- */

/* One of n places, or 0 if there are none. */
static uint64_t pick(const uint64_t *list, uint32_t n, unsigned i)
{
	return n == 0 ? 0 : list[i % n];
}

static uint64_t take_value(struct input *in, const struct seed *s, uint64_t was)
{
	static const uint64_t limit[] = {
		0, 1, 2, 3, 8, 63, 64, 255, 256, 4095, 4096, 8192, 65536, 0x7fffffff,
		0x80000000, 0xffffffff, FM_ZONE_DATA_OFF, FM_CHUNK_LEN, FM_ZONE_LEN,
		FM_ZONE_LEN - 4096, UINT64_C(1) << 40, UINT64_C(1) << 63, UINT64_MAX,
		UINT64_MAX - 4095, FM_REGION_BASE, FM_ROOT_USED, FM_ZONE_MAGIC,
	};
	uint8_t kind = take8(in), what = take8(in);
	int64_t step = kind / 8 % 2 == 0 ? 1 : FM_PAGE_LEN;

	switch (kind % 8) {
	case 0:
		return limit[what % (sizeof(limit) / sizeof(limit[0]))];
	case 1:
		return pick(s->extents, s->nextents, what);
	case 2:
		return pick(s->root_pages, s->nroot_pages, what);
	case 3:
		return pick(s->slots, s->nslots, what);
	case 4:
		return s->len + (int8_t)what * step;
	case 5:
		return was ^ UINT64_C(1) << what % 64;
	case 6:
		return was + (int8_t)what * step;
	default:
		return FM_EXTENT(what % 5, kind / 8, take8(in));
	}
}

static void seal_super(void)
{
	struct fm_super_disk super;

	get(0, &super, sizeof(super));
	super.crc = crc32c(0, &super, offsetof(struct fm_super_disk, crc));
	put(0, &super, sizeof(super));
}

static void seal_slot(uint64_t off)
{
	struct fm_root_disk slot;

	get(off, &slot, sizeof(slot));
	slot.crc = rootscan_slot_crc(&slot);
	put(off, &slot, sizeof(slot));
}

static void seal_root_page(uint64_t off)
{
	struct fm_rootpage_disk page;

	get(off, &page, sizeof(page));
	page.crc = rootscan_page_crc(&page);
	put(off, &page, sizeof(page));
}

/* Of lanes and pages of intents, which begin alike. */
static void seal_self(uint64_t off)
{
	struct fm_intents_disk head;

	get(off, &head, offsetof(struct fm_intents_disk, intent));
	head.crc = crc32c(0, &head.self_off, sizeof(head.self_off));
	put(off, &head, offsetof(struct fm_intents_disk, intent));
}

static uint64_t super_word(size_t off)
{
	uint64_t word;

	get(off, &word, sizeof(word));
	return word < FILE_LEN_MAX ? word : 0;
}

/* Change one field, and make the checksum right, if asked to. */
static void damage(struct input *in, const struct seed *s)
{
	uint8_t where = take8(in), how = take8(in);
	uint8_t which = take8(in), field = take8(in);
	bool seal = how % 2 == 0;
	size_t len = (size_t)1 << how / 2 % 4;
	uint64_t base, off, value;

	switch (where % 12) {
	case 0:		/* what changes in the super */
		base = 0;
		off = offsetof(struct fm_super_disk, heap_end) + field % 11 * 8;
		len = 8;
		break;
	case 1:		/* what the checksum covers */
		base = 0;
		off = (field | which << 8) % offsetof(struct fm_super_disk, heap_end);
		break;
	case 2:		/* the header of a zone */
		base = which % NZONES_MAX * FM_ZONE_LEN +
		       (which % NZONES_MAX == 0 ? FM_ZONE0_HEADER_OFF : 0);
		off = base + field % 8 * 4;
		len = field / 8 % 2 ? 8 : 4;
		break;
	case 3:		/* the directory */
		base = FM_ZONEDIR_OFF;
		off = base + which % 10 * sizeof(uint16_t);
		len = 2;
		break;
	case 4:		/* the entry of an extent, or of a page near it */
		base = pick(s->extents, s->nextents, which);
		off = base / FM_ZONE_LEN * FM_ZONE_LEN + FM_ZONE_TABLE_OFF +
		      (base / FM_PAGE_LEN + (int8_t)field / 8) % FM_ZONE_NPAGES * 4;
		len = 4;
		break;
	case 5:		/* the bitmaps of a slab */
		base = pick(s->extents, s->nextents, which);
		off = base / FM_ZONE_LEN * FM_ZONE_LEN + FM_ZONE_BITMAP_OFF +
		      base % FM_ZONE_LEN / FM_SLAB_LEN * FM_BITMAP_LEN + field % 64 * 8;
		len = 8;
		break;
	case 6:		/* the head of a page of roots */
		base = pick(s->root_pages, s->nroot_pages, which);
		off = base + field % 8 * 4;
		len = field / 8 % 2 ? 8 : 4;
		break;
	case 7:		/* the slot of a root */
		base = pick(s->slots, s->nslots, which);
		off = base + field;
		break;
	case 8:		/* intents */
		base = super_word(offsetof(struct fm_super_disk, intents_off));
		off = base + (which % 4 == 0 ? field % 32 :
			      32 + which % 8 * 32 + field % 4 * 8);
		len = 8;
		break;
	case 9:		/* lanes of the first version */
		base = super_word(offsetof(struct fm_super_disk, lanes_off));
		off = base + (which % 4 == 0 ? field % 32 :
			      64 + which % 54 * 512 + field % 64 * 8);
		break;
	case 10:	/* the end of the file */
		off = take_value(in, s, s->len);
		if (off < FILE_LEN_MAX)
			fuzz_check(ftruncate(disk_fd(0), off) == 0);
		return;
	default:	/* anywhere */
		base = 0;
		off = (uint64_t)(which | (uint64_t)field << 8) << 4;
	}
	value = 0;
	get(off, &value, len);
	value = take_value(in, s, value);
	put(off, &value, len);
	if (!seal)
		return;
	if (where % 12 == 1)
		seal_super();
	else if (where % 12 == 6)
		seal_root_page(base);
	else if (where % 12 == 7)
		seal_slot(base);
	else if (where % 12 == 8 || where % 12 == 9)
		seal_self(base);
}

/* --- what the pool's tables say --------------------------------------------- */

enum { FREE, TAKEN, SLAB };

static uint8_t pages[NPAGES];		/* by number */
static uint8_t slab_class[NPAGES / FM_SLAB_NPAGES];
static uint64_t bits[NPAGES / FM_SLAB_NPAGES][64];	/* allocated blocks of slabs */

static void take_pages(uint64_t first, uint64_t n, uint8_t state)
{
	for (; n > 0 && first < NPAGES; first++, n--)
		pages[first] = state;
}

static bool entry_sound(uint32_t entry, uint32_t p, uint32_t nreserved)
{
	uint32_t kind = FM_EXTENT_KIND(entry), n = FM_EXTENT_NPAGES(entry);

	if (n == 0 || n > nreserved - p)
		return false;
	if (kind != FM_EXTENT_SLAB && kind != FM_EXTENT_RUN && kind != FM_EXTENT_META)
		return false;
	if (kind == FM_EXTENT_SLAB)
		return n == FM_SLAB_NPAGES && p % FM_SLAB_NPAGES == 0 &&
		       FM_EXTENT_CLASS(entry) < SIZECLASS_N;
	return FM_EXTENT_CLASS(entry) == 0;
}

static void learn_slab(const unsigned char *base, uint64_t off, unsigned cls)
{
	const struct fm_super_disk *super = (const void *)base;
	bool tiny = (super->compat & FM_COMPAT_TINY) != 0;
	const unsigned char *first = base + off / FM_ZONE_LEN * FM_ZONE_LEN +
		FM_ZONE_BITMAP_OFF + off % FM_ZONE_LEN / FM_SLAB_LEN * FM_BITMAP_LEN;
	const unsigned char *second = cls != 0 ? first + FM_SECOND_OFF :
				      base + off + FM_TINY_SECOND_OFF;
	uint64_t slab = off / FM_SLAB_LEN;
	unsigned w, n = cls != 0 ? 32 : 64;

	slab_class[slab] = cls;
	memset(bits[slab], 0, sizeof(bits[slab]));
	for (w = 0; w < n; w++) {
		uint64_t a, b = 0;

		memcpy(&a, first + w * 8, 8);
		if (cls != 0 || tiny)
			memcpy(&b, second + w * 8, 8);
		bits[slab][w] = a & ~b;
	}
}

/* All of a zone that is not sound is nobody's. */
static void learn_zone(const unsigned char *base, uint32_t zone, uint64_t heap_end)
{
	const unsigned char *at = base + zone * FM_ZONE_LEN;
	const struct fm_zone_disk *head = (const void *)(zone == 0 ?
		at + FM_ZONE0_HEADER_OFF : at);
	const uint32_t *table = (const void *)(at + FM_ZONE_TABLE_OFF);
	uint64_t first = zone * (uint64_t)FM_ZONE_NPAGES;
	uint32_t n = head->npages_reserved, p, q, len;

	if (head->magic != FM_ZONE_MAGIC || head->index != zone ||
	    n < FM_ZONE_HEAD_NPAGES || n > FM_ZONE_NPAGES ||
	    zone * FM_ZONE_LEN + n * FM_PAGE_LEN > heap_end)
		goto bad;
	take_pages(first, FM_ZONE_HEAD_NPAGES, TAKEN);
	for (p = FM_ZONE_HEAD_NPAGES; p < n; p += len) {
		len = 1;
		if (table[p] == 0)
			continue;
		if (!entry_sound(table[p], p, n))
			goto bad;
		len = FM_EXTENT_NPAGES(table[p]);
		for (q = p + 1; q < p + len; q++)
			if (table[q] != 0)
				goto bad;
		take_pages(first + p, len,
			   FM_EXTENT_KIND(table[p]) == FM_EXTENT_SLAB ? SLAB : TAKEN);
		if (FM_EXTENT_KIND(table[p]) == FM_EXTENT_SLAB)
			learn_slab(base, (first + p) * FM_PAGE_LEN,
				   FM_EXTENT_CLASS(table[p]));
	}
	return;
bad:
	take_pages(first, FM_ZONE_NPAGES, TAKEN);
}

/* From the start of its zone to the end of a huge block. */
static uint64_t npages_of(const struct fm_zone_disk *head)
{
	return (head->huge_off + head->huge_len + FM_PAGE_LEN - 1) / FM_PAGE_LEN;
}

static void learn(const struct fm_info *fi)
{
	const unsigned char *base = fi->mem;
	const struct fm_super_disk *super = fi->mem;
	const uint16_t *dir = (const void *)(base + FM_ZONEDIR_OFF);
	uint64_t end = super->heap_end;
	uint32_t i, nzones = (end + FM_ZONE_LEN - 1) / FM_ZONE_LEN;
	const struct fm_zone_disk *head;

	memset(pages, FREE, sizeof(pages));
	for (i = 0; i < nzones && i < NZONES_MAX; i++) {
		head = (const void *)(base + i * FM_ZONE_LEN);
		if (i == 0 || dir[i] == FM_ZONE_NORMAL)
			learn_zone(base, i, end);
		else if (dir[i] == FM_ZONE_HUGE)
			take_pages(i * FM_ZONE_NPAGES, npages_of(head), TAKEN);
	}
}

/* Whether a block of a slab lies in [off, end). */
static bool slab_uses(uint64_t slab, uint64_t off, uint64_t end)
{
	uint64_t size = sizeclass_table[slab_class[slab]].size;
	uint64_t base = slab * FM_SLAB_LEN, i;

	for (i = 0; i < FM_SLAB_LEN / size; i++)
		if ((bits[slab][i / 64] >> i % 64 & 1) != 0 &&
		    base + i * size < end && off < base + (i + 1) * size)
			return true;
	return false;
}

static void check_unused(uint64_t off, uint64_t len)
{
	uint64_t p;

	for (p = off / FM_PAGE_LEN; p < NPAGES && p * FM_PAGE_LEN < off + len; p++) {
		fuzz_check(pages[p] != TAKEN);
		if (pages[p] == SLAB)
			fuzz_check(!slab_uses(p / FM_SLAB_NPAGES, off, off + len));
	}
}

/* A block of the pool's was freed. */
static void forget(uint64_t off, uint64_t len)
{
	uint64_t slab = off / FM_SLAB_LEN, i;

	if (off >= DISK_LEN)
		return;
	if (pages[off / FM_PAGE_LEN] != SLAB) {
		take_pages(off / FM_PAGE_LEN, len / FM_PAGE_LEN, FREE);
		return;
	}
	i = off % FM_SLAB_LEN / len;
	bits[slab][i / 64] &= ~(UINT64_C(1) << i % 64);
}

/* --- using it --------------------------------------------------------------- */

#define NMINE 64u

static struct { uint64_t off, len; } mine[NMINE];	/* handed out; off 0: none */
static uint64_t sum;	/* so that what is read is not optimised away */

static int look(const char *name, void *ptr, const char *type, void *arg)
{
	struct fm_info *fi = arg;
	uint64_t off = (unsigned char *)ptr - (unsigned char *)fi->mem;

	sum += strlen(name) + strlen(type);
	/* It can be followed. */
	if (ptr != NULL) {
		fuzz_check(off < ((struct fm_super_disk *)fi->mem)->heap_end);
		sum += fmalloc_usable_size(ptr);
	}
	return 0;
}

static int look_inspect(const struct pool_root *root, void *arg)
{
	(void)arg;
	sum += strlen(root->name) + strlen(root->type) + root->off + root->size;
	return 0;
}

static void inspect(void)
{
	struct pool_info info;

	fuzz_check(inspect_pool(disk_fd(0), &info) == 0);
	inspect_roots(disk_fd(0), look_inspect, NULL);
}

static void read_it(const struct seed *s)
{
	struct fm_info *fi = fmalloc_open(disk_path(0), FM_RDONLY, NULL);
	uint32_t i;

	if (fi == NULL)
		return;
	fm_root_each(fi, look, fi);
	sum += (uintptr_t)fm_root_get(fi, "r3", NULL);
	for (i = 0; i < s->nextents; i++)
		sum += fmalloc_usable_size((char *)fi->mem + s->extents[i]);
	fuzz_check(fmalloc_close(fi) == 0);
}

static int find_mine(uint64_t off)
{
	unsigned i;

	for (i = 0; i < NMINE; i++)
		if (mine[i].off != 0 && off - mine[i].off < mine[i].len)
			return i;
	return -1;
}

static void got(struct fm_info *fi, unsigned i, void *ptr)
{
	uint64_t off = (unsigned char *)ptr - (unsigned char *)fi->mem;
	size_t len = fmalloc_usable_size(ptr);
	unsigned k;

	fuzz_check(len > 0);
	for (k = 0; k < NMINE; k++)
		fuzz_check(mine[k].off == 0 || off + len <= mine[k].off ||
			   mine[k].off + mine[k].len <= off);
	check_unused(off, len);
	fuzz_check(disk_backs(off, len));
	((volatile char *)ptr)[0] = 1;
	((volatile char *)ptr)[len - 1] = 1;
	mine[i].off = off;
	mine[i].len = len;
}

static void free_old(struct fm_info *fi, uint64_t off)
{
	char *ptr = (char *)fi->mem + off;
	uint64_t before = fm_bad_free_count();
	size_t len = fmalloc_usable_size(ptr);

	if (find_mine(off) >= 0)
		return;
	ffree(ptr);
	if (fm_bad_free_count() == before)
		forget(off, len);
}

static void use_step(struct input *in, struct fm_info *fi, const struct seed *s)
{
	static const uint64_t large[] = {
		20000, 300000, 2 * MIB, 20 * MIB, 63 * MIB, 70 * MIB,
	};
	uint8_t what = take8(in), arg = take8(in), more = take8(in);
	size_t size = arg < SIZECLASS_N * 4 ? sizeclass_table[arg / 4].size :
		      large[arg % 6];
	uint64_t off = pick(s->extents, s->nextents, more);
	unsigned i = more % NMINE;
	char name[16];
	void *ptr;

	snprintf(name, sizeof(name), "r%u", more);
	switch (what % 12) {
	case 0:
	case 1:
	case 2:
		ptr = mine[i].off == 0 ? fmalloc_in(fi, size) : NULL;
		if (ptr != NULL)
			got(fi, i, ptr);
		break;
	case 3:
		ptr = (char *)fi->mem + mine[i].off;
		if (mine[i].off != 0)
			ffree(ptr);
		mine[i].off = 0;
		break;
	case 4:
		free_old(fi, off + arg % 16 * (more < 128 ? 16 : 4096));
		break;
	case 5:
		if (mine[i].off == 0 || mine[i].len > MIB)
			break;
		ptr = frealloc((char *)fi->mem + mine[i].off, size);
		if (ptr != NULL) {
			mine[i].off = 0;
			got(fi, i, ptr);
		}
		break;
	case 6:
		fm_root_set(fi, name, (char *)fi->mem + off, arg % 2 ? "t" : NULL);
		break;
	case 7:
		fm_root_remove(fi, name);
		break;
	case 8:
		fm_root_alloc(fi, name, size, "t");
		break;
	case 9:
		fm_root_each(fi, look, fi);
		break;
	case 10:
		if (arg % 4 == 0)
			fm_trim(fi);
		else
			sum += fmalloc_usable_size((char *)fi->mem + off + arg * 16);
		break;
	default:
		ptr = (char *)fi->mem + mine[i].off;
		if (mine[i].off != 0 && fmalloc_into(ptr, 100) == 0)
			ffree_from(ptr);
	}
}

static void write_it(struct input *in, const struct seed *s, unsigned nsteps)
{
	struct fm_info *fi = fmalloc_open(disk_path(0), FM_CREATE, NULL);

	if (fi == NULL) {
		fuzz_check(*fm_errmsg() != '\0');
		return;
	}
	memset(mine, 0, sizeof(mine));
	learn(fi);
	for (; nsteps > 0 && in->left > 0; nsteps--)
		use_step(in, fi, s);
	fuzz_check(fmalloc_close(fi) == 0);
}

/* --- checking it ------------------------------------------------------------ */

struct findings {
	unsigned ndamage, nleft;
};

static int count_finding(const struct fm_finding *f, void *arg)
{
	struct findings *n = arg;

	if (getenv("FUZZ_VERBOSE") != NULL)
		fprintf(stderr, "%#" PRIx64 ": %s: %s (%d, %d)\n", f->off, f->structure,
			f->what, f->level, f->repaired);
	sum += strlen(f->structure) + strlen(f->what);
	fuzz_check(f->level == FM_FINDING_NOTE || f->level == FM_FINDING_DAMAGE);
	n->ndamage += f->level == FM_FINDING_DAMAGE;
	n->nleft += f->level == FM_FINDING_DAMAGE && !f->repaired;
	return 0;
}

/* What it returns is what it has found: the number of findings that are left, or -1
 * if it is no pool that this library may check. */
static int check_it(int flags)
{
	struct findings n = { 0, 0 };
	int rc = fm_check_each(disk_path(0), flags, count_finding, &n);

	if (getenv("FUZZ_VERBOSE") != NULL)
		fprintf(stderr, "checked: %d %s\n", rc, rc == 0 ? "" : fm_errmsg());
	fuzz_check(rc == 0 || rc == -1);
	if (rc == 0) {
		fuzz_check(n.nleft == 0);
		return 0;
	}
	fuzz_check(*fm_errmsg() != '\0');
	if (errno != EUCLEAN)
		return -1;
	fuzz_check(n.nleft > 0 || n.ndamage == 0);
	return n.nleft;
}

/* What is left when nothing more can be repaired, which is at once. */
static int mend(void)
{
	int left;

	check_it(0);
	left = check_it(FM_CHECK_REPAIR);
	if (left < 0)	/* one that may be read, perhaps, and not be written to */
		return left;
	fuzz_check(check_it(FM_CHECK_REPAIR) == left);
	fuzz_check(check_it(0) == left);
	return left;
}

/* --- what is lost ----------------------------------------------------------- */

static int next_fd(void)
{
	int fd = dup(disk_fd(0));

	fuzz_check(fd >= 0);
	close(fd);
	return fd;
}

/* Nothing is in the windows. */
static void check_windows(void)
{
	uintptr_t w, at;

	for (w = 0; w < FM_NWINDOWS; w++) {
		at = FM_REGION_BASE + (w << FM_WINDOW_BITS);
		fuzz_check(msync((void *)at, 4096, MS_ASYNC) < 0 && errno == ENOMEM);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	static int has_memtool = -1;
	const struct seed *s;
	unsigned n, how;
	int fd, left = 0;

	if (seeds[0].len == 0)
		make_seeds();
	fd = next_fd();
	how = take8(&in);
	s = &seeds[how / 2 % NPOOLS];
	restore(s);
	/* Most without, which takes most of the time. */
	if (has_memtool < 0)
		has_memtool = memtool_active;
	n = take8(&in);
	memtool_active = n >= 240 && has_memtool;
	for (n %= 12; n > 0; n--)
		damage(&in, s);
	inspect();
	if (how % 2 != 0)
		left = mend();
	read_it(s);
	write_it(&in, s, 40);
	write_it(&in, s, 40);
	read_it(s);
	inspect();
	/* A pool that was good stays good. */
	if (how % 2 != 0)
		fuzz_check(check_it(0) == 0 || left != 0);
	check_windows();
	fuzz_check(next_fd() == fd);
	return 0;
}
