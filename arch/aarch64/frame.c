/* SPDX-License-Identifier: MIT */
/*
 * aarch64 signal frame <-> regsets. The frame is the kernel's struct rt_sigframe (siginfo,
 *ucontext) whose sigcontext ends in a chain of records {magic, size, …}, closed by an empty one:
 *
 *	siginfo | ucontext … regs sp pc pstate | FPSIMD | SVE | 0 |            within 4096 bytes, or
 *	                                       | FPSIMD | EXTRA | 0 | SVE | 0 |      beyond them
 *	^ sp at rt_sigreturn
 *
 * Capture runs in a forked child or a handler: no allocator but the arena, no lock.
 */
#include "arch/arch.h"
#include "arch/aarch64/layout.h"

#include <elf.h>
#include <sys/prctl.h>

#define FRAME_UC 128 /* sizeof(siginfo_t) */

/* struct ucontext and struct sigcontext, from the beginning of the ucontext. */
#define UC_STACK_SP  16
#define UC_STACK_FL  24
#define UC_STACK_SZ  32
#define UC_SIGMASK   40
#define UC_REGS      184 /* x0-x30, sp, pc, pstate: laid out as user_pt_regs */
#define UC_RECORDS   464
#define RECORDS_SIZE 4096u
#define FRAME_RECORD 16 /* fp and lr for unwinders, behind the frame */

/* Magic numbers of records, asm/sigcontext.h; those without registers of ours are only looked at.
 */
#define REC_FPSIMD 0x46508001u
#define REC_ESR    0x45535201u
#define REC_EXTRA  0x45585401u
#define REC_SVE    0x53564501u
#define REC_ZA     0x54366345u
#define REC_TPIDR2 0x54504902u /* Linux 6.3 */
#define REC_ZT     0x5a544e01u /* 6.3 */
#define REC_FPMR   0x46504d52u /* 6.9 */
#define REC_POE    0x504f4530u /* 6.12 */
#define REC_GCS    0x47435300u /* 6.13 */

#define REC_HEAD     8
#define FPSIMD_SIZE  528u
#define EXTRA_SIZE   32u
#define END_SIZE     16u
#define SVE_REC_HEAD 16u
#define SVE_REC_SM   1u /* flags: streaming mode */
#define POE_DEFAULT  7u /* POR_EL0_INIT: everything by key 0 */

/* nzcv, tco, dit, ssbs, btype: what a program has of PSTATE. */
#define PSTATE_USER UINT64_C(0xf3001c00)

#define SS_KEEP (~1) /* flags without SS_ONSTACK, which only says where the thread stood */

#ifndef PR_SVE_GET_VL
#define PR_SVE_GET_VL 51
#endif
#define PR_VL_INHERIT (1 << 17)

/* What the chain of records holds. */
struct records {
	const uint8_t *fpsimd, *sve; /* NULL: none */
	uint32_t sve_size;
};

static uint32_t sve_record_size(uint32_t vl)
{
	return (SVE_REC_HEAD + sve_regs(vl) + 15) & ~15u;
}

/* A record of state that does not travel: 0 if nothing is in it. */
static int foreign_record(const uint8_t *p, uint32_t magic, uint32_t size, struct tf_err *e)
{
	uint64_t value = size >= 16 ? arm_get64(p + REC_HEAD) : 0;
	uint32_t vl = (uint32_t)(value & 0xffff);
	const char *name;

	switch (magic) {
	case REC_ESR:
		return 0;
	case REC_ZA: /* the head alone when PSTATE.ZA is off */
		name = "SME ZA";
		value = size > SVE_REC_HEAD && size >= SVE_REC_HEAD + vl * vl;
		break;
	case REC_ZT: /* nregs */
		name = "SME ZT0";
		value = vl;
		break;
	case REC_TPIDR2:
		name = "TPIDR2_EL0";
		break;
	case REC_FPMR:
		name = "FPMR";
		break;
	case REC_POE:
		name = "POR_EL0";
		value = value != POE_DEFAULT && value;
		break;
	case REC_GCS:
		name = "guarded control stack";
		value = size >= 24 ? arm_get64(p + 16) : 1;
		break;
	default:
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"signal frame: record %#x of %u bytes is not known", magic, size);
	}
	if (!value)
		return 0;
	return tf_fail(e, TELEFORK_E_UNSUPPORTED, "signal frame: %s is in use", name);
}

