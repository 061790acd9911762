/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages are nobody's.  What was allocated at the last checkpoint the page tables in
 * the file say, for they change at checkpoints only; what has been since, the records.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "common/bits.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/fresh.h"
#include "heap/heap.h"

#define DIR_PER_WORD (8 / sizeof(uint16_t))

/* A bit for each page, and the lap that the bits are of. */
struct fresh_chunk {
	uint32_t free_lap, taken_lap;
	uint64_t free[FM_CHUNK_NPAGES / 64];	/* at the checkpoint */
	uint64_t taken[FM_CHUNK_NPAGES / 64];	/* since */
};

static size_t table_len(void)
{
	return FM_MAX_NCHUNKS * sizeof(struct fresh_chunk);
}

int fresh_open(struct fresh *f)
{
	f->chunk = map_anon_sparse(table_len());
	f->table = map_anon(FM_ZONE_TABLE_LEN);
	return f->chunk == NULL || f->table == NULL
		       ? err_sys(ENOMEM, "memory for an atomic pool")
		       : 0;
}

void fresh_close(struct fresh *f)
{
	map_anon_free(f->chunk, table_len());
	map_anon_free(f->table, FM_ZONE_TABLE_LEN);
	map_anon_free(f->run, f->cap_runs * sizeof(*f->run));
}

void fresh_next_lap(struct fresh *f, uint64_t heap_end)
{
	f->lap++;
	f->lap_end = heap_end;
	f->known = true;
}

void fresh_forget(struct fresh *f)
{
	f->known = false;
}

/* --- at the checkpoint --------------------------------------------------------- */

/* Let f->table be the zone's page table, which is empty where it had none.  False: it is
 * no zone of pages, or cannot be read. */
static bool read_table(struct fresh *f, int fd, uint64_t zone)
{
	/* Zone 0 always is one, and not in the directory. */
	uint16_t kind = zone == 0 ? FM_ZONE_NORMAL : FM_ZONE_UNUSED;

	if (zone > 0 && zone * FM_ZONE_LEN < f->lap_end &&
	    read_at(fd, &kind, sizeof(kind), FM_ZONEDIR_OFF + zone * sizeof(kind)) !=
		    sizeof(kind))
		return false;
	memset(f->table, 0, FM_ZONE_TABLE_LEN);
	return kind == FM_ZONE_UNUSED ||
	       (kind == FM_ZONE_NORMAL &&
		read_at(fd, f->table, FM_ZONE_TABLE_LEN,
			zone * FM_ZONE_LEN + FM_ZONE_TABLE_OFF) == FM_ZONE_TABLE_LEN);
}

static void find_free(struct fresh *f, int fd, uint64_t zone)
{
	struct fresh_chunk *c = &f->chunk[zone * FM_ZONE_NCHUNKS];
	uint32_t i, p;

	for (i = 0; i < FM_ZONE_NCHUNKS; i++) {
		memset(c[i].free, 0, sizeof(c[i].free));
		c[i].free_lap = f->lap;
	}
	if (!read_table(f, fd, zone))
		return;
	for (p = FM_ZONE_HEAD_NPAGES; p < FM_ZONE_NPAGES; p++)
		if (f->table[p] == 0)
			bits_set(c[p / FM_CHUNK_NPAGES].free, p % FM_CHUNK_NPAGES);
		else
			p += FM_EXTENT_NPAGES(f->table[p]) - 1;
}

bool fresh_has(struct fresh *f, int fd, uint64_t page)
{
	struct fresh_chunk *c = &f->chunk[page / FM_CHUNK_NPAGES];

	if (!f->known)
		return false;
	if (c->free_lap != f->lap)
		find_free(f, fd, page / FM_ZONE_NPAGES);
	page %= FM_CHUNK_NPAGES;
	return bits_has(c->free, page) &&
	       !(c->taken_lap == f->lap && bits_has(c->taken, page));
}

/* --- since ------------------------------------------------------------------------ */

static void take(struct fresh *f, uint64_t zone, uint32_t page, uint32_t npages)
{
	uint64_t p = zone * FM_ZONE_NPAGES + page;
	uint64_t end = (zone + 1) * FM_ZONE_NPAGES;
	struct fresh_chunk *c;

	if (npages < end - p)
		end = p + npages;
	for (; p < end; p++) {
		c = &f->chunk[p / FM_CHUNK_NPAGES];
		if (c->taken_lap != f->lap) {
			memset(c->taken, 0, sizeof(c->taken));
			c->taken_lap = f->lap;
		}
		bits_set(c->taken, p % FM_CHUNK_NPAGES);
	}
}

