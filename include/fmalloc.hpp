/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fm_ptr: a pointer that lives in a pool and stays right wherever the pool is
 * mapped.  Header only, on fmalloc.h, which says what its 8 bytes hold.
 *
 *     struct node { int val; fm_ptr<node> next; };
 *
 * An fm_ptr in a pool refers to an object of the same pool; it needs no target
 * and any number of pools can be open.  It may stand in packed structures and
 * be copied with memcpy within its pool.  For a hot loop take the plain pointer
 * (get(), or the conversion) once and go on from there.
 */
#ifndef FMALLOC_HPP
#define FMALLOC_HPP

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>

#include <fmalloc.h>

#ifndef PAGE_SIZE
#define PAGE_SIZE 4096UL
#endif

template <class T> class fm_ptr {
	uint64_t value;

	template <class U>
	using if_integral = typename std::enable_if<std::is_integral<U>::value>::type;

	void set(const volatile void *p)
	{
		fm_ptr_store(this, const_cast<const void *>(p));
	}

	/* Operands of comparisons, as addresses. */
	template <class U> static uintptr_t address(const fm_ptr<U> &p)
	{
		return (uintptr_t)p.get();
	}
	template <class U> static uintptr_t address(U *p)
	{
		return (uintptr_t)p;
	}
	template <class U, class = if_integral<U>> static uintptr_t address(U n)
	{
		return (uintptr_t)n;
	}
	static uintptr_t address(decltype(nullptr))
	{
		return 0;
	}

    public:
	typedef T element_type;

	fm_ptr() : value(0)
	{
	}
	fm_ptr(T *p)
	{
		set(p);
	}
	fm_ptr(decltype(nullptr)) : value(0)
	{
	}
	/* A copy refers to the same object, from wherever it is. */
	fm_ptr(const fm_ptr &other)
	{
		set(other.get());
	}

	fm_ptr &operator=(const fm_ptr &other)
	{
		set(other.get());
		return *this;
	}
	template <class U> fm_ptr &operator=(const fm_ptr<U> &other)
	{
		set(other.get());
		return *this;
	}
	/* Pointers to anything: void * from fmalloc() needs no cast. */
	template <class U> fm_ptr &operator=(U *p)
	{
		set(p);
		return *this;
	}
	fm_ptr &operator=(decltype(nullptr))
	{
		value = 0;
		return *this;
	}
	/* NULL and 0, and addresses kept as integers. */
	template <class U, class = if_integral<U>> fm_ptr &operator=(U address)
	{
		set((void *)(uintptr_t)address);
		return *this;
	}

	T *get() const
	{
		return static_cast<T *>(fm_ptr_load(this));
	}

	template <class U> operator U *() const
	{
		return (U *)get();
	}
	explicit operator bool() const
	{
		return value != 0;
	}
	template <class U, class = if_integral<U>, class = U>
	explicit operator U() const
	{
		return (U)(uintptr_t)get();
	}

	template <class U = T>
	typename std::add_lvalue_reference<U>::type operator*() const
	{
		return *get();
	}
	T *operator->() const
	{
		return get();
	}
	template <class U = T>
	typename std::add_lvalue_reference<U>::type operator[](ptrdiff_t i) const
	{
		return get()[i];
	}

	/*
	 * Arithmetic is on the address, in bytes, whatever T is, and gives a
	 * plain pointer.  For elements use [] or the plain pointer.
	 */
#define FM_PTR_ARITHMETIC(op) \
	template <class U> T *operator op(U other) const \
	{ \
		return (T *)((uintptr_t)get() op (uintptr_t)other); \
	}
	FM_PTR_ARITHMETIC(+)
	FM_PTR_ARITHMETIC(-)
	FM_PTR_ARITHMETIC(*)
	FM_PTR_ARITHMETIC(/)
	FM_PTR_ARITHMETIC(|)
	FM_PTR_ARITHMETIC(^)
	FM_PTR_ARITHMETIC(<<)
	FM_PTR_ARITHMETIC(>>)
#undef FM_PTR_ARITHMETIC

#define FM_PTR_COMPARISON(op) \
	template <class U> bool operator op(const U &other) const \
	{ \
		return (uintptr_t)get() op address(other); \
	}
	FM_PTR_COMPARISON(==)
	FM_PTR_COMPARISON(!=)
	FM_PTR_COMPARISON(<)
	FM_PTR_COMPARISON(<=)
	FM_PTR_COMPARISON(>)
	FM_PTR_COMPARISON(>=)
#undef FM_PTR_COMPARISON
} __attribute__((packed));

static_assert(sizeof(fm_ptr<int>) == 8 && alignof(fm_ptr<int>) == 1,
	      "an fm_ptr is 8 bytes, anywhere");

#endif
