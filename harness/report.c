/* SPDX-License-Identifier: MIT */
/* Outcomes, and TAP and the table of them. */
#include "harness/report.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "harness/progress.h"
#include "qemu/io.h"

struct tf_report {
	pthread_mutex_t lock;
	size_t total, n; /* n: outcomes so far; once closed, v[0] to v[n - 1] */
	size_t printed;  /* of v, from the first */
	uint64_t seed;
	bool plan_due;
	char started[32];
	int64_t start_ms;
	struct tf_outcome *v; /* total; those without a cell are not there yet */
	json_t *inputs;       /* that are not what is pinned */
	int *clones_ms[2];    /* until their first answer; of that, at work */
	size_t n_clones;
};

const char *const tf_verdict_names[TF_VERDICTS] = {"ok", "failed", "broken", "skipped", "unable"};

struct tf_report *tf_report_new(size_t total, bool stop, uint64_t seed)
{
	struct tf_report *r = calloc(1, sizeof(*r));
	time_t now = time(NULL);

	if (!r)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	r->total = total;
	r->seed = seed;
	r->plan_due = stop;
	r->v = calloc(total ? total : 1, sizeof(*r->v));
	r->inputs = json_array();
	if (!r->v || !r->inputs) {
		tf_report_free(r);
		return NULL;
	}
	r->start_ms = tf_vm_now_ms();
	strftime(r->started, sizeof(r->started), "%FT%TZ", gmtime(&now));
	printf("TAP version 13\n");
	if (!stop)
		printf("1..%zu\n", total);
	printf("# seed %" PRIu64 "\n", seed);
	fflush(stdout);
	return r;
}

const char *tf_report_bytes(uint64_t bytes, char buf[static 32])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	double value = (double)bytes;
	unsigned u = 0;

	if (bytes == TF_NOT_COUNTED)
		return "-";
	while (value >= 1000 && u < 4) {
		value /= 1000;
		u++;
	}
	snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", value, units[u]);
	return buf;
}

static const char *number(uint64_t n, char buf[static 32])
{
	if (n == TF_NOT_COUNTED)
		return "-";
	snprintf(buf, 32, "%" PRIu64, n);
	return buf;
}

/* Every line of a text that may have several, as a comment. */
static void print_comment(const char *text)
{
	for (const char *line = text, *end; *line; line = *end ? end + 1 : end) {
		end = strchrnul(line, '\n');
		printf("# %.*s\n", (int)(end - line), line);
	}
}

void tf_report_note(struct tf_report *r, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&r->lock);
	tf_progress_hide();
	print_comment(text);
	fflush(stdout);
	tf_progress_show();
	pthread_mutex_unlock(&r->lock);
}

void tf_report_input(
	struct tf_report *r, const char *package, const char *version, const char *pinned)
{
	tf_report_note(r, "input %s is %s, not the pinned %s", package, version, pinned);
	json_array_append_new(r->inputs, json_pack("{s:s, s:s, s:s}", "package", package, "version",
						 version, "pinned", pinned));
}

void tf_report_machine(struct tf_report *r, const struct tf_remote *m)
{
	const int ms[2] = {m->ready_ms, m->ready_cpu_ms};
	bool kept = true;

	tf_report_note(r, "%s: %s machine, answered after %d ms, %d of them at work", m->name,
		m->spec.arch, ms[0], ms[1]);
	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < 2; i++) {
		int *more = realloc(r->clones_ms[i], (r->n_clones + 1) * sizeof(*more));

		kept = kept && more;
		if (more)
			r->clones_ms[i] = more;
		if (more)
			more[r->n_clones] = ms[i];
	}
	r->n_clones += kept;
	pthread_mutex_unlock(&r->lock);
}

