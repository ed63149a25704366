/* SPDX-License-Identifier: MIT */
/*
 * What the kernel knows of a process beside registers and memory: signal actions, mask, alternate
 * stack, name, umask, break, robust list, tid word. Set up with unlikely values, compared by name.
 */
#ifndef TF_TESTS_PROCESS_H
#define TF_TESTS_PROCESS_H

#include <stdint.h>

/* Sets everything up as the seed says; leaves the n signals of own alone and unblocked. */
void process_set_up(uint64_t seed, const int *own, unsigned n);

/* Compares; probe_lost() with whose (a prefix) in front. */
void process_compare(const char *whose);

#endif
