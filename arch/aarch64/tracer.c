/* SPDX-License-Identifier: MIT */
/*
 * Pointer authentication: its keys are in no signal frame, and only a tracer reads and sets them
 * (Documentation/arm64/pointer-authentication.rst). At capture a twin tells them, since fork copies
 * them; at the destination the receiver sets them. QEMU user mode has no ptrace: there the signed
 * return addresses are noted instead (unwind.c), and signed anew. Memory tags a process reads
 * by itself (ptrace.c: of another). Runs in a forked child: no allocator, no lock.
 */
#include "arch/arch.h"
#include "arch/aarch64/layout.h"
#include "core/base/twin.h"

#include <elf.h>
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#ifndef PR_GET_TAGGED_ADDR_CTRL
#define PR_GET_TAGGED_ADDR_CTRL 56
#endif

#define HWCAP_PAC        (3ul << 30) /* HWCAP_PACA, HWCAP_PACG */
#define FEATURE_BTI_WORD 1
#define FEATURE_BTI_BIT  17
#define PROT_BTI_BIT     0x10u /* arch/arm64/include/uapi/asm/mman.h */
#define PROT_MTE_BIT     0x20u

#define SCAN_MAX (UINT64_C(64) << 20) /* more code than this is taken to sign */

static const struct {
	uint32_t type, size;
	const char *name;
} keys[] = {
	{NT_ARM_PACA_KEYS, 64, "pointer authentication keys"},
	{NT_ARM_PACG_KEYS, 16, "generic authentication key"},
	{NT_ARM_PAC_ENABLED_KEYS, 8, "enabled keys"}, /* Linux 5.13 */
};

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

uint64_t tf_arch_checks(void)
{
	int ctrl = prctl(PR_GET_TAGGED_ADDR_CTRL, 0, 0, 0, 0);

	return ctrl > 0 ? (uint64_t)ctrl : 0; /* -1: Linux before 5.4 */
}

void tf_arch_no_checks(uint64_t checks)
{
	if (checks)
		prctl(PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE, 0, 0, 0);
}

int tf_arch_add_checks(struct tf_regs *regs, struct tf_arena *a, uint64_t checks)
{
	struct tf_regset *set = checks ? tf_regs_add(regs, a, NT_ARM_TAGGED_ADDR_CTRL, 8) : NULL;

	if (set)
		arm_put64(set->data, checks);
	return checks && !set ? TELEFORK_E_NOMEM : 0;
}

void tf_arch_tags(uint64_t addr, uint64_t tags[static TF_TAGS_WORDS])
{
	memset(tags, 0, TF_TAGS_WORDS * sizeof(*tags));
	for (unsigned i = 0; i < TF_TAGS_SIZE / 16; i++) {
		register uint64_t x16 __asm__("x16") = addr + 16 * i;

		/* ldg x16, [x16], which assemblers take for processors of Armv8.5 only */
		__asm__ volatile(".inst 0xd9600210" : "+r"(x16) : : "memory");
		tags[i / 16] |= (x16 >> 56 & 15) << i % 16 * 4;
	}
}

bool tf_arch_traced(void)
{
	return getauxval(AT_HWCAP) & HWCAP_PAC;
}

/* --- capture --- */

static int read_keys(pid_t twin, struct tf_regs *regs, struct tf_arena *a, struct tf_err *e)
{
	uint8_t value[64] = {0};

	for (size_t i = 0; i < N_KEYS; i++) {
		struct iovec iov = {value, keys[i].size};
		struct tf_regset *set;

		if (ptrace(PTRACE_GETREGSET, twin, (void *)(uintptr_t)keys[i].type, &iov)) {
			if (errno == EINVAL) /* this kernel or processor has no such set */
				continue;
			return tf_fail_errno(
				e, TELEFORK_E_UNSUPPORTED, errno, "%s: ptrace", keys[i].name);
		}
		set = tf_regs_add(regs, a, keys[i].type, keys[i].size);
		if (!set)
			return tf_fail(e, TELEFORK_E_NOMEM, "registers: the arena is full");
		memcpy(set->data, value, keys[i].size);
	}
	return 0;
}

