/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmalloc: malloc for memory-mapped files.
 *
 * A *pool* is a file that holds a heap.  A program opens it, allocates its
 * ordinary data structures in it, and finds them again after a restart.
 * Pointers from one object of a pool to another are kept as file offsets, in
 * an fm_ptr (C++, fmalloc.hpp) or an FM_PTR (C, below), so that they stay
 * right wherever the file is mapped.
 *
 * Failure is NULL or -1 with errno, and fm_errmsg() says in words what failed,
 * on which file, and why.  No function ends the process, whatever is in the
 * file.  Every function may be called from any thread unless it says
 * otherwise; closing a pool that another thread is using is the caller's
 * mistake.
 *
 * What is durable: a store into a *live* pool is in the kernel's page cache at
 * once and survives the death of the process, by any signal.  It survives a crash
 * of the machine once fmalloc_commit() has returned 0.  An *atomic* pool, which is
 * one made with FM_ATOMIC, is what fmalloc_commit() last made it, whatever crashes:
 * of the stores since then none is there.
 */
#ifndef FMALLOC_H
#define FMALLOC_H

#include <stddef.h>
#include <stdint.h>
#ifndef __cplusplus
#include <stdbool.h>
#endif

#include <fmalloc_config.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- pools -------------------------------------------------------------- */

/*
 * An open pool.  `mem` is the address of the file's first byte.  The 4 KiB at
 * mem + 4096 are the program's own, zero in a new pool, unless it uses named
 * roots (fm_root_set), which live there.
 */
struct fm_info {
	void *mem;
};

/* Flags of fmalloc_open().  Any other bit is refused with EINVAL. */
#define FM_CREATE 0x1	/* create the file, or initialise an empty or
			 * all-zero one, if it is no pool yet */
#define FM_EXCL 0x2	/* with FM_CREATE: fail with EEXIST if the file exists */
#define FM_RDONLY 0x4	/* map read-only, change nothing, keep no writer out */
#define FM_FIXED 0x8	/* map the pool at the address that it has for good */
#define FM_ATOMIC 0x10	/* if the pool is made, let its commits be all or nothing */

/*
 * fmalloc_open: open the pool in the file `path`.
 *
 * Without FM_RDONLY the caller becomes the pool's one writer, until it calls
 * fmalloc_close() or its process ends; a kernel-owned lock sees to that.
 * Readers may have the pool open beside it.  A new file has mode 0666 less
 * the umask; it and its directory entry are durable when the call returns.
 * If `created` is not NULL, *created tells whether a new heap was made.
 * A file that is neither a pool nor empty nor all zero is never changed.
 *
 * With FM_FIXED a pool is always mapped at the same address: the one that it
 * got when it was first opened so, for writing, which is kept in the file.  Plain
 * pointers into the pool may be stored in it then.  (A pool opened without
 * FM_FIXED usually comes back where it was, too, but may lie elsewhere.)
 *
 * FM_ATOMIC is a property of the pool, for good: opened without it, an atomic pool is
 * an atomic pool.  Opened for writing, it is as of its last commit; read-only, too,
 * until fm_refresh(), whatever its writer does meanwhile.  At a mount of fmfs with the
 * option "atomic" every new pool is made so, whoever makes it.
 *
 * If the caller has no target (fmalloc_set_target), the pool becomes it, and that
 * of other threads that never chose one.
 *
 * Returns the pool, or NULL with errno:
 *   EINVAL   path is NULL, the flags make no sense, or the file is not a pool;
 *            FM_FIXED | FM_RDONLY, and the pool has no address yet; FM_ATOMIC,
 *            and the pool is a live one
 *   ENOENT   no such file, and no FM_CREATE
 *   EEXIST   FM_EXCL, and the file exists
 *   EACCES, EPERM, EROFS   the file system denies it; EROFS also for a
 *            snapshot (use FM_RDONLY) and for a pool with features that this
 *            version may only read
 *   EISDIR   path is a directory
 *   EBUSY    another opener, or this process itself, has the pool open for
 *            writing; or FM_RDONLY, and the writer of an atomic pool does not
 *            let go of the file
 *   EUCLEAN  the file is a damaged pool (a bad checksum, cut short, ...)
 *   ENOTSUP  the pool has a newer format or features unknown to this version,
 *            or was made for another byte order
 *   ENOSPC, EDQUOT   no space for the heap: for a new one, for what a sparse copy
 *            lacks, or for stores into blocks that are shared with a copy or
 *            snapshot (as much as is shared must be free, or 64 MiB if that is
 *            less); the file stays as it was
 *   EFBIG    the pool is larger than an address window
 *   ENOMEM   no memory, or no free address window (FM_NWINDOWS pools are open)
 *   EADDRINUSE   FM_FIXED, and the pool's address is in use, by another pool
 *            or by anything else
 *   EADDRNOTAVAIL   FM_FIXED, and the address is none that this library maps
 *            pools at (it was built with other windows)
 *   or what open(2), fstat(2), fallocate(2), mmap(2), fsync(2) say.
 */
