/* SPDX-License-Identifier: Apache-2.0 */
/*
 * touch-freed HOW POOL: a program with one mistake, for AddressSanitizer or Valgrind
 * to see; or with none.
 */
#include <stdio.h>
#include <string.h>

#include <fmalloc.h>

static int touch(volatile char *p)
{
	*p = 1;
	return *p;
}

/* What a program may do, all of it. */
static int nothing_wrong(const char *path)
{
	char *p, *q, *big;
	struct fm_info *fi;
	int i;

	for (i = 0; i < 3; i++) {
		fi = fmalloc_init(path, NULL);
		if (fi == NULL)
			return 1;
		p = fcalloc(1, 100);
		memset(p, 1, 100);
		q = fm_root_alloc(fi, "root", 333, "");
		memset(q, 2, 333);
		p = frealloc(p, 3000);
		memset(p, 3, 3000);
		memset(p, 4, fmalloc_usable_size(p));
		big = fmalloc(300000);
		memset(big, 5, 300000);
		big = frealloc(big, 900000);
		memset(big, 6, 900000);
		ffree(big);
		ffree(p);
		big = fmalloc(80 << 20);
		memset(big, 7, 5000);
		ffree(big);
		memset(fmalloc(16), 8, 16);
		if (fm_trim(fi) < 0 || fmalloc_close(fi) < 0)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	char *p;

	if (argc != 3)
		return 2;
	if (strcmp(how, "nothing") == 0)
		return nothing_wrong(argv[2]);
	if (fmalloc_init(argv[2], NULL) == NULL) {
		fprintf(stderr, "%s\n", fm_errmsg());
		return 1;
	}
	p = fmalloc(strcmp(how, "freed-run") == 0 ? 50000 : 100);
	if (p == NULL)
		return 1;
	if (strcmp(how, "freed") == 0 || strcmp(how, "freed-run") == 0) {
		ffree(p);
		return touch(p + 10);
	}
	if (strcmp(how, "reused") == 0) {
		ffree(p);
		fmalloc(100);
		return touch(p + 10);
	}
	if (strcmp(how, "beyond") == 0)
		return touch(p + 100);
	if (strcmp(how, "never") == 0)
		return touch(p + 112 * 5);
	return 2;
}
