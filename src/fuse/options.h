/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a mount. */
#ifndef FM_FUSE_OPTIONS_H
#define FM_FUSE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct mount_options {
	const char *store;
	const char *mountpoint;
	bool foreground;
	bool debug;
	bool verbose;
	bool fake; /* mount -f: do all but mount */
	bool help;
	const char *takes; /* is this version of a state taken over?  handover.h */
	bool sloppy; /* mount -s: unknown options are no error */
	bool readonly;
	bool atomic;
	bool no_passthrough;
	double attr_timeout;  /* seconds */
	double entry_timeout; /* seconds */
	unsigned int max_stall; /* milliseconds; 0: no matter how long */
	unsigned int max_threads;
	uint64_t max_pool;  /* bytes; 0: no limit */
	uint64_t max_store; /* bytes; 0: no limit */
	char *fuse; /* for libfuse and the kernel, with commas; allocated */
};

/* Is it as the helper of mount(8) that the program was called, by this name? */
bool options_is_helper(const char *argv0);

/* 0, or -EINVAL or -ENOMEM after a message. */
int options_parse(struct mount_options *o, int argc, char **argv);
void options_free(struct mount_options *o);
void options_print_help(void);

/* A value with "\\" before every comma and backslash; NULL: no memory. */
char *options_escape(const char *word);

#endif
