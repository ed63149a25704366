/* SPDX-License-Identifier: MIT */
/*
 * spin: captured by a timer's signal at a moment that the seed chooses, inside loops that keep their
 * state in registers (integer and floating point), in malloc, in snprintf, in the vDSO. The process
 * and its copy both have to come to the same sums as an undisturbed run.
 *
 *   spin FILE SEED     writes the image; the process made from it prints "ok"
 */
#include "core/telefork.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 400

struct sums {
	uint64_t integer, text, heap;
	double real[8];
};

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void compute(struct sums *s)
{
	uint64_t x = 88172645463325252u;

	memset(s, 0, sizeof(*s));
	for (int round = 0; round < ROUNDS; round++) {
		double real[8] = {1, 2, 3, 4, 5, 6, 7, 8};
		struct timespec ts;
		char text[64];
		char *p;

		for (int i = 0; i < 2000; i++) {
			s->integer += next(&x);
			for (int k = 0; k < 8; k++)
				real[k] = real[k] * 1.0000001 + (double)(x >> 60);
		}
		for (int k = 0; k < 8; k++)
			s->real[k] += real[k];
		for (int i = 0; i < 50; i++) {
			p = malloc(next(&x) % 5000 + 8);
			memset(p, (int)x, 8);
			s->heap += (unsigned char)p[7];
			free(p);
			snprintf(text, sizeof(text), "%.6f %llu", s->real[0],
				(unsigned long long)x);
			s->text = s->text * 31 + strlen(text) + (unsigned char)text[3];
			clock_gettime(CLOCK_MONOTONIC, &ts);
		}
	}
}

int main(int argc, char **argv)
{
	struct itimerval once = {0};
	struct telefork_result r;
	struct sums expected, found;
	struct timespec a, b;
	uint64_t seed, span;

	if (argc < 3)
		return 64;
	clock_gettime(CLOCK_MONOTONIC, &a);
	compute(&expected);
	clock_gettime(CLOCK_MONOTONIC, &b);
	span = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000 + (uint64_t)(b.tv_nsec - a.tv_nsec) / 1000;
	seed = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15u + 1;
	once.it_value.tv_usec = (suseconds_t)(next(&seed) % (span * 8 / 10 + 1) % 900000 + 1);
	if (telefork_on_signal(SIGALRM, argv[1], NULL))
		return 2;
	setitimer(ITIMER_REAL, &once, NULL);
	compute(&found);
	if (memcmp(&expected, &found, sizeof(found))) {
		printf("the sums differ in %s\n", telefork_generation() ? "the copy" : "the process");
		return 1;
	}
	if (telefork_generation()) {
		printf("ok\n");
		return 0;
	}
	for (;;) { /* bounded by the caller's time limit */
		if (telefork_signal_result(&r))
			break;
		usleep(1000);
	}
	if (r.error)
		fprintf(stderr, "spin: %s: %s\n", telefork_errname(r.error), r.message);
	return r.error ? 2 : 0;
}
