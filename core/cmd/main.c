/* SPDX-License-Identifier: MIT */
/* telefork(1): a table of commands. */
#include "core/cmd/cmd.h"
#include "core/cmd/inspect.h"
#include "core/telefork.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"serve", tf_cmd_serve, "receive processes and run them"},
	{"restore", tf_cmd_restore, "make a process from a saved image, or show the plan"},
	{"inspect", tf_cmd_inspect, "show what a saved image holds"},
	{"run", tf_cmd_run, "start a program so that it can move to lesser processors"},
	{"check", tf_cmd_check, "tell what stands in the way of a running process's journey"},
	{"dump", tf_cmd_dump, "save a running process as an image"},
	{"copy", tf_cmd_copy, "send a copy of a running process to a receiver"},
	{"move", tf_cmd_move, "move a running process to a receiver"},
	{"spawn", tf_cmd_spawn, "make copies of a zygote that a receiver keeps"},
	{"zygotes", tf_cmd_zygotes, "list the zygotes that a receiver keeps, or drop one"},
	{"settle", tf_cmd_settle, "end what a move left unfinished"},
	{"jobs", tf_cmd_jobs, "list moves that are unfinished or recent"},
	{"diff", tf_cmd_diff, "compare two saved images of one process"},
	{"verify", tf_cmd_verify, "compare a running process with an image of it"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void usage(FILE *out)
{
	char *exits = tf_exit_help(ARGP_KEY_HELP_POST_DOC, NULL, NULL);

	fprintf(out, "usage: telefork COMMAND [ARGUMENT...]\n\nCommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(out,
		"\n  telefork COMMAND --help   a command's options\n"
		"  telefork --version\n\n%s\n",
		exits ? exits : "");
	free(exits);
}

/* Messages begin with both words. */
static int run(size_t i, int argc, char **argv)
{
	static char name[32];

	snprintf(name, sizeof(name), "telefork %s", commands[i].name);
	argv[0] = name;
	return commands[i].run(argc, argv);
}

static int not_a_command(const char *name)
{
	if (*name)
		fprintf(stderr, "telefork: \"%s\" is no command; there are", name);
	else
		fprintf(stderr, "telefork: which command? There are");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(stderr, " %s", commands[i].name);
	fprintf(stderr, " (see telefork --help)\n");
	return TF_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("telefork %s (format %d)\n", TELEFORK_VERSION, TELEFORK_FORMAT);
		return fflush(stdout) ? TF_EXIT_IO : TF_EXIT_OK;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
		usage(stdout);
		return fflush(stdout) ? TF_EXIT_IO : TF_EXIT_OK;
	}
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return run(i, argc - 1, argv + 1);
	return not_a_command(name);
}
