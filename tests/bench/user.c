/* SPDX-License-Identifier: MIT */
/* A small program, and one under QEMU user mode, with its receiver: until the copy runs. */
#include "tests/bench/bench.h"

#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/regs.h"

#define ROUNDS 9 /* the first one warms QEMU's translations */
#define PATHS  512

/* What it says, a figure on each line. */
static int read_figures(char *const argv[], struct bench_series *ret)
{
	int out[2], status = 0;
	char line[64];
	pid_t pid;
	FILE *f;

	if (pipe(out) || (pid = fork()) < 0)
		return -1;
	if (!pid) {
		dup2(out[1], 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	for (int i = 0; f && fgets(line, sizeof(line), f); i++)
		if (i)
			bench_push(ret, strtod(line, NULL) / 1e3);
	if (f)
		fclose(f);
	waitpid(pid, &status, 0);
	return status || !ret->n ? -1 : 0;
}

/* ROOT/NAME/bin/telefork-pad and ROOT/NAME/tests/small. */
static int measure(struct bench *b, const char *root, const char *name)
{
	char pad[PATHS], small[PATHS], qemu[64], uri[128], rounds[8];
	char *const serve[] = {
		qemu, "-cpu", "max", pad, "serve", "--insecure", "tcp://127.0.0.1:0", NULL};
	char *const go[] = {qemu, "-cpu", "max", small, uri, rounds, NULL};
	struct bench_series runs = {0};
	pid_t pid;
	int rc;

	snprintf(pad, sizeof(pad), "%s/%s/bin/telefork-pad", root, name);
	snprintf(small, sizeof(small), "%s/%s/tests/small", root, name);
	snprintf(qemu, sizeof(qemu), "qemu-%s", name);
	snprintf(rounds, sizeof(rounds), "%d", ROUNDS);
	setenv("QEMU_STACK_SIZE", "67108864", 1); /* elsewhere than the program's */
	pid = bench_receiver(serve, uri);
	unsetenv("QEMU_STACK_SIZE");
	rc = pid < 0 ? -1 : read_figures(go, &runs);
	if (pid > 0) {
		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
	if (rc)
		fprintf(stderr, "bench: %s could not be measured under QEMU user mode\n", name);
	else
		bench_add(b, &runs, NULL, 20, "ms", "20 ms",
			"small program, 1 MiB, qemu-%s: copy runs after", name);
	return rc;
}

int bench_small(struct bench *b)
{
	char small[PATHS], uri[128], rounds[8], *end;
	char *const go[] = {small, uri, rounds, NULL};
	struct bench_series runs = {0};

	snprintf(small, sizeof(small), "%s", b->pad); /* build/ARCH/bin/telefork-pad */
	for (int i = 0; i < 2; i++)
		if ((end = strrchr(small, '/')))
			*end = '\0';
	strncat(small, "/tests/small", sizeof(small) - strlen(small) - 1);
	snprintf(uri, sizeof(uri), "%s", b->uri[BENCH_TCP]);
	snprintf(rounds, sizeof(rounds), "%d", BENCH_ROUNDS);
	if (read_figures(go, &runs)) {
		fprintf(stderr, "bench: %s could not be measured\n", small);
		return -1;
	}
	bench_add(b, &runs, NULL, 2.5, "ms", "2.5 ms", "small program, 1 MiB: copy runs after");
	return 0;
}

int bench_user(struct bench *b)
{
	char root[PATHS], pattern[PATHS + 16], *end;
	glob_t found = {0};
	int rc = 0;

	snprintf(root, sizeof(root), "%s", b->pad);
	for (int i = 0; i < 3; i++) /* build/ARCH/bin/telefork-pad */
		if ((end = strrchr(root, '/')))
			*end = '\0';
	snprintf(pattern, sizeof(pattern), "%s/*/tests/small", root);
	if (glob(pattern, 0, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char *name = found.gl_pathv[i] + strlen(root) + 1;

		name[strcspn(name, "/")] = '\0';
		if (tf_arch_by_name(name))
			rc |= measure(b, root, name);
	}
	globfree(&found);
	return rc;
}
