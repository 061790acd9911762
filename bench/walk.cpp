/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk FILE: what following an fm_ptr costs.
 *
 * A list of 1M nodes in a new pool, each linked by an fm_ptr and by a plain
 * pointer to the same next node, is walked by the one and by the other in
 * turn.  Prints the medians and their ratio.
 */
#include <algorithm>
#include <stdint.h>
#include <time.h>
#include <vector>

#include <fmalloc.hpp>

struct node {
	fm_ptr<node> next;
	node *plain;
	uint64_t val;
};

static const size_t nnodes = 1000000;
static const int nrounds = 101;

static double now_ns()
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

__attribute__((noinline)) static uint64_t walk_fm_ptr(const node *n)
{
	uint64_t sum = 0;

	for (; n != nullptr; n = n->next)
		sum += n->val;
	return sum;
}

__attribute__((noinline)) static uint64_t walk_plain(const node *n)
{
	uint64_t sum = 0;

	for (; n != nullptr; n = n->plain)
		sum += n->val;
	return sum;
}

static double timed(uint64_t (*walk)(const node *), const node *head, uint64_t want)
{
	double start = now_ns();

	if (walk(head) != want) {
		fprintf(stderr, "walk: wrong sum\n");
		exit(1);
	}
	return (now_ns() - start) / nnodes;
}

static double median(std::vector<double> &v)
{
	std::sort(v.begin(), v.end());
	return v[v.size() / 2];
}

int main(int argc, char **argv)
{
	std::vector<double> fm, plain;
	node *head = nullptr;
	uint64_t sum = 0;
	fm_info *fi;

	if (argc != 2) {
		fprintf(stderr, "usage: walk NEW-POOL\n");
		return 2;
	}
	fi = fmalloc_open(argv[1], FM_CREATE | FM_EXCL, nullptr);
	if (fi == nullptr) {
		fprintf(stderr, "walk: %s\n", fm_errmsg());
		return 1;
	}
	for (size_t i = 0; i < nnodes; i++) {
		node *n = (node *)fmalloc_in(fi, sizeof(node));

		if (n == nullptr) {
			fprintf(stderr, "walk: %s\n", fm_errmsg());
			return 1;
		}
		n->next = head;
		n->plain = head;
		n->val = i;
		sum += i;
		head = n;
	}
	for (int i = 0; i < nrounds; i++) {
		fm.push_back(timed(walk_fm_ptr, head, sum));
		plain.push_back(timed(walk_plain, head, sum));
	}
	printf("walk of 1M nodes: fm_ptr %.2f ns, plain pointer %.2f ns, ratio %.2f\n",
	       median(fm), median(plain), median(fm) / median(plain));
	fmalloc_close(fi);
	return 0;
}
