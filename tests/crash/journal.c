/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of the library with their entries in the journal. */
#include <config.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "crash/contents.h"
#include "crash/journal.h"

void (*journal_filling)(bool begins);

struct journal *journal_new(void)
{
	void *mem = mmap(NULL, sizeof(struct journal), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

enum slot_kind journal_kind(int i)
{
	if (i < NPLAIN)
		return PLAIN;
	if (i < NPLAIN + NINTO)
		return INTO;
	return i < NPLAIN + NINTO + NOBJECTS ? OBJECT : NAME;
}

static void store(uint64_t *where, uint64_t value)
{
	__atomic_store_n(where, value, __ATOMIC_SEQ_CST);
}

static void fill(unsigned char *mem, const struct slot *s)
{
	if (journal_filling != NULL)
		journal_filling(true);
	contents_fill(mem, s->size, s->seed);
	if (journal_filling != NULL)
		journal_filling(false);
}

/* What the slot has from here on, and that it has it. */
static void own(struct fm_info *fi, struct journal *j, int i, void *mem, size_t size)
{
	struct slot *s = &j->slot[i];

	store(&s->off, (unsigned char *)mem - (unsigned char *)fi->mem);
	store(&s->size, size);
	store(&s->seed, s->seed == 0 ? (uint64_t)i + 1 : s->seed + NSLOTS);
	fill(mem, s);
	store(&s->state, OWN);
}

static FM_PTR(char) *pointer_of(const struct journal *j, const struct fm_info *fi,
				int i)
{
	return (void *)((char *)fi->mem + j->anchor_off +
			(i - NPLAIN) * sizeof(uint64_t));
}

static void name_of(int i, char name[16])
{
	snprintf(name, 16, "slot%d", i);
}

bool journal_anchor(struct journal *j, struct fm_info *fi)
{
	void *mem = fm_root_alloc(fi, "anchor", NINTO * sizeof(uint64_t), "anchor");

	if (mem == NULL)
		return false;
	store(&j->anchor_off, (char *)mem - (char *)fi->mem);
	return true;
}

/* A root is set to where no block is, which is the program's affair. */
static bool set_name(struct journal *j, struct fm_info *fi, int i, size_t size)
{
	struct slot *s = &j->slot[i];
	uint64_t off = 655360 + size % 4096;
	char name[16];

	name_of(i, name);
	store(&s->next_off, off);
	store(&s->state, s->state == EMPTY ? ALLOCATING : RESIZING);
	if (fm_root_set(fi, name, (char *)fi->mem + off, "name") != 0)
		return false;
	store(&s->off, off);
	store(&s->state, OWN);
	return true;
}

static void *call_alloc(struct journal *j, struct fm_info *fi, int i, size_t size,
			size_t align)
{
	char name[16];

	name_of(i, name);
	switch (journal_kind(i)) {
	case PLAIN:
		if (align <= 16)
			return fmalloc_in(fi, size);
		return faligned_alloc(align, size);
	case INTO:
		if (fmalloc_into(pointer_of(j, fi, i), size) != 0)
			return NULL;
		return fm_get(*pointer_of(j, fi, i));
	default:
		return fm_root_alloc(fi, name, size, "object");
	}
}

bool slot_alloc(struct journal *j, struct fm_info *fi, int i, size_t size, size_t align)
{
	void *mem;

	__atomic_fetch_add(&j->ncalls, 1, __ATOMIC_RELAXED);
	if (journal_kind(i) == NAME)
		return set_name(j, fi, i, size);
	store(&j->slot[i].state, ALLOCATING);
	mem = call_alloc(j, fi, i, size, align);
	if (mem == NULL) {
		store(&j->slot[i].state, EMPTY);
		return false;
	}
	own(fi, j, i, mem, size);
	return true;
}

bool slot_resize(struct journal *j, struct fm_info *fi, int i, size_t size)
{
	struct slot *s = &j->slot[i];
	char *mem = (char *)fi->mem + s->off;

	__atomic_fetch_add(&j->ncalls, 1, __ATOMIC_RELAXED);
	if (journal_kind(i) == NAME)
		return set_name(j, fi, i, size);
	store(&s->state, RESIZING);
	if (journal_kind(i) == INTO)
		mem = frealloc_into(pointer_of(j, fi, i), size) != 0 ? NULL :
			fm_get(*pointer_of(j, fi, i));
	else
		mem = frealloc(mem, size);
	if (mem == NULL) {
		store(&s->state, OWN);
		return false;
	}
	own(fi, j, i, mem, size);
	return true;
}

static bool call_free(struct journal *j, struct fm_info *fi, int i)
{
	void *mem = (char *)fi->mem + j->slot[i].off;
	char name[16];

	name_of(i, name);
	switch (journal_kind(i)) {
	case PLAIN:
		ffree(mem);
		return true;
	case INTO:
		return ffree_from(pointer_of(j, fi, i)) == 0;
	case OBJECT:
		if (fm_root_remove(fi, name) != 0)
			return false;
		ffree(mem);
		return true;
	default:
		return fm_root_remove(fi, name) == 0;
	}
}

bool slot_free(struct journal *j, struct fm_info *fi, int i)
{
	__atomic_fetch_add(&j->ncalls, 1, __ATOMIC_RELAXED);
	store(&j->slot[i].state, FREEING);
	if (!call_free(j, fi, i))
		return false;
	store(&j->slot[i].state, EMPTY);
	return true;
}
