/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A linked list in a pool, in C.  The first run makes the pool and writes the
 * list, every further run finds it there and reads it.
 *
 *	cc list.c -o list-c $(pkg-config --cflags --libs fmalloc)
 *	./list-c POOL
 *
 * The list starts in the application region, the 4 KiB at mem + 4096, as in
 * list.cpp.  roots.cpp shows the other way: named roots.
 */
#include <fmalloc.h>

#include <stdio.h>
#include <stdlib.h>

#define APP_REGION_OFF 4096
#define NNODES 10

struct node {
	int val;
	FM_PTR(struct node) next;
};

/* What this program keeps in the application region: all zero in a new pool. */
struct app_super {
	FM_PTR(struct node) head;
};

static void die(void)
{
	fprintf(stderr, "list-c: %s\n", fm_errmsg());
	exit(1);
}

/* From the last node to the first: each is complete before anything refers to
 * it, so that being killed leaves no list rather than half of one. */
static void write_list(struct fm_info *fi, struct app_super *super)
{
	struct node *first = NULL, *n;
	int i;

	printf("writing list data...\n");
	for (i = NNODES; i-- > 0; first = n) {
		n = fmalloc_in(fi, sizeof(*n));
		if (n == NULL)
			die();
		n->val = i;
		fm_set(n->next, first);
	}
	fm_set(super->head, first);
	/* Without this the list survives the end of the process, but perhaps
	 * not that of the machine. */
	if (fmalloc_commit(fi) < 0)
		die();
	printf("done.\n");
}

static void read_list(const struct app_super *super)
{
	const struct node *n;

	printf("reading list data...\n");
	for (n = fm_get(super->head); n != NULL; n = fm_get(n->next))
		printf("%d\n", n->val);
	printf("done.\n");
}

int main(int argc, char **argv)
{
	struct app_super *super;
	struct fm_info *fi;

	if (argc != 2) {
		fprintf(stderr, "usage: list-c POOL\n");
		return 2;
	}
	fi = fmalloc_open(argv[1], FM_CREATE, NULL);
	if (fi == NULL)
		die();
	super = (struct app_super *)((char *)fi->mem + APP_REGION_OFF);
	/* Not "was the pool made just now?": the process that made it may have
	 * been killed before it had written the list. */
	if (fm_get(super->head) == NULL)
		write_list(fi, super);
	else
		read_list(super);
	return fmalloc_close(fi) < 0;
}
