/* SPDX-License-Identifier: MIT */
/*
 * clib: uses the C library after the move, all of it that keeps a state: heap, streams, locale,
 * environment, clocks, randomness, contexts, deep stacks; threads, signals and processes are in
 * files of their own. What is used over there was set up, or used, at home.
 */
#include "tests/probes/clib.h"
#include "tests/probes/probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

unsigned clib_checks;

void clib_expect(int holds, const char *what)
{
	clib_checks++;
	if (!holds)
		probe_lost("%s", what);
}

/* --- heap --- */

#define BLOCKS 2000

static unsigned char *block[BLOCKS];

static size_t block_size(int i)
{
	return (size_t)(i % 40) * (size_t)(i % 7 + 1) * 37 + 1;
}

static void heap_make(void)
{
	for (int i = 0; i < BLOCKS; i++) {
		block[i] = malloc(block_size(i));
		memset(block[i], i, block_size(i));
		if (i % 3 == 0 && i)
			free(block[i - 1]), block[i - 1] = NULL; /* bins are not empty */
	}
}

static void heap_check(void)
{
	int bad = 0;

	for (int i = 0; i < BLOCKS; i++) {
		for (size_t k = 0; block[i] && k < block_size(i); k++)
			bad += block[i][k] != (unsigned char)i;
		block[i] = realloc(block[i], block_size(i) * 5);
		if (block[i])
			memset(block[i], ~i, block_size(i) * 5);
		else
			bad++;
	}
	for (int i = 0; i < BLOCKS; i++)
		free(block[i]);
	clib_expect(!bad, "malloc");
	for (size_t n = 1; n < (size_t)64 << 20; n *= 4) {
		void *p = aligned_alloc(64, (n + 63) & ~(size_t)63);

		clib_expect(p && !((unsigned long)p & 63), "aligned_alloc");
		free(p);
	}
}

/* --- streams, locale, environment --- */

static FILE *stream;
static char *stream_text;
static size_t stream_size;
static char *locale_name;
static long pseudorandom;

static void text_make(void)
{
	locale_name = strdup(setlocale(LC_ALL, "C.UTF-8") ?: "C");
	setenv("TELEFORK_CLIB", "set at home", 1);
	stream = open_memstream(&stream_text, &stream_size);
	fprintf(stream, "%s %.3f", "before", 1.5); /* stays in the stream's buffer */
	srandom(7);
	pseudorandom = random();
	srandom(7);
}

static void text_check(void)
{
	char text[64];
	wchar_t wide[8];
	FILE *f;

	fprintf(stream, " %s %05d", "after", 42);
	fclose(stream);
	clib_expect(!strcmp(stream_text, "before 1.500 after 00042"), "a stream's buffer");
	free(stream_text);
	snprintf(text, sizeof(text), "%a %Lg %s %n", 0.1, 1e30L, "x", &(int){0});
	clib_expect(!strcmp(text, "0x1.999999999999ap-4 1e+30 x "), "printf");
	clib_expect(!strcmp(setlocale(LC_ALL, NULL), locale_name), "locale");
	if (strcmp(locale_name, "C"))
		clib_expect(mbstowcs(wide, "\xc3\xa4\xe2\x82\xac", 8) == 2 && wide[1] == 0x20ac,
			"locale: UTF-8");
	clib_expect(!strcmp(getenv("TELEFORK_CLIB") ?: "", "set at home"), "environment");
	setenv("TELEFORK_CLIB", "set over there", 1);
	clib_expect(!strcmp(getenv("TELEFORK_CLIB"), "set over there"), "setenv");
	f = fopen("/proc/self/stat", "re");
	clib_expect(f && fscanf(f, "%63s", text) == 1 && atoi(text) == getpid(), "fopen");
	if (f)
		fclose(f);
	f = tmpfile();
	if (f) {
		fprintf(f, "%d", 77);
		rewind(f);
		clib_expect(fscanf(f, "%63s", text) == 1 && !strcmp(text, "77"), "tmpfile");
		fclose(f);
	}
}

/* --- clocks --- */

