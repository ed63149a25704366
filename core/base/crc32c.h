/* SPDX-License-Identifier: MIT */
/*
 * CRC32C (Castagnoli, RFC 3720 appendix B.4): the check on every extent. By the processor's own
 * instruction where it has one, else slicing by eight. Raw values carry no inversion; the restorer,
 * which has no libc, works on those with the same table.
 */
#ifndef TF_BASE_CRC32C_H
#define TF_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC of n more bytes, continued from crc (0 for a fresh one). */
uint32_t tf_crc32c(uint32_t crc, const void *p, size_t n);

/* Fills the slicing table (8 KiB). */
void tf_crc32c_table(uint32_t table[8][256]);

/* One pass of slicing by eight over raw state. Freestanding. */
static inline uint32_t tf_crc32c_slice(const uint32_t (*t)[256], uint32_t crc, const uint8_t *p,
	uint64_t n)
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

#endif
