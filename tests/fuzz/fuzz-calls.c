/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of the allocator, from several threads, against a model that knows every
 * block: where it is, how long, and what is in it.  An input is a list of them.
 */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <fmalloc.h>

#include "fuzz/fuzz.h"
#include "heap/memtool.h"
#include "heap/sizeclass.h"
#include "unit/checkpool.h"

#define NCALLS_MAX 400u
#define NBLOCKS_MAX 6000u
#define NWORDS 32u		/* pool pointers, in a block of their own */
#define NROOTS 20u
#define NTHREADS 3u		/* the main one is 0 */
#define BYTES_MAX (8 * MIB)	/* that are written or copied for an input */

struct block {
	uint64_t off, size;
	size_t usable;
	uint32_t tag;		/* what is in it */
};

static struct fm_info *fi;
static unsigned file;		/* number of the pool's */
static struct block *blocks;	/* ascending */
static size_t nblocks;
static uint32_t next_tag;
static uint64_t words_off;
static uint64_t nbad;		/* frees that had to be refused */
static uint64_t freed[16];	/* offsets of the latest, which may be in use again */
static unsigned nfreed;
static uint64_t nbytes;
static struct { bool used; uint64_t off; char type[2]; } roots[NROOTS];

/* --- calls, by any thread --------------------------------------------------- */

enum func {
	MALLOC, MALLOC_IN, CALLOC, ALIGNED, REALLOC, FREE, USABLE, INTO, FREE_FROM,
	REALLOC_INTO, ROOT_ALLOC, ROOT_SET, ROOT_REMOVE, TRIM
};

struct call {
	enum func func;
	void *ptr;		/* argument and result */
	size_t size, align;
	const char *name, *type;
	int rc, err;
	bool has_words;		/* fm_errmsg() of the thread that made it */
};

static void perform(struct call *c)
{
	errno = 0;
	switch (c->func) {
	case MALLOC:
		c->ptr = fmalloc(c->size);
		break;
	case MALLOC_IN:
		c->ptr = fmalloc_in(fi, c->size);
		break;
	case CALLOC:
		c->ptr = fcalloc(1, c->size);
		break;
	case ALIGNED:
		c->ptr = faligned_alloc(c->align, c->size);
		break;
	case REALLOC:
		c->ptr = frealloc(c->ptr, c->size);
		break;
	case FREE:
		ffree(c->ptr);
		break;
	case USABLE:
		c->size = fmalloc_usable_size(c->ptr);
		break;
	case INTO:
		c->rc = fmalloc_into(c->ptr, c->size);
		break;
	case FREE_FROM:
		c->rc = ffree_from(c->ptr);
		break;
	case REALLOC_INTO:
		c->rc = frealloc_into(c->ptr, c->size);
		break;
	case ROOT_ALLOC:
		c->ptr = fm_root_alloc(fi, c->name, c->size, c->type);
		break;
	case ROOT_SET:
		c->rc = fm_root_set(fi, c->name, c->ptr, c->type);
		break;
	case ROOT_REMOVE:
		c->rc = fm_root_remove(fi, c->name);
		break;
	case TRIM:
		c->rc = fm_trim(fi);
		break;
	}
	c->err = errno;
	c->has_words = *fm_errmsg() != '\0';
}

