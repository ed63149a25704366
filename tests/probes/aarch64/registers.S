/* SPDX-License-Identifier: MIT */
/*
 * aarch64 for the register probe: see tests/probes/registers.h. General registers stand as in
 * user_pt_regs, v in user_fpsimd_state, z, p and FFR behind a user_sve_header. Between the load and
 * the store sp is the only base, so that x0-x30 can all have any value.
 */

/* struct registers_state */
#define GENERAL	 0
#define FLOATING 8
#define EXTENDED 16
#define THREAD	 24

#define SP     (31 * 8)
#define PC     (32 * 8)
#define PSTATE (33 * 8)
#define FPSR   512
#define FPCR   516
#define HEADER 16

/* The frame: what must be preserved, then ours. */
#define FRAME	   208
#define D8	   96
#define X0	   160		/* as found in the register at the last moment */
#define GENERATION 168		/* address of the word */
#define LOAD	   176
#define STORE	   184
#define PLACE	   192

	.arch_extension sve
	.text

	.macro	for_z op, base
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	\op	z\n, [\base, #\n, mul vl]
	.endr
	.endm

	.macro	for_p op, base
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	\op	p\n, [\base, #\n, mul vl]
	.endr
	.endm

	.macro	for_q op, base
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	\op	q\n, [\base, #16 * \n]
	.endr
	.endm

/* x1 to x29 */
	.macro	for_x op, base
	.irp	n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29
	\op	x\n, [\base, #8 * \n]
	.endr
	.endm

	.macro	load_general
	for_x	ldr, x30
	ldr	x0, [x30]
	ldr	x30, [x30, #8 * 30]
	.endm

/* The predicates' place behind z0-31, in \to; x9 is used. */
	.macro	predicates sve, to
	rdvl	x9, #1
	add	\to, \sve, x9, lsl #5
	.endm

/* void registers_spin(struct registers_state *load, struct registers_state *store, bool hold) */
	.globl	registers_spin
	.type	registers_spin, %function
registers_spin:
	.cfi_startproc
	hint	#34			/* bti c */
	stp	x29, x30, [sp, #-FRAME]!
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	stp	d8, d9, [sp, #D8]
	stp	d10, d11, [sp, #D8 + 16]
	stp	d12, d13, [sp, #D8 + 32]
	stp	d14, d15, [sp, #D8 + 48]
	ldr	x30, [x0, #GENERAL]
	adrp	x3, tf_mailbox + 28
	add	x3, x3, :lo12:tf_mailbox + 28
	str	x3, [sp, #GENERATION]
	stp	x0, x1, [sp, #LOAD]
	adr	x3, registers_begin
	adr	x4, registers_held
	tst	w2, #0xff
	csel	x3, x3, x4, eq
	str	x3, [sp, #PLACE]
	str	x3, [x30, #PC]
	mov	x3, sp
	str	x3, [x30, #SP]
	ldr	x3, [x0, #THREAD]
	mrs	x4, tpidr_el0
	str	x4, [x3]
	ldr	x5, [x0, #FLOATING]
	ldr	x4, [x0, #EXTENDED]
	cbz	x4, 1f
	add	x4, x4, #HEADER
	predicates x4, x6
	ldr	p0, [x6, #16, mul vl]
	wrffr	p0.b
	for_p	ldr, x6
	for_z	ldr, x4
	b	2f
1:	for_q	ldr, x5
2:	ldr	w3, [x5, #FPSR]
	msr	fpsr, x3
	ldr	w3, [x5, #FPCR]
	msr	fpcr, x3
	ldr	x3, [x30, #PSTATE]
	msr	nzcv, x3
	tbnz	w2, #0, 3f
	load_general
	b	registers_begin
3:	load_general

	.globl	registers_held
registers_held:
	b	registers_held

	.globl	registers_begin, registers_end
registers_begin:
	nop
	str	x0, [sp, #X0]
registers_end:
	ldr	x0, [sp, #GENERATION]
	ldr	w0, [x0]
	cbz	w0, 1f
	ldr	x0, [sp, #X0]
	b	registers_leave
1:	ldr	x0, [sp, #X0]
	b	registers_begin

	.globl	registers_leave
registers_leave:
	str	x0, [sp, #X0]
	ldr	x0, [sp, #STORE]
	ldr	x0, [x0, #GENERAL]
	for_x	str, x0
	str	x30, [x0, #8 * 30]
	ldr	x1, [sp, #X0]
	str	x1, [x0]
	mrs	x1, nzcv
	str	x1, [x0, #PSTATE]
	mov	x1, sp
	str	x1, [x0, #SP]
	ldr	x1, [sp, #PLACE]	/* the only place from which a way leads here */
	str	x1, [x0, #PC]
	ldp	x2, x3, [sp, #LOAD]	/* x2 as loaded, x3 to store */
	ldr	x5, [x3, #FLOATING]
	mrs	x1, fpsr
	str	w1, [x5, #FPSR]
	mrs	x1, fpcr
	str	w1, [x5, #FPCR]
	msr	fpcr, xzr
	for_q	str, x5
	ldr	x4, [x3, #EXTENDED]
	cbz	x4, 1f
	add	x4, x4, #HEADER
	for_z	str, x4
	predicates x4, x6
	for_p	str, x6
	rdffr	p0.b
	str	p0, [x6, #16, mul vl]
1:	ldr	x3, [x3, #THREAD]
	mrs	x1, tpidr_el0
	str	x1, [x3]
	ldr	x2, [x2, #THREAD]	/* the C library's, so that a loss can be told */
	ldr	x1, [x2]
	msr	tpidr_el0, x1
	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	d8, d9, [sp, #D8]
	ldp	d10, d11, [sp, #D8 + 16]
	ldp	d12, d13, [sp, #D8 + 32]
	ldp	d14, d15, [sp, #D8 + 48]
	ldp	x29, x30, [sp], #FRAME
	ret
	.cfi_endproc
	.size	registers_spin, . - registers_spin

/* void registers_handler(int signo, siginfo_t *info, void *ucontext): QEMU 7.2 leaves FPCR as the
 * interrupted code had it; rt_sigreturn puts it back. */
	.globl	registers_handler
	.type	registers_handler, %function
registers_handler:
	hint	#34			/* bti c */
	msr	fpcr, xzr
	b	registers_signal
	.size	registers_handler, . - registers_handler

	.section .note.GNU-stack, "", %progbits
