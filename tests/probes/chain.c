/* SPDX-License-Identifier: MIT */
/*
 * chain: moves on from where it has landed. The process saves itself to PATH, the process made from
 * that looks at itself and saves itself to PATH.2, and so on; the fourth says what all four found.
 */
#include "tests/probes/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOVES 3

static volatile sig_atomic_t got;

static void on_signal(int signo)
{
	got = signo;
}

static void *thread(void *arg)
{
	return malloc(1000) ? arg : NULL;
}

/* The C library, on each machine anew; what it leaves in memory moves on. */
static void look_at_library(unsigned move)
{
	struct timespec a, b;
	pthread_t t;
	void *back = NULL;
	int status = 0;
	pid_t pid;

	for (size_t n = 1; n < (size_t)8 << 20; n *= 3) {
		char *p = malloc(n);

		if (!p)
			probe_lost("move %u: malloc of %zu", move, n);
		else
			memset(p, (int)move, n);
		if (n % 2)
			free(p);
	}
	if (pthread_create(&t, NULL, thread, &a) || pthread_join(t, &back) || back != &a)
		probe_lost("move %u: a thread", move);
	got = 0;
	raise(SIGUSR2);
	if (got != SIGUSR2)
		probe_lost("move %u: a signal", move);
	pid = fork();
	if (!pid)
		_exit(7);
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		probe_lost("move %u: fork", move);
	if (clock_gettime(CLOCK_MONOTONIC, &a) ||
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL) ||
		clock_gettime(CLOCK_MONOTONIC, &b) ||
		(b.tv_sec == a.tv_sec && b.tv_nsec < a.tv_nsec + 1000000))
		probe_lost("move %u: the clock stands still", move);
	if (telefork_generation() != move)
		probe_lost("move %u: the generation is %u", move, telefork_generation());
}

int main(int argc, char **argv)
{
	struct telefork_result r;
	struct probe_args a;
	char path[4096];
	int rc;

	if (!probe_parse(argc, argv, "chain", &a) || !a.file)
		return 64;
	mem_seed = a.seed;
	signal(SIGUSR2, on_signal);
	mem_areas_make();
	look_at_library(0);
	for (unsigned move = 1; move <= MOVES; move++) {
		snprintf(path, sizeof(path), move > 1 ? "%s.%u" : "%s", a.address, move);
		rc = telefork_save(path, &a.options, &r);
		if (rc)
			return rc < 0 ? probe_error("chain", rc, r.message) : 0;
		mem_areas_check();
		look_at_library(move);
	}
	probe_count("moves", MOVES);
	probe_count("areas", mem_counts.areas);
	probe_count("bytes compared", mem_counts.bytes);
	return probe_say(STDOUT_FILENO);
}
