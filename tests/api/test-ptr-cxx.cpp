/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fm_ptr: the C++ pool pointer.  One program, compiled for several versions of
 * the language; prints TAP by itself.
 */
#include <fmalloc.hpp>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static int ncases, nfailed;

static void check(bool good, const char *name, int line)
{
	ncases++;
	nfailed += !good;
	printf("%s %d - %s (line %d)\n", good ? "ok" : "not ok", ncases, name, line);
}

#define CHECK(cond) check((cond), #cond, __LINE__)

struct base {
	int val;
};

struct node : base {
	fm_ptr<node> next;
	fm_ptr<const char> name;
	fm_ptr<void> any;
};

struct __attribute__((packed)) packed {
	char c;
	fm_ptr<int> one;
	char d[2];
	fm_ptr<packed> two;
};

static struct fm_info *a, *b;

template <class T> static T *in(struct fm_info *fi)
{
	void *mem = fmalloc_in(fi, sizeof(T));

	if (mem == nullptr) {
		printf("Bail out! %s\n", fm_errmsg());
		exit(1);
	}
	memset(mem, 0, sizeof(T));
	return static_cast<T *>(mem);
}

static node *push(struct fm_info *fi, node *head, int val)
{
	node *n = in<node>(fi);

	n->val = val;
	n->next = head;
	return n;
}

static uint64_t raw(const void *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static void test_lists()
{
	node *x = nullptr, *y = nullptr;
	bool right = true;

	fmalloc_set_target(nullptr);
	for (int i = 0; i < 1000; i++) {
		x = push(a, x, i);
		y = push(b, y, -i);
	}
	for (int i = 999; i >= 0; i--, x = x->next, y = y->next)
		right = right && x->val == i && y->val == -i;
	CHECK(right && x == nullptr && y == nullptr);
}

static void test_operators()
{
	node *n = push(a, nullptr, 1), *m = push(a, n, 2);
	int *array = static_cast<int *>(fmalloc_in(a, 10 * sizeof(int)));
	fm_ptr<int> *p = in<fm_ptr<int>>(a);

	for (int i = 0; i < 10; i++)
		array[i] = i * i;
	*p = array;
	CHECK(raw(p) == (uint64_t)((char *)array - (char *)a->mem));
	CHECK(**p == 0 && (*p)[3] == 9);
	CHECK(*p == array && array == *p && !(*p != array));
	CHECK(*p >= array && *p <= array && !(*p < array) && !(*p > array));
	CHECK(*p < array + 1 && *p > 0);
	CHECK(!!*p && *p != nullptr && *p != NULL);
	/* The seed's arithmetic is in bytes. */
	CHECK(*p + 4 == array + 1);
	CHECK((uintptr_t)*p == (uintptr_t)array);
	(*p)[9] = 7;
	CHECK(array[9] == 7);
	CHECK(m->next->val == 1 && (*m->next).val == 1);
	int *plain;
	plain = p->get();
	CHECK(plain == array);
	void *any = *p;
	CHECK(any == array);
	m->next = NULL;
	CHECK(!m->next && m->next == nullptr && m->next == 0 && raw(&m->next) == 0);
	m->next = nullptr;
	CHECK(!m->next);
	m->next = 0;
	CHECK(!m->next);
	m->next = fmalloc_in(a, sizeof(node));	/* void *, without a cast */
	CHECK(!!m->next);
	m->any = m;
	CHECK(m->any == m && static_cast<node *>(m->any)->val == 2);
	char *text = static_cast<char *>(fmalloc_in(a, 8));
	strcpy(text, "text");
	m->name = text;
	CHECK(strcmp(m->name, "text") == 0 && m->name[1] == 'e');
	const fm_ptr<node> &constant = n->next;
	CHECK(constant == nullptr);
}

static void test_packed()
{
	packed *p = in<packed>(a), *q = in<packed>(a);
	int *i = in<int>(a);

	CHECK(sizeof(packed) == 19);
	p->one = i;
	p->two = q;
	*p->one = 4;
	p->two->c = 'q';
	CHECK(*i == 4 && q->c == 'q');
	CHECK(p->one == i && p->two == q);
	*q = *p;
	CHECK(q->one == i && q->two == q);
	CHECK(raw((char *)p + 1) == (uint64_t)((char *)i - (char *)a->mem));
}

static void test_copies()
{
	node *n = push(a, nullptr, 1), *m = push(a, n, 2), *o = push(b, nullptr, 3);

	for (int round = 0; round < 3; round++) {
		fmalloc_set_target(round == 0 ? a : round == 1 ? b : nullptr);
		fm_ptr<node> here = m->next;		/* out of the pool */
		CHECK(here == n && here->val == 1);
		m->next = nullptr;
		m->next = here;				/* and in again */
		CHECK(m->next == n && raw(&m->next) == (uint64_t)((char *)n - (char *)a->mem));
		fm_ptr<node> copy(here), other(o);
		CHECK(copy == here && copy == n && other == o && other->val == 3);
		copy = other;
		CHECK(copy == o);
		errno = 0;
		m->next = other;			/* into the wrong pool */
		CHECK(errno == EXDEV && !m->next);
		m->next = n;
		node local;
		local.next = n;
		node both = local;
		CHECK(both.next == n);
	}
	/* Chosen later, the target is another's: an address stays one. */
	fmalloc_set_target(a);
	fm_ptr<node> far = o;
	fmalloc_set_target(b);
	CHECK(far == o);
	int on_stack;
	errno = 0;
	fm_ptr<int> nowhere = &on_stack;
	CHECK(errno == EXDEV && !nowhere);
	fm_ptr<int> null;
	CHECK(!null && null == nullptr);
}

int main()
{
	char dir[] = "/tmp/fmalloc-test.XXXXXX";

	if (mkdtemp(dir) == nullptr || chdir(dir) != 0)
		return 1;
	a = fmalloc_open("a", FM_CREATE, nullptr);
	b = fmalloc_open("b", FM_CREATE, nullptr);
	if (a == nullptr || b == nullptr) {
		printf("Bail out! %s\n", fm_errmsg());
		return 1;
	}
	test_lists();
	test_operators();
	test_packed();
	test_copies();
	CHECK(fmalloc_close(a) == 0 && fmalloc_close(b) == 0);
	unlink("a");
	unlink("b");
	CHECK(chdir("/") == 0 && rmdir(dir) == 0);
	printf("1..%d\n", ncases);
	return nfailed != 0;
}
