/* SPDX-License-Identifier: Apache-2.0 */
/* Pages as of the last commit, found by their number. */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/align.h"
#include "common/bits.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/overlay.h"

#define BLOCK_LEN (UINT64_C(1) << 18)

static size_t table_len(const struct overlay *o)
{
	return o->nchunks * sizeof(struct overlay_chunk *);
}

static size_t used_len(const struct overlay *o)
{
	return align_up(o->nchunks, 64) / 8;
}

int overlay_open(struct overlay *o, uint64_t len)
{
	memset(o, 0, sizeof(*o));
	o->nchunks = align_up(len, FM_CHUNK_LEN) / FM_CHUNK_LEN;
	o->chunk = map_anon_sparse(table_len(o));
	o->used = map_anon_sparse(used_len(o));
	if (o->chunk != NULL && o->used != NULL)
		return 0;
	overlay_close(o);
	return err_sys(ENOMEM, "memory for the pages of a log");
}

static void free_blocks(struct overlay *o)
{
	void *block, *next;

	for (block = o->blocks; block != NULL; block = next) {
		next = *(void **)block;
		map_anon_free(block, BLOCK_LEN);
	}
	o->blocks = NULL;
	o->free_pages = NULL;
}

void overlay_clear(struct overlay *o)
{
	uint64_t c;

	for (c = overlay_next_chunk(o, 0); c < o->nchunks;
	     c = overlay_next_chunk(o, c + 1)) {
		map_anon_free(o->chunk[c], sizeof(*o->chunk[c]));
		o->chunk[c] = NULL;
		bits_clear(o->used, c);
	}
	free_blocks(o);
	o->npages = 0;
	o->nlogged = 0;
}

void overlay_close(struct overlay *o)
{
	if (o->chunk != NULL && o->used != NULL)
		overlay_clear(o);
	map_anon_free(o->chunk, table_len(o));
	map_anon_free(o->used, used_len(o));
	memset(o, 0, sizeof(*o));
}

uint64_t overlay_next_chunk(const struct overlay *o, uint64_t chunk)
{
	uint64_t w = chunk / 64, bits;

	if (chunk >= o->end)
		return o->nchunks;
	for (bits = o->used[w] & UINT64_MAX << chunk % 64; bits == 0; bits = o->used[w])
		if (++w * 64 >= o->end)
			return o->nchunks;
	return w * 64 + __builtin_ctzll(bits);
}

static int each_in_chunk(const struct overlay *o, uint64_t chunk,
			 enum overlay_kind kind, overlay_fn *fn, void *arg)
{
	const struct overlay_chunk *c = o->chunk[chunk];
	const uint64_t *word = kind == OVERLAY_LOGGED ? c->logged : c->open;
	uint64_t bits, i;
	uint32_t w;
	int rc = 0;

	for (w = 0; w < FM_CHUNK_NPAGES / 64 && rc == 0; w++)
		for (bits = word[w]; bits != 0 && rc == 0; bits &= bits - 1) {
			i = w * 64 + __builtin_ctzll(bits);
			rc = fn(arg, (chunk << FM_CHUNK_SHIFT) + (i << FM_PAGE_SHIFT),
				c->page[i]);
		}
	return rc;
}

int overlay_each(const struct overlay *o, enum overlay_kind kind, overlay_fn *fn,
		 void *arg)
{
	uint64_t c;
	int rc = 0;

	for (c = overlay_next_chunk(o, 0); c < o->nchunks && rc == 0;
	     c = overlay_next_chunk(o, c + 1))
		rc = each_in_chunk(o, c, kind, fn, arg);
	return rc;
}

/* The block's first page has the list of blocks. */
static void *take_page(struct overlay *o)
{
	unsigned char *block;
	void *page;
	uint64_t at;

	if (o->free_pages == NULL) {
		block = map_anon(BLOCK_LEN);
		if (block == NULL)
			return NULL;
		*(void **)block = o->blocks;
		o->blocks = block;
		for (at = FM_PAGE_LEN; at < BLOCK_LEN; at += FM_PAGE_LEN) {
			*(void **)(block + at) = o->free_pages;
			o->free_pages = block + at;
		}
	}
	page = o->free_pages;
	o->free_pages = *(void **)page;
	return page;
}

static void put_page(struct overlay *o, void *page)
{
	*(void **)page = o->free_pages;
	o->free_pages = page;
}

static struct overlay_chunk *take_chunk(struct overlay *o, uint64_t n)
{
	if (o->chunk[n] == NULL) {
		o->chunk[n] = map_anon(sizeof(*o->chunk[n]));
		if (o->chunk[n] == NULL)
			return NULL;
		bits_set(o->used, n);
		if (n >= o->end)
			o->end = n + 1;
	}
	return o->chunk[n];
}

/* What is behind the end of the file is zero. */
static int fetch(int fd, uint64_t off, unsigned char *page)
{
	ssize_t n = read_at(fd, page, FM_PAGE_LEN, off);

	if (n < 0)
		return err_sys(-n, "read at offset %llu", (unsigned long long)off);
	memset(page + n, 0, FM_PAGE_LEN - n);
	return 0;
}

int overlay_get(struct overlay *o, int fd, uint64_t page, unsigned char **bytes)
{
	struct overlay_chunk *c = take_chunk(o, page / FM_CHUNK_NPAGES);
	unsigned char **at;
	int rc;

	if (c == NULL)
		return err_sys(ENOMEM, "memory for a page of the log");
	at = &c->page[page % FM_CHUNK_NPAGES];
	*bytes = *at;
	if (*at != NULL)
		return 0;
	if (o->max_npages != 0 && o->npages >= o->max_npages)
		return err_set(EFBIG, "its log changes too much to be looked at by the way");
	*bytes = take_page(o);
	if (*bytes == NULL)
		return err_sys(ENOMEM, "memory for a page of the log");
	rc = fetch(fd, page << FM_PAGE_SHIFT, *bytes);
	if (rc < 0) {
		put_page(o, *bytes);
		return rc;
	}
	*at = *bytes;
	c->npages++;
	o->npages++;
	return 0;
}

