/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing until all is done, whatever signals come. */
#ifndef FM_COMMON_RW_H
#define FM_COMMON_RW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Read len bytes at off, fewer only at the end of the file: how many, or -errno. */
ssize_t read_at(int fd, void *buf, size_t len, uint64_t off);

/* Write all of it: 0 or -errno; then some of it may be written. */
int write_at(int fd, const void *buf, size_t len, uint64_t off);

/* The same to where the file is, or to what has no offsets, as a pipe. */
int write_next(int fd, const void *buf, size_t len);

/* Have what is dirty of the range written, and wait for it: 0 or -errno.  That is for those
 * who would have to wait for it otherwise; it does not make anything durable. */
int flush_at(int fd, uint64_t off, uint64_t len);

#endif
