/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a pool file.  Constants and structures only; nothing here
 * allocates, maps or checks.  doc/format.md says the same in prose and names
 * what a crash can leave behind.
 *
 * All integers are little-endian, all offsets count bytes from the start of
 * the file, and no pointer is ever stored.  Every state change of the heap is
 * one aligned store of at most 8 bytes into one of the structures below, made
 * after everything it refers to is in place, so that a process may be killed
 * between any two instructions.
 *
 *   0        4 KiB   struct fm_super_disk
 *   4 KiB    4 KiB   application region: the program's own bytes, or
 *                    struct fm_rootpage_disk once a named root is set
 *   8 KiB    8 KiB   reserved, zero
 *   16 KiB   32 KiB  zone directory: a uint16_t (enum fm_zone_kind) for each zone
 *   48 KiB   16 KiB  reserved, zero
 *   64 KiB   64 KiB  zone 0: page table
 *   128 KiB  512 KiB zone 0: block bitmaps
 *   640 KiB  ...     zone 0: data pages, to 64 MiB; then zone 1, zone 2, ...
 */
#ifndef FM_HEAP_LAYOUT_H
#define FM_HEAP_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define FM_MAGIC "FMALLOC1"		/* 8 bytes, no terminator */
#define FM_BYTE_ORDER_MARK 0x01020304u
#define FM_VERSION 1u

/*
 * Feature bits.  A reader that does not know a bit set in `compat` ignores
 * it, in `ro_compat` opens read-only at most, in `incompat` refuses.
 */
/* Slabs of class 0 end with their second bitmap: set when a pool is made. */
#define FM_COMPAT_TINY (UINT64_C(1) << 0)
#define FM_COMPAT_KNOWN FM_COMPAT_TINY
/* There may be second bitmaps, intents and holes, of which the first writers knew
 * nothing: set in new pools, and in others when they are opened for writing. */
#define FM_RO_COMPAT_SECOND (UINT64_C(1) << 0)
#define FM_RO_COMPAT_KNOWN FM_RO_COMPAT_SECOND
/* The pool is what its bytes say after its log has been replayed. */
#define FM_INCOMPAT_ATOMIC (UINT64_C(1) << 0)
#define FM_INCOMPAT_KNOWN FM_INCOMPAT_ATOMIC

/* --- geometry ---------------------------------------------------------- */

#define FM_PAGE_SHIFT 12
#define FM_PAGE_LEN (UINT64_C(1) << FM_PAGE_SHIFT)
#define FM_SLAB_SHIFT 16		/* a slab: 64 KiB, aligned */
#define FM_SLAB_LEN (UINT64_C(1) << FM_SLAB_SHIFT)
#define FM_SLAB_NPAGES (1u << (FM_SLAB_SHIFT - FM_PAGE_SHIFT))
#define FM_CHUNK_SHIFT 21		/* a chunk: 2 MiB, aligned; what is given back */
#define FM_CHUNK_LEN (UINT64_C(1) << FM_CHUNK_SHIFT)
#define FM_CHUNK_NPAGES (1u << (FM_CHUNK_SHIFT - FM_PAGE_SHIFT))
#define FM_ZONE_SHIFT 26		/* a zone: 64 MiB, aligned */
#define FM_ZONE_LEN (UINT64_C(1) << FM_ZONE_SHIFT)
#define FM_ZONE_NPAGES (1u << (FM_ZONE_SHIFT - FM_PAGE_SHIFT))
#define FM_ZONE_NSLABS (1u << (FM_ZONE_SHIFT - FM_SLAB_SHIFT))
#define FM_ZONE_NCHUNKS (1u << (FM_ZONE_SHIFT - FM_CHUNK_SHIFT))
#define FM_MAX_NZONES 16384u		/* 1 TiB */
#define FM_MAX_NCHUNKS ((uint64_t)FM_MAX_NZONES * FM_ZONE_NCHUNKS)

#define FM_SUPER_OFF UINT64_C(0)
#define FM_APP_OFF UINT64_C(4096)
#define FM_APP_LEN UINT64_C(4096)
#define FM_HEAP_OFF UINT64_C(8192)		/* all from here on is the heap's */
#define FM_ZONEDIR_OFF UINT64_C(16384)
#define FM_ZONEDIR_LEN (FM_MAX_NZONES * sizeof(uint16_t))

