/* SPDX-License-Identifier: Apache-2.0 */
/* The calling thread's last failure in words. */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "heap/error.h"

#define WORDS_LEN 512

static __thread char words[WORDS_LEN];

int err_set(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	return -err;
}

/* Add ": more" to the message, as far as it fits. */
static void append(const char *more)
{
	strncat(words, ": ", sizeof(words) - 1 - strlen(words));
	strncat(words, more, sizeof(words) - 1 - strlen(words));
}

int err_sys(int err, const char *fmt, ...)
{
	char why[96];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	if (err_is_dead(err)) {
		append("the daemon of its mount has ended");
		return -ENOTCONN;
	}
	/* The GNU strerror_r, which may or may not use the buffer. */
	append(strerror_r(err, why, sizeof(why)));
	return -err;
}

int err_in(int rc, const char *fmt, ...)
{
	char rest[WORDS_LEN];
	va_list ap;

	memcpy(rest, words, sizeof(rest));
	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	append(rest);
	return rc;
}

void err_clear(void)
{
	words[0] = '\0';
}

const char *err_words(void)
{
	return words;
}
