/* SPDX-License-Identifier: MIT */
/*
 * Scenario files (tests/scenarios/NAME.conf, the schema is in docs/testbed/reference.md): what is
 * to be moved between which machines, and what must hold. Where a file gives a list of
 * alternatives, every combination is a cell of its own. Errors name file, line and what was
 * expected.
 */
#ifndef TF_HARNESS_SCENARIO_H
#define TF_HARNESS_SCENARIO_H

#include "harness/faults_cell.h"
#include "harness/machines.h"

#define TF_CELL_MACHINES 8
#define TF_CELL_ROUTE    16
#define TF_CELL_ARGS     16

#define TF_CHECK_VERDICT 1u /* the probe's own verdict; always made */
#define TF_CHECK_WITNESS 2u /* images taken from outside, of original and copy, are compared */
#define TF_CHECK_ORACLE  4u /* QEMU's view of the machines is compared with the images */

/* Who sends: the program by telefork(), or telefork from outside of a program that does not know.
 */
enum tf_sender {
	TF_SENDER_SELF,
	TF_SENDER_MOVE,
	TF_SENDER_COPY,
};

/* How memory goes from outside: as telefork chooses, all while the process stands, in rounds before
 * it is stopped, or after it runs over there. */
enum tf_mode {
	TF_MODE_USUAL,
	TF_MODE_WHOLE,
	TF_MODE_PRECOPY,
	TF_MODE_LAZY,
	TF_MODES,
};

/* "usual", "whole", "precopy", "lazy". */
extern const char *const tf_mode_names[TF_MODES];

/* One combination: a probe goes one route. */
struct tf_cell {
	char name[192];        /* "hop/hop-static.x86_64.system.tcp": unique, fit for a filter */
	char scenario[64];     /* the file's name without folder and .conf */
	char file[512];        /* the scenario's file */
	char probe[64];        /* or the last part of program */
	char build[16];        /* "static", "pie", "dyn"; of a program: "move", "copy" */
	char *program;         /* of the project, "{arch}" is as in files; NULL: a probe */
	char *refused;         /* what telefork has to say: it may not go; or NULL */
	enum tf_sender sender; /* of a program never itself */
	enum tf_mode mode;     /* if it is not itself */
	char engine[32];       /* whose program takes it along; "": none */
	bool peer;             /* its outcome is reported and fails nothing */
	char *args[TF_CELL_ARGS + 1];  /* of the probe, after the address; owned. "{dir}" in one is
					  the  machine's folder */
	char *files[TF_CELL_ARGS + 1]; /* of the project, to be put beside the probe; owned.
					  "{arch}" in one is the machine's architecture */
	char *fetch[TF_CELL_ARGS + 1]; /* files that the probe leaves there, to be kept; owned */
	char arch[16];                 /* of the first machine of the route */
	enum tf_transport transport;
	unsigned checks; /* TF_CHECK_* */
	struct tf_cell_faults faults;
	int limit_ms; /* before scaling */
	int takes_ms; /* as a rule; only a progress bar goes by it */
	unsigned n_machines, n_route;
	char machine_names[TF_CELL_MACHINES][32];
	struct tf_spec machines[TF_CELL_MACHINES];
	unsigned char route[TF_CELL_ROUTE]; /* indexes into machines */
	bool fan_out; /* from the first of the route to all others, not from one to the next */
};

/* Cells of one or several files. Zero-initialise; release with tf_cells_done. */
struct tf_cells {
	struct tf_cell *v;
	size_t n, cap;
};

/* What a file says of itself. */
struct tf_scenario_head {
	char help[200]; /* one line */
	char set[32];   /* of scenarios */
};

/* Reads the file @path and appends its cells; machines are named by @rows. @head is filled in.
 * Cells that cannot exist on this host (native machines of another architecture) are left out.
 * -EINVAL for what the schema does not allow, -ENOENT. */
int tf_scenario_read(const char *path, const struct tf_rows *rows, struct tf_cells *cells,
	struct tf_scenario_head *head, struct tf_vm_error *err);

/* The keys of a scenario's file, for the reference: rows of Markdown. */
void tf_scenario_schema(FILE *out);

/* The cells whose machines are alike come together, so that machines are started once. */
void tf_cells_sort(struct tf_cells *cells);

/* Drops the cells whose name contains none of @texts, which end with NULL; "=TEXT" is a whole name.
 */
void tf_cells_filter(struct tf_cells *cells, const char *const *texts);

/* Keeps part @shard of @of (1 to @of): every cell is in one part, whole groups of machines stay
 * together where they can, and the parts take about as long as each other. Of sorted cells. */
void tf_cells_shard(struct tf_cells *cells, unsigned shard, unsigned of);

/* Drops the cells from number @first on. */
void tf_cells_cut(struct tf_cells *cells, size_t first);

void tf_cells_done(struct tf_cells *cells);

/* "A -> B -> A", or "A -> B, C" of a fan-out. */
const char *tf_cell_route(const struct tf_cell *cell, char *buf, size_t size);

#endif
