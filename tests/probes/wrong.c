/* SPDX-License-Identifier: MIT */
/*
 * A probe that fails, always: what the testbed leaves of a failure is tested with it. Its last
 * argument says how: "loses" finds a word changed that it changed itself, "dies" reads where
 * nothing is.
 */
#include <string.h>

#include "tests/probes/probe.h"

static bool dies;
static volatile unsigned word = 0x5eed;
static volatile unsigned *volatile pointer = &word;

static void set_up(uint64_t seed)
{
	(void)seed;
	if (dies)
		pointer = NULL;
	word++;
}

static void verify(void)
{
	if (*pointer != 0x5eed)
		probe_lost("the word: %#x, was %#x", *pointer, 0x5eed);
	probe_count("words", 1);
}

int main(int argc, char **argv)
{
	static const struct probe wrong = {.name = "wrong", .set_up = set_up, .verify = verify};

	if (argc > 2 && (!strcmp(argv[argc - 1], "dies") || !strcmp(argv[argc - 1], "loses"))) {
		dies = argv[argc - 1][0] == 'd';
		argc--;
	}
	return probe_main(argc, argv, &wrong);
}
