/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), as in iSCSI (RFC 3720, appendix B.4). */
#ifndef FM_COMMON_CRC32C_H
#define FM_COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` covers followed by buf; start with crc 0. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);
/* The checksum of what `crc` covers followed by len bytes whose checksum is `next`; and
 * by len zero bytes.  What they take hardly depends on len (some us). */
uint32_t crc32c_join(uint32_t crc, uint32_t next, uint64_t len);
uint32_t crc32c_zeros(uint32_t crc, uint64_t len);
/* As crc32c(), on any processor. */
uint32_t crc32c_by_table(uint32_t crc, const void *buf, size_t len);

#endif
