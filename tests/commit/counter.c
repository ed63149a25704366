/* SPDX-License-Identifier: MIT */
/*
 * counter FILE THREADS [PAUSE_US]: each thread appends "THREAD N" to FILE for N = 0, 1, 2, … and
 * never ends. Two of it that both run, be it for one instruction of one thread, write a line twice.
 * Each has memory of its own that follows from N, and looks at it as it goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define WORDS 4096

static int file;
static long pause_ns = 500000;

static uint32_t word(unsigned me, unsigned place, unsigned round)
{
	return round ? (me + 1) * 2654435761u ^ place * 40503u ^ round : 0;
}

/* At the end, as the file is opened to be appended to: the descriptor's offset stays 0, so that the
 * file may be another one where the process goes. Where there is no room it waits. */
static void say(const char *line, int size)
{
	while (pwrite(file, line, (size_t)size, 0) != size) {
		if (errno != ENOSPC && errno != ENOMEM)
			abort();
		nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
	}
}

/* One word is written anew, and one that was is looked at. */
static void check(uint32_t *words, unsigned me, unsigned n)
{
	unsigned round = n / WORDS + 1, now = n % WORDS, other = n * 7919u % WORDS;
	char line[48];

	if (words[now] == word(me, now, round - 1) &&
		words[other] == word(me, other, other < now ? round : round - 1)) {
		words[now] = word(me, now, round);
		return;
	}
	say(line, snprintf(line, sizeof(line), "wrong memory of %u at %u\n", me, n));
	abort();
}

static void *count(void *arg)
{
	struct timespec pause = {.tv_nsec = pause_ns};
	unsigned me = (unsigned)(uintptr_t)arg;
	uint32_t *words = calloc(WORDS, sizeof(*words));

	for (unsigned n = 0; words; n++) {
		char line[32];

		check(words, me, n);
		/* 16 bytes, so that none is written in two halves, on two pages. */
		say(line, snprintf(line, sizeof(line), "%3u %11u\n", me, n));
		nanosleep(&pause, NULL);
	}
	abort();
}

int main(int argc, char **argv)
{
	unsigned threads = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
	pthread_t other;

	/* Whoever started it may have wanted it to end with him; where it goes it has other
	 * parents. */
	prctl(PR_SET_PDEATHSIG, 0);
	if (argc > 3)
		pause_ns = atol(argv[3]) * 1000;
	file = argc > 1 ? open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
	if (file < 0)
		return 1;
	for (unsigned i = 1; i < threads; i++)
		if (pthread_create(&other, NULL, count, (void *)(uintptr_t)i))
			return 1;
	count(NULL);
	return 0;
}
