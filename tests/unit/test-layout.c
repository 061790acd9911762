/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a pool, pinned as numbers: a change here is a new format. */
#include <config.h>

#include "scratch.h"

#include "heap/layout.h"

#define pin(type, field, off, len) \
	do { \
		assert_int_equal(offsetof(type, field), off); \
		assert_int_equal(sizeof(((type *)0)->field), len); \
	} while (0)

static void super_fields_are_where_they_were(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct fm_super_disk), 4096);
	pin(struct fm_super_disk, magic, 0, 8);
	pin(struct fm_super_disk, byte_order, 8, 4);
	pin(struct fm_super_disk, version, 12, 4);
	pin(struct fm_super_disk, compat, 16, 8);
	pin(struct fm_super_disk, ro_compat, 24, 8);
	pin(struct fm_super_disk, incompat, 32, 8);
	pin(struct fm_super_disk, uuid, 40, 16);
	pin(struct fm_super_disk, created_ns, 56, 8);
	pin(struct fm_super_disk, page_shift, 64, 4);
	pin(struct fm_super_disk, slab_shift, 68, 4);
	pin(struct fm_super_disk, zone_shift, 72, 4);
	pin(struct fm_super_disk, nclasses, 76, 4);
	pin(struct fm_super_disk, classes_crc, 80, 4);
	pin(struct fm_super_disk, crc, 508, 4);
	pin(struct fm_super_disk, heap_end, 512, 8);
	pin(struct fm_super_disk, lanes_off, 520, 8);
	pin(struct fm_super_disk, log_off, 528, 8);
	pin(struct fm_super_disk, home_addr, 536, 8);
	pin(struct fm_super_disk, pending_intents_off, 544, 8);
	pin(struct fm_super_disk, pending_rootpage_off, 552, 8);
	pin(struct fm_super_disk, intents_off, 560, 8);
	pin(struct fm_super_disk, intent, 568, 32);
	pin(struct fm_super_disk, writer, 1024, 64);
	pin(struct fm_super_disk, zone0, 2048, 64);
}

static void writer_and_zone_fields_are_where_they_were(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct fm_writer_disk), 64);
	pin(struct fm_writer_disk, boot_id, 0, 16);
	pin(struct fm_writer_disk, pidns, 16, 8);
	pin(struct fm_writer_disk, pid, 24, 8);
	pin(struct fm_writer_disk, start_ticks, 32, 8);
	pin(struct fm_writer_disk, ino, 40, 8);
	assert_int_equal(sizeof(struct fm_zone_disk), 64);
	pin(struct fm_zone_disk, magic, 0, 4);
	pin(struct fm_zone_disk, index, 4, 4);
	pin(struct fm_zone_disk, npages_reserved, 8, 4);
	pin(struct fm_zone_disk, holes, 12, 4);
	pin(struct fm_zone_disk, huge_off, 16, 8);
	pin(struct fm_zone_disk, huge_len, 24, 8);
}

static void root_fields_are_where_they_were(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct fm_root_disk), 256);
	pin(struct fm_root_disk, state, 0, 4);
	pin(struct fm_root_disk, crc, 4, 4);
	pin(struct fm_root_disk, seq, 8, 8);
	pin(struct fm_root_disk, off, 16, 8);
	pin(struct fm_root_disk, size, 24, 8);
	pin(struct fm_root_disk, name, 40, 128);
	pin(struct fm_root_disk, type, 168, 88);
	assert_int_equal(sizeof(struct fm_rootpage_disk), 256);
	pin(struct fm_rootpage_disk, magic, 0, 8);
	pin(struct fm_rootpage_disk, self_off, 8, 8);
	pin(struct fm_rootpage_disk, next_off, 16, 8);
	pin(struct fm_rootpage_disk, nslots, 24, 4);
	pin(struct fm_rootpage_disk, crc, 28, 4);
	assert_int_equal(offsetof(struct fm_rootpage_disk, slot), 256);
	assert_int_equal(FM_APP_NSLOTS, 15);
	assert_int_equal(FM_ROOT_USED, 0x524f4f54);
	assert_memory_equal(FM_ROOT_MAGIC, "FMROOTS1", 8);
}

static void intents_and_lanes_are_where_they_were(void **state)
{
	(void)state;
	pin(struct fm_intent_disk, where_off, 0, 8);
	pin(struct fm_intent_disk, value, 8, 8);
	pin(struct fm_intent_disk, new_off, 16, 8);
	pin(struct fm_intent_disk, old_off, 24, 8);
	pin(struct fm_intents_disk, magic, 0, 4);
	pin(struct fm_intents_disk, crc, 4, 4);
	pin(struct fm_intents_disk, self_off, 8, 8);
	pin(struct fm_intents_disk, intent, 32, 255 * 32);
	assert_int_equal(FM_INTENTS_MAGIC, 0x4e544e49);
	pin(struct fm_magazine_disk, count, 0, 4);
	pin(struct fm_magazine_disk, slot, 8, 63 * 8);
	pin(struct fm_lane_disk, magic, 0, 4);
	pin(struct fm_lane_disk, crc, 4, 4);
	pin(struct fm_lane_disk, self_off, 8, 8);
	pin(struct fm_lane_disk, next_off, 16, 8);
	pin(struct fm_lane_disk, magazine, 64, 54 * 512);
	assert_int_equal(FM_LANE_MAGIC, 0x454e414c);
	assert_int_equal(FM_LANE_NPAGES, 7);
}

