/* SPDX-License-Identifier: MIT */
/*
 * make bench: what telefork() costs, as ratios within one run. A table on standard output; --json
 * FILE for machines. Never a test: figures of one machine and one moment.
 *
 *   bench PAD [--json FILE] [--quick] [--outside]     PAD: the receiver,
 * build/<arch>/bin/telefork-pad; --outside: only what is captured from outside */
#include "tests/bench/bench.h"

#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t sizes[] = {1, 64, 512}; /* MiB */

struct row {
	uint64_t mib;
	bool huge;
	struct bench_figures f;
};

/* Starts a receiver and reads the address that it prints. */
static int start_receiver(const char *pad, char *address, char uri[static 128])
{
	char *argv[] = {(char *)pad, "serve", "--insecure", "--store", "1024", address, NULL};
	int out[2];
	pid_t pid;
	FILE *f;

	if (!strncmp(address, "unix:", 5))
		argv[2] = address, argv[3] = NULL; /* keeps nothing */
	if (pipe(out))
		return -1;
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		if (freopen("/dev/null", "w", stderr))
			execv(pad, argv);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	if (!f || !fgets(uri, 128, f)) {
		fprintf(stderr, "bench: %s does not start\n", pad);
		return -1;
	}
	uri[strcspn(uri, "\n")] = '\0';
	return pid;
}

