/* SPDX-License-Identifier: MIT */
/* telebed report: what was written of runs, put together and written anew in another form. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "harness/command.h"
#include "harness/report.h"
#include "harness/text.h"
#include "qemu/io.h"

#define FILES 64

struct arguments {
	const char *run[FILES], *out[FILES], *mutants, *torture;
	unsigned n_run, n_out;
	bool stable, schema;
};

enum {
	KEY_RUN = 'r',
	KEY_OUT = 'o',
	KEY_MUTANTS = 'm',
	KEY_TORTURE = 't',
	KEY_STABLE = 's',
	KEY_SCHEMA = 256,
};

static void keep(
	struct argp_state *state, const char *list[static FILES], unsigned *n, const char *arg)
{
	if (*n == FILES)
		argp_error(state, "more than %d files", FILES);
	else
		list[(*n)++] = arg;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_RUN:
	case ARGP_KEY_ARG:
		keep(state, a->run, &a->n_run, arg);
		return 0;
	case KEY_OUT:
		keep(state, a->out, &a->n_out, arg);
		return 0;
	case KEY_MUTANTS:
		a->mutants = arg;
		return 0;
	case KEY_TORTURE:
		a->torture = arg;
		return 0;
	case KEY_STABLE:
		a->stable = true;
		return 0;
	case KEY_SCHEMA:
		a->schema = true;
		return 0;
	case ARGP_KEY_END:
		if (!a->n_run && !a->schema)
			argp_error(state,
				"which run? --run FILE, as telebed run --json FILE wrote it");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* Puts the JSON file @path into @doc as @member. */
static int attach(json_t *doc, const char *member, const char *path, struct tf_vm_error *err)
{
	json_error_t e;
	json_t *value = json_load_file(path, JSON_DECODE_ANY, &e);

	if (!value)
		return tf_vm_fail(err, -EINVAL, "%s:%d: %s", path, e.line > 0 ? e.line : 1, e.text);
	tf_text_clean(value);
	json_object_set_new(doc, member, value);
	return 0;
}

static int read_all(const struct arguments *a, json_t **ret, struct tf_vm_error *err)
{
	json_t *doc = NULL, *more;
	int rc = 0;

	for (unsigned i = 0; i < a->n_run && rc == 0; i++) {
		rc = tf_document_read(a->run[i], &more, err);
		if (rc == 0 && !doc) {
			doc = more;
		} else if (rc == 0) {
			tf_document_merge(doc, more);
			json_decref(more);
		}
	}
	if (rc == 0 && a->mutants)
		rc = attach(doc, "mutants", a->mutants, err);
	if (rc == 0 && a->torture)
		rc = attach(doc, "torture", a->torture, err);
	*ret = doc;
	return rc;
}

/* Without -o JSON goes to standard output. */
static int write_out(const struct arguments *a, const json_t *doc, struct tf_vm_error *err)
{
	int rc = a->n_out ? 0 : tf_document_write(doc, "-", err);

	for (unsigned i = 0; i < a->n_out && rc == 0; i++)
		rc = tf_document_write(doc, a->out[i], err);
	return rc;
}

int tf_bed_report(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"run", KEY_RUN, "FILE", 0,
			"A run, as telebed run --json wrote it; several become one", 0},
		{"mutants", KEY_MUTANTS, "FILE", 0, "JSON about mutants, shown in the page", 0},
		{"torture", KEY_TORTURE, "FILE", 0,
			"JSON about a torture campaign, shown in the page", 0},
		{"output", KEY_OUT, "FILE", 0,
			"Where it goes: .html the page, .xml JUnit, else JSON; may be given several "
			"times",
			0},
		{"stable", KEY_STABLE, 0, 0,
			"Leave out what may differ between two runs with one seed, and compare the rest",
			0},
		{"schema", KEY_SCHEMA, 0, 0, "Print the JSON schema of a report, and end", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "[FILE...]",
		.doc = "Turns the JSON of runs into one page, JUnit's XML, or JSON again."};
	struct arguments a = {0};
	struct tf_vm_error err;
	json_t *doc, *stable;
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	if (a.schema)
		return fputs(tf_report_schema, stdout) < 0 || fflush(stdout) ? EX_IOERR : 0;
	rc = read_all(&a, &doc, &err);
	if (rc == 0 && a.stable) {
		stable = tf_document_stable(doc);
		json_decref(doc);
		doc = stable;
	}
	if (rc == 0)
		rc = write_out(&a, doc, &err);
	json_decref(doc);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", err.text);
	return rc == -EINVAL ? EX_DATAERR : rc < 0 ? EX_IOERR : 0;
}
