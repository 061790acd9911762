/* SPDX-License-Identifier: Apache-2.0 */
/* How far something is that takes long. */
#include <config.h>

#include <unistd.h>

#include "cli/cli.h"
#include "common/clock.h"

#define NS_PER_S UINT64_C(1000000000)
#define INTERVAL_NS (NS_PER_S / 4)

void progress_begin(struct progress *p, bool quiet)
{
	*p = (struct progress){ .shown = !quiet && isatty(STDERR_FILENO) };
	p->begun_ns = p->last_ns = clock_ns();
}

void progress_show(void *arg, uint64_t done, uint64_t size)
{
	struct progress *p = arg;
	uint64_t now;

	if (!p->shown)
		return;
	now = clock_ns();
	if (now - p->last_ns < INTERVAL_NS)
		return;
	p->last_ns = now;
	p->is_there = true;
	fprintf(stderr, "\r%.1f of %.1f MiB, %.0f %%, %.0f MiB/s\033[K", done / 0x1p20,
		size / 0x1p20, size > 0 ? 100.0 * done / size : 100.0,
		done / 0x1p20 / ((now - p->begun_ns) / (double)NS_PER_S));
}

void progress_end(struct progress *p)
{
	if (p->is_there)
		fputs("\r\033[K", stderr);
	p->is_there = false;
}
