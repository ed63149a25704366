/* SPDX-License-Identifier: MIT */
/*
 * What people and programs get to see of a run: TAP on standard output as it goes, a table at the
 * end, and a document (JSON, docs/report.schema.json) of which JUnit's XML and the page are made.
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

/* A package of a guest is not the version that is pinned (qemu/guest/inputs.lock). */
void tf_report_input(
	struct tf_report *r, const char *package, const char *version, const char *pinned);

/* A guest has been cloned: how long that took. */
void tf_report_machine(struct tf_report *r, const struct tf_remote *m);

/* All machines that were cloned: how many, and in milliseconds the median and the most until the
 * first answer, and the median of the processor's time. */
struct tf_report_clones {
	size_t n;
	int median_ms, slowest_ms, cpu_ms;
};

struct tf_report_clones tf_report_clones(const struct tf_report *r);

/* How many outcomes had this verdict; those of peers count only where they hold. */
size_t tf_report_count(const struct tf_report *r, enum tf_verdict verdict);

/* The table, to standard error: machine, route, registers, mappings, bytes, time, verdict. */
void tf_report_table(const struct tf_report *r);

/* What the report holds: outcomes in the order in which they came (NULL behind the last), how many
 * were planned, when it began (UTC) and how long ago. */
const struct tf_outcome *tf_report_outcome(const struct tf_report *r, size_t i);
size_t tf_report_planned(const struct tf_report *r);
int64_t tf_report_cpu_ms(
	void); /* user and system, of telebed and all that it started and has ended */
const char *tf_report_started(const struct tf_report *r, int64_t *ret_ms);
uint64_t tf_report_seed(const struct tf_report *r);
json_t *tf_report_inputs(const struct tf_report *r); /* tf_report_input(), borrowed */

void tf_report_free(struct tf_report *r);

/* --- documents: report_json.c, report_junit.c, report_html.c --- */

/* The document of a report, a new reference; @bail is why it ended early, or NULL. NULL without
 * memory. */
json_t *tf_document_of(const struct tf_report *r, const char *bail);

/* Reads a document. -EINVAL, explained: it is none. */
int tf_document_read(const char *path, json_t **ret, struct tf_vm_error *err);

/* Takes the runs and cells of @more into @doc: shards become one. */
void tf_document_merge(json_t *doc, const json_t *more);

/* A copy without what may differ between two runs of the same cells with the same seed: what the
 * schema marks with "volatile". */
json_t *tf_document_stable(const json_t *doc);

/* Writes the document to @path, as its ending says: .xml JUnit, .html the page, else JSON. 0 or a
 * negative errno, explained. */
int tf_document_write(const json_t *doc, const char *path, struct tf_vm_error *err);

/* The two others as text, malloc'ed; NULL without memory. */
char *tf_document_junit(const json_t *doc);
char *tf_document_html(const json_t *doc);

/* The schema, as it stands in docs/. */
extern const char tf_report_schema[];

/* A number of bytes for people, "12.3 MB"; "-" for TF_NOT_COUNTED. */
const char *tf_report_bytes(uint64_t bytes, char buf[static 32]);

#endif
