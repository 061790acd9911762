/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes and descriptors by which one daemon tells the next what it knows: written
 * value by value, and read in the same order.
 *
 * A failure (no memory; at reading, an end too early, or a number that cannot be) sticks:
 * all that is read after it is 0, and who reads asks once, at the end of a list, whether
 * what he has is good.  No lock: one thread at a time.
 */
#ifndef FM_FUSE_STATE_H
#define FM_FUSE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state {
	unsigned char *mem;
	size_t len, size; /* bytes used, and in all */
	size_t pos;       /* reading: of the next */
	int *fd;          /* writing: borrowed; reading: to be closed, or -1: taken */
	size_t nfds, max_fds;
	size_t kept; /* of the descriptors, by the service manager: handover.c */
	bool failed;
};

/* Frees the memory and closes the descriptors that were read and not taken; not those that
 * were put. */
void state_free(struct state *s, bool read);

void state_put(struct state *s, uint64_t value);
void state_put_bytes(struct state *s, const void *bytes, size_t len);
void state_put_text(struct state *s, const char *text); /* NULL is not "" */
void state_put_fd(struct state *s, int fd);             /* -1: none */

uint64_t state_get(struct state *s);
/* At most max bytes, in place: they live as long as the state.  NULL: failed. */
const void *state_get_bytes(struct state *s, size_t max, size_t *len);
char *state_get_text(struct state *s); /* to be freed */
int state_get_fd(struct state *s);     /* the caller's from here on */

#endif
