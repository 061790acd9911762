/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mlockall(2): what of the heap's address window is not in use stays out of memory.
 *
 * The kernel would bring all of what is mapped into memory, and the window is mapped
 * twice, as is an entry for each slab that there may be; the file is as long as the
 * window.  So pages are locked when they are first touched.  The program's other
 * mappings are, too, for there is no other way to tell the kernel which to leave out.
 */
#include <config.h>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4	/* since Linux 4.4 */
#endif

int mlockall(int flags)
{
	if ((flags & (MCL_CURRENT | MCL_FUTURE)) != 0)
		flags |= MCL_ONFAULT;
	return syscall(SYS_mlockall, flags);
}
