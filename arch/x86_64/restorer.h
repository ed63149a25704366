/* SPDX-License-Identifier: MIT */
/*
 * x86_64 for the freestanding restorer: see arch/restorer.h. Everything is inlined into position-
 * independent code that runs without a stack guard, without libc and without vector
 * registers. */
#ifndef TF_ARCH_X86_64_RESTORER_H
#define TF_ARCH_X86_64_RESTORER_H

#include <stdbool.h>
#include <stdint.h>

/* What tests/unit/test_arch.c needs of the architecture. */
#define TF_ARCH_TESTING_HEADER "arch/x86_64/testing.h"

/* arch/x86/entry/syscalls/syscall_64.tbl */
#define TF_R_NR_read          0
#define TF_R_NR_write         1
#define TF_R_NR_close         3
#define TF_R_NR_ppoll         271
#define TF_R_NR_poll          7
#define TF_R_NR_rt_sigreturn  15
#define TF_R_NR_ioctl         16
#define TF_R_NR_pread64       17
#define TF_R_NR_mincore       27
#define TF_R_NR_madvise       28
#define TF_R_NR_getpid        39
#define TF_R_NR_sendto        44
#define TF_R_NR_recvfrom      45
#define TF_R_NR_clone         56
#define TF_R_NR_exit          60
#define TF_R_NR_wait4         61
#define TF_R_NR_kill          62
#define TF_R_NR_arch_prctl    158
#define TF_R_NR_gettid        186
#define TF_R_NR_futex         202
#define TF_R_NR_clock_gettime 228
#define TF_R_NR_exit_group    231
#define TF_R_NR_tgkill        234
#define TF_R_NR_dup3          292
#define TF_R_NR_pipe2         293
#define TF_R_NR_clone3        435

static inline long tf_r_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static inline _Noreturn void tf_r_sigreturn(uint64_t sp)
{
	__asm__ volatile("movq %0, %%rsp\n\t"
			 "movl %1, %%eax\n\t"
			 "syscall\n\t"
			 "ud2"
			 :
			 : "r"(sp), "i"(TF_R_NR_rt_sigreturn)
			 : "memory");
	__builtin_unreachable();
}

/* No register of x86_64 is set without a system call. */
static inline void tf_r_arch(uint32_t code, uint64_t value)
{
	(void)code;
	(void)value;
}

static inline uint64_t tf_r_sign(uint64_t value, uint64_t modifier, uint64_t key)
{
	(void)modifier;
	(void)key;
	return value;
}

static inline long tf_r_tag(uint64_t address, uint64_t tag)
{
	(void)address;
	(void)tag;
	return -38; /* ENOSYS */
}

/* Instruction fetch is coherent with stores (SDM volume 3, 9.1.3). */
static inline void tf_r_flush(uint64_t start, uint64_t size)
{
	(void)start;
	(void)size;
}

/* One step of the processor's CRC32C, over 8 bytes. */
static inline __attribute__((always_inline)) uint64_t tf_r_crc32c_word(uint64_t crc, uint64_t word)
{
	__asm__("crc32q %1, %0" : "+r"(crc) : "rm"(word));
	return crc;
}

/* The same over one byte. */
static inline __attribute__((always_inline)) uint64_t tf_r_crc32c_byte(uint64_t crc, uint8_t byte)
{
	__asm__("crc32b %1, %0" : "+r"(crc) : "rm"(byte));
	return crc;
}

/* The new thread has the registers of the old one, but for its stack pointer and the result. */
static inline long tf_r_clone(
	long nr, uint64_t a, uint64_t b, uint64_t code, uint64_t plan, uint64_t first)
{
	register uint64_t r10 __asm__("r10") = 0;
	register uint64_t r8 __asm__("r8") = 0;
	register uint64_t r12 __asm__("r12") = code;
	register uint64_t r13 __asm__("r13") = plan;
	register uint64_t r14 __asm__("r14") = first;
	long result;

	__asm__ volatile(
		"syscall\n\t"
		"testq %%rax, %%rax\n\t"
		"jnz 1f\n\t"
		"xorl %%ebp, %%ebp\n\t"
		"movq %%r13, %%rdi\n\t"
		"movq %%r14, %%rsi\n\t"
		"pushq $0\n\t"
		"jmpq *%%r12\n"
		"1:"
		: "=a"(result)
		: "a"(nr), "D"(a), "S"(b), "d"(0L), "r"(r10), "r"(r8), "r"(r12), "r"(r13), "r"(r14)
		: "rcx", "r11", "memory");
	return result;
}

/* mov, or cmp, with %fs: and an absolute place; 0x28 is the stack protector's. */
static inline __attribute__((unused)) bool tf_r_asks_thread(const uint8_t *code, uint64_t n)
{
	for (uint64_t i = 0; i + 9 <= n; i++) {
		const uint8_t *p = code + i + 1;

		if (code[i] != 0x64)
			continue;
		p += (*p & 0xf0) == 0x40;
		if ((*p == 0x8b || *p == 0x3b || *p == 0x39) && (p[1] & 0xc7) == 0x04 &&
			p[2] == 0x25 && p[3] != 0x28)
			return true;
	}
	return false;
}

/* As if code had been called: the stack is 8 bytes off 16. */
static inline _Noreturn void tf_r_enter(uint64_t code, uint64_t stack_top, uint64_t plan)
{
	__asm__ volatile("movq %1, %%rsp\n\t"
			 "xorl %%ebp, %%ebp\n\t"
			 "pushq $0\n\t"
			 "jmpq *%0"
			 :
			 : "r"(code), "r"(stack_top & ~UINT64_C(15)), "D"(plan)
			 : "memory");
	__builtin_unreachable();
}

#endif
