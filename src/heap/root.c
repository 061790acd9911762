/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named roots of a mapped pool.
 *
 * An index of the slots in memory, by a hash of the name, is made from them at
 * the first use.  A reader makes it anew each time, for a writer may be
 * changing the slots beside it.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/crc32c.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/memtool.h"
#include "heap/rootscan.h"

#define INDEX_MIN 256u		/* entries */

static struct fm_root_disk *slot_at(const struct fm_heap *h, uint64_t off)
{
	return (struct fm_root_disk *)(h->base + off);
}

static uint32_t hash_name(const char *name)
{
	return crc32c(0, name, strlen(name));
}

/* --- the index ------------------------------------------------------------------- */

/* The entry of the name, or the free one where it would be. */
static size_t index_find(const struct fm_heap *h, const char *name, uint32_t hash)
{
	const struct root_index *ri = &h->roots;
	size_t i;

	for (i = hash & (ri->nentries - 1); ri->slot_off[i] != 0;
	     i = (i + 1) & (ri->nentries - 1))
		if (ri->hash[i] == hash &&
		    strncmp(slot_at(h, ri->slot_off[i])->name, name,
			    FM_ROOT_NAME_LEN) == 0)
			break;
	return i;
}

static size_t index_len(size_t nentries)
{
	return nentries * (sizeof(uint64_t) + sizeof(uint32_t));
}

static int index_resize(struct fm_heap *h, size_t nentries)
{
	struct root_index *ri = &h->roots, old = *ri;
	size_t i, j;
	void *mem;

	mem = map_anon(index_len(nentries));
	if (mem == NULL)
		return err_sys(ENOMEM, "memory for the index of roots");
	ri->slot_off = mem;
	ri->hash = (uint32_t *)(ri->slot_off + nentries);
	ri->nentries = nentries;
	for (i = 0; i < old.nentries; i++) {
		if (old.slot_off[i] == 0)
			continue;
		j = index_find(h, slot_at(h, old.slot_off[i])->name, old.hash[i]);
		ri->slot_off[j] = old.slot_off[i];
		ri->hash[j] = old.hash[i];
	}
	map_anon_free(old.slot_off, index_len(old.nentries));
	return 0;
}

/* Make room for one more entry. */
static int index_reserve(struct fm_heap *h)
{
	struct root_index *ri = &h->roots;

	if (ri->nentries == 0)
		return index_resize(h, INDEX_MIN);
	if (ri->nused + 1 > ri->nentries / 2)
		return index_resize(h, ri->nentries * 2);
	return 0;
}

static void index_remove(struct root_index *ri, size_t i)
{
	size_t mask = ri->nentries - 1, j = i;

	/* Knuth's algorithm R: close the gap that linear probing would see. */
	for (;;) {
		ri->slot_off[i] = 0;
		do {
			j = (j + 1) & mask;
			if (ri->slot_off[j] == 0) {
				ri->nused--;
				return;
			}
		} while (((j - (ri->hash[j] & mask)) & mask) < ((j - i) & mask));
		ri->slot_off[i] = ri->slot_off[j];
		ri->hash[i] = ri->hash[j];
		i = j;
	}
}

static int add_free_slot(struct root_index *ri, uint64_t off)
{
	if (ri->nfree == ri->free_cap) {
		size_t cap = ri->free_cap == 0 ? 512 : ri->free_cap * 2;
		uint64_t *mem = map_anon(cap * sizeof(*mem));

		if (mem == NULL)
			return err_sys(ENOMEM, "memory for the index of roots");
		if (ri->nfree > 0)
			memcpy(mem, ri->free_off, ri->nfree * sizeof(*mem));
		map_anon_free(ri->free_off, ri->free_cap * sizeof(*mem));
		ri->free_off = mem;
		ri->free_cap = cap;
	}
	ri->free_off[ri->nfree++] = off;
	return 0;
}

