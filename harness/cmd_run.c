/* SPDX-License-Identifier: MIT */
/* telebed run and telebed list: scenario files into cells, cells into a report. */
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "harness/command.h"
#include "harness/durations.h"
#include "harness/janitor.h"
#include "harness/report.h"
#include "qemu/io.h"

#define SCENARIOS "tests/scenarios"
#define FILTERS   8
#define REPORTS   8
#define SETS      8
#define JOBS_MAX  16
#define ENDLESS   1000000 /* --until-fail: a run that does not fail is interrupted some day */
#define ANY_SET   "default"

struct arguments {
	char **names;
	const char *filter[FILTERS + 1], *out, *machines, *set[SETS + 1], *report[REPORTS];
	unsigned n_filters, n_sets, n_reports, shard, of, jobs, repeat;
	uint64_t seed;
	bool keep, record, table, cells, until_fail, no_skip, has_seed;
};

enum {
	KEY_FILTER = 'f',
	KEY_KEEP = 'k',
	KEY_OUT = 'o',
	KEY_TABLE = 't',
	KEY_CELLS = 'c',
	KEY_JOBS = 'j',
	KEY_MACHINES = 'm',
	KEY_SET = 's',
	KEY_REPEAT = 'r',
	KEY_RECORD = 'R',
	KEY_REPORT = 256,
	KEY_JSON,
	KEY_SHARD,
	KEY_SEED,
	KEY_UNTIL_FAIL,
	KEY_NO_SKIP,
};

/* Options of run and list alike. */
static const struct argp_option chosen[] = {
	{"filter", KEY_FILTER, "TEXT", 0,
		"Only cells whose name contains TEXT, or is NAME of =NAME (one of several)", 0},
	{"set", KEY_SET, "SET", 0,
		"Without a SCENARIO: those of SET (default; one of several), or \"all\"", 0},
	{"shard", KEY_SHARD, "K/N", 0, "Only part K of N parts that take equally long", 0},
	{"machines", KEY_MACHINES, "FILE", 0, "Further rows of machines", 0},
	{0},
};

static unsigned number(struct argp_state *state, const char *option, const char *arg, unsigned max)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 10);

	if (*end || end == arg || n < 1 || n > max)
		argp_error(state, "--%s %s: expected a number from 1 to %u", option, arg, max);
	return (unsigned)n;
}