static int by_size(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

struct tf_report_clones tf_report_clones(const struct tf_report *r)
{
	struct tf_report_clones all = {.n = r->n_clones};

	if (!all.n)
		return all;
	for (unsigned i = 0; i < 2; i++)
		qsort(r->clones_ms[i], all.n, sizeof(int), by_size);
	all.median_ms = r->clones_ms[0][all.n / 2];
	all.slowest_ms = r->clones_ms[0][all.n - 1];
	all.cpu_ms = r->clones_ms[1][all.n / 2];
	return all;
}

int64_t tf_report_cpu_ms(void)
{
	static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
	struct rusage u;
	int64_t us = 0;

	for (unsigned i = 0; i < 2; i++)
		if (getrusage(whose[i], &u) == 0)
			us += (int64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
			      u.ru_utime.tv_usec + u.ru_stime.tv_usec;
	return us / 1000;
}

static void print_counts(const struct tf_outcome *o)
{
	const struct {
		uint64_t n;
		const char *what;
	} counts[] = {
		{o->registers, "registers"},
		{o->mappings, "mappings"},
		{o->bytes, "bytes"},
		{o->lost, "lost"},
		{o->seen_registers, "registers seen by QEMU"},
		{o->seen_bytes, "bytes seen by QEMU"},
	};
	const char *separator = ": ";

	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		if (counts[i].n == TF_NOT_COUNTED)
			continue;
		printf("%s%" PRIu64 " %s", separator, counts[i].n, counts[i].what);
		separator = ", ";
	}
}

/* The first line of a text, without what would begin a directive of TAP. */
static void print_directive(const char *word, const char *why)
{
	printf(" # %s %.*s", word, why ? (int)strcspn(why, "\n") : 0, why ? why : "");
}

static void print(size_t number, const struct tf_outcome *o)
{
	bool holds = o->verdict == TF_VERDICT_OK || o->verdict == TF_VERDICT_SKIPPED;
	char route[256], again[32] = "";

	if (o->repetition)
		snprintf(again, sizeof(again), ", again %u", o->repetition);
	printf("%s %zu - %s %s%s", holds ? "ok" : "not ok", number, o->cell->name,
		tf_cell_route(o->cell, route, sizeof(route)), again);
	if (o->verdict == TF_VERDICT_SKIPPED) {
		print_directive("SKIP", o->why);
		putchar('\n');
		return;
	}
	print_counts(o);
	printf(" in %.2f s", o->ms / 1e3);
	if (!holds && o->cell->peer)
		print_directive("TODO", o->why);
	putchar('\n');
	if (o->verdict == TF_VERDICT_BROKEN)
		printf("# nothing is known of this one: machine or harness came to grief\n");
	if (o->why)
		print_comment(o->why);
	else if (o->said && o->cell->fetch[0])
		print_comment(o->said);
	if (o->folder)
		printf("# everything of it is in %s\n", o->folder);
}

void tf_report_add(struct tf_report *r, size_t at, const struct tf_outcome *o)
{
	pthread_mutex_lock(&r->lock);
	r->v[at] = *o;
	r->n++;
	tf_progress_hide();
	for (; r->printed < r->total && r->v[r->printed].cell; r->printed++)
		print(r->printed + 1, &r->v[r->printed]);
	fflush(stdout);
	tf_progress_show();
	pthread_mutex_unlock(&r->lock);
}

/* What the run took, of time and of the processors. */
static void print_effort(const struct tf_report *r)
{
	struct tf_report_clones clones = tf_report_clones(r);

	if (clones.n)
		printf("# %zu machines cloned: the median answered after %d ms, the slowest after %d ms; "
		       "%d ms of a processor for each\n",
			clones.n, clones.median_ms, clones.slowest_ms, clones.cpu_ms);
	printf("# %.1f s, in which the processors worked for %.1f s\n",
		(double)(tf_vm_now_ms() - r->start_ms) / 1e3, (double)tf_report_cpu_ms() / 1e3);
}

void tf_report_close(struct tf_report *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->total; i++) {
		if (!r->v[i].cell)
			continue;
		if (i >= r->printed)
			print(n + 1, &r->v[i]);
		r->v[n++] = r->v[i];
	}
	if (r->plan_due)
		printf("1..%zu\n", n);
	print_effort(r);
	fflush(stdout);
}

size_t tf_report_count(const struct tf_report *r, enum tf_verdict verdict)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += r->v[i].verdict == verdict &&
		     (!r->v[i].cell->peer ||
			     (verdict != TF_VERDICT_FAILED && verdict != TF_VERDICT_UNABLE));
	return n;
}

void tf_report_table(const struct tf_report *r)
{
	static const char format[] = "%-16s %-26s %-14s %-5s %9s %8s %10s %8s %7s  %s\n";

	fprintf(stderr, format, "machine", "probe", "route", "by", "registers", "mappings", "bytes",
		"lost", "time", "verdict");
	for (size_t i = 0; i < r->n; i++) {
		const struct tf_outcome *o = &r->v[i];
		const struct tf_cell *c = o->cell;
		char machine[64], probe[96], route[128], regs[32], maps[32], bytes[32], lost[32],
			time[32];

		snprintf(machine, sizeof(machine), "%s %s", c->arch,
			tf_tier_names[c->machines[c->route[0]].tier]);
		snprintf(probe, sizeof(probe), "%s-%s", c->probe, c->build);
		snprintf(time, sizeof(time), "%.2f s", o->ms / 1e3);
		fprintf(stderr, format, machine, probe, tf_cell_route(c, route, sizeof(route)),
			tf_transport_names[c->transport], number(o->registers, regs),
			number(o->mappings, maps), tf_report_bytes(o->bytes, bytes),
			number(o->lost, lost), time, tf_verdict_names[o->verdict]);
	}
}

const struct tf_outcome *tf_report_outcome(const struct tf_report *r, size_t i)
{
	return i < r->n ? &r->v[i] : NULL;
}

size_t tf_report_planned(const struct tf_report *r)
{
	return r->plan_due ? r->n : r->total;
}

json_t *tf_report_inputs(const struct tf_report *r)
{
	return r->inputs;
}

uint64_t tf_report_seed(const struct tf_report *r)
{
	return r->seed;
}

const char *tf_report_started(const struct tf_report *r, int64_t *ret_ms)
{
	*ret_ms = tf_vm_now_ms() - r->start_ms;
	return r->started;
}

void tf_report_free(struct tf_report *r)
{
	for (size_t i = 0; r && r->v && i < r->n; i++) {
		free(r->v[i].said);
		free(r->v[i].why);
		free(r->v[i].folder);
		json_decref(r->v[i].machines);
		json_decref(r->v[i].phases);
		json_decref(r->v[i].differences);
		json_decref(r->v[i].excepted);
		json_decref(r->v[i].stands);
	}
	if (r) {
		free(r->v);
		free(r->clones_ms[0]);
		free(r->clones_ms[1]);
		json_decref(r->inputs);
	}
	free(r);
}
