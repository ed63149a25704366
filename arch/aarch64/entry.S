/* SPDX-License-Identifier: MIT */
/*
 * The two places where a captured thread's registers meet C: raising the signal whose frame is the
 * image, and entering its handler. tf_arch_raise must contain nothing but the system call, since a
 * copy resumes right behind it, with every other register as its caller left it.
 */

#define SYS_tgkill 131

	.text

/* long tf_arch_raise(int pid, int tid, int signo): the arguments stand where tgkill wants them. */
	.globl	tf_arch_raise
	.type	tf_arch_raise, %function
	.p2align 4
tf_arch_raise:
	.cfi_startproc
	hint	#34			/* bti c */
	mov	x8, #SYS_tgkill
	svc	#0
	ret
	.cfi_endproc
	.size	tf_arch_raise, . - tf_arch_raise

/* void tf_arch_signal_trampoline(int signo, void *info, void *ucontext). The interrupted code's
 * rounding mode and traps are not for the handler; rt_sigreturn puts them back. */
	.globl	tf_arch_signal_trampoline
	.type	tf_arch_signal_trampoline, %function
	.p2align 4
tf_arch_signal_trampoline:
	.cfi_startproc
	hint	#34			/* bti c */
	stp	x29, x30, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset x29, -16
	.cfi_offset x30, -8
	mov	x29, sp
	msr	fpcr, xzr
	bl	tf_signal_entry
	ldp	x29, x30, [sp], #16
	.cfi_restore x29
	.cfi_restore x30
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
	.size	tf_arch_signal_trampoline, . - tf_arch_signal_trampoline

/* GNU_PROPERTY_AARCH64_FEATURE_1_BTI: a landing pad at each indirect entry. */
	.section .note.gnu.property, "a"
	.p2align 3
	.long	4, 16, 5
	.asciz	"GNU"
	.long	0xc0000000, 4, 1, 0

	.section .note.GNU-stack, "", %progbits