/* Each row in a process of its own: no heap of the row before. */
static int measure_row(struct row *row, const struct bench_receivers *r)
{
	int out[2], status;
	pid_t pid;
	bool whole;

	if (pipe(out))
		return -1;
	pid = fork();
	if (!pid) {
		struct bench_figures f;

		close(out[0]);
		if (bench_measure(row->mib << 20, row->huge, r, &f))
			_exit(1);
		_exit(write(out[1], &f, sizeof(f)) != sizeof(f));
	}
	close(out[1]);
	whole = read(out[0], &row->f, sizeof(row->f)) == sizeof(row->f);
	close(out[0]);
	waitpid(pid, &status, 0);
	return whole ? 0 : -1;
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

static const char *met(bool yes)
{
	return yes ? "" : " *";
}

static void print_row(const struct row *row)
{
	const struct bench_figures *f = &row->f;

	for (int link = 0; link < BENCH_LINKS; link++) {
		double aim = 1.2 * (double)f->fork_ns + 300000;
		double rate = ratio(f->bare_ns[link], f->run_ns[link]);

		printf("%4llu MiB %-4s %-4s | %8.3f %8.3f %5.2fx%-2s | %8.2f %8.2f %5.2fx%-2s |",
			(unsigned long long)row->mib, row->huge ? "huge" : "4k",
			link == BENCH_UNIX ? "unix" : "tcp", ms(f->fork_ns), ms(f->stop_ns[link]),
			ratio(f->stop_ns[link], f->fork_ns), met((double)f->stop_ns[link] <= aim),
			ms(f->bare_ns[link]), ms(f->run_ns[link]), rate,
			met(rate >= 0.8 || row->mib == 1));
		if (link == BENCH_UNIX)
			printf(" %3.0f%% %3.0f%%  %3.0f%% %3.0f%% | %5.2f %5.2f%-2s",
				f->lost_fork.second * 100, f->lost_telefork.second * 100,
				f->lost_fork.cpu * 100, f->lost_telefork.cpu * 100,
				(double)f->snapshot_own / 1048576,
				(double)f->receiver_own / 1048576,
				met(f->snapshot_own + f->receiver_own < 8u << 20));
		printf("\n");
	}
	fflush(stdout);
}

static json_t *lost_json(const struct bench_lost *l)
{
	return json_pack("{s:f,s:f}", "of_second", l->second, "of_processor_second", l->cpu);
}

static json_t *to_json(const struct row *row)
{
	const struct bench_figures *f = &row->f;
	json_t *links = json_object();

	for (int link = 0; link < BENCH_LINKS; link++)
		json_object_set_new(links, link == BENCH_UNIX ? "unix" : "tcp",
			json_pack("{s:I,s:I,s:I}", "bare_ns", (json_int_t)f->bare_ns[link],
				"stopped_ns", (json_int_t)f->stop_ns[link], "copy_runs_ns",
				(json_int_t)f->run_ns[link]));
	return json_pack("{s:I,s:s,s:I,s:o,s:o,s:o,s:I,s:I,s:I,s:I}", "mib", (json_int_t)row->mib,
		"pages", row->huge ? "huge" : "4k", "fork_ns", (json_int_t)f->fork_ns, "links",
		links, "lost_after_fork", lost_json(&f->lost_fork), "lost_after_telefork",
		lost_json(&f->lost_telefork), "snapshot_own_bytes", (json_int_t)f->snapshot_own,
		"receiver_own_bytes", (json_int_t)f->receiver_own, "huge_before_bytes",
		(json_int_t)f->huge_before, "huge_after_bytes", (json_int_t)f->huge_after);
}

static int run(const struct bench_receivers *r, const char *json, bool quick, bool only_outside,
	bool only_later, bool priority)
{
	json_t *rows = json_array(), *outside = json_array(), *again = json_array(),
	       *later = json_array();
	json_t *all = json_pack("{s:o,s:o,s:o,s:o}", "telefork", rows, "outside", outside, "later",
		later, "again", again);
	int rc = 0;

	printf("real-time priority: %s\n"
	       "                   |  parent stands still (ms)    |     copy runs after (ms)     | "
	       "work lost, by copying | own memory\n"
	       "heap     pages link |   fork() telefork   ratio    | bare pair telefork bare/tf   | "
	       "fork   tf  fork   tf | here  there (MiB)\n",
		priority ? "yes" : "no, other programs may be in the figures");
	for (unsigned i = 0;
		i < sizeof(sizes) / sizeof(*sizes) - quick && !rc && !only_outside && !only_later;
		i++)
		for (int huge = 0; huge < 2 && !rc; huge++) {
			struct row row = {.mib = sizes[i], .huge = huge};

			rc = measure_row(&row, r);
			if (rc)
				fprintf(stderr, "bench: %llu MiB could not be measured\n",
					(unsigned long long)row.mib);
			else
				print_row(&row);
			json_array_append_new(rows, to_json(&row));
		}
	printf("* misses its aim: stop at most 1.2 x fork() + 0.3 ms; at least 0.8 of the bare pair "
	       "(not judged at 1 MiB); own memory of both sides below 8 MiB. See docs/bench.md\n");
	if (!rc && !only_later)
		rc = bench_outside(quick, outside);
	if (!rc && !only_outside)
		rc = bench_later(r->uri[BENCH_TCP], quick, later);
	if (!rc && !only_outside && !only_later)
		rc = bench_again(r->uri[BENCH_TCP], quick, again);
	if (json && json_dump_file(all, json, JSON_INDENT(1))) {
		fprintf(stderr, "bench: %s cannot be written\n", json);
		rc = -1;
	}
	json_decref(all);
	return rc;
}

int main(int argc, char **argv)
{
	char folder[] = "/tmp/telefork-bench.XXXXXX", socket[128], uri[BENCH_LINKS][128];
	struct bench_receivers r = {.uri = {uri[0], uri[1]}};
	const char *json = NULL;
	bool quick = false, only_outside = false, only_later = false, priority;
	int rc;

	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--json") && i + 1 < argc)
			json = argv[++i];
		else if (!strcmp(argv[i], "--quick"))
			quick = true;
		else if (!strcmp(argv[i], "--outside"))
			only_outside = true;
		else if (!strcmp(argv[i], "--later"))
			only_later = true;
		else
			argc = 0;
	}
	if (argc < 2 || !mkdtemp(folder)) {
		fprintf(stderr, "usage: bench PAD [--json FILE] [--quick] [--outside | --later]\n");
		return 64;
	}
	/* Inherited by all that is started: what else the machine does stays out of the figures. */
	priority = !sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
	snprintf(socket, sizeof(socket), "unix:%s/socket", folder);
	r.pid[BENCH_UNIX] = start_receiver(argv[1], socket, uri[BENCH_UNIX]);
	r.pid[BENCH_TCP] = start_receiver(argv[1], (char[]){"tcp://127.0.0.1:0"}, uri[BENCH_TCP]);
	rc = r.pid[BENCH_UNIX] < 0 || r.pid[BENCH_TCP] < 0
		     ? -1
		     : run(&r, json, quick, only_outside, only_later, priority);
	for (int i = 0; i < BENCH_LINKS; i++)
		if (r.pid[i] > 0)
			kill(r.pid[i], SIGTERM);
	unlink(socket + 5);
	rmdir(folder);
	return rc ? 1 : 0;
}