struct fm_info *fmalloc_open(const char *path, int flags, bool *created);

/*
 * fmalloc_init: open the pool `path` for writing, creating it if needed, and
 * make it the calling thread's target.  *init is set to true if a new heap
 * was made and left alone otherwise; init may be NULL.
 * Returns as fmalloc_open(path, FM_CREATE, ...).
 */
struct fm_info *fmalloc_init(const char *path, bool *init);

/*
 * fmalloc_close: unmap the pool and give up its lock.  Pointers into it are
 * invalid from here on.  Nothing is lost, and nothing is forced to the disk:
 * call fmalloc_commit() first for that.  Free space in the pool is given back to
 * the file system, and the file made shorter, if that saves much and nobody
 * reads the pool.  A process that just ends does as well, but for that.
 *
 * An atomic pool is committed first.  If that fails the pool stays open: try again, or
 * fmalloc_rollback() and then close.  A process that ends by exit(3), or by returning
 * from main(), commits as well, unless some thread has a bracket open (fm_begin); by
 * _exit(2), abort(3) or a signal it does not.
 *
 * Returns 0, or -1 with errno EINVAL (fi is not an open pool; nothing done), EDEADLK
 * (the calling thread has a bracket open), or as fmalloc_commit().
 */
int fmalloc_close(struct fm_info *fi);

/*
 * fmalloc_commit: everything stored in the pool before the call is durable
 * when it returns 0: it survives a crash of the machine.  (How much of what
 * was stored *after* the last commit survives such a crash is up to the
 * kernel.)  Other threads may go on storing.
 * Returns 0, or -1 with errno: EINVAL (not an open pool), EROFS (opened
 * FM_RDONLY), EPERM (in a forked child), EIO, ENOSPC or EDQUOT (the file system
 * could not write; what did not reach the disk stays in memory).
 *
 * Of an atomic pool all that was stored since the last commit becomes durable at
 * once, or nothing.  Nothing else need be done: no store is announced.
 * (Failure-atomic msync: Park, Kelly and Shen, "Failure-atomic msync(): a simple and
 * efficient mechanism for preserving the integrity of durable data", 2013.  Here the
 * differences are logged.)  It takes one sync of the disk; two if the pool grew.  When
 * it fails, memory is as it was, and the pool on the disk is as of the last commit: free
 * space and try again, or roll back.
 *
 * While other threads change the pool, all changes must be in brackets (fm_begin):
 * stores, and calls of this library that change the pool.  A commit of what another
 * thread is changing outside of one has some of it or not, and the change may be lost
 * altogether, in memory, too.
 *
 * More errors of an atomic pool: EDEADLK (the calling thread has a bracket open), EBADF
 * (the program has closed the pool's descriptor), ENOTCONN (the daemon of its mount has
 * ended, and there is no passthrough), ESTALE (... and another program has been its writer
 * since), ENOMEM.
 */
int fmalloc_commit(struct fm_info *fi);

/*
 * fmalloc_rollback: let the atomic pool be what the last commit made it, and all that
 * was stored and allocated since be undone.  Waits for open brackets.  Pointers to
 * blocks that were allocated since are invalid.  Nothing is made durable.
 * Returns 0, or -1 with memory as it was and errno: EINVAL (not an open pool, or a live
 * one), EROFS, EPERM, EDEADLK, EBADF, ENOTCONN, ESTALE as fmalloc_commit(), EIO, ENOMEM.
 */
