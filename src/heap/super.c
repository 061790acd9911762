/* SPDX-License-Identifier: Apache-2.0 */
/* Making and judging the first page of a pool. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/crc32c.h"
#include "heap/error.h"
#include "heap/heap.h"

static uint32_t crc_of(const struct fm_super_disk *super)
{
	return crc32c(0, super, offsetof(struct fm_super_disk, crc));
}

int super_make(struct fm_super_disk *super)
{
	struct timespec now;

	memset(super, 0, sizeof(*super));
	memcpy(super->magic, FM_MAGIC, sizeof(super->magic));
	super->byte_order = FM_BYTE_ORDER_MARK;
	super->version = FM_VERSION;
	super->compat = FM_COMPAT_TINY;
	if (getrandom(super->uuid, sizeof(super->uuid), 0) != sizeof(super->uuid))
		return err_sys(EIO, "random bytes for the UUID");
	super->uuid[6] = (super->uuid[6] & 0x0f) | 0x40;	/* RFC 4122, */
	super->uuid[8] = (super->uuid[8] & 0x3f) | 0x80;	/* version 4 */
	clock_gettime(CLOCK_REALTIME, &now);
	super->created_ns = now.tv_sec * 1000000000ull + now.tv_nsec;
	super->page_shift = FM_PAGE_SHIFT;
	super->slab_shift = FM_SLAB_SHIFT;
	super->zone_shift = FM_ZONE_SHIFT;
	super->nclasses = SIZECLASS_N;
	super->classes_crc = sizeclass_crc();
	super_renew(super);

	super->heap_end = FM_ZONE_DATA_OFF;
	super->zone0.magic = FM_ZONE_MAGIC;
	super->zone0.npages_reserved = FM_ZONE_HEAD_NPAGES;
	return 0;
}

void super_renew(struct fm_super_disk *super)
{
	super->ro_compat |= FM_RO_COMPAT_SECOND;
	super->crc = crc_of(super);
}

int super_check(const struct fm_super_disk *super)
{
	if (memcmp(super->magic, FM_MAGIC, sizeof(super->magic)) != 0)
		return err_set(EINVAL, "it is not a pool (no magic number)");
	if (super->byte_order == __builtin_bswap32(FM_BYTE_ORDER_MARK))
		return err_set(ENOTSUP, "the pool was made for the other byte order");
	if (super->crc != crc_of(super))
		return err_set(EUCLEAN, "the pool is damaged: bad checksum of the"
			       " super at offset 0");
	if (super->byte_order != FM_BYTE_ORDER_MARK)
		return err_set(EUCLEAN, "the pool is damaged: bad byte order mark");
	if (super->version != FM_VERSION)
		return err_set(ENOTSUP, "the pool has format version %" PRIu32
			       "; this library knows version %u",
			       super->version, FM_VERSION);
	if ((super->incompat & ~FM_INCOMPAT_KNOWN) != 0)
		return err_set(ENOTSUP, "the pool has features that this library"
			       " does not know (incompat bits %#" PRIx64 ")",
			       super->incompat & ~FM_INCOMPAT_KNOWN);
	if (super->page_shift != FM_PAGE_SHIFT || super->slab_shift != FM_SLAB_SHIFT ||
	    super->zone_shift != FM_ZONE_SHIFT || super->nclasses != SIZECLASS_N ||
	    super->classes_crc != sizeclass_crc())
		return err_set(ENOTSUP, "the pool has another geometry than this"
			       " library");
	if (super->heap_end < FM_ZONE_DATA_OFF || super->heap_end % FM_PAGE_LEN != 0 ||
	    super->heap_end > FM_MAX_NZONES * FM_ZONE_LEN)
		return err_set(EUCLEAN, "the pool is damaged: its heap ends at %"
			       PRIu64, super->heap_end);
	return 0;
}
