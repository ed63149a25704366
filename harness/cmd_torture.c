/* SPDX-License-Identifier: MIT */
/*
 * telebed torture: one program, moved on and on while something goes wrong at some byte of every
 * move. A seed and a number make a step, whatever came before: a failure is repeated by that step
 * alone.
 */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "harness/command.h"
#include "harness/explain.h"
#include "harness/faults.h"
#include "harness/host.h"
#include "harness/janitor.h"
#include "qemu/io.h"
#include "qemu/machine.h"

#define IDLE_S 5 /* a loaded machine is silent, too */

struct arguments {
	uint64_t seed, from;
	long minutes, steps, idle_s, machines;
	const char *arch, *tier, *json;
	bool only[TF_FAULT_KINDS], some; /* kinds asked for */
	bool one, quiet, precopy;
};

enum { KEY_STEPS = 256, KEY_STEP, KEY_IDLE, KEY_MACHINES, KEY_ONLY, KEY_PRECOPY };

static long number(struct argp_state *state, const char *name, const char *arg, long max)
{
	char *end;
	long n = strtol(arg, &end, 0);

	if (*end || end == arg || n < 1 || n > max)
		argp_error(state, "--%s %s: expected a number from 1 to %ld", name, arg, max);
	return n;
}

static void add_kind(struct arguments *a, struct argp_state *state, const char *name)
{
	bool known = false;

	for (unsigned i = 0; i < TF_FAULT_KINDS; i++)
		if (!strcmp(tf_fault_names[i], name))
			known = a->only[i] = a->some = true;
	if (!known)
		argp_error(
			state, "--only %s: no such fault (telebed torture --help has them)", name);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	char *end;

	switch (key) {
	case 's':
		a->seed = strtoull(arg, &end, 0);
		if (*end || end == arg)
			argp_error(state, "--seed %s: expected a number", arg);
		return 0;
	case 'm':
		a->minutes = number(state, "minutes", arg, 100000);
		return 0;
	case KEY_STEPS:
		a->steps = number(state, "steps", arg, 1000000000);
		return 0;
	case KEY_STEP:
		a->from = (uint64_t)number(state, "step", arg, 1000000000);
		a->one = true;
		return 0;
	case KEY_PRECOPY:
		a->precopy = true;
		return 0;
	case KEY_IDLE:
		a->idle_s = number(state, "idle-time", arg, 600);
		return 0;
	case KEY_MACHINES:
		a->machines = number(state, "machines", arg, TF_CAMPAIGN_MACHINES);
		return 0;
	case KEY_ONLY:
		add_kind(a, state, arg);
		return 0;
	case 'a':
		a->arch = arg;
		return 0;
	case 't':
		a->tier = arg;
		return 0;
	case 'j':
		a->json = arg;
		return 0;
	case 'q':
		a->quiet = true;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* --- a campaign --- */

struct torture {
	const struct arguments *a;
	struct tf_site site;
	struct tf_remote *machines[TF_CAMPAIGN_MACHINES];
	struct tf_campaign campaign;
	struct tf_janitor *janitor;
	enum tf_tier tier;
	char folder[64];
	uint64_t verdicts[5];
	int64_t started_ms;
	char failure[2048];
	uint64_t failed_at;
	struct tf_vm_error err;
};

static const char *const verdicts[5] = {"here", "there", "stopped: here", "stopped: there", "lost"};

static int find_tier(struct torture *t)
{
	unsigned i = 0;

	while (i <= TF_TIER_SYSTEM && strcmp(tf_tier_names[i], t->a->tier) != 0)
		i++;
	t->tier = (enum tf_tier)i;
	if (i > TF_TIER_SYSTEM)
		return tf_vm_fail(
			&t->err, -EINVAL, "--tier %s: expected native, user or system", t->a->tier);
	if (i != TF_TIER_SYSTEM && strcmp(t->a->arch, tf_vm_host_arch()) != 0)
		return tf_vm_fail(&t->err, -EINVAL,
			"--arch %s --tier %s: a program is moved from outside, by ptrace, which QEMU "
			"user mode does not have: expected --tier system, or the host's own "
			"architecture",
			t->a->arch, t->a->tier);
	for (i = 0; t->a->some && i < TF_FAULT_KINDS; i++)
		if (t->a->only[i] && tf_fault_possible(i, t->tier))
			return 0;
	return t->a->some ? tf_vm_fail(&t->err, -EINVAL,
				    "--only: none of these can be done in tier %s", t->a->tier)
			  : 0;
}

static int begin(struct torture *t, const struct tf_home *home)
{
	struct tf_spec spec = {0};
	char why[256];
	int rc;

	if (t->tier != TF_TIER_SYSTEM && !tf_host_looks(why))
		return tf_vm_fail(&t->err, -EPERM, "%s", why);
	strcpy(t->folder, "/tmp/telebed.XXXXXX");
	if (!mkdtemp(t->folder))
		return tf_vm_fail_errno(&t->err, -errno, "%s", t->folder);
	rc = tf_janitor_start(t->folder, TF_JANITOR_OURS, &t->janitor, &t->err);
	if (rc < 0)
		return rc;
	t->site =
		(struct tf_site){.root = home->root, .variant = home->variant, .folder = t->folder};
	rc = tf_vm_cachedir(t->site.cache, sizeof(t->site.cache), &t->err);
	snprintf(spec.arch, sizeof(spec.arch), "%s", t->a->arch);
	for (long i = 0; i < t->a->machines && rc == 0; i++) {
		spec.tier = i || t->tier != TF_TIER_USER ? t->tier : TF_TIER_NATIVE;
		if (spec.tier == TF_TIER_USER)
			strcpy(spec.cpu, "max");
		rc = tf_remote_new(&t->site, &spec, (const char[]){(char)('A' + i), '\0'},
			&t->machines[i], &t->err);
	}
	if (rc == 0)
		rc = tf_campaign_begin(&t->campaign, &t->site, t->machines,
			(unsigned)t->a->machines, t->folder, (int)t->a->idle_s, &t->err);
	return rc;
}

static void end(struct torture *t)
{
	tf_campaign_end(&t->campaign);
	for (long i = 0; i < t->a->machines; i++)
		tf_remote_free(t->machines[i]);
	tf_site_done(&t->site);
	if (t->folder[0] && !t->failure[0])
		tf_vm_remove_dir(t->folder);
	tf_janitor_dismiss(t->janitor);
}

static void print_step(const struct torture *t, uint64_t n, const struct tf_step *s,
	const struct tf_step_outcome *o, int64_t ms, bool ok)
{
	char text[512];

	if (t->a->quiet && ok)
		return;
	printf("%s %llu - %s: %s%s in %.2f s\n", ok ? "ok" : "not ok", (unsigned long long)n,
		tf_step_text(s, text, sizeof(text)), o->verdict,
		o->message < 0 && s->kind != TF_FAULT_NONE ? " (it did not come to that)" : "",
		ms / 1e3);
	fflush(stdout);
}

static void print_failure(struct torture *t, uint64_t n)
{
	snprintf(t->failure, sizeof(t->failure), "%s", t->err.text);
	t->failed_at = n;
	tf_explain_jobs(t->folder, t->machines, (unsigned)t->a->machines);
	printf("# step %llu of seed %llu: %s\n"
	       "# to repeat it: telebed torture --seed %llu --step %llu --tier %s --arch %s "
	       "--idle-time %ld --machines %ld%s\n# what was said: %s/said.txt\n",
		(unsigned long long)n, (unsigned long long)t->a->seed, t->err.text,
		(unsigned long long)t->a->seed, (unsigned long long)n, t->a->tier, t->a->arch,
		t->a->idle_s, t->a->machines, t->a->precopy ? " --precopy" : "", t->folder);
}

static bool is_over(const struct torture *t, uint64_t done)
{
	if (t->a->one)
		return done == 1;
	if (t->a->steps)
		return done == (uint64_t)t->a->steps;
	return tf_vm_now_ms() - t->started_ms >= t->a->minutes * 60000;
}

/* The first step from @n on that is of a kind that was asked for. */
static uint64_t draw(const struct torture *t, uint64_t n, struct tf_step *s)
{
	for (;; n++) {
		tf_step_draw(s, t->a->seed, n, t->tier, (int)t->a->idle_s * 1000);
		if (t->a->precopy)
			tf_step_precopy(s);
		if (!t->a->some || t->a->only[s->kind] || t->a->one)
			return n;
	}
}

/* 1: all held; 0: something did not; negative: came to grief. */
static int run(struct torture *t)
{
	uint64_t n = t->a->from, done = 0;
	int rc = 1;

	t->started_ms = tf_vm_now_ms();
	for (; rc == 1 && !is_over(t, done); n++, done++) {
		struct tf_step_outcome o;
		struct tf_step s;
		int64_t start;

		start = tf_vm_now_ms();
		n = draw(t, n, &s);
		rc = tf_campaign_step(&t->campaign, &s, &o, &t->err);
		print_step(t, n, &s, &o, tf_vm_now_ms() - start, rc == 1);
		for (unsigned i = 0; i < 5; i++)
			t->verdicts[i] += !strcmp(o.verdict, verdicts[i]);
	}
	if (rc != 1)
		print_failure(t, n - 1);
	return rc;
}

/* --- what came of it --- */

static void summary(const struct torture *t)
{
	const struct tf_campaign *c = &t->campaign;

	printf("# seed %llu, %s %s: %llu steps, %llu moves, %llu settled, %llu lost with their "
	       "machine, %llu given up by a slow host, %llu numbers counted, %lld s\n",
		(unsigned long long)t->a->seed, t->a->arch, t->a->tier,
		(unsigned long long)c->steps, (unsigned long long)c->moves,
		(unsigned long long)c->settled, (unsigned long long)c->lost,
		(unsigned long long)c->late, (unsigned long long)c->lines,
		(long long)(tf_vm_now_ms() - t->started_ms) / 1000);
	printf("# faults:");
	for (unsigned i = 0; i < TF_FAULT_KINDS; i++)
		if (c->kinds[i])
			printf(" %s %llu", tf_fault_names[i], (unsigned long long)c->kinds[i]);
	printf("\n# outcomes:");
	for (unsigned i = 0; i < 5; i++)
		printf("%s %s %llu", i ? "," : "", verdicts[i], (unsigned long long)t->verdicts[i]);
	printf("\n# doubled %llu, unaccounted %llu\n", (unsigned long long)c->doubled,
		(unsigned long long)c->unaccounted);
}

static json_t *counts(const char *const names[], const uint64_t numbers[], unsigned n)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < n; i++)
		json_object_set_new(o, names[i], json_integer((json_int_t)numbers[i]));
	return o;
}

