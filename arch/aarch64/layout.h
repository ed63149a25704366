/* SPDX-License-Identifier: MIT */
/*
 * Layouts of aarch64 that the any-build tables (regs.c) and the native code (frame.c, plan.c)
 * share: user_pt_regs, user_fpsimd_state and user_sve_header with its payload (kernel:
 * arch/arm64/include/uapi/asm/{ptrace,sve_context}.h). Spelled as offsets, so that any host can
 * read them. Little-endian hosts only.
 */
#ifndef TF_ARCH_AARCH64_LAYOUT_H
#define TF_ARCH_AARCH64_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "arch/regs.h"

/* user_pt_regs: x0-x30, sp, pc, pstate, 8 bytes each. */
enum arm_greg {
	G_X0,
	G_LR = 30,
	G_SP,
	G_PC,
	G_PSTATE,
	G_COUNT,
};

#define ARM_GREGS_SIZE (G_COUNT * 8)
#define PSTATE_NZCV    UINT32_C(0xf0000000)

/* user_fpsimd_state */
#define FP_V    0
#define FP_FPSR 512
#define FP_FPCR 516
#define FP_SIZE 528

/* user_sve_header */
#define SVE_SIZE            0 /* u32: bytes of this regset, header included */
#define SVE_MAX_SIZE        4
#define SVE_VL              8 /* u16, bytes */
#define SVE_MAX_VL          10
#define SVE_FLAGS           12
#define SVE_HEADER          16
#define SVE_FLAG_REGS       1u /* SVE_PT_REGS_SVE: z, p, ffr follow; else a user_fpsimd_state */
#define SVE_FLAG_VL_INHERIT 2u

#define ARM_VL_MIN 16u
#define ARM_VL_MAX 256u /* Arm ARM, A1.4: 2048 bits */

/* Payload of the register form, from the end of the header; a frame's sve_context has the same one
 * up to ffr. vl in bytes: z has vl, p and ffr vl / 8. */
static inline uint32_t sve_z(uint32_t vl, unsigned n)
{
	return n * vl;
}

static inline uint32_t sve_p(uint32_t vl, unsigned n)
{
	return 32 * vl + n * (vl / 8);
}

static inline uint32_t sve_ffr(uint32_t vl)
{
	return sve_p(vl, 16);
}

/* Bytes of z0-31, p0-15, ffr. */
static inline uint32_t sve_regs(uint32_t vl)
{
	return sve_p(vl, 17);
}

/* SVE_PT_SVE_FPSR_OFFSET without the header. FPCR follows. */
static inline uint32_t sve_fpsr(uint32_t vl)
{
	return (sve_regs(vl) + 15) & ~15u;
}

/* SVE_PT_SIZE(vq, SVE_PT_REGS_SVE). */
static inline uint32_t sve_set_size(uint32_t vl)
{
	return SVE_HEADER + ((sve_fpsr(vl) + 8 + 15) & ~15u);
}

static inline bool sve_vl_ok(uint32_t vl)
{
	return vl >= ARM_VL_MIN && vl <= ARM_VL_MAX && vl % 16 == 0;
}

static inline uint16_t arm_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t arm_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t arm_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void arm_put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void arm_put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void arm_put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* The SVE regset in register form, or NULL. */
static inline const struct tf_regset *arm_sve_live(const struct tf_regset *sve)
{
	uint32_t vl;

	if (!sve || sve->size < SVE_HEADER || !(arm_get16(sve->data + SVE_FLAGS) & SVE_FLAG_REGS))
		return NULL;
	vl = arm_get16(sve->data + SVE_VL);
	return sve_vl_ok(vl) && sve->size >= sve_set_size(vl) ? sve : NULL;
}

#ifndef NT_ARM_TAGGED_ADDR_CTRL
#define NT_ARM_TAGGED_ADDR_CTRL 0x409
#endif

/* What prctl(PR_SET_TAGGED_ADDR_CTRL) knows: the addresses, two ways to check tags, which tags irg
 * makes (include/uapi/linux/prctl.h). */
#define ARM_TAGGED_ADDR_BITS UINT64_C(0x7ffff)
#define ARM_TAG_CHECKS       UINT64_C(6)

static inline bool arm_has_tags(const struct tf_cpu *cpu)
{
	return cpu->features[1] >> 18 & 1; /* HWCAP2_MTE */
}

#endif
