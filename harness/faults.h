/* SPDX-License-Identifier: MIT */
/*
 * Moves under faults. A campaign has machines with receivers and one program, a counter with
 * threads that notices when it runs twice or loses a step (tests/commit/counter.c). In each step
 * the program is moved on to the next machine while something happens, at a byte of a message of
 * the move; then what docs/commit.md promises is checked: there is one program, it has gone on,
 * what stands stopped is settled by the command that the table there names, and the side without
 * the program holds nothing.
 *
 *   faults.c          the kinds of faults, what a seed makes of a step
 *   faults_world.c    machines, receivers, the program
 *   faults_census.c   what is on a machine
 *   faults_strike.c   a move, and what happens to it
 *   faults_account.c  what became of it, and whether that is right
 */
#ifndef TF_HARNESS_FAULTS_H
#define TF_HARNESS_FAULTS_H

#include "harness/remote.h"

#define TF_CAMPAIGN_MACHINES 4
#define TF_CAMPAIGN_THREADS  3
#define TF_CAMPAIGN_ADDRESS  128

/* X(NAME, "name", tiers, "what happens"). Of tiers: N on the host, S with machines of their own. */
#define TF_FAULTS(X)                                                                             \
	X(NONE, "none", N | S, "nothing but what the link does to everybody")                    \
	X(CUT, "cut", N, "the connection is cut")                                                \
	X(CUT_OFF, "cut-off", N, "it is cut, and nobody answers until all is over")              \
	X(SILENT, "silent", N | S, "nothing more comes through on that connection")              \
	X(SILENCE, "silence", N | S, "nothing more comes through until all is over")             \
	X(PARTITION, "partition", N | S, "nothing comes through for a while")                    \
	X(LINK_DOWN, "link-down", S, "a machine's cable is out for a while")                     \
	X(PAUSE_SENDER, "pause-sender", N | S, "the sender, or its machine, stands for a while") \
	X(PAUSE_RECEIVER, "pause-receiver", N | S, "the receiver, or its machine, stands")       \
	X(KILL_SENDER, "kill-sender", N | S, "telefork move is killed")                          \
	X(KILL_SESSION, "kill-session", N | S, "the receiver's process for this move is killed") \
	X(KILL_RECEIVER, "kill-receiver", N | S, "the whole receiver is killed")                 \
	X(LOSE_SENDER, "lose-sender", S, "the sender's machine is killed")                       \
	X(LOSE_RECEIVER, "lose-receiver", S, "the receiver's machine is killed")                 \
	X(DISK_SENDER, "disk-sender", S, "the sender's disk is full")                            \
	X(DISK_RECEIVER, "disk-receiver", S, "the receiver's disk is full")                      \
	X(MEMORY_SENDER, "memory-sender", S, "the sender's machine has no more memory")          \
	X(MEMORY_RECEIVER, "memory-receiver", S, "the receiver's machine has no more memory")    \
	X(CLOCK_SENDER, "clock-sender", S, "the sender's clock jumps")                           \
	X(CLOCK_RECEIVER, "clock-receiver", S, "the receiver's clock jumps")

enum tf_fault {
#define X(name, text, tiers, help) TF_FAULT_##name,
	TF_FAULTS(X)
#undef X
		TF_FAULT_KINDS,
};

extern const char *const tf_fault_names[TF_FAULT_KINDS];
extern const char *const tf_fault_help[TF_FAULT_KINDS];

/* Whether it can be done to machines of that tier. */
bool tf_fault_possible(enum tf_fault kind, enum tf_tier tier);

#define TF_FAULT_MESSAGES 6 /* greeting, welcome, image, prepared, commit, running */
extern const char *const tf_message_names[TF_FAULT_MESSAGES];

/* One step: what happens, and when. */
struct tf_step {
	enum tf_fault kind;
	struct tf_link_moment moment;
	struct tf_link_faults link; /* to everybody; seed, chances, delays and rate only */
	int hold_ms;                /* what lasts a while: so long */
	int jump_s;                 /* of a clock */
	bool precopy;               /* memory goes in rounds, each of which is a message or two */
};

/* Step number @n of the seed @seed: the same everywhere. @tier says what is possible; @idle_ms is
 * after how long the two sides of a move give each other up. */
void tf_step_draw(struct tf_step *s, uint64_t seed, uint64_t n, enum tf_tier tier, int idle_ms);

/* Makes it a step with pre-copy: what happens may do so in a later message. */
void tf_step_precopy(struct tf_step *s);

/* In words: "kill-session at byte 3 of 'commit', 1.5 % lost". */
const char *tf_step_text(const struct tf_step *s, char *buf, size_t size);

/* --- what is on a machine --- */

struct tf_census_record {
	char id[33], phase[16];
};

struct tf_census {
	pid_t programs[4];
	char states[4]; /* proc_pid_stat(5) */
	unsigned n_programs, sessions, others;
	pid_t session;   /* one of them; not the one that stays with a program that came here */
	bool receiver;   /* it is alive */
	int descriptors; /* of the receiver */
	long memory_kib; /* that it alone has */
	char *files;     /* names, a line each, sorted */
	struct tf_census_record *moves, *arrivals;
	unsigned n_moves, n_arrivals;
};

void tf_census_done(struct tf_census *c);

