/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service manager (systemd) is told, and keeps for us: sd_notify(3) and
 * sd_listen_fds(3).  Where there is no service manager nothing happens.
 */
#ifndef FM_FUSE_SERVICE_H
#define FM_FUSE_SERVICE_H

#include <stdbool.h>
#include <stddef.h>

/* It asked us for something, and that is done: we serve, or go on serving. */
void service_ready(void);
/* We do what it asked for, until service_ready(). */
void service_reloading(void);

/*
 * Would it keep so many descriptors until we are started again?  $FDSTORE says how many
 * (systemd 254 sets it, from FileDescriptorStoreMax=; before, the unit has to).
 */
bool service_keeps(size_t nfds);

/*
 * Have a descriptor kept under a name; or no more: 0 or -errno.  What was kept and what
 * not is certain after service_wait(), which waits until all that was said is understood.
 */
int service_keep(const char *name, int fd);
int service_drop(const char *name);
int service_wait(void);

/* Call fn for each descriptor that was kept for this process, which is to close it. */
void service_each_kept(void (*fn)(const char *name, int fd, void *arg), void *arg);

#endif