static void set_state(struct fm_root_disk *slot, uint32_t state)
{
	__atomic_store_n(&slot->state, state, __ATOMIC_RELEASE);
}

/* Free the slot of a root that is gone or replaced. */
static int retire_slot(struct fm_heap *h, uint64_t off)
{
	if (!h->writable)
		return 0;
	set_state(slot_at(h, off), FM_ROOT_FREE);
	return add_free_slot(&h->roots, off);
}

/* One slot of the walk that makes the index. */
static int index_slot(void *arg, uint64_t off, const struct fm_root_disk *slot)
{
	struct fm_heap *h = arg;
	struct root_index *ri = &h->roots;
	uint32_t hash;
	uint64_t other;
	size_t i;
	int rc;

	if (slot->state == FM_ROOT_FREE)
		return add_free_slot(ri, off);
	if (slot->seq > ri->seq)
		ri->seq = slot->seq;
	rc = index_reserve(h);
	if (rc < 0)
		return rc;
	hash = hash_name(slot->name);
	i = index_find(h, slot->name, hash);
	other = ri->slot_off[i];
	/* Two of one name: a process died, or is busy, replacing a root.  The
	 * loser is freed in the file only once the whole chain proved sound. */
	if (other != 0 && slot_at(h, other)->seq > slot->seq)
		return add_free_slot(ri, off);
	ri->slot_off[i] = off;
	ri->hash[i] = hash;
	if (other != 0)
		return add_free_slot(ri, other);
	ri->nused++;
	return 0;
}

static int read_mapped(void *src, uint64_t off, void *buf, size_t len)
{
	struct fm_heap *h = src;

	if (off > heap_end(h) || len > heap_end(h) - off)
		return err_set(EUCLEAN, "the pool is damaged: roots at offset %" PRIu64
			       " are beyond its end", off);
	/* In a damaged pool it may be a free block. */
	memtool_ours(h->base + off, len);
	memcpy(buf, h->base + off, len);
	return 0;
}

static struct rootscan scan_of(struct fm_heap *h)
{
	return (struct rootscan){
		.read = read_mapped,
		.src = h,
		.heap_end = heap_end(h),
	};
}

void root_close(struct fm_heap *h)
{
	struct root_index *ri = &h->roots;

	map_anon_free(ri->slot_off, index_len(ri->nentries));
	map_anon_free(ri->free_off, ri->free_cap * sizeof(uint64_t));
	memset(ri, 0, sizeof(*ri));
}

static void store_word(struct fm_rootpage_disk *page, unsigned i, const uint64_t *word)
{
	__atomic_store_n((uint64_t *)page + i, word[i], __ATOMIC_RELEASE);
}

/* Make the first page in the region, which is all zero. */
static void make_region(struct fm_heap *h)
{
	struct fm_rootpage_disk *page =
		(struct fm_rootpage_disk *)(h->base + FM_APP_OFF);
	struct fm_rootpage_disk head;
	uint64_t word[4];

	rootscan_make_head(&head, FM_APP_OFF);
	memcpy(word, &head, sizeof(word));
	/*
	 * The word of nslots and crc, then that of self_off; the magic last:
	 * without it the region is the program's.  Killed in between, rootscan
	 * knows what is there.
	 */
	store_word(page, 3, word);
	store_word(page, 1, word);
	store_word(page, 0, word);
}

/* Free, in the file, what lost to another slot of its name. */
static void free_losers(struct fm_heap *h)
{
	size_t i;

	for (i = 0; i < h->roots.nfree; i++)
		if (slot_at(h, h->roots.free_off[i])->state == FM_ROOT_USED)
			set_state(slot_at(h, h->roots.free_off[i]), FM_ROOT_FREE);
}

