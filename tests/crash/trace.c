/* SPDX-License-Identifier: Apache-2.0 */
/* Stepping over the stores into a mapping; x86-64 and Linux. */
#include <config.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <ucontext.h>
#include <unistd.h>

#include "crash/trace.h"

#define PAGE 4096u
#define PART 64u
#define TRAP_FLAG 0x100		/* of the flags register: stop after an instruction */
#define TRACED_LEN (UINT64_C(512) << 20)

static struct {
	unsigned char *base;
	void (*fn)(const struct change *change);
	struct change last;
	bool busy;	/* a thread is making a change, or telling of it; atomic */
} tr;

/* The pages that the thread's store under way is about to change. */
static __thread struct {
	unsigned char *page[2];
	unsigned char before[2][PAGE];
	int npages;
	bool holds;	/* tr.busy */
} my;

static void begin_change(void)
{
	while (!my.holds && __atomic_exchange_n(&tr.busy, true, __ATOMIC_ACQUIRE))
		sched_yield();
	my.holds = true;
}

static void end_change(void)
{
	my.holds = false;
	__atomic_store_n(&tr.busy, false, __ATOMIC_RELEASE);
}

void trace_yield(bool begins)
{
	if (begins)
		end_change();
	else
		begin_change();
}

static void protect(unsigned char *mem, uint64_t len, bool readonly)
{
	if (mprotect(mem, len, readonly ? PROT_READ : PROT_READ | PROT_WRITE) != 0)
		_exit(99);
}

static void changed(const char *call, void *pc, uint64_t off, uint32_t len,
		    const unsigned char *before)
{
	tr.last.number++;
	tr.last.call = call;
	tr.last.pc = pc;
	tr.last.off = off;
	tr.last.len = len;
	tr.last.before = before;
	tr.fn(&tr.last);
}

/* A store is about to be made. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	unsigned char *addr = info->si_addr;
	ucontext_t *uc = context;

	if (tr.base == NULL || tr.fn == NULL || addr < tr.base ||
	    addr >= tr.base + TRACED_LEN || my.npages == 2) {
		signal(sig, SIG_DFL);	/* it happens again, and counts */
		return;
	}
	begin_change();
	addr -= (uintptr_t)addr % PAGE;
	my.page[my.npages] = addr;
	memcpy(my.before[my.npages++], addr, PAGE);
	protect(addr, PAGE, false);
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* It has been made. */
static void on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint32_t from, to;
	int i;

	(void)sig;
	(void)info;
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	for (i = 0; i < my.npages; i++)
		protect(my.page[i], PAGE, true);
	for (i = 0; i < my.npages; i++) {
		if (memcmp(my.page[i], my.before[i], PAGE) == 0)
			continue;
		for (from = 0; my.page[i][from] == my.before[i][from]; from++)
			;
		for (to = PAGE; my.page[i][to - 1] == my.before[i][to - 1]; to--)
			;
		changed(NULL, (void *)uc->uc_mcontext.gregs[REG_RIP],
			my.page[i] - tr.base + from, to - from, my.before[i] + from);
	}
	my.npages = 0;
	end_change();
}

void trace_start(void (*fn)(const struct change *change))
{
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	struct sigaction step = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGTRAP, &step, NULL);
	tr.fn = fn;
	if (tr.base != NULL)
		protect(tr.base, TRACED_LEN, true);
}

void trace_stop(void)
{
	if (tr.fn != NULL && tr.base != NULL)
		protect(tr.base, TRACED_LEN, false);
	tr.fn = NULL;
}

/* Another thread tells of no change meanwhile: who judges it would see a part. */
void trace_pause(bool begins)
{
	if (tr.fn == NULL || tr.base == NULL)
		return;
	if (begins)
		begin_change();
	protect(tr.base, TRACED_LEN, !begins);
	if (!begins)
		end_change();
}

unsigned char *trace_base(void)
{
	return tr.base;
}

/* --- long stores, of which most change nothing --------------------------------------- */

void *__real_memset(void *to, int c, size_t len);
void *__wrap_memset(void *to, int c, size_t len);
void *__real_memcpy(void *to, const void *from, size_t len);
void *__wrap_memcpy(void *to, const void *from, size_t len);

static bool is_traced(const unsigned char *to)
{
	return tr.fn != NULL && tr.base != NULL && to >= tr.base &&
	       to < tr.base + TRACED_LEN;
}

/* The part of [at, len) that is to be stored together: short, so that libc does not
 * come to think of instructions that store single bytes. */
static size_t part(size_t at, size_t len)
{
	return len - at < PART ? len - at : PART;
}

static bool all_are(const unsigned char *mem, unsigned char c, size_t len)
{
	return mem[0] == c && memcmp(mem, mem + 1, len - 1) == 0;
}

void *__wrap_memset(void *to, int c, size_t len)
{
	unsigned char *mem = to;
	size_t at;

	if (!is_traced(to))
		return __real_memset(to, c, len);
	for (at = 0; at < len; at += part(at, len))
		if (!all_are(mem + at, c, part(at, len)))
			__real_memset(mem + at, c, part(at, len));
	return to;
}

void *__wrap_memcpy(void *to, const void *from, size_t len)
{
	const unsigned char *source = from;
	unsigned char *mem = to;
	size_t at;

	if (!is_traced(to))
		return __real_memcpy(to, from, len);
	for (at = 0; at < len; at += part(at, len))
		if (memcmp(mem + at, source + at, part(at, len)) != 0)
			__real_memcpy(mem + at, source + at, part(at, len));
	return to;
}

/* --- system calls that change the file, or its mapping ------------------------------ */

void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int __real_munmap(void *addr, size_t len);
int __wrap_munmap(void *addr, size_t len);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __real_madvise(void *addr, size_t len, int advice);
int __wrap_madvise(void *addr, size_t len, int advice);
int __real_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len);
ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off);

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *mem = __real_mmap(addr, len, prot, flags, fd, off);

	if (mem != MAP_FAILED && fd >= 0 && flags & MAP_SHARED && prot & PROT_WRITE &&
	    len >= TRACED_LEN) {
		tr.base = mem;
		if (tr.fn != NULL)
			protect(tr.base, TRACED_LEN, true);
	}
	return mem;
}

int __wrap_munmap(void *addr, size_t len)
{
	if (addr == tr.base)
		tr.base = NULL;
	return __real_munmap(addr, len);
}

static void called(const char *call, uint64_t off)
{
	if (tr.fn != NULL)
		changed(call, NULL, off, 0, NULL);
	end_change();
}

/* Space itself is not what is tested, and takes time to get: the file in memory is
 * only made longer. */
static int reserve(int fd, off_t end)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -1;
	return st.st_size >= end ? 0 : __real_ftruncate(fd, end);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	int rc;

	begin_change();
	rc = mode == 0 ? reserve(fd, off + len) : __real_fallocate(fd, mode, off, len);
	called("fallocate", off);
	return rc;
}

/* Of the advice this alone changes what is in the file. */
int __wrap_madvise(void *addr, size_t len, int advice)
{
	int rc;

	if (advice != MADV_REMOVE)
		return __real_madvise(addr, len, advice);
	begin_change();
	rc = __real_madvise(addr, len, advice);
	called("madvise", (unsigned char *)addr - tr.base);
	return rc;
}

int __wrap_ftruncate(int fd, off_t len)
{
	int rc;

	begin_change();
	rc = __real_ftruncate(fd, len);
	called("ftruncate", len);
	return rc;
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	ssize_t n;

	begin_change();
	n = __real_pwrite(fd, buf, len, off);
	called("pwrite", off);
	return n;
}
