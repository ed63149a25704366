/* SPDX-License-Identifier: MIT */
/*
 * precopy [MIB [MB_S [SPANS]]]: a program that knows nothing of telefork and never leaves its
 * memory alone: MIB (64) of it, to which it writes MB_S (20) megabytes a second, and slots beside
 * it, of which it writes to, gives up, unmaps, maps anew, moves one over the other, protects,
 * zeroes and forks what it likes. What has to stand in each page it keeps in a list. Threads write
 * to memory of theirs, and hold locks that are far from all that. SPANS (0) pages lie 256 GiB from
 * each other: a receiver has no such room for what comes before. When it finds itself to be another
 * process, or SIGUSR1 comes, all of it is checked: "right" and how long it stood, exit code 0; or
 * what was wrong.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* Linux 5.7 */
#endif

#define SLOTS   64
#define PAGES   128 /* of a slot */
#define THREADS 4
#define LOCKS   37
#define FIRST   UINT64_C(0x300000000000)
#define GAP     (UINT64_C(4) << 20) /* from one slot to the next */
#define HEAP    300                 /* pages of the break, at most */

/* Where its memory is: where spans of addresses touch that the receiver moves as one. */
#define AREA (UINT64_C(0x340000000000) - (UINT64_C(8) << 20))

static size_t page;
static uint64_t seed = 1;
static volatile sig_atomic_t told;
static volatile int stop;
static pid_t me;

struct slot {
	int mapped;
	uint64_t tag[PAGES]; /* in the first and the last word of each page */
};

static struct slot slots[SLOTS];
static uint64_t heap_tag[HEAP], heap_pages;
static uint8_t *heap;
static uint64_t *area, *area_tag, area_pages;
static uint64_t *mine[THREADS], count[THREADS];
static pthread_mutex_t *locks[LOCKS];
static uint64_t spans;

static void __attribute__((noreturn)) wrong(const char *what, uint64_t where)
{
	printf("wrong: %s, %llx\n", what, (unsigned long long)where);
	fflush(stdout);
	_exit(1);
}

static uint64_t any(uint64_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (seed >> 33) % n;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void on_usr1(int signo)
{
	told = signo;
}

static uint64_t *at(unsigned s, unsigned p)
{
	return (uint64_t *)(FIRST + s * GAP + p * page);
}

static void put(uint64_t *to, uint64_t tag)
{
	to[0] = tag;
	to[page / 8 - 1] = tag;
}

static int has(const uint64_t *in, uint64_t tag)
{
	return in[0] == tag && in[page / 8 - 1] == tag && !in[page / 16];
}

static uint64_t *far(uint64_t i)
{
	return (uint64_t *)((i + 1) << 38);
}

/* --- what it does to slots --- */

static void map_slot(unsigned s)
{
	void *p = mmap(at(s, 0), PAGES * page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (s % 5 ? 0 : MAP_NORESERVE), -1, 0);

	if (p == MAP_FAILED)
		wrong("mmap", (uint64_t)errno);
	slots[s].mapped = 1;
	memset(slots[s].tag, 0, sizeof(slots[s].tag));
}

static void write_pages(unsigned s, unsigned p, unsigned n)
{
	for (; n--; p++) {
		slots[s].tag[p] = any(UINT64_C(1) << 31) + 1;
		put(at(s, p), slots[s].tag[p]);
	}
}

static void zero_pages(unsigned s, unsigned p, unsigned n)
{
	memset(at(s, p), 0, n * page);
	memset(slots[s].tag + p, 0, n * sizeof(*slots[s].tag));
}

static void give_up(unsigned s, unsigned p, unsigned n)
{
	if (madvise(at(s, p), n * page, MADV_DONTNEED))
		wrong("madvise", (uint64_t)errno);
	memset(slots[s].tag + p, 0, n * sizeof(*slots[s].tag));
}

static void unmap(unsigned s)
{
	munmap(at(s, 0), PAGES * page);
	slots[s].mapped = 0;
}

static void move(unsigned from, unsigned to, int keep)
{
	if (from == to)
		return;
	if (mremap(at(from, 0), PAGES * page, PAGES * page,
		    MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0),
		    at(to, 0)) == MAP_FAILED) {
		if (keep)
			return;
		wrong("mremap", (uint64_t)errno);
	}
	slots[to] = slots[from];
	if (keep)
		memset(slots[from].tag, 0, sizeof(slots[from].tag));
	slots[from].mapped = keep;
}

static void protect(unsigned s, unsigned p, unsigned n)
{
	static const int prot[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};

	mprotect(at(s, p), n * page, prot[any(3)]);
	mprotect(at(s, p), n * page, PROT_READ | PROT_WRITE);
}

static void fork_and_write(unsigned s)
{
	pid_t child = fork();

	if (!child) {
		put(at(s, 0), 12345);
		_exit(0);
	}
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	write_pages(s, 1, 1);
}

static void change_break(void)
{
	uint64_t to = any(HEAP);

	if (brk(heap + to * page))
		return;
	for (; heap_pages < to; heap_pages++) {
		heap_tag[heap_pages] = any(1000);
		if (heap_tag[heap_pages])
			put((uint64_t *)(void *)(heap + heap_pages * page), heap_tag[heap_pages]);
	}
	heap_pages = to;
}

