/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools as somebody might make them to do harm, of a good one that was copied.
 *
 *   hostile-tool make WHAT POOL     change the pool: WHAT is one of the table below
 *   hostile-tool list               the names in that table
 *   hostile-tool mutate POOL SEED   change some words of it, checksums made right or not
 *   hostile-tool flip POOL          change its bytes without pause, till killed
 *   hostile-tool shrink POOL        let it be empty and whole again without pause
 *   hostile-tool lock POOL          hold all locks that there are, and say "ready"
 */
#include <config.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "heap/judge.h"
#include "heap/layout.h"
#include "heap/rootscan.h"

#define GIB (UINT64_C(1) << 30)
#define SUPER(field) offsetof(struct fm_super_disk, field)

static int fd;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void get(uint64_t off, void *buf, size_t len)
{
	memset(buf, 0, len);
	if (pread(fd, buf, len, off) < 0)
		die("pread");
}

static void put(uint64_t off, const void *buf, size_t len)
{
	if (pwrite(fd, buf, len, off) != (ssize_t)len)
		die("pwrite");
}

static void put64(uint64_t off, uint64_t value)
{
	put(off, &value, sizeof(value));
}

static void set_len(uint64_t len)
{
	if (ftruncate(fd, len) < 0)
		die("ftruncate");
}

