/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named roots, and two pools open at once.  Each pool gets a list and two roots
 * that lead to it.  The lists are then walked a step here and a step there:
 * every fm_ptr finds its own pool, so nobody says which one is meant.
 *
 *	c++ roots.cpp -o roots $(pkg-config --cflags --libs fmalloc)
 *	./roots POOL-1 POOL-2
 *
 * The first run writes, every further run finds all of it again.
 */
#include <fmalloc.hpp>

#include <errno.h>
#include <new>

struct entry {
	char name[24];
	fm_ptr<entry> next;
};

struct counter {
	int nruns;
};

/* The types that the roots are given, and checked for. */
#define ENTRY_TYPE "struct entry"
#define COUNTER_TYPE "struct counter"

static const char *const people[] = { "Ada", "Barbara", "Grace", NULL };
static const char *const places[] = { "Athens", "Bergen", "Cairo", NULL };

static void die()
{
	fprintf(stderr, "roots: %s\n", fm_errmsg());
	exit(1);
}

template <class T> static T *allocate(fm_info *fi)
{
	void *mem = fmalloc_in(fi, sizeof(T));

	if (mem == NULL)
		die();
	return new (mem) T();
}

static void set_root(fm_info *fi, const char *name, void *ptr, const char *type)
{
	if (fm_root_set(fi, name, ptr, type) < 0)
		die();
}

/* The object of the root, NULL if there is no such root. */
template <class T> static T *get_root(fm_info *fi, const char *name, const char *type)
{
	void *ptr = fm_root_get(fi, name, type);

	if (ptr == NULL && errno != ENOENT)
		die();
	return static_cast<T *>(ptr);
}

/* The list first, its root last: a root leads to something complete. */
static void write_pool(fm_info *fi, const char *const *names)
{
	fm_ptr<entry> *link;
	entry *first = NULL;

	for (link = NULL; *names != NULL; names++) {
		entry *e = allocate<entry>(fi);

		snprintf(e->name, sizeof(e->name), "%s", *names);
		if (link == NULL)
			first = e;
		else
			*link = e;
		link = &e->next;
	}
	set_root(fi, "runs", allocate<counter>(fi), COUNTER_TYPE);
	set_root(fi, "first", first, ENTRY_TYPE);
	if (fmalloc_commit(fi) < 0)
		die();
}

static fm_info *open_pool(const char *path, const char *const *names)
{
	fm_info *fi = fmalloc_open(path, FM_CREATE, NULL);

	if (fi == NULL)
		die();
	if (get_root<entry>(fi, "first", ENTRY_TYPE) == NULL) {
		printf("%s: writing\n", path);
		write_pool(fi, names);
	}
	get_root<counter>(fi, "runs", COUNTER_TYPE)->nruns++;
	return fi;
}

static int print_root(const char *name, void *ptr, const char *type, void *arg)
{
	fm_info *fi = static_cast<fm_info *>(arg);

	printf("  %-5s  %-14s  at offset %td\n", name, type,
	       static_cast<char *>(ptr) - static_cast<char *>(fi->mem));
	return 0;
}

static void print_pool(const char *path, fm_info *fi)
{
	printf("%s: run %d, roots:\n", path,
	       get_root<counter>(fi, "runs", COUNTER_TYPE)->nruns);
	if (fm_root_each(fi, print_root, fi) < 0)
		die();
}

int main(int argc, char **argv)
{
	fm_info *a, *b;
	entry *x, *y;

	if (argc != 3) {
		fprintf(stderr, "usage: roots POOL-1 POOL-2\n");
		return 2;
	}
	a = open_pool(argv[1], people);
	b = open_pool(argv[2], places);
	print_pool(argv[1], a);
	print_pool(argv[2], b);

	printf("both lists, alternately:\n");
	x = get_root<entry>(a, "first", ENTRY_TYPE);
	y = get_root<entry>(b, "first", ENTRY_TYPE);
	for (; x != NULL && y != NULL; x = x->next, y = y->next)
		printf("  %-8s %s\n", x->name, y->name);

	/* A root has the type it was set with, or there is an error. */
	if (fm_root_get(a, "first", COUNTER_TYPE) == NULL && errno == EPROTOTYPE)
		printf("asked for another type: %s\n", fm_errmsg());
	fmalloc_close(a);
	fmalloc_close(b);
	return 0;
}
