/* SPDX-License-Identifier: MIT */
/*
 * spin: captured by a timer's signal at moments that the seed chooses, in loops that keep their
 * state in registers, in malloc, printf, dlopen, memmove, the vDSO, system calls that are restarted
 * and that are not, the red zone and handlers on an alternate stack. The process and each copy have
 * to come to the same sums as an undisturbed run.
 *
 *   spin FOLDER COUNT SEED
 *
 * Writes COUNT images, one after each byte on standard input, and prints the path of each. The
 * process made from one prints "ok" and the name of the loop it woke up in.
 */
#include "tests/probes/probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS  4
#define LIBRARY "libutil.so.1" /* small, and not loaded otherwise */
#define BLOCK   65536

static const char *phase = "start", *woke_in;
static uint64_t sum;
static int pipe_fd[2];
static timer_t alarm_clock;
static unsigned char block[2][BLOCK];
static char alternate[65536];

static void enter(const char *name)
{
	if (telefork_generation() && !woke_in)
		woke_in = phase;
	phase = name;
}

static void add(uint64_t value)
{
	sum = (sum ^ value) * 0x100000001b3u;
}

/* --- the loops --- */

static void registers(uint64_t *x)
{
	double real[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	uint64_t whole = 0;

	for (int i = 0; i < 4000; i++) {
		whole += probe_next(x);
		for (int k = 0; k < 8; k++)
			real[k] = real[k] * 1.0000001 + (double)(whole >> 60);
	}
	add(whole);
	for (int k = 0; k < 8; k++)
		add((uint64_t)(real[k] * 1024));
}

/* A leaf: on x86_64 its array lies below the stack pointer. */
static __attribute__((noinline)) uint64_t leaf(uint64_t x)
{
	volatile uint64_t below[12];

	for (int i = 0; i < 12; i++)
		below[i] = x + (uint64_t)i;
	for (int i = 0; i < 12; i++)
		x = x * 31 + below[i];
	return x;
}

static void red_zone(uint64_t *x)
{
	uint64_t value = probe_next(x);

	for (int i = 0; i < 3000; i++)
		value = leaf(value);
	add(value);
}

static void allocator(uint64_t *x)
{
	unsigned char *p[16] = {0};

	for (int i = 0; i < 300; i++) {
		uint64_t r = probe_next(x);
		unsigned char **slot = &p[r % 16];
		size_t size = (size_t)(r >> 8) % 6000 + 8;

		if (*slot)
			add((*slot)[7]);
		free(*slot);
		*slot = malloc(size);
		memset(*slot, (int)(r >> 32), 8);
	}
	for (int i = 0; i < 16; i++)
		free(p[i]);
}

static void formatter(uint64_t *x)
{
	char text[128];

	for (int i = 0; i < 60; i++) {
		uint64_t r = probe_next(x);

		add((uint64_t)snprintf(text, sizeof(text), "%.6f %llu %s", (double)r / 3.0,
			(unsigned long long)r, phase));
		add((unsigned char)text[i % 20]);
	}
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void mathematics(uint64_t *x)
{
	double v[64];
	char text[32];

	for (int i = 0; i < 64; i++) {
		v[i] = (double)(probe_next(x) >> 40) / 1e5;
		snprintf(text, sizeof(text), "%.3f", sin(v[i]) + pow(v[i], 0.3) + exp(-v[i]));
		v[i] = strtod(text, NULL);
	}
	qsort(v, 64, sizeof(*v), by_value);
	for (int i = 0; i < 64; i++)
		add((uint64_t)(v[i] * 1e3));
}

static void clock_reader(uint64_t *x)
{
	struct timespec ts;

	for (int i = 0; i < 3000; i++)
		if (clock_gettime(CLOCK_MONOTONIC, &ts))
			add(probe_next(x));
}

static void mover(uint64_t *x)
{
	for (int i = 0; i < 24; i++) {
		uint64_t r = probe_next(x);
		size_t at = r % 4096, n = BLOCK - 4096 - (r >> 16) % 512;

		block[0][at + n / 2] = (unsigned char)(r >> 40);
		memmove(block[1] + at, block[0] + 17, n);
		memmove(block[0], block[1], n);
		add(block[0][n / 3]);
	}
}

/* Not restarted: EINTR, and the rest of the time. */
static void sleeper(uint64_t *x)
{
	struct timespec rest = {.tv_nsec = 20000};

	(void)x;
	while (nanosleep(&rest, &rest) && errno == EINTR)
		;
}

/* Restarted: the alarm's handler writes the byte. A copy has no pipe any more. */
static void reader(uint64_t *x)
{
	struct itimerspec once = {.it_value = {.tv_nsec = 50000}};

	(void)x;
	for (int i = 0; i < 2; i++) {
		char c;

		if (timer_settime(alarm_clock, 0, &once, NULL) || read(pipe_fd[0], &c, 1) != 1) {
			if (!telefork_generation())
				add(1);
			return;
		}
	}
}

/* The loader reads by a descriptor, which a copy finds closed once. */
static void loader(uint64_t *x)
{
	void *library;

	(void)x;
	for (int i = 0; i < 2; i++) {
		library = dlopen(LIBRARY, RTLD_NOW);
		if (!library && telefork_generation())
			library = dlopen(LIBRARY, RTLD_NOW);
		add(library && !dlclose(library));
	}
}

static void captures(int how)
{
	sigset_t capture;

	sigemptyset(&capture);
	sigaddset(&capture, SIGALRM);
	sigprocmask(how, &capture, NULL);
}

static void on_alternate(int signo)
{
	uint64_t x = (uint64_t)signo;

	captures(SIG_UNBLOCK);
	enter("handler");
	for (int i = 0; i < 3000; i++)
		x = leaf(x);
	add(x);
}

static void handler(uint64_t *x)
{
	(void)x;
	/* A copy made between raise()'s asking for the pid and its using it signals the original.
	 */
	captures(SIG_BLOCK);
	raise(SIGUSR2);
	captures(SIG_UNBLOCK);
}

static void on_alarm(int signo)
{
	int saved = errno;

	(void)signo;
	if (write(pipe_fd[1], "", 1) < 0 && !telefork_generation())
		add(2);
	errno = saved;
}

static uint64_t episode(void)
{
	static const struct {
		const char *name;
		void (*loop)(uint64_t *x);
	} loops[] = {
		{"registers", registers},
		{"redzone", red_zone},
		{"malloc", allocator},
		{"printf", formatter},
		{"mathematics", mathematics},
		{"clock", clock_reader},
		{"memmove", mover},
		{"nanosleep", sleeper},
		{"read", reader},
		{"dlopen", loader},
		{"raise", handler},
	};
	uint64_t x = 88172645463325252u;

	sum = 0;
	memset(block, 7, sizeof(block));
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < sizeof(loops) / sizeof(*loops); i++) {
			enter(loops[i].name);
			loops[i].loop(&x);
		}
	enter("between");
	return sum;
}

/* --- the process --- */

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int set_up(const char *path)
{
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	struct sigaction on_stack = {.sa_handler = on_alternate, .sa_flags = SA_ONSTACK};
	struct sigaction plain = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};

	if (sigaltstack(&ss, NULL) || sigaction(SIGUSR2, &on_stack, NULL) ||
		sigaction(SIGUSR1, &plain, NULL) || pipe(pipe_fd) ||
		timer_create(CLOCK_MONOTONIC, &event, &alarm_clock)) {
		perror("spin");
		return 2;
	}
	return telefork_on_signal(SIGALRM, path, NULL) ? 2 : 0;
}

