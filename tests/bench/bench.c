/* SPDX-License-Identifier: MIT */
/*
 * make bench: what telefork costs, as ratios within one run. A table on standard output, bench.json
 * and data for plots in FOLDER. Never a test: figures of one machine and one moment.
 *
 *   bench PAD FOLDER [--quick] [PART...]     PAD: build/<arch>/bin/telefork-pad
 */
#include "tests/bench/bench.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
	const char *name;
	int (*measure)(struct bench *b);
} parts[] = {
	{"times", bench_times},
	{"user", bench_user},
	{"work", bench_work},
	{"own", bench_own},
	{"yoyo", bench_yoyo},
	{"outside", bench_outside},
	{"again", bench_again},
	{"later", bench_later},
	{"precopy", bench_precopy},
	{"zygote", bench_zygote},
};

#define PARTS (sizeof(parts) / sizeof(*parts))

pid_t bench_receiver(char *const argv[], char uri[static BENCH_URI])
{
	int out[2];
	pid_t pid;
	FILE *f;

	if (pipe(out))
		return -1;
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		if (freopen("/dev/null", "w", stderr))
			execvp(argv[0], argv);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	if (!f || !fgets(uri, BENCH_URI, f)) {
		fprintf(stderr, "bench: %s does not start\n", argv[0]);
		return -1;
	}
	uri[strcspn(uri, "\n")] = '\0';
	return pid;
}

static pid_t start_receiver(const char *pad, char *address, char uri[static BENCH_URI])
{
	char *argv[] = {
		(char *)pad, "serve", "--insecure", "--zygote", "--store", "1024", address, NULL};

	if (!strncmp(address, "unix:", 5))
		argv[2] = address, argv[3] = NULL;
	return bench_receiver(argv, uri);
}

static bool wanted(const char *name, char **parts_wanted)
{
	if (!*parts_wanted)
		return true;
	for (; *parts_wanted; parts_wanted++)
		if (!strcmp(*parts_wanted, name))
			return true;
	return false;
}

static int run(struct bench *b, char **parts_wanted, const char *folder, bool priority)
{
	int rc = 0;

	printf("real-time priority: %s\n%-50s %9s %-19s | %9s | %9s\n",
		priority ? "yes" : "no, other programs may be in the figures", "", "median",
		"(quartiles)", "reference", "at most");
	bench_warm(b->quick ? UINT64_C(256) << 20 : UINT64_C(4096) << 20);
	for (unsigned i = 0; i < PARTS; i++)
		if (wanted(parts[i].name, parts_wanted))
			rc |= parts[i].measure(b);
	return bench_report(b, folder) | rc;
}

int main(int argc, char **argv)
{
	char folder[] = "/tmp/telefork-bench.XXXXXX", socket[128], uri[BENCH_LINKS][BENCH_URI];
	struct bench b = {.uri = {uri[0], uri[1]}, .rows = json_array(), .curves = json_array()};
	bool priority;
	int rc;

	b.quick = argc > 3 && !strcmp(argv[3], "--quick");
	if (argc < 3 || (argc > 3 && argv[3][0] == '-' && !b.quick) || !mkdtemp(folder)) {
		fprintf(stderr, "usage: bench PAD FOLDER [--quick] [PART...]\n");
		return 64;
	}
	b.pad = argv[1];
	/* Inherited by all that is started: what else the machine does stays out of the figures. */
	priority = !sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
	setenv("XDG_STATE_HOME", folder, 1); /* of moves */
	snprintf(socket, sizeof(socket), "unix:%s/socket", folder);
	b.serve[BENCH_UNIX] = start_receiver(argv[1], socket, uri[BENCH_UNIX]);
	b.serve[BENCH_TCP] = start_receiver(argv[1], (char[]){"tcp://127.0.0.1:0"}, uri[BENCH_TCP]);
	rc = b.serve[BENCH_UNIX] < 0 || b.serve[BENCH_TCP] < 0
		     ? -1
		     : run(&b, argv + 3 + b.quick, argv[2], priority);
	for (int i = 0; i < BENCH_LINKS; i++)
		if (b.serve[i] > 0 && !kill(b.serve[i], SIGTERM))
			waitpid(b.serve[i], NULL, 0); /* it writes to the folder until then */
	snprintf(socket, sizeof(socket), "rm -rf %s", folder);
	return system(socket) || rc ? 1 : 0;
}
