/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list that only grows, to tell whether a copy of its pool is a moment.
 *
 *   list-tool append POOL N    append N nodes, numbered from 0 or from where the
 *                              list ends; forever if N is 0, in bursts that become
 *                              rarer: the disk is small, and who takes snapshots
 *                              may be slow.  Says "ready" at first
 *   list-tool length POOL      open read-only, follow the list, print how many
 *                              nodes it has; fails if it is not a sound prefix
 *
 * A node is complete before it is linked, so at every moment the list is
 * 0, 1, ..., n - 1; and the pool's tail root follows with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fmalloc.h>

#define PAD 200			/* several nodes a page, several pages soon */
#define BURST 50		/* nodes, then a pause of ... */
#define PAUSE_US(i) (1000 + (i) / 20)	/* 450,000 nodes in 100 s */

struct node {
	uint64_t number;
	uint64_t sum;		/* of the numbers up to here */
	FM_PTR(struct node) next;
	char pad[PAD];
};

static int fail(void)
{
	fprintf(stderr, "list-tool: %s\n", fm_errmsg());
	return 1;
}

static struct node *make_node(struct fm_info *fi, uint64_t number, uint64_t sum)
{
	struct node *n = fmalloc_in(fi, sizeof(*n));

	if (n == NULL)
		return NULL;
	n->number = number;
	n->sum = sum + number;
	fm_set(n->next, NULL);
	memset(n->pad, (int)(number & 255), sizeof(n->pad));
	return n;
}

static struct node *last_of(struct node *n)
{
	while (fm_get(n->next) != NULL)
		n = fm_get(n->next);
	return n;
}

static int append(const char *path, unsigned long count)
{
	struct fm_info *fi = fmalloc_init(path, NULL);
	struct node *head, *last, *n;
	unsigned long i;

	if (fi == NULL)
		return fail();
	head = fm_root_get(fi, "list", "node");
	if (head == NULL) {
		head = make_node(fi, 0, 0);
		if (head == NULL || fm_root_set(fi, "list", head, "node") < 0)
			return fail();
	}
	puts("ready");
	fflush(stdout);
	last = last_of(head);
	for (i = 0; count == 0 || i < count; i++) {
		n = make_node(fi, last->number + 1, last->sum);
		if (n == NULL)
			return fail();
		/* All of the node before the link to it. */
		__atomic_thread_fence(__ATOMIC_RELEASE);
		fm_set(last->next, n);
		last = n;
		if (count == 0 && i % BURST == 0)
			usleep(PAUSE_US(i));
	}
	return fmalloc_close(fi) < 0 ? fail() : 0;
}

static int length(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_RDONLY, NULL);
	uint64_t number = 0, sum = 0;
	struct node *n;
	size_t i;

	if (fi == NULL)
		return fail();
	n = fm_root_get(fi, "list", "node");
	if (n == NULL)
		return fail();
	for (; n != NULL; n = fm_get(n->next), number++) {
		sum += number;
		if (n->number != number || n->sum != sum) {
			fprintf(stderr, "list-tool: node %lu says it is %lu\n",
				(unsigned long)number, (unsigned long)n->number);
			return 1;
		}
		for (i = 0; i < sizeof(n->pad); i++)
			if (n->pad[i] != (char)(number & 255)) {
				fprintf(stderr, "list-tool: node %lu is torn\n",
					(unsigned long)number);
				return 1;
			}
		/* Linked, but not allocated: the heap is of another moment. */
		if (fmalloc_usable_size(n) < sizeof(*n)) {
			fprintf(stderr, "list-tool: node %lu is not allocated\n",
				(unsigned long)number);
			return 1;
		}
	}
	printf("%lu\n", (unsigned long)number);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "append") == 0)
		return append(argv[2], strtoul(argv[3], NULL, 0));
	if (argc == 3 && strcmp(argv[1], "length") == 0)
		return length(argv[2]);
	fprintf(stderr, "usage: list-tool append POOL N | length POOL\n");
	return 2;
}