static error_t parse_chosen(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	int n = 0;

	switch (key) {
	case KEY_FILTER:
		if (a->n_filters == FILTERS)
			argp_error(state, "more than %d filters", FILTERS);
		else
			a->filter[a->n_filters++] = arg;
		return 0;
	case KEY_SET:
		if (a->n_sets == SETS)
			argp_error(state, "more than %d sets", SETS);
		else
			a->set[a->n_sets++] = arg;
		return 0;
	case KEY_SHARD:
		if (sscanf(arg, "%u/%u%n", &a->shard, &a->of, &n) != 2 || arg[n] || !a->shard ||
			a->shard > a->of || a->of > 1000)
			argp_error(state, "--shard %s: expected K/N, K from 1 to N", arg);
		return 0;
	case KEY_MACHINES:
		a->machines = arg;
		return 0;
	case ARGP_KEY_ARGS:
		a->names = state->argv + state->next;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp argp_chosen = {.options = chosen, .parser = parse_chosen};
static const struct argp_child children[] = {{&argp_chosen, 0, NULL, 0}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	char *end;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = a;
		return 0;
	case KEY_JOBS:
		a->jobs = number(state, "jobs", arg, JOBS_MAX);
		return 0;
	case KEY_REPEAT:
		a->repeat = number(state, "repeat", arg, ENDLESS);
		return 0;
	case KEY_SEED:
		a->seed = strtoull(arg, &end, 0);
		a->has_seed = true;
		if (*end || end == arg)
			argp_error(state, "--seed %s: expected a number", arg);
		return 0;
	case KEY_UNTIL_FAIL:
		a->until_fail = true;
		return 0;
	case KEY_NO_SKIP:
		a->no_skip = true;
		return 0;
	case KEY_KEEP:
		a->keep = true;
		return 0;
	case KEY_RECORD:
		a->record = true;
		return 0;
	case KEY_OUT:
		a->out = arg;
		return 0;
	case KEY_JSON:
	case KEY_REPORT:
		if (a->n_reports == REPORTS)
			argp_error(state, "more than %d reports", REPORTS);
		else
			a->report[a->n_reports++] = arg;
		return 0;
	case KEY_TABLE:
		a->table = true;
		return 0;
	case KEY_CELLS:
		a->cells = true;
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

typedef void scenario_fn(const char *path, const struct tf_scenario_head *head,
	const struct tf_cells *cells, size_t first);

/* What a run or a list is about. */
struct bed {
	struct tf_home home;
	struct tf_rows rows;
	struct tf_cells cells;
	struct tf_vm_error err;
};

static bool is_of(const char *set, const char *const *sets)
{
	for (; *sets; sets++)
		if (!strcmp(*sets, "all") || !strcmp(*sets, set))
			return true;
	return false;
}

/* @sets: the file is passed over unless it belongs to one of them. */
static int read_one(struct bed *b, const char *name, const char *const *sets, scenario_fn *fn)
{
	tf_vm_autofree char *path = path_of(&b->home, name);
	size_t first = b->cells.n;
	struct tf_scenario_head head;
	int rc = path ? tf_scenario_read(path, &b->rows, &b->cells, &head, &b->err)
		      : tf_vm_fail(&b->err, -ENOMEM, "no memory");

	if (rc == 0 && sets && !is_of(head.set, sets))
		tf_cells_cut(&b->cells, first);
	else if (rc == 0 && fn)
		fn(path, &head, &b->cells, first);
	return rc; /* NOLINT(clang-analyzer-unix.Malloc): path is freed by its attribute */
}

/* The scenarios named, or those of the sets, or of @any where none is asked for. */
static int read_all(struct bed *b, const struct arguments *a, const char *any, scenario_fn *fn)
{
	const char *const sets[] = {any, NULL};
	tf_vm_autofree char *folder = NULL;
	struct dirent **list = NULL;
	int n, rc = tf_home_find(&b->home, &b->err);

	if (rc == 0)
		rc = tf_rows_read(&b->rows, a->machines, &b->err);
	for (char **name = a->names; name && *name && rc == 0; name++) {
		rc = read_one(b, *name, NULL, fn);
		if (rc < 0 || name[1] == NULL)
			return rc;
	}
	if (rc < 0)
		return rc;
	folder = tf_vm_format("%s/" SCENARIOS, b->home.root);
	n = folder ? scandir(folder, &list, is_scenario, alphasort) : -1;
	if (n < 0)
		return tf_vm_fail_errno(&b->err, -errno, "%s", folder);
	for (int i = 0; i < n; i++) {
		*strrchr(list[i]->d_name, '.') = '\0';
		if (rc == 0)
			rc = read_one(b, list[i]->d_name, a->n_sets ? a->set : sets, fn);
		free(list[i]);
	}
	free(list);
	return rc;
}

/* What the options leave of the cells, in the order in which they are run. */
static void choose(struct bed *b, const struct arguments *a)
{
	if (a->n_filters)
		tf_cells_filter(&b->cells, a->filter);
	tf_cells_sort(&b->cells);
	if (a->of && b->cells.n)
		tf_cells_shard(&b->cells, a->shard, a->of);
}

static void bed_done(struct bed *b)
{
	tf_cells_done(&b->cells);
	tf_rows_done(&b->rows);
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

/* Each that can be written is. */
static int write_reports(
	const struct arguments *a, const struct tf_report *report, const char *bail)
{
	json_t *doc = tf_document_of(report, bail);
	struct tf_vm_error err;
	int rc = doc ? 0 : -ENOMEM;

	for (unsigned i = 0; doc && i < a->n_reports; i++) {
		int one = tf_document_write(doc, a->report[i], &err);

		if (one < 0)
			fprintf(stderr, "telebed: %s\n", err.text);
		rc = one < 0 ? one : rc;
	}
	json_decref(doc);
	return rc;
}

static void say_counts(const struct tf_report *report)
{
	printf("# %zu passed", tf_report_count(report, TF_VERDICT_OK));
	for (int v = TF_VERDICT_FAILED; v < TF_VERDICTS; v++) {
		size_t n = tf_report_count(report, (enum tf_verdict)v);

		if (n || v <= TF_VERDICT_BROKEN)
			printf(", %zu %s", n, tf_verdict_names[v]);
	}
	putchar('\n');
}

static int finish(const struct arguments *a, struct tf_report *report, const char *out, int rc,
	struct tf_vm_error *err)
{
	size_t failed, broken, skipped, held;
	tf_vm_autofree char *machines = tf_vm_format("%s/machines", out);

	tf_report_close(report);
	tf_durations_keep(report);
	held = tf_report_count(report, TF_VERDICT_OK);
	skipped = tf_report_count(report, TF_VERDICT_SKIPPED);
	/* An engine that cannot what it is here to show has failed. */
	failed = tf_report_count(report, TF_VERDICT_FAILED) +
		 tf_report_count(report, TF_VERDICT_UNABLE);
	broken = tf_report_count(report, TF_VERDICT_BROKEN);
	if (rc < 0)
		printf("Bail out! %s\n", err->text);
	if (a->table)
		tf_report_table(report);
	if (a->n_reports && write_reports(a, report, rc < 0 ? err->text : NULL) < 0)
		broken++;
	say_counts(report);
	if (!rc && !failed && !broken && !a->keep) {
		tf_vm_remove_dir(machines);
		rmdir(out); /* stays if somebody else has something in it */
	} else {
		printf("# run folder %s\n", out);
	}
	if (skipped && !held && !failed) {
		fprintf(stderr, "telebed: no cell could be run here (telebed machines)\n");
		broken++;
	}
	return rc < 0 ? EX_UNAVAILABLE : failed ? 1 : broken ? EX_UNAVAILABLE : 0;
}

static uint64_t draw_seed(void)
{
	uint32_t seed = 1; /* short enough to be typed again */

	(void)!getrandom(&seed, sizeof(seed), 0);
	return seed;
}

static int run(const struct arguments *a, struct bed *b)
{
	char out[4096];
	struct tf_run_options o = {
		.root = b->home.root,
		.variant = b->home.variant,
		.telebed = b->home.exe,
		.home = &b->home,
		.machines = a->machines,
		.out = out,
		.keep = a->keep,
		.record = a->record,
		.no_skip = a->no_skip,
		.until_fail = a->until_fail,
		.jobs = a->jobs ? a->jobs : tf_run_cores(),
		.repeat = a->repeat       ? a->repeat
			  : a->until_fail ? ENDLESS
					  : 1,
		.seed = a->has_seed ? a->seed : draw_seed(),
	};
	struct tf_janitor *janitor = NULL;
	struct tf_report *report;
	int rc = make_out(a->out, out, &b->err);

	if (rc == 0)
		rc = tf_janitor_start(out, TF_JANITOR_CELLS, &janitor, &b->err);
	if (rc < 0) {
		fprintf(stderr, "telebed: %s\n", b->err.text);
		return EX_CANTCREAT;
	}
	if (o.jobs > JOBS_MAX)
		o.jobs = JOBS_MAX;
	tf_durations_recall(&b->cells);
	report = tf_report_new(b->cells.n * o.repeat, o.until_fail, o.seed);
	rc = report ? tf_run_cells(&o, &b->cells, report, &b->err) : -ENOMEM;
	rc = report ? finish(a, report, out, rc, &b->err) : EX_OSERR;
	tf_report_free(report);
	tf_janitor_dismiss(janitor);
	return rc;
}

int tf_bed_run(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"keep", KEY_KEEP, 0, 0, "Keep the folder of every cell, not only of failed ones",
			0},
		{"record", KEY_RECORD, 0, 0, "Record cells of tier icount, for telebed replay", 0},
		{"out", KEY_OUT, "FOLDER", 0, "Folder for everything (a new one in /tmp)", 0},
		{"table", KEY_TABLE, 0, 0, "Print a table at the end, to standard error", 0},
		{"report", KEY_REPORT, "FILE", 0,
			"Write all outcomes to FILE: .html a page, .xml JUnit, else JSON (one of several)",
			0},
		{"json", KEY_JSON, "FILE", OPTION_ALIAS, 0, 0},
		{"jobs", KEY_JOBS, "N", 0, "Sets of machines at once (one for each processor)", 0},
		{"seed", KEY_SEED, "NUMBER", 0,
			"Whatever is random follows from it (drawn, and told)", 0},
		{"repeat", KEY_REPEAT, "N", 0, "Run every cell N times", 0},
		{"until-fail", KEY_UNTIL_FAIL, 0, 0,
			"Run them again and again (N times) until one does not hold", 0},
		{"no-skip", KEY_NO_SKIP, 0, 0,
			"A cell whose machines cannot be had here is not skipped but broken", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.children = children,
		.args_doc = "[SCENARIO...]",
		.doc = "Runs scenarios (names in tests/scenarios, or files). TAP on standard "
		       "output. Exit code: 0 all held, 1 something did not, 69 machines or "
		       "harness came to grief."};
	struct arguments a = {0};
	struct bed b = {0};
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	rc = read_all(&b, &a, ANY_SET, NULL);
	if (rc == 0)
		choose(&b, &a);
	if (rc == 0 && !b.cells.n)
		rc = tf_vm_fail(&b.err, -ENOENT, "no cell %s%s (telebed list --cells shows them)",
			a.n_filters ? "has a name with " : "is possible here",
			a.n_filters ? a.filter[0] : "");
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", b.err.text);
	rc = rc < 0 ? EX_USAGE : run(&a, &b);
	bed_done(&b);
	return rc;
}

static void show(const char *path, const struct tf_scenario_head *head,
	const struct tf_cells *cells, size_t first)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): read_one() has a path */
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	const char *dot = strrchr(name, '.');

	printf("%-20.*s %-8s %3zu cell%s  %s\n", dot ? (int)(dot - name) : (int)strlen(name), name,
		head->set, cells->n - first, cells->n - first == 1 ? " " : "s", head->help);
}

int tf_bed_list(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"cells", KEY_CELLS, 0, 0, "Show the cells, one a line, with their route", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.children = children,
		.args_doc = "[SCENARIO...]",
		.doc = "Shows scenarios: the set that each is in, how many cells it has on this "
		       "host, and what it is about."};
	struct arguments a = {0};
	struct bed b = {0};
	char route[256];
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	rc = read_all(&b, &a, "all", a.cells ? NULL : show);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", b.err.text);
	else if (a.cells)
		choose(&b, &a);
	for (size_t i = 0; i < b.cells.n && a.cells && rc == 0; i++)
		printf("%s  %s\n", b.cells.v[i].name,
			tf_cell_route(&b.cells.v[i], route, sizeof(route)));
	bed_done(&b);
	return rc < 0 ? EX_USAGE : 0;
}
