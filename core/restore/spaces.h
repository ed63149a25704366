/* SPDX-License-Identifier: MIT */
/*
 * Post-copy, the receiver's side: address spaces in which memory is missing that comes later, by
 * userfaultfd(2). There is one to begin with; each fork(2) of the process makes another, and what
 * comes then is put into all of them. A space follows what becomes of its memory meanwhile: what is
 * unmapped or given up does not come any more, what is moved comes to its new place.
 */
#ifndef TF_RESTORE_SPACES_H
#define TF_RESTORE_SPACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/image/image.h"

/* What the kernel has to be able to tell (ioctl_userfaultfd(2)). EVENT_FORK needs CAP_SYS_PTRACE.
 */
#define TF_UFFD_FEATURES                                                               \
	(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | \
		UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

/* Missing memory: bytes that stood at [start, end) at the source belong shift further up here. */
struct tf_piece {
	uint64_t start, end, shift; /* shift: modulo 2^64 */
};

struct tf_space {
	int uffd;               /* -1: it has ended */
	struct tf_piece *piece; /* sorted by start */
	size_t n, room;
	bool moved; /* some shift is not 0 */
};

struct tf_spaces {
	struct tf_space *v;
	size_t n;
	uint64_t page; /* bytes, of this machine */
	/* A thread waits for what stood at this address of the source. */
	void (*wanted)(void *ctx, uint64_t address);
	/* There is another space: a descriptor that has to stay open so long. */
	void (*forked)(void *ctx, int uffd);
	void *ctx;
};

/* Whether this process may use it, with all features. */
bool tf_uffd_usable(void);

/* The first space, to which `later` belongs; takes the descriptor, which never blocks. 0 or _NOMEM;
 * tf_spaces_done() in either case. */
int tf_spaces_begin(struct tf_spaces *s, int uffd, const struct tf_run *later, uint32_t n_later,
	uint64_t page, struct tf_err *e);

/* Takes what a space has to tell. 0, _NOMEM, _RESTORE. */
int tf_spaces_hear(struct tf_spaces *s, size_t space, struct tf_err *e);

/* Puts n bytes (whole pages) that stood at this address of the source where they belong; bytes
 * NULL: zeros. What is not missing any more is left as it is. 0, _NOMEM, _RESTORE. */
int tf_spaces_put(
	struct tf_spaces *s, uint64_t address, const void *bytes, uint64_t n, struct tf_err *e);

/* What stood nowhere at the source is not missing either, and stays absent. Who waits for it is
 * waked, and finds zeros. 0, _NOMEM. */
int tf_spaces_drop(struct tf_spaces *s, uint64_t address, uint64_t n, struct tf_err *e);

/* Bytes that are missing still, in all of them. */
uint64_t tf_spaces_missing(const struct tf_spaces *s);

/* Whether any is there still. */
bool tf_spaces_live(const struct tf_spaces *s);

/* From here on absent memory reads as zeros. */
void tf_spaces_done(struct tf_spaces *s);

#endif
