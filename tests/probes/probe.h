/* SPDX-License-Identifier: MIT */
/*
 * What all probes have in common. A probe sets up a state, goes to an address, and over there
 * compares everything with what it was.
 *
 *   PROBE ADDRESS [--next ADDRESS]... [--token T] [--seed N] [--hold | --wait]
 *
 * ADDRESS is a socket's: the process forks itself there, the copy sends its verdict back, and the
 * process prints it. Or it is an absolute path: the process saves itself, says nothing, and the
 * process made from the file prints the verdict, one line on standard output. "-" is a stream on
 * standard output; its process prints the verdict, too.
 *
 *   ok 60 registers, 3 mappings         what was verified, counted
 *   not ok: register ymm3: expected 0x.. found 0x..; mapping heap: ..
 *
 * With --next a copy does not stay: it goes on to the next address, as often as one is given, and
 * the last one compares. All addresses are of the same kind; a verdict comes back the whole way.
 *
 * Exit codes: 0 ok, 1 not ok, 2 telefork failed ("NAME: message" on standard error), 64 usage.
 *
 * With --hold the process and its copy both print "holding PID" when the state stands, and stay in
 * it, without a system call, until SIGTERM; the verdict comes after that. So a witness can look.
 *
 * With --wait the process holds before it goes: "holding PID", and PROBE_GO sends it from where it
 * is, by telefork_on_signal(). Process and copy then stand in the same loop with the same registers
 * and the same memory, until SIGTERM; the verdict comes after that. With a path PROBE_GO saves, as
 * often as it comes, the copy too: where no witness can look (QEMU user mode has no ptrace), they
 * can show themselves.
 */
#ifndef TF_TESTS_PROBE_H
#define TF_TESTS_PROBE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/telefork.h"

#define PROBE_GO    SIGPROF /* no probe has another use for it */
#define PROBE_STOPS 16      /* addresses, at most */

struct probe_args {
	const char *address; /* the first; also route[0] */
	const char *route[PROBE_STOPS];
	unsigned stops;
	bool file; /* addresses are paths */
	bool hold;
	bool wait;
	uint64_t seed;
	struct telefork_options options;
};

struct probe {
	const char *name;
	/* Sets up the state that belongs to the seed. */
	void (*set_up)(uint64_t seed);
	/* In the copy: compares, calls probe_lost() and probe_count(). With --hold after SIGTERM.
	 */
	void (*verify)(void);
	/* In the process, from when the snapshot exists until it has travelled, again and again,
	 * and not with --hold: spoils the state (the copy is a point in time). NULL: nothing. */
	void (*spoil)(void);
};

/* The main() of a probe that goes by telefork() or telefork_save(). Returns the exit code. */
int probe_main(int argc, char **argv, const struct probe *p);

/* Reads the command line; prints the usage and returns false if it is not understood. */
bool probe_parse(int argc, char **argv, const char *name, struct probe_args *a);

/* One thing that was lost, by name and with both values. */
__attribute__((format(printf, 1, 2))) void probe_lost(const char *format, ...);

/* Whether probe_lost() was called. */
bool probe_lost_any(void);

/* n more of these were verified: part of the verdict. what: static, plural ("registers"). */
void probe_count(const char *what, uint64_t n);

/* Writes the verdict as one line to fd. Returns the exit code that belongs to it. */
int probe_say(int fd);

/* Reads a verdict line from fd, prints it, returns its exit code. No line: not ok. */
int probe_hear(const char *name, int fd);

/* A way back for a copy that telefork_on_signal() made: the process listens next to the address
 * that it sends to, the copy calls there. Before the capture; false: said why on standard error. */
struct probe_back {
	int listener;       /* the process's; -1: none, the verdict goes to standard output */
	char address[1024]; /* for the copy */
};
bool probe_back_open(struct probe_back *b, const char *destination);

/* In the copy: says the verdict to the process, or on standard output when there is no way back. */
int probe_back_say(const struct probe_back *b);

/* In the process: prints the copy's verdict. */
int probe_back_hear(const char *name, struct probe_back *b);

/* Prints an error of telefork as "name: NAME: message", returns 2. message may be NULL. */
int probe_error(const char *name, int code, const char *message);

/* --hold: SIGTERM ends the holding. Before the state stands. */
void probe_hold_prepare(void);

/* Prints "holding PID". */
void probe_hold_announce(void);

/* Announces, then spins until SIGTERM, without a system call. */
void probe_hold(void);

/* A pseudorandom stream (splitmix64): the next value; never zero. */
uint64_t probe_next(uint64_t *state);

#endif
