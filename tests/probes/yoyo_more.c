/* SPDX-License-Identifier: MIT */
/*
 * yoyo_more: what somebody would do who wants a yoyo to go wrong. Each case goes there and back,
 * and compares what came home with what fork() would have made of it.
 *
 *   yoyo_more ADDRESS [--token T] [CASE]    exit code 0: all as it should be
 */
#include "core/base/host.h"
#include "core/telefork.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE  4096u
#define BLOCK (64u * PAGE)
#define RW    (PROT_READ | PROT_WRITE)

static const char *uri, *now;
static struct telefork_options options;
static struct telefork_result result;
static unsigned failures;

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "yoyo_more: %s: not as it should be: %s\n", now, what);
	failures++;
}

static int go_for(void (*fn)(void *), void *arg, int deadline_ms)
{
	options.deadline_ms = deadline_ms;
	options.result = &result;
	return telefork_yoyo(uri, fn, arg, &options);
}

static void go(void (*fn)(void *), void *arg)
{
	int rc = go_for(fn, arg, 200000);

	if (rc)
		fprintf(stderr, "yoyo_more: %s: %s\n", telefork_errname(rc), result.message);
	check(!rc, "it comes back");
}

static uint8_t *map_at(void *at, size_t size, int prot, int how)
{
	uint8_t *p = mmap(at, size, prot, MAP_ANONYMOUS | how | (at ? MAP_FIXED : 0), -1, 0);

	if (p == MAP_FAILED) {
		perror("yoyo_more: mmap");
		exit(2);
	}
	return p;
}

static bool all(const uint8_t *p, size_t n, uint8_t byte)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != byte)
			return false;
	return true;
}

static unsigned count(const char *folder)
{
	DIR *d = opendir(folder);
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static unsigned maps(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned n = 0;
	int c;

	while (f && (c = getc(f)) != EOF)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

/* --- pages that moved and were not written --- */

struct moved {
	uint8_t *a, *b, *c;
};

static void move(void *arg)
{
	struct moved *m = arg;

	if (mremap(m->a, BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, m->b) != m->b)
		_exit(9);
}

/* The two change places: afterwards nothing is missing anywhere. */
static void swap(void *arg)
{
	struct moved *m = arg;
	int how = MREMAP_MAYMOVE | MREMAP_FIXED;

	if (mremap(m->a, BLOCK, BLOCK, how, m->c) != m->c ||
		mremap(m->b, BLOCK, BLOCK, how, m->a) != m->a ||
		mremap(m->c, BLOCK, BLOCK, how, m->b) != m->b)
		_exit(9);
}

static struct moved blocks(void)
{
	uint8_t *place = map_at(NULL, 8 * BLOCK, PROT_NONE, MAP_PRIVATE);
	struct moved m = {place + BLOCK, place + 3 * BLOCK, place + 5 * BLOCK};

	memset(map_at(m.a, BLOCK, RW, MAP_PRIVATE), 0xaa, BLOCK);
	memset(map_at(m.b, BLOCK, RW, MAP_PRIVATE), 0xbb, BLOCK);
	munmap(m.c, BLOCK);
	return m;
}

static void moved_onto_others(void)
{
	struct moved m = blocks();

	go(move, &m);
	check(all(m.b, BLOCK, 0xaa), "pages moved onto others");
	check(msync(m.a, PAGE, MS_ASYNC) && errno == ENOMEM, "the place they left");
}

static void changed_places(void)
{
	struct moved m = blocks();

	go(swap, &m);
	check(all(m.a, BLOCK, 0xbb) && all(m.b, BLOCK, 0xaa), "two areas that changed places");
}

/* --- a child that wait() does not see shares what was written --- */

static void write_and_share(void *arg)
{
	struct telefork_job *job;
	int fd[2];

	memset(arg, 0xcc, BLOCK);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd)) /* nobody reads: the snapshot stays */
		_exit(9);
	if (telefork(fd[0], NULL, &job) < 0)
		_exit(8);
}

