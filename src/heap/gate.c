/* SPDX-License-Identifier: Apache-2.0 */
/* A counter that threads wait on by futex(2). */
#include <config.h>

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "heap/gate.h"

#define GATE_CLOSED 0x80000000u

static void wait_while(uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void gate_leave(struct gate *g)
{
	/* The last one lets the closer go on. */
	if (__atomic_sub_fetch(&g->word, 1, __ATOMIC_SEQ_CST) == GATE_CLOSED)
		wake_all(&g->word);
}

void gate_enter(struct gate *g)
{
	uint32_t word;

	while (__atomic_add_fetch(&g->word, 1, __ATOMIC_SEQ_CST) & GATE_CLOSED) {
		gate_leave(g);
		while ((word = __atomic_load_n(&g->word, __ATOMIC_SEQ_CST)) &
		       GATE_CLOSED)
			wait_while(&g->word, word);
	}
}

void gate_close(struct gate *g)
{
	uint32_t word = __atomic_or_fetch(&g->word, GATE_CLOSED, __ATOMIC_SEQ_CST);

	while (word != GATE_CLOSED) {
		wait_while(&g->word, word);
		word = __atomic_load_n(&g->word, __ATOMIC_SEQ_CST);
	}
}

bool gate_try_close(struct gate *g)
{
	uint32_t none = 0;

	return __atomic_compare_exchange_n(&g->word, &none, GATE_CLOSED, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

void gate_open(struct gate *g)
{
	__atomic_and_fetch(&g->word, ~GATE_CLOSED, __ATOMIC_SEQ_CST);
	wake_all(&g->word);
}
