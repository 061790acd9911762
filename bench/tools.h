/* SPDX-License-Identifier: Apache-2.0 */
/* What the C programs that measure share. */
#ifndef BENCH_TOOLS_H
#define BENCH_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

/* Seconds since some moment. */
double now_s(void);

/* Random, the same in every run: xorshift64 (Marsaglia). */
uint64_t rnd(void);

/* Of v[0] to v[n - 1], n > 0, which are sorted by this. */
double median(double *v, int n);

/* End the program unless ok, with a message of what failed, and why. */
void need(bool ok, const char *what, const char *why);

#endif
