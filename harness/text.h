/* SPDX-License-Identifier: MIT */
/* Text that programs, images and machines gave us, for documents that are strict about text. */
#ifndef TF_HARNESS_TEXT_H
#define TF_HARNESS_TEXT_H

#include <jansson.h>
#include <stddef.h>

/*
 * @s, at most @max bytes of it, as a JSON string that XML can hold as well: what is no UTF-8,
 * control characters, and U+FFFE and U+FFFF become U+FFFD. null for NULL.
 */
json_t *tf_text_json(const char *s, size_t max);

/* The same with every string in @value, a document out of a file. */
void tf_text_clean(json_t *value);

#endif