static void clock_check(void)
{
	struct timespec a, b, wait = {.tv_nsec = 3000000};
	struct tm tm;
	time_t now = time(NULL);

	clib_expect(
		!clock_gettime(CLOCK_MONOTONIC, &a) && (a.tv_sec || a.tv_nsec), "clock_gettime");
	clib_expect(!nanosleep(&wait, NULL), "nanosleep");
	clib_expect(!clock_gettime(CLOCK_MONOTONIC, &b) &&
			    (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec >= 3000000,
		"the monotonic clock goes on");
	clib_expect(!clock_gettime(CLOCK_REALTIME, &b) && labs(b.tv_sec - now) < 60,
		"time and clock_gettime agree");
	clib_expect(!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a) &&
			    !clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a),
		"clocks of the process");
	clib_expect(localtime_r(&now, &tm) && tm.tm_year > 69, "localtime");
	clib_expect(sched_getcpu() >= 0, "sched_getcpu");
}

/* --- randomness: who draws after a move draws for himself --- */

static uint64_t drawn;

static void random_check(void)
{
	uint32_t (*arc4)(void) = NULL;
	uint64_t a = 0, b = 0;

	clib_expect(getrandom(&a, sizeof(a), 0) == sizeof(a) &&
			    getrandom(&b, sizeof(b), 0) == sizeof(b) && a != b,
		"getrandom");
	if (getauxval(AT_BASE))
		arc4 = (uint32_t(*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "arc4random");
	if (arc4)
		a = a << 32 | arc4();
	drawn = a;
	clib_expect(random() == pseudorandom, "the state of random()");
}

/* --- contexts, deep stacks, libraries --- */

static ucontext_t home, other;
static char other_stack[65536];
static int steps;
static void *library;

#define LIBRARY "libresolv.so.2" /* of the C library, and in no program unasked */

static void coroutine(void)
{
	for (steps = 1;; steps++)
		swapcontext(&other, &home);
}

static void context_make(void)
{
	getcontext(&other);
	other.uc_stack.ss_sp = other_stack;
	other.uc_stack.ss_size = sizeof(other_stack);
	makecontext(&other, coroutine, 0);
	swapcontext(&home, &other);
	if (getauxval(AT_BASE)) /* not in a static program */
		library = dlopen(LIBRARY, RTLD_NOW);
}

static __attribute__((noinline)) int deep(int n)
{
	volatile char frame[4096];

	frame[n % 4096] = (char)n;
	return n ? deep(n - 1) + (frame[n % 4096] == (char)n) : 0;
}

typedef int (*b64_ntop)(const unsigned char *, size_t, char *, size_t);

static bool library_works(void *handle)
{
	b64_ntop fn = handle ? (b64_ntop)(uintptr_t)dlsym(handle, "__b64_ntop") : NULL;
	char text[8] = "";

	return fn && fn((const unsigned char *)"abc", 3, text, sizeof(text)) == 4 &&
	       !strcmp(text, "YWJj");
}

static void context_check(void)
{
	volatile double one = 1.0;

	swapcontext(&home, &other);
	swapcontext(&home, &other);
	clib_expect(steps == 3, "a context that was suspended");
	clib_expect(deep(1500) == 1500, "deep recursion");
	clib_expect(fabs(sin(one) - 0.8414709848078965) < 1e-15, "libm");
	if (!getauxval(AT_BASE))
		return;
	clib_expect(library_works(library), "a library that was loaded");
	clib_expect(library && !dlclose(library), "dlclose");
	library = dlopen(LIBRARY, RTLD_NOW);
	clib_expect(library_works(library), "dlopen");
}

/* --- all --- */

static void set_up(uint64_t seed)
{
	(void)seed;
	heap_make();
	text_make();
	context_make();
	clib_threads_make();
	clib_process_make();
}

static void verify(void)
{
	heap_check();
	text_check();
	clock_check();
	random_check();
	context_check();
	clib_process_check();
	clib_threads_check();
	probe_count("checks", clib_checks);
	probe_count("was drawn", drawn);
}

int main(int argc, char **argv)
{
	static const struct probe probe = {.name = "clib", .set_up = set_up, .verify = verify};

	return probe_main(argc, argv, &probe);
}
