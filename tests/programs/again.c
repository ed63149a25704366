/* SPDX-License-Identifier: MIT */
/*
 * again MIB [soft]: a program that knows nothing of telefork, with MIB of memory that cannot be
 * compressed (soft: to about a half). Says "ready", and then at each SIGUSR1 writes anew to every
 * hundredth page, another each time, and says "changed". Should it find itself to be another
 * process, it looks at all of its memory, and says "right" and ends, or what was wrong.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE  4096u
#define WORDS (PAGE / sizeof(uint64_t))
#define EVERY 100u

static uint64_t *area, pages, words = WORDS; /* words: of a page, that are not there before */
static volatile sig_atomic_t told;

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
	x = (x ^ x >> 27) * UINT64_C(0x81dadef4bc2dd44d);
	return x ^ x >> 33;
}

static uint64_t content(uint64_t page, uint64_t n, uint64_t i)
{
	return mix((n * pages + page) * WORDS + i % words);
}

static void on_usr1(int signo)
{
	told = signo;
}

/* How often a page was written to, after so many changes. */
static uint64_t times(uint64_t page, unsigned changes)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < changes; i++)
		n += page % EVERY == i % EVERY;
	return n;
}

static void fill(uint64_t page, uint64_t n)
{
	for (uint64_t i = 0; i < WORDS; i++)
		area[page * WORDS + i] = content(page, n, i);
}

static int check(unsigned changes)
{
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t n = times(page, changes);

		for (uint64_t i = 0; i < WORDS; i++)
			if (area[page * WORDS + i] != content(page, n, i)) {
				printf("wrong: page %llu, word %llu\n", (unsigned long long)page,
					(unsigned long long)i);
				return 1;
			}
	}
	puts("right");
	return 0;
}

int main(int argc, char **argv)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	unsigned changes = 0;
	pid_t self = getpid();

	pages = strtoull(argc > 1 ? argv[1] : "64", NULL, 10) << 20 >> 12;
	if (argc > 2 && !strcmp(argv[2], "soft"))
		words = WORDS / 2;
	area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return perror("again"), 2;
	for (uint64_t page = 0; page < pages; page++)
		fill(page, 0);
	signal(SIGUSR1, on_usr1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (getpid() == self) {
		nanosleep(&moment, NULL);
		if (!told)
			continue;
		told = 0;
		for (uint64_t page = changes % EVERY; page < pages; page += EVERY)
			fill(page, times(page, changes + 1));
		changes++;
		puts("changed");
	}
	return check(changes);
}
