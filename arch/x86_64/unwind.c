/* SPDX-License-Identifier: MIT */
/* Return addresses carry no signature on x86_64: there is nothing to find. */
#include "arch/arch.h"

int tf_arch_signatures(struct tf_image *img, struct tf_arena *a, struct tf_err *e)
{
	(void)img;
	(void)a;
	(void)e;
	return 0;
}
