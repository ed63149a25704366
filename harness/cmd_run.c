/* SPDX-License-Identifier: MIT */
/* telebed run and telebed list: scenario files into cells, cells into a report. */
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "harness/command.h"
#include "harness/report.h"
#include "qemu/io.h"

#define SCENARIOS "tests/scenarios"
#define FILTERS   8

struct arguments {
	char **names;
	const char *filter[FILTERS + 1], *out, *json;
	unsigned n_filters;
	bool keep, table, cells;
};

enum {
	KEY_FILTER = 'f',
	KEY_KEEP = 'k',
	KEY_OUT = 'o',
	KEY_JSON = 'j',
	KEY_TABLE = 't',
	KEY_CELLS = 'c'
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_FILTER:
		if (a->n_filters == FILTERS)
			argp_error(state, "more than %d filters", FILTERS);
		else
			a->filter[a->n_filters++] = arg;
		return 0;
	case KEY_KEEP:
		a->keep = true;
		return 0;
	case KEY_OUT:
		a->out = arg;
		return 0;
	case KEY_JSON:
		a->json = arg;
		return 0;
	case KEY_TABLE:
		a->table = true;
		return 0;
	case KEY_CELLS:
		a->cells = true;
		return 0;
	case ARGP_KEY_ARGS:
		a->names = state->argv + state->next;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int is_scenario(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 5 && !strcmp(e->d_name + n - 5, ".conf");
}

/* A name without a slash and .conf is a file of the project's folder. */
static char *path_of(const struct tf_home *p, const char *name)
{
	if (strchr(name, '/') || strstr(name, ".conf"))
		return realpath(name, NULL) ?: strdup(name);
	return tf_vm_format("%s/" SCENARIOS "/%s.conf", p->root, name);
}

typedef void scenario_fn(
	const char *path, const char *help, const struct tf_cells *cells, size_t first);

static int read_one(const struct tf_home *p, const char *name, struct tf_cells *cells,
	scenario_fn *fn, struct tf_vm_error *err)
{
	tf_vm_autofree char *path = path_of(p, name);
	size_t first = cells->n;
	char help[200];
	int rc = path ? tf_scenario_read(path, cells, help, err)
		      : tf_vm_fail(err, -ENOMEM, "no memory");

	if (rc == 0 && fn)
		fn(path, help, cells, first);
	return rc; /* NOLINT(clang-analyzer-unix.Malloc): path is freed by its attribute */
}

/* The scenarios named, or all. */
static int read_all(const struct tf_home *p, char **names, struct tf_cells *cells, scenario_fn *fn,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *folder = tf_vm_format("%s/" SCENARIOS, p->root);
	struct dirent **list = NULL;
	int n, rc = 0;

	for (; names && *names && rc == 0; names++) {
		rc = read_one(p, *names, cells, fn, err);
		if (rc < 0 || names[1] == NULL)
			return rc;
	}
	n = folder ? scandir(folder, &list, is_scenario, alphasort) : -1;
	if (n < 0)
		return tf_vm_fail_errno(err, -errno, "%s", folder);
	for (int i = 0; i < n; i++) {
		*strrchr(list[i]->d_name, '.') = '\0';
		if (rc == 0)
			rc = read_one(p, list[i]->d_name, cells, fn, err);
		free(list[i]);
	}
	free(list);
	return rc;
}

/* The folder of the run: the one asked for, or a new one in /tmp. */
static int make_out(const char *asked, char out[static 4096], struct tf_vm_error *err)
{
	char here[2048];

	if (!asked) {
		snprintf(out, 4096, "/tmp/telebed.XXXXXX");
		return mkdtemp(out) ? 0 : tf_vm_fail_errno(err, -errno, "%s", out);
	}
	if (asked[0] != '/' && !getcwd(here, sizeof(here)))
		return tf_vm_fail_errno(err, -errno, "the current folder");
	snprintf(out, 4096, "%s%s%s", asked[0] == '/' ? "" : here, asked[0] == '/' ? "" : "/",
		asked);
	if (tf_vm_make_dirs(out) < 0 || access(out, W_OK) < 0)
		return tf_vm_fail(err, -EACCES, "%s: cannot be made, or not be written to", out);
	return 0;
}

static int finish(const struct arguments *a, const struct tf_report *report, const char *out,
	int rc, struct tf_vm_error *err)
{
	size_t failed = tf_report_count(report, TF_VERDICT_FAILED);
	size_t broken = tf_report_count(report, TF_VERDICT_BROKEN);
	tf_vm_autofree char *machines = tf_vm_format("%s/machines", out);

	if (rc < 0)
		printf("Bail out! %s\n", err->text);
	if (a->table)
		tf_report_table(report);
	if (a->json && tf_report_json(report, a->json, err) < 0) {
		fprintf(stderr, "telebed: %s\n", err->text);
		broken++;
	}
	printf("# %zu passed, %zu failed, %zu broken\n", tf_report_count(report, TF_VERDICT_OK),
		failed, broken);
	if (!rc && !failed && !broken && !a->keep) {
		tf_vm_remove_dir(machines);
		rmdir(out); /* stays if somebody else has something in it */
	} else {
		printf("# run folder %s\n", out);
	}
	return rc < 0 ? EX_UNAVAILABLE : failed ? 1 : broken ? EX_UNAVAILABLE : 0;
}

static int run(const struct arguments *a, const struct tf_home *home, struct tf_cells *cells)
{
	char out[4096];
	struct tf_run_options o = {
		.root = home->root,
		.variant = home->variant,
		.telebed = home->exe,
		.out = out,
		.keep = a->keep,
	};
	struct tf_report *report;
	struct tf_vm_error err;
	int rc = make_out(a->out, out, &err);

	if (rc < 0) {
		fprintf(stderr, "telebed: %s\n", err.text);
		return EX_CANTCREAT;
	}
	report = tf_report_new(cells->n);
	if (!report)
		return EX_OSERR;
	rc = tf_run_cells(&o, cells, report, &err);
	rc = finish(a, report, out, rc, &err);
	tf_report_free(report);
	return rc;
}

int tf_bed_run(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"filter", KEY_FILTER, "TEXT", 0,
			"Only cells whose name contains TEXT (one of several)", 0},
		{"keep", KEY_KEEP, 0, 0, "Keep the folder of every cell, not only of failed ones",
			0},
		{"out", KEY_OUT, "FOLDER", 0, "Folder for everything (a new one in /tmp)", 0},
		{"table", KEY_TABLE, 0, 0, "Print a table at the end, to standard error", 0},
		{"json", KEY_JSON, "FILE", 0, "Write all outcomes to FILE", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "[SCENARIO...]",
		.doc = "Runs scenarios (names in tests/scenarios, or files; all without one). TAP "
		       "on "
		       "standard output. Exit code: 0 all held, 1 something did not, 69 machines "
		       "or "
		       "harness came to grief."};
	struct arguments a = {0};
	struct tf_cells cells = {0};
	struct tf_home home;
	struct tf_vm_error err;
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	rc = tf_home_find(&home, &err);
	if (rc == 0)
		rc = read_all(&home, a.names, &cells, NULL, &err);
	if (rc == 0 && a.n_filters)
		tf_cells_filter(&cells, a.filter);
	if (rc == 0 && !cells.n)
		rc = tf_vm_fail(&err, -ENOENT, "no cell %s%s (telebed list --cells shows them)",
			a.n_filters ? "has a name with " : "is possible here",
			a.n_filters ? a.filter[0] : "");
	if (rc < 0) {
		fprintf(stderr, "telebed: %s\n", err.text);
		tf_cells_done(&cells);
		return EX_USAGE;
	}
	tf_cells_sort(&cells);
	rc = run(&a, &home, &cells);
	tf_cells_done(&cells);
	return rc;
}

static void show(const char *path, const char *help, const struct tf_cells *cells, size_t first)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): read_one() has a path */
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	const char *dot = strrchr(name, '.');

	printf("%-20.*s %3zu cell%s  %s\n", dot ? (int)(dot - name) : (int)strlen(name), name,
		cells->n - first, cells->n - first == 1 ? " " : "s", help);
}

int tf_bed_list(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"cells", KEY_CELLS, 0, 0, "Show the cells, one a line, with their route", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "[SCENARIO...]",
		.doc = "Shows scenarios: how many cells each has on this host, and what it is "
		       "about."};
	struct arguments a = {0};
	struct tf_cells cells = {0};
	struct tf_home home;
	struct tf_vm_error err;
	char route[256];
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	rc = tf_home_find(&home, &err);
	if (rc == 0)
		rc = read_all(&home, a.names, &cells, a.cells ? NULL : show, &err);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", err.text);
	for (size_t i = 0; i < cells.n && a.cells && rc == 0; i++)
		printf("%s  %s\n", cells.v[i].name,
			tf_cell_route(&cells.v[i], route, sizeof(route)));
	tf_cells_done(&cells);
	return rc < 0 ? EX_USAGE : 0;
}