static int write_json(const struct torture *t, int rc)
{
	const struct tf_campaign *c = &t->campaign;
	json_t *o = json_pack(
		"{s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}",
		"seed", (json_int_t)t->a->seed, "arch", t->a->arch, "tier", t->a->tier, "verdict",
		rc == 1   ? "ok"
		: rc == 0 ? "failed"
			  : "broken",
		"seconds", (json_int_t)((tf_vm_now_ms() - t->started_ms) / 1000), "steps",
		(json_int_t)c->steps, "moves", (json_int_t)c->moves, "settled",
		(json_int_t)c->settled, "lost_with_machine", (json_int_t)c->lost, "given_up",
		(json_int_t)c->late, "numbers", (json_int_t)c->lines, "doubled",
		(json_int_t)c->doubled, "unaccounted", (json_int_t)c->unaccounted, "faults",
		counts(tf_fault_names, c->kinds, TF_FAULT_KINDS), "outcomes",
		counts(verdicts, t->verdicts, 5));
	int bad = !o;

	if (o && rc != 1) {
		json_object_set_new(o, "failed_step", json_integer((json_int_t)t->failed_at));
		json_object_set_new(o, "why", json_string(t->failure));
	}
	bad = bad || json_dump_file(o, t->a->json, JSON_INDENT(2));
	json_decref(o);
	if (bad)
		fprintf(stderr, "telebed: %s: cannot be written\n", t->a->json);
	return bad;
}