static uint64_t random_word(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* --- the super ------------------------------------------------------------------ */

static void seal_super(void)
{
	struct fm_super_disk super;

	get(0, &super, sizeof(super));
	super.crc = crc32c(0, &super, SUPER(crc));
	put(0, &super, sizeof(super));
}

static void heap_end_0(void)
{
	put64(SUPER(heap_end), 0);
}

static void heap_end_odd(void)
{
	put64(SUPER(heap_end), FM_ZONE_DATA_OFF + 1);
}

static void heap_end_far(void)
{
	put64(SUPER(heap_end), UINT64_MAX - 4095);
}

static void heap_end_beyond_file(void)
{
	put64(SUPER(heap_end), GIB);
}

static void unknown_feature(void)
{
	put64(SUPER(incompat), UINT64_C(1) << 63);
	seal_super();
}

static void unknown_version(void)
{
	put64(SUPER(byte_order), UINT64_C(0xffffffff01020304));
	seal_super();
}

static void atomic_without_log(void)
{
	put64(SUPER(incompat), FM_INCOMPAT_ATOMIC);
	seal_super();
}

static void sparse_1_tib(void)
{
	set_len(1024 * GIB);
	put64(SUPER(heap_end), 1024 * GIB);
}

/* --- roots ------------------------------------------------------------------------ */

static void put_slot(uint64_t off, const char *name, const char *type, uint64_t where)
{
	struct fm_root_disk slot = { .seq = 1, .off = where, .state = FM_ROOT_USED };

	memcpy(slot.name, name, strnlen(name, sizeof(slot.name)));
	memcpy(slot.type, type, strnlen(type, sizeof(slot.type)));
	slot.crc = rootscan_slot_crc(&slot);
	put(off, &slot, sizeof(slot));
}

static void put_name(const char *name)
{
	put_slot(FM_APP_OFF + FM_ROOTPAGE_HEAD_LEN, name, name, 4096);
}

static void root_escape(void)
{
	put_name("\033]0;owned\007\033[2J");
}

static void root_quotes(void)
{
	put_name("'; DROP TABLE pool; --\"%s%n");
}

static void root_no_utf8(void)
{
	put_name("\xff\xfe\xc2\x9b\x80\xf8\xe2\x80\xae");
}

static void root_path(void)
{
	put_name("../../../etc/passwd");
}

static void root_without_end(void)
{
	char name[FM_ROOT_NAME_LEN];

	memset(name, 'x', sizeof(name));
	put_slot(FM_APP_OFF + FM_ROOTPAGE_HEAD_LEN, name, "t", 0);
}

static void root_outside(void)
{
	put_slot(FM_APP_OFF + FM_ROOTPAGE_HEAD_LEN, "outside", "t", UINT64_MAX - 7);
}

static void link_roots(uint64_t from, uint64_t to)
{
	put64(from + offsetof(struct fm_rootpage_disk, next_off), to);
}

static void roots_cycle(void)
{
	link_roots(FM_APP_OFF, FM_APP_OFF);
}

static void roots_outside(void)
{
	link_roots(FM_APP_OFF, UINT64_MAX & ~UINT64_C(4095));
}

static void roots_of_many_slots(void)
{
	struct fm_rootpage_disk head;

	get(FM_APP_OFF, &head, sizeof(head));
	head.nslots = UINT32_MAX;
	head.crc = rootscan_page_crc(&head);
	put(FM_APP_OFF, &head, sizeof(head));
}

/* A page of roots with names that are in no other. */
static void put_roots(uint64_t off, unsigned nth, uint64_t next)
{
	static unsigned char page[FM_ROOTPAGE_LEN];
	struct fm_rootpage_disk head;
	struct fm_root_disk *slot = (void *)(page + FM_ROOTPAGE_HEAD_LEN);

	rootscan_make_head(&head, off);
	head.next_off = next;
	memset(page, 0, sizeof(page));
	memcpy(page, &head, sizeof(head));
	for (unsigned i = 0; i < head.nslots; i++) {
		slot[i] = (struct fm_root_disk){ .seq = 1, .state = FM_ROOT_USED };
		snprintf(slot[i].name, sizeof(slot[i].name), "%0100u-%u", nth, i);
		memset(slot[i].type, 't', sizeof(slot[i].type) - 1);
		slot[i].crc = rootscan_slot_crc(&slot[i]);
	}
	put(off, page, sizeof(page));
}

static void make_roots(unsigned npages)
{
	uint64_t end;

	get(SUPER(heap_end), &end, sizeof(end));
	set_len(end + npages * FM_ROOTPAGE_LEN);
	put64(SUPER(heap_end), end + npages * FM_ROOTPAGE_LEN);
	link_roots(FM_APP_OFF, end);
	for (unsigned i = 0; i < npages; i++, end += FM_ROOTPAGE_LEN)
		put_roots(end, i, i + 1 < npages ? end + FM_ROOTPAGE_LEN : 0);
}

static void many_roots(void)
{
	make_roots(400);
}

static void too_many_roots(void)
{
	make_roots(1100);
}

/* --- logs -------------------------------------------------------------------------- */

#define NEXTENTS 20u
#define LOG_OFF(i) (FM_ZONE_LEN * ((i) + 1))

static void put_extent(uint64_t off, uint64_t next)
{
	struct fm_log_disk head = {
		.magic = FM_LOG_MAGIC,
		.self_off = off,
		.npages = FM_LOG_NPAGES_MAX,
		.next_off = next,
		.lap = { { .number = 1, .salt = 7, .seq = 1 } },
	};

	head.lap[0].crc = judge_lap_crc(&head.lap[0]);
	head.crc = judge_log_crc(&head);
	put(off, &head, sizeof(head));
}

/* In a file without space for it. */
static void make_log(uint64_t last_next)
{
	set_len(LOG_OFF(NEXTENTS) + FM_ZONE_LEN);
	for (unsigned i = 0; i < NEXTENTS; i++)
		put_extent(LOG_OFF(i), i + 1 < NEXTENTS ? LOG_OFF(i + 1) : last_next);
	put64(SUPER(log_off), LOG_OFF(0));
	put64(SUPER(incompat), FM_INCOMPAT_ATOMIC);
	seal_super();
}

static void log_cycle(void)
{
	make_log(LOG_OFF(3));
}

static void put_record(uint64_t len, uint64_t run, uint64_t nzeroes)
{
	struct fm_record_disk record = {
		.magic = FM_RECORD_MAGIC, .salt = 7, .seq = 1, .len = len
	};
	uint64_t off = LOG_OFF(0) + FM_PAGE_LEN;

	record.crc = crc32c(0, &record.salt, sizeof(record) - 8);
	record.crc = crc32c_zeros(crc32c(record.crc, &run, sizeof(run)), nzeroes);
	put(off, &record, sizeof(record));
	put64(off + sizeof(record), run);
}

/* Which would have to be read to see that it is none. */
static void log_of_one_record(void)
{
	make_log(0);
	put_record((NEXTENTS - 1) * (FM_LOG_NPAGES_MAX - 1) * FM_PAGE_LEN, 0, 0);
}

/* It is one, of 128 MiB that it changes. */
static void log_that_changes_all(void)
{
	const uint64_t nwords = FM_RUN_NWORDS_MAX;

	make_log(0);
	put_record(sizeof(struct fm_record_disk) + 8 + nwords * 8,
		   FM_RUN(FM_ZONE_LEN * 2, nwords), nwords * 8);
}

static void log_beyond_all_pools(void)
{
	make_log(0);
	set_len(9 * 1024 * GIB);
	put_record(sizeof(struct fm_record_disk) + 16, FM_RUN(5 * 1024 * GIB, 1), 8);
}

/* --- the table ---------------------------------------------------------------------- */

#define WAY(fn) { #fn, fn }

static const struct {
	const char *name;
	void (*fn)(void);
} ways[] = {
	WAY(heap_end_0), WAY(heap_end_odd), WAY(heap_end_far), WAY(heap_end_beyond_file),
	WAY(unknown_feature), WAY(unknown_version), WAY(atomic_without_log),
	WAY(sparse_1_tib), WAY(root_escape), WAY(root_quotes), WAY(root_no_utf8),
	WAY(root_path), WAY(root_without_end), WAY(root_outside), WAY(roots_cycle),
	WAY(roots_outside), WAY(roots_of_many_slots), WAY(many_roots), WAY(too_many_roots),
	WAY(log_cycle), WAY(log_of_one_record), WAY(log_that_changes_all),
	WAY(log_beyond_all_pools),
};
#define NWAYS (sizeof(ways) / sizeof(ways[0]))

static int make(const char *name)
{
	for (size_t i = 0; i < NWAYS; i++)
		if (strcmp(ways[i].name, name) == 0) {
			ways[i].fn();
			return 0;
		}
	fprintf(stderr, "hostile-tool: no such way: %s\n", name);
	return 2;
}

/* --- without a plan ------------------------------------------------------------------ */

/* A word of the pool's own bytes, mostly: small, large, or a copy of another. */
static void mutate_word(uint64_t *seed)
{
	static const uint64_t area[][2] = {
		{ 0, 2112 }, { FM_APP_OFF, FM_APP_LEN }, { FM_ZONEDIR_OFF, 64 },
		{ FM_ZONE_TABLE_OFF + 640, 512 }, { FM_ZONE_DATA_OFF, 262144 },
	};
	unsigned i = random_word(seed) % (sizeof(area) / sizeof(area[0]));
	uint64_t off = area[i][0] + random_word(seed) % (area[i][1] / 8) * 8, word;

	get(off, &word, sizeof(word));
	switch (random_word(seed) % 4) {
	case 0:
		word ^= UINT64_C(1) << random_word(seed) % 64;
		break;
	case 1:
		word = random_word(seed) >> random_word(seed) % 64;
		break;
	case 2:
		word = (random_word(seed) % 512) << FM_PAGE_SHIFT;
		break;
	default:
		get(area[i][0] + random_word(seed) % (area[i][1] / 8) * 8, &word, 8);
	}
	put64(off, word);
}

static void seal_some(uint64_t *seed)
{
	struct fm_rootpage_disk page;

	if (random_word(seed) % 2)
		seal_super();
	get(FM_APP_OFF, &page, sizeof(page));
	page.crc = rootscan_page_crc(&page);
	if (random_word(seed) % 2)
		put(FM_APP_OFF, &page, sizeof(page));
	if (random_word(seed) % 8 == 0)
		set_len(random_word(seed) % (2 * GIB));
}

static int mutate(uint64_t seed)
{
	seed = seed * 2 + 1;
	random_word(&seed);
	for (unsigned n = random_word(&seed) % 12 + 1; n > 0; n--)
		mutate_word(&seed);
	seal_some(&seed);
	return 0;
}

static _Noreturn void flip(void)
{
	uint64_t seed = 1;

	for (;;) {
		mutate_word(&seed);
		seal_super();
	}
}

static _Noreturn void shrink(void)
{
	static unsigned char bytes[1 << 20];
	ssize_t len = pread(fd, bytes, sizeof(bytes), 0);

	for (;;) {
		set_len(0);
		put(0, bytes, len);
		set_len(4 * GIB);
	}
}

static int hold_locks(void)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &all) < 0)
		die("lock");
	puts("ready");
	fflush(stdout);
	return pause();
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *path = argv[argc - 1];

	if (strcmp(verb, "list") == 0) {
		for (size_t i = 0; i < NWAYS; i++)
			puts(ways[i].name);
		return 0;
	}
	if (strcmp(verb, "mutate") == 0 && argc == 4)
		path = argv[2];
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die(path);
	if (strcmp(verb, "make") == 0 && argc == 4)
		return make(argv[2]);
	if (strcmp(verb, "mutate") == 0 && argc == 4)
		return mutate(strtoull(argv[3], NULL, 0));
	if (strcmp(verb, "flip") == 0)
		flip();
	if (strcmp(verb, "shrink") == 0)
		shrink();
	if (strcmp(verb, "lock") == 0)
		return hold_locks();
	fprintf(stderr, "hostile-tool: wrong usage\n");
	return 2;
}
