/* SPDX-License-Identifier: MIT */
/* TAP, table and JSON from the same outcomes. */
#include "harness/report.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/io.h"

struct tf_report {
	size_t total, n;
	struct tf_outcome *v; /* total */
};

const char *const tf_verdict_names[TF_VERDICTS] = {"ok", "failed", "broken"};

struct tf_report *tf_report_new(size_t total)
{
	struct tf_report *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->total = total;
	r->v = calloc(total ? total : 1, sizeof(*r->v));
	if (!r->v) {
		free(r);
		return NULL;
	}
	printf("TAP version 13\n1..%zu\n", total);
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

	(void)r;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	print_comment(text);
	fflush(stdout);
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

void tf_report_add(struct tf_report *r, const struct tf_outcome *o)
{
	char route[256];

	r->v[r->n++] = *o;
	printf("%s %zu - %s %s", o->verdict == TF_VERDICT_OK ? "ok" : "not ok", r->n, o->cell->name,
		tf_cell_route(o->cell, route, sizeof(route)));
	print_counts(o);
	printf(" in %.2f s\n", o->ms / 1e3);
	if (o->verdict == TF_VERDICT_BROKEN)
		printf("# nothing is known of this one: machine or harness came to grief\n");
	if (o->why)
		print_comment(o->why);
	else if (o->said && o->cell->fetch[0])
		print_comment(o->said);
	if (o->folder)
		printf("# everything of it is in %s\n", o->folder);
	fflush(stdout);
}

size_t tf_report_count(const struct tf_report *r, enum tf_verdict verdict)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += r->v[i].verdict == verdict;
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

static json_t *json_count(uint64_t n)
{
	return n == TF_NOT_COUNTED ? json_null() : json_integer((json_int_t)n);
}

static json_t *json_text(const char *s)
{
	json_t *j = s ? json_string(s) : NULL;

	/* What a probe says may be no UTF-8; then its length is all that can be told. */
	return j ? j : s ? json_sprintf("(%zu bytes)", strlen(s)) : json_null();
}

static json_t *json_outcome(const struct tf_outcome *o)
{
	const struct tf_cell *c = o->cell;
	json_t *route = json_array();

	for (unsigned i = 0; i < c->n_route; i++)
		json_array_append_new(route, json_string(c->machine_names[c->route[i]]));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, "
			 "s:o, s:i, s:i, s:o, s:o, s:o}",
		"name", c->name, "scenario", c->scenario, "probe", c->probe, "build", c->build,
		"arch", c->arch, "tier", tf_tier_names[c->machines[c->route[0]].tier], "transport",
		tf_transport_names[c->transport], "route", route, "verdict",
		tf_verdict_names[o->verdict], "registers", json_count(o->registers), "mappings",
		json_count(o->mappings), "bytes", json_count(o->bytes), "lost", json_count(o->lost),
		"seen_registers", json_count(o->seen_registers), "seen_bytes",
		json_count(o->seen_bytes), "ms", o->ms, "ready_ms", o->ready_ms, "said",
		json_text(o->said), "why", json_text(o->why), "folder", json_text(o->folder));
}

int tf_report_json(const struct tf_report *r, const char *path, struct tf_vm_error *err)
{
	json_t *cells = json_array(), *all;
	tf_vm_autofree char *text = NULL;

	for (size_t i = 0; i < r->n; i++)
		json_array_append_new(cells, json_outcome(&r->v[i]));
	all = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "version", TF_VERSION, "planned",
		(json_int_t)r->total, "passed", (json_int_t)tf_report_count(r, TF_VERDICT_OK),
		"failed", (json_int_t)tf_report_count(r, TF_VERDICT_FAILED), "broken",
		(json_int_t)tf_report_count(r, TF_VERDICT_BROKEN), "cells", cells);
	text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
	json_decref(all);
	return text ? tf_vm_write_file(path, text, strlen(text), err)
		    : tf_vm_fail(err, -ENOMEM, "no memory for %s", path);
}

void tf_report_free(struct tf_report *r)
{
	for (size_t i = 0; r && i < r->n; i++) {
		free(r->v[i].said);
		free(r->v[i].why);
		free(r->v[i].folder);
	}
	if (r)
		free(r->v);
	free(r);
}