/* Offsets within a zone. */
#define FM_ZONE_TABLE_OFF UINT64_C(0x10000)	/* uint32_t[FM_ZONE_NPAGES] */
#define FM_ZONE_TABLE_LEN (FM_ZONE_NPAGES * sizeof(uint32_t))
#define FM_ZONE_BITMAP_OFF UINT64_C(0x20000)	/* FM_BITMAP_LEN bytes a slab */
#define FM_BITMAP_LEN UINT64_C(512)		/* 4096 bits: 64 KiB of 16-byte blocks */
#define FM_ZONE_BITMAP_LEN (FM_ZONE_NSLABS * FM_BITMAP_LEN)
#define FM_ZONE_DATA_OFF UINT64_C(0xa0000)
#define FM_ZONE_HEAD_NPAGES ((uint32_t)(FM_ZONE_DATA_OFF >> FM_PAGE_SHIFT))
/* The zone header: at the zone's first byte, but inside the super in zone 0. */
#define FM_ZONE0_HEADER_OFF UINT64_C(2048)

/* --- zone directory ---------------------------------------------------- */

enum fm_zone_kind {
	FM_ZONE_UNUSED = 0,
	FM_ZONE_NORMAL = 1,	/* header, page table, bitmaps, data */
	FM_ZONE_HUGE = 2,	/* first zone of one block longer than a zone */
	FM_ZONE_HUGE_MORE = 3	/* a further zone of the FM_ZONE_HUGE before it;
				 * without one it counts as unused */
};
/* Zone 0 is always normal; its entry stays 0. */

#define FM_ZONE_MAGIC 0x454e4f5au	/* "ZONE" */

struct fm_zone_disk {
	uint32_t magic;		/* FM_ZONE_MAGIC */
	uint32_t index;		/* this zone's number */
	uint32_t npages_reserved; /* normal: pages from the zone's start whose
				   * space the file has, but for ... */
	uint32_t holes;		/* normal: bit i: chunk i of the zone was given
				 * back; it holds no extent, and must get its
				 * space again first */
	uint64_t huge_off;	/* huge: the block's offset from the zone's
				 * start, a page or more */
	uint64_t huge_len;	/* huge: bytes of the block */
	uint64_t reserved1[4];
};

/* --- page table -------------------------------------------------------- */

/*
 * One entry a page.  An extent's first page has a non-zero entry; the entries
 * of its other pages, and of free pages, are zero.  Storing the entry
 * allocates the extent, storing zero frees it.
 *
 *   bits 0..3    enum fm_extent_kind
 *   bits 4..11   FM_EXTENT_SLAB: size class
 *   bits 12..31  length in pages
 */
enum fm_extent_kind {
	FM_EXTENT_FREE = 0,
	FM_EXTENT_SLAB = 1,	/* small blocks of one class, 64 KiB aligned */
	FM_EXTENT_RUN = 2,	/* one large block */
	FM_EXTENT_META = 3	/* the heap's own: lanes, pages of roots, the log;
				 * never handed out */
};

#define FM_EXTENT(kind, cls, npages) \
	((uint32_t)(kind) | (uint32_t)(cls) << 4 | (uint32_t)(npages) << 12)
#define FM_EXTENT_KIND(e) ((e) & 15u)
#define FM_EXTENT_CLASS(e) ((e) >> 4 & 255u)
#define FM_EXTENT_NPAGES(e) ((e) >> 12)

/*
 * The bitmaps of a slab: block i is allocated while bit i is set in the first and
 * clear in the second.  The first is changed only by the thread that has the
 * slab; others free blocks by setting bits of the second.  Blocks lie back to back
 * from the slab's first byte; the slab itself holds no header.
 */
#define FM_SECOND_OFF UINT64_C(256)	/* of the second bitmap, from the first; but
					 * of class 0, which has 4,096 bits ... */
#define FM_TINY_SECOND_OFF (FM_SLAB_LEN - FM_BITMAP_LEN) /* ... from the slab, */
#define FM_TINY_NBLOCKS 4064u		/* which has fewer blocks then */

