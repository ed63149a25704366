/* SPDX-License-Identifier: MIT */
/* telebed(1): a table of commands. Exit codes: 0 pass, 1 fail, 64 usage, 69 infrastructure. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "harness/command.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"run", tf_bed_run, "run scenarios: programs moved between machines, and what must hold"},
	{"report", tf_bed_report, "turn the JSON of runs into a page, JUnit's XML, or one JSON"},
	{"list", tf_bed_list, "show the scenarios and their cells"},
	{"exec", tf_bed_exec, "run a command in a machine made for it"},
	{"torture", tf_bed_torture,
		"move a program on and on while something goes wrong each time"},
	{"shell", tf_bed_shell, "run a shell in a machine made for it"},
	{"cp", tf_bed_cp, "copy a file into such a machine, or out of it"},
	{"replay", tf_bed_replay, "open a cell that was kept in gdb, at the point where it failed"},
	{"machines", tf_bed_machines, "show the machines, and which can be had here"},
	{"schema", tf_bed_schema, "print the reference of scenarios and machines as Markdown"},
	{"mutants", tf_bed_mutants, "damage images on purpose: do the probes see it?"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void usage(FILE *out)
{
	fprintf(out, "usage: telebed COMMAND [ARGUMENT...]\n\ncommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\n  telebed COMMAND --help   a command's options\n"
		     "  telebed --version\n\n"
		     "exit code: 0 all held, 1 something did not, 64 usage, 69 machines or harness "
		     "came to grief\n");
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	struct tf_vm_error err;
	struct tf_home home;

	if (!strcmp(name, "--version")) {
		printf("telebed %s\n", TF_VERSION);
		return 0;
	}
	if (!strcmp(name, "--help")) {
		usage(stdout);
		return 0;
	}
	if (tf_home_find(&home, &err) == 0)
		tf_home_programs(&home);
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].run(argc - 1, argv + 1);
	if (*name)
		fprintf(stderr, "telebed: %s is no command\n", name);
	usage(stderr);
	return EX_USAGE;
}
