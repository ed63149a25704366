/* SPDX-License-Identifier: MIT */
/*
 * Running cells: machines are started when a cell needs them, kept while the next ones need the
 * same and they are well, and a cell's outcome goes to the report. Several sets of machines at
 * once: one thread has each, and a link of its own.
 */
#ifndef TF_HARNESS_RUN_H
#define TF_HARNESS_RUN_H

#include <jansson.h>

#include "harness/scenario.h"

enum tf_verdict {
	TF_VERDICT_OK,
	TF_VERDICT_FAILED,  /* what was promised does not hold */
	TF_VERDICT_BROKEN,  /* a machine or the harness came to grief: nothing is known */
	TF_VERDICT_SKIPPED, /* its machines cannot be had here */
	TF_VERDICT_UNABLE,  /* the engine says that it cannot */
	TF_VERDICTS,
};

extern const char *const tf_verdict_names[TF_VERDICTS];

#define TF_NOT_COUNTED UINT64_MAX

/* What became of a cell. Counts are TF_NOT_COUNTED where nobody counted. */
struct tf_outcome {
	const struct tf_cell *cell;
	unsigned repetition; /* from 0 */
	enum tf_verdict verdict;
	uint64_t registers, mappings, bytes, lost;
	uint64_t seen_registers, seen_bytes; /* by QEMU, on all machines together */
	char *said;                          /* the probe's own verdict; or NULL */
	char *why;                           /* not ok: what did not hold; several lines; or NULL */
	char *folder;                        /* kept, or NULL */
	json_t *machines, *phases, *differences, *excepted, *stands; /* arrays: evidence.h */
	int ms;       /* of the journey, without the start of machines */
	int ready_ms; /* of the slowest machine */
};

struct tf_run_options {
	const char *root, *variant; /* see struct tf_site */
	const char *out;            /* folder for everything; made, absolute */
	const char *telebed;        /* this program, for repro.sh */
	const char *machines;       /* file of further rows, or NULL */
	const struct tf_home *home;
	bool keep;
	bool record;     /* cells of tier icount */
	bool no_skip;    /* a cell whose machines cannot be had is broken */
	bool until_fail; /* the first that does not hold ends the run */
	unsigned jobs;   /* sets of machines at once */
	unsigned repeat; /* how often every cell is run */
	uint64_t seed;   /* whatever is random in a run follows from it */
};

struct tf_report;

/* In a machine's folder: what receivers there ask for. */
#define TF_TOKEN_FILE "token"

/* One cell under way (journey.c). */
struct tf_journey {
	const struct tf_cell *cell;
	struct tf_remote **machines; /* cell->n_machines */
	struct tf_site *site;
	struct tf_link *relays[TF_CELL_ROUTE]; /* before receivers, where there are faults */
	const struct tf_run_options *options;
	const char *folder; /* of this cell, on the host */
	struct tf_outcome *outcome;
	int64_t deadline_ms;
	uint64_t seed; /* of this cell: tf_cell_seed() */
	char *token;
	unsigned images;                         /* fetched so far: 1.tf, 2.tf … */
	struct tf_job *receivers[TF_CELL_ROUTE]; /* of each place of the route but the first */
	struct tf_job *probe;
	char addresses[TF_CELL_ROUTE][512];
	int64_t began_ns, step_ns; /* CLOCK_REALTIME */
	const char *step;          /* evidence.h */
};

/* Processors that this process may use. */
unsigned tf_run_cores(void);

/* The seed of a cell: of what is random in it. The same in every run of the same seed, whatever
 * other cells that has. */
uint64_t tf_cell_seed(uint64_t run_seed, const char *name, unsigned repetition);

/* Runs all cells, as many times as is asked for, telling the report of each. 0: all were run.
 * Negative: there is no place for what they leave, the rest was not tried. */
int tf_run_cells(const struct tf_run_options *o, const struct tf_cells *cells,
	struct tf_report *report, struct tf_vm_error *err);

/*
 * The journey of one cell. 0: its outcome is in j->outcome (ok or failed). Negative: machines or
 * harness came to grief, explained in err. The jobs stay, for explain.c.
 */
int tf_journey_go(struct tf_journey *j, struct tf_vm_error *err);

/* Marks the cell as failed, with one more line of why. Returns 0. */
int tf_journey_failed(struct tf_journey *j, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* "NAME=SECONDS" for the options of telefork that say how long it waits for the other side: as long
 * as the cell may take, which is what ends the wait of a cell on a busy host. */
const char *tf_journey_patience(
	const struct tf_journey *j, const char *option, char *buf, size_t size);

/* tf_job_wait with the machines and the time of the cell. */
int tf_journey_wait(struct tf_journey *j, struct tf_job *job, int stream, const char *word,
	char **ret_line, struct tf_vm_error *err);

/* A journey of a program that knows nothing of telefork (outside.c); as tf_journey_go. */
int tf_outside_go(struct tf_journey *j, struct tf_vm_error *err);

/* A journey by the hands of an engine (engine.c); as tf_journey_go. */
int tf_engine_go(struct tf_journey *j, struct tf_vm_error *err);

/* The file of the engine @name: in $XDG_CONFIG_HOME/telebed/engines, or the project's. NULL: there
 * is none. */
char *tf_engine_path(const struct tf_run_options *o, const char *name);

/* What the cell's program says where it is left alone: tests/programs/NAME.out. -ENOENT. */
int tf_journey_expected(const struct tf_journey *j, char **ret, struct tf_vm_error *err);

/* The file of the cell's program or probe for the machine @m, on the host. NULL without memory. */
char *tf_journey_program(const struct tf_journey *j, const struct tf_remote *m);

/* SIGUSR1 to process @pid on the machine of @process, which is awaited to its end. */
int tf_journey_tell(
	struct tf_journey *j, struct tf_job *process, pid_t pid, struct tf_vm_error *err);

/* An argument of the cell on @m, "{dir}" replaced. NULL without memory. */
char *tf_journey_argument(const char *arg, const struct tf_remote *m);

/* Starts j->probe on @m: the @n words of @argv, which has room, and the cell's arguments. */
int tf_journey_start(struct tf_journey *j, struct tf_remote *m, const char **argv, size_t n,
	struct tf_vm_error *err);

/* A program that does not end, or ends early, has failed (0); a machine that dies is another matter
 * (@rc). */
int tf_journey_blame(struct tf_journey *j, int rc, const struct tf_vm_error *err);

/* Whether a program that a receiver takes at @place is moved on from outside: its standard input
 * does not end there before. */
bool tf_outside_holds(const struct tf_journey *j, unsigned place);

/* Starts receivers at all places but the first; @once: each takes one process and ends as it does.
 */
int tf_journey_receivers(struct tf_journey *j, bool once, struct tf_vm_error *err);

/* Takes numbers of registers, mappings and bytes out of what a receiver said. */
void tf_journey_count(struct tf_journey *j, const char *text);

/* Puts the files of the cell on @m. */
int tf_journey_put_files(struct tf_journey *j, struct tf_remote *m, struct tf_vm_error *err);

/* The path on the host of @file, a file of the project, for the machine @m. NULL without memory. */
char *tf_journey_file(const struct tf_journey *j, const struct tf_remote *m, const char *file);

/* Puts the program build/ARCH/@folder/@name, of the machine's architecture, on @m as @name. */
int tf_journey_put(struct tf_journey *j, struct tf_remote *m, const char *folder, const char *name,
	struct tf_vm_error *err);

#endif
