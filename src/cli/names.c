/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of names. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

void names_add(struct name_list *l, char *name)
{
	if (l->n == l->max) {
		l->max = l->max ? 2 * l->max : 16;
		l->name = cli_realloc(l->name, l->max, sizeof(*l->name));
	}
	l->name[l->n++] = name;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void names_sort(struct name_list *l)
{
	if (l->n > 0)
		qsort(l->name, l->n, sizeof(*l->name), by_bytes);
}

void names_free(struct name_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->name[i]);
	free(l->name);
}