static void shared_with_a_snapshot(void)
{
	uint8_t *p = map_at(NULL, 8 * BLOCK, RW, MAP_PRIVATE);

	memset(p, 1, 8 * BLOCK);
	go(write_and_share, p);
	check(all(p, BLOCK, 0xcc) && all(p + BLOCK, 7 * BLOCK, 1), "pages a telefork() shares");
}

/* --- stacks --- */

static unsigned deep_below(volatile char *above, unsigned pages)
{
	volatile char frame[PAGE];

	frame[0] = (char)(*above + 1);
	return pages ? deep_below(frame, pages - 1) + (unsigned)frame[0] : 0;
}

static unsigned deep(unsigned pages)
{
	volatile char none = 0;

	return deep_below(&none, pages);
}

static void go_deep(void *arg)
{
	*(unsigned *)arg = deep(400);
}

static void grown_stack(void)
{
	unsigned sum = 0, areas = maps();
	pid_t child;
	int status;

	go(go_deep, &sum);
	check(areas == maps(), "no mapping beside the stack");
	check(sum == deep(400), "a sum made deep down");
	child = fork();
	if (!child)
		_exit(deep(1700) == 1); /* as deep as 8 MiB allow, and deeper than over there */
	check(waitpid(child, &status, 0) == child && WIFEXITED(status), "the stack grows on");
}

static ucontext_t back_to;
static uint8_t *beside;

static void change_beside(void *arg)
{
	memset(beside, 0xdd, PAGE);
	memset(beside + BLOCK - 2 * PAGE, 0xdd, PAGE);
	*(int *)arg = 7;
}

static void coroutine(void)
{
	int local = 1;

	go(change_beside, &local);
	check(local == 7, "a variable of the coroutine");
	swapcontext(&(ucontext_t){0}, &back_to);
}

/* The stack is a part of a mapping that holds other things, below it and above. */
static void on_a_coroutine(void)
{
	ucontext_t there;

	beside = map_at(NULL, 4 * BLOCK, RW, MAP_PRIVATE);
	memset(beside, 1, 4 * BLOCK);
	getcontext(&there);
	there.uc_stack.ss_sp = beside + BLOCK;
	there.uc_stack.ss_size = BLOCK;
	makecontext(&there, coroutine, 0);
	swapcontext(&back_to, &there);
	check(all(beside, PAGE, 0xdd) && all(beside + BLOCK - 2 * PAGE, PAGE, 0xdd),
		"what lies below a coroutine's stack");
}

/* --- protections and limits --- */

static void open_up(void *arg)
{
	struct moved *m = arg;

	m->c[0] = 9;
	if (mprotect(m->a, BLOCK, RW))
		_exit(9);
	m->a[5] = 9;
}

/* Over there the limit is another: here it would be too much. */
static void more_than_a_limit(void)
{
	struct moved m = {.a = map_at(NULL, BLOCK, PROT_READ, MAP_PRIVATE)};
	struct rlimit before, none = {0};
	int rc;

	m.c = map_at(NULL, BLOCK, RW, MAP_PRIVATE);
	m.c[0] = 1;
	getrlimit(RLIMIT_DATA, &before);
	none.rlim_max = before.rlim_max;
	if (setrlimit(RLIMIT_DATA, &none) || !mprotect(m.a, PAGE, RW)) {
		setrlimit(RLIMIT_DATA, &before); /* QEMU user mode has no such limit */
		mprotect(m.a, PAGE, PROT_READ);
		return;
	}
	rc = go_for(open_up, &m, 60000);
	setrlimit(RLIMIT_DATA, &before);
	check(rc == TELEFORK_E_LIMIT || rc == TELEFORK_E_NOMEM, "a limit is told");
	check(m.a[5] == 0 && m.c[0] == 1, "nothing changed when a limit hits");
}

/* --- what is left behind --- */

static int is_there(pid_t pid)
{
	return !kill(pid, 0) || errno != ESRCH;
}

