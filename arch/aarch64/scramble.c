/* SPDX-License-Identifier: MIT */
/*
 * Junk into every aarch64 register that C does not need on its way into the restorer, so that
 * nothing arrives in a copy by being inherited from the receiver. No clobber lists: the compiler
 * would put d8-d15 back.
 */
#include "arch/arch.h"

#define JUNK_FPCR    UINT64_C(0x07c00000)
#define JUNK_FPSR    UINT64_C(0x0800009f)
#define JUNK_ADDRESS UINT64_C(0x5a5a5a5a5a50)

#define EACH_16(op)                                                                             \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) \
		op(14) op(15)
#define EACH_32(op)                                                                                \
	EACH_16(op)                                                                                \
	op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) \
		op(29) op(30) op(31)
#define JUNK_V(n) "movi v" #n ".16b, #0x5a\n\t"
#define JUNK_Z(n) "dup z" #n ".b, #0x5a\n\t"
#define JUNK_P(n) "ptrue p" #n ".b\n\t"

void tf_arch_scramble(const struct tf_cpu *cpu)
{
	if (cpu->vl)
		__asm__ volatile(
			".arch_extension sve\n\t" EACH_32(JUNK_Z) EACH_16(JUNK_P) "setffr");
	else
		__asm__ volatile(EACH_32(JUNK_V));
	__asm__ volatile("msr fpcr, %0\n\t"
			 "msr fpsr, %1\n\t"
			 "msr tpidr_el0, %2"
			 :
			 : "r"(JUNK_FPCR), "r"(JUNK_FPSR), "r"(JUNK_ADDRESS));
}
