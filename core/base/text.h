/* SPDX-License-Identifier: MIT */
/* Text that comes from an image, from /proc or from the other side and may go to a terminal. Safe
 * in a forked child. */
#ifndef TF_BASE_TEXT_H
#define TF_BASE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

/* Copies s with control characters, backslashes and broken UTF-8 starts as \xNN, so that a hostile
 * name cannot command a terminal. Returns the length it would have had. */
size_t tf_text_safe(const char *s, char *buf, size_t n);

/* The same in place for a message of the other side's, which may have lines and whose names are
 * escaped already: line ends and backslashes stay. */
void tf_message_safe(char message[static TELEFORK_MESSAGE_MAX]);

/* The number in this base behind the first label in text ("\nPPid:"); otherwise if there is none.
 */
uint64_t tf_text_number(const char *text, const char *label, int base, uint64_t otherwise);

#endif
