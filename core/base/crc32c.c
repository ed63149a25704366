/* SPDX-License-Identifier: MIT */
/* CRC32C for everyone but the restorer. The table is made once, by whoever comes first; making it
 * twice at the same time writes the same bytes, so no lock is needed (and none may be taken
 * here). */
#include "core/base/crc32c.h"
#include "arch/arch.h"
#include "core/base/host.h"

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

/* Asking for the instruction is a trip out of a virtual machine (CPUID), and the answer cannot be
 * kept: a copy may wake where it is another. Headers and keys up to this size are faster
 * without. */
#define NOT_WORTH_ASKING 64u

/* Four bits at a time. */
static uint32_t crc_short(uint32_t crc, const uint8_t *p, size_t n)
{
	static const uint32_t four[16] = {
		0x00000000,
		0x105ec76f,
		0x20bd8ede,
		0x30e349b1,
		0x417b1dbc,
		0x5125dad3,
		0x61c69362,
		0x7198540d,
		0x82f63b78,
		0x92a8fc17,
		0xa24bb5a6,
		0xb21572c9,
		0xc38d26c4,
		0xd3d3e1ab,
		0xe330a81a,
		0xf36e6f75,
	};

	for (; n; n--, p++) {
		crc ^= *p;
		crc = crc >> 4 ^ four[crc & 15];
		crc = crc >> 4 ^ four[crc & 15];
	}
	return crc;
}

bool tf_crc32c_has_instruction(void)
{
	return !tf_host_emulated() && tf_arch_has_crc32c();
}

void tf_crc32c_prepare(void)
{
	if (tf_crc32c_has_instruction() || __atomic_load_n(&table_ready, __ATOMIC_ACQUIRE))
		return;
	tf_crc32c_table(table);
	__atomic_store_n(&table_ready, 1, __ATOMIC_RELEASE);
}

uint32_t tf_crc32c(uint32_t crc, const void *p, size_t n)
{
	return tf_crc32c_by(n > NOT_WORTH_ASKING && tf_crc32c_has_instruction(), crc, p, n);
}

uint32_t tf_crc32c_by(bool instruction, uint32_t crc, const void *p, size_t n)
{
	if (n <= NOT_WORTH_ASKING)
		return ~crc_short(~crc, p, n);
	if (instruction)
		return ~tf_crc32c_instruction(~crc, p, n);
	tf_crc32c_prepare();
	return ~tf_crc32c_slice((const uint32_t(*)[256])table, ~crc, p, n);
}