/* 0, 1 (there are no roots, and not to be a page for them), or -errno. */
static int index_make(struct fm_heap *h, bool make_page)
{
	struct rootscan scan = scan_of(h);
	int rc;

	if (h->roots.ready)
		return 0;
	scan.slot = index_slot;
	scan.arg = h;
	rc = index_reserve(h);
	if (rc == 0)
		rc = rootscan_run(&scan);
	if (rc == 1 && make_page) {
		make_region(h);
		rc = rootscan_run(&scan);
	}
	if (rc != 0) {
		root_close(h);
		return rc;
	}
	if (h->writable)
		free_losers(h);
	h->roots.last_page_off = scan.last_page_off;
	h->roots.nbad = scan.nbad;
	h->roots.ready = true;
	return 0;
}

/* --- changing ---------------------------------------------------------------------- */

/* A further page of slots, linked behind the last. */
static int add_page(struct fm_heap *h)
{
	uint64_t *pending = &h->super->pending_rootpage_off, off, slot;
	struct fm_rootpage_disk *page, *last;
	uint32_t i;
	int rc;

	rc = alloc_meta(h, FM_ROOTPAGE_NPAGES, pending);
	if (rc < 0)
		return rc;
	off = *pending;
	page = (struct fm_rootpage_disk *)(h->base + off);
	memset(page, 0, FM_ROOTPAGE_NPAGES * FM_PAGE_LEN);
	rootscan_make_head(page, off);
	last = (struct fm_rootpage_disk *)(h->base + h->roots.last_page_off);
	__atomic_store_n(&last->next_off, off, __ATOMIC_RELEASE);
	__atomic_store_n(pending, 0, __ATOMIC_RELEASE);
	h->roots.last_page_off = off;

	for (i = page->nslots; i > 0 && rc == 0; i--) {
		slot = off + FM_ROOTPAGE_HEAD_LEN +
		       (i - 1) * sizeof(struct fm_root_disk);
		rc = add_free_slot(&h->roots, slot);
	}
	return rc;
}

/* Fill a free slot.  If there is an intent, that the object belongs to the slot
 * hangs on its first word. */
static void fill_slot(struct fm_heap *h, uint64_t slot_off, const char *name,
		      uint64_t off, const char *type, struct fm_intent_disk *intent)
{
	struct fm_root_disk *slot = slot_at(h, slot_off);
	uint64_t word;
	struct fm_root_disk new = {
		.seq = ++h->roots.seq,
		.off = off,
		.size = off != 0 ? alloc_usable(h, off) : 0,
	};

	strcpy(new.name, name);
	strcpy(new.type, type);
	new.crc = rootscan_slot_crc(&new);
	memcpy(slot, &new, sizeof(new));
	if (intent != NULL) {
		new.state = FM_ROOT_USED;
		memcpy(&word, &new, sizeof(word));
		__atomic_store_n(&intent->where_off, slot_off, __ATOMIC_RELEASE);
		__atomic_store_n(&intent->value, word, __ATOMIC_RELEASE);
	}
	set_state(slot, FM_ROOT_USED);
}

/* Make room for another root. */
static int reserve_slot(struct fm_heap *h)
{
	int rc;

	rc = index_make(h, true);
	if (rc == 0)
		rc = index_reserve(h);
	if (rc == 0 && h->roots.nfree == 0)
		rc = add_page(h);
	return rc;
}

/* There is room. */
static int set_reserved(struct fm_heap *h, const char *name, uint64_t off,
			const char *type, struct fm_intent_disk *intent)
{
	struct root_index *ri = &h->roots;
	uint32_t hash = hash_name(name);
	uint64_t slot, old;
	size_t i;

	slot = ri->free_off[--ri->nfree];
	fill_slot(h, slot, name, off, type, intent);
	i = index_find(h, name, hash);
	old = ri->slot_off[i];
	ri->slot_off[i] = slot;
	ri->hash[i] = hash;
	if (old == 0) {
		ri->nused++;
		return 0;
	}
	return retire_slot(h, old);
}