/* --- super ------------------------------------------------------------- */

/* Names the process that has the pool open for writing; zero when none has. */
struct fm_writer_disk {
	uint8_t boot_id[16];	/* of the running kernel */
	uint64_t pidns;		/* inode of the pid namespace `pid` is of */
	uint64_t pid;
	uint64_t start_ticks;	/* of the process, field 22 of /proc/PID/stat */
	uint64_t ino;		/* of the pool file when it was opened: a copy
				 * of the file does not inherit the writer */
	uint64_t reserved[2];
};

/*
 * A change of blocks and of one pointer that a kill must not split.  It counts
 * while where_off is not 0.  The 8 bytes at where_off decide: if they are
 * `value` (new_off, if that is 0), the change was made, and the block `old_off`
 * is free; if not, it was not, and the block `new_off` is.  0 is no block.
 */
struct fm_intent_disk {
	uint64_t where_off;
	uint64_t value;
	uint64_t new_off;
	uint64_t old_off;
};

struct fm_super_disk {
	/* Written once, at creation; covered by `crc`. */
	uint8_t magic[8];	/* FM_MAGIC */
	uint32_t byte_order;	/* FM_BYTE_ORDER_MARK */
	uint32_t version;	/* FM_VERSION */
	uint64_t compat;	/* feature bits */
	uint64_t ro_compat;
	uint64_t incompat;
	uint8_t uuid[16];	/* random; a snapshot keeps its origin's */
	uint64_t created_ns;	/* nanoseconds since 1970 UTC */
	uint32_t page_shift;	/* geometry, for a reader built differently */
	uint32_t slab_shift;
	uint32_t zone_shift;
	uint32_t nclasses;	/* size classes, and the CRC32C of their sizes: */
	uint32_t classes_crc;	/* a table is part of the format */
	uint8_t reserved0[424];
	uint32_t crc;		/* CRC32C of the 508 bytes before it */

	/* Changed by single aligned stores while the pool is in use. */
	uint64_t heap_end;	/* bytes in use at the start of the file: no
				 * extent lies beyond; the file is as long or
				 * longer.  Less again when a writer closes */
	uint64_t lanes_off;	/* 0: none (magazines: see struct fm_lane_disk) */
	uint64_t log_off;	/* the log of an atomic pool, else 0; fixed */
	uint64_t home_addr;	/* where FM_FIXED maps the pool; 0: never asked */
	/* Offset of pages of intents and of roots that are being made: allocated,
	 * but, unless they are found linked, to be freed at the next open. */
	uint64_t pending_intents_off;
	uint64_t pending_rootpage_off;
	uint64_t intents_off;	/* of struct fm_intents_disk; 0: none yet */
	struct fm_intent_disk intent;	/* of threads that have none there */
	uint8_t reserved1[424];
	struct fm_writer_disk writer;
	uint8_t reserved2[960];
	struct fm_zone_disk zone0;	/* FM_ZONE0_HEADER_OFF */
	uint8_t reserved3[1984];
};

/* --- intents --------------------------------------------------------------- */

#define FM_INTENTS_MAGIC 0x4e544e49u	/* "INTN" */
#define FM_INTENTS_NPAGES 2u
#define FM_NINTENTS 255u

/* One for each thread that changes pointers with their blocks; an extent of kind
 * FM_EXTENT_META. */
struct fm_intents_disk {
	uint32_t magic;		/* FM_INTENTS_MAGIC */
	uint32_t crc;		/* CRC32C of self_off */
	uint64_t self_off;	/* offset of this page */
	uint64_t reserved[2];
	struct fm_intent_disk intent[FM_NINTENTS];
};

/* --- lanes ---------------------------------------------------------------- */

#define FM_LANE_MAGIC 0x454e414cu	/* "LANE" */
#define FM_LANE_NMAGAZINES 54u		/* one for each size class */
#define FM_MAGAZINE_NSLOTS 63u
#define FM_LANE_NPAGES 7u
#define FM_MAX_NLANES 256u

