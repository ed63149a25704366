/* SPDX-License-Identifier: MIT */
/* Text of the other side's, or from /proc, as JSON. */
#ifndef TF_CMD_TEXT_JSON_H
#define TF_CMD_TEXT_JSON_H

#include <jansson.h>

/* A string; one that is not UTF-8, which JSON cannot hold, has its odd bytes as \xNN, as on a
 * terminal. At most TF_MAX_STR bytes. NULL: out of memory. */
json_t *tf_json_text(const char *s);

#endif
