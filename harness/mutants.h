/* SPDX-License-Identifier: MIT */
/*
 * Mutants: the testbed's own power to notice. An image of a probe is damaged in one thing at a time
 * (faults.h) and made a process: the probe has to say what is wrong, or nobody would have noticed
 * had a move lost it.
 */
#ifndef TF_HARNESS_MUTANTS_H
#define TF_HARNESS_MUTANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/damage.h"
#include "harness/remote.h"

/* What a probe claims to see. */
struct tf_claim {
	const char *states; /* of faults.h; with a * at its end: all that begin so */
	const char *words;  /* what it then says, alternatives with | between; %s: the register */
	bool ends;          /* or the process ends by a signal: it has lost its legs */
	const char *but;    /* a fault that it does not see */
};

enum tf_subject_way {
	TF_BY_CALL, /* it saves itself, wherever it runs */
	TF_BY_DUMP, /* it is dumped from outside: by a kernel, not under QEMU user mode */
};

/* A probe as it is put to the test. */
struct tf_subject {
	const char *name;
	const char *probe; /* with its build */
	enum tf_subject_way way;
	const char *arch;    /* NULL: any */
	const char *args[4]; /* {dir}: a folder that has a file "file"; {seed}: a number */
	const char *ready;   /* what it says before its pid */
	int wake;            /* the signal that it waits for; 0: it sees itself that it is a copy */
	uint64_t least;      /* of faults.h */
	bool alone;          /* two of it cannot be at once */
	bool elsewhere;      /* as if it came from a machine with other clocks */
	/* For a shell, before the restore: a place where everything is otherwise, or files as they
	 * were. Knows $dir (the machine's) and $pid (of the original); $run: a command that runs
	 * the restore. */
	const char *before;
	const struct tf_claim *claims; /* until one without states */
};

extern const struct tf_subject tf_subjects[];
extern const size_t tf_n_subjects;

/* States without a fault, each with the reason. */
struct tf_excuse {
	const char *states, *why;
};

extern const struct tf_excuse tf_excuses[];
extern const size_t tf_n_excuses;

/* The claim that a state falls under, and a fault if not NULL; NULL: none. */
const struct tf_claim *tf_subject_claim(
	const struct tf_subject *s, const char *state, const char *how);

/* Why a state has no fault, NULL: it has to have one. */
const char *tf_excuse_of(const char *state);

enum tf_mutant_verdict {
	TF_MUTANT_SEEN,     /* the probe said it */
	TF_MUTANT_REFUSED,  /* decoder or receiver said it: no process was made */
	TF_MUTANT_ENDED,    /* the process ended by a signal, as it has to */
	TF_MUTANT_SURVIVED, /* nobody noticed */
	TF_MUTANT_MISNAMED, /* the probe said something else */
	TF_MUTANT_CRASHED,  /* the process ended without a word that belongs to it */
	TF_MUTANT_HUNG,
	TF_MUTANT_VERDICTS,
};

extern const char *const tf_mutant_verdicts[TF_MUTANT_VERDICTS];

/* Whether that counts as caught. */
bool tf_mutant_caught(enum tf_mutant_verdict v);

struct tf_mutant {
	char name[192]; /* ARCH.TIER.SUBJECT.STATE.ITEM.HOW */
	struct tf_damage fault;
	const struct tf_subject *subject;
	const struct tf_claim *claim;
	char arch[16];
	uint64_t order; /* by the seed */
	enum tf_mutant_verdict verdict;
	char said[200];
};

struct tf_mutants {
	struct tf_mutant *v;
	size_t n;
};

struct tf_mutant_options {
	const char *const *filters; /* one of them is in the name; the first NULL: all */
	const char *const *skips;   /* none of them is in the name */
	uint64_t seed;
	unsigned sample; /* mutants of each state and fault of a probe, at most */
	unsigned jobs;   /* restores at a time */
	bool list;       /* run none */
};

/* Tells of a mutant that has been run, or would be. */
typedef void tf_mutant_fn(const struct tf_mutant *m);

/* Runs the mutants of one subject on one architecture, and adds them to all. Machines are made in
 * site and kept in *machine, of which NULL is one to be made. 0, or a negative errno: nothing is
 * known, as where the undamaged image is not right. */
int tf_mutants_run(const struct tf_mutant_options *o, struct tf_site *site,
	struct tf_remote **machine, const struct tf_subject *subject, const char *arch,
	tf_mutant_fn *fn, struct tf_mutants *all, struct tf_vm_error *err);

/* The tier on which a subject is run there. */
enum tf_tier tf_subject_tier(const struct tf_subject *subject, const char *arch);

#endif
