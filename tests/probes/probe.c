/* SPDX-License-Identifier: MIT */
/*
 * The common part of the probes: command line, journey, verdict. The verdict is collected in a
 * static buffer, so that a copy whose allocator came to grief can still speak.
 */
#include "tests/probes/probe.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_COUNTS 16

static char lost[16384];
static size_t lost_size;
static struct {
	const char *what;
	uint64_t n;
} counts[MAX_COUNTS];
static volatile sig_atomic_t released;

uint64_t probe_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return z ? z : 1;
}

/* --- the verdict --- */

void probe_lost(const char *format, ...)
{
	size_t room = sizeof(lost) - lost_size;
	va_list ap;
	int n;

	if (room < 256) {
		lost_size = sizeof(lost) - 256;
		room = 256;
	}
	n = snprintf(lost + lost_size, room, "%s", lost_size ? "; " : "");
	va_start(ap, format);
	n += vsnprintf(lost + lost_size + n, room - (size_t)n, format, ap);
	va_end(ap);
	lost_size += (size_t)n < room ? (size_t)n : room - 1;
}

bool probe_lost_any(void)
{
	return lost_size;
}

void probe_count(const char *what, uint64_t n)
{
	unsigned i = 0;

	while (i < MAX_COUNTS - 1 && counts[i].what && strcmp(counts[i].what, what))
		i++;
	counts[i].what = what;
	counts[i].n += n;
}

static void write_all(int fd, const char *s, size_t n)
{
	while (n) {
		ssize_t done = write(fd, s, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			_exit(2); /* nobody listens any more */
		s += done;
		n -= (size_t)done;
	}
}

int probe_say(int fd)
{
	char line[sizeof(lost) + 1024];
	int n = snprintf(line, sizeof(line), "%s", lost_size ? "not ok: " : "ok");

	for (unsigned i = 0; !lost_size && i < MAX_COUNTS && counts[i].what; i++)
		n += snprintf(line + n, sizeof(line) - (size_t)n, "%s%llu %s", i ? ", " : " ",
			(unsigned long long)counts[i].n, counts[i].what);
	n += snprintf(line + n, sizeof(line) - (size_t)n, "%s\n", lost_size ? lost : "");
	write_all(fd, line, (size_t)n);
	return lost_size ? 1 : 0;
}

int probe_hear(const char *name, int fd)
{
	char line[sizeof(lost) + 1024];
	int back = telefork_peer_fd(); /* of a copy that went on */
	size_t n = 0;
	ssize_t got = 1;

	while (n < sizeof(line) - 1 && (!n || line[n - 1] != '\n')) {
		got = read(fd, line + n, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		n++;
	}
	line[n] = 0;
	if (!n || line[n - 1] != '\n')
		n = (size_t)snprintf(
			line, sizeof(line), "not ok: %s: the copy ended without a verdict\n", name);
	fflush(stdout);
	write_all(back < 0 ? STDOUT_FILENO : back, line, n);
	return strncmp(line, "ok", 2) ? 1 : 0;
}

int probe_error(const char *name, int code, const char *message)
{
	fprintf(stderr, "%s: %s: %s\n", name, telefork_errname(code),
		message && *message ? message : telefork_strerror(code));
	return 2;
}

/* --- holding --- */

static void release(int signo)
{
	(void)signo;
	released = 1;
}

void probe_hold_prepare(void)
{
	struct sigaction sa = {.sa_handler = release, .sa_flags = SA_RESTART};

	sigaction(SIGTERM, &sa, NULL);
}

void probe_hold_announce(void)
{
	printf("holding %d\n", (int)getpid());
	fflush(stdout);
}

void probe_hold(void)
{
	probe_hold_announce();
	while (!released)
		;
}

/* One instruction that jumps to itself: whenever one looks, the registers are the same. */
static sigjmp_buf leave;

static void go_on(int signo)
{
	(void)signo;
	siglongjmp(leave, 1);
}

static void wait_here(void)
{
	struct sigaction sa = {.sa_handler = go_on, .sa_flags = SA_RESTART};

	if (sigsetjmp(leave, 1)) {
		signal(SIGTERM, SIG_DFL);
		return;
	}
	sigaction(SIGTERM, &sa, NULL);
	probe_hold_announce();
	for (;;)
		;
}

/* --- the journey --- */

static int usage(const char *name)
{
	fprintf(stderr,
		"usage: %s ADDRESS [--next ADDRESS]... [--token T] [--seed N] "
		"[--hold | --wait]\n",
		name);
	return 64;
}

bool probe_parse(int argc, char **argv, const char *name, struct probe_args *a)
{
	*a = (struct probe_args){.seed = 1, .options = {.deadline_ms = 240000}};
	if (argc < 2 || (argv[1][0] == '-' && argv[1][1])) {
		usage(name);
		return false;
	}
	a->address = a->route[a->stops++] = argv[1];
	a->file = argv[1][0] == '/';
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--hold")) {
			a->hold = true;
		} else if (!strcmp(argv[i], "--next") && i + 1 < argc && a->stops < PROBE_STOPS) {
			a->route[a->stops++] = argv[++i];
		} else if (!strcmp(argv[i], "--wait")) {
			a->wait = true;
		} else if (!strcmp(argv[i], "--token") && i + 1 < argc) {
			a->options.token = argv[++i];
		} else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
			a->seed = strtoull(argv[++i], NULL, 0);
		} else {
			usage(name);
			return false;
		}
	}
	return true;
}

