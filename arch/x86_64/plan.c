/* SPDX-License-Identifier: MIT */
/*
 * x86_64 in a restore plan: registers that no signal frame holds, code for the entry points of an
 * old vDSO, and the pages that QEMU user mode needs. Nothing is torn down in here.
 */
#include "arch/arch.h"
#include "arch/x86_64/layout.h"

#include <elf.h>
#include <sys/syscall.h>

/* asm/prctl.h */
#define ARCH_SET_GS         UINT64_C(0x1001)
#define ARCH_SET_FS         UINT64_C(0x1002)
#define ARCH_REQ_XCOMP_PERM UINT64_C(0x1023)

int tf_arch_plan_registers(struct tf_plan *plan, const struct tf_thread *thread)
{
	const struct tf_regset *gp = tf_regs_find(&thread->regs, NT_PRSTATUS);
	const struct tf_regset *xs = tf_regs_find(&thread->regs, NT_X86_XSTATE);

	if (!gp || gp->size < X86_GREGS_SIZE)
		return TELEFORK_E_IMAGE;
	/* Without leave the kernel would take a frame with tile data for a damaged one. */
	if (xs && xs->size >= XS_MIN_SIZE && (x86_get64(xs->data + FX_SW) & XC_BIT(XC_TILEDATA)))
		tf_plan_syscall(plan, "AMX tiles", SYS_arch_prctl, 2, ARCH_REQ_XCOMP_PERM,
			(uint64_t)XC_TILEDATA);
	tf_plan_syscall(plan, "fs base", SYS_arch_prctl, 2, ARCH_SET_FS,
		x86_get64(gp->data + G_FS_BASE * 8));
	tf_plan_syscall(plan, "gs base", SYS_arch_prctl, 2, ARCH_SET_GS,
		x86_get64(gp->data + G_GS_BASE * 8));
	return 0;
}

/* movabs $target, %rax; jmp *%rax. 12 bytes; rax carries no argument of a vDSO function. */
size_t tf_arch_code_jump(uint8_t code[static 32], uint64_t target)
{
	static const uint8_t jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};

	memcpy(code, jump, sizeof(jump));
	x86_put64(code + 2, target);
	return sizeof(jump);
}

/* mov $nr, %eax; syscall; ret. Without a number: mov $-ENOSYS, %rax; ret. */
size_t tf_arch_code_syscall(uint8_t code[static 32], long nr)
{
	static const uint8_t call[8] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3};
	static const uint8_t enosys[8] = {0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3};

	if (nr < 0) {
		memcpy(code, enosys, sizeof(enosys));
		return sizeof(enosys);
	}
	memcpy(code, call, sizeof(call));
	x86_put32(code + 1, (uint32_t)nr);
	return sizeof(call);
}

long tf_arch_vdso_syscall(const char *symbol)
{
	/* arch/x86/entry/vdso/vdso.lds.S. getrandom takes two arguments more than its call, which
	 * then is plain getrandom(2). */
	static const struct {
		const char *name;
		long nr;
	} table[] = {
		{"clock_gettime", SYS_clock_gettime},
		{"gettimeofday", SYS_gettimeofday},
		{"clock_getres", SYS_clock_getres},
		{"time", SYS_time},
		{"getcpu", SYS_getcpu},
		{"getrandom", 318},
	};

	if (strstr(symbol, "sigreturn"))
		return -2;
	if (!strncmp(symbol, "__vdso_", 7))
		symbol += 7;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(table[i].name, symbol))
			return table[i].nr;
	return -1;
}

struct table_register {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

/* The pages of a descriptor table, if it is in user memory: QEMU user mode keeps it there. A
 * kernel's is not, and where UMIP hides it the kernel answers with an address in its own half. */
static unsigned add_table(const struct table_register *t, uint64_t *pages, unsigned n, unsigned max)
{
	uint64_t page = t->base & ~UINT64_C(4095);

	if (!t->base || t->base >> 47)
		return n;
	for (; page <= t->base + t->limit && n < max; page += 4096)
		if (!n || pages[n - 1] != page)
			pages[n++] = page;
	return n;
}

/* A handler returns through SA_RESTORER on x86_64, also under QEMU: no page for that. */
unsigned tf_arch_emulator_pages(uint64_t *pages, unsigned max)
{
	struct table_register gdt = {0}, idt = {0};
	unsigned n;

	__asm__ volatile("sgdt %0" : "=m"(gdt));
	__asm__ volatile("sidt %0" : "=m"(idt));
	n = add_table(&gdt, pages, 0, max);
	return add_table(&idt, pages, n, max);
}

/* Instruction fetch is coherent with stores (SDM volume 3, 9.1.3). */
void tf_arch_flush(void *start, size_t size)
{
	(void)start;
	(void)size;
}
