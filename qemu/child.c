/* SPDX-License-Identifier: MIT */
/*
 * See child.h. The code of the guard and of the program before exec runs in a forked child of
 * a possibly threaded process: it allocates nothing and calls nothing that locks.
 */
#include "qemu/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/io.h"

#define FIRST_HIGH 64 /* passed descriptors stay below, the guard's own above */
#define MAX_FDS    8
#define START_MS   60000
#define KILL_MS    10000

enum { SAY_PID = 1, SAY_ENDED, SAY_NO_EXEC };

struct word {
	int32_t what;
	int32_t value;
};

struct tf_vm_child {
	int sock;
	pid_t guard;
	pid_t pid;
	bool ended;
	int status;
	int exec_errno;
	char program[128];
};

/* What the guard needs; prepared before the fork. */
struct plan {
	const char *const *argv;
	const struct tf_vm_child_fd *fds;
	size_t n;
	int sock;
	int log;
	int null;
	int keep; /* or -1 */
};

static int keep_fd = -1;
static pthread_mutex_t forking = PTHREAD_MUTEX_INITIALIZER;

void tf_vm_fork_lock(void)
{
	pthread_mutex_lock(&forking);
}

void tf_vm_fork_unlock(void)
{
	pthread_mutex_unlock(&forking);
}

void tf_vm_child_keep(int fd)
{
	keep_fd = fd;
}

static void say(int sock, int what, int value)
{
	struct word w = {what, value};

	(void)!send(sock, &w, sizeof(w), MSG_NOSIGNAL);
}

static void become_program(const struct plan *p, pid_t guard) __attribute__((noreturn));

static void become_program(const struct plan *p, pid_t guard)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != guard)
		_exit(126);
	setsid(); /* as in a guest */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(p->null, 0) >= 0 && dup2(p->log, 1) >= 0 && dup2(p->log, 2) >= 0)
		execvp(p->argv[0], (char *const *)p->argv);
	say(p->sock, SAY_NO_EXEC, errno);
	_exit(127);
}

/* Move descriptor *@fd to FIRST_HIGH or above. */
static void lift(int *fd)
{
	*fd = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_HIGH);
}

/* Leaves 0-2, the passed ones at their numbers, and @p's own four at high numbers. */
static void arrange(struct plan *p)
{
	int high[MAX_FDS], *const own[] = {&p->sock, &p->log, &p->null, &p->keep};
	int top = 0;

	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		if (*own[i] >= 0)
			lift(own[i]);
	for (size_t i = 0; i < p->n; i++) {
		high[i] = p->fds[i].from;
		lift(&high[i]);
	}
	close_range(3, FIRST_HIGH - 1, 0);
	for (size_t i = 0; i < p->n; i++) {
		dup2(high[i], p->fds[i].to);
		close(high[i]);
	}
	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		top = *own[i] > top ? *own[i] : top;
	for (int fd = FIRST_HIGH; fd < top; fd++)
		if (fd != p->sock && fd != p->log && fd != p->null && fd != p->keep)
			close(fd);
	close_range((unsigned int)top + 1, ~0u, 0);
}

/* SIGKILL to everything that is the guard's child: the program, and what it left behind. */
static void kill_children(void)
{
	int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
	char buf[512];
	pid_t pid = 0;
	ssize_t n;

	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] >= '0' && buf[i] <= '9') {
				pid = pid * 10 + (buf[i] - '0');
			} else if (pid > 0) {
				kill(pid, SIGKILL);
				pid = 0;
			}
		}
	}
	if (fd >= 0)
		close(fd);
}

/* Reap what has ended; false when no child is left. *@program becomes 0 with its end. */
static bool reap(int sock, pid_t *program)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != *program)
			continue;
		say(sock, SAY_ENDED, status);
		*program = 0;
	}
	return pid == 0;
}

/*
 * Watch the program and the harness; whichever goes first, the other learns or dies. It goes on
 * until nothing is left of what the program started, since orphans are the guard's to reap.
 */
