/* SPDX-License-Identifier: MIT */
/*
 * JUnit's XML, as GitLab reads it and the usual actions for GitHub do: a scenario is a test suite,
 * a cell a test case; a cell of which nothing is known is an error, not a failure. tests/junit.xsd
 * has the format.
 */
#include <inttypes.h>
#include <libxml/xmlwriter.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"

#define X(s) ((const xmlChar *)(s))

static const char *get(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key)) ?: "";
}

static void attribute(xmlTextWriter *w, const char *name, const char *value)
{
	xmlTextWriterWriteAttribute(w, X(name), X(value));
}

static void seconds(xmlTextWriter *w, double ms)
{
	xmlTextWriterWriteFormatAttribute(w, X("time"), "%.3f", ms / 1e3);
}

static double ms_of(const json_t *cell)
{
	return json_number_value(json_object_get(cell, "ms"));
}

static bool verdict_is(const json_t *cell, enum tf_verdict verdict)
{
	return !strcmp(get(cell, "verdict"), tf_verdict_names[verdict]);
}

/* Not run here, or a peer that is only there to be compared with: nobody's failure. */
static bool is_excused(const json_t *cell)
{
	return verdict_is(cell, TF_VERDICT_SKIPPED) ||
	       (!verdict_is(cell, TF_VERDICT_OK) && json_is_true(json_object_get(cell, "peer")));
}

static bool is_error(const json_t *cell)
{
	return verdict_is(cell, TF_VERDICT_BROKEN) && !is_excused(cell);
}

static bool is_failure(const json_t *cell)
{
	return !verdict_is(cell, TF_VERDICT_OK) && !is_error(cell) && !is_excused(cell);
}

static void write_skipped(xmlTextWriter *w, const json_t *cell)
{
	const char *why = get(cell, "why");

	xmlTextWriterStartElement(w, X("skipped"));
	xmlTextWriterWriteFormatAttribute(
		w, X("message"), "%s: %.*s", get(cell, "verdict"), (int)strcspn(why, "\n"), why);
	xmlTextWriterEndElement(w);
}

/* What did not hold: its first line as the message, and all of it, with the way to see it again. */
static void write_failure(xmlTextWriter *w, const json_t *cell)
{
	const char *why = get(cell, "why"), *folder = get(cell, "folder");
	size_t line = strcspn(why, "\n");

	xmlTextWriterStartElement(w, X(is_error(cell) ? "error" : "failure"));
	xmlTextWriterWriteFormatAttribute(w, X("message"), "%.*s", (int)line, why);
	attribute(w, "type", get(cell, "verdict"));
	xmlTextWriterWriteString(w, X(why));
	if (*folder)
		xmlTextWriterWriteFormatString(w, "\n\neverything of it is in %s", folder);
	xmlTextWriterWriteFormatString(
		w, "\n\ntelebed run %s --filter %s\n", get(cell, "file"), get(cell, "name"));
	xmlTextWriterEndElement(w);
}

static void write_cell(xmlTextWriter *w, const json_t *cell)
{
	const char *name = get(cell, "name"), *slash = strchr(name, '/');
	json_int_t again = json_integer_value(json_object_get(cell, "repetition"));

	xmlTextWriterStartElement(w, X("testcase"));
	if (again)
		xmlTextWriterWriteFormatAttribute(
			w, X("name"), "%s, again %d", slash ? slash + 1 : name, (int)again);
	else
		attribute(w, "name", slash ? slash + 1 : name);
	attribute(w, "classname", get(cell, "scenario"));
	attribute(w, "file", get(cell, "file"));
	seconds(w, ms_of(cell));
	if (is_excused(cell))
		write_skipped(w, cell);
	else if (!verdict_is(cell, TF_VERDICT_OK))
		write_failure(w, cell);
	if (*get(cell, "said"))
		xmlTextWriterWriteElement(w, X("system-out"), X(get(cell, "said")));
	xmlTextWriterEndElement(w);
}

struct counts {
	size_t tests, failures, errors, skipped;
	double ms;
};