/* One image. Returns 0, an exit code, or -1 in the copy. */
static int capture(uint64_t delay_us, uint64_t expected)
{
	struct itimerval once = {
		.it_value = {(time_t)(delay_us / 1000000), (suseconds_t)(delay_us % 1000000 + 1)}};
	unsigned before = telefork_signal_result(NULL);
	struct telefork_result r;

	setitimer(ITIMER_REAL, &once, NULL);
	do {
		if (episode() != expected) {
			printf("not ok: the sums differ in %s, %s\n",
				telefork_generation() ? "the copy" : "the process",
				woke_in ? woke_in : "?");
			return 1;
		}
		if (telefork_generation()) {
			printf("ok %s\n", woke_in);
			return -1;
		}
	} while (telefork_signal_result(&r) == before);
	if (r.error)
		return probe_error("spin", r.error, r.message);
	return 0;
}

int main(int argc, char **argv)
{
	char current[512], path[512];
	uint64_t expected, span, seed;
	int rc = 0;

	if (argc < 4)
		return 64;
	snprintf(current, sizeof(current), "%s/%s.current", argv[1], argv[3]);
	if (set_up(current))
		return 2;
	span = now_us();
	expected = episode();
	span = now_us() - span;
	seed = strtoull(argv[3], NULL, 0);
	for (int i = 0; i < atoi(argv[2]) && !rc; i++) {
		char go;

		if (read(STDIN_FILENO, &go, 1) != 1)
			return 3;
		snprintf(path, sizeof(path), "%s/%s-%d.tf", argv[1], argv[3], i);
		rc = capture(probe_next(&seed) % span, expected);
		if (!rc && rename(current, path))
			return 2;
		if (!rc)
			printf("%s\n", path);
		fflush(stdout);
	}
	return rc < 0 ? 0 : rc;
}