int fmalloc_rollback(struct fm_info *fi);

/*
 * fm_begin, fm_end: a bracket around changes of an atomic pool that belong together.
 * Any number of threads may have brackets open at once; they do not exclude each other.
 * A commit, whoever asks for it, waits until none is open, and none opens until it
 * has seen what changed; while it waits for the disk they go on.  Threads that commit at
 * the same time share one sync.
 *
 * Brackets of one thread nest, and end with it.  Keep them short, and do not commit,
 * roll back or close within one.  A program in which one thread at a time uses the pool
 * needs none, and no program needs them for reading only.  Of a live pool they do
 * nothing.
 *
 * Return 0, or -1 with errno EINVAL (not an open pool; fm_end: no bracket is open),
 * EROFS, EPERM as fmalloc_commit().
 */
int fm_begin(struct fm_info *fi);
int fm_end(struct fm_info *fi);

/*
 * fm_refresh: let an atomic pool that is open FM_RDONLY be as of its last commit now.
 * Until then it stays what it was, and the writer's log may get longer.  No other
 * thread may be reading the pool meanwhile, and what was read before may be elsewhere
 * now.  Of a live pool, and of one that is open for writing, nothing is to be done.
 * Returns 0, or -1 with errno EINVAL (not an open pool), EPERM (in a forked child),
 * EBUSY, EUCLEAN, EBADF, ENOTCONN (the daemon of its mount has ended), EIO, ENOMEM: then
 * close it, or try again, for a writer, or a new mount, may change it.
 */
int fm_refresh(struct fm_info *fi);

/*
 * fm_set_private_limit: pages of an atomic pool that a program wrote are memory of its
 * process, not of the page cache, and each is there twice: as the program sees it, and
 * as the last commit had it.  If that is more than `len` bytes after a commit, the
 * commit also makes a checkpoint, which takes longer, and gives all of this memory
 * up: the pages are the file's again.  At first the limit is a quarter of the machine's
 * memory; 0: as little as can be.  Between two commits there is no limit.
 *
 * A reader of the pool holds checkpoints back, and so does a program with several
 * threads that uses no brackets (fm_begin): the limit is not kept then.  fm_stat()
 * tells what is used.  May be called at any time; counts from the next commit on.
 * Returns 0, or -1 with errno EINVAL (not an open pool), EROFS, EPERM as
 * fmalloc_commit().  Of a live pool nothing is to be done.
 */
int fm_set_private_limit(struct fm_info *fi, uint64_t len);

/*
 * fm_trim: give the free space in the pool back to the file system: all whole
 * 2 MiB of the file that hold no block, once what threads have at hand for their
 * next blocks is back in the heap.  The pool does so by itself when much is free, so
 * this is for a program that knows it will need no more for a while.  Takes about
 * 30 us for each 64 MiB of the pool, and 50 us for each MiB given back.  Other threads
 * may go on; each is held up for a moment, and not at all if it does not use the pool.
 * (Where the system forbids membarrier(2) it is only what the calling thread has at
 * hand, and threads that ended.)
 * Returns 0, or -1 with errno EINVAL, EROFS, EPERM as fmalloc_commit().
 */
int fm_trim(struct fm_info *fi);

/*
 * fm_prefetch: begin to read the whole pool into memory, in the order of the file.
 * Without it a pool that is not in the page cache is read a page at a time, as the
 * program comes by, which is right for looking things up here and there and slow
 * for walking through most of it.  Returns when the reads are under way: 0, or -1
 * with errno EINVAL.
 */
int fm_prefetch(struct fm_info *fi);

/*
 * fmalloc_set_target: the calling thread's fmalloc(), and its fm_ptrs outside
 * of any pool, refer to `fi` from here on.  A thread that never chose a
 * target uses the one most recently set by any thread.  NULL: choose none.
 */
void fmalloc_set_target(struct fm_info *fi);