static int one_record(
	const uint8_t *p, uint32_t magic, uint32_t size, struct records *found, struct tf_err *e)
{
	switch (magic) {
	case REC_FPSIMD:
		if (size < FPSIMD_SIZE)
			break;
		found->fpsimd = p;
		return 0;
	case REC_SVE:
		if (size < SVE_REC_HEAD || !sve_vl_ok(arm_get16(p + 8)))
			break;
		if (arm_get16(p + 10) & SVE_REC_SM)
			return tf_fail(e, TELEFORK_E_UNSUPPORTED,
				"signal frame: SME streaming mode is in use");
		found->sve = p;
		found->sve_size = size;
		return 0;
	default:
		return foreign_record(p, magic, size, e);
	}
	return tf_fail(e, TELEFORK_E_UNSUPPORTED, "signal frame: record %#x of %u bytes is damaged",
		magic, size);
}

static int walk_records(const uint8_t *p, uint32_t room, struct records *found, struct tf_err *e)
{
	const uint8_t *extra = NULL;
	uint32_t extra_size = 0;

	for (;;) {
		uint32_t magic = room >= REC_HEAD ? arm_get32(p) : 0;
		uint32_t size = room >= REC_HEAD ? arm_get32(p + 4) : 0;
		int r = 0;

		if (!magic && !size) {
			if (!extra)
				return 0;
			p = extra;
			room = extra_size;
			extra = NULL;
			continue;
		}
		if (size < REC_HEAD || size > room || size % 16)
			return tf_fail(e, TELEFORK_E_UNSUPPORTED,
				"signal frame: record %#x of %u bytes is damaged", magic, size);
		if (magic == REC_EXTRA && size >= EXTRA_SIZE && !extra) {
			extra = (const uint8_t *)arm_get64(p + 8);
			extra_size = arm_get32(p + 16);
		} else {
			r = one_record(p, magic, size, found, e);
		}
		if (r)
			return r;
		p += size;
		room -= size;
	}
}

static void fpregs_from_record(const uint8_t *record, uint8_t *fp)
{
	memcpy(fp + FP_FPSR, record + 8, 8); /* fpsr, fpcr */
	memcpy(fp + FP_V, record + 16, 512);
}

/* NT_ARM_SVE as ptrace would give it: registers if the frame has them, else the FPSIMD form. */
static int sve_from_record(const struct records *found, const struct tf_cpu *cpu, const uint8_t *fp,
	struct tf_arena *a, struct tf_regs *regs, struct tf_err *e)
{
	uint32_t vl = found->sve ? arm_get16(found->sve + 8) : cpu->vl;
	bool live = found->sve && found->sve_size >= SVE_REC_HEAD + sve_regs(vl);
	uint32_t size = live ? sve_set_size(vl) : SVE_HEADER + FP_SIZE;
	int now = prctl(PR_SVE_GET_VL, 0, 0, 0, 0);
	uint32_t flags = live ? SVE_FLAG_REGS : 0, max_vl = vl;
	struct tf_regset *set = tf_regs_add(regs, a, NT_ARM_SVE, size);

	if (!set)
		return tf_fail(e, TELEFORK_E_NOMEM, "registers: the arena is full");
	if (now > 0 && (now & PR_VL_INHERIT))
		flags |= SVE_FLAG_VL_INHERIT;
	for (unsigned i = 0; i < 16; i++)
		if (cpu->vl_mask >> i & 1 && 16 * (i + 1) > max_vl)
			max_vl = 16 * (i + 1);
	arm_put32(set->data + SVE_SIZE, size);
	arm_put32(set->data + SVE_MAX_SIZE, sve_set_size(max_vl));
	arm_put16(set->data + SVE_VL, (uint16_t)vl);
	arm_put16(set->data + SVE_MAX_VL, (uint16_t)max_vl);
	arm_put16(set->data + SVE_FLAGS, (uint16_t)flags);
	if (!live) {
		memcpy(set->data + SVE_HEADER, fp, FP_SIZE);
		return 0;
	}
	memcpy(set->data + SVE_HEADER, found->sve + SVE_REC_HEAD, sve_regs(vl));
	memcpy(set->data + SVE_HEADER + sve_fpsr(vl), fp + FP_FPSR, 8);
	return 0;
}

