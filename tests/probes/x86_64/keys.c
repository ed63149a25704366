/* SPDX-License-Identifier: MIT */
/* x86_64 signs no pointers. */
#include "tests/probes/keys.h"

unsigned keys_look(struct keys_sign at[static KEYS_MAX])
{
	(void)at;
	return 0;
}
