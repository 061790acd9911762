/* SPDX-License-Identifier: Apache-2.0 */
/* fmalloc.hpp compiles alone; fmalloc.h works in C++ by itself, too. */
#include <fmalloc.hpp>

extern "C" int header_cxx(void);

extern "C" int header_cxx(void)
{
	fm_ptr<int> p;
	struct {
		FM_PTR(int) q;
	} s;

	fm_set(s.q, (int *)nullptr);
	return p == nullptr && fm_get(s.q) == nullptr;
}
