/* SPDX-License-Identifier: Apache-2.0 */
/* Each way through the allocator that is not the short one. */
#ifndef FM_TESTS_SCENARIOS_H
#define FM_TESTS_SCENARIOS_H

#include "crash/bench.h"

extern const struct scenario scenarios[];	/* to one without a name */
/* Those of two threads. */
extern const struct scenario pairs[];
/* Of this name, or NULL. */
const struct scenario *scenario_find(const char *name);

#endif
