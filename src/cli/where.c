/* SPDX-License-Identifier: Apache-2.0 */
/* What a path is by where it is. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "fuse/store.h"

/* Whether names with '@' are those of snapshots there, and no pool's: at a mount, and
 * in a store. */
static bool has_snapshots(const char *path)
{
	struct fmfs_info info;

	return store_has(path) || ask_info_at(path, &info) == 0;
}

bool cli_is_snapshot(const char *path)
{
	char *real = realpath(path, NULL);
	bool is = real != NULL && strchr(strrchr(real, '/'), '@') != NULL &&
		  has_snapshots(real);

	free(real);
	return is;
}
