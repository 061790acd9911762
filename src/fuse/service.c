/* SPDX-License-Identifier: Apache-2.0 */
/* Talking to a service manager. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "common/clock.h"
#include "fuse/service.h"

#define ANSWER_US 10000000 /* how long it may take to understand */

void service_ready(void)
{
	sd_notify(0, "READY=1");
}

void service_reloading(void)
{
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_ns() / 1000);
}

bool service_keeps(size_t nfds)
{
	const char *max = getenv("FDSTORE");

	return max != NULL && getenv("NOTIFY_SOCKET") != NULL &&
	       nfds <= strtoul(max, NULL, 10);
}

/* Of what libsystemd returns: 0 is that there is nobody to tell. */
static int told(int rc)
{
	return rc == 0 ? -ENOTCONN : rc < 0 ? rc : 0;
}

int service_keep(const char *name, int fd)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	return told(sd_pid_notify_with_fds(0, 0, text, &fd, 1));
}

int service_drop(const char *name)
{
	return told(sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name));
}

int service_wait(void)
{
	return told(sd_notify_barrier(0, ANSWER_US));
}

void service_each_kept(void (*fn)(const char *name, int fd, void *arg), void *arg)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < n; i++) {
		fn(names[i], SD_LISTEN_FDS_START + i, arg);
		free(names[i]);
	}
	free(names);
}
