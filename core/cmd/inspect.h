/* SPDX-License-Identifier: MIT */
/* telefork inspect: shows an image file of any known architecture. */
#ifndef TF_CMD_INSPECT_H
#define TF_CMD_INSPECT_H

#include <jansson.h>

#include "core/image/file.h"

/* `inspect [--json] [--registers] FILE`; see cmd.h. */
int tf_cmd_inspect(int argc, char **argv);

/* The whole image as an object (inspect_json.c): all that tf_kinds describes, registers, code.
 * Owned by the caller; NULL without memory. */
json_t *tf_inspect_json(const struct tf_file *f, const char *path);

/* Registers as inspect writes them: hexadecimal, the most significant byte first, no 0x, into
 * 2 * size + 1 bytes; true if every byte is zero. */
int tf_inspect_hex(const uint8_t *value, size_t size, char *text);

/* Bytes of code at the thread's program counter: up to n, fewer at the mapping's end. */
size_t tf_inspect_code(const struct tf_file *f, uint64_t pc, uint8_t *code, size_t n);

#define TF_INSPECT_CODE         64 /* bytes of code looked at */
#define TF_INSPECT_INSTRUCTIONS 4

#endif