static void do_something(void)
{
	unsigned s = (unsigned)any(SLOTS), p = (unsigned)any(PAGES);
	unsigned n = (unsigned)any(PAGES - p) + 1, what = (unsigned)any(100);

	if (!slots[s].mapped) {
		map_slot(s);
		write_pages(s, p, n);
	} else if (what < 60) {
		write_pages(s, p, n < 3 ? n : 3);
	} else if (what < 70) {
		give_up(s, p, n);
	} else if (what < 75) {
		zero_pages(s, p, n);
	} else if (what < 80) {
		unmap(s);
	} else if (what < 85) {
		map_slot(s);
	} else if (what < 92) {
		move(s, (unsigned)any(SLOTS), what == 91);
	} else if (what < 96) {
		protect(s, p, n);
	} else if (what < 97) {
		fork_and_write(s);
	} else {
		change_break();
	}
}

/* --- and all the time --- */

static void *writer(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;

	while (!stop) {
		for (unsigned k = 0; k < 16; k++)
			mine[i][k * page / 8] = ++count[i];
		usleep(500);
	}
	return NULL;
}

static void take_locks(void)
{
	pthread_mutexattr_t attr;
	uint8_t *p = mmap(
		NULL, LOCKS * 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		wrong("mmap", (uint64_t)errno);
	for (unsigned i = 0; i < LOCKS; i++) {
		/* Some across two pages, at every place. */
		locks[i] = (pthread_mutex_t *)(void *)(p + (2 * i + 1) * page - 8 * (i % 6));
		pthread_mutexattr_init(&attr);
		pthread_mutexattr_settype(
			&attr, i & 1 ? PTHREAD_MUTEX_RECURSIVE : PTHREAD_MUTEX_ERRORCHECK);
		if (i % 3 == 2)
			pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
		pthread_mutex_init(locks[i], &attr);
		pthread_mutex_lock(locks[i]);
	}
}

static void check(void)
{
	for (unsigned s = 0; s < SLOTS; s++) {
		for (unsigned p = 0; slots[s].mapped && p < PAGES; p++)
			if (!has(at(s, p), slots[s].tag[p]))
				wrong("a page of a slot", (uint64_t)at(s, p));
		if (!slots[s].mapped && !msync(at(s, 0), page, MS_ASYNC))
			wrong("a slot that is not there", (uint64_t)at(s, 0));
	}
	for (uint64_t p = 0; p < area_pages; p++)
		if (!has(area + p * page / 8, area_tag[p]))
			wrong("a page of the area", p);
	for (uint64_t p = 0; p < heap_pages; p++)
		if (!has((uint64_t *)(void *)(heap + p * page), heap_tag[p]))
			wrong("a page of the heap", p);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned k = 0; k < 16; k++)
			if (mine[i][k * page / 8] != count[i] - 15 + k)
				wrong("a thread's memory", i);
	for (uint64_t i = 0; i < spans; i++)
		if (!has(far(i), i + 1))
			wrong("a page far away", i);
	for (unsigned i = 0; i < LOCKS; i++)
		if (pthread_mutex_unlock(locks[i]))
			wrong("a lock that it holds", i);
	/* A mapping that it had as one is one. */
	if (mremap(area, area_pages * page, (area_pages + 1) * page, MREMAP_MAYMOVE) == MAP_FAILED)
		wrong("the area is in pieces", (uint64_t)errno);
}

static void set_up(uint64_t mib)
{
	free(malloc(1000)); /* the C library's own heap lies below */
	area_pages = (mib << 20) / page;
	area = mmap((void *)AREA, area_pages * page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	area_tag = mmap(
		NULL, area_pages * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED || area_tag == MAP_FAILED)
		wrong("mmap", (uint64_t)errno);
	for (uint64_t p = 0; p < area_pages; p++)
		put(area + p * page / 8, area_tag[p] = p + 1);
	for (uint64_t i = 0; i < spans; i++) {
		if (mmap(far(i), page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != far(i))
			wrong("mmap", (uint64_t)errno);
		put(far(i), i + 1);
	}
	for (unsigned s = 0; s < SLOTS; s++) {
		map_slot(s);
		write_pages(s, 0, PAGES);
	}
	heap = (uint8_t *)(((uintptr_t)sbrk((intptr_t)(2 * page)) + page - 1) & ~(page - 1));
	for (unsigned i = 0; i < THREADS; i++) {
		mine[i] = mmap(NULL, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
		if (mine[i] == MAP_FAILED)
			wrong("mmap", (uint64_t)errno);
	}
	take_locks();
}

/* Until it is somewhere else; how long it stood then. */
static uint64_t run(double bytes_s)
{
	uint64_t start = now_ns(), last = start, now, written = 0;

	for (;;) {
		pid_t pid = getpid();

		now = now_ns();
		if (pid != me || told)
			return now - last;
		last = now;
		for (unsigned k = 0; k < 64; k++) {
			uint64_t p = any(area_pages);

			if ((double)written * (double)page > (double)(now - start) / 1e9 * bytes_s)
				break;
			put(area + p * page / 8, ++area_tag[p]);
			written++;
		}
		do_something();
		usleep(200);
	}
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 64, stood;
	pthread_t thread[THREADS];

	page = (size_t)sysconf(_SC_PAGESIZE);
	me = getpid();
	spans = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	signal(SIGUSR1, on_usr1);
	set_up(mib);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, writer, (void *)i))
			wrong("a thread", i);
	printf("ready\n");
	fflush(stdout);
	stood = run(argc > 2 ? strtod(argv[2], NULL) * 1e6 : 20e6);
	stop = 1;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	check();
	printf("right, stood %.1f ms\n", (double)stood / 1e6);
	return 0;
}
