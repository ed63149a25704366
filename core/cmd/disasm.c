/* SPDX-License-Identifier: MIT */
/*
 * Capstone, and what it lacks: version 4 knows no SVE, no MTE and not all of AVX-512. Such
 * instructions are shown as bytes, but the step to the next one must be right.
 */
#include "core/cmd/disasm.h"

#include <capstone/capstone.h>
#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Length of the instruction at code, without decoding it; 0: not known. */
typedef size_t length_fn(const uint8_t *code, size_t n);

static size_t length_fixed(const uint8_t *code, size_t n)
{
	(void)code;
	return n < 4 ? 0 : 4;
}

/* ModRM, SIB and displacement of 64-bit code (Intel SDM volume 2, 2.1.3 to 2.1.5). */
static size_t length_modrm(const uint8_t *p, size_t n)
{
	unsigned mod, rm;

	if (!n)
		return 0;
	mod = p[0] >> 6;
	rm = p[0] & 7;
	if (mod == 3)
		return 1;
	if (rm == 4) {
		if (n < 2)
			return 0;
		if (!mod)
			return (p[1] & 7) == 5 ? 6 : 2;
		return mod == 1 ? 3 : 6;
	}
	if (!mod)
		return rm == 5 ? 5 : 1;
	return mod == 1 ? 2 : 5;
}

/* VEX and EVEX: the prefix names the opcode map, the map says whether an immediate follows. */
static size_t length_vex(const uint8_t *code, size_t n)
{
	size_t prefix = n && code[0] == 0xc5 ? 2 : n && code[0] == 0xc4 ? 3 : 4, rest;
	unsigned map, op;
	bool immediate;

	if (n < prefix + 2 || (code[0] != 0x62 && code[0] != 0xc4 && code[0] != 0xc5))
		return 0;
	map = prefix == 2 ? 1 : code[1] & (prefix == 3 ? 0x1f : 7);
	op = code[prefix];
	if (map == 1 && op == 0x77) /* vzeroupper has no ModRM */
		return prefix + 1;
	immediate = map == 3 || (map == 1 && ((op >= 0x70 && op <= 0x73) || op == 0xc2 ||
						     (op >= 0xc4 && op <= 0xc6)));
	rest = length_modrm(code + prefix + 1, n - prefix - 1);
	if (!rest || !map || map > 6)
		return 0;
	rest += prefix + 1 + immediate;
	return rest <= n ? rest : 0;
}

static const struct decoder {
	uint32_t machine;
	cs_arch arch;
	cs_mode mode;
	length_fn *length;
} decoders[] = {
	{EM_X86_64, CS_ARCH_X86, CS_MODE_64, length_vex},
	{EM_AARCH64, CS_ARCH_ARM64, CS_MODE_LITTLE_ENDIAN, length_fixed},
};

static const struct decoder *find(uint32_t machine)
{
	for (size_t i = 0; i < sizeof(decoders) / sizeof(decoders[0]); i++) {
		if (decoders[i].machine == machine)
			return &decoders[i];
	}
	return NULL;
}

/* One instruction: its length, and its text or "" in text. */
static size_t decode(csh handle, const struct decoder *d, uint64_t addr, const uint8_t *code,
	size_t n, char text[static 256])
{
	cs_insn *insn;
	size_t length;

	text[0] = '\0';
	if (cs_disasm(handle, code, n, addr, 1, &insn) == 1) {
		length = insn->size;
		snprintf(text, 256, "%s%s%s", insn->mnemonic, insn->op_str[0] ? " " : "",
			insn->op_str);
		cs_free(insn, 1);
		return length;
	}
	length = d->length(code, n);
	return length ? length : n;
}

unsigned tf_disasm(uint32_t machine, uint64_t addr, const uint8_t *code, size_t n, unsigned count,
	tf_disasm_fn *fn, void *ctx)
{
	const struct decoder *d = find(machine);
	unsigned done = 0;
	csh handle;

	if (!d || cs_open(d->arch, d->mode, &handle) != CS_ERR_OK)
		return 0;
	while (n && done < count) {
		char text[256];
		size_t length = decode(handle, d, addr, code, n, text);

		fn(ctx, addr, code, length, text[0] ? text : NULL);
		addr += length;
		code += length;
		n -= length;
		done++;
	}
	cs_close(&handle);
	return done;
}