/*
 * Of pools that the first version made, without FM_RO_COMPAT_SECOND; none is made
 * any more.  Blocks that a thread had at hand: slot[0..count) are free, though the
 * bits of their slabs are set.  Whoever opens the pool next for writing clears the
 * bits, and the counts after.
 */
struct fm_magazine_disk {
	uint32_t count;
	uint32_t reserved;
	uint64_t slot[FM_MAGAZINE_NSLOTS];	/* offsets of blocks */
};

struct fm_lane_disk {
	uint32_t magic;		/* FM_LANE_MAGIC */
	uint32_t crc;		/* CRC32C of self_off */
	uint64_t self_off;	/* offset of this lane, a FM_EXTENT_META extent */
	uint64_t next_off;	/* of the next; 0: last.  Fixed once linked */
	uint64_t reserved[5];
	struct fm_magazine_disk magazine[FM_LANE_NMAGAZINES];
};

/* --- the log of an atomic pool --------------------------------------------- */

#define FM_SECTOR_LEN UINT64_C(512)	/* what a disk writes as a whole */

#define FM_LOG_MAGIC 0x474f4c46u	/* "FLOG" */
#define FM_LOG_NPAGES_MIN 64u	/* of an extent; the first one has so many */
#define FM_LOG_NPAGES_MAX 8192u
#define FM_LOG_NEXTENTS_MAX 4096u

/* Of the two, the one counts that has the higher number and is sound. */
struct fm_lap_disk {
	uint64_t number;
	uint64_t salt;		/* random: of all records of the lap */
	uint64_t seq;		/* of its first record */
	uint32_t crc;		/* CRC32C of the 24 bytes before it */
	uint8_t reserved[484];
};

/* The first page of an extent of the log. */
struct fm_log_disk {
	uint32_t magic;		/* FM_LOG_MAGIC */
	uint32_t crc;		/* CRC32C of the 56 bytes that follow */
	uint64_t self_off;	/* offset of this page */
	uint64_t npages;	/* of the extent, with this one */
	uint64_t next_off;	/* of the next extent; 0: last */
	uint64_t free_off;	/* first extent: a chain of those to be freed, or 0 */
	uint64_t reserved0[3];
	uint8_t reserved1[448];
	struct fm_lap_disk lap[2];	/* of the first extent */
	uint8_t reserved2[2560];
};

#define FM_RECORD_MAGIC 0x54494d43u	/* "CMIT" */

/* What a commit changed.  Behind it runs: a word (FM_RUN), and so many words that are
 * what is there from now on. */
struct fm_record_disk {
	uint32_t magic;		/* FM_RECORD_MAGIC */
	uint32_t crc;		/* CRC32C of the record from `salt` on */
	uint64_t salt;		/* of the lap */
	uint64_t seq;		/* one more than the record before */
	uint64_t len;		/* bytes, with this head; a multiple of 8 */
};

#define FM_RUN_OFF_BITS 40
#define FM_RUN_NWORDS_MAX ((UINT64_C(1) << 24) - 1)
#define FM_RUN(off, nwords) ((uint64_t)(off) >> 3 | (uint64_t)(nwords) << FM_RUN_OFF_BITS)
#define FM_RUN_OFF(run) (((run) & ((UINT64_C(1) << FM_RUN_OFF_BITS) - 1)) << 3)
#define FM_RUN_NWORDS(run) ((run) >> FM_RUN_OFF_BITS)

/* --- named roots -------------------------------------------------------- */

#define FM_ROOT_MAGIC "FMROOTS1"	/* 8 bytes, no terminator */
#define FM_ROOT_NAME_LEN 128		/* with the terminating NUL */
#define FM_ROOT_TYPE_LEN 88		/* with the terminating NUL */

/*
 * A root is a slot whose `state` is FM_ROOT_USED.  A slot is filled first and
 * then its state is stored; a changed root is written to a free slot with a
 * higher `seq` and the old slot is freed after, so of two slots with one name
 * the higher `seq` counts.
 */
enum { FM_ROOT_FREE = 0, FM_ROOT_USED = 0x524f4f54 };

