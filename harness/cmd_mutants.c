/* SPDX-License-Identifier: MIT */
/* telebed mutants: deliberate faults in transit, and which of them the probes see. */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "harness/command.h"
#include "harness/janitor.h"
#include "harness/mutants.h"
#include "qemu/io.h"
#include "qemu/machine.h"
#include "qemu/template.h"

#define FILTERS 8
#define ARCHES  2

static const char *const arches[ARCHES] = {"x86_64", "aarch64"};

struct arguments {
	const char *arch, *json, *filter[FILTERS + 1], *skip[FILTERS + 1];
	unsigned n_filters, n_skips;
	struct tf_mutant_options o;
};

enum {
	KEY_ARCH = 'a',
	KEY_FILTER = 'f',
	KEY_SKIP = 'x',
	KEY_SEED = 's',
	KEY_LIST = 'l',
	KEY_JSON = 'o',
	KEY_JOBS = 'j',
	KEY_SAMPLE = 'n'
};

static unsigned number(const char *arg, const char *what, unsigned most, struct argp_state *state)
{
	char *end;
	unsigned long v = strtoul(arg, &end, 10);

	if (*end || end == arg || !v || v > most)
		argp_error(state, "%s %s: a number from 1 to %u", what, arg, most);
	return (unsigned)v;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	char *end;

	switch (key) {
	case KEY_ARCH:
		if (strcmp(arg, arches[0]) != 0 && strcmp(arg, arches[1]) != 0)
			argp_error(state, "--arch %s: x86_64 or aarch64", arg);
		a->arch = arg;
		return 0;
	case KEY_FILTER:
		if (a->n_filters == FILTERS)
			argp_error(state, "more than %d filters", FILTERS);
		else
			a->filter[a->n_filters++] = arg;
		return 0;
	case KEY_SKIP:
		if (a->n_skips == FILTERS)
			argp_error(state, "more than %d to skip", FILTERS);
		else
			a->skip[a->n_skips++] = arg;
		return 0;
	case KEY_SEED:
		a->o.seed = strtoull(arg, &end, 10);
		if (*end || end == arg)
			argp_error(state, "--seed %s: a number", arg);
		return 0;
	case KEY_SAMPLE:
		a->o.sample = number(arg, "--sample", 1000000, state);
		return 0;
	case KEY_JOBS:
		a->o.jobs = number(arg, "--jobs", 16, state);
		return 0;
	case KEY_LIST:
		a->o.list = true;
		return 0;
	case KEY_JSON:
		a->json = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* --- what is told --- */

static void show(const struct tf_mutant *m)
{
	printf("%-9s %s%s%s\n", tf_mutant_verdicts[m->verdict], m->name, *m->said ? ": " : "",
		m->said);
	fflush(stdout);
}

static void show_name(const struct tf_mutant *m)
{
	printf("%s\n", m->name);
}

/* How many of the mutants of an architecture (and a state, if not NULL) have this verdict;
 * TF_MUTANT_VERDICTS: were caught. */
static size_t count(
	const struct tf_mutants *all, const char *arch, const char *state, unsigned verdict)
{
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		if (!strcmp(all->v[i].arch, arch) &&
			(!state || !strcmp(all->v[i].fault.state, state)) &&
			(verdict == TF_MUTANT_VERDICTS ? tf_mutant_caught(all->v[i].verdict)
						       : all->v[i].verdict == verdict))
			n++;
	return n;
}

static size_t total(const struct tf_mutants *all, const char *arch, const char *state)
{
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		n += !strcmp(all->v[i].arch, arch) &&
		     (!state || !strcmp(all->v[i].fault.state, state));
	return n;
}

struct table {
	const struct tf_mutants *all;
	json_t *json; /* NULL: print */
};

static void show_state(void *ctx, const char *state)
{
	const struct table *t = ctx;
	char cell[ARCHES][32];
	size_t any = 0;

	for (unsigned a = 0; a < ARCHES; a++) {
		size_t n = total(t->all, arches[a], state);
		size_t caught = count(t->all, arches[a], state, TF_MUTANT_VERDICTS);

		any += n;
		snprintf(cell[a], sizeof(cell[a]), "%zu/%zu", caught, n);
		if (t->json && n)
			json_array_append_new(t->json,
				json_pack("{s:s, s:s, s:I, s:I}", "arch", arches[a], "state", state,
					"caught", (json_int_t)caught, "total", (json_int_t)n));
	}
	if (any && !t->json)
		printf("  %-32s %9s %9s\n", state, cell[0], cell[1]);
}

static void show_table(const struct tf_mutants *all)
{
	struct table t = {all, NULL};

	printf("  %-32s %9s %9s\n", "caught/total", arches[0], arches[1]);
	tf_damage_states(show_state, &t);
	for (unsigned a = 0; a < ARCHES; a++) {
		size_t n = total(all, arches[a], NULL);

		if (n)
			printf("%s: caught %zu of %zu (%zu by the probe, %zu refused, %zu by their "
			       "end)\n",
				arches[a], count(all, arches[a], NULL, TF_MUTANT_VERDICTS), n,
				count(all, arches[a], NULL, TF_MUTANT_SEEN),
				count(all, arches[a], NULL, TF_MUTANT_REFUSED),
				count(all, arches[a], NULL, TF_MUTANT_ENDED));
	}
}

static int write_json(
	const struct arguments *a, const struct tf_mutants *all, struct tf_vm_error *err)
{
	json_t *states = json_array(), *mutants = json_array(), *top = json_array(), *root;
	struct table t = {all, states};
	tf_vm_autofree char *text = NULL;

	tf_damage_states(show_state, &t);
	for (unsigned i = 0; i < ARCHES; i++)
		if (total(all, arches[i], NULL))
			json_array_append_new(top,
				json_pack("{s:s, s:I, s:I}", "arch", arches[i], "caught",
					(json_int_t)count(all, arches[i], NULL, TF_MUTANT_VERDICTS),
					"total", (json_int_t)total(all, arches[i], NULL)));
	for (size_t i = 0; i < all->n; i++) {
		const struct tf_mutant *m = &all->v[i];

		json_array_append_new(mutants,
			json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "name", m->name, "arch",
				m->arch, "subject", m->subject->name, "state", m->fault.state,
				"verdict", tf_mutant_caught(m->verdict) ? "caught" : "survived",
				"how", tf_mutant_verdicts[m->verdict], "said", m->said));
	}
	root = json_pack("{s:s, s:I, s:o, s:o, s:o}", "version", TF_VERSION, "seed",
		(json_int_t)a->o.seed, "arches", top, "states", states, "mutants", mutants);
	text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
	json_decref(root);
	return text ? tf_vm_write_file(a->json, text, strlen(text), err)
		    : tf_vm_fail(err, -ENOMEM, "no memory for %s", a->json);
}

/* --- all of it --- */

static void check_state(void *ctx, const char *state)
{
	struct tf_vm_error *err = ctx, before = *err;
	bool claimed = tf_excuse_of(state) != NULL;

	for (size_t i = 0; i < tf_n_subjects && !claimed; i++)
		claimed = tf_subject_claim(&tf_subjects[i], state, NULL) != NULL;
	if (!claimed)
		tf_vm_fail(err, -EINVAL, "%.900s%s%s", before.text,
			*before.text ? ", " : "no probe claims to see ", state);
}

/* Whether the filters can mean something of that. */
static bool concerns(const struct arguments *a, const struct tf_subject *s, const char *arch)
{
	char prefix[96];

	if ((a->arch && strcmp(a->arch, arch) != 0) || (s->arch && strcmp(s->arch, arch) != 0))
		return false;
	snprintf(prefix, sizeof(prefix), "%s.%s.%s.", arch, tf_tier_names[tf_subject_tier(s, arch)],
		s->name);
	for (unsigned i = 0; i < a->n_skips; i++)
		if (strstr(prefix, a->skip[i]))
			return false;
	for (unsigned i = 0; i < a->n_filters; i++) {
		size_t n = strlen(prefix), m = strlen(a->filter[i]);

		if (strstr(prefix, a->filter[i]) || !strncmp(prefix, a->filter[i], n < m ? n : m))
			return true;
		/* Of another architecture, tier or subject. */
		if (strncmp(a->filter[i], arches[0], strlen(arches[0])) != 0 &&
			strncmp(a->filter[i], arches[1], strlen(arches[1])) != 0)
			return true;
	}
	return !a->n_filters;
}

static int run_arch(const struct arguments *a, struct tf_site *site, const char *arch,
	struct tf_mutants *all, struct tf_vm_error *err)
{
	struct tf_remote *machine[TF_TIERS] = {NULL};
	int rc = 0, broken = 0;

	for (size_t i = 0; i < tf_n_subjects && rc == 0; i++) {
		const struct tf_subject *s = &tf_subjects[i];

		if (!concerns(a, s, arch))
			continue;
		rc = tf_mutants_run(&a->o, site, &machine[tf_subject_tier(s, arch)], s, arch,
			a->o.list ? show_name : show, all, err);
		/* A probe that is not right even so: nothing is known of it, but of the others. */
		if (rc == -EPROTO) {
			printf("BROKEN    %s.%s: %s\n", arch, s->name, err->text);
			broken = rc;
			rc = 0;
		}
	}
	for (unsigned t = 0; t < TF_TIERS; t++)
		tf_remote_free(machine[t]);
	return rc ? rc : broken;
}

static int run(const struct arguments *a, struct tf_mutants *all, struct tf_vm_error *err)
{
	char folder[] = "/tmp/telebed.XXXXXX";
	struct tf_home home;
	struct tf_site site = {.folder = folder};
	struct tf_janitor *janitor = NULL;
	int rc = tf_home_find(&home, err);

	site.root = home.root;
	site.variant = home.variant;
	if (rc == 0)
		rc = tf_vm_cachedir(site.cache, sizeof(site.cache), err);
	if (rc == 0 && !mkdtemp(folder))
		rc = tf_vm_fail_errno(err, -errno, "%s", folder);
	if (rc == 0)
		rc = tf_janitor_start(folder, TF_JANITOR_OURS, &janitor, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < ARCHES && (rc == 0 || rc == -EPROTO); i++) {
		int of_this = run_arch(a, &site, arches[i], all, err);

		rc = of_this ? of_this : rc;
	}
	tf_site_done(&site);
	tf_vm_remove_dir(folder);
	tf_janitor_dismiss(janitor);
	return rc;
}

int tf_bed_mutants(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"arch", KEY_ARCH, "ARCH", 0, "Only of x86_64, or of aarch64", 0},
		{"filter", KEY_FILTER, "TEXT", 0,
			"Only mutants whose name contains TEXT (one of several)", 0},
		{"skip", KEY_SKIP, "TEXT", 0, "None whose name contains TEXT", 0},
		{"seed", KEY_SEED, "N", 0, "Which of many, and which bits (1)", 0},
		{"sample", KEY_SAMPLE, "N", 0,
			"At most N of each state and fault, for each probe (2)", 0},
		{"jobs", KEY_JOBS, "N", 0, "N at a time (2)", 0},
		{"list", KEY_LIST, 0, 0, "Show their names, run none", 0},
		{"json", KEY_JSON, "FILE", 0, "Write all of it to FILE", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.doc = "Damages images of probes in one thing at a time, and has the probes say "
		       "what is wrong. Exit code: 0 every mutant was caught, 1 one was not, 69 "
		       "machines or probes came to grief."};
	struct arguments a = {.o = {.seed = 1, .sample = 2, .jobs = 2}};
	struct tf_mutants all = {0};
	struct tf_vm_error err = {0};
	size_t caught = 0;
	int rc;

	a.o.filters = a.filter;
	a.o.skips = a.skip;
	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	tf_damage_states(check_state, &err);
	rc = *err.text ? -EINVAL : run(&a, &all, &err);
	if (!a.o.list && all.n)
		show_table(&all);
	if (rc == 0 && a.json)
		rc = write_json(&a, &all, &err);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", err.text);
	for (size_t i = 0; i < all.n; i++)
		caught += tf_mutant_caught(all.v[i].verdict);
	free(all.v);
	return rc < 0 ? EX_UNAVAILABLE : a.o.list || caught == all.n ? 0 : 1;
}