/* A root that is not found may be one of those that cannot be read. */
static int no_root(const struct root_index *ri, const char *name)
{
	if (ri->nbad > 0)
		return err_set(EUCLEAN, "the pool is damaged: %" PRIu64 " of its named"
			       " roots, and '%s' may be one", ri->nbad, name);
	return err_set(ENOENT, "there is no root '%s'", name);
}

static int remove_locked(struct fm_heap *h, const char *name)
{
	struct root_index *ri = &h->roots;
	uint64_t old;
	size_t i;
	int rc;

	rc = index_make(h, false);
	if (rc < 0)
		return rc;
	i = rc == 0 ? index_find(h, name, hash_name(name)) : 0;
	old = rc == 0 ? ri->slot_off[i] : 0;
	if (old == 0)
		return no_root(ri, name);
	index_remove(ri, i);
	return retire_slot(h, old);
}

static int check_text(const char *what, const char *text, size_t min, size_t max)
{
	size_t i;

	if (text == NULL)
		return err_set(EINVAL, "no %s is given", what);
	for (i = 0; i <= max && text[i] != '\0'; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return err_set(EINVAL, "the %s has a control character at"
				       " byte %zu", what, i);
	if (i < min || i > max)
		return err_set(EINVAL, "the %s must have %zu to %zu bytes",
			       what, min, max);
	return 0;
}

static int check_name(const char *name)
{
	return check_text("name of a root", name, 1, FM_ROOT_NAME_MAX);
}

static int check_name_and_type(const char *name, const char *type)
{
	int rc = check_name(name);

	return rc < 0 ? rc : check_text("type of a root", type, 0, FM_ROOT_TYPE_MAX);
}

int root_set(struct fm_heap *h, const char *name, uint64_t off, const char *type)
{
	int rc;

	if (type == NULL)
		type = "";
	rc = check_name_and_type(name, type);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&h->root_lock);
	rc = reserve_slot(h);
	if (rc == 0)
		rc = set_reserved(h, name, off, type, NULL);
	pthread_mutex_unlock(&h->root_lock);
	return rc;
}

/* Copy the slot of the name: 0, or -errno. */
static int find_root(struct fm_heap *h, const char *name, struct fm_root_disk *found)
{
	uint64_t off = 0;
	int rc;

	rc = index_make(h, false);
	if (rc == 0)
		off = h->roots.slot_off[index_find(h, name, hash_name(name))];
	if (off != 0)
		*found = *slot_at(h, off);
	else if (rc >= 0)
		rc = no_root(&h->roots, name);
	if (!h->writable)
		root_close(h);
	return rc;
}

static int wrong_type(const struct fm_root_disk *slot, const char *type)
{
	return err_set(EPROTOTYPE, "root '%.*s' has type '%.*s', not '%s'",
		       FM_ROOT_NAME_LEN, slot->name, FM_ROOT_TYPE_LEN, slot->type, type);
}

/* A zeroed object for a root that is not there, in one step: until the root is the
 * object is nobody's. */
static int alloc_locked(struct fm_heap *h, const char *name, size_t size,
			const char *type, uint64_t *off)
{
	struct fm_intent_disk *intent;
	int rc;

	rc = reserve_slot(h);
	if (rc < 0)
		return rc;
	intent = into_begin(h, FM_APP_OFF, 0);
	/* No word has this value: see fill_slot(). */
	__atomic_store_n(&intent->value, UINT64_MAX, __ATOMIC_RELEASE);
	rc = alloc_block(h, size, 16, &intent->new_off);
	if (rc == 0) {
		*off = intent->new_off;
		memset(h->base + *off, 0, size);
		rc = set_reserved(h, name, *off, type, intent);
	}
	into_end(h, intent);
	return rc;
}

