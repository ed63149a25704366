/* SPDX-License-Identifier: MIT */
/* Signals, identity, children, programs: what the kernel and the C library have to agree about. */
#include "tests/probes/clib.h"
#include "tests/probes/probe.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char altstack[65536];
static volatile sig_atomic_t got, got_pid;
static void *volatile handler_sp;
static int exit_pipe = -1;
static void *volatile kept;

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)context;
	got = signo;
	got_pid = info->si_pid;
	handler_sp = __builtin_frame_address(0);
}

static void at_exit(void)
{
	if (exit_pipe >= 0 && write(exit_pipe, "x", 1) < 0)
		_exit(99);
}

void clib_process_make(void)
{
	stack_t ss = {.ss_sp = altstack, .ss_size = sizeof(altstack)};
	struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	sigset_t set;

	sa.sa_sigaction = on_signal;
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	sigaction(SIGRTMIN + 3, &sa, NULL);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	atexit(at_exit);
}

static void check_signals(void)
{
	struct itimerval soon = {.it_value = {.tv_usec = 2000}};
	struct sigaction sa;
	stack_t ss;
	sigset_t set;

	sigprocmask(SIG_SETMASK, NULL, &set);
	clib_expect(sigismember(&set, SIGWINCH) && !sigismember(&set, SIGUSR2), "signal mask");
	clib_expect(!sigaction(SIGUSR2, NULL, &sa) && sa.sa_sigaction == on_signal &&
			    (sa.sa_flags & SA_ONSTACK),
		"signal action");
	clib_expect(!sigaction(SIGHUP, NULL, &sa) && sa.sa_handler == SIG_IGN, "ignored signal");
	clib_expect(!sigaltstack(NULL, &ss) && ss.ss_sp == altstack && !ss.ss_flags, "sigaltstack");
	raise(SIGUSR2);
	clib_expect(got == SIGUSR2 && got_pid == getpid(), "raise");
	clib_expect(
		(char *)handler_sp >= altstack && (char *)handler_sp < altstack + sizeof(altstack),
		"a handler on the alternate stack");
	pthread_kill(pthread_self(), SIGRTMIN + 3);
	clib_expect(got == SIGRTMIN + 3, "pthread_kill, real-time signal");
	got = 0;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	sigfillset(&set);
	sigdelset(&set, SIGALRM);
	sigsuspend(&set);
	clib_expect(got == SIGALRM, "a timer");
}

static void check_identity(void)
{
	siginfo_t info;
	sigset_t set;

	clib_expect(getpid() == (pid_t)syscall(SYS_getpid) && getpid() > 0, "getpid");
	clib_expect(gettid() == getpid(), "gettid");
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH); /* is blocked */
	clib_expect(!kill(getpid(), SIGWINCH) && sigwaitinfo(&set, &info) == SIGWINCH &&
			    info.si_pid == getpid(),
		"kill and sigwaitinfo");
	/* The library asks every thread that it knows of: it must know of one. */
	clib_expect(!setgid(getgid()), "setgid");
}

static int status_of(pid_t pid)
{
	int status = -1;

	return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void no_core(void)
{
	setrlimit(RLIMIT_CORE, &(struct rlimit){0});
}

static void check_children(void)
{
	int fd[2], status;
	char c = 0;
	pid_t pid = fork();

	if (!pid) {
		kept = malloc(1000);
		_exit(getpid() == gettid() && kept ? 7 : 8);
	}
	status = status_of(pid);
	clib_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "fork");
	pid = fork();
	if (!pid) {
		no_core();
		abort();
	}
	status = status_of(pid);
	clib_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "abort");
	pid = fork();
	if (!pid) {
		no_core();
		raise(SIGTERM);
		_exit(0);
	}
	status = status_of(pid);
	clib_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "raise in a child");
	clib_expect(!pipe(fd), "pipe");
	pid = fork();
	if (!pid) {
		exit_pipe = fd[1];
		exit(3);
	}
	close(fd[1]);
	clib_expect(read(fd[0], &c, 1) == 1 && c == 'x', "atexit");
	close(fd[0]);
	status = status_of(pid);
	clib_expect(WIFEXITED(status) && WEXITSTATUS(status) == 3, "exit");
}

static void check_programs(void)
{
	char text[64] = "";
	pid_t pid = -1;
	int status;
	FILE *p;

	if (access("/bin/sh", X_OK)) {
		fprintf(stderr,
			"clib: no /bin/sh here: system, popen and posix_spawn are left out\n");
		return;
	}
	status = system("exit 5");
	clib_expect(WIFEXITED(status) && WEXITSTATUS(status) == 5, "system");
	p = popen("echo $TELEFORK_CLIB", "re");
	clib_expect(
		p && fgets(text, sizeof(text), p) && !strcmp(text, "set over there\n"), "popen");
	clib_expect(p && !pclose(p), "pclose");
	status = posix_spawn(&pid, "/bin/sh", NULL, NULL,
		(char *[]){(char *)"sh", (char *)"-c", (char *)"exit 6", NULL}, environ);
	clib_expect(!status, "posix_spawn");
	status = status_of(pid);
	clib_expect(WIFEXITED(status) && WEXITSTATUS(status) == 6, "posix_spawn");
}

void clib_process_check(void)
{
	check_signals();
	check_identity();
	check_children();
	check_programs();
}
