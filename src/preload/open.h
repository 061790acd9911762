/* SPDX-License-Identifier: Apache-2.0 */
/* The pool that the program's memory comes from. */
#ifndef FM_PRELOAD_OPEN_H
#define FM_PRELOAD_OPEN_H

#include <stdbool.h>

/* Whether the pool is open, and is the target of all threads. */
extern bool open_done __attribute__((visibility("hidden")));

#endif
