/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a program: to standard error, or to syslog once it has become a
 * daemon.  One line each, no newline at the end of the format.
 */
#ifndef FM_COMMON_LOG_H
#define FM_COMMON_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Messages start with `ident` (which must stay valid); those less important
 * than `level` are dropped.  Before the first call: "fmfs", warnings. */
void log_init(const char *ident, enum log_level level);

/* From here on to syslog. */
void log_to_syslog(void);

void log_msg(enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void log_vmsg(enum log_level level, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

#define log_error(...) log_msg(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LEVEL_DEBUG, __VA_ARGS__)

/*
 * For what anybody can cause as often as he likes: true at most LOG_BURST
 * times in LOG_PERIOD_S seconds for one `limit` (static, zero at first).
 *
 *     static struct log_limit limit;
 *     if (log_allowed(&limit))
 *             log_warn(...);
 */
#define LOG_BURST 10
#define LOG_PERIOD_S 60
struct log_limit {
	uint64_t period_ns; /* when the period began */
	unsigned int n;     /* messages since */
};
bool log_allowed(struct log_limit *limit);

#endif
