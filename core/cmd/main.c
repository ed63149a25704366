/* SPDX-License-Identifier: MIT */
/* telefork(1): a table of commands. */
#include "core/cmd/cmd.h"
#include "core/cmd/inspect.h"
#include "core/telefork.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"serve", tf_cmd_serve, "receive processes and run them"},
	{"restore", tf_cmd_restore, "make a process from a saved image, or show the plan"},
	{"inspect", tf_cmd_inspect, "show what a saved image holds"},
	{"diff", tf_cmd_diff, "compare two saved images of one process"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void usage(FILE *out)
{
	fprintf(out, "usage: telefork COMMAND [ARGUMENT...]\n\ncommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\n  telefork COMMAND --help   a command's options\n"
		     "  telefork --version\n");
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--version")) {
		printf("telefork %s (format %d)\n", TELEFORK_VERSION, TELEFORK_FORMAT);
		return 0;
	}
	if (!strcmp(name, "--help")) {
		usage(stdout);
		return 0;
	}
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].run(argc - 1, argv + 1);
	if (*name)
		fprintf(stderr, "telefork: %s is no command\n", name);
	usage(stderr);
	return EX_USAGE;
}