/*
 * After fork(2) the child may read its copy of the mapping of a pool, but the
 * pool stays the parent's: in the child every function that would change it
 * fails with EPERM, and ffree() does nothing.  A child that wants the pool for
 * itself opens it once the parent has closed it.
 */

/*
 * When the daemon of an fmfs mount is killed, programs that have pools open there with
 * passthrough go on: stores, growth, commits.  Once the store is mounted at the same place
 * again, the library opens the pool again where it needs a daemon, by the absolute path
 * that it had.  A reader of an atomic pool should fm_refresh() then.  Without passthrough
 * an atomic pool cannot be committed before that (ENOTCONN), and what was not in memory
 * is a SIGBUS until that commit; a live pool is lost to the program.  If somebody else has
 * been the writer meanwhile, calls that need the file fail with ESTALE.
 */

/*
 * fm_errmsg: the calling thread's last failure of a function of this library
 * in words, in English, such as "pool 'p': it is cut short: ...".  Never
 * NULL; "" if nothing failed yet.  Valid until the thread's next failure.
 */
const char *fm_errmsg(void);

/* --- blocks ------------------------------------------------------------- */

/*
 * fmalloc: allocate `size` bytes in the target pool, aligned to 16 bytes; at
 * least one byte is allocated.  The bytes are not cleared.  Space on the disk
 * is reserved before the block is handed out, so that a store into it cannot
 * fail later (but where the file system must copy what is stored into: on Btrfs in a
 * pool that was copied there, on XFS and Btrfs in one that shares blocks with a copy
 * or snapshot: there a disk that gets full is a SIGBUS).  The pool grows as needed.
 * Returns the block, or NULL with errno:
 *   EINVAL  there is no target
 *   ENOMEM  the size is beyond the address window or what it has left
 *   ENOSPC, EDQUOT, EFBIG, EIO   the file cannot grow
 *   EBADF   nor can it, for the program has closed its descriptor
 *   ENOTCONN   nor can it: the daemon of the mount has ended, and had no passthrough
 *   EROFS   the pool is open FM_RDONLY
 *   EPERM   in a forked child
 *   EUCLEAN the heap on disk is damaged where the block would have been
 */
void *fmalloc(size_t size);

/* fmalloc_in: the same in the pool `fi`; EINVAL if that is not an open pool. */
void *fmalloc_in(struct fm_info *fi, size_t size);

/* fcalloc: n * size bytes in the target, all zero; ENOMEM if that overflows. */
void *fcalloc(size_t n, size_t size);

/*
 * frealloc: make the block at `ptr`, of any open pool, at least `size` bytes
 * long, moving it within its pool if need be; the contents are kept as far as
 * both sizes reach.  ptr NULL: as fmalloc(size).  size 0: as size 1.
 * Returns the block, or NULL with the block unchanged and errno as fmalloc(),
 * EINVAL if ptr is not an allocated block.
 */
void *frealloc(void *ptr, size_t size);

/*
 * faligned_alloc: `size` bytes aligned to `align`, a power of two of at most
 * 32 MiB (else EINVAL), in the target.  The file offset has the same alignment.
 */
void *faligned_alloc(size_t align, size_t size);

/*
 * ffree: free the block at `ptr`, found in its pool whichever is the target.
 * NULL is fine.  A pointer that is not an allocated block of an open pool (a
 * double free, a pointer into a block, ordinary memory, a pool opened
 * read-only) is left alone and reported: fm_errmsg() names it, and
 * fm_bad_free_count() goes up.  Never changes errno.
 */
void ffree(void *ptr);

/* fm_bad_free_count: how often ffree() refused a pointer, in this process. */
uint64_t fm_bad_free_count(void);

/*
 * fmalloc_usable_size: how many bytes the block at `ptr` really has; 0 for
 * NULL, and for a pointer that is no allocated block (errno EINVAL).
 */
size_t fmalloc_usable_size(const void *ptr);

/* --- a block and the pointer to it, in one step ---------------------------- */

