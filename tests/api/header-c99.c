/* SPDX-License-Identifier: Apache-2.0 */
/* fmalloc.h compiles alone, as the first thing a C program includes. */
#include <fmalloc.h>

struct header_c99 {
	FM_PTR(struct header_c99) next;
};

int header_c99(void);

int header_c99(void)
{
	struct header_c99 n;

	fm_set(n.next, NULL);
	return fm_get(n.next) == NULL;
}
