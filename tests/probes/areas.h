/* SPDX-License-Identifier: MIT */
/* A few mappings of each sort, small enough to go with every image: protection, sharing, content.
 */
#ifndef TF_TESTS_AREAS_H
#define TF_TESTS_AREAS_H

#include <stdint.h>

void areas_set_up(uint64_t seed);

/* Compares place, protection, flags, content and sharing; the areas are spoilt afterwards. */
void areas_compare(void);

#endif
