/* SPDX-License-Identifier: MIT */
/* telefork check [--to URI] PID: what stands in the way of a running process's journey, here and,
 * if it is asked, over there. */
#include "core/cmd/check.h"
#include "core/base/text.h"
#include "core/cmd/cmd.h"
#include "core/cmd/text_json.h"
#include "core/image/image.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *tf_allow(struct tf_allowed *a, const char *arg)
{
	while (*arg) {
		size_t n = strcspn(arg, ",");
		char name[32] = "";
		unsigned kind;

		if (n < sizeof(name))
			memcpy(name, arg, n);
		kind = tf_obstacle_by_name(name);
		if (!strcmp(name, "all"))
			memset(a->kind, true, sizeof(a->kind));
		else if (kind == TF_OBSTACLE_KINDS)
			return "no such kind of obstacle; telefork check --help has the list";
		else if (!tf_obstacle_info[kind].waivable)
			return "without this a process cannot travel at all";
		else
			a->kind[kind] = true;
		arg += n + (arg[n] == ',');
	}
	return NULL;
}

/* --- told --- */

struct telling {
	FILE *out;
	const char *command;
	const struct tf_allowed *allowed; /* NULL: none */
	json_t *list, *there;             /* instead of out */
	int left;                         /* that stand in the way */
	bool final;                       /* one that nobody can go without was met */
};

static void tell(void *ctx, const struct tf_obstacle *o)
{
	const struct tf_obstacle_info *info = &tf_obstacle_info[o->kind];
	struct telling *t = ctx;
	char which[4 * TF_MAX_STR];
	bool allowed = t->allowed && t->allowed->kind[o->kind] && info->waivable;

	t->left += !allowed;
	t->final |= !info->waivable;
	if (t->list) {
		json_array_append_new(
			t->list, json_pack("{s:s, s:o, s:s, s:s, s:b}", "kind", info->name, "which",
					 tf_json_text(o->which), "what", info->what, "remedy",
					 info->remedy, "allowable", info->waivable));
		return;
	}
	tf_text_safe(o->which, which, sizeof(which));
	fprintf(t->out, "%s: %s%s: %s: %s", t->command, allowed ? "left behind: " : "", info->name,
		which, info->what);
	if (!allowed)
		fprintf(t->out, ": %s%s%s", info->remedy,
			info->waivable ? ", or go on without: --allow " : "",
			info->waivable ? info->name : "");
	putc('\n', t->out);
}

/* There is no such process: it cannot travel either. */
static int exit_code(int error)
{
	return error == TELEFORK_E_UNSUPPORTED ? TF_EXIT_OBSTACLE : tf_exit_code(error);
}

int tf_check_first(const char *command, pid_t pid, const struct tf_allowed *allowed)
{
	struct telling t = {.out = stderr, .command = command, .allowed = allowed};
	struct tf_err e = {0};
	int n = tf_task_check(pid, tell, &t, &e);

	if (n < 0) {
		tf_complain(command + strlen("telefork "), e.text);
		return exit_code(n);
	}
	return t.left ? TF_EXIT_OBSTACLE : TF_EXIT_OK;
}

/* --- the command --- */

struct arguments {
	bool json;
	int pid;
	const char *to, *token_file;
};

enum { KEY_TO = 256, KEY_TOKEN };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'j':
		a->json = true;
		return 0;
	case KEY_TO:
		a->to = arg;
		return 0;
	case KEY_TOKEN:
		a->token_file = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (a->pid)
			argp_error(state, "one PID only");
		a->pid = tf_parse_pid(arg);
		if (a->pid < 0)
			argp_error(state, "%s is no process id", arg);
		return 0;
	case ARGP_KEY_END:
		if (!a->pid)
			argp_error(state, "which PID?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* What the receiver says, a reason a line. How many there are. */
static int tell_there(struct telling *t, const char *to, char *reasons)
{
	int n = 0;

	for (char *line; (line = strsep(&reasons, "\n"));) {
		if (!*line)
			continue;
		n++;
		if (t->there)
			json_array_append_new(t->there, tf_json_text(line));
		else
			fprintf(t->out, "%s: %s: %s\n", t->command, to, line);
	}
	return n;
}

static int print_json(const struct arguments *a, const struct telling *t)
{
	json_t *all = json_pack("{s:i, s:O}", "pid", a->pid, "obstacles", t->list);
	int bad;

	if (a->to) {
		json_object_set_new(all, "to", tf_json_text(a->to));
		json_object_set(all, "there", t->there);
	}
	bad = !all || json_dumpf(all, stdout, JSON_INDENT(2)) || putchar('\n') < 0;
	json_decref(all);
	return bad;
}

/* How many obstacles there are, on both sides; or an error. */
static int look(const struct arguments *a, struct telling *t, struct tf_err *e)
{
	struct tf_err reasons = {0};
	int n = tf_task_check(a->pid, tell, t, e), rc = 0;

	if (n < 0 || !a->to)
		return n;
	if (t->final) {
		tf_complain(a->to, "was not asked: the process cannot be described");
		return n;
	}
	rc = tf_ask_there(a->pid, a->to, a->token_file, &reasons, e);
	return rc ? rc : n + tell_there(t, a->to, reasons.text);
}

static char *help(int key, const char *text, void *input)
{
	char *list = NULL, *whole;
	size_t size;
	FILE *f;

	if (key != ARGP_KEY_HELP_POST_DOC || !(f = open_memstream(&list, &size)))
		return (char *)text;
	fprintf(f, "Kinds of obstacles (* cannot be gone without):\n");
	for (unsigned i = 0; i < TF_OBSTACLE_KINDS; i++)
		fprintf(f, "  %s%s  %s\n", tf_obstacle_info[i].name,
			tf_obstacle_info[i].waivable ? "" : "*", tf_obstacle_info[i].what);
	fclose(f);
	whole = tf_exit_help(key, list, input);
	free(list);
	return whole;
}

static int check(const struct arguments *a)
{
	struct telling t = {.out = stdout, .command = "obstacle"};
	struct tf_err e = {0};
	int n, bad = 0;

	t.list = a->json ? json_array() : NULL;
	t.there = a->json ? json_array() : NULL;
	n = look(a, &t, &e);
	if (n >= 0 && a->json)
		bad = print_json(a, &t);
	else if (!n)
		printf("process %d can travel%s%s\n", a->pid, a->to ? " to " : "",
			a->to ? a->to : "");
	json_decref(t.list);
	json_decref(t.there);
	if (n < 0) {
		tf_complain("check", e.text);
		return exit_code(n);
	}
	if (fflush(stdout) || bad)
		return TF_EXIT_IO;
	return n ? TF_EXIT_OBSTACLE : TF_EXIT_OK;
}

int tf_cmd_check(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', 0, 0, "For machines", 0},
		{"to", KEY_TO, "URI", 0,
			"Ask that receiver, too, whether the process could live there", 0},
		{"token-file", KEY_TOKEN, "FILE", 0, "What the receiver asks for", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID",
		.doc = "Tells everything that stands in the way of a running process's journey, each "
		       "with its remedy. The process is not stopped, but for a moment with --to. The "
		       "exit code says whether it can travel.",
		.help_filter = help};
	struct arguments a = {0};

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	return check(&a);
}