static char *help_filter(int key, const char *text, void *input)
{
	char *all = NULL;
	size_t size;
	FILE *f;

	(void)input;
	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)text;
	f = open_memstream(&all, &size);
	if (!f)
		return NULL;
	fprintf(f, "Faults (N: natively, S: between QEMU machines):\n");
	for (unsigned i = 0; i < TF_FAULT_KINDS; i++)
		fprintf(f, "  %-16s %s%s  %s\n", tf_fault_names[i],
			tf_fault_possible(i, TF_TIER_NATIVE) ? "N" : " ",
			tf_fault_possible(i, TF_TIER_SYSTEM) ? "S" : " ", tf_fault_help[i]);
	fclose(f);
	return all;
}

int tf_bed_torture(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"seed", 's', "N", 0, "What happens follows from it (a new one)", 0},
		{"minutes", 'm', "N", 0, "So long (1)", 0},
		{"steps", KEY_STEPS, "N", 0, "So many moves instead", 0},
		{"step", KEY_STEP, "N", 0, "This one only, to repeat a failure", 0},
		{"only", KEY_ONLY, "FAULT", 0, "This kind of fault (one of several)", 0},
		{"arch", 'a', "ARCH", 0, "x86_64 or aarch64 (the host's)", 0},
		{"tier", 't', "TIER", 0,
			"native, system, or user: from the host to QEMU user mode (native)", 0},
		{"precopy", KEY_PRECOPY, 0, 0,
			"Memory goes in rounds before the program is stopped", 0},
		{"machines", KEY_MACHINES, "N", 0, "How many (2)", 0},
		{"idle-time", KEY_IDLE, "SECONDS", 0,
			"After so long without a byte both sides give each other up (5)", 0},
		{"json", 'j', "FILE", 0, "Write what came of it to FILE", 0},
		{"quiet", 'q', 0, 0, "Only failures and the summary", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.doc = "Moves a program with threads from machine to machine, and something goes "
		       "wrong in each move. After each: one program, which has gone on without a gap "
		       "and without a repetition; what stood was settled as docs/commit.md says; the "
		       "side without it has nothing of it.\v ",
		.help_filter = help_filter};
	struct arguments a = {.from = 1,
		.minutes = 1,
		.idle_s = IDLE_S,
		.machines = 2,
		.arch = tf_vm_host_arch(),
		.tier = "native",
		.seed = (uint64_t)time(NULL)};
	struct torture t = {.a = &a};
	struct tf_home home;
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	rc = find_tier(&t);
	if (rc < 0) {
		fprintf(stderr, "telebed: %s\n", t.err.text);
		return EX_USAGE;
	}
	rc = tf_home_find(&home, &t.err);
	if (rc == 0)
		rc = begin(&t, &home);
	if (rc < 0) {
		fprintf(stderr, "telebed: %s\n", t.err.text);
	} else {
		printf("# seed %llu\n", (unsigned long long)a.seed);
		fflush(stdout);
		rc = run(&t);
		summary(&t);
		if (a.json && write_json(&t, rc))
			rc = -EIO;
	}
	end(&t);
	return rc < 0 ? EX_UNAVAILABLE : rc == 0;
}
