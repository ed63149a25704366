/* SPDX-License-Identifier: MIT */
/*
 * alone: one thread that computes until SIGUSR1, and checks every result at once. Prints "ready
 * PID"; in the end "right N" with how many checks there were, exit code 0, or what was wrong, 1. It
 * can be taken from outside as if it knew nothing of telefork, and by itself: SIGUSR2 is a
 * telefork_on_signal() into the file "saved.tf" of the folder where it was started.
 */
#include "core/telefork.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS (64u << 10)

static volatile sig_atomic_t told;
static uint64_t words[WORDS]; /* words[i] is i times the round */
static double *halves;        /* of as many rounds, on the heap */

static void on_tell(int signo)
{
	(void)signo;
	told = 1;
}

static int wrong(const char *what, unsigned long round)
{
	printf("wrong: %s in round %lu\n", what, round);
	return 1;
}

/* One round, of which everything is in registers and memory. */
static int compute(unsigned long round)
{
	uint64_t sum = 0;
	double floating = 0;

	for (uint64_t i = 0; i < WORDS; i++) {
		words[i] += i;
		halves[i] += 0.5;
	}
	for (uint64_t i = 0; i < WORDS; i++) {
		sum += words[i];
		floating += halves[i];
	}
	if (sum != (uint64_t)WORDS * (WORDS - 1) / 2 * round)
		return wrong("the words", round);
	return floating == 0.5 * WORDS * (double)round ? 0 : wrong("the halves", round);
}

int main(void)
{
	char path[4096];
	unsigned long round = 0;

	halves = calloc(WORDS, sizeof(*halves));
	if (!halves || !getcwd(path, sizeof(path) - 16))
		return 2;
	strcat(path, "/saved.tf");
	signal(SIGUSR1, on_tell);
	if (telefork_on_signal(SIGUSR2, path, NULL))
		return 2;
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (!told)
		if (compute(++round))
			return 1;
	printf("right %lu\n", round);
	return 0;
}
