/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to standard error or syslog. */
#include <config.h>

#include <pthread.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>

#include "common/log.h"

static const char *log_ident = "fmfs";
static enum log_level log_threshold = LOG_LEVEL_WARN;
static bool log_syslog;

void log_init(const char *ident, enum log_level level)
{
	log_ident = ident;
	log_threshold = level;
}

void log_to_syslog(void)
{
	openlog(log_ident, LOG_PID, LOG_DAEMON);
	log_syslog = true;
}

void log_vmsg(enum log_level level, const char *fmt, va_list ap)
{
	static const int priority[] = {
		[LOG_LEVEL_ERROR] = LOG_ERR,
		[LOG_LEVEL_WARN] = LOG_WARNING,
		[LOG_LEVEL_INFO] = LOG_INFO,
		[LOG_LEVEL_DEBUG] = LOG_DEBUG,
	};
	char line[1024];

	if (level > log_threshold)
		return;
	if (log_syslog) {
		vsyslog(priority[level], fmt, ap);
		return;
	}
	/* One call, so that lines of several threads do not mix. */
	vsnprintf(line, sizeof(line), fmt, ap);
	fprintf(stderr, "%s: %s\n", log_ident, line);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vmsg(level, fmt, ap);
	va_end(ap);
}

bool log_allowed(struct log_limit *limit)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct timespec ts;
	uint64_t now;
	bool ok;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = ts.tv_sec * 1000000000ull + ts.tv_nsec;
	pthread_mutex_lock(&lock);
	if (limit->n == 0 || now - limit->period_ns > LOG_PERIOD_S * 1000000000ull) {
		limit->period_ns = now;
		limit->n = 0;
	}
	ok = limit->n < LOG_BURST;
	if (ok)
		limit->n++;
	pthread_mutex_unlock(&lock);
	return ok;
}