/* Other threads do what they are given, a list of calls at a time. */
static struct worker {
	pthread_t thread;
	bool running, quit;
	struct call *calls;	/* NULL: nothing to do */
	size_t n;
} workers[NTHREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *work(void *arg)
{
	struct worker *w = arg;
	size_t i;

	pthread_mutex_lock(&lock);
	for (;;) {
		while (w->calls == NULL && !w->quit)
			pthread_cond_wait(&changed, &lock);
		if (w->quit)
			break;
		pthread_mutex_unlock(&lock);
		for (i = 0; i < w->n; i++)
			perform(&w->calls[i]);
		pthread_mutex_lock(&lock);
		w->calls = NULL;
		pthread_cond_broadcast(&changed);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void start(unsigned who, struct call *calls, size_t n)
{
	struct worker *w = &workers[who];

	if (!w->running) {
		w->quit = false;
		fuzz_check(pthread_create(&w->thread, NULL, work, w) == 0);
		w->running = true;
	}
	pthread_mutex_lock(&lock);
	w->calls = calls;
	w->n = n;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void wait_for(unsigned who)
{
	pthread_mutex_lock(&lock);
	while (workers[who].calls != NULL)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void end_thread(unsigned who)
{
	struct worker *w = &workers[who];

	if (!w->running)
		return;
	pthread_mutex_lock(&lock);
	w->quit = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	pthread_join(w->thread, NULL);
	w->running = false;
}

static void call_by(unsigned who, struct call *c)
{
	if (who == 0) {
		perform(c);
		return;
	}
	start(who, c, 1);
	wait_for(who);
}

/* --- the model -------------------------------------------------------------- */

static unsigned char *at(uint64_t off)
{
	return (unsigned char *)fi->mem + off;
}

/* The first block that does not begin before off. */
static size_t search(uint64_t off)
{
	size_t lo = 0, hi = nblocks, mid;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (blocks[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct block *find(uint64_t off)
{
	size_t i = search(off);

	return i < nblocks && blocks[i].off == off ? &blocks[i] : NULL;
}

/* Of a long block only the ends are looked at, and what would be a page table if the
 * zones of a huge one were normal. */
#define ENDS 512u
#define MIDDLE \
	(FM_ZONE_TABLE_OFF + FM_ZONE_HEAD_NPAGES * sizeof(uint32_t) - FM_PAGE_LEN)

static unsigned char byte_of(uint32_t tag, uint64_t i)
{
	return tag * 37 + i * 11 + (i >> 8);
}

/* The byte after byte i of a block that is looked at. */
static uint64_t next_byte(uint64_t i, uint64_t size)
{
	i++;
	if (size <= MIDDLE + 2 * ENDS)
		return i == ENDS && size > 2 * ENDS ? size - ENDS : i;
	if (i == ENDS)
		return MIDDLE;
	return i == MIDDLE + ENDS ? size - ENDS : i;
}

static void fill(const struct block *b)
{
	uint64_t i;

	for (i = 0; i < b->size; i = next_byte(i, b->size))
		at(b->off)[i] = byte_of(b->tag, i);
}

/* The first `len` bytes, which are not more than the block was asked for. */
static void check_contents(uint64_t off, uint32_t tag, uint64_t size, uint64_t len)
{
	uint64_t i;

	for (i = 0; i < len; i = next_byte(i, size))
		fuzz_check(at(off)[i] == byte_of(tag, i));
}

/* A block that was handed out: entered in the model, and filled. */
static void add(void *ptr, uint64_t size, size_t align)
{
	uint64_t off = (unsigned char *)ptr - at(0);
	size_t usable = fmalloc_usable_size(ptr), i = search(off);

	fuzz_check(off % (align > 16 ? align : 16) == 0);
	fuzz_check(usable >= size && usable > 0);
	fuzz_check(i == 0 || blocks[i - 1].off + blocks[i - 1].usable <= off);
	fuzz_check(i == nblocks || off + usable <= blocks[i].off);
	fuzz_check(disk_backs(off, usable));
	memmove(&blocks[i + 1], &blocks[i], (nblocks - i) * sizeof(*blocks));
	blocks[i] = (struct block){ off, size, usable, next_tag++ };
	nblocks++;
	fill(&blocks[i]);
}

static void drop(struct block *b)
{
	freed[nfreed++ % 16] = b->off;
	memmove(b, b + 1, (blocks + --nblocks - b) * sizeof(*b));
}

/* A failure must have a reason. */
static void check_refused(const struct call *c)
{
	fuzz_check(c->err == ENOSPC || c->err == ENOMEM);
	fuzz_check(disk_refused());
	fuzz_check(c->has_words);
}

static bool afford(uint64_t len)
{
	if (len > BYTES_MAX - nbytes)
		return false;
	nbytes += len;
	return true;
}

/* --- judging the pool ------------------------------------------------------- */

static void check_blocks(void)
{
	size_t i;

	for (i = 0; i < nblocks; i++) {
		const struct block *b = &blocks[i];

		fuzz_check(fmalloc_usable_size(at(b->off)) == b->usable);
		if (b->off != words_off)
			check_contents(b->off, b->tag, b->size, b->size);
		fuzz_check(disk_backs(b->off, b->usable));
	}
}

static void check_roots(void)
{
	char name[8];
	unsigned i;
	void *ptr;

	for (i = 0; i < NROOTS; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		errno = 0;
		ptr = fm_root_get(fi, name, roots[i].type);
		if (!roots[i].used) {
			fuzz_check(ptr == NULL && errno == ENOENT);
		} else if (roots[i].off == 0) {
			fuzz_check(ptr == NULL && errno == 0);
		} else if (ptr == NULL) {
			/* The heap ends before what was freed. */
			fuzz_check(errno == 0 && find(roots[i].off) == NULL);
		} else {
			fuzz_check(ptr == at(roots[i].off));
		}
	}
}

/* What the file says is what the model says. */
static void check_file(void)
{
	struct checked_pool pool;
	struct stat st;
	size_t i;
	void *mem;

	fuzz_check(fstat(disk_fd(file), &st) == 0);
	mem = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, disk_fd(file), 0);
	fuzz_check(mem != MAP_FAILED);
	if (checkpool(mem, st.st_size, &pool) < 0) {
		fprintf(stderr, "%s\n", pool.why);
		fuzz_check(!"the pool is sound");
	}
	munmap(mem, st.st_size);
	fuzz_check(pool.nblocks == nblocks);
	for (i = 0; i < nblocks; i++)
		fuzz_check(pool.blocks[i].off == blocks[i].off &&
			   pool.blocks[i].len == blocks[i].usable);
	checkpool_free(&pool);
}

static void check_all(void)
{
	check_blocks();
	check_roots();
	check_file();
	fuzz_check(fm_bad_free_count() == nbad);
}

/* --- opening and closing ---------------------------------------------------- */

static void open_pool(void)
{
	disk_watch(file);
	fi = fmalloc_init(disk_path(file), NULL);
	fuzz_check(fi != NULL);
}

/* killed: before the file could be cut, when the heap was shorter already. */
static void reopen(bool killed)
{
	if (killed)
		disk_copy(file, 1 - file);
	fuzz_check(fmalloc_close(fi) == 0);
	if (killed)
		disk_copy_tail(1 - file, file);
	check_file();
	open_pool();
}

/* Go on with what a process that is killed now would leave. */
static void be_killed(void)
{
	unsigned other = 1 - file;

	disk_copy(file, other);
	fuzz_check(fmalloc_close(fi) == 0);
	disk_clear(file);
	file = other;
	check_file();
	open_pool();
}

/* As a reader beside the writer. */
static void look(void)
{
	struct fm_info *reader = fmalloc_open(disk_path(file), FM_RDONLY, NULL);
	size_t i;

	fuzz_check(reader != NULL);
	for (i = 0; i < nblocks; i++)
		fuzz_check(fmalloc_usable_size((char *)reader->mem + blocks[i].off) ==
			   blocks[i].usable);
	fuzz_check(fmalloc_close(reader) == 0);
}

/* --- arguments -------------------------------------------------------------- */

/* A size; those near a limit are the likely ones. */
static uint64_t take_size(struct input *in)
{
	static const uint64_t limit[] = {
		0, 1, 16384, 20000, 65536, 3 * 65536, MIB, 2 * MIB, 5 * MIB, 17 * MIB,
		FM_ZONE_LEN - FM_ZONE_DATA_OFF, FM_ZONE_LEN - FM_PAGE_LEN, FM_ZONE_LEN,
		2 * FM_ZONE_LEN - FM_PAGE_LEN,
	};
	uint8_t kind = take8(in), step = take8(in);
	uint64_t size;

	if (kind < SIZECLASS_N * 3)
		size = sizeclass_table[kind / 3].size;
	else if (kind < 192)
		size = limit[kind % (sizeof(limit) / sizeof(limit[0]))];
	else
		size = (uint64_t)(kind - 191) * FM_PAGE_LEN * (step / 3 % 7 + 1);
	return size == 0 ? 0 : size + step % 3 - 1;
}

/* A block, but not that of the words; NULL: there is none. */
static struct block *take_block(struct input *in)
{
	struct block *b = &blocks[take16(in) % nblocks];

	if (b->off != words_off)
		return b;
	return nblocks == 1 ? NULL : b == blocks ? b + 1 : b - 1;
}

/* --- what an input can ask for ---------------------------------------------- */

static void check_zero(const unsigned char *p, uint64_t len)
{
	fuzz_check(len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0));
}

static void allocate(struct input *in, unsigned who)
{
	static const enum func funcs[] = { MALLOC, MALLOC, MALLOC_IN, CALLOC, ALIGNED };
	struct call c = { .func = funcs[take8(in) % 5] };
	uint64_t size = take_size(in);
	unsigned n = take8(in);

	/* Many small ones, one large one. */
	n = size > 70000 ? 1 : size > 600 ? n % 16 + 1 : n + 1;
	if (c.func == ALIGNED)
		c.align = (size_t)1 << take8(in) % 26;
	if (c.func == CALLOC && !afford(size * n))
		c.func = MALLOC;
	for (; n > 0 && nblocks < NBLOCKS_MAX; n--) {
		c.size = size;
		call_by(who, &c);
		if (c.ptr == NULL) {
			check_refused(&c);
			return;
		}
		if (c.func == CALLOC)
			check_zero(c.ptr, size);
		add(c.ptr, size, c.align);
	}
}

static void release(struct block *b, unsigned who)
{
	struct call c = { .func = FREE, .ptr = at(b->off) };

	check_contents(b->off, b->tag, b->size, b->size);
	drop(b);
	call_by(who, &c);
}

/* Every so-many-th block from one on. */
static void release_many(struct input *in, unsigned who)
{
	size_t i, step = take8(in) % 5 + 1, n = take8(in) + 1;
	struct block *b = take_block(in);

	if (b == NULL)
		return;
	for (i = b - blocks; i < nblocks && n > 0; i += step - 1, n--) {
		if (blocks[i].off == words_off)
			i++;
		if (i < nblocks)
			release(&blocks[i], who);
	}
}

static void resize(struct input *in, unsigned who)
{
	struct block *b = take_block(in), was;
	struct call c = { .func = REALLOC, .size = take_size(in) };
	uint64_t kept;

	if (b == NULL || !afford(b->usable < c.size ? b->usable : c.size))
		return;
	was = *b;
	kept = was.size < c.size ? was.size : c.size;
	c.ptr = at(was.off);
	check_contents(was.off, was.tag, was.size, was.size);
	call_by(who, &c);
	if (c.ptr == NULL) {
		check_refused(&c);
		fuzz_check(fmalloc_usable_size(at(was.off)) == was.usable);
		return;
	}
	drop(b);
	check_contents((unsigned char *)c.ptr - at(0), was.tag, was.size, kept);
	add(c.ptr, c.size, 16);
}

/* What must be refused, and change nothing. */
static void free_badly(struct input *in, unsigned who)
{
	struct block *b = &blocks[take16(in) % nblocks];
	struct call c = { .func = FREE };
	static char elsewhere[64];
	uint64_t off;

	switch (take8(in) % 8) {
	case 0:
		call_by(who, &c);	/* NULL is fine */
		return;
	case 1:
		c.ptr = elsewhere + 16;
		nbad++;
		call_by(who, &c);
		return;
	case 2:		/* behind the end, perhaps far */
		off = 600 * MIB + take64(in) % (UINT64_C(1) << (FM_WINDOW_BITS - 1));
		break;
	case 3:		/* anywhere */
		off = take64(in) % (64 * MIB);
		break;
	case 4:		/* within a block, or just behind */
		off = b->off + 1 + take16(in);
		break;
	case 5:		/* where a block may have been */
		off = b->off + b->usable * (1 + take8(in) % 8);
		break;
	default:	/* where one was */
		off = freed[take8(in) % 16];
	}
	if (off == 0 || find(off) != NULL)
		return;
	c.ptr = at(off);
	nbad++;
	call_by(who, &c);
}

/* A block and the pointer to it. */
static void change_word(struct input *in, unsigned who)
{
	static const enum func funcs[] = { INTO, FREE_FROM, REALLOC_INTO };
	struct call c = { .func = funcs[take8(in) % 3], .size = take_size(in) };
	uint64_t *word = (uint64_t *)at(words_off) + take8(in) % NWORDS, was = *word;
	struct block *b = find(was), old = { 0 };
	bool wrong = was != 0 && (b == NULL || was == words_off);

	if (was == words_off || (c.func == REALLOC_INTO && b != NULL &&
				 !afford(b->usable < c.size ? b->usable : c.size)))
		return;
	c.ptr = word;
	if (b != NULL)
		old = *b;
	call_by(who, &c);
	if (c.func != INTO && wrong) {
		fuzz_check(c.rc == -1 && c.err == EINVAL && *word == was);
		return;
	}
	if (c.rc < 0) {
		check_refused(&c);
		fuzz_check(*word == was);
		return;
	}
	if (c.func != INTO && b != NULL)
		drop(b);
	if (c.func == REALLOC_INTO && old.off != 0)
		check_contents(*word, old.tag, old.size,
			       old.size < c.size ? old.size : c.size);
	if (c.func == FREE_FROM)
		fuzz_check(*word == 0);
	else
		add(at(*word), c.size, 16);
}

static void change_root(struct input *in, unsigned who)
{
	static const enum func funcs[] = {
		ROOT_SET, ROOT_SET, ROOT_REMOVE, ROOT_ALLOC,
	};
	struct call c = { .func = funcs[take8(in) % 4] };
	unsigned i = take8(in) % NROOTS;
	struct block *b = &blocks[take16(in) % nblocks];
	bool was = roots[i].used;
	char name[8];
	void *had;

	snprintf(name, sizeof(name), "r%u", i);
	c.name = name;
	c.type = i % 2 ? "t" : "";
	c.size = take16(in);
	if (c.func == ROOT_SET)
		c.ptr = take8(in) % 4 == 0 ? NULL : at(b->off);
	check_roots();
	had = fm_root_get(fi, name, NULL);
	call_by(who, &c);
	if (c.func == ROOT_REMOVE) {
		fuzz_check(was ? c.rc == 0 : c.rc == -1 && c.err == ENOENT);
		roots[i].used = false;
		return;
	}
	if (c.func == ROOT_SET ? c.rc < 0 : c.ptr == NULL) {
		check_refused(&c);
		return;
	}
	if (c.func == ROOT_ALLOC && had != NULL) {
		fuzz_check(c.ptr == had);
		return;
	}
	if (c.func == ROOT_ALLOC) {
		check_zero(c.ptr, c.size);
		add(c.ptr, c.size, 16);
	}
	roots[i].used = true;
	roots[i].off = c.ptr == NULL ? 0 : (unsigned char *)c.ptr - at(0);
	strcpy(roots[i].type, c.type);
}

/* All threads at a time: two free, in an order of their own, and the main one
 * allocates. */
static void all_at_once(struct input *in)
{
	size_t n = take8(in) + 1, i, k = 0, step = take8(in) % 7 + 1;
	static struct call calls[NTHREADS][256];
	uint64_t size = sizeclass_table[take8(in) % SIZECLASS_N].size;
	struct block *b = take_block(in);
	bool refused = false;
	size_t count[NTHREADS] = { 0 };

	if (b == NULL || nblocks + n > NBLOCKS_MAX)
		return;
	for (i = b - blocks; i < nblocks && k < 2 * n; i += step - 1, k++) {
		unsigned who = 1 + k % 2;

		if (blocks[i].off == words_off)
			i++;
		if (i >= nblocks || count[who] == 256)
			break;
		b = &blocks[i];
		check_contents(b->off, b->tag, b->size, b->size);
		calls[who][count[who]++] = (struct call){ .func = FREE,
							  .ptr = at(b->off) };
		drop(b);
	}
	start(1, calls[1], count[1]);
	start(2, calls[2], count[2]);
	for (i = 0; i < n; i++) {
		calls[0][i] = (struct call){ .func = MALLOC, .size = size };
		perform(&calls[0][i]);
	}
	wait_for(1);
	wait_for(2);
	for (i = 0; i < n; i++)
		if (calls[0][i].ptr != NULL)
			add(calls[0][i].ptr, size, 16);
		else
			refused = true;
	fuzz_check(!refused || disk_refused());
}

static void one_step(struct input *in)
{
	uint8_t what = take8(in);
	unsigned who = what / 16 % NTHREADS;
	struct call c = { .func = TRIM };
	struct block *b;

	switch (what % 16) {
	case 0:
	case 1:
	case 2:
		allocate(in, who);
		break;
	case 3:
	case 4:
		b = take_block(in);
		if (b != NULL)
			release(b, who);
		break;
	case 5:
		release_many(in, who);
		break;
	case 6:
		resize(in, who);
		break;
	case 7:
		free_badly(in, who);
		break;
	case 8:
		change_word(in, who);
		break;
	case 9:
		change_root(in, who);
		break;
	case 10:
		call_by(who, &c);
		fuzz_check(c.rc == 0);
		break;
	case 11:
		reopen(who == 1);
		break;
	case 12:
		be_killed();
		break;
	case 13:
		all_at_once(in);
		break;
	case 14:
		if (who == 0)
			check_all();
		else
			end_thread(who);
		break;
	default:
		if (who == 0)
			look();
		else if (who == 1)
			disk_allow(take8(in) % 8);
		else
			disk_can(take8(in) % 2);
	}
}

/* A new pool, with a block of pool pointers. */
static void begin(void)
{
	if (blocks == NULL) {
		blocks = malloc((NBLOCKS_MAX + 1) * sizeof(*blocks));
		fuzz_check(blocks != NULL);
	}
	nblocks = 0;
	memset(freed, 0, sizeof(freed));
	nfreed = 0;
	next_tag = 0;
	nbytes = 0;
	memset(roots, 0, sizeof(roots));
	nbad = fm_bad_free_count();
	file = 0;
	disk_clear(0);
	disk_clear(1);
	open_pool();
	add(fcalloc(NWORDS, sizeof(uint64_t)), NWORDS * sizeof(uint64_t), 16);
	words_off = blocks[0].off;
	memset(at(words_off), 0, NWORDS * sizeof(uint64_t));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static int has_memtool = -1;
	struct input in = { data, len };
	unsigned n;

	/* Mostly with the short ways, which there are not under AddressSanitizer, and
	 * are shorter in the other sense, too. */
	if (has_memtool < 0)
		has_memtool = memtool_active;
	memtool_active = take8(&in) % 4 == 0 && has_memtool;
	begin();
	for (n = 0; n < NCALLS_MAX && in.left > 0; n++)
		one_step(&in);
	check_all();
	fuzz_check(fmalloc_close(fi) == 0);
	check_file();
	return 0;
}