int root_alloc(struct fm_heap *h, const char *name, size_t size, const char *type,
	       uint64_t *off)
{
	struct fm_root_disk slot;
	int rc;

	rc = check_name_and_type(name, type);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&h->root_lock);
	rc = find_root(h, name, &slot);
	if (rc == 0 && strcmp(type, slot.type) != 0)
		rc = wrong_type(&slot, type);
	else if (rc == 0 && rootscan_object(&slot, heap_end(h)) != 0)
		*off = slot.off;
	else if (rc == 0 || rc == -ENOENT)
		rc = alloc_locked(h, name, size, type, off);
	pthread_mutex_unlock(&h->root_lock);
	return rc;
}

int root_remove(struct fm_heap *h, const char *name)
{
	int rc = check_name(name);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&h->root_lock);
	rc = remove_locked(h, name);
	pthread_mutex_unlock(&h->root_lock);
	return rc;
}

/* A slot of the walk that looks for a page. */
static int is_of_page(void *arg, uint64_t off, const struct fm_root_disk *slot)
{
	(void)slot;
	return off - *(uint64_t *)arg < FM_ROOTPAGE_NPAGES * FM_PAGE_LEN;
}

int root_has_page(struct fm_heap *h, uint64_t off)
{
	struct rootscan scan = scan_of(h);
	bool found;
	int rc;

	scan.slot = is_of_page;
	scan.arg = &off;
	/* 1 also says that there are no roots at all: then nothing is linked. */
	rc = rootscan_run(&scan);
	found = rc == 1 && scan.last_page_off != 0;
	return rc < 0 && rc != -EEXIST ? rc : found;
}

/* --- reading ----------------------------------------------------------------------- */

int root_get(struct fm_heap *h, const char *name, const char *type, uint64_t *off)
{
	struct fm_root_disk slot;
	int rc, tries = 0;

	rc = check_name(name);
	if (rc < 0)
		return rc;
	do {	/* again if a writer beside us reused the slot meanwhile */
		pthread_mutex_lock(&h->root_lock);
		rc = find_root(h, name, &slot);
		pthread_mutex_unlock(&h->root_lock);
	} while (rc == 0 && slot.crc != rootscan_slot_crc(&slot) && tries++ < 8);
	if (rc < 0)
		return rc;
	if (slot.crc != rootscan_slot_crc(&slot))
		return err_set(EUCLEAN, "the pool is damaged: bad root '%s'", name);
	if (type != NULL && strcmp(type, slot.type) != 0)
		return wrong_type(&slot, type);
	*off = rootscan_object(&slot, heap_end(h));
	return 0;
}

static int each_indexed(struct fm_heap *h,
			int (*fn)(const char *name, void *ptr, const char *type,
				  void *arg),
			void *arg)
{
	struct fm_root_disk slot;
	uint64_t off;
	int rc = 0;
	size_t i;

	for (i = 0; i < h->roots.nentries && rc == 0; i++) {
		if (h->roots.slot_off[i] == 0)
			continue;
		slot = *slot_at(h, h->roots.slot_off[i]);
		if (slot.crc != rootscan_slot_crc(&slot))
			continue;	/* a writer beside us is at it */
		off = rootscan_object(&slot, heap_end(h));
		rc = fn(slot.name, off == 0 ? NULL : h->base + off, slot.type, arg);
	}
	return rc;
}

int root_each(struct fm_heap *h,
	      int (*fn)(const char *name, void *ptr, const char *type, void *arg),
	      void *arg, int *result)
{
	int rc;

	*result = 0;
	pthread_mutex_lock(&h->root_lock);
	rc = index_make(h, false);
	if (rc == 0)
		*result = each_indexed(h, fn, arg);
	if (rc == 0 && *result == 0 && h->roots.nbad > 0)
		rc = err_set(EUCLEAN, "the pool is damaged: %" PRIu64 " of its named"
			     " roots", h->roots.nbad);
	if (!h->writable)
		root_close(h);
	pthread_mutex_unlock(&h->root_lock);
	return rc < 0 ? rc : 0;
}
