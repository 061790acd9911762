/* SPDX-License-Identifier: Apache-2.0 */
/* How late it is, and waiting until. */
#ifndef FM_COMMON_CLOCK_H
#define FM_COMMON_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Nanoseconds since some moment; CLOCK_MONOTONIC. */
static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static inline struct timespec clock_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

/* For so long, unless a signal comes. */
static inline void clock_sleep(uint64_t ns)
{
	const struct timespec t = clock_timespec(ns);

	nanosleep(&t, NULL);
}

/* A condition that is waited for by this clock. */
static inline void clock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* As pthread_cond_timedwait(3), for one of these. */
static inline int clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock,
				  uint64_t until_ns)
{
	const struct timespec until = clock_timespec(until_ns);

	return pthread_cond_timedwait(cond, lock, &until);
}

#endif
