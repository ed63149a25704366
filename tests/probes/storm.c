/* SPDX-License-Identifier: MIT */
/*
 * storm MODE [MIB]: like later, a program that says "ready", and when it finds itself to be another
 * process (or SIGUSR1 comes) does at once what is hardest for whoever brings its memory meanwhile:
 *
 *   threads   64 of them touch everything at once, each in an order of its own, and write to it
 *   forks     it forks while its memory comes; its children and their children move, unmap and give
 *             up parts, each differently, fork again, and each checks all that it has
 *   shared    beside private memory it has shared (anonymous, and of a memfd that it also reads and
 *             writes by its descriptor), with children that write to it
 *   huge      memory for huge pages, a half of which it gives up and touches anew
 *   holes     pages here and there of a large area have never been touched: some of them are at
 *             once, and of the others there is nothing when all else has come (from 33 MiB on it is
 *             looked for only then)
 *   early     what is wanted before any memory can come: its list of robust locks is a page of
 *             zeros; and signals come all the time, and are handled on a stack that comes later
 *   pressure  what has come is pushed out again (MADV_PAGEOUT) while more is coming, twice over
 *
 * threads, huge and pressure have memory as well that is locked, wiped in a fork, or in none.
 *
 * "right", exit code 0, or what was wrong.
 */
#include "tests/probes/later.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 64u
#define PARTS   8u
#define DEPTH   3u
#define OWN     8192u /* words */

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static uint64_t *area, words, page;
static uint64_t *shared[2]; /* anonymous, of a memfd */
static int memfd;
static uint64_t *own; /* what a fork has not, and only smaps tells */
static pthread_barrier_t all_there;

static uint64_t *map(uint64_t bytes, int flags, int fd)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		wrong("mmap", (uint64_t)errno);
	return p;
}

static void fill(uint64_t *p, uint64_t n, uint64_t seed)
{
	for (uint64_t i = 0; i < n; i++)
		p[i] = mix(i + seed);
}

static void check(const uint64_t *p, uint64_t from, uint64_t to, uint64_t seed, const char *what)
{
	for (uint64_t i = from; i < to; i++)
		if (p[i] != mix(i + seed))
			wrong(what, i * 8);
}

static void check_zero(const uint64_t *p, uint64_t from, uint64_t to, const char *what)
{
	for (uint64_t i = from; i < to; i++)
		if (p[i])
			wrong(what, i * 8);
}

static void await_child(pid_t pid)
{
	int status;

	if (pid < 0)
		wrong("fork", (uint64_t)errno);
	if (waitpid(pid, &status, 0) != pid || status)
		wrong("a child's end", (uint64_t)status);
}

/* --- threads --- */

static uint64_t divisor(uint64_t a, uint64_t b)
{
	return b ? divisor(b, a % b) : a;
}

/* Reads a word of every page, each thread in another order, and has a word of each page for itself.
 */
static void *toucher(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg, in_page = page / 8, pages = words / in_page;
	uint64_t at = mix(me) % pages, stride = 2 * me + 1;

	pthread_barrier_wait(&all_there);
	while (divisor(pages, stride) > 1) /* it is to meet all of them, once */
		stride += 2;
	for (uint64_t n = 0; n < pages; n++, at = (at + stride) % pages) {
		uint64_t i = at * in_page + me;

		if (area[i] != mix(i))
			wrong("read by a thread", i * 8);
		area[i] = ~mix(i);
	}
	return NULL;
}

static void run_threads(void)
{
	pthread_t thread[THREADS];
	uint64_t in_page = page / 8;

	pthread_barrier_init(&all_there, NULL, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, toucher, (void *)i))
			wrong("pthread_create", (uint64_t)errno);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (uint64_t i = 0; i < words; i++) {
		uint64_t w = area[i];

		if (i % in_page >= THREADS ? w != mix(i) : w != mix(i) && w != ~mix(i))
			wrong("after the threads", i * 8);
	}
}

/* --- forks --- */

/* Of its PARTS parts, this one's first is moved, its second given up, its third unmapped; what that
 * is differs from process to process, and a child has what its parent has left. */
struct parts {
	uint64_t *at[PARTS]; /* NULL: unmapped */
	bool empty[PARTS];
};

static void check_parts(const struct parts *p)
{
	uint64_t n = words / PARTS;

	for (unsigned i = 0; i < PARTS; i++)
		if (p->at[i] && p->empty[i])
			check_zero(p->at[i], n / 4, n / 2, "given up");
		else if (p->at[i])
			check(p->at[i], 0, n, i * n, "a part");
}