static void leave_a_spammer(void *arg)
{
	(void)arg;
	if (!fork())
		for (;;)
			if (write(1, "spam\n", 5) < 0)
				_exit(0);
}

static void leave_strangers(void *arg)
{
	pid_t *left = arg;

	left[0] = fork();
	if (!left[0])
		for (;;)
			pause();
	left[1] =
		left[0]; /* QEMU 7.2 user mode has no subreapers: an escaped one cannot be found */
	if (!tf_host_emulated())
		left[1] = fork();
	if (!left[1]) {
		setsid();
		for (;;)
			pause();
	}
}

/* Waits until they are gone; the test's time limit bounds it. */
static void wait_for_end(const pid_t *left)
{
	for (int i = 0; i < 2; i++)
		while (is_there(left[i]))
			poll(NULL, 0, 1);
}

static void processes_left_behind(void)
{
	pid_t left[2] = {0};
	int out = dup(1), null = open("/dev/null", O_WRONLY);

	dup2(null, 1);
	go(leave_a_spammer, NULL);
	dup2(out, 1);
	close(out);
	close(null);
	go(leave_strangers, left);
	wait_for_end(left);
}

/* Leaves its process group, so that a signal to that does not reach it. */
static void change_group(void *arg)
{
	(void)arg;
	if (setpgid(0, getpgid(getppid())))
		_exit(9);
	for (;;)
		pause();
}

static void out_of_the_group(void)
{
	/* It may pass before there is anybody. */
	for (int ms = 1500; ms < 60000; ms *= 3) {
		result.pid = 0;
		check(go_for(change_group, NULL, ms) == TELEFORK_E_TIMEOUT, "a deadline");
		if (result.pid > 0)
			break;
	}
	check(result.pid > 0, "nobody was there");
	if (result.pid > 0)
		wait_for_end((pid_t[2]){result.pid, result.pid});
}

/* --- standard streams --- */

static void say_much(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		dprintf(1, "one two three\n");
		dprintf(2, "four five six\n");
	}
}

static void closed_streams(void)
{
	int out = fcntl(1, F_DUPFD, 10), err = fcntl(2, F_DUPFD, 10), in = fcntl(0, F_DUPFD, 10);

	close(0);
	close(1);
	close(2);
	go(say_much, NULL);
	dup2(out, 1);
	dup2(err, 2);
	dup2(in, 0);
	close(out);
	close(err);
	close(in);
}

static void say_whole(void *arg)
{
	for (int i = 0; i < *(int *)arg; i++)
		dprintf(1, "0123456789abcdef");
}

/* A pipe that never blocks, read by somebody slow: every byte arrives. */
static void slow_reader(void)
{
	int out = dup(1), fd[2], n = 20000, status;
	pid_t child;

	if (pipe(fd))
		exit(2);
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	child = fork();
	if (!child) {
		char buf[1000];
		ssize_t got, sum = 0;

		close(fd[1]);
		while ((got = read(fd[0], buf, sizeof(buf))) > 0)
			sum += got;
		_exit(sum == n * 16 ? 0 : 1);
	}
	close(fd[0]);
	dup2(fd[1], 1);
	close(fd[1]);
	go(say_whole, &n);
	dup2(out, 1);
	close(out);
	check(waitpid(child, &status, 0) == child && !status, "all of a long output");
}

static void half_a_line(void *arg)
{
	(void)arg;
	printf(" from there\n");
	fprintf(stderr, "a word from there\n");
}

static void buffered(void)
{
	printf("a line");
	go(half_a_line, NULL);
}

/* --- signals --- */

static volatile sig_atomic_t ticks;

static void on_tick(int signo)
{
	(void)signo;
	ticks++;
}

static void tick(void *arg)
{
	(void)arg;
	ticks = 0;
	raise(SIGUSR2);
	ticks += 10;
}

