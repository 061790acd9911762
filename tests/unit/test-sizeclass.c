/* SPDX-License-Identifier: Apache-2.0 */
/* Size classes: every size and every offset there is. */
#include <config.h>

#include "scratch.h"

#include "heap/sizeclass.h"

static void every_size_gets_the_smallest_class_that_fits(void **state)
{
	unsigned cls = 0;
	size_t size;

	(void)state;
	for (size = 1; size <= SIZECLASS_MAX; size++) {
		while (sizeclass_table[cls].size < size)
			cls++;
		assert_int_equal(sizeclass_of(size), cls);
	}
	assert_int_equal(cls, SIZECLASS_N - 1);
	assert_int_equal(sizeclass_table[cls].size, SIZECLASS_MAX);
}

static void index_is_the_quotient_for_every_offset(void **state)
{
	uint32_t off;
	unsigned cls;

	(void)state;
	for (cls = 0; cls < SIZECLASS_N; cls++)
		for (off = 0; off < FM_SLAB_LEN; off++)
			if (sizeclass_index(cls, off) != off / sizeclass_table[cls].size)
				fail_msg("class %u, offset %u", cls, off);
}

static void sizes_are_multiples_of_16_and_ascend(void **state)
{
	unsigned cls;

	(void)state;
	for (cls = 0; cls < SIZECLASS_N; cls++) {
		assert_int_equal(sizeclass_table[cls].size % 16, 0);
		assert_int_equal(sizeclass_table[cls].nblocks,
				 FM_SLAB_LEN / sizeclass_table[cls].size);
		assert_true(cls == 0 || sizeclass_table[cls].size >
						sizeclass_table[cls - 1].size);
		assert_true(sizeclass_table[cls].nblocks <= FM_BITMAP_LEN * 8);
	}
}

/* Steps of 16 bytes cannot waste more than 15; above, a quarter at most. */
static void waste_is_bounded(void **state)
{
	uint32_t size, block, used;
	unsigned cls;

	(void)state;
	for (size = 1; size <= SIZECLASS_MAX; size++) {
		block = sizeclass_table[sizeclass_of(size)].size;
		assert_true(block - size < 16 || (block - size) * 4 <= block);
	}
	for (cls = 0; cls < SIZECLASS_N; cls++) {
		used = sizeclass_table[cls].size * sizeclass_table[cls].nblocks;
		assert_true((FM_SLAB_LEN - used) * 32 <= FM_SLAB_LEN);
	}
}

/* The sum stands in every pool: another one means another format. */
static void table_has_the_checksum_of_version_1(void **state)
{
	(void)state;
	assert_int_equal(sizeclass_crc(), 0x950679a7u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_gets_the_smallest_class_that_fits),
		cmocka_unit_test(index_is_the_quotient_for_every_offset),
		cmocka_unit_test(sizes_are_multiples_of_16_and_ascend),
		cmocka_unit_test(waste_is_bounded),
		cmocka_unit_test(table_has_the_checksum_of_version_1),
	};

	return cmocka_run_group_tests_name("sizeclass", tests, NULL, NULL);
}
