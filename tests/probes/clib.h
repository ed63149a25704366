/* SPDX-License-Identifier: MIT */
/* The parts of the C library probe: each sets something up at home and uses it over there. */
#ifndef TESTS_PROBES_CLIB_H
#define TESTS_PROBES_CLIB_H

/* Threads, mutexes of every kind, thread-specific data (clib_threads.c). */
void clib_threads_make(void);
void clib_threads_check(void);

/* Signals, processes, programs (clib_process.c). */
void clib_process_make(void);
void clib_process_check(void);

/* Number of checks so far, for the verdict. */
extern unsigned clib_checks;

/* One check: "what" is lost when it does not hold. */
void clib_expect(int holds, const char *what);

#endif