static void signals(void)
{
	pid_t pid = getpid();

	signal(SIGUSR2, on_tick);
	if (!fork()) {
		kill(pid, SIGUSR2);
		_exit(0);
	}
	wait(NULL);
	ticks = 0;
	go(tick, NULL);
	check(ticks == 11, "a signal over there");
	signal(SIGUSR2, SIG_DFL);
}

/* --- the heap's end --- */

static void shrink_and_grow(void *arg)
{
	char **block = arg;

	for (int i = 0; i < 8; i++)
		free(malloc(100000)); /* at the heap's end: free() gives it back */
	for (int i = 0; i < 8; i++) {
		block[i] = malloc(60000);
		memset(block[i], i, 60000);
	}
}

static void heap_end(void)
{
	char *block[16];

	go(shrink_and_grow, block);
	for (int i = 8; i < 16; i++) {
		block[i] = malloc(60000);
		memset(block[i], i, 60000);
	}
	for (int i = 0; i < 16; i++) {
		check(all((uint8_t *)block[i], 60000, (uint8_t)i), "blocks of there and here");
		free(block[i]);
	}
}

/* --- yoyos in a yoyo, and many --- */

static void inner(void *arg)
{
	((int *)arg)[1] = 2;
	((int *)arg)[2] = (int)getpid();
}

static void outer(void *arg)
{
	int *v = arg;

	v[0] = 1;
	v[3] = go_for(inner, v, 60000);
	v[4] = (int)getpid();
}

static void nested(void)
{
	int v[5] = {0};

	go(outer, v);
	check(v[0] == 1 && v[1] == 2 && !v[3], "a yoyo in a yoyo");
	check(v[2] != v[4] && v[4] != getpid() && v[2] != getpid(), "three processes");
}

static void add_one(void *arg)
{
	++*(int *)arg;
	free(malloc(200000));
}

static void many(void)
{
	int n = 0, times = tf_host_emulated() ? 2 : 40;
	unsigned fds, areas;

	go(add_one, &n);
	fds = count("/proc/self/fd");
	areas = maps();
	for (int i = 0; i < times; i++)
		go(add_one, &n);
	check(n == times + 1, "a loop");
	check(fds == count("/proc/self/fd"), "descriptors after a loop");
	check(areas == maps(), "mappings after a loop");
	check(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD,
		"children after a loop");
}

/* No address space for what would come back: told, and nobody is left. */
static void no_address_space(void)
{
	struct rlimit before, little;
	unsigned fds = count("/proc/self/fd");
	int n = 0, rc;

	getrlimit(RLIMIT_AS, &before);
	little = before;
	little.rlim_cur = 512u << 20;
	if (setrlimit(RLIMIT_AS, &little))
		return;
	rc = go_for(add_one, &n, 60000);
	setrlimit(RLIMIT_AS, &before);
	check((rc < 0 && !n) || (!rc && n == 1), "little address space");
	check(fds == count("/proc/self/fd"), "descriptors after a failure");
	check(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD,
		"children after a failure");
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{"moved_onto_others", moved_onto_others},
	{"changed_places", changed_places},
	{"shared_with_a_snapshot", shared_with_a_snapshot},
	{"grown_stack", grown_stack},
	{"on_a_coroutine", on_a_coroutine},
	{"more_than_a_limit", more_than_a_limit},
	{"processes_left_behind", processes_left_behind},
	{"out_of_the_group", out_of_the_group},
	{"closed_streams", closed_streams},
	{"slow_reader", slow_reader},
	{"buffered", buffered},
	{"signals", signals},
	{"heap_end", heap_end},
	{"nested", nested},
	{"many", many},
	{"no_address_space", no_address_space},
};

int main(int argc, char **argv)
{
	const char *only = NULL;

	if (argc < 2)
		return 64;
	uri = argv[1];
	for (int i = 2; i < argc; i++)
		if (!strcmp(argv[i], "--token") && i + 1 < argc)
			options.token = argv[++i];
		else
			only = argv[i];
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (!only || !strcmp(only, cases[i].name)) {
			now = cases[i].name;
			cases[i].run();
		}
	return failures ? 1 : 0;
}