static void change(struct parts *p, unsigned which)
{
	uint64_t n = words / PARTS * 8, *to;
	unsigned i = which % PARTS;

	if (p->at[i]) {
		to = map(n, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (mremap(p->at[i], n, n, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
			wrong("mremap", (uint64_t)errno);
		p->at[i] = to;
	}
	i = (which + 3) % PARTS;
	if (p->at[i] && madvise(p->at[i] + n / 32, n / 4, MADV_DONTNEED))
		wrong("madvise", (uint64_t)errno);
	p->empty[i] = true;
	i = (which + 5) % PARTS;
	if (p->at[i] && munmap(p->at[i], n))
		wrong("munmap", (uint64_t)errno);
	p->at[i] = NULL;
}

static void family(const struct parts *parts, unsigned depth, unsigned which)
{
	struct parts mine = *parts;
	pid_t child[2];

	for (unsigned i = 0; i < 2 && depth; i++) {
		child[i] = fork();
		if (!child[i]) {
			change(&mine, which + 7 * depth + i);
			family(&mine, depth - 1, 3 * which + i);
			_exit(0);
		}
	}
	check_parts(&mine);
	for (unsigned i = 0; i < 2 && depth; i++)
		await_child(child[i]);
}

static void run_forks(void)
{
	struct parts parts = {0};

	for (unsigned i = 0; i < PARTS; i++)
		parts.at[i] = area + i * (words / PARTS);
	family(&parts, DEPTH, 1);
	check(area, 0, words, 0, "all of it");
}

/* --- shared --- */

static void make_shared(void)
{
	memfd = memfd_create("storm", 0);
	if (memfd < 0 || ftruncate(memfd, (off_t)words * 8))
		wrong("memfd", (uint64_t)errno);
	shared[0] = map(words * 8, MAP_SHARED | MAP_ANONYMOUS, -1);
	shared[1] = map(words * 8, MAP_SHARED, memfd);
	fill(shared[0], words, 11);
	fill(shared[1], words, 12);
}

static void run_shared(void)
{
	uint64_t half = words / 2, word;
	pid_t child = fork();

	if (!child) {
		check(area, 0, words, 0, "private, in a child");
		fill(area, half, 21);
		for (unsigned i = 0; i < 2; i++) {
			check(shared[i], 0, words, 11 + i, "shared, in a child");
			fill(shared[i], half, 31 + i);
		}
		_exit(0);
	}
	check(shared[1], half, words, 12, "shared");
	await_child(child);
	for (unsigned i = 0; i < 2; i++) {
		check(shared[i], 0, half, 31 + i, "shared, written by a child");
		check(shared[i], half, words, 11 + i, "shared");
	}
	check(area, 0, words, 0, "private, written by a child");
	word = 99;
	if (pwrite(memfd, &word, 8, (off_t)half * 8) != 8 || shared[1][half] != 99)
		wrong("shared, written by its descriptor", half * 8);
	if (pread(memfd, &word, 8, (off_t)words * 8 - 8) != 8 || word != mix(words - 1 + 12))
		wrong("shared, read by its descriptor", words * 8 - 8);
}

/* --- huge, pressure --- */

static void run_huge(void)
{
	uint64_t half = words / 2;

	if (madvise(area, half * 4, MADV_DONTNEED))
		wrong("madvise", (uint64_t)errno);
	check_zero(area, 0, half / 2, "huge, given up");
	fill(area, half / 2, 5);
	check(area, 0, half / 2, 5, "huge, given up and filled");
	check(area, half / 2, words, 0, "huge");
}

/* One page in 128, and 16 in a row: still nearly all of it is there. */
static bool is_hole(uint64_t at)
{
	return at % 128 == 5 || (at / 16) % 64 == 9;
}

static void make_holes(void)
{
	for (uint64_t at = 0; at < words * 8 / page; at++)
		if (is_hole(at) && madvise((char *)area + at * page, page, MADV_DONTNEED))
			wrong("madvise", (uint64_t)errno);
}

static void run_holes(void)
{
	uint64_t pages = words * 8 / page, in_page = page / 8;
	unsigned char there;
	unsigned came = 0;

	for (uint64_t at = 0; at < pages; at += 17) /* in the way of what comes by itself */
		if (is_hole(at))
			check_zero(area, at * in_page, (at + 1) * in_page, "a hole");
	for (uint64_t at = 0; at < pages; at++)
		if (!is_hole(at))
			check(area, at * in_page, (at + 1) * in_page, 0, "between holes");
	for (uint64_t at = 0; at < pages; at++) {
		if (!is_hole(at) || !(at % 17))
			continue;
		if (mincore((char *)area + at * page, page, &there) || there & 1)
			came++;
		check_zero(area, at * in_page, (at + 1) * in_page, "a hole");
	}
	if (came > 8) /* what registers and stacks lead to goes first */
		wrong("what is absent has come, pages", came);
}

static volatile sig_atomic_t ticks;

static void tick(int signo)
{
	(void)signo;
	ticks = ticks + 1;
}

static void make_early(void)
{
	const struct itimerval often = {{.tv_usec = 500}, {.tv_usec = 500}};
	struct sigaction action = {.sa_handler = tick, .sa_flags = SA_ONSTACK | SA_RESTART};
	uint64_t *list = map(page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	stack_t stack = {.ss_size = 65536};

	*(volatile uint64_t *)list = 0; /* it is there */
	own = map(OWN * 8, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(own, OWN, 51);
	stack.ss_sp = own;
	if (syscall(SYS_set_robust_list, list, 24) || sigaltstack(&stack, NULL) ||
		sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &often, NULL))
		wrong("a timer", (uint64_t)errno);
}

static void run_early(void)
{
	const struct itimerval never = {0};

	ticks = 0;
	check(area, 0, words, 0, "beside signals");
	while (!ticks)
		;
	if (setitimer(ITIMER_REAL, &never, NULL))
		wrong("a timer", (uint64_t)errno);
}

static void run_pressure(void)
{
	uint64_t step = words / 64;

	for (unsigned round = 0; round < 2; round++)
		for (uint64_t i = 0; i + step <= words; i += step) {
			/* There, of which some is not: told as it is, or pushed out. */
			madvise(area, (i + step) * 8, MADV_PAGEOUT);
			check(area, i, i + step, 0, "pushed out");
			check(area, i / 2, i / 2 + step, 0, "pushed out before");
		}
	check(area, 0, words, 0, "all of it");
}

/* --- what a fork has not --- */

enum kind { NONE, LOCKED, WIPED, LEFT_OUT };

static uint64_t locked(void)
{
	char line[256];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmLck: %llu", &kib);
	if (f)
		fclose(f);
	return kib * 1024;
}

static void make_own(enum kind kind)
{
	static const int advice[] = {[WIPED] = MADV_WIPEONFORK, [LEFT_OUT] = MADV_DONTFORK};

	if (kind == NONE)
		return;
	own = map(OWN * 8, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(own, OWN, 41);
	if (kind == LOCKED ? mlock(own, OWN * 8) : madvise(own, OWN * 8, advice[kind]))
		wrong("memory that a fork has not", (uint64_t)errno);
}

static void check_own(enum kind kind)
{
	if (kind != NONE)
		check(own, 0, OWN, 41, "what a fork has not");
	if (kind == LOCKED && locked() != OWN * 8)
		wrong("locked memory", locked());
}

static const struct {
	const char *name;
	void (*run)(void);
	enum kind own;
} modes[] = {
	{"threads", run_threads, LOCKED},
	{"forks", run_forks, NONE},
	{"shared", run_shared, NONE},
	{"huge", run_huge, WIPED},
	{"holes", run_holes, NONE},
	{"early", run_early, NONE},
	{"pressure", run_pressure, LEFT_OUT},
};

int main(int argc, char **argv)
{
	pid_t pid = getpid();
	unsigned mode = 0;

	while (argc > 1 && mode < sizeof(modes) / sizeof(*modes) &&
		strcmp(modes[mode].name, argv[1]) != 0)
		mode++;
	if (argc < 2 || mode == sizeof(modes) / sizeof(*modes))
		return fprintf(stderr, "usage: storm MODE [MIB]\n"), 2;
	page = (uint64_t)sysconf(_SC_PAGESIZE);
	words = (argc > 2 ? strtoull(argv[2], NULL, 10) : 64) << 17;
	area = map(words * 8, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (modes[mode].run == run_huge)
		madvise(area, words * 8, MADV_HUGEPAGE);
	fill(area, words, 0);
	if (modes[mode].run == run_holes)
		make_holes();
	if (modes[mode].run == run_shared)
		make_shared();
	if (modes[mode].run == run_early)
		make_early();
	make_own(modes[mode].own);
	signal(SIGUSR1, on_usr1);
	puts("ready");
	fflush(stdout);
	while (getpid() == pid && !told)
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	modes[mode].run();
	check_own(modes[mode].own);
	puts("right");
	return 0;
}
