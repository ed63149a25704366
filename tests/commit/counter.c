/* SPDX-License-Identifier: MIT */
/*
 * counter FILE THREADS: each thread appends "THREAD N" to FILE for N = 0, 1, 2, … and never ends.
 * Two of it that both run, be it for one instruction of one thread, write a line twice.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int file;

static void *count(void *arg)
{
	struct timespec pause = {.tv_nsec = 500000};
	unsigned me = (unsigned)(uintptr_t)arg;

	for (unsigned n = 0;; n++) {
		char line[32];
		int size = snprintf(line, sizeof(line), "%u %u\n", me, n);

		if (write(file, line, (size_t)size) != size)
			abort();
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned threads = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
	pthread_t other;

	file = argc > 1 ? open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
	if (file < 0)
		return 1;
	for (unsigned i = 1; i < threads; i++)
		if (pthread_create(&other, NULL, count, (void *)(uintptr_t)i))
			return 1;
	count(NULL);
	return 0;
}