static int ask_twin(struct tf_regs *regs, struct tf_arena *a, struct tf_err *e)
{
	pid_t twin = tf_twin_start(e);
	int rc;

	if (twin < 0)
		return twin;
	rc = read_keys(twin, regs, a, e);
	tf_twin_end(twin);
	return rc;
}

/* Arm ARM, C4.1: PACIA … PACDZB of data processing with one source, PACGA, and the hint space's
 * paciaz, paciasp, pacibz, pacibsp, pacia1716, pacib1716. */
static bool is_signing(uint32_t insn)
{
	if ((insn & 0xfffff000) == 0xd5032000) {
		uint32_t hint = insn >> 5 & 127;

		return hint == 8 || hint == 10 || (hint >= 24 && hint <= 27);
	}
	if ((insn & 0xffffc000) == 0xdac10000) /* 0-3 and 8-11 sign, the others authenticate */
		return !(insn >> 12 & 1);
	return (insn & 0xffe0fc00) == 0x9ac03000;
}

/* Whether any code of the process could have signed a pointer. A constant between functions may
 * look like it: then keys count as used that are not. */
static bool code_signs(const struct tf_image *img)
{
	uint64_t scanned = 0;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		const struct tf_map *m = &img->maps[i];
		const uint32_t *p = (const uint32_t *)m->start;

		if (!(m->prot & PROT_EXEC) || m->kind == TF_MAP_VDSO)
			continue;
		scanned += m->data_end - m->start;
		if (!(m->prot & PROT_READ) || scanned > SCAN_MAX)
			return true;
		while ((uint64_t)p < m->data_end)
			if (is_signing(*p++))
				return true;
	}
	return false;
}

int tf_arch_capture_traced(struct tf_image *img, struct tf_arena *a, struct tf_err *e)
{
	struct tf_regs *regs = &img->threads[0].regs;
	struct tf_err why = {0};

	if (!tf_arch_traced())
		return 0;
	if (!(img->source.flags & TF_SOURCE_EMULATED)) {
		if (code_signs(img))
			img->source.flags |= TF_SOURCE_SIGNS;
		if (ask_twin(regs, a, &why) && img->source.flags & TF_SOURCE_SIGNS)
			return tf_fail(e, TELEFORK_E_UNSUPPORTED,
				"pointer authentication keys are in use, and only ptrace reads "
				"them (%s): run the program where it may be traced by its parent",
				why.text);
	}
	return 0;
}

/* --- restore --- */

bool tf_arch_has_traced(const struct tf_thread *thread)
{
	for (size_t i = 0; i < N_KEYS; i++)
		if (tf_regs_find(&thread->regs, keys[i].type))
			return true;
	return false;
}

const char *tf_arch_traced_state(const struct tf_image *img)
{
	bool keyed = img->n_threads && tf_arch_has_traced(&img->threads[0]);

	/* From outside, nobody has looked whether the code signs: it may. */
	return keyed && (img->source.flags & TF_SOURCE_SIGNS ||
				img->source.origin == TF_ORIGIN_TASK)
		       ? keys[0].name
		       : NULL;
}

unsigned tf_arch_plan_traced(struct tf_plan *plan, const struct tf_thread *thread)
{
	unsigned n = 0;

	for (size_t i = 0; i < N_KEYS; i++) {
		struct tf_step *step;

		if (!tf_regs_find(&thread->regs, keys[i].type))
			continue;
		step = tf_plan_add(plan, TF_OP_TRACER, keys[i].name);
		step->arg[0] = keys[i].type;
		step->arg[1] = keys[i].size;
		n++;
	}
	return n;
}

uint32_t tf_arch_map_prot(uint32_t vmflags, const struct tf_cpu *dst)
{
	bool bti = dst->features[FEATURE_BTI_WORD] >> FEATURE_BTI_BIT & 1;

	return (bti && vmflags & TF_VMF_BTI ? PROT_BTI_BIT : 0) |
	       (arm_has_tags(dst) && vmflags & TF_VMF_MTE ? PROT_MTE_BIT : 0);
}
