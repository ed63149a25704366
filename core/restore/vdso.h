/* SPDX-License-Identifier: MIT */
/*
 * The vDSO: code that the kernel maps into every process. A process that moves meets another
 * kernel's, at another place. Equal ones: the destination's is moved to the old address. Different
 * ones: the old pages stay as plain data, and each entry point is patched to jump to the
 * destination's function or, where it has none, to make the system
 * call. */
#ifndef TF_RESTORE_VDSO_H
#define TF_RESTORE_VDSO_H

#include "core/image/image.h"

/* Finds [vdso] and [vvar] in maps of this process and reads its symbols. v->size is 0 when there is
 * none. No allocator. 0 or _NOMEM. */
int tf_vdso_from_maps(struct tf_vdso *v, const struct tf_map *maps, uint32_t n, struct tf_arena *a);

/* Finds them in maps of any process and says where in v. The symbols are not read yet. */
void tf_vdso_find(struct tf_vdso *v, const struct tf_map *maps, uint32_t n);

/* Reads digest and symbols from a copy of the v->size bytes at v->base. No allocator.
 * 0 or _NOMEM. */
int tf_vdso_read(struct tf_vdso *v, const void *bytes, struct tf_arena *a);

/* Whether both are the same code with the same data areas before it. */
bool tf_vdso_equal(const struct tf_vdso *a, const struct tf_vdso *b);

/* Address of the function of that name, or 0. */
uint64_t tf_vdso_symbol(const struct tf_vdso *v, const char *name);

#endif