static void write_counts(xmlTextWriter *w, const struct counts *n)
{
	xmlTextWriterWriteFormatAttribute(w, X("tests"), "%zu", n->tests);
	xmlTextWriterWriteFormatAttribute(w, X("failures"), "%zu", n->failures);
	xmlTextWriterWriteFormatAttribute(w, X("errors"), "%zu", n->errors);
	xmlTextWriterWriteFormatAttribute(w, X("skipped"), "%zu", n->skipped);
	seconds(w, n->ms);
}

static void count(struct counts *n, const json_t *cell)
{
	n->tests++;
	n->failures += is_failure(cell);
	n->errors += is_error(cell);
	n->skipped += is_excused(cell);
	n->ms += ms_of(cell);
}

/* The cells from @first on that are of its scenario; the number behind the last. */
static size_t write_suite(xmlTextWriter *w, const json_t *cells, size_t first)
{
	const char *scenario = get(json_array_get(cells, first), "scenario");
	struct counts n = {0};
	const json_t *cell;
	size_t end = first;

	while ((cell = json_array_get(cells, end)) && !strcmp(get(cell, "scenario"), scenario)) {
		count(&n, cell);
		end++;
	}
	xmlTextWriterStartElement(w, X("testsuite"));
	attribute(w, "name", scenario);
	write_counts(w, &n);
	for (size_t i = first; i < end; i++)
		write_cell(w, json_array_get(cells, i));
	xmlTextWriterEndElement(w);
	return end;
}

/* Cells that were planned and never came: whoever counts green ones must see it. */
static size_t missing(const json_t *doc)
{
	json_int_t planned = json_integer_value(json_object_get(doc, "planned"));
	size_t n = json_array_size(json_object_get(doc, "cells"));

	return planned > (json_int_t)n ? (size_t)planned - n : 0;
}

static const char *bail_of(const json_t *doc)
{
	const json_t *runs = json_object_get(doc, "runs"), *run;
	size_t i;

	json_array_foreach(runs, i, run) if (*get(run, "bail")) return get(run, "bail");
	return "the run ended before them";
}

static void write_missing(xmlTextWriter *w, const json_t *doc, size_t n)
{
	xmlTextWriterStartElement(w, X("testsuite"));
	attribute(w, "name", "telebed");
	write_counts(w, &(struct counts){.tests = 1, .errors = 1});
	xmlTextWriterStartElement(w, X("testcase"));
	xmlTextWriterWriteFormatAttribute(w, X("name"), "%zu cells that were not run", n);
	attribute(w, "classname", "telebed");
	seconds(w, 0);
	xmlTextWriterStartElement(w, X("error"));
	attribute(w, "message", bail_of(doc));
	attribute(w, "type", "broken");
	xmlTextWriterEndElement(w);
	xmlTextWriterEndElement(w);
	xmlTextWriterEndElement(w);
}

static void write_all(xmlTextWriter *w, const json_t *doc)
{
	const json_t *cells = json_object_get(doc, "cells"), *cell;
	size_t absent = missing(doc), i;
	struct counts n = {.tests = absent > 0, .errors = absent > 0};

	json_array_foreach(cells, i, cell)
	{
		count(&n, cell);
	}
	xmlTextWriterStartElement(w, X("testsuites"));
	attribute(w, "name", "telebed");
	write_counts(w, &n);
	for (i = 0; i < json_array_size(cells);)
		i = write_suite(w, cells, i);
	if (absent)
		write_missing(w, doc, absent);
	xmlTextWriterEndElement(w);
}

char *tf_document_junit(const json_t *doc)
{
	xmlBuffer *buffer = xmlBufferCreate();
	xmlTextWriter *w = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL;
	char *out;

	if (w) {
		xmlTextWriterSetIndent(w, 1);
		xmlTextWriterStartDocument(w, NULL, "UTF-8", NULL);
		write_all(w, doc);
		xmlTextWriterEndDocument(w);
		xmlFreeTextWriter(w);
	}
	out = w ? strdup((const char *)xmlBufferContent(buffer)) : NULL;
	xmlBufferFree(buffer);
	return out;
}