/*
 * A process that is killed between fmalloc() and the store of the pointer leaves
 * a block that nothing refers to.  These functions allocate and link, or unlink
 * and free, in one step: killed at any instruction, either both happened or
 * neither.  A pool changed by nothing else leaks nothing.
 *
 * `where` is a pool pointer (fm_ptr<T> *, FM_PTR(T) *) that lies in an open pool,
 * in an allocated block or in the application region, at an address that is a
 * multiple of 8; the block is of the same pool.  Until the call returns no other
 * thread may change *where or free what it refers to.
 *
 * fmalloc_into: allocate `size` bytes, not cleared, and let *where refer to them,
 * whatever it referred to before.
 * ffree_from: let *where be null, and free what it referred to; null is fine.
 * frealloc_into: make the block that *where refers to at least `size` bytes long,
 * moving it if need be; null: as fmalloc_into().
 *
 * Return 0, or -1 with *where and its block unchanged and errno as fmalloc();
 * EINVAL: where is not in the application region or where blocks can be (whether a
 * block is there is not looked at), or it refers to what is no allocated block.
 */
int fmalloc_into(void *where, size_t size);
int ffree_from(void *where);
int frealloc_into(void *where, size_t size);

/* --- named roots --------------------------------------------------------- */

/*
 * A named root is where a program that opens a pool starts from.  Names have 1
 * to FM_ROOT_NAME_MAX bytes, types 0 to FM_ROOT_TYPE_MAX; both are any bytes
 * without '\0', '\n' or other control characters.  Roots live in the
 * application region (struct fm_info) and, when it is full, in the heap.
 * A program that uses the region for its own purposes keeps it: the calls fail
 * with EEXIST then.
 */
#define FM_ROOT_NAME_MAX 127
#define FM_ROOT_TYPE_MAX 87

/*
 * fm_root_set: let `name` be the root of `ptr`, which lies in the pool or is
 * NULL, replacing what it was before, all at once.  `type` (NULL: "") is
 * checked by fm_root_get(); call it what you like, the program's struct tag,
 * say.
 * Returns 0, or -1 with errno: EINVAL (not an open pool, a bad name or type,
 * ptr not in the pool's heap), EEXIST (region in use), EUCLEAN (damaged roots),
 * EROFS, EPERM, and what fmalloc() says when a further page is needed.
 */
int fm_root_set(struct fm_info *fi, const char *name, const void *ptr,
		const char *type);

/*
 * fm_root_get: the address that the root `name` has.  If `type` is not NULL
 * it must be the one the root was set with.
 * Returns the address, or NULL with errno: 0 (the root is a null root), ENOENT
 * (no such root), EPROTOTYPE (another type), EINVAL, EEXIST, EUCLEAN as above.
 */
void *fm_root_get(struct fm_info *fi, const char *name, const char *type);

/*
 * fm_root_alloc: the object of the root `name`, which is allocated, `size` bytes of
 * zeroes, if there is no such root, or a null one.  As fmalloc_into(), in one step:
 * a kill leaves no object without its root.  Type as of fm_root_set().
 * Returns its address, or NULL with errno as fm_root_get() (but not ENOENT or 0) and
 * fmalloc().
 */
void *fm_root_alloc(struct fm_info *fi, const char *name, size_t size,
		    const char *type);

/* fm_root_remove: forget the root; its object stays.  0, or -1: as above. */
int fm_root_remove(struct fm_info *fi, const char *name);

/*
 * fm_root_each: call fn for every root, in no particular order, until it
 * returns something other than 0; returns that, or 0 at the end, or -1 with
 * errno.  fn must not call the fm_root_ functions of this pool, nor commit it or roll it
 * back if it is atomic.
 */
int fm_root_each(struct fm_info *fi,
		 int (*fn)(const char *name, void *ptr, const char *type,
			   void *arg),
		 void *arg);

/* --- checking a pool, and figures of one ----------------------------------- */

/* Flags of fm_check_each(). */
#define FM_CHECK_REPAIR 0x1	/* put right what can be */

/* What a finding is. */
#define FM_FINDING_NOTE 1	/* a kill may leave it, or it does no harm: the pool is
				 * good, and who next writes to it needs no help */
#define FM_FINDING_DAMAGE 2	/* the pool is not what its format says */