int tf_arch_regs_from_frame(const void *ucontext, const struct tf_cpu *cpu, struct tf_arena *a,
	struct tf_regs *regs, struct tf_err *e)
{
	const uint8_t *uc = ucontext;
	struct records found = {0};
	struct tf_regset *gp, *fp, *tls;
	uint64_t tpidr;
	int r;

	memset(regs, 0, sizeof(*regs));
	r = walk_records(uc + UC_RECORDS, RECORDS_SIZE, &found, e);
	if (r)
		return r;
	if (!found.fpsimd)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED, "signal frame: no FPSIMD record");
	gp = tf_regs_add(regs, a, NT_PRSTATUS, ARM_GREGS_SIZE);
	fp = tf_regs_add(regs, a, NT_FPREGSET, FP_SIZE);
	tls = tf_regs_add(regs, a, NT_ARM_TLS, 8);
	if (!gp || !fp || !tls)
		return tf_fail(e, TELEFORK_E_NOMEM, "registers: the arena is full");
	memcpy(gp->data, uc + UC_REGS, ARM_GREGS_SIZE);
	fpregs_from_record(found.fpsimd, fp->data);
	__asm__ volatile("mrs %0, tpidr_el0" : "=r"(tpidr));
	arm_put64(tls->data, tpidr);
	return cpu->vl ? sve_from_record(&found, cpu, fp->data, a, regs, e) : 0;
}

/* The vector length that the frame is for; 0: no SVE record. */
static uint32_t frame_vl(const struct tf_regs *regs)
{
	const struct tf_regset *sve = tf_regs_find(regs, NT_ARM_SVE);
	uint32_t vl = sve && sve->size >= SVE_HEADER ? arm_get16(sve->data + SVE_VL) : 0;

	return sve_vl_ok(vl) ? vl : 0;
}

/* The frame must have its 4096 bytes for records even if they are empty (ABI). */
static uint32_t records_size(uint32_t vl)
{
	uint32_t size = FPSIMD_SIZE + EXTRA_SIZE + END_SIZE;

	if (vl)
		size += sve_record_size(vl) + END_SIZE;
	return size > RECORDS_SIZE ? size : RECORDS_SIZE;
}

size_t tf_arch_frame_size(const struct tf_regs *regs, const struct tf_cpu *dst)
{
	(void)dst;
	return ((size_t)FRAME_UC + UC_RECORDS + records_size(frame_vl(regs)) + FRAME_RECORD + 63) &
	       ~(size_t)63;
}

/* The record in full, also where the source's registers were not live (FPSIMD form: upper parts,
 * predicates and ffr zero): QEMU 7.2 takes no other size. */
static void sve_record(const struct tf_regs *regs, uint32_t vl, uint8_t *record)
{
	const struct tf_regset *live = arm_sve_live(tf_regs_find(regs, NT_ARM_SVE));
	const struct tf_regset *fp = tf_regs_find(regs, NT_FPREGSET);

	arm_put32(record, REC_SVE);
	arm_put32(record + 4, sve_record_size(vl));
	arm_put16(record + 8, (uint16_t)vl);
	if (live) {
		memcpy(record + SVE_REC_HEAD, live->data + SVE_HEADER, sve_regs(vl));
		return;
	}
	for (unsigned i = 0; i < 32; i++)
		memcpy(record + SVE_REC_HEAD + sve_z(vl, i), fp->data + FP_V + 16 * i, 16);
}

/* Linux takes the low 128 bits from here even if there is an SVE record, QEMU from there: equal. */
static void fpsimd_record(const struct tf_regs *regs, uint32_t vl, uint8_t *record)
{
	const struct tf_regset *live = arm_sve_live(tf_regs_find(regs, NT_ARM_SVE));
	const struct tf_regset *fp = tf_regs_find(regs, NT_FPREGSET);

	arm_put32(record, REC_FPSIMD);
	arm_put32(record + 4, FPSIMD_SIZE);
	memcpy(record + 8, fp->data + FP_FPSR, 8);
	memcpy(record + 16, fp->data + FP_V, 512);
	for (unsigned i = 0; live && i < 32; i++)
		memcpy(record + 16 + 16 * i, live->data + SVE_HEADER + sve_z(vl, i), 16);
}

