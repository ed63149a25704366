/* SPDX-License-Identifier: MIT */
/*
 * telefork run: starts a program that uses no more of the processor than a baseline has, so that it
 * can move to lesser ones. A C library chooses its code once, at the start; what it is to leave
 * alone has to be said before. On x86_64 glibc listens to GLIBC_TUNABLES, and the capture takes the
 * same words as the user's declaration for what glibc does not know.
 */
#include "arch/arch.h"
#include "core/base/host.h"
#include "core/cmd/cmd.h"
#include "core/telefork.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VARIABLE "GLIBC_TUNABLES"
#define TUNABLE  "glibc.cpu.hwcaps="
#define DEFAULT  "x86-64-v3"

struct arguments {
	const char *baseline;
	bool list;
	int program; /* index in argv */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'b':
		a->baseline = arg;
		return 0;
	case 'l':
		a->list = true;
		return 0;
	case ARGP_KEY_ARG: /* all that follows is the program's */
		a->program = state->next - 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_END:
		if (!a->program && !a->list)
			argp_error(state, "which PROGRAM?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* --- the list --- */

/* What this processor lacks of baseline. Returns their number. */
static unsigned print_lacking(
	const struct tf_arch *arch, const struct tf_baseline *b, const struct tf_cpu *cpu)
{
	unsigned n = 0;

	for (size_t i = 0; i < arch->n_features; i++) {
		const struct tf_feature *f = &arch->features[i];

		if (f->hint || !tf_baseline_has(arch, b, f) || tf_cpu_has(cpu, f))
			continue;
		printf("%s%s", n++ ? ", " : "this processor lacks ", f->name);
	}
	return n;
}

static int list_baselines(void)
{
	const struct tf_arch *arch = tf_arch_native();
	struct tf_cpu cpu;

	tf_arch_cpu(&cpu, false);
	for (size_t i = 0; i < arch->n_baselines; i++) {
		const struct tf_baseline *b = &arch->baselines[i];

		printf("%-12s %s%s\n%13sadds %s\n%13s", b->name, b->what,
			strcmp(b->name, DEFAULT) ? "" : " (default)", "", b->features, "");
		printf("%s\n", print_lacking(arch, b, &cpu) ? "" : "this processor has it all");
	}
	if (!arch->n_baselines)
		printf("%s has none: see telefork(1)\n", arch->name);
	return ferror(stdout) || fflush(stdout) ? TF_EXIT_IO : TF_EXIT_OK;
}

/* --- the environment --- */

/* Where the tunable's value begins in what the environment has already; NULL: nowhere. */
static const char *find_tunable(const char *old)
{
	for (const char *p = old; p; p = strchr(p, ':')) {
		p += *p == ':';
		if (!strncmp(p, TUNABLE, strlen(TUNABLE)))
			return p + strlen(TUNABLE);
	}
	return NULL;
}

/* "-NAME,-NAME…" for all that is not in the baseline, whether this processor has it or not:
 * programs that are started after a move inherit it. */
static void write_hidden(FILE *f, const struct tf_arch *arch, const struct tf_baseline *b)
{
	const char *comma = "";

	for (size_t i = 0; i < arch->n_features; i++) {
		const struct tf_feature *feature = &arch->features[i];

		if (!feature->tunable || tf_baseline_has(arch, b, feature))
			continue;
		fprintf(f, "%s-%s", comma, feature->tunable);
		comma = ",";
	}
}

/* Keeps the tunables that are there, and what they hide already. */
static int hide(const struct tf_arch *arch, const struct tf_baseline *b)
{
	const char *old = getenv(VARIABLE), *value = find_tunable(old);
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	int rc;

	if (!f)
		return -1;
	if (value)
		fwrite(old, 1, (size_t)(value - old), f);
	else
		fprintf(f, "%s%s" TUNABLE, old ? old : "", old && *old ? ":" : "");
	write_hidden(f, arch, b);
	if (value && *value && *value != ':')
		fputc(',', f);
	if (value)
		fputs(value, f);
	rc = fclose(f) || setenv(VARIABLE, text, 1);
	free(text);
	return rc ? -1 : 0;
}

static const struct tf_baseline *choose(const struct tf_arch *arch, const char *name)
{
	const struct tf_baseline *b = tf_baseline_by_name(arch, name ? name : DEFAULT);
	char text[512] = "";

	if (b)
		return b;
	if (!arch->n_baselines) {
		fprintf(stderr,
			"telefork: run: %s programs ask the kernel what the processor has, "
			"and nothing in their environment changes the answer: start the "
			"program on the lesser machine, or under qemu-%s -cpu MODEL\n",
			arch->name, arch->name);
		return NULL;
	}
	for (size_t i = 0; i < arch->n_baselines; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s",
			arch->baselines[i].name);
	fprintf(stderr, "telefork: run: no baseline is called \"%s\"; there are%s\n", name, text);
	return NULL;
}

int tf_cmd_run(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"baseline", 'b', "CPU", 0, "Use no more than CPU has (" DEFAULT ")", 0},
		{"list-baselines", 'l', 0, 0, "Show what CPU can be", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PROGRAM [ARGUMENT...]",
		.doc = "Starts a program that uses no more of the processor than a baseline has, "
		       "so "
		       "that it can move to lesser processors.",
		.help_filter = tf_exit_help};
	const struct tf_arch *arch = tf_arch_native();
	const struct tf_baseline *b;
	struct arguments a = {0};

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a))
		return TF_EXIT_USAGE;
	if (a.list)
		return list_baselines();
	b = choose(arch, a.baseline);
	if (!b)
		return TF_EXIT_UNAVAILABLE;
	if (hide(arch, b)) {
		tf_complain("run", strerror(errno));
		return TF_EXIT_SYSTEM;
	}
	execvp(argv[a.program], &argv[a.program]);
	fprintf(stderr, "telefork: run: %s: %s\n", argv[a.program], strerror(errno));
	return errno == ENOENT ? TF_EXIT_NOT_FOUND : TF_EXIT_NOT_RUN;
}
