/* SPDX-License-Identifier: MIT */
/*
 * make bench-peers: what peers.sh has measured in a guest, as rows of telefork against CRIU.
 *
 *   peers FOLDER <LINES    a line: what MiB who ms
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <string.h>

#define FIGURES 32

struct figure {
	char what[16], who[24];
	unsigned mib;
	struct bench_series ms;
};

struct figures {
	struct figure of[FIGURES];
	unsigned n;
};

static struct figure *find(struct figures *f, const char *what, unsigned mib, const char *who)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->of[i].mib == mib && !strcmp(f->of[i].what, what) &&
			!strcmp(f->of[i].who, who))
			return &f->of[i];
	return NULL;
}

static int read_lines(struct figures *f)
{
	struct figure line = {0};
	double ms;

	while (scanf("%15s %u %23s %lf", line.what, &line.mib, line.who, &ms) == 4) {
		struct figure *one = find(f, line.what, line.mib, line.who);

		if (!one && f->n == FIGURES)
			return -1;
		if (!one) {
			one = &f->of[f->n++];
			*one = line;
		}
		bench_push(&one->ms, ms);
	}
	return feof(stdin) && f->n ? 0 : -1;
}

int main(int argc, char **argv)
{
	static struct figures all;
	struct bench b = {.rows = json_array(), .curves = json_array()};

	if (argc != 2)
		return fprintf(stderr, "usage: peers FOLDER <LINES\n"), 64;
	if (read_lines(&all))
		return fprintf(stderr, "peers: that is not what peers.sh says\n"), 1;
	printf("%-50s %9s %-19s | %9s | %9s\n", "", "median", "(quartiles)", "CRIU", "at most");
	for (unsigned i = 0; i < all.n; i++) {
		struct figure *f = &all.of[i], *peer = find(&all, f->what, f->mib, "criu");

		if (peer && f != peer)
			bench_add(&b, &f->ms, &peer->ms, bench_median(&peer->ms), "ms", "CRIU's",
				"%s, %u MiB, %s", f->what, f->mib, f->who);
	}
	return bench_report(&b, argv[1]) ? 1 : 0;
}
