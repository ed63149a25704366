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

/* Fills the slicing table, of TF_CRC32C_TABLE bytes. */
#define TF_CRC32C_TABLE 8192u
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

/* What is looked for in passing: words of 8 bytes with a lower half from low to low + span. */
struct tf_crc32c_look {
	uint32_t low, span;
	bool found;
};

/* Three blocks side by side, from raw state: the instruction takes three cycles and could start
 * each cycle. look may be NULL, known to the compiler. Freestanding. */
static inline __attribute__((always_inline)) uint32_t tf_crc32c_three_blocks(
	uint32_t crc, const uint8_t *p, struct tf_crc32c_look *look)
{
	const uint32_t low = look ? look->low : 0, span = look ? look->span : 0;
	uint64_t a = crc, b = 0, c = 0;
	bool found = false;

	for (const uint8_t *end = p + TF_CRC32C_BLOCK; p < end; p += 8) {
		uint64_t x = *(const tf_r_word *)p;
		uint64_t y = *(const tf_r_word *)(p + TF_CRC32C_BLOCK);
		uint64_t z = *(const tf_r_word *)(p + (uint64_t)2 * TF_CRC32C_BLOCK);

		a = tf_r_crc32c_word(a, x);
		b = tf_r_crc32c_word(b, y);
		c = tf_r_crc32c_word(c, z);
		if (look)
			found |= (uint32_t)x - low <= span || (uint32_t)y - low <= span ||
				 (uint32_t)z - low <= span;
	}
	if (look)
		look->found = found;
	crc = tf_crc32c_times((uint32_t)a, TF_CRC32C_BLOCK_SHIFT) ^ (uint32_t)b;
	return tf_crc32c_times(crc, TF_CRC32C_BLOCK_SHIFT) ^ (uint32_t)c;
}

/* Over raw state by the processor's instruction. Only where tf_arch_has_crc32c(). Freestanding. */
static inline uint32_t tf_crc32c_instruction(uint32_t crc, const uint8_t *p, uint64_t n)
{
	for (; n >= 3 * TF_CRC32C_BLOCK; n -= 3 * TF_CRC32C_BLOCK, p += 3 * TF_CRC32C_BLOCK)
		crc = tf_crc32c_three_blocks(crc, p, NULL);
	return tf_r_crc32c(crc, p, n);
}

#endif