struct fm_root_disk {
	uint32_t state;
	uint32_t crc;		/* CRC32C of the slot from `seq` to its end */
	uint64_t seq;
	uint64_t off;		/* the object; 0, or not before heap_end: null */
	uint64_t size;		/* usable bytes of the block at `off` when the
				 * root was set; 0 if `off` starts no block */
	uint64_t reserved;
	char name[FM_ROOT_NAME_LEN];
	char type[FM_ROOT_TYPE_LEN];
};

/* The head of the application region, and of every further root page. */
struct fm_rootpage_disk {
	uint8_t magic[8];	/* FM_ROOT_MAGIC */
	uint64_t self_off;	/* offset of this page */
	uint64_t next_off;	/* of the next, a FM_EXTENT_META extent; 0: last */
	uint32_t nslots;	/* slots that follow this header */
	uint32_t crc;		/* CRC32C of magic, self_off and nslots */
	uint8_t reserved[224];
	struct fm_root_disk slot[];
};

#define FM_ROOTPAGE_HEAD_LEN 256
#define FM_ROOTPAGE_NPAGES 16u	/* of a further page: 255 slots */
#define FM_ROOTPAGE_LEN (FM_ROOTPAGE_NPAGES * FM_PAGE_LEN)
#define FM_APP_NSLOTS \
	((uint32_t)((FM_APP_LEN - FM_ROOTPAGE_HEAD_LEN) / sizeof(struct fm_root_disk)))

_Static_assert(sizeof(struct fm_super_disk) == 4096, "super is one page");
_Static_assert(offsetof(struct fm_super_disk, uuid) == 40, "uuid");
_Static_assert(offsetof(struct fm_super_disk, crc) == 508, "crc");
_Static_assert(offsetof(struct fm_super_disk, heap_end) == 512, "heap_end");
_Static_assert(offsetof(struct fm_super_disk, writer) == 1024, "writer");
_Static_assert(offsetof(struct fm_super_disk, zone0) == FM_ZONE0_HEADER_OFF,
	       "zone 0 header");
_Static_assert(sizeof(struct fm_writer_disk) == 64, "writer");
_Static_assert(sizeof(struct fm_zone_disk) == 64, "zone header");
_Static_assert(FM_ZONE_NCHUNKS == 32, "a bit for each chunk of a zone");
_Static_assert(offsetof(struct fm_super_disk, intents_off) == 560, "intents");
_Static_assert(offsetof(struct fm_super_disk, intent) == 568, "intent");
_Static_assert(sizeof(struct fm_intents_disk) == FM_INTENTS_NPAGES * FM_PAGE_LEN,
	       "intents fill their pages");
_Static_assert(sizeof(struct fm_magazine_disk) == 512, "magazine");
_Static_assert(offsetof(struct fm_lane_disk, magazine) == 64, "lane");
_Static_assert(sizeof(struct fm_lane_disk) <= FM_LANE_NPAGES * FM_PAGE_LEN,
	       "a lane fits its pages");
_Static_assert(offsetof(struct fm_super_disk, log_off) == 528, "log_off");
_Static_assert(sizeof(struct fm_lap_disk) == FM_SECTOR_LEN, "a lap is a sector");
_Static_assert(sizeof(struct fm_log_disk) == FM_PAGE_LEN, "head of the log");
_Static_assert(offsetof(struct fm_log_disk, lap) == FM_SECTOR_LEN, "laps");
_Static_assert(sizeof(struct fm_record_disk) == 32, "record");
_Static_assert(sizeof(struct fm_root_disk) == 256, "root slot");
_Static_assert(offsetof(struct fm_root_disk, name) == 40, "root name");
_Static_assert(sizeof(struct fm_rootpage_disk) == FM_ROOTPAGE_HEAD_LEN,
	       "root page head");
_Static_assert(FM_ZONEDIR_OFF + FM_ZONEDIR_LEN <= FM_ZONE_TABLE_OFF, "zone 0");
_Static_assert(FM_ZONE_TABLE_OFF + FM_ZONE_TABLE_LEN <= FM_ZONE_BITMAP_OFF,
	       "page table");
_Static_assert(FM_ZONE_BITMAP_OFF + FM_ZONE_BITMAP_LEN <= FM_ZONE_DATA_OFF,
	       "bitmaps");

#endif
