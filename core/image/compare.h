/* SPDX-License-Identifier: MIT */
/*
 * Two images of one process compared: registers, mappings, memory, and all other state that
 * notes_table.c knows. For `telefork diff` and for the harness, which holds a witness's image of a
 * copy against the image that was sent. Of any known architecture on any host; may use stdio, so
 * not for a forked child.
 *
 * What a landing changes by its nature (pid, clocks, the vDSO of another kernel, a stack mapped
 * whole, ...) is told and counted apart from what was lost. One table says what that is:
 * TF_COMPARE_EXCEPTIONS. Nothing else is excused.
 */
#ifndef TF_IMAGE_COMPARE_H
#define TF_IMAGE_COMPARE_H

#include "core/image/file.h"

enum tf_compare_kind {
	TF_COMPARE_REGISTER,
	TF_COMPARE_MAPPING,
	TF_COMPARE_MEMORY,
	TF_COMPARE_STATE,
	TF_COMPARE_KINDS,
};

/* Every reason for which a difference is none: X(NAME, name, text). */
#define TF_COMPARE_EXCEPTIONS(X)                                                              \
	X(NATURE, "nature", "differs between any two machines, processes or moments")         \
	X(UNKNOWN, "unknown", "one of the images could not know it")                          \
	X(STACK, "stack", "a stack is mapped whole, not grown on demand")                     \
	X(DEAD_STACK, "dead-stack", "bytes below the stack pointer belong to nobody")         \
	X(BY_VALUE, "by-value", "a file's mapping travels as plain memory")                   \
	X(LABEL, "label", "heap and stack are only names that the kernel shows")              \
	X(VDSO, "vdso", "the kernel's own pages: kept as data, bridged to the new ones")      \
	X(HOLE, "hole", "where the restorer worked, until the copy takes it away")            \
	X(EXEC, "exec", "QEMU user mode does not say which pages are code")                   \
	X(EMULATOR, "emulator", "pages and signals that QEMU user mode needs for itself")     \
	X(RESERVE, "reserve", "no swap is reserved for what may exceed free memory")          \
	X(LOCK, "lock", "memory locks stay behind")                                           \
	X(TID, "tid", "the C library's copies of the thread id, mutexes' owners too")         \
	X(RSEQ, "rseq", "restartable sequences, written by the kernel")                       \
	X(LIBRARY, "library", "the working state of this library")                            \
	X(FDS, "fds", "descriptors do not travel: their numbers are reserved")                \
	X(KEYS, "keys", "pointer authentication keys, and return addresses signed with them") \
	X(FORK, "fork", "what a fork does not inherit: MADV_DONTFORK, MADV_WIPEONFORK")

enum tf_compare_exception {
	TF_EXCEPT_NONE, /* a loss */
#define X(name, label, text) TF_EXCEPT_##name,
	TF_COMPARE_EXCEPTIONS(X)
#undef X
		TF_EXCEPTIONS,
};

/* Static label ("dead-stack") and text of an exception; "" for TF_EXCEPT_NONE. */
const char *tf_compare_exception_name(enum tf_compare_exception except);
const char *tf_compare_exception_text(enum tf_compare_exception except);

/* One inequality. Lives during the call only. */
struct tf_difference {
	enum tf_compare_kind kind;
	enum tf_compare_exception except;
	const char *name;  /* "rax"; "protection", "missing"; "bytes"; "thread.sigmask" */
	const char *a, *b; /* both values as text, not sanitised; "-": not there */
	int32_t tid;       /* REGISTER: the thread, as a numbers it; else 0 */
	/* MAPPING: the range, and its mapping in each image (NULL: none). MEMORY: address is the
	 * first differing byte of the page with this exception, size how many there are. */
	uint64_t address, size;
	const struct tf_map *map_a, *map_b;
};

typedef void tf_difference_fn(void *ctx, const struct tf_difference *d);

struct tf_compare_count {
	uint64_t equal, different, excepted;
};

/* Registers by tf_regs_diff(); mappings of a, and what only b has; bytes of pages that either file
 * holds (absent ones are zero); records' fields. */
struct tf_compared {
	struct tf_compare_count count[TF_COMPARE_KINDS];
};

/* Everything that is different and not excepted; 0: nothing was lost. */
uint64_t tf_compared_lost(const struct tf_compared *c);

/*
 * Compares b, the later one, with a. fn (may be NULL) is called for each inequality in the order
 * registers, mappings, memory, state. strict: no exception is made. 0; _INCOMPATIBLE (images of two
 * architectures or page sizes, or different numbers of threads), _IO, _NOMEM.
 */
int tf_compare(const struct tf_file *a, const struct tf_file *b, bool strict, tf_difference_fn *fn,
	void *ctx, struct tf_compared *ret, struct tf_err *e);

#endif