static int copy_main(const struct probe *p, const struct probe_args *a)
{
	int fd = telefork_peer_fd();

	if (a->hold)
		probe_hold();
	p->verify();
	return probe_say(fd < 0 ? STDOUT_FILENO : fd);
}

/* The process goes on as fast as it can while its snapshot travels. */
static void after_snapshot(
	const struct probe *p, const struct probe_args *a, const struct telefork_job *job)
{
	struct pollfd ended = {.fd = telefork_job_fd(job), .events = POLLIN};

	if (a->hold || !p->spoil)
		return;
	do
		p->spoil();
	while (!poll(&ended, 1, 0));
}

/* Which address is next follows from the generation, so that no state of the probe's own changes.
 */
static int by_file(const struct probe *p, const struct probe_args *a)
{
	struct telefork_result r;
	int rc = 0;

	while (!rc && telefork_generation() < a->stops)
		rc = telefork_save(a->route[telefork_generation()], &a->options, &r);
	if (!rc)
		return copy_main(p, a);
	if (rc < 0)
		return probe_error(p->name, rc, r.message);
	if (a->hold)
		probe_hold();
	return 0;
}

static int parent_main(
	const struct probe *p, const struct probe_args *a, int fd, struct telefork_job *job)
{
	struct telefork_result r;
	int rc;

	after_snapshot(p, a, job);
	rc = telefork_wait(job, &r);
	if (rc)
		return probe_error(p->name, rc, r.message);
	if (!r.pid)
		return 0; /* through a pipe: nobody answers */
	fprintf(stderr,
		"%s: pid %d there, %u mappings, %llu bytes, stopped %.3f ms, total %.3f ms\n",
		p->name, (int)r.pid, r.mappings, (unsigned long long)r.memory,
		(double)r.stopped_ns / 1e6, (double)r.total_ns / 1e6);
	if (a->hold)
		probe_hold();
	if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) {
		printf("not ok: a child of the snapshot shows\n");
		return 1;
	}
	return probe_hear(p->name, fd);
}

static int by_socket(const struct probe *p, const struct probe_args *a)
{
	struct telefork_result r;
	struct telefork_job *job;
	int fd, rc = 0;

	while (!rc && telefork_generation() < a->stops) {
		fd = telefork_dial(a->route[telefork_generation()], &a->options, &r);
		if (fd < 0)
			return probe_error(p->name, fd, r.message);
		rc = telefork(fd, &a->options, &job);
	}
	if (!rc)
		return copy_main(p, a);
	return rc < 0 ? probe_error(p->name, rc, NULL) : parent_main(p, a, fd, job);
}

/* PROBE_GO sends it; the copy then stands where the process stands. */
static int by_signal(const struct probe *p, const struct probe_args *a)
{
	struct probe_back back = {.listener = -1};
	struct telefork_result r;
	int rc;

	if (!a->file && !probe_back_open(&back, a->address))
		return 2;
	rc = telefork_on_signal(PROBE_GO, a->address, &a->options);
	if (rc)
		return probe_error(p->name, rc, NULL);
	wait_here();
	if (telefork_generation()) {
		p->verify();
		return probe_back_say(&back);
	}
	if (telefork_signal_result(&r) && r.error)
		return probe_error(p->name, r.error, r.message);
	return a->file ? 0 : probe_back_hear(p->name, &back);
}

int probe_main(int argc, char **argv, const struct probe *p)
{
	struct probe_args a;

	if (!probe_parse(argc, argv, p->name, &a))
		return 64;
	if (a.hold)
		probe_hold_prepare();
	p->set_up(a.seed);
	if (a.wait)
		return by_signal(p, &a);
	return a.file ? by_file(p, &a) : by_socket(p, &a);
}
