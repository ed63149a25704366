/* SPDX-License-Identifier: MIT */
/* telefork jobs: the journal of moves, those that left and those that came, with what is to be
 * done. */
#include "core/base/cleanup.h"
#include "core/base/text.h"
#include "core/cmd/cmd.h"
#include "core/cmd/journal.h"
#include "core/cmd/text_json.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* What is to be done about it; "" nothing. */
static const char *remedy(const struct tf_record *r)
{
	if (r->held)
		return "wait: it is under way";
	switch (r->phase) {
	case TF_PHASE_SENDING:
		return "it was not stopped yet and runs here: telefork settle";
	case TF_PHASE_COMMITTING:
		return tf_identity_state(&r->process) ? "it is stopped here: telefork settle"
						      : "it has ended here: telefork settle";
	case TF_PHASE_PREPARED:
	case TF_PHASE_COMMITTED:
		return "its receiver has died: start telefork serve again";
	default:
		return "";
	}
}

static const char *state_text(const struct tf_record *r)
{
	switch (tf_identity_state(&r->process)) {
	case 0:
	case 'Z':
		return "not here";
	case 'T':
		return "stopped here";
	default:
		return "here";
	}
}

static void print_age(int64_t seconds)
{
	if (seconds < 120)
		printf("%" PRId64 " s", seconds);
	else if (seconds < 7200)
		printf("%" PRId64 " min", seconds / 60);
	else if (seconds < 172800)
		printf("%" PRId64 " h", seconds / 3600);
	else
		printf("%" PRId64 " days", seconds / 86400);
}

static void print_record(const struct tf_record *r, bool in)
{
	char exe[4 * sizeof(r->exe)], address[4 * sizeof(r->address)];
	char why[4 * sizeof(r->no_rounds)];
	const char *what = remedy(r);

	tf_text_safe(r->exe, exe, sizeof(exe));
	tf_text_safe(r->address, address, sizeof(address));
	printf("%s  process %d (%s), %s %s, %s, ", r->id, (int)r->process.pid, state_text(r),
		in ? "came" : "to", in ? "here" : address, tf_phase_name[r->phase]);
	print_age((int64_t)time(NULL) - r->time);
	printf(" ago: %s", exe);
	if (r->n_rounds)
		printf(", %" PRIu32 " rounds of memory", r->n_rounds);
	tf_text_safe(r->no_rounds, why, sizeof(why));
	if (*why)
		printf(", no pre-copy: %s", why);
	printf("%s%s\n", *what ? "\n    " : "", what);
}

static json_t *rounds_json(const struct tf_record *r)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < r->n_rounds; i++)
		json_array_append_new(list, json_integer((json_int_t)r->rounds[i]));
	return list;
}

static json_t *record_json(const struct tf_record *r, bool in)
{
	return json_pack("{s:s, s:s, s:i, s:I, s:o, s:o, s:s, s:s, s:b, s:I, s:o, s:o, s:s}", "id",
		r->id, "direction", in ? "in" : "out", "pid", (int)r->process.pid, "start",
		(json_int_t)r->process.start, "exe", tf_json_text(r->exe), "address",
		tf_json_text(r->address), "phase", tf_phase_name[r->phase], "process",
		state_text(r), "under_way", r->held, "age_s",
		(json_int_t)((int64_t)time(NULL) - r->time), "rounds", rounds_json(r), "no_rounds",
		tf_json_text(r->no_rounds), "remedy", remedy(r));
}

/* One folder of the journal; list: instead of standard output. */
static int show(const char *which, json_t *list, struct tf_err *e)
{
	TF_FREE struct tf_record *all = NULL;
	bool in = !strcmp(which, "arrivals");
	struct tf_journal j;
	int n = tf_journal_open(&j, which, e);

	if (n)
		return n;
	n = tf_journal_list(&j, &all, e);
	for (int i = 0; i < n; i++)
		if (list)
			json_array_append_new(list, record_json(&all[i], in));
		else
			print_record(&all[i], in);
	tf_journal_close(&j);
	return n < 0 ? n : 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	bool *json = state->input;

	(void)arg;
	if (key != 'j')
		return ARGP_ERR_UNKNOWN;
	*json = true;
	return 0;
}

int tf_cmd_jobs(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', 0, 0, "For machines", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.doc = "Lists the moves of the last 30 days, from here and to here: id, process, "
		       "address, phase, age, and what is to be done about those that are "
		       "unfinished.",
		.help_filter = tf_exit_help};
	json_t *list = NULL;
	struct tf_err e = {0};
	bool json = false;
	int rc, bad = 0;

	if (argp_parse(&argp, argc, argv, 0, NULL, &json))
		return TF_EXIT_USAGE;
	list = json ? json_array() : NULL;
	rc = show("moves", list, &e);
	if (!rc)
		rc = show("arrivals", list, &e);
	if (rc)
		tf_complain("jobs", e.text);
	else if (json)
		bad = json_dumpf(list, stdout, JSON_INDENT(2)) || putchar('\n') < 0;
	json_decref(list);
	if (rc)
		return tf_exit_code(rc);
	return fflush(stdout) || bad ? TF_EXIT_IO : TF_EXIT_OK;
}
