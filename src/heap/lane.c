/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which lane has which slabs.
 *
 * A thread takes blocks from the current slab of their class.  When that has none
 * left it goes on to one of its partial slabs, takes over what other threads freed
 * in its slabs, adopts a loose slab, or makes a new one; in that order.  A block
 * is freed in its slab, wherever that is: with a plain store if the thread owns
 * the slab, with an atomic one if another does.  A loose slab is the first thread's
 * that frees a block of it.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "heap/error.h"
#include "heap/lane.h"
#include "heap/memtool.h"

/* --- lists of slabs ------------------------------------------------------------------- */

#define UNCOUNTED 0x8000u	/* nfree of a current slab, more or less */

static unsigned class_of(const struct slab *s)
{
	return sizeclass_geometry_class(s->geometry);
}

static void push(struct slab *slabs, uint32_t *list, uint32_t number,
		 enum slab_where where)
{
	struct slab *s = &slabs[number];

	s->where = where;
	s->prev = 0;
	s->next = *list;
	if (s->next != 0)
		slabs[s->next].prev = number;
	/* Atomic for adopt(), which looks before it locks. */
	__atomic_store_n(list, number, __ATOMIC_RELEASE);
}

static void unlink_slab(struct slab *slabs, uint32_t *list, uint32_t number)
{
	struct slab *s = &slabs[number];

	if (s->prev != 0)
		slabs[s->prev].next = s->next;
	else
		__atomic_store_n(list, s->next, __ATOMIC_RELEASE);
	if (s->next != 0)
		slabs[s->next].prev = s->prev;
	s->where = SLAB_NOWHERE;
}

/* The list of the lane's that the slab, which is not current, is on. */
static uint32_t *list_of(struct lane *lane, const struct slab *s)
{
	return s->where == SLAB_FULL ? &lane->slabs[class_of(s)].full :
				       &lane->slabs[class_of(s)].partial;
}

/* Put a slab of the lane's, which is on no list, where it belongs. */
static void file(struct slab *slabs, struct lane *lane, uint32_t number)
{
	struct slab *s = &slabs[number];

	/* The first block of a full slab, and the last of any, make a difference. */
	s->limit = s->nfree == 0 ? 0 : s->nblocks - 1;
	if (s->nfree == 0)
		push(slabs, &lane->slabs[class_of(s)].full, number, SLAB_FULL);
	else
		push(slabs, &lane->slabs[class_of(s)].partial, number, SLAB_PARTIAL);
}

/* The pages of an empty slab, which is on no list, are free. */
static void give_back(struct fm_heap *h, uint32_t number)
{
	slab_forget(h, number);
	pages_free(h, FM_EXTENT_SLAB, slab_off(number), NULL);
}

/* The slab is not the lane's any more. */
static void forget_recent(struct lane_class *c, uint32_t number)
{
	uint32_t i;

	for (i = 0; i < LANE_NRECENT; i++)
		if (slab_number(c->recent[i]) == number)
			c->recent[i] = 0;
}

static bool is_empty(const struct slab *s)
{
	return s->nfree == s->nblocks;
}

/* Give a partial slab back if it is empty.  (The current one stays, so that a block
 * that comes and goes does not take a slab along.) */
static void drop_if_empty(struct fm_heap *h, struct lane *lane, uint32_t number)
{
	struct slab *s = &h->slab[number];

	/* While it is on a list of what others freed it would be of use to nobody:
	 * they would not tell again. */
	if (!is_empty(s) || __atomic_load_n(&s->remote, __ATOMIC_RELAXED) != 0)
		return;
	unlink_slab(h->slab, list_of(lane, s), number);
	forget_recent(&lane->cls[class_of(s)], number);
	give_back(h, number);
}

/* --- loose slabs ----------------------------------------------------------------------- */

static void set_owner(struct slab *s, uint16_t number)
{
	__atomic_store_n(&s->owner, number, __ATOMIC_RELEASE);
}

