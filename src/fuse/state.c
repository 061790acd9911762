/* SPDX-License-Identifier: Apache-2.0 */
/* A list of values.  Numbers are in this machine's byte order: it is where they are read. */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/state.h"

#define TEXT_MAX 65536

void state_free(struct state *s, bool read)
{
	for (size_t i = 0; read && i < s->nfds; i++)
		if (s->fd[i] >= 0)
			close(s->fd[i]);
	free(s->fd);
	free(s->mem);
	*s = (struct state){ .failed = true };
}

/* --- writing ------------------------------------------------------------------- */

static void append(struct state *s, const void *bytes, size_t len)
{
	size_t size = s->size == 0 ? 4096 : s->size;
	unsigned char *mem;

	while (size - s->len < len)
		size *= 2;
	if (size > s->size && !s->failed) {
		mem = realloc(s->mem, size);
		s->failed = mem == NULL;
		s->mem = mem == NULL ? s->mem : mem;
		s->size = mem == NULL ? s->size : size;
	}
	if (s->failed || len == 0)
		return;
	memcpy(s->mem + s->len, bytes, len);
	s->len += len;
}

void state_put(struct state *s, uint64_t value)
{
	append(s, &value, sizeof(value));
}

void state_put_bytes(struct state *s, const void *bytes, size_t len)
{
	state_put(s, len);
	append(s, bytes, len);
}

void state_put_text(struct state *s, const char *text)
{
	state_put(s, text != NULL);
	if (text != NULL)
		state_put_bytes(s, text, strlen(text));
}

void state_put_fd(struct state *s, int fd)
{
	size_t max = s->max_fds == 0 ? 64 : s->max_fds * 2;
	int *fds;

	state_put(s, fd < 0 ? 0 : s->nfds + 1);
	if (fd < 0)
		return;
	if (s->nfds == s->max_fds) {
		fds = realloc(s->fd, max * sizeof(*fds));
		if (fds == NULL) {
			s->failed = true;
			return;
		}
		s->fd = fds;
		s->max_fds = max;
	}
	s->fd[s->nfds++] = fd;
}

/* --- reading ------------------------------------------------------------------- */

/* The next len bytes, in place. */
static const void *next(struct state *s, size_t len)
{
	const void *at = s->mem + s->pos;

	if (s->failed || len > s->len - s->pos) {
		s->failed = true;
		return NULL;
	}
	s->pos += len;
	return at;
}

uint64_t state_get(struct state *s)
{
	uint64_t value = 0;
	const void *at = next(s, sizeof(value));

	if (at != NULL)
		memcpy(&value, at, sizeof(value));
	return value;
}

const void *state_get_bytes(struct state *s, size_t max, size_t *len)
{
	const void *at;

	*len = state_get(s);
	if (*len > max)
		s->failed = true;
	at = next(s, *len);
	if (at == NULL)
		*len = 0;
	return at;
}

char *state_get_text(struct state *s)
{
	const char *at;
	char *text;
	size_t len;

	if (state_get(s) == 0)
		return NULL;
	at = state_get_bytes(s, TEXT_MAX, &len);
	text = at == NULL ? NULL : strndup(at, len);
	if (text == NULL)
		s->failed = true;
	return text;
}

int state_get_fd(struct state *s)
{
	uint64_t i = state_get(s);
	int fd;

	if (i == 0)
		return -1;
	if (i > s->nfds || s->fd[i - 1] < 0) {
		s->failed = true;
		return -1;
	}
	fd = s->fd[i - 1];
	s->fd[i - 1] = -1;
	return fd;
}
