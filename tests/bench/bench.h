/* SPDX-License-Identifier: MIT */
/* What one size and one kind of pages cost. Nanoseconds and bytes, medians of REPEAT runs. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum bench_link { BENCH_UNIX, BENCH_TCP, BENCH_LINKS };

/* Of the second after: the part of the page writes that was not done. */
struct bench_lost {
	double second; /* sender, receiver and copy use processors, too */
	double cpu;    /* in each second of the parent's own processor time: copying on write */
};

struct bench_figures {
	uint64_t fork_ns;              /* a plain fork(), the child ends at once */
	uint64_t bare_ns[BENCH_LINKS]; /* write() to read() into fresh memory of that kind */
	uint64_t stop_ns[BENCH_LINKS]; /* the parent stands still in telefork() */
	uint64_t run_ns[BENCH_LINKS];  /* until the copy's first word is here */
	struct bench_lost lost_fork, lost_telefork;
	uint64_t snapshot_own; /* the snapshot's memory that is not shared with the parent */
	uint64_t receiver_own; /* the receiver's, and the copy's beyond what was carried */
	uint64_t huge_before, huge_after; /* bytes of the heap in huge pages */
};

/* Where receivers listen: addresses of `telefork-pad serve`, one for each link, and its pids. */
struct bench_receivers {
	const char *uri[BENCH_LINKS];
	int pid[BENCH_LINKS];
};

/* Measures a heap of size bytes in this process. 0, or -1 with words on stderr. */
int bench_measure(uint64_t size, bool huge, const struct bench_receivers *receivers,
	struct bench_figures *ret);

/* Measures how long processes stand still that are captured from outside; prints a row for each,
 * and appends it to list. 0, or -1 with words on stderr. */
int bench_outside(bool quick, json_t *list);

/* Measures what need not be sent again, and what is compressed, to the receiver at uri, which keeps
 * pages. Prints rows, and appends them to list. 0, or -1 with words on stderr. */
int bench_again(const char *uri, bool quick, json_t *list);

/* Measures post-copy to the receiver at uri. The same. */
int bench_later(const char *uri, bool quick, json_t *list);

/* A heap of incompressible content. NULL on failure. */
uint8_t *bench_heap(uint64_t size, bool huge);

/* Sorts v. */
uint64_t bench_median(uint64_t *v, unsigned n);

/* A connected pair of that kind. 0 or -1. */
int bench_socketpair(enum bench_link link, int fd[2]);

#endif