/* Valid during the call that it is given to. */
struct fm_finding {
	uint64_t off;		/* where in the file the bytes in question are */
	int level;		/* FM_FINDING_ */
	int repaired;		/* 1: they are right now */
	const char *structure;	/* what they are of, such as "page table" */
	const char *what;	/* what is wrong with them, and what that means */
};

/*
 * fm_check_each: check all the bookkeeping of the pool in the file `path`, trusting
 * nothing in it, and call fn for each finding, in no particular order; fn may be
 * NULL.  The file is read, not mapped; it may hold anything, and be cut short
 * meanwhile.  What the program itself keeps in its blocks is not looked at, and
 * whether anything refers to a block nobody can know.  Memory is taken for a zone
 * of 64 MiB at a time, and some 200 bytes for each root.
 *
 * Nobody should write to the pool meanwhile: the call fails with EBUSY if somebody
 * does when it begins or when it ends, and then what fn was told may be wrong.
 * Take a snapshot to check a pool that is in use.
 *
 * With FM_CHECK_REPAIR the caller is the pool's writer until the call returns, and
 * what can be put right without losing what may be in use is: each by one store
 * that leaves things no worse if the process is killed before or after it, all
 * durable when the call returns.  What is left by a kill is settled as by opening
 * the pool for writing (a pool of version 0.1 becomes one that version 0.1 only
 * reads).  What cannot be put right is reported and left alone.  When it is done,
 * another repair would find nothing to do.
 *
 * Returns 0: the pool is good (there may have been notes, or damage that was
 * repaired); what fn returned, if that was not 0, and then not all was looked at;
 * or -1 with errno:
 *   EUCLEAN  it is damaged; fm_errmsg() has the first finding that is left
 *   EINVAL   path is NULL, the flags make no sense, or the file is not a pool
 *   ENOTSUP  it has a newer format or features unknown to this version, or was made
 *            for another byte order
 *   EBUSY    somebody has it open for writing
 *   EROFS    FM_CHECK_REPAIR: it is a snapshot, or has features that this version
 *            may only read
 *   ENOENT, EACCES, EISDIR, EIO, ENOMEM, ... as fmalloc_open()
 */
int fm_check_each(const char *path, int flags,
		  int (*fn)(const struct fm_finding *finding, void *arg), void *arg);

/* fm_check: whether the pool is good; changes nothing.  As fm_check_each(path, 0,
 * NULL, NULL). */
int fm_check(const char *path);

#define FM_NCLASSES 54		/* size classes of small blocks */

struct fm_class_stats {
	uint64_t block_len;	/* bytes of a block */
	uint64_t nslabs;	/* of 64 KiB */
	uint64_t nlive;		/* allocated blocks */
	uint64_t nfree;		/* free ones in the slabs, but for ... */
	uint64_t nremote;	/* ... those that another thread freed and the slab's
				 * owner has not taken over yet */
};

/*
 * Lengths are bytes.  What grows with later versions is behind what is there now:
 * `size` says how much of it the caller knows.
 */
struct fm_stats {
	uint64_t size;		/* in: sizeof(struct fm_stats) */
	uint64_t file_len;
	uint64_t disk_len;	/* that the file system has allocated for the file */
	uint64_t heap_end;	/* in use at the start of the file */
	uint64_t nroots;	/* named roots */
	uint64_t nzones;	/* of 64 MiB, without those of huge blocks */
	uint64_t nlive;		/* allocated blocks of any size ... */
	uint64_t live_len;	/* ... and their usable bytes */
	uint64_t nruns, run_len; /* large blocks among them: runs of pages ... */
	uint64_t nhuge, huge_len; /* ... and those that no zone can hold */
	uint64_t nmagazine;	/* free blocks in magazines of version 0.1 */
	uint64_t meta_len;	/* the heap's own extents: pages of roots, intents */
	uint64_t backed_len;	/* space that the file has for blocks: slabs, runs, huge
				 * blocks and free pages */
	uint64_t free_len;	/* free pages in it; free blocks of slabs count in their
				 * class */
	uint64_t largest_free_len; /* the longest run of free pages */
	uint64_t nfree_chunks;	/* free whole chunks of 2 MiB: what fm_trim() would give
				 * back */
	uint64_t nhole_chunks;	/* chunks that have been given back */
	/* Of backed_len, the part, in thousandths, that holds no live block and is in
	 * no free chunk: free, but in pieces that cannot be given back.  0: none. */
	uint64_t fragmentation;
	struct fm_class_stats cls[FM_NCLASSES];
	/* Of an atomic pool; of others 0.  If this process has it open for writing, as
	 * they were after its last commit. */
	uint64_t log_len;	/* the space of the log ... */
	uint64_t log_used_len;	/* ... and what commits since the last checkpoint take */
	uint64_t private_len;	/* memory of the process for what was written: see
				 * fm_set_private_limit() */
};