static void watch(int sock, int signals, pid_t pid)
{
	struct pollfd fds[2] = {{.fd = sock, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	bool killing = false;
	char byte;

	do {
		poll(fds, 2, -1);
		if (fds[1].revents)
			(void)!read(signals, &info, sizeof(info));
		if (fds[0].revents) {
			killing = true;
			if (pid)
				kill(pid, SIGKILL);
			if (recv(sock, &byte, 1, MSG_DONTWAIT) <= 0)
				fds[0].fd = -1;
		}
		if (killing)
			kill_children();
	} while (reap(sock, &pid));
}

static void run_guard(struct plan *p) __attribute__((noreturn));

static void run_guard(struct plan *p)
{
	sigset_t chld;
	pid_t self, pid;
	int signals;

	setsid();
	prctl(PR_SET_NAME, "tf-guard");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	arrange(p);
	dup2(p->null, 0);
	dup2(p->log, 1);
	dup2(p->log, 2);
	sigfillset(&chld);
	sigprocmask(SIG_UNBLOCK, &chld, NULL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signals = signalfd(-1, &chld, SFD_CLOEXEC);
	self = getpid();
	pid = fork();
	if (pid == 0)
		become_program(p, self);
	for (size_t i = 0; i < p->n; i++)
		close(p->fds[i].to);
	say(p->sock, SAY_PID, pid < 0 ? -errno : pid);
	if (pid > 0)
		watch(p->sock, signals, pid);
	_exit(0);
}

/* Take in one word of the guard; false if none came in time. */
static bool hear(struct tf_vm_child *c, int timeout_ms)
{
	struct word w;
	ssize_t n;

	if (poll(&(struct pollfd){.fd = c->sock, .events = POLLIN}, 1, timeout_ms) <= 0)
		return false;
	n = recv(c->sock, &w, sizeof(w), MSG_DONTWAIT);
	if (n != (ssize_t)sizeof(w)) {
		/* The guard is gone; its end has killed the program. */
		if (n == 0 || errno != EAGAIN) {
			c->ended = true;
			c->status = SIGKILL;
		}
		return n == 0;
	}
	if (w.what == SAY_PID)
		c->pid = w.value;
	if (w.what == SAY_NO_EXEC)
		c->exec_errno = w.value;
	if (w.what == SAY_ENDED) {
		c->ended = true;
		c->status = w.value;
	}
	return true;
}

static int await_pid(struct tf_vm_child *c)
{
	int64_t deadline = tf_vm_now_ms() + START_MS;

	while (!c->pid && !c->ended) {
		if (!hear(c, tf_vm_left_ms(deadline)) && !tf_vm_left_ms(deadline))
			return -ETIMEDOUT;
	}
	if (c->pid < 0)
		return c->pid;
	return c->pid ? 0 : -ECHILD;
}

static int fork_guard(struct plan *p, int ours, struct tf_vm_child *c)
{
	int rc;

	c->sock = ours;
	tf_vm_fork_lock();
	c->guard = fork();
	rc = c->guard < 0 ? -errno : 0;
	if (c->guard == 0)
		run_guard(p);
	tf_vm_close_fd(&p->sock);
	if (rc == 0) /* by then it has closed what is not its own */
		rc = await_pid(c);
	tf_vm_fork_unlock();
	return rc;
}

int tf_vm_child_start(const char *const argv[], const struct tf_vm_child_fd *fds, size_t n,
	const char *log, struct tf_vm_child **ret_child, struct tf_vm_error *err)
{
	tf_vm_autoclose int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	tf_vm_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct plan p = {argv, fds, n, -1, log_fd, null_fd, keep_fd};
	struct tf_vm_child *c;
	int pair[2], rc;

	if (n > MAX_FDS)
		return tf_vm_fail(err, -E2BIG, "%s: %zu descriptors to pass", argv[0], n);
	if (log_fd < 0 || null_fd < 0)
		return tf_vm_fail_errno(err, -errno, "open %s", log);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return tf_vm_fail_errno(err, -errno, "socketpair");
	p.sock = pair[1];
	c = calloc(1, sizeof(*c));
	if (c)
		snprintf(c->program, sizeof(c->program), "%s", argv[0]);
	rc = c ? fork_guard(&p, pair[0], c) : -ENOMEM;
	tf_vm_close_fd(&p.sock);
	if (rc < 0) {
		if (c)
			tf_vm_child_free(c);
		else
			close(pair[0]);
		return tf_vm_fail_errno(err, rc, "start %s", argv[0]);
	}
	*ret_child = c;
	return 0;
}

pid_t tf_vm_child_pid(const struct tf_vm_child *child)
{
	return child->pid;
}

int tf_vm_child_poll_fd(const struct tf_vm_child *child)
{
	return child->sock;
}

bool tf_vm_child_ended(struct tf_vm_child *c, int timeout_ms, int *ret_status)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;

	while (!c->ended) {
		if (!hear(c, tf_vm_left_ms(deadline)) && !tf_vm_left_ms(deadline))
			break;
	}
	if (c->ended && ret_status)
		*ret_status = c->status;
	return c->ended;
}

void tf_vm_child_explain(struct tf_vm_child *c, char *buf, size_t size)
{
	char why[128];

	if (!c->ended)
		snprintf(buf, size, "%s is still running (pid %d)", c->program, (int)c->pid);
	else if (c->exec_errno)
		snprintf(buf, size, "%s could not be executed: %s (is its package installed?)",
			c->program, strerror_r(c->exec_errno, why, sizeof(why)));
	else if (WIFSIGNALED(c->status))
		snprintf(buf, size, "%s was killed by signal %d", c->program, WTERMSIG(c->status));
	else
		snprintf(buf, size, "%s ended with exit status %d", c->program,
			WEXITSTATUS(c->status));
}

void tf_vm_child_signal(struct tf_vm_child *c, int signo)
{
	siginfo_t guard = {0};

	/* While the guard lives, the group is the program's or its orphans'. */
	if (c->pid > 0 && !waitid(P_PID, (id_t)c->guard, &guard, WEXITED | WNOHANG | WNOWAIT) &&
		!guard.si_pid)
		kill(-c->pid, signo);
}

int tf_vm_child_kill(struct tf_vm_child *c)
{
	if (c->ended)
		return 0;
	(void)!send(c->sock, "K", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	return tf_vm_child_ended(c, KILL_MS, NULL) ? 0 : -ETIMEDOUT;
}

void tf_vm_child_free(struct tf_vm_child *c)
{
	if (!c)
		return;
	if (c->pid > 0)
		tf_vm_child_kill(c);
	close(c->sock);
	while (c->guard > 0 && c->ended && waitpid(c->guard, NULL, 0) < 0 && errno == EINTR)
		;
	free(c);
}
