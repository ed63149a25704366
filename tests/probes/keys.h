/* SPDX-License-Identifier: MIT */
/* Keys that a processor signs pointers with: nobody can read them, but what they make of a word
 * tells whether they are the same. */
#ifndef TESTS_PROBES_KEYS_H
#define TESTS_PROBES_KEYS_H

#include <stdint.h>

#define KEYS_MAX 6

struct keys_sign {
	const char *name;
	uint64_t value;
};

/* What each key of the calling thread makes of some words, and which keys are switched on. Returns
 * how many there are; 0: this processor has none. */
unsigned keys_look(struct keys_sign at[static KEYS_MAX]);

#endif
