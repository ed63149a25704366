/* SPDX-License-Identifier: MIT */
/* telefork check [--json] PID: what stands in the way of a running process's journey. */
#include "core/cmd/check.h"
#include "core/cmd/cmd.h"

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
	json_t *list;                     /* instead of out */
	int left;                         /* that stand in the way */
};

static void print_safe(FILE *out, const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			fprintf(out, "\\x%02x", (unsigned char)*text);
		else
			putc(*text, out);
}

static void tell(void *ctx, const struct tf_obstacle *o)
{
	const struct tf_obstacle_info *info = &tf_obstacle_info[o->kind];
	struct telling *t = ctx;
	bool allowed = t->allowed && t->allowed->kind[o->kind] && info->waivable;

	t->left += !allowed;
	if (t->list) {
		json_array_append_new(
			t->list, json_pack("{s:s, s:s, s:s, s:s, s:b}", "kind", info->name, "which",
					 o->which, "what", info->what, "remedy", info->remedy,
					 "allowable", info->waivable));
		return;
	}
	fprintf(t->out, "%s: %s%s: ", t->command, allowed ? "left behind: " : "", info->name);
	print_safe(t->out, o->which);
	fprintf(t->out, ": %s", info->what);
	if (!allowed)
		fprintf(t->out, ": %s%s%s", info->remedy,
			info->waivable ? ", or go on without: --allow " : "",
			info->waivable ? info->name : "");
	putc('\n', t->out);
}

int tf_check_first(const char *command, pid_t pid, const struct tf_allowed *allowed)
{
	struct telling t = {.out = stderr, .command = command, .allowed = allowed};
	struct tf_err e = {0};
	int n = tf_task_check(pid, tell, &t, &e);

	if (n < 0) {
		tf_complain(NULL, e.text);
		return tf_exit_code(n);
	}
	return t.left ? TF_EXIT_OBSTACLE : TF_EXIT_OK;
}

/* --- the command --- */

struct arguments {
	bool json;
	int pid;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'j':
		a->json = true;
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

static int print_json(int pid, json_t *list)
{
	json_t *all = json_pack("{s:i, s:o}", "pid", pid, "obstacles", list);
	int bad = !all || json_dumpf(all, stdout, JSON_INDENT(2)) || putchar('\n') < 0;

	json_decref(all);
	return bad;
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

int tf_cmd_check(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"json", 'j', 0, 0, "For machines", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID",
		.doc = "Tells everything that stands in the way of a running process's journey, "
		       "each "
		       "with its remedy. The process is not stopped. The exit code says whether it "
		       "can travel.",
		.help_filter = help};
	struct arguments a = {0};
	struct telling t = {.out = stdout};
	struct tf_err e = {0};
	int n, bad = 0;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	t.list = a.json ? json_array() : NULL;
	t.command = "obstacle";
	n = tf_task_check(a.pid, tell, &t, &e);
	if (n < 0) {
		json_decref(t.list);
		tf_complain("check", e.text);
		return tf_exit_code(n);
	}
	if (a.json)
		bad = print_json(a.pid, t.list);
	else if (!n)
		printf("process %d can travel\n", a.pid);
	if (fflush(stdout) || bad)
		return TF_EXIT_IO;
	return n ? TF_EXIT_OBSTACLE : TF_EXIT_OK;
}