/* addr: of the records in the new process. Terminators are the zeroes of the buffer. */
static void write_records(const struct tf_regs *regs, uint32_t vl, uint8_t *records, uint64_t addr)
{
	uint32_t sve = vl ? sve_record_size(vl) : 0;
	uint8_t *p = records + FPSIMD_SIZE;

	fpsimd_record(regs, vl, records);
	if (!vl)
		return;
	if (FPSIMD_SIZE + sve + END_SIZE <= RECORDS_SIZE) {
		sve_record(regs, vl, p);
		return;
	}
	/* The extra space begins right behind the terminator that follows its record. */
	arm_put32(p, REC_EXTRA);
	arm_put32(p + 4, EXTRA_SIZE);
	arm_put64(p + 8, addr + FPSIMD_SIZE + EXTRA_SIZE + END_SIZE);
	arm_put32(p + 16, sve + END_SIZE);
	sve_record(regs, vl, p + EXTRA_SIZE + END_SIZE);
}

static int check_length(uint32_t vl, const struct tf_cpu *dst, struct tf_err *e)
{
	if (!vl)
		return 0;
	if (!dst->vl)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"SVE registers are in use, the processor has none");
	if (!(dst->vl_mask >> (vl / 16 - 1) & 1) && dst->vl != vl)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"SVE vectors have %u bytes, the processor cannot", vl);
	return 0;
}

int tf_arch_frame_from_regs(const struct tf_thread *thread, const struct tf_cpu *src,
	const struct tf_cpu *dst, uint8_t *buf, size_t len, uint64_t addr, uint64_t *ret_sp,
	struct tf_err *e)
{
	const struct tf_regset *gp = tf_regs_find(&thread->regs, NT_PRSTATUS);
	const struct tf_regset *fp = tf_regs_find(&thread->regs, NT_FPREGSET);
	uint32_t vl = frame_vl(&thread->regs);
	uint8_t *uc = buf + FRAME_UC;
	int r = check_length(vl, dst, e);

	(void)src; /* SVE's layout follows from the vector length alone */
	if (r)
		return r;
	if (!gp || gp->size < ARM_GREGS_SIZE || !fp || fp->size < FP_SIZE)
		return tf_fail(e, TELEFORK_E_IMAGE, "registers: no NT_PRSTATUS or NT_FPREGSET");
	if (len < tf_arch_frame_size(&thread->regs, dst))
		return tf_fail(e, TELEFORK_E_LIMIT, "signal frame: %zu bytes are too few", len);
	if (addr % 64)
		return tf_fail(e, TELEFORK_E_INVAL, "signal frame: address %#llx is not aligned",
			(unsigned long long)addr);
	memset(buf, 0, tf_arch_frame_size(&thread->regs, dst));
	arm_put64(uc + UC_STACK_SP, thread->altstack.sp);
	arm_put32(uc + UC_STACK_FL, (uint32_t)(thread->altstack.flags & SS_KEEP));
	arm_put64(uc + UC_STACK_SZ, thread->altstack.size);
	arm_put64(uc + UC_SIGMASK, thread->sigmask);
	memcpy(uc + UC_REGS, gp->data, ARM_GREGS_SIZE);
	arm_put64(uc + UC_REGS + G_PSTATE * 8, arm_get64(gp->data + G_PSTATE * 8) & PSTATE_USER);
	write_records(&thread->regs, vl, uc + UC_RECORDS, addr + FRAME_UC + UC_RECORDS);
	*ret_sp = addr;
	return 0;
}

size_t tf_arch_frame_link(void)
{
	return FRAME_UC + UC_REGS + G_LR * 8;
}

size_t tf_arch_frame_general(size_t *ret_n)
{
	*ret_n = G_LR + 1;
	return FRAME_UC + UC_REGS;
}

uint64_t tf_arch_frame_call(void)
{
	return 1u << 8 /* x8 */ | 1u << 1 /* x1 */;
}
