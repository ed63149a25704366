/* SPDX-License-Identifier: MIT */
/*
 * The aarch64 processor: features from the auxiliary vector, SVE vector lengths from prctl, whether
 * a program can live here, whether CRC32C has instructions. Runs in a forked child: no allocator,
 * no lock.
 */
#include "arch/arch.h"
#include "arch/aarch64/layout.h"

#include <elf.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

#ifndef PR_SVE_SET_VL
#define PR_SVE_SET_VL 50
#define PR_SVE_GET_VL 51
#endif

#define VL_MASK         0xffff /* PR_SVE_VL_LEN_MASK; above it are flags */
#define HWCAP_BIT_CRC32 7
#define HWCAP_BIT_SVE   22

const struct tf_arch *tf_arch_native(void)
{
	return &tf_arch_aarch64;
}

static uint32_t vl_bit(uint32_t vl)
{
	return sve_vl_ok(vl) ? UINT32_C(1) << (vl / 16 - 1) : 0;
}

/* Asks for each length and puts the old one back; SVE registers' upper parts are lost, which no
 * caller of a function relies on. The kernel rounds down to a length that exists. */
static uint32_t probe_lengths(int old)
{
	uint32_t mask = 0;

	for (uint32_t vl = ARM_VL_MIN; vl <= ARM_VL_MAX; vl += 16) {
		int got = prctl(PR_SVE_SET_VL, vl, 0, 0, 0);

		if (got > 0 && (uint32_t)(got & VL_MASK) == vl)
			mask |= vl_bit(vl);
	}
	prctl(PR_SVE_SET_VL, old, 0, 0, 0);
	return mask;
}

/* Leaves those that have a name. */
static void set_features(struct tf_cpu *cpu, uint64_t hwcap, uint64_t hwcap2)
{
	uint64_t named[2] = {0};

	for (size_t i = 0; i < tf_arch_aarch64.n_features; i++)
		named[tf_arch_aarch64.features[i].word] |= UINT64_C(1)
							   << tf_arch_aarch64.features[i].bit;
	cpu->features[0] = hwcap & named[0];
	cpu->features[1] = hwcap2 & named[1];
}

size_t tf_arch_cpu_noted(const uint8_t *data, size_t n)
{
	(void)data;
	return n;
}

void tf_arch_cpu_of(struct tf_cpu *cpu, const struct tf_cpu *here, const struct tf_cpu_clues *clues)
{
	uint64_t hwcap = 0, hwcap2 = 0;

	(void)here;
	for (uint32_t i = 0; i < clues->n_auxv; i++) {
		if (clues->auxv[2 * i] == AT_HWCAP)
			hwcap = clues->auxv[2 * i + 1];
		if (clues->auxv[2 * i] == AT_HWCAP2)
			hwcap2 = clues->auxv[2 * i + 1];
	}
	set_features(cpu, hwcap, hwcap2);
}

void tf_arch_cpu(struct tf_cpu *cpu, bool in_use)
{
	int vl;

	memset(cpu, 0, sizeof(*cpu));
	cpu->n_words = 2;
	set_features(cpu, getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
	if (!(cpu->features[0] >> HWCAP_BIT_SVE & 1))
		return;
	vl = prctl(PR_SVE_GET_VL, 0, 0, 0, 0);
	if (vl <= 0 || !sve_vl_ok((uint32_t)(vl & VL_MASK)))
		return;
	cpu->vl = (uint32_t)(vl & VL_MASK);
	cpu->vl_mask = in_use ? vl_bit(cpu->vl) : probe_lengths(vl);
}

static unsigned compat_features(
	const struct tf_cpu *src, const struct tf_cpu *dst, struct tf_err *e)
{
	unsigned n = 0;

	for (size_t i = 0; i < tf_arch_aarch64.n_features; i++) {
		const struct tf_feature *f = &tf_arch_aarch64.features[i];

		if (f->hint || !tf_cpu_has(src, f) || tf_cpu_has(dst, f))
			continue;
		tf_fail_more(e, TELEFORK_E_INCOMPATIBLE, "the processor lacks %s", f->name);
		n++;
	}
	if (n)
		tf_fail_more(e, TELEFORK_E_INCOMPATIBLE,
			"start the program on a processor without these (qemu-aarch64 -cpu MODEL, "
			"or kernel options like arm64.nosve, arm64.nopauth)");
	return n;
}

/* Each length once, however many threads have it. */
static unsigned compat_lengths(
	const struct tf_image *img, const struct tf_cpu *dst, struct tf_err *e)
{
	uint32_t told = 0;
	unsigned n = 0;

	for (uint32_t t = 0; dst->vl && t < img->n_threads; t++) {
		const struct tf_regset *sve = tf_regs_find(&img->threads[t].regs, NT_ARM_SVE);
		uint32_t vl = sve && sve->size >= SVE_HEADER ? arm_get16(sve->data + SVE_VL) : 0;

		if (!vl || dst->vl_mask & vl_bit(vl) || told & vl_bit(vl))
			continue;
		told |= vl_bit(vl);
		tf_fail_more(e, TELEFORK_E_INCOMPATIBLE,
			"thread %d has SVE vectors of %u bytes, the processor cannot; start it "
			"with "
			"a length that both have (prctl PR_SVE_SET_VL with PR_SVE_SET_VL_ONEXEC)",
			img->threads[t].tid, vl);
		n++;
	}
	return n;
}

/* An image may say that it has tags and not that its processor had. */
static unsigned compat_tags(const struct tf_image *img, const struct tf_cpu *dst, struct tf_err *e)
{
	bool tags = img->n_tags;

	for (uint32_t i = 0; i < img->n_maps; i++)
		tags |= (img->maps[i].vmflags & TF_VMF_MTE) != 0;
	for (uint32_t i = 0; i < img->n_threads; i++) {
		const struct tf_regset *ctrl =
			tf_regs_find(&img->threads[i].regs, NT_ARM_TAGGED_ADDR_CTRL);

		tags |= ctrl && arm_get64(ctrl->data) & ARM_TAG_CHECKS;
	}
	if (!tags || arm_has_tags(dst))
		return 0;
	tf_fail_more(e, TELEFORK_E_INCOMPATIBLE,
		"memory tags: the process has some, and the processor here has none: a processor "
		"with mte is needed");
	return 1;
}

unsigned tf_arch_compat(const struct tf_image *img, const struct tf_cpu *dst, struct tf_err *e)
{
	return compat_features(&img->cpu, dst, e) + compat_lengths(img, dst, e) +
	       compat_tags(img, dst, e);
}

bool tf_arch_has_crc32c(void)
{
	return getauxval(AT_HWCAP) >> HWCAP_BIT_CRC32 & 1;
}
