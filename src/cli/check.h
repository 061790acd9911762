/* SPDX-License-Identifier: Apache-2.0 */
/* What fmfs check is made of: pools (check.c), and stores (checkstore.c). */
#ifndef FM_CLI_CHECK_H
#define FM_CLI_CHECK_H

#include <stdbool.h>

struct json_list;

struct check_options {
	bool repair, verbose, json;
};

/* These print, or add to the list if --json, and return a cli_status. */
int check_pool(const char *path, const struct check_options *options,
	       struct json_list *list);
int check_store(const char *path, const struct check_options *options,
		struct json_list *list);

/* Of two such: what is to be done matters most. */
int check_worse(int a, int b);

#endif
