/* SPDX-License-Identifier: MIT */
/* What the probes of post-copy have in common: they are told to look at their memory by SIGUSR1. */
#ifndef TF_TESTS_LATER_H
#define TF_TESTS_LATER_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t told;

static void __attribute__((noreturn)) wrong(const char *what, uint64_t where)
{
	printf("wrong: %s, %llu\n", what, (unsigned long long)where);
	fflush(stdout);
	_exit(1);
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= UINT64_C(0x7fb5d329728ea185);
	return x ^ x >> 27;
}

static void on_usr1(int signo)
{
	told = signo;
}

#endif
