/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), as in iSCSI (RFC 3720, appendix B.4). */
#ifndef FM_COMMON_CRC32C_H
#define FM_COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` covers followed by buf; start with crc 0. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);
/* The same of len bytes that are all zero, in a time that hardly depends on len. */
uint32_t crc32c_zeros(uint32_t crc, uint64_t len);
/* As crc32c(), on any processor. */
uint32_t crc32c_by_table(uint32_t crc, const void *buf, size_t len);

#endif