void overlay_drop(struct overlay *o, uint64_t page)
{
	struct overlay_chunk *c = overlay_chunk(o, page);
	uint32_t i = page % FM_CHUNK_NPAGES;

	if (c == NULL || c->page[i] == NULL)
		return;
	put_page(o, c->page[i]);
	c->page[i] = NULL;
	c->npages--;
	o->npages--;
	if (bits_has(c->logged, i)) {
		c->nlogged--;
		o->nlogged--;
	}
	bits_clear(c->logged, i);
	bits_clear(c->open, i);
	if (c->npages > 0)
		return;
	map_anon_free(c, sizeof(*c));
	o->chunk[page / FM_CHUNK_NPAGES] = NULL;
	bits_clear(o->used, page / FM_CHUNK_NPAGES);
}

void overlay_set_logged(struct overlay *o, uint64_t page)
{
	struct overlay_chunk *c = overlay_chunk(o, page);
	uint32_t i = page % FM_CHUNK_NPAGES;

	if (!bits_has(c->logged, i)) {
		c->nlogged++;
		o->nlogged++;
	}
	bits_set(c->logged, i);
}

void overlay_set_open(struct overlay *o, uint64_t page)
{
	bits_set(overlay_chunk(o, page)->open, page % FM_CHUNK_NPAGES);
}

void overlay_set_written(struct overlay *o)
{
	uint64_t c;

	for (c = overlay_next_chunk(o, 0); c < o->nchunks;
	     c = overlay_next_chunk(o, c + 1)) {
		memset(o->chunk[c]->logged, 0, sizeof(o->chunk[c]->logged));
		o->chunk[c]->nlogged = 0;
	}
	o->nlogged = 0;
}

/* The page that is being stored into: most runs are of the same as the one before. */
struct cursor {
	uint64_t page;
	unsigned char *bytes; /* NULL: none yet */
};

static int go_to(struct overlay *o, int fd, uint64_t page, struct cursor *at)
{
	int rc;

	if (at->bytes != NULL && at->page == page)
		return 0;
	at->page = page;
	rc = overlay_get(o, fd, page, &at->bytes);
	if (rc == 0)
		overlay_set_logged(o, page);
	return rc;
}

/* Store words at off, page by page. */
static int store(struct overlay *o, int fd, struct cursor *at, uint64_t off,
		 const uint64_t *words, uint64_t nwords)
{
	uint64_t in_page, n;
	int rc;

	for (; nwords > 0; off += n * 8, words += n, nwords -= n) {
		in_page = off % FM_PAGE_LEN;
		n = (FM_PAGE_LEN - in_page) / 8;
		if (n > nwords)
			n = nwords;
		if (o->only != NULL && !bits_has(o->only, off >> FM_PAGE_SHIFT))
			continue;
		rc = go_to(o, fd, off >> FM_PAGE_SHIFT, at);
		if (rc < 0)
			return rc;
		if (n == 1)
			memcpy(at->bytes + in_page, words, 8);
		else
			memcpy(at->bytes + in_page, words, n * 8);
	}
	return 0;
}

int overlay_store(struct overlay *o, int fd, uint64_t off, const uint64_t *words,
		  uint64_t nwords)
{
	struct cursor at = { .bytes = NULL };

	return store(o, fd, &at, off, words, nwords);
}

int overlay_apply(struct overlay *o, int fd, const uint64_t *runs, uint64_t nwords)
{
	struct cursor at = { .bytes = NULL };
	uint64_t i, n;
	int rc = 0;

	for (i = 0; i < nwords && rc == 0; i += n + 1) {
		n = FM_RUN_NWORDS(runs[i]);
		rc = store(o, fd, &at, FM_RUN_OFF(runs[i]), &runs[i + 1], n);
	}
	return rc;
}

static const unsigned char *find(const struct overlay *o, uint64_t off)
{
	return off >> FM_CHUNK_SHIFT < o->nchunks
		       ? overlay_find(o, off >> FM_PAGE_SHIFT)
		       : NULL;
}

/* How far what follows off is all in the file. */
static uint64_t file_part(const struct overlay *o, uint64_t off, uint64_t len)
{
	uint64_t n = FM_PAGE_LEN - off % FM_PAGE_LEN;

	if (o->npages == 0)
		return len;
	while (n < len && find(o, off + n) == NULL)
		n += FM_PAGE_LEN;
	return n < len ? n : len;
}

static int read_file(int fd, uint64_t off, void *buf, uint64_t len)
{
	ssize_t n = read_at(fd, buf, len, off);

	return n == (ssize_t)len ? 0 : n < 0 ? n : -EUCLEAN;
}

int overlay_read(const struct overlay *o, int fd, uint64_t off, void *buf, uint64_t len)
{
	const unsigned char *page;
	unsigned char *to = buf;
	uint64_t at, n;
	int rc = 0;

	for (; len > 0 && rc == 0; to += n, off += n, len -= n) {
		at = off % FM_PAGE_LEN;
		page = find(o, off);
		if (page == NULL) {
			n = file_part(o, off, len);
			rc = read_file(fd, off, to, n);
		} else {
			n = FM_PAGE_LEN - at < len ? FM_PAGE_LEN - at : len;
			memcpy(to, page + at, n);
		}
	}
	return rc;
}
