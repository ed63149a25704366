/* SPDX-License-Identifier: MIT */
/* CRC32C for everyone but the restorer. The table is made once, by whoever comes first; making it
 * twice at the same time writes the same bytes, so no lock is needed (and none may be taken here). */
#include "core/base/crc32c.h"
#include "arch/arch.h"

static uint32_t table[8][256];
static int table_ready;

void tf_crc32c_table(uint32_t t[8][256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		t[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int slice = 1; slice < 8; slice++)
			t[slice][i] = t[0][t[slice - 1][i] & 255] ^ t[slice - 1][i] >> 8;
}

/* Asking for the instruction is a trip out of a virtual machine (CPUID), and the answer cannot be kept:
 * a copy may wake where it is another. Up to this size the table is as fast. */
#define NOT_WORTH_ASKING 1024u

uint32_t tf_crc32c(uint32_t crc, const void *p, size_t n)
{
	if (n > NOT_WORTH_ASKING && tf_arch_has_crc32c())
		return ~tf_crc32c_instruction(~crc, p, n);
	if (!__atomic_load_n(&table_ready, __ATOMIC_ACQUIRE)) {
		tf_crc32c_table(table);
		__atomic_store_n(&table_ready, 1, __ATOMIC_RELEASE);
	}
	return ~tf_crc32c_slice((const uint32_t(*)[256])table, ~crc, p, n);
}
