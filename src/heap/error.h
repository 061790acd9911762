/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words behind an errno, one message a thread.  The function that meets a
 * failure sets them; each caller may put before them what it was about to do.
 */
#ifndef FM_HEAP_ERROR_H
#define FM_HEAP_ERROR_H

#include <errno.h>
#include <stdbool.h>

/* Set the message; returns -err. */
int err_set(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same, followed by what strerror(3) says of err. */
int err_sys(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Whether errno says that the daemon of a mount is dead; the second is of requests that
 * it was at, which the message and the caller hear of as ENOTCONN. */
static inline bool err_is_dead(int err)
{
	return err == ENOTCONN || err == ECONNABORTED;
}

/* Put "words: " before the message; returns rc. */
int err_in(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What failed was no failure. */
void err_clear(void);

const char *err_words(void);

#endif
