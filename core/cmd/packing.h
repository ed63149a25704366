/* SPDX-License-Identifier: MIT */
/* What commands that send say of packed extents (core/pack): options, and what came of them. */
#ifndef TF_CMD_PACKING_H
#define TF_CMD_PACKING_H

#include <argp.h>
#include <stdio.h>

#include "core/pack/packer.h"

/* --compress and --store, for struct argp; the child's input is a struct tf_pack_wishes. */
extern const struct argp_child tf_packing_children[];

/* ", 64.0 MiB were there, 3.1 MiB by zstd: 1.2 MiB", or nothing. packer may be NULL. */
void tf_packing_tell(FILE *out, const struct tf_packer *packer);

#endif
