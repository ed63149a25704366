/* SPDX-License-Identifier: MIT */
/*
 * kills BUILD STRIDE [FIRST]: telefork dump, telefork copy and the beginning of a telefork move
 * --precopy, which finds nobody to move to, are killed (SIGKILL) before their ptrace call number
 * FIRST, FIRST + STRIDE and so on, until they need no more calls than that: with stride 1, at every
 * one. How many calls there are, and which, is not known here: a filter tells of
 * each. The target has ten threads that work, sleep and wait and check themselves (busy), or is the
 * same, stopped by a signal. After each kill it has to be as before: nobody's, in its state, with
 * its threads, descriptors and mappings, but for the one that the page of state.md allows; and in
 * the end it has to come out right, and so have those that arrived at the receiver all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/tools/process.h"

#define STOPPED 3     /* kills in a row of a stopped process */
#define ROOM    65536 /* a killed telefork may leave that much mapped */

static const char *build;
static char folder[] = "/tmp/kills-XXXXXX";
static unsigned failed, kills;

/* --- telefork, killed at a call --- */

static char words[64]; /* a file: what it says on standard error */

static const char *last_words(void)
{
	static char text[1024];
	int fd = open(words, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	close(fd);
	return text;
}

/* Runs in the child: each of its ptrace calls is told to the tracer. */
static void tell_of_ptrace(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	raise(SIGSTOP);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(126);
}

/* The next stop of a tracee, or its end. */
static int next_stop(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	return status;
}

/* Runs it up to its call number at (from 0), which is not made. *ret: its status otherwise. True:
 * it was killed there. */
static bool killed_at(char *const argv[], long at, int *ret)
{
	struct process p;
	int status, fd = open(words, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	long n = 0;

	process_start(&p, argv[0], argv, fd, tell_of_ptrace);
	close(fd);
	waitpid(p.pid, &status, WUNTRACED);
	ptrace(PTRACE_SEIZE, p.pid, NULL, (void *)(PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL));
	kill(p.pid, SIGCONT);
	for (status = next_stop(p.pid); WIFSTOPPED(status); status = next_stop(p.pid)) {
		int event = status >> 16, signo = WSTOPSIG(status);

		if (event == PTRACE_EVENT_SECCOMP && n++ == at)
			kill(p.pid, SIGKILL);
		if (event == PTRACE_EVENT_STOP && signo != SIGTRAP)
			signo = 0;
		ptrace(PTRACE_CONT, p.pid, NULL, (void *)(uintptr_t)(event ? 0 : signo));
	}
	close(p.out);
	*ret = status;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* --- the target --- */

static struct process target, receiver;
static unsigned kills_here; /* of this target */
static struct process_state before;
static const char *what;
static long call; /* of its ptrace calls */

static void complain(const char *text, const char *more)
{
	printf("not ok: %s, killed at call %ld: %s%s\n", what, call, text, more);
	fflush(stdout);
	failed++;
}

static void target_start(void)
{
	char program[512], bytes[64], *argv[] = {program, bytes, NULL};

	snprintf(program, sizeof(program), "%s/probes/busy-pie", build);
	snprintf(bytes, sizeof(bytes), "%s/bytes", folder);
	process_start(&target, program, argv, 2, NULL);
	if (!process_hear(&target, "ready ")) {
		complain("it did not start: ", target.said);
		exit(1);
	}
}

/* A word of /proc/PID/status. */
static void status_of(const char *label, char word[static 16])
{
	char path[64], line[256];
	FILE *f;

	word[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/status", (int)target.pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, label, strlen(label)))
			sscanf(line + strlen(label), "%15s", word);
	if (f)
		fclose(f);
}

/* What was let go in the middle still has to come to a stop that it was in. */
static bool comes_to_state(bool stopped)
{
	struct timespec ms = {.tv_nsec = 1000000};
	char word[16];

	for (int i = 0; i < TF_LIMIT_MS; i++) {
		status_of("State:", word);
		if (stopped ? word[0] == 'T' : word[0] == 'S' || word[0] == 'R')
			return true;
		nanosleep(&ms, NULL);
	}
	return false;
}

static unsigned long size_of(const char *ranges)
{
	unsigned long from, to, size = 0;

	for (; ranges && sscanf(ranges, "%lx-%lx", &from, &to) == 2; ranges = strchr(ranges, '\n'))
		size += to - from, ranges += *ranges == '\n';
	return size;
}

/* A fork of the target that telefork made has to go with it; it is ours to be reaped. */
static bool nobody_else_is_left(void)
{
	struct timespec ms = {.tv_nsec = 1000000};
	char path[64];
	int child, others = 1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	for (int i = 0; i < TF_LIMIT_MS && others; i++) {
		FILE *f = fopen(path, "r");

		others = 0;
		while (f && fscanf(f, "%d", &child) == 1)
			if (child != target.pid && child != receiver.pid)
				others += !waitpid(child, NULL, WNOHANG | __WALL);
		if (f)
			fclose(f);
		if (others)
			nanosleep(&ms, NULL);
	}
	return !others;
}

/* The first child of a process; 0: it has none. */
static pid_t child_of(pid_t pid)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%d", &child) != 1)
		child = 0;
	if (f)
		fclose(f);
	return child;
}

/* What it was in the middle of it ends by itself: it reaps the child in between, if it runs. */
static void look_when_healed(struct process_state *now, bool stopped)
{
	struct timespec ms = {.tv_nsec = 1000000};

	process_look(target.pid, now);
	for (int i = 0;
		i < TF_LIMIT_MS && (now->fds != before.fds || (!stopped && child_of(target.pid)));
		i++) {
		nanosleep(&ms, NULL);
		process_look(target.pid, now);
	}
}

static void check_target(bool stopped)
{
	static struct process_state now;
	char word[16];

	kills_here++;
	if (!nobody_else_is_left())
		complain("a process is left", "");

	status_of("TracerPid:", word);
	if (strcmp(word, "0") != 0)
		complain("its tracer is ", *word ? word : "gone with it");
	if (!comes_to_state(stopped))
		complain(stopped ? "it is not stopped" : "it does not run", "");
	look_when_healed(&now, stopped);
	if (!stopped && child_of(target.pid))
		complain("it has a child", "");
	if (now.fds != before.fds || now.threads != before.threads)
		complain("other descriptors or threads", "");
	if (size_of(now.ranges) < size_of(before.ranges) ||
		size_of(now.ranges) > size_of(before.ranges) + kills_here * (ROOM + 0ul))
		complain("its mappings are now\n", now.maps);
}

/* A stopped process stands where the killed telefork left it, and so does each one's after that,
 * until it goes on. */
static void let_it_run(void)
{
	kill(target.pid, SIGCONT);
	comes_to_state(false);
	kill(target.pid, SIGSTOP);
	if (!comes_to_state(true))
		complain("it is not stopped", "");
}

static void target_end(bool stopped)
{
	int status;

	if (stopped)
		kill(target.pid, SIGCONT);
	kill(target.pid, SIGUSR1);
	if (!process_hear(&target, NULL))
		complain("it does not come to its end", "");
	status = process_end(target.pid);
	if (status || !strstr(target.said, "\nright "))
		complain(WIFSIGNALED(status) ? "ended by a signal: " : "not right: ", target.said);
	close(target.out);
}

/* --- the receiver --- */

static bool receiver_start(char address[static 64])
{
	char program[512], *argv[] = {program, (char *)"serve", address, NULL};
	int log;
	char path[64];

	snprintf(program, sizeof(program), "%s/bin/telefork", build);
	snprintf(path, sizeof(path), "%s/log", folder);
	snprintf(address, 64, "unix:%s/socket", folder);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	process_start(&receiver, program, argv, log, NULL);
	close(log);
	return process_hear(&receiver, "unix:");
}

/* What arrived all the same is told to end, until the receiver has no session any more. */
static void receiver_end(void)
{
	struct timespec ms = {.tv_nsec = 1000000};
	char path[64], line[256];
	FILE *f;

	for (int i = 0; i < TF_LIMIT_MS && child_of(receiver.pid); i++) {
		pid_t copy = child_of(child_of(receiver.pid));

		if (copy > 0)
			kill(copy, SIGCONT), kill(copy, SIGUSR1);
		nanosleep(&ms, NULL);
	}
	if (child_of(receiver.pid))
		complain("the receiver has a session that does not end", "");
	kill(receiver.pid, SIGTERM);
	process_end(receiver.pid);
	close(receiver.out);
	snprintf(path, sizeof(path), "%s/log", folder);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "wrong", 5) || strstr(line, "ended by"))
			complain("at the receiver: ", line);
	if (f)
		fclose(f);
	unlink(path);
}

/* --- all --- */

/* fails: what it ends with, if it does not succeed. */
static void series(char *const argv[], bool stopped, long first, long stride, const char *fails)
{
	int status;
	bool more = true;

	target_start();
	if (stopped)
		kill(target.pid, SIGSTOP);
	comes_to_state(stopped);
	process_look(target.pid, &before);
	kills_here = 0;
	snprintf(argv[2], 16, "%d", (int)target.pid);
	for (call = first; more && failed < 10; call += more ? stride : 0) {
		more = killed_at(argv, call, &status);
		check_target(stopped);
		/* On a busy machine a thread may not come to a stop in time. */
		if (!more && status && strstr(last_words(), "does not stop within"))
			more = true;
		else if (!more && status && !(fails && strstr(last_words(), fails)))
			complain("telefork failed: ", last_words());
		kills += more;
		if (stopped && kills % STOPPED == 0)
			let_it_run();
	}
	printf("%s: to call %ld\n", what, call);
	fflush(stdout);
	target_end(stopped);
}

int main(int argc, char **argv)
{
	char program[512], pid[16], image[64], address[64];
	char *dump[] = {program, (char *)"dump", pid, (char *)"-o", image, NULL};
	char *copy[] = {program, (char *)"copy", pid, address, NULL};
	char *track[] = {
		program, (char *)"move", pid, (char *)"unix:/nowhere", (char *)"--precopy", NULL};
	long stride = argc > 2 ? atol(argv[2]) : 0, first = argc > 3 ? atol(argv[3]) : 0;
	char command[64];
	int fd;

	if (stride < 1) {
		fprintf(stderr, "usage: kills BUILD STRIDE [FIRST]\n");
		return 64;
	}
	build = argv[1];
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (!mkdtemp(folder))
		return 2;
	snprintf(program, sizeof(program), "%s/bin/telefork", build);
	snprintf(image, sizeof(image), "%s/image", folder);
	snprintf(words, sizeof(words), "%s/words", folder);
	setenv("XDG_STATE_HOME", folder, 1);
	snprintf(command, sizeof(command), "%s/bytes", folder);
	fd = open(command, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (unsigned i = 0; i < 256; i++)
		if (write(fd, &(unsigned char){(unsigned char)i}, 1) != 1)
			return 2;
	close(fd);
	for (int stopped = 0; stopped < 2; stopped++) {
		what = stopped ? "dump of a stopped process" : "dump";
		series(dump, stopped, first, stride, NULL);
		what = stopped ? "copy of a stopped process" : "copy";
		if (!receiver_start(address))
			complain("no receiver", "");
		series(copy, stopped, first, stride, NULL);
		receiver_end();
	}
	for (int stopped = 0; stopped < 2; stopped++) {
		what = stopped ? "pre-copy of a stopped process" : "pre-copy";
		series(track, stopped, first, stride, "unix:/nowhere");
	}
	printf("%u kills, %u failures\n", kills, failed);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) || failed;
}
