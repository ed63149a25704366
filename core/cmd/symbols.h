/* SPDX-License-Identifier: MIT */
/* The function's or the variable's name at an address of an image: from the very file that was
 * mapped, or from memory. */
#ifndef TF_CMD_SYMBOLS_H
#define TF_CMD_SYMBOLS_H

#include <stdbool.h>

#include "core/image/file.h"

struct tf_place {
	char name[256];  /* of the symbol, as it stands in the table */
	uint64_t offset; /* of the address in it */
	bool from_host;  /* from a file of this host with the same build-id, not from the image */
};

/*
 * Finds the function that holds addr. A file on this host is believed only when its build-id is the
 * one in the image's memory; otherwise the dynamic symbols in that memory are searched, and the
 * image's own list of vDSO functions. False if no name is known.
 */
bool tf_place_find(const struct tf_file *f, uint64_t addr, struct tf_place *ret_place);

/* The same for functions and variables. */
bool tf_place_find_any(const struct tf_file *f, uint64_t addr, struct tf_place *ret_place);

#endif
