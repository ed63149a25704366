/* SPDX-License-Identifier: MIT */
/* Machine code of any known architecture as text, for inspect, diff and failure reports. */
#ifndef TF_CMD_DISASM_H
#define TF_CMD_DISASM_H

#include <stddef.h>
#include <stdint.h>

/* Called for each instruction: text is "mov rax, rbx", or NULL when the bytes cannot be decoded. */
typedef void tf_disasm_fn(
	void *ctx, uint64_t addr, const uint8_t *bytes, size_t size, const char *text);

/*
 * Decodes at most count instructions of ELF machine from n bytes of code that stand at addr.
 * An instruction that the decoder does not know (SVE, MTE, AVX-512) is passed as raw bytes and the
 * next one is found all the same; where its length cannot be known, what is left is passed at once.
 * Returns the number of calls; 0 for an unknown machine.
 */
unsigned tf_disasm(uint32_t machine, uint64_t addr, const uint8_t *code, size_t n, unsigned count,
	tf_disasm_fn *fn, void *ctx);

#endif
