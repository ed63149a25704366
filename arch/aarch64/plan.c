/* SPDX-License-Identifier: MIT */
/*
 * aarch64 in a restore plan: registers that no signal frame holds, code for the entry points of an
 * old vDSO, and the page that QEMU user mode needs. Nothing is torn down in here.
 */
#include "arch/arch.h"
#include "arch/aarch64/layout.h"
#include "core/base/own.h"

#include <elf.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PR_SVE_SET_VL_NR           UINT64_C(50)
#define PR_SET_TAGGED_ADDR_CTRL_NR UINT64_C(55)
#define PR_VL_INHERIT              (UINT64_C(1) << 17)

int tf_arch_plan_registers(struct tf_plan *plan, const struct tf_thread *thread)
{
	const struct tf_regset *sve = tf_regs_find(&thread->regs, NT_ARM_SVE);
	const struct tf_regset *tls = tf_regs_find(&thread->regs, NT_ARM_TLS);
	const struct tf_regset *ctrl = tf_regs_find(&thread->regs, NT_ARM_TAGGED_ADDR_CTRL);
	struct tf_step *step;

	if (!tls || tls->size < 8)
		return TELEFORK_E_IMAGE;
	if (sve && sve->size >= SVE_HEADER) {
		uint64_t vl = arm_get16(sve->data + SVE_VL);

		if (arm_get16(sve->data + SVE_FLAGS) & SVE_FLAG_VL_INHERIT)
			vl |= PR_VL_INHERIT;
		/* A length that the processor lacks is rounded down, not refused. */
		step = tf_plan_syscall(plan, "vector length", SYS_prctl, 5, PR_SVE_SET_VL_NR, vl,
			UINT64_C(0), UINT64_C(0), UINT64_C(0));
		step->expect = TF_EXPECT_VALUE;
		step->expected = vl;
	}
	/* Also 0: no copy is checked as its receiver is. Kernels before 5.4 have none. */
	step = tf_plan_syscall(plan, "tagged addresses", SYS_prctl, 5, PR_SET_TAGGED_ADDR_CTRL_NR,
		ctrl ? arm_get64(ctrl->data) : UINT64_C(0), UINT64_C(0), UINT64_C(0), UINT64_C(0));
	step->expect = ctrl ? TF_EXPECT_SUCCESS : TF_EXPECT_ANY;
	step = tf_plan_add(plan, TF_OP_ARCH, "tpidr_el0");
	step->arg[0] = TF_ARCH_TPIDR_EL0;
	step->arg[1] = arm_get64(tls->data);
	return 0;
}

/* bti c; ldr x16, .+8; br x16; .quad target. 20 bytes; br x16 may land on any bti. */
size_t tf_arch_code_jump(uint8_t code[static 32], uint64_t target)
{
	arm_put32(code, 0xd503245f);
	arm_put32(code + 4, 0x58000050);
	arm_put32(code + 8, 0xd61f0200);
	arm_put64(code + 12, target);
	return 20;
}

/* bti c; mov x8, #nr; svc #0; ret. Without a number: bti c; mov x0, #-ENOSYS; ret. */
size_t tf_arch_code_syscall(uint8_t code[static 32], long nr)
{
	arm_put32(code, 0xd503245f);
	if (nr < 0 || nr > 0xffff) {
		arm_put32(code + 4, 0x928004a0); /* movn x0, #37 */
		arm_put32(code + 8, 0xd65f03c0);
		return 12;
	}
	arm_put32(code + 4, 0xd2800008 | (uint32_t)nr << 5); /* movz x8, #nr */
	arm_put32(code + 8, 0xd4000001);
	arm_put32(code + 12, 0xd65f03c0);
	return 16;
}

long tf_arch_vdso_syscall(const char *symbol)
{
	/* arch/arm64/kernel/vdso/vdso.lds.S. getrandom takes two arguments more than its call,
	 * which then is plain getrandom(2). */
	static const struct {
		const char *name;
		long nr;
	} table[] = {
		{"__kernel_clock_gettime", SYS_clock_gettime},
		{"__kernel_gettimeofday", SYS_gettimeofday},
		{"__kernel_clock_getres", SYS_clock_getres},
		{"__kernel_getrandom", SYS_getrandom},
	};

	if (strstr(symbol, "sigreturn"))
		return -2;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(table[i].name, symbol))
			return table[i].nr;
	return -1;
}

/* End of the vDSO, or its beginning if its headers do not tell. */
static uint64_t vdso_end(uint64_t base)
{
	const Elf64_Ehdr *ehdr = (const Elf64_Ehdr *)base;
	const Elf64_Phdr *ph = (const Elf64_Phdr *)(base + ehdr->e_phoff);
	uint64_t end = base;

	for (unsigned i = 0; i < ehdr->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD && base + ph[i].p_vaddr + ph[i].p_memsz > end)
			end = base + ph[i].p_vaddr + ph[i].p_memsz;
	return end;
}

/* volatile: syscall() is declared a leaf function, which may not call back into this file. */
TF_OWN static volatile uint64_t return_address;

static void probe(int signo)
{
	(void)signo;
	return_address = (uint64_t)__builtin_return_address(0);
}

/* Where a handler returns to when nobody names a restorer: natively in the vDSO, which is kept by
 * its own rules; under QEMU a page of its own (7.2), or in its vDSO (8.2 and later). */
unsigned tf_arch_emulator_pages(uint64_t *pages, unsigned max)
{
	uint64_t vdso = getauxval(AT_SYSINFO_EHDR), address;
	struct sigaction sa = {.sa_handler = probe}, old;
	sigset_t set, old_set;

	return_address = 0;
	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	if (sigaction(SIGURG, &sa, &old))
		return 0;
	sigprocmask(SIG_UNBLOCK, &set, &old_set);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGURG);
	sigprocmask(SIG_SETMASK, &old_set, NULL);
	sigaction(SIGURG, &old, NULL);
	address = return_address;
	if (!address || !max)
		return 0;
	if (vdso && address >= vdso && address < vdso_end(vdso))
		return 0;
	pages[0] = address & ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
	return 1;
}

void tf_arch_flush(void *start, size_t size)
{
	__builtin___clear_cache((char *)start, (char *)start + size);
}