static void geometry_is_what_it_was(void **state)
{
	(void)state;
	assert_memory_equal(FM_MAGIC, "FMALLOC1", 8);
	assert_int_equal(FM_BYTE_ORDER_MARK, 0x01020304);
	assert_int_equal(FM_VERSION, 1);
	assert_int_equal(FM_PAGE_LEN, 4096);
	assert_int_equal(FM_SLAB_LEN, 65536);
	assert_int_equal(FM_ZONE_LEN, 67108864);
	assert_int_equal(FM_MAX_NZONES, 16384);
	assert_int_equal(FM_APP_OFF, 4096);
	assert_int_equal(FM_APP_LEN, 4096);
	assert_int_equal(FM_HEAP_OFF, 8192);
	assert_int_equal(FM_ZONEDIR_OFF, 16384);
	assert_int_equal(FM_ZONEDIR_LEN, 32768);
	assert_int_equal(FM_ZONE_TABLE_OFF, 65536);
	assert_int_equal(FM_ZONE_TABLE_LEN, 65536);
	assert_int_equal(FM_ZONE_BITMAP_OFF, 131072);
	assert_int_equal(FM_ZONE_BITMAP_LEN, 524288);
	assert_int_equal(FM_ZONE_DATA_OFF, 655360);
	assert_int_equal(FM_ZONE_MAGIC, 0x454e4f5a);
	assert_int_equal(FM_ZONE0_HEADER_OFF, 2048);
	assert_int_equal(FM_CHUNK_LEN, 2097152);
	assert_int_equal(FM_SECOND_OFF, 256);
	assert_int_equal(FM_TINY_SECOND_OFF, 65024);
	assert_int_equal(FM_TINY_NBLOCKS, 4064);
	assert_int_equal(FM_COMPAT_TINY, 1);
	assert_int_equal(FM_RO_COMPAT_SECOND, 1);
	assert_int_equal(FM_INCOMPAT_ATOMIC, 1);
	assert_int_equal(FM_LOG_MAGIC, 0x474f4c46);
	assert_int_equal(FM_RECORD_MAGIC, 0x54494d43);
	assert_int_equal(FM_LOG_NPAGES_MIN, 64);
	assert_int_equal(offsetof(struct fm_log_disk, next_off), 24);
	assert_int_equal(offsetof(struct fm_log_disk, free_off), 32);
	assert_int_equal(offsetof(struct fm_log_disk, lap), 512);
	assert_int_equal(offsetof(struct fm_lap_disk, salt), 8);
	assert_int_equal(offsetof(struct fm_lap_disk, seq), 16);
	assert_int_equal(offsetof(struct fm_lap_disk, crc), 24);
	assert_int_equal(offsetof(struct fm_record_disk, salt), 8);
	assert_int_equal(offsetof(struct fm_record_disk, seq), 16);
	assert_int_equal(offsetof(struct fm_record_disk, len), 24);
	assert_int_equal(FM_RUN(8, 1), (UINT64_C(1) << 40) + 1);
	assert_int_equal(FM_RUN_OFF(FM_RUN(4096, 5)), 4096);
	assert_int_equal(FM_RUN_NWORDS(FM_RUN(4096, 5)), 5);
}

static void table_entries_are_packed_as_they_were(void **state)
{
	(void)state;
	assert_int_equal(FM_EXTENT(FM_EXTENT_SLAB, 53, 16), 0x10351);
	assert_int_equal(FM_EXTENT(FM_EXTENT_RUN, 0, 16224), 0x3f60002);
	assert_int_equal(FM_EXTENT(FM_EXTENT_META, 0, 16), 0x10003);
	assert_int_equal(FM_EXTENT_KIND(0xfffff351u), FM_EXTENT_SLAB);
	assert_int_equal(FM_EXTENT_CLASS(0x10351), 53);
	assert_int_equal(FM_EXTENT_NPAGES(0xfffff351u), 0xfffff);
	assert_int_equal(FM_ZONE_UNUSED, 0);
	assert_int_equal(FM_ZONE_NORMAL, 1);
	assert_int_equal(FM_ZONE_HUGE, 2);
	assert_int_equal(FM_ZONE_HUGE_MORE, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(super_fields_are_where_they_were),
		cmocka_unit_test(writer_and_zone_fields_are_where_they_were),
		cmocka_unit_test(root_fields_are_where_they_were),
		cmocka_unit_test(intents_and_lanes_are_where_they_were),
		cmocka_unit_test(geometry_is_what_it_was),
		cmocka_unit_test(table_entries_are_packed_as_they_were),
	};

	return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
