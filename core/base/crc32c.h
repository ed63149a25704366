/* SPDX-License-Identifier: MIT */
/*
 * CRC32C (Castagnoli, RFC 3720 appendix B.4): the check on every extent. By the processor's own
 * instruction where it has one, else slicing by eight. Raw values carry no inversion; the restorer,
 * which has no libc, works on those with the same code and
 * table. */
#ifndef TF_BASE_CRC32C_H
#define TF_BASE_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/restorer.h"

/* CRC of n more bytes, continued from crc (0 for a fresh one). */
uint32_t tf_crc32c(uint32_t crc, const void *p, size_t n);

/* Whether that is done by the processor's instruction, and faster so: an emulator (QEMU 7.2) makes
 * 64 steps of it for each word, which cost seven times the table's. */
bool tf_crc32c_has_instruction(void);

/* The same by what that said before: to ask is an exit to the host in a virtual machine. */
uint32_t tf_crc32c_by(bool instruction, uint32_t crc, const void *p, size_t n);

/* Makes the table where there is no instruction. A process that sends itself calls it before it
 * looks which pages it has: else the copy could get the word that there is a table, and no
 * table. */
void tf_crc32c_prepare(void);

/* Fills the slicing table (8 KiB). */
void tf_crc32c_table(uint32_t table[8][256]);

/* One pass of slicing by eight over raw state. Freestanding. */
static inline uint32_t tf_crc32c_slice(
	const uint32_t (*t)[256], uint32_t crc, const uint8_t *p, uint64_t n)
{
	for (; n >= 8; n -= 8, p += 8) {
		crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
		       (uint32_t)p[3] << 24;
		crc = t[7][crc & 255] ^ t[6][crc >> 8 & 255] ^ t[5][crc >> 16 & 255] ^
		      t[4][crc >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
	}
	for (; n; n--, p++)
		crc = t[0][(crc ^ *p) & 255] ^ crc >> 8;
	return crc;
}

/* Bytes of each of the three blocks that are checked side by side, and x^(8 * that) modulo the
 * CRC's polynomial: what so many zero bytes behind a block make of its value. */
#define TF_CRC32C_BLOCK       8192u
#define TF_CRC32C_BLOCK_SHIFT 0x28461564u

/* Product of two polynomials modulo the CRC's; bit 31 is x^0. Freestanding. */
static inline uint32_t tf_crc32c_times(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a; a <<= 1) {
		product ^= b & -(a >> 31);
		b = b >> 1 ^ (0x82f63b78u & -(b & 1));
	}
	return product;
}

/* Over raw state by the processor's instruction, which takes three cycles and could start each
 * cycle: so three blocks at a time, each for itself. Only where tf_arch_has_crc32c().
 * Freestanding. */
static inline uint32_t tf_crc32c_instruction(uint32_t crc, const uint8_t *p, uint64_t n)
{
	for (; n >= 3 * TF_CRC32C_BLOCK; n -= 3 * TF_CRC32C_BLOCK, p += 3 * TF_CRC32C_BLOCK) {
		uint32_t state[3] = {crc, 0, 0};

		tf_r_crc32c_three(state, p, TF_CRC32C_BLOCK);
		crc = tf_crc32c_times(state[0], TF_CRC32C_BLOCK_SHIFT) ^ state[1];
		crc = tf_crc32c_times(crc, TF_CRC32C_BLOCK_SHIFT) ^ state[2];
	}
	return tf_r_crc32c(crc, p, n);
}

#endif
