/* SPDX-License-Identifier: MIT */
/*
 * What telefork costs, as rows: a figure, what it is measured against in the same rounds, and an
 * aim. Each part (a file) measures in turns and adds its rows; bench.c has the table of parts,
 * report.c prints and writes what they added.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_ROUNDS 16 /* at most */
#define BENCH_URI    128

/* A reference whose quartiles are further apart than this part of its median tells nothing. */
#define BENCH_NOISE 0.35

enum bench_link { BENCH_UNIX, BENCH_TCP, BENCH_LINKS };

/* Figures of one kind, one of each round. */
struct bench_series {
	double v[BENCH_ROUNDS];
	unsigned n;
};

struct bench {
	bool quick;
	const char *pad;              /* the receiver's program, which runs and listens */
	const char *uri[BENCH_LINKS]; /* where */
	pid_t serve[BENCH_LINKS];
	json_t *rows, *curves; /* for report.c */
	unsigned met, missed, noisy;
};

/* Starts a receiver, and reads the address that it prints. -1: it does not start, with words. */
pid_t bench_receiver(char *const argv[], char uri[static BENCH_URI]);

/* --- report.c --- */

/* The median of a series; its quartiles. Sorts it. */
double bench_median(struct bench_series *s);
void bench_spread(struct bench_series *s, double *ret_low, double *ret_high);
void bench_push(struct bench_series *s, double v);

/* A row. reference may be NULL: the limit then holds by itself. limit: what the median may be at
 * most, in the same unit; 0: there is no aim, it is told only. aim says it in words. The name is
 * printf's. */
void bench_add(struct bench *b, struct bench_series *value, struct bench_series *reference,
	double limit, const char *unit, const char *aim, const char *name, ...)
	__attribute__((format(printf, 7, 8)));

/* A point of a curve for the plots: curve "4k" or "huge", MiB, and what a line is called there. */
void bench_point(struct bench *b, const char *curve, uint64_t mib, const char *line, double value);

/* Writes FOLDER/bench.json and what plots.gp reads; prints the sum. 0 or -1. */
int bench_report(const struct bench *b, const char *folder);

/* --- heap.c --- */

/* Frames that the machine has given back to its host are slow at their first touch: so many bytes
 * are touched before anything is measured, and again before each round. */
void bench_warm(uint64_t bytes);

/* Fresh memory aligned to a huge page, whose pages are of one kind. NULL on failure. */
uint8_t *bench_fresh(uint64_t size, bool huge);
void bench_free(uint8_t *at, uint64_t size);

/* The same, with incompressible content. */
uint8_t *bench_heap(uint64_t size, bool huge);

/* The sum of a field of /proc/PID/FILE (smaps_rollup), in bytes. */
uint64_t bench_memory_of(pid_t pid, const char *file, const char *field);
uint64_t bench_private_of(pid_t pid);

/* Bytes of memory that the machine has for whoever asks now. */
uint64_t bench_available(void);

/* Pid of the last child of pid, 0 if it has none. */
pid_t bench_last_child(pid_t pid);

/* --- note.c: of programs that move --- */

/* Writes a note of n bytes; the process ends if it cannot. */
void bench_note(const char *file, const void *bytes, size_t n);

/* Waits for it, a minute at most, and takes it away. 0 or -1. */
int bench_await_note(const char *file, void *to, size_t n);

/* --- journey.c --- */

/* A plain fork() whose child ends at once: how long the call took, in ms. */
double bench_fork(void);

/* Bytes from memory to memory that is there already, or to fresh memory, over bare TCP; ms.
 * Negative: failed. */
double bench_bare(uint8_t *from, uint64_t size, bool huge, bool fresh);

/* memcpy() into fresh memory of that kind; ms. */
double bench_memcpy(const uint8_t *from, uint64_t size, bool huge);

/* One journey of this process. The copy says one word and waits for the end of the connection. */
struct bench_journey {
	int fd;
	struct telefork_job *job;
	uint64_t start;
	double stop_ms, run_ms; /* the parent stood still; until the copy's first word is here */
	uint64_t memory;        /* bytes carried */
	uint64_t split;         /* bytes of huge pages that became small ones, as it is told */
};

/* Sends this process; the copy never returns. 0 or an error. */
int bench_depart(struct bench_journey *j, const struct bench *b, enum bench_link link);

/* Waits until the copy runs. 0 or an error, with words. */
int bench_arrive(struct bench_journey *j);

/* Ends the copy, and waits until its memory is given back: else that disturbs what comes next. */
void bench_leave(struct bench_journey *j, pid_t serve);

/* All three. */
int bench_go(struct bench_journey *j, const struct bench *b, enum bench_link link);

/* Runs fn in a process of its own: no heap of what was before. What it returns; its rows arrive. */
int bench_apart(struct bench *b, int (*fn)(struct bench *b, uint64_t mib, bool huge), uint64_t mib,
	bool huge);

/* --- parts: 0, or -1 with words on stderr --- */

/* telefork(): stop, throughput, the small program. */
int bench_times(struct bench *b);

/* The small program (small.c), and that under QEMU user mode, of each architecture that was built.
 */
int bench_small(struct bench *b);
int bench_user(struct bench *b);

/* Work that is lost to copying on write in the second after. */
int bench_work(struct bench *b);

/* Memory of the two sides beside what is carried. */
int bench_own(struct bench *b);

/* What comes back of a yoyo that changes little. */
int bench_yoyo(struct bench *b);

/* How long processes stand still that are captured from outside. */
int bench_outside(struct bench *b);

/* What need not be sent again, or not as it is. */
int bench_again(struct bench *b);

/* --- floor.c --- */

/* How long a process stands still for a tracer that does no more than it cannot do without; ms.
 * Negative: failed. */
double bench_floor(pid_t pid);
/* Post-copy: when it runs, when all is there, and how long who touches what has not come waits. */
int bench_later(struct bench *b);

/* Pre-copy: how long a program stands still that is moved while it writes to its memory. */
int bench_precopy(struct bench *b);

/* Copies of a zygote. */
int bench_zygote(struct bench *b);

/* telefork move of a process, beside the receiver's program: --precopy or --no-precopy, and
 * --compress=HOW. 0 or -1. */
int bench_move(const struct bench *b, pid_t pid, const char *uri, const char *rounds,
	const char *compress);

#endif
