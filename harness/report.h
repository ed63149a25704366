/* SPDX-License-Identifier: MIT */
/*
 * What people and programs get to see of a run: TAP on standard output as it goes, a table and JSON
 * at the end.
 */
#ifndef TF_HARNESS_REPORT_H
#define TF_HARNESS_REPORT_H

#include "harness/run.h"

struct tf_report;

/*
 * A report of @total cells; prints the plan, unless the run may @stop before its end. NULL without
 * memory. What follows may be called by several threads at once.
 */
struct tf_report *tf_report_new(size_t total, bool stop, uint64_t seed);

/* The outcome of cell number @at. Its line of TAP comes behind those of the cells before it. What
 * it points to becomes the report's. */
void tf_report_add(struct tf_report *r, size_t at, const struct tf_outcome *o);

/* All threads are done: the lines behind cells that have no outcome, and a plan that is due. */
void tf_report_close(struct tf_report *r);

/* A line that is no outcome. */
void tf_report_note(struct tf_report *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* How many outcomes had this verdict; those of peers count only where they hold. */
size_t tf_report_count(const struct tf_report *r, enum tf_verdict verdict);

/* The table, to standard error: machine, route, registers, mappings, bytes, time, verdict. */
void tf_report_table(const struct tf_report *r);

/* All outcomes as JSON. 0 or a negative errno, explained. */
int tf_report_json(const struct tf_report *r, const char *path, struct tf_vm_error *err);

void tf_report_free(struct tf_report *r);

/* A number of bytes for people, "12.3 MB"; "-" for TF_NOT_COUNTED. */
const char *tf_report_bytes(uint64_t bytes, char buf[static 32]);

#endif