/* Entries of the zone's page table, from the one of `page` on. */
static void take_entries(struct fresh *f, uint64_t zone, uint32_t page,
			 const uint32_t *entry, uint64_t n)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		if (entry[i] != 0)
			take(f, zone, page + i, FM_EXTENT_NPAGES(entry[i]));
}

/* The zone may have become one of pages, of which the record does not say what is
 * allocated if the zone is new; or something else. */
static void take_zone(struct fresh *f, const struct overlay *o, int fd, uint64_t zone,
		      uint16_t kind)
{
	uint16_t was = FM_ZONE_UNUSED;

	if (zone * FM_ZONE_LEN < f->lap_end &&
	    read_at(fd, &was, sizeof(was), FM_ZONEDIR_OFF + zone * sizeof(was)) ==
		    sizeof(was) &&
	    was == kind)
		return;
	if (zone * FM_ZONE_LEN >= f->lap_end && kind == FM_ZONE_NORMAL &&
	    overlay_read(o, fd, zone * FM_ZONE_LEN + FM_ZONE_TABLE_OFF, f->table,
			 FM_ZONE_TABLE_LEN) == 0)
		take_entries(f, zone, 0, f->table, FM_ZONE_NPAGES);
	else if (kind != FM_ZONE_UNUSED || zone * FM_ZONE_LEN < f->lap_end)
		take(f, zone, 0, FM_ZONE_NPAGES);
}

static void take_run(struct fresh *f, const struct overlay *o, int fd, uint64_t off,
		     const uint64_t *words, uint64_t nwords)
{
	uint64_t at = off % FM_ZONE_LEN, zone = off / FM_ZONE_LEN, i;
	uint16_t kind[DIR_PER_WORD];

	/* Replaying the log would store there. */
	take(f, zone, at >> FM_PAGE_SHIFT, 1);
	if (at >= FM_ZONE_TABLE_OFF && at < FM_ZONE_TABLE_OFF + FM_ZONE_TABLE_LEN)
		take_entries(f, zone, (at - FM_ZONE_TABLE_OFF) / sizeof(uint32_t),
			     (const uint32_t *)words, nwords * 2);
	if (off < FM_ZONEDIR_OFF || off >= FM_ZONEDIR_OFF + FM_ZONEDIR_LEN)
		return;
	zone = (off - FM_ZONEDIR_OFF) / sizeof(uint16_t);
	for (i = 0; i < nwords * DIR_PER_WORD; i++) {
		if (i % DIR_PER_WORD == 0)
			memcpy(kind, &words[i / DIR_PER_WORD], sizeof(kind));
		take_zone(f, o, fd, zone + i, kind[i % DIR_PER_WORD]);
	}
}

void fresh_commit(struct fresh *f, const struct overlay *o, int fd, const uint64_t *runs,
		  uint64_t nwords)
{
	uint64_t i, n;

	for (i = 0; i < nwords; i += n + 1) {
		n = FM_RUN_NWORDS(runs[i]);
		take_run(f, o, fd, FM_RUN_OFF(runs[i]), &runs[i + 1], n);
	}
}

/* --- of the commit that is being made ----------------------------------------------- */

int fresh_add(struct fresh *f, uint64_t off, uint64_t len)
{
	uint64_t cap = f->cap_runs == 0 ? 512 : f->cap_runs * 2;
	struct fresh_run *run;

	if (f->nruns == f->cap_runs) {
		run = map_anon_sparse(cap * sizeof(*run));
		if (run == NULL)
			return err_sys(ENOMEM, "memory for what is to be committed");
		if (f->nruns > 0)
			memcpy(run, f->run, f->nruns * sizeof(*run));
		map_anon_free(f->run, f->cap_runs * sizeof(*f->run));
		f->run = run;
		f->cap_runs = cap;
	}
	f->run[f->nruns++] = (struct fresh_run){ off, len };
	f->npages += len >> FM_PAGE_SHIFT;
	return 0;
}

void fresh_clear(struct fresh *f)
{
	f->nruns = 0;
	f->npages = 0;
}
