/* SPDX-License-Identifier: Apache-2.0 */
/* Stepping over the stores into a mapping; x86-64 and Linux. */
#include <config.h>

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <ucontext.h>
#include <unistd.h>

#include "crash/trace.h"

#define PAGE 4096u
#define TRAP_FLAG 0x100		/* of the flags register: stop after an instruction */
#define TRACED_LEN (UINT64_C(512) << 20)

static struct {
	unsigned char *base;
	void (*fn)(const struct change *change);
	struct change last;
	/* The pages that the store under way is about to change. */
	unsigned char *page[2];
	unsigned char before[2][PAGE];
	int npages;
} tr;

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
	    addr >= tr.base + TRACED_LEN || tr.npages == 2) {
		signal(sig, SIG_DFL);	/* it happens again, and counts */
		return;
	}
	addr -= (uintptr_t)addr % PAGE;
	tr.page[tr.npages] = addr;
	memcpy(tr.before[tr.npages++], addr, PAGE);
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
	for (i = 0; i < tr.npages; i++)
		protect(tr.page[i], PAGE, true);
	for (i = 0; i < tr.npages; i++) {
		if (memcmp(tr.page[i], tr.before[i], PAGE) == 0)
			continue;
		for (from = 0; tr.page[i][from] == tr.before[i][from]; from++)
			;
		for (to = PAGE; tr.page[i][to - 1] == tr.before[i][to - 1]; to--)
			;
		changed(NULL, (void *)uc->uc_mcontext.gregs[REG_RIP],
			tr.page[i] - tr.base + from, to - from, tr.before[i] + from);
	}
	tr.npages = 0;
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

void trace_pause(bool begins)
{
	if (tr.fn != NULL && tr.base != NULL)
		protect(tr.base, TRACED_LEN, !begins);
}

unsigned char *trace_base(void)
{
	return tr.base;
}

/* --- system calls that change the file, or its mapping ------------------------------ */

void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int __real_munmap(void *addr, size_t len);
int __wrap_munmap(void *addr, size_t len);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
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

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	int rc = __real_fallocate(fd, mode, off, len);

	if (tr.fn != NULL)
		changed("fallocate", NULL, off, 0, NULL);
	return rc;
}

int __wrap_ftruncate(int fd, off_t len)
{
	int rc = __real_ftruncate(fd, len);

	if (tr.fn != NULL)
		changed("ftruncate", NULL, len, 0, NULL);
	return rc;
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	ssize_t n = __real_pwrite(fd, buf, len, off);

	if (tr.fn != NULL)
		changed("pwrite", NULL, off, 0, NULL);
	return n;
}
