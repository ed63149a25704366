/* SPDX-License-Identifier: MIT */
/*
 * What only a tracer can read or set: x86_64 has nothing of the kind, so every hook in here has an
 * empty body.
 */
#include "arch/arch.h"

#include <string.h>

uint64_t tf_arch_checks(void)
{
	return 0;
}

void tf_arch_no_checks(uint64_t checks)
{
	(void)checks;
}

int tf_arch_add_checks(struct tf_regs *regs, struct tf_arena *a, uint64_t checks)
{
	(void)regs;
	(void)a;
	(void)checks;
	return 0;
}

void tf_arch_tags(uint64_t addr, uint64_t tags[static TF_TAGS_WORDS])
{
	(void)addr;
	memset(tags, 0, TF_TAGS_WORDS * sizeof(*tags));
}

int tf_arch_capture_traced(struct tf_image *img, struct tf_arena *a, struct tf_err *e)
{
	(void)img;
	(void)a;
	(void)e;
	return 0;
}

bool tf_arch_traced(void)
{
	return false;
}

bool tf_arch_has_traced(const struct tf_thread *thread)
{
	(void)thread;
	return false;
}

const char *tf_arch_traced_state(const struct tf_image *img)
{
	(void)img;
	return NULL;
}

unsigned tf_arch_plan_traced(struct tf_plan *plan, const struct tf_thread *thread)
{
	(void)plan;
	(void)thread;
	return 0;
}

size_t tf_arch_frame_link(void)
{
	return 0;
}

uint32_t tf_arch_map_prot(uint32_t vmflags, const struct tf_cpu *dst)
{
	(void)vmflags;
	(void)dst;
	return 0;
}
