/* SPDX-License-Identifier: MIT */
/*
 * The two places where a captured thread's registers meet C: raising the signal whose frame is the
 * image, and entering its handler. tf_arch_raise must contain nothing but the system call, since a
 * copy resumes right behind it, with every other register as its caller left it.
 */

#define SYS_tgkill 234

	.text

/* long tf_arch_raise(int pid, int tid, int signo): the arguments stand where tgkill wants them. */
	.globl	tf_arch_raise
	.type	tf_arch_raise, @function
	.p2align 4
tf_arch_raise:
	.cfi_startproc
	endbr64
	movl	$SYS_tgkill, %eax
	syscall
	ret
	.cfi_endproc
	.size	tf_arch_raise, . - tf_arch_raise

/* void tf_arch_signal_trampoline(int signo, void *info, void *ucontext). QEMU 10 leaves DF and MXCSR
 * as the interrupted code had them, QEMU 7.2 does not align the stack; rt_sigreturn puts everything
 * back. */
	.globl	tf_arch_signal_trampoline
	.type	tf_arch_signal_trampoline, @function
	.p2align 4
tf_arch_signal_trampoline:
	.cfi_startproc
	endbr64
	cld
	pushq	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	andq	$-16, %rsp
	subq	$16, %rsp
	movl	$0x1f80, 8(%rsp)
	ldmxcsr	8(%rsp)
	fninit
	call	tf_signal_entry@PLT
	leave
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	tf_arch_signal_trampoline, . - tf_arch_signal_trampoline

/* Code that bears a landing pad at each indirect entry: GNU_PROPERTY_X86_FEATURE_1_IBT. */
	.section .note.gnu.property, "a"
	.p2align 3
	.long	4, 16, 5
	.asciz	"GNU"
	.long	0xc0000002, 4, 3, 0

	.section .note.GNU-stack, "", @progbits
