/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share: taking an input apart, files for pools, and
 * what space they have.
 */
#ifndef FM_TESTS_FUZZ_H
#define FM_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB (UINT64_C(1) << 20)

/* A check that fails is a finding: libFuzzer keeps the input that led to it. */
#define fuzz_check(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort(); \
		} \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- the bytes of an input -------------------------------------------------- */

struct input {
	const uint8_t *at;
	size_t left;
};

/* The next byte; 0 behind the end. */
static inline uint8_t take8(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->at++;
}

static inline uint16_t take16(struct input *in)
{
	uint16_t low = take8(in);

	return low | take8(in) << 8;
}

static inline uint64_t take64(struct input *in)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < 8; i++)
		v |= (uint64_t)take8(in) << i * 8;
	return v;
}

/* --- files (disk.c) --------------------------------------------------------- */

#define DISK_NFILES 3

/* Files in memory, and paths by which they can be opened. */
int disk_fd(unsigned i);
const char *disk_path(unsigned i);
/* Let the file be empty. */
void disk_clear(unsigned i);
/* A copy with holes for what has no data, as of a file at the moment of a kill. */
void disk_copy(unsigned from, unsigned to);
/* The same of what lies behind the end of the other. */
void disk_copy_tail(unsigned from, unsigned to);

/*
 * fallocate(2) of the library: nothing is really reserved, which would take most
 * of the time.  But it is remembered which pages have space, of the one file that
 * is of interest.
 */
#define DISK_LEN (512 * MIB)	/* there is no space for more */

/* That file is the one, and no page of it has space. */
void disk_watch(unsigned i);
/* From now on there is space for so many more requests. */
void disk_allow(unsigned nrequests);
/* From now on there is space again; and space can be given back, or not. */
void disk_can(bool punch);
/* Whether a request was refused since the last call. */
bool disk_refused(void);
/* Whether all pages of the file that a store into [off, off + len) needs have space:
 * a folio of the page cache, which may be a chunk, needs all of it. */
bool disk_backs(uint64_t off, uint64_t len);

#endif
