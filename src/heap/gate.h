/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brackets around changes of an atomic pool, and the gate that a commit closes: it
 * waits until no bracket is open, and none opens until it opens the gate again.
 */
#ifndef FM_HEAP_GATE_H
#define FM_HEAP_GATE_H

#include <stdbool.h>
#include <stdint.h>

struct gate {
	uint32_t word;		/* open brackets, and GATE_CLOSED; atomic */
};

void gate_enter(struct gate *g);
void gate_leave(struct gate *g);
/* By one thread at a time. */
void gate_close(struct gate *g);
/* The same if no bracket is open. */
bool gate_try_close(struct gate *g);
void gate_open(struct gate *g);

#endif