/* Reads what telebed-hand census said. -EPROTO, -ENOMEM. */
int tf_census_read(struct tf_census *c, char *text, struct tf_vm_error *err);

/* --- a campaign --- */

/* One machine of it. */
struct tf_camp {
	struct tf_remote **remote; /* in whoever's list it stands; replaced when it is lost */
	struct tf_job *serve;      /* NULL: killed */
	unsigned port;
	char address[TF_CAMPAIGN_ADDRESS]; /* where it listens */
	struct tf_link *proxy;             /* natively: what stands before it */
	struct tf_census before;           /* when nothing was there */
	uint64_t read;                     /* bytes of its file that have been accounted for */
};

struct tf_campaign {
	struct tf_site *site;
	const char *folder; /* on the host */
	struct tf_camp places[TF_CAMPAIGN_MACHINES];
	unsigned n;
	enum tf_tier tier;
	int idle_s;
	char file[TF_CAMPAIGN_ADDRESS]; /* what the program writes, on every machine */
	struct tf_job *program;         /* as it was started; NULL: on a machine that is no more */
	struct tf_job *move;            /* of this step; NULL: on a machine that is no more */
	unsigned where;                 /* the place that has it */
	pid_t pid;
	uint32_t next[TF_CAMPAIGN_THREADS]; /* number that comes next */
	uint32_t gap; /* bit n: of thread n, numbers were lost with a machine */
	uint64_t steps, moves, settled, lost, late, lines;
	uint64_t kinds[TF_FAULT_KINDS]; /* steps of each */
	uint64_t doubled, unaccounted;
	char said[1024]; /* by the last telefork move */
};

/* What became of one step. */
struct tf_step_outcome {
	char phase[2][16];   /* here and there, when it happened; "" none */
	int message;         /* the one in which it happened; -1: it did not come to that */
	int code;            /* of telefork move; -1: it was killed */
	const char *verdict; /* "here", "there", "stopped: here", "stopped: there", "lost" */
};

/*
 * Begins with @n machines that stand in a list; machines that are lost are replaced there. They are
 * of one tier, but the first is native where the others are of QEMU user mode: a program cannot be
 * moved from there, so each step has a new one. A negative code: a machine or the harness came to
 * grief. @c has to stay where it is.
 */
int tf_campaign_begin(struct tf_campaign *c, struct tf_site *site, struct tf_remote **machines,
	unsigned n, const char *folder, int idle_s, struct tf_vm_error *err);

/* One step. 1: all held. 0: it did not, explained in err. Negative: came to grief. */
int tf_campaign_step(struct tf_campaign *c, const struct tf_step *s, struct tf_step_outcome *o,
	struct tf_vm_error *err);

/* Its jobs stay: they tell what was said, and end with their machines. */
void tf_campaign_end(struct tf_campaign *c);

/* --- among these files --- */

/* Runs a command on a machine to its end; *@ret_text (or NULL) is its output, *@ret_code as a shell
 * has it. */
int tf_place_run(struct tf_campaign *c, unsigned place, const char *const argv[], char **ret_text,
	int *ret_code, struct tf_vm_error *err);

/* The same of telefork, with the machine's journal: command and arguments, ended by NULL. */
int tf_place_telefork(struct tf_campaign *c, unsigned place, const char *const args[],
	char **ret_text, int *ret_code, struct tf_vm_error *err);
int tf_place_start_telefork(struct tf_campaign *c, unsigned place, const char *const args[],
	struct tf_job **ret, struct tf_vm_error *err);

/* The same of telebed-hand, which has to succeed. */
int tf_place_hand(struct tf_campaign *c, unsigned place, const char *const args[], char **ret_text,
	struct tf_vm_error *err);
int tf_place_start_hand(struct tf_campaign *c, unsigned place, const char *const args[],
	struct tf_job **ret, struct tf_vm_error *err);

int tf_place_census(
	struct tf_campaign *c, unsigned place, struct tf_census *ret, struct tf_vm_error *err);

/* A receiver at the address that it had, or at a new one if it had none. */
int tf_place_serve(struct tf_campaign *c, unsigned place, struct tf_vm_error *err);

/* A machine in the place of one that is lost, with a receiver. */
int tf_place_replace(struct tf_campaign *c, unsigned place, struct tf_vm_error *err);

/* A new program at that place; what was counted before is over. */
int tf_campaign_program(struct tf_campaign *c, unsigned place, struct tf_vm_error *err);

/* The link between two places. */
struct tf_link *tf_campaign_link(struct tf_campaign *c, unsigned to);

/* Milliseconds that something may take that takes a moment. */
int tf_campaign_patience(const struct tf_campaign *c);

/* Moves, and lets it happen. */
int tf_campaign_strike(struct tf_campaign *c, unsigned to, const struct tf_step *s,
	struct tf_step_outcome *o, struct tf_vm_error *err);

/* What it has come to; as tf_campaign_step. */
int tf_campaign_account(struct tf_campaign *c, unsigned to, const struct tf_step *s,
	struct tf_step_outcome *o, struct tf_vm_error *err);

/* Whether docs/commit.md's table has that verdict; *@ret_allowed is what it has. */
bool tf_verdict_allowed(
	const struct tf_step *s, const struct tf_step_outcome *o, const char **ret_allowed);

#endif