/* The lock of the class is held; a slab whose free blocks are counted. */
static void make_loose(struct fm_heap *h, struct loose_slabs *loose, uint32_t number)
{
	struct slab *s = &h->slab[number];

	if (s->nfree > 0 && s->where != SLAB_LOOSE)
		push(h->slab, &loose->first, number, SLAB_LOOSE);
	set_owner(s, LOOSE);
}

/* Let the lane have a loose slab of the class with free blocks, if there is one. */
static bool adopt(struct fm_heap *h, struct lane *lane, unsigned cls)
{
	struct loose_slabs *loose = &h->loose[cls];
	uint32_t number = 0;

	if (__atomic_load_n(&loose->first, __ATOMIC_ACQUIRE) == 0)
		return false;
	pthread_mutex_lock(&loose->lock);
	while ((number = loose->first) != 0) {
		unlink_slab(h->slab, &loose->first, number);
		slab_absorb(h, number);
		if (h->slab[number].nfree > 0)
			break;
	}
	if (number != 0)
		set_owner(&h->slab[number], lane->number);
	pthread_mutex_unlock(&loose->lock);
	if (number == 0)
		return false;
	file(h->slab, lane, number);
	return true;
}

/* Let the lane have this slab, if it is still loose. */
static void claim(struct fm_heap *h, struct lane *lane, uint32_t number, unsigned cls)
{
	struct loose_slabs *loose = &h->loose[cls];
	struct slab *s = &h->slab[number];
	bool mine;

	pthread_mutex_lock(&loose->lock);
	mine = s->owner == LOOSE && s->geometry == sizeclass_geometry[cls];
	if (mine) {
		if (s->where == SLAB_LOOSE)
			unlink_slab(h->slab, &loose->first, number);
		slab_absorb(h, number);
		set_owner(s, lane->number);
	}
	pthread_mutex_unlock(&loose->lock);
	if (mine)
		file(h->slab, lane, number);
}

/* An empty slab is none any more, for whoever looks for it with the lock of its
 * class, which is held. */
static void forget_loose(struct fm_heap *h, struct loose_slabs *loose, uint32_t number)
{
	if (h->slab[number].where == SLAB_LOOSE)
		unlink_slab(h->slab, &loose->first, number);
	slab_forget(h, number);
}

/* Others freed blocks of a slab that was owned then, and is loose now. */
static void absorb_loose(struct fm_heap *h, uint32_t number)
{
	struct slab *s = &h->slab[number];
	uint64_t geometry = __atomic_load_n(&s->geometry, __ATOMIC_ACQUIRE);
	struct loose_slabs *loose;
	bool empty = false;

	if (geometry == 0)	/* it was given back meanwhile */
		return;
	loose = &h->loose[sizeclass_geometry_class(geometry)];
	pthread_mutex_lock(&loose->lock);
	if (s->owner == LOOSE && s->geometry == geometry) {
		slab_absorb(h, number);
		empty = is_empty(s);
		if (empty)
			forget_loose(h, loose, number);
		else
			make_loose(h, loose, number);
	}
	pthread_mutex_unlock(&loose->lock);
	if (empty)
		pages_free(h, FM_EXTENT_SLAB, slab_off(number), NULL);
}

/* Give back the loose slabs of a class that are empty: whether there were any. */
static bool drop_loose_of(struct fm_heap *h, unsigned cls)
{
	struct loose_slabs *loose = &h->loose[cls];
	uint32_t number, next, empty = 0;
	bool any;

	pthread_mutex_lock(&loose->lock);
	for (number = loose->first; number != 0; number = next) {
		next = h->slab[number].next;
		slab_absorb(h, number);
		if (!is_empty(&h->slab[number]))
			continue;
		forget_loose(h, loose, number);
		h->slab[number].next = empty;
		empty = number;
	}
	pthread_mutex_unlock(&loose->lock);
	any = empty != 0;
	for (; empty != 0; empty = next) {
		next = h->slab[empty].next;
		pages_free(h, FM_EXTENT_SLAB, slab_off(empty), NULL);
	}
	return any;
}

