/* SPDX-License-Identifier: MIT */
/*
 * What the freestanding restorer needs of its architecture, as static inline functions in
 * arch/<name>/restorer.h (found through the include path of the build). No libc, no relocation, no
 * floating point register:
 *
 *   long tf_r_syscall(long nr, long a, long b, long c, long d, long e, long f);
 *   _Noreturn void tf_r_sigreturn(uint64_t sp);         sets sp and executes rt_sigreturn
 *   void tf_r_arch(uint32_t code, uint64_t value);      TF_ARCH_* register that no call sets
 *   uint64_t tf_r_sign(uint64_t value, uint64_t modifier, uint64_t key);
 *                                                       a code pointer under the process's own
 *                                                       key 0 (A) or 1 (B); unchanged if there
 *                                                       are no such keys
 *   long tf_r_tag(uint64_t address, uint64_t tag);      of 16 bytes of memory; 0, or -ENOSYS
 *   void tf_r_flush(uint64_t start, uint64_t size);     instruction cache
 *   bool tf_r_asks_thread(const uint8_t *code, uint64_t n);
 *                                                       whether instructions (from the begin of one
 *                                                       where they have a size) read what belongs
 *                                                       to their thread
 *   uint64_t tf_r_crc32c_word(uint64_t crc, uint64_t word);
 *   uint64_t tf_r_crc32c_byte(uint64_t crc, uint8_t byte);
 *                                                       one step of CRC32C by the processor's
 *                                                       instruction, raw (no inversion)
 *   _Noreturn void tf_r_enter(uint64_t code, uint64_t stack_top, uint64_t plan);
 *                                                       switches stacks, calls code(plan)
 *   long tf_r_clone(long nr, uint64_t a, uint64_t b, uint64_t code, uint64_t plan, uint64_t first);
 *                                                       nr(a, b, 0, ...), clone or clone3, with
 *                                                       a stack of its own for the new thread,
 *                                                       which calls code(plan, first)
 *   TF_R_NR_read, _write, _close, _exit_group, …        system call numbers of the restorer's own
 *   TF_ARCH_TESTING_HEADER                              for tests/unit/test_arch.c only
 */
#ifndef TF_ARCH_RESTORER_H
#define TF_ARCH_RESTORER_H

#include <stdbool.h>
#include <stdint.h>

#include TF_ARCH_RESTORER_HEADER

/* Eight bytes at any address, of whatever type they were stored. */
typedef uint64_t __attribute__((may_alias, aligned(1))) tf_r_word;

/* CRC32C of n bytes by the processor's instruction, raw (no inversion). */
static inline uint32_t tf_r_crc32c(uint32_t crc, const uint8_t *p, uint64_t n)
{
	uint64_t r = crc;

	for (; n >= 8; n -= 8, p += 8)
		r = tf_r_crc32c_word(r, *(const tf_r_word *)p);
	for (; n; n--, p++)
		r = tf_r_crc32c_byte(r, *p);
	return (uint32_t)r;
}

#endif
