/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of a file in memory, and the way back. */
#include <config.h>

#include "power/image.h"
#include "scratch.h"

#include <sys/mman.h>

#define PAGE 4096u

int __real_ftruncate(int fd, off_t len);

/* Of bytes, or of the length of the file. */
struct image_undo {
	bool is_length;
	uint64_t off, len;
};

void image_open(struct image *im, const char *from)
{
	memset(im, 0, sizeof(*im));
	im->fd = memfd_create("image", MFD_CLOEXEC);
	assert_true(im->fd >= 0);
	snprintf(im->path, sizeof(im->path), "/proc/self/fd/%d", im->fd);
	file_copy(from, im->path);
	im->len = file_size(from);
	assert_true(im->len <= IMAGE_LEN_MAX);
	im->mem = mmap(NULL, IMAGE_LEN_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, im->fd,
		       0);
	assert_ptr_not_equal(im->mem, MAP_FAILED);
}

void image_close(struct image *im)
{
	munmap(im->mem, IMAGE_LEN_MAX);
	close(im->fd);
	free(im->undo);
	free(im->old);
}

/* --- what was there ----------------------------------------------------------- */

static void *grown(void *mem, size_t *cap, size_t n, size_t size)
{
	if (n <= *cap)
		return mem;
	while (*cap < n)
		*cap = *cap == 0 ? 1024 : *cap * 2;
	mem = realloc(mem, *cap * size);
	assert_non_null(mem);
	return mem;
}

static void push(struct image *im, bool is_length, uint64_t off, uint64_t len)
{
	im->undo = grown(im->undo, &im->cap, im->n + 1, sizeof(*im->undo));
	im->undo[im->n++] = (struct image_undo){ is_length, off, len };
}

void image_save(struct image *im, uint64_t off, uint64_t len)
{
	if (off >= im->len)
		return;
	if (len > im->len - off)
		len = im->len - off;
	im->old = grown(im->old, &im->cap_old, im->nold + len, 1);
	memcpy(im->old + im->nold, im->mem + off, len);
	im->nold += len;
	push(im, false, off, len);
}

static bool is_zero(const unsigned char *p, uint64_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Zeroes need not be saved: a file that becomes longer again has them. */
void image_save_length(struct image *im, uint64_t len)
{
	uint64_t off, n;

	for (off = len; off < im->len; off += n) {
		n = PAGE - off % PAGE < im->len - off ? PAGE - off % PAGE
						      : im->len - off;
		if (!is_zero(im->mem + off, n))
			image_save(im, off, n);
	}
	push(im, true, 0, im->len);
	im->len = len;
}

void image_undo(struct image *im, size_t n)
{
	const struct image_undo *u;

	while (im->n > n) {
		u = &im->undo[--im->n];
		if (u->is_length) {
			im->len = u->len;
			assert_int_equal(__real_ftruncate(im->fd, im->len), 0);
			continue;
		}
		im->nold -= u->len;
		memcpy(im->mem + u->off, im->old + im->nold, u->len);
	}
}

void image_keep(struct image *im)
{
	im->n = im->nold = 0;
}

/* --- changes ------------------------------------------------------------------ */

void image_write(struct image *im, const void *data, uint64_t off, uint64_t len)
{
	if (off >= im->len)
		return;
	if (len > im->len - off)
		len = im->len - off;
	image_save(im, off, len);
	memcpy(im->mem + off, data, len);
}

void image_zero(struct image *im, uint64_t off, uint64_t len)
{
	if (off >= im->len)
		return;
	if (len > im->len - off)
		len = im->len - off;
	image_save(im, off, len);
	memset(im->mem + off, 0, len);
}

void image_set_length(struct image *im, uint64_t len)
{
	if (len == im->len)
		return;
	assert_true(len <= IMAGE_LEN_MAX);
	image_save_length(im, len);
	assert_int_equal(__real_ftruncate(im->fd, len), 0);
}