bool lane_drop_loose(struct fm_heap *h)
{
	bool any = false;
	unsigned cls;

	__atomic_store_n(&h->loose_loaded, false, __ATOMIC_RELAXED);
	for (cls = 0; cls < SIZECLASS_N; cls++)
		any = drop_loose_of(h, cls) || any;
	return any;
}

/* --- what other threads freed ------------------------------------------------------------ */

/* Let the owner of the slab know that others freed blocks of it. */
static void tell_owner(struct fm_heap *h, uint32_t number)
{
	struct slab *s = &h->slab[number];
	struct lane *lane;
	uint32_t head;
	uint16_t owner;

	/* If it is on a list already, whoever takes it from there looks after that. */
	while (__atomic_load_n(&s->remote, __ATOMIC_SEQ_CST) == 0 &&
	       __atomic_exchange_n(&s->remote, 1, __ATOMIC_SEQ_CST) == 0) {
		owner = __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
		if (owner == LOOSE) {
			__atomic_store_n(&s->remote, 0, __ATOMIC_SEQ_CST);
			absorb_loose(h, number);
			return;
		}
		if (owner == UNBORN) {	/* what was freed was in an earlier slab here */
			__atomic_store_n(&s->remote, 0, __ATOMIC_SEQ_CST);
			return;
		}
		lane = h->lane[owner];
		head = __atomic_load_n(&lane->remote, __ATOMIC_ACQUIRE);
		do
			s->remote_next = head;
		while (head != LANE_CLOSED &&
		       !__atomic_compare_exchange_n(&lane->remote, &head, number, true,
						    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
		if (head != LANE_CLOSED)
			return;
		/* Its thread has ended: the slab is not that lane's any more. */
		__atomic_store_n(&s->remote, 0, __ATOMIC_SEQ_CST);
	}
}

/* Take over what others freed in a slab of the lane's.  The current one, too: while
 * nobody has told of it lane_put() takes the first bitmap at its word. */
static void absorb(struct fm_heap *h, struct lane *lane, uint32_t number)
{
	struct slab *s = &h->slab[number];

	if (s->where == SLAB_CURRENT) {
		slab_absorb(h, number);
		s->nfree = UNCOUNTED;
		return;
	}
	unlink_slab(h->slab, list_of(lane, s), number);
	slab_absorb(h, number);
	file(h->slab, lane, number);
	if (s->where == SLAB_PARTIAL)
		drop_if_empty(h, lane, number);
}

/* Take over what was freed in the slabs of a list that was the lane's. */
static void absorb_list(struct fm_heap *h, struct lane *lane, uint32_t number)
{
	uint32_t next;

	for (; number != 0; number = next) {
		struct slab *s = &h->slab[number];

		next = s->remote_next;
		/* Before looking: who frees after this tells again. */
		__atomic_exchange_n(&s->remote, 0, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&s->owner, __ATOMIC_ACQUIRE) != lane->number)
			tell_owner(h, number);
		else
			absorb(h, lane, number);
	}
}

static void absorb_remote(struct fm_heap *h, struct lane *lane)
{
	if (__atomic_load_n(&lane->remote, __ATOMIC_ACQUIRE) != 0)
		absorb_list(h, lane, __atomic_exchange_n(&lane->remote, 0,
							 __ATOMIC_SEQ_CST));
}

/* --- the current slab ---------------------------------------------------------------------- */

#define STOCK_NSLABS 16u	/* pages for so many slabs at once, at most */

static uint64_t no_word;

static void no_current(struct lane_class *c)
{
	c->word = &no_word;
	c->mask = 0;
	c->slab = 0;
}

/* Go on to the next word of the current slab with free blocks, from its hint on. */
static bool next_word(struct fm_heap *h, struct lane_class *c)
{
	int w = slab_find(h, c->slab);

	if (w < 0)
		return false;
	h->slab[c->slab].hint = w + 1;
	c->word = slab_bitmap(h, slab_off(c->slab)) + w;
	c->mask = slab_mask(h, class_of(&h->slab[c->slab]), w);
	c->block = h->base + slab_off(c->slab) + (uint64_t)w * 64 * c->size;
	return true;
}

static void make_current(struct fm_heap *h, struct lane *lane, unsigned cls,
			 uint32_t number)
{
	struct lane_class *c = &lane->cls[cls];
	struct slab *s = &h->slab[number];

	s->where = SLAB_CURRENT;
	/* Blocks are not counted until it is left. */
	s->nfree = UNCOUNTED;
	s->limit = UINT16_MAX;
	s->hint = 0;
	c->slab = number;
}

/* The class has no current slab any more. */
static void leave_current(struct fm_heap *h, struct lane *lane, unsigned cls)
{
	uint32_t number = lane->cls[cls].slab;

	no_current(&lane->cls[cls]);
	if (number == 0)
		return;
	slab_absorb(h, number);
	file(h->slab, lane, number);
}

/* Go on in the current slab, from its beginning if enough was freed there
 * meanwhile; else leave it. */
static bool go_on(struct fm_heap *h, struct lane *lane, unsigned cls)
{
	struct lane_class *c = &lane->cls[cls];
	struct slab *s = &h->slab[c->slab];

	if (c->slab == 0)
		return false;
	if (next_word(h, c))
		return true;
	slab_absorb(h, c->slab);
	if (s->nfree > LANE_NRECENT) {
		make_current(h, lane, cls, c->slab);
		return next_word(h, c);
	}
	leave_current(h, lane, cls);
	return false;
}

/* Remember the free blocks of a slab, lowest on top: how many. */
static uint32_t gather(struct fm_heap *h, struct lane_class *c, unsigned cls,
		       uint32_t number, uint32_t most)
{
	uint64_t *first = slab_bitmap(h, slab_off(number)), bits, bit;
	uint32_t n = 0, w = h->slab[number].nblocks / 64 + 1;

	while (w-- > 0 && n < most) {
		bits = ~first[w] & slab_mask(h, cls, w);
		for (; bits != 0 && n < most; bits &= ~bit, n++) {
			bit = UINT64_C(1) << (63 - __builtin_clzll(bits));
			lane_remember(c, slab_off(number) + (uint64_t)c->size *
					 (w * 64 + __builtin_ctzll(bit)));
		}
	}
	return n;
}

/*
 * Take what the lane's partial slabs have: one that has many free blocks becomes
 * the current one; of those that have few, remember the blocks of several.
 */
static bool take_partial(struct fm_heap *h, struct lane *lane, unsigned cls)
{
	uint32_t *partial = &lane->slabs[cls].partial, number, next, n = 0;
	struct lane_class *c = &lane->cls[cls];

	for (number = *partial; number != 0 && n < LANE_NRECENT; number = next) {
		struct slab *s = &h->slab[number];

		next = s->next;
		if (s->nfree > 0 && s->nfree <= LANE_NRECENT) {
			n += gather(h, c, cls, number, LANE_NRECENT - n);
			continue;
		}
		unlink_slab(h->slab, partial, number);
		if (s->nfree == 0) {
			file(h->slab, lane, number);
			continue;
		}
		make_current(h, lane, cls, number);
		return next_word(h, c);
	}
	return n > 0;
}

/* A new slab, which is the lane's.  The more a thread makes, the more pages it takes
 * at once. */
static int add_slab(struct fm_heap *h, struct lane *lane, unsigned cls, bool grow)
{
	uint32_t nslabs = lane->nadded / 8 + 1, number;
	int rc;

	if (lane->stock.nslabs == 0) {
		rc = pages_stock(h, nslabs < STOCK_NSLABS ? nslabs : STOCK_NSLABS, grow,
				 &lane->stock);
		if (rc < 0)
			return rc;
	}
	number = pages_use_stock(h, cls, &lane->stock);
	lane->nadded++;
	set_owner(&h->slab[number], lane->number);
	file(h->slab, lane, number);
	return 0;
}

/* See to it that lane_take_recent() or lane_take_next() has something.  -EAGAIN: the
 * pool would have to grow for that, and !grow. */
static int refill(struct fm_heap *h, struct lane *lane, unsigned cls, bool grow)
{
	int rc;

	if (go_on(h, lane, cls))
		return 0;
	absorb_remote(h, lane);
	while (!take_partial(h, lane, cls)) {
		/* Old holes are filled before the pool grows. */
		if (adopt(h, lane, cls) || (zone_load_more(h) && adopt(h, lane, cls)))
			continue;
		rc = add_slab(h, lane, cls, grow);
		/* Looking for pages may have loaded zones with holes to fill. */
		if (rc < 0 && !adopt(h, lane, cls))
			return rc;
	}
	return 0;
}

/* --- allocating and freeing ------------------------------------------------------------------ */

/* So many bytes, or a part of what the pool has, does a thread free in slabs of others
 * before somebody sees to it that they are of use. */
#define FOREIGN_MAX_LEAST (UINT64_C(1) << 20)
#define FOREIGN_MAX_SHIFT 3

static void forget_foreign(const struct fm_heap *h, struct lane *lane)
{
	uint64_t max = space_used(h) >> FOREIGN_MAX_SHIFT;

	lane->foreign = 0;
	lane->foreign_max = max > FOREIGN_MAX_LEAST ? max : FOREIGN_MAX_LEAST;
}

/* The lane that the calling thread is to use, locked; NULL: no memory for one. */
static struct lane *begin(struct fm_heap *h, bool to_free)
{
	struct lane *lane = to_free ? lane_get_to_free(h) : lane_get(h);

	if (lane == NULL)
		lane = lane_get_shared(h);
	if (lane == NULL)
		return NULL;
	pthread_mutex_lock(&lane->lock);
	lane_in_use(lane);
	return lane;
}

static void end(struct lane *lane)
{
	pthread_mutex_unlock(&lane->lock);
}

static int no_lane(void)
{
	return err_sys(ENOMEM, "memory for the slabs of a thread");
}

/* Where the block is that will be taken next; 0: none is at hand. */
static uint64_t peek(const struct fm_heap *h, struct lane_class *c)
{
	uint32_t top = (c->top - 1) % LANE_NRECENT;
	uint64_t free_bits = ~*c->word & c->mask, off = c->recent[top];

	/* None that is allocated by now. */
	for (; off != 0 && slab_is_set(h, off, c->inverse); off = c->recent[top]) {
		c->recent[top] = 0;
		c->top = top;
		top = (top - 1) % LANE_NRECENT;
	}
	if (off != 0 || free_bits == 0)
		return off;
	return c->block - h->base + (uint64_t)__builtin_ctzll(free_bits) * c->size;
}

/* What is freed is not to be used again soon, or nobody sees that it is touched: go
 * on behind the block. */
static void use_late(const struct fm_heap *h, struct lane_class *c, uint64_t off)
{
	uint64_t i = (off - (c->block - h->base)) / c->size;

	memset(c->recent, 0, sizeof(c->recent));
	if (slab_number(off) == c->slab && i < 64)
		c->mask &= i == 63 ? 0 : UINT64_MAX << (i + 1);
}

static int take_block(struct fm_heap *h, unsigned cls, bool grow, uint64_t *off)
{
	struct lane *lane = begin(h, false);
	struct lane_class *c;
	uint64_t next;
	int rc = 0;

	if (lane == NULL)
		return no_lane();
	c = &lane->cls[cls];
	while ((next = peek(h, c)) == 0 && rc == 0)
		rc = refill(h, lane, cls, grow);
	if (rc == 0) {
		/* Where it lies in the pool it tells who dies now what to free. */
		__atomic_store_n(off, next, __ATOMIC_RELEASE);
		if (lane_take_recent(h->base, h->slab, c) == NULL)
			lane_take_next(c);
		if (memtool_active)
			use_late(h, c, next);
	}
	end(lane);
	return rc;
}

int lane_alloc(struct fm_heap *h, unsigned cls, uint64_t *off)
{
	int rc = take_block(h, cls, false, off);

	if (rc != -EAGAIN)
		return rc;
	/* What idle threads have is used before the pool grows. */
	lanes_reclaim(h, false);
	return take_block(h, cls, true, off);
}

static bool put_first(struct fm_heap *h, struct lane *lane, uint64_t off)
{
	uint32_t number = slab_number(off);
	struct slab *s = &h->slab[number];
	unsigned cls = class_of(s);

	s->limit = s->nblocks - 1;
	if (!lane_put(h->base, h->slab, lane, off)) {
		s->limit = 0;
		return false;
	}
	unlink_slab(h->slab, &lane->slabs[cls].full, number);
	push(h->slab, &lane->slabs[cls].partial, number, SLAB_PARTIAL);
	return true;
}

bool lane_put_other(struct fm_heap *h, struct lane *lane, uint64_t off)
{
	struct slab *s = &h->slab[slab_number(off)];
	uint16_t owner = __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
	uint64_t geometry = __atomic_load_n(&s->geometry, __ATOMIC_ACQUIRE);

	if (owner == lane->number)
		return s->where == SLAB_FULL && put_first(h, lane, off);
	if (owner == LOOSE || geometry == 0 || lane->foreign >= lane->foreign_max ||
	    !slab_free_remote(h, off, sizeclass_geometry_class(geometry), NULL))
		return false;
	lane->foreign += sizeclass_geometry_size(geometry);
	tell_owner(h, slab_number(off));
	return true;
}

/* Free a block of a slab of the lane's. */
static int free_own(struct fm_heap *h, struct lane *lane, uint64_t off, unsigned cls,
		    uint64_t *done)
{
	struct slab *s = &h->slab[slab_number(off)];

	if (!slab_clear(h, off, cls))
		return -EINVAL;
	if (done != NULL)
		__atomic_store_n(done, 0, __ATOMIC_RELEASE);
	if (!memtool_active)
		lane_remember(&lane->cls[cls], off);
	if (s->where == SLAB_CURRENT) {
		s->nfree = UNCOUNTED;
		return 0;
	}
	s->nfree++;
	if (s->where == SLAB_FULL) {
		unlink_slab(h->slab, list_of(lane, s), slab_number(off));
		file(h->slab, lane, slab_number(off));
	}
	drop_if_empty(h, lane, slab_number(off));
	return 0;
}

static int free_locked(struct fm_heap *h, struct lane *lane, uint64_t off, unsigned cls,
		       uint64_t *done)
{
	uint32_t number = slab_number(off);
	struct slab *s = &h->slab[number];

	if (__atomic_load_n(&s->owner, __ATOMIC_ACQUIRE) == LOOSE &&
	    slab_has_second(h, cls) && slab_has(h, cls, off))
		claim(h, lane, number, cls);
	if (__atomic_load_n(&s->owner, __ATOMIC_ACQUIRE) == lane->number)
		return free_own(h, lane, off, cls, done);
	if (!slab_free_remote(h, off, cls, done))
		return -EINVAL;
	lane->foreign += lane->cls[cls].size;
	if (slab_has_second(h, cls))
		tell_owner(h, number);
	return 0;
}

int lane_free(struct fm_heap *h, uint64_t off, uint64_t *done)
{
	uint64_t geometry, *at = &h->slab[slab_number(off)].geometry;
	struct lane *lane;
	bool much;
	int rc;

	geometry = __atomic_load_n(at, __ATOMIC_ACQUIRE);
	if (geometry == 0) {
		rc = zone_get(h, off);
		if (rc < 0)
			return rc;
		geometry = __atomic_load_n(at, __ATOMIC_ACQUIRE);
		if (geometry == 0)
			return -EINVAL;
	}
	lane = begin(h, true);
	if (lane == NULL)
		return no_lane();
	rc = free_locked(h, lane, off, sizeclass_geometry_class(geometry), done);
	much = lane->foreign >= lane->foreign_max;
	if (much)
		forget_foreign(h, lane);
	end(lane);
	if (much)
		lanes_reclaim(h, false);
	return rc;
}

/* --- giving back what a lane has ----------------------------------------------------------- */

/* Empty slabs, and pages for more. */
static void tidy(struct fm_heap *h, struct lane *lane)
{
	uint32_t number, next;
	unsigned cls;

	pthread_mutex_lock(&lane->lock);
	absorb_remote(h, lane);
	for (cls = 0; cls < SIZECLASS_N; cls++) {
		leave_current(h, lane, cls);
		for (number = lane->slabs[cls].partial; number != 0; number = next) {
			next = h->slab[number].next;
			drop_if_empty(h, lane, number);
		}
	}
	pages_return_stock(h, &lane->stock);
	pthread_mutex_unlock(&lane->lock);
}

void lane_tidy(struct fm_heap *h)
{
	struct lane *own = lane_get(h);
	struct lane *shared = __atomic_load_n(&h->lane[SHARED_LANE], __ATOMIC_ACQUIRE);

	if (own != NULL)
		tidy(h, own);
	/* No thread ends with this one. */
	if (shared != NULL)
		tidy(h, shared);
	lane_drop_loose(h);
}

/* Slabs of a list become loose; the empty ones are given back. */
static void loosen(struct fm_heap *h, uint32_t *list, struct loose_slabs *loose)
{
	uint32_t number;

	while ((number = *list) != 0) {
		unlink_slab(h->slab, list, number);
		slab_absorb(h, number);
		if (is_empty(&h->slab[number])) {
			give_back(h, number);
			continue;
		}
		pthread_mutex_lock(&loose->lock);
		make_loose(h, loose, number);
		pthread_mutex_unlock(&loose->lock);
	}
}

bool lane_release(struct fm_heap *h, struct lane *lane)
{
	bool any = lane->stock.nslabs > 0 ||
		   __atomic_load_n(&lane->remote, __ATOMIC_RELAXED) != 0;
	unsigned cls;

	absorb_remote(h, lane);
	for (cls = 0; cls < SIZECLASS_N; cls++) {
		leave_current(h, lane, cls);
		memset(lane->cls[cls].recent, 0, sizeof(lane->cls[cls].recent));
		any = any || lane->slabs[cls].partial != 0;
		loosen(h, &lane->slabs[cls].partial, &h->loose[cls]);
	}
	pages_return_stock(h, &lane->stock);
	__atomic_store_n(&lane->bare, true, __ATOMIC_RELAXED);
	return any;
}

void lane_retire(struct fm_heap *h, struct lane *lane)
{
	unsigned cls;

	lane_release(h, lane);
	for (cls = 0; cls < SIZECLASS_N; cls++)
		loosen(h, &lane->slabs[cls].full, &h->loose[cls]);
	lane->nadded = 0;
	/* Last: until here others may have told of slabs that were the lane's. */
	absorb_list(h, lane, __atomic_exchange_n(&lane->remote, LANE_CLOSED,
						 __ATOMIC_SEQ_CST));
}

void lane_clear(struct fm_heap *h, struct lane *lane, uint16_t number)
{
	unsigned cls;

	memset(lane, 0, offsetof(struct lane, taken));
	lane->number = number;
	for (cls = 0; cls < SIZECLASS_N; cls++) {
		lane->cls[cls].size = sizeclass_table[cls].size;
		lane->cls[cls].inverse = sizeclass_table[cls].inverse;
		no_current(&lane->cls[cls]);
	}
	forget_foreign(h, lane);
}

void lane_set_up(struct fm_heap *h, struct lane *lane, uint16_t number)
{
	pthread_mutex_init(&lane->lock, NULL);
	lane_clear(h, lane, number);
}
