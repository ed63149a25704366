/* SPDX-License-Identifier: MIT */
/* aarch64: a signature has few bits, so several words are signed with each key. */
#include "tests/probes/keys.h"

#include <sys/auxv.h>
#include <sys/prctl.h>

#ifndef PR_PAC_GET_ENABLED_KEYS
#define PR_PAC_GET_ENABLED_KEYS 61
#endif

#define WORDS 16
#define WORD  UINT64_C(0x5500010010)

#define SIGN(key)                                                                                \
	static uint64_t sign_##key(uint64_t word, uint64_t with)                                 \
	{                                                                                        \
		__asm__(".arch_extension pauth\n\tpac" #key " %0, %1" : "+r"(word) : "r"(with)); \
		return word;                                                                     \
	}

SIGN(ia)
SIGN(ib)
SIGN(da)
SIGN(db)

static uint64_t sign_ga(uint64_t word, uint64_t with)
{
	__asm__(".arch_extension pauth\n\tpacga %0, %0, %1" : "+r"(word) : "r"(with));
	return word;
}

unsigned keys_look(struct keys_sign at[static KEYS_MAX])
{
	static const struct {
		const char *name;
		uint64_t (*sign)(uint64_t word, uint64_t with);
		unsigned long hwcap;
	} keys[] = {
		{"apiakey", sign_ia, HWCAP_PACA},
		{"apibkey", sign_ib, HWCAP_PACA},
		{"apdakey", sign_da, HWCAP_PACA},
		{"apdbkey", sign_db, HWCAP_PACA},
		{"apgakey", sign_ga, HWCAP_PACG},
	};
	unsigned n = 0;

	for (unsigned k = 0; k < sizeof(keys) / sizeof(*keys); k++) {
		if (!(getauxval(AT_HWCAP) & keys[k].hwcap))
			continue;
		at[n].name = keys[k].name;
		at[n].value = 0;
		for (unsigned i = 0; i < WORDS; i++)
			at[n].value = at[n].value * 31 + keys[k].sign(WORD + 0x1010 * i, i);
		n++;
	}
	if (n) {
		at[n].name = "pac_enabled";
		at[n++].value = (uint64_t)prctl(PR_PAC_GET_ENABLED_KEYS, 0, 0, 0, 0);
	}
	return n;
}
