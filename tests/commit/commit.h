/* SPDX-License-Identifier: MIT */
/*
 * The parts of the test of docs/commit.md's table: a world (world.c) with a program, a receiver and
 * a journal for each side; a striker (strike.c), which kills a party at a system call of its own; a
 * network (network.c), which is cut or falls silent after a byte of a message. Whatever cannot be
 * done at all ends the test.
 */
#ifndef TF_TESTS_COMMIT_H
#define TF_TESTS_COMMIT_H

#include <stdbool.h>
#include <sys/types.h>

#include "harness/faults_table.h"

#define THREADS 3
#define TEXT    512

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct world {
	char folder[TEXT], file[TEXT], here[TEXT], there[TEXT]; /* state folders of both sides */
	const char *idle;             /* seconds without a byte after which both sides give up */
	char address[TEXT], to[TEXT]; /* where the receiver listens; where move is sent to */
	pid_t source, serve;          /* 0: dead, and waited for */
	int serve_fds;                /* that it had when it was idle */
};

extern const char *telefork; /* the command */
extern const char *counter;

/* --- world.c --- */

/* argv[0] is the program; its state folder; output goes to folder/name.out. hold: it waits until a
 * byte comes from there before it begins (-1: it does not). */
pid_t start(const struct world *w, const char *state, const char *name, int hold,
	const char *const *argv);

void world_begin(struct world *w, const char *idle);
void receiver_start(struct world *w); /* again, at the same address */
void world_end(struct world *w);

/* Runs a command to its end. Its exit code. */
int run(const struct world *w, const char *state, const char *name, const char *const *argv);
int await(pid_t pid);

/* The phase of the only move in that side's journal, "" if there is none. */
void phase_of(const char *state, const char *which, char phase[static 16]);

/* The program's processes but for pid that have not ended. *ret_one: one of them. */
int others(const struct world *w, pid_t pid, pid_t *ret_one);

/* proc_pid_stat(5); 0 if there is none. */
char state_of(pid_t pid);

/* What the world has come to, by itself and then by telefork settle: exactly one program goes on,
 * it has counted without a gap or a repetition, and nothing is left elsewhere. "here", "there", or
 * "stopped: here" and "stopped: there" if it took settle. */
const char *verdict(struct world *w);

/* --- strike.c --- */

/* Moves, and kills the party before its n-th system call that matters. False if it made no so many;
 * then the move went well. Notes the phases of both sides at that moment. */
bool strike(struct world *w, enum tf_party party, int n, char phase[2][16], char call[static 32]);

/* --- network.c --- */

enum fault { CUT, SILENT };

/* From the n-th change of direction on (0: the greeting begins) and so many bytes, nothing comes
 * through on that connection. dead: and no other one does either. */
struct plan {
	int turn, bytes;
	enum fault fault;
	bool dead;
};

/* A relay to the receiver: w->to becomes its address. */
void network_start(struct world *w, const struct plan *plan);
bool network_struck(void);
void network_heal(void);
void network_end(void);

#endif