/*
 * fm_stat: how the open pool is used, worked out from its bookkeeping, which takes
 * some 0.5 ms for each 64 MiB of the pool and 4 us for each root.  Exact if no thread allocates or frees meanwhile, and
 * no other process writes to it.  Else each word is read whole, but at moments of
 * its own: figures may be off by what was changed during the call, and not quite
 * agree with each other.  Damaged parts of a pool do not count.  disk_len is what
 * fstat(2) says.
 * Returns 0, or -1 with errno: EINVAL (not an open pool, stats is NULL, or its size
 * is smaller than that of the first version), ENOMEM, EUCLEAN (the super or the
 * roots are damaged), ENOTCONN (the daemon of its mount has ended), EBADF (in a forked
 * child, or the program has closed the pool's descriptor).
 */
int fm_stat(struct fm_info *fi, struct fm_stats *stats);

/* --- pointers ------------------------------------------------------------ */

/*
 * A pool pointer is 8 bytes.  Within a pool it holds the file offset of an
 * object of the same pool, 0 for null, and the pool's base address is that
 * of the pointer itself with the low FM_WINDOW_BITS bits cleared: it needs no
 * target, and any number of pools can be open.  Outside of pools (on the
 * stack, say) it holds an offset into the thread's target pool, or the address
 * if the object lies in another pool.
 *
 *     struct node { int val; FM_PTR(struct node) next; };
 *     fm_set(n->next, other);
 *     struct node *m = fm_get(n->next);
 *
 * Storing a pointer that cannot be represented (into another pool, or to
 * ordinary memory) stores null, with errno EXDEV and fm_errmsg().
 */
#define FM_PTR(T) union { uint64_t fm_off; T *fm_type; }
#define fm_get(ref) ((__typeof__((ref).fm_type))fm_ptr_load(&(ref).fm_off))
#define fm_set(ref, p) fm_ptr_store(&(ref).fm_off, 1 ? (p) : (ref).fm_type)

/* What the inline functions below fall back to; not for direct use. */
void *fm_ptr_load_outside(uint64_t value);
uint64_t fm_ptr_value_outside(const void *self, const void *ptr);

/* The address that the pool pointer at `self` refers to. */
static inline void *fm_ptr_load(const void *self)
{
	uint64_t value;

	__builtin_memcpy(&value, self, sizeof(value));
	if (__builtin_expect(value == 0, 0))
		return NULL;
	if (__builtin_expect((uintptr_t)self - FM_REGION_BASE <
				     (uintptr_t)FM_NWINDOWS << FM_WINDOW_BITS, 1))
		return (void *)(((uintptr_t)self >> FM_WINDOW_BITS
				 << FM_WINDOW_BITS) + value);
	return fm_ptr_load_outside(value);
}

/* Let the pool pointer at `self` refer to `ptr`. */
static inline void fm_ptr_store(void *self, const void *ptr)
{
	uint64_t value = (uintptr_t)ptr;

	if (value != 0) {
		value ^= (uintptr_t)self >> FM_WINDOW_BITS << FM_WINDOW_BITS;
		if (__builtin_expect(value >> FM_WINDOW_BITS != 0 ||
				     (uintptr_t)self - FM_REGION_BASE >=
				     (uintptr_t)FM_NWINDOWS << FM_WINDOW_BITS, 0))
			value = fm_ptr_value_outside(self, ptr);
	}
	__builtin_memcpy(self, &value, sizeof(value));
}

#ifdef __cplusplus
}
#endif

#endif
