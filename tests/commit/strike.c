/* SPDX-License-Identifier: MIT */
/* See commit.h. The party runs under ptrace; its system calls on sockets, journal and processes are
 * counted as they begin, and one of them never does. */
#include "tests/commit/commit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS (PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)

struct striker {
	enum tf_party party;
	int left;
	pid_t victim, parent;
	bool struck;
	struct world *w;
	char (*phase)[16];
	char *call;
};

static const struct {
	long nr;
	const char *name;
	bool landing; /* counted for the receiver only: the sender makes hundreds before */
} calls[] = {
	{SYS_connect, "connect", false},
	{SYS_sendto, "sendto", false},
	{SYS_sendmsg, "sendmsg", false},
	{SYS_recvfrom, "recvfrom", false},
	{SYS_linkat, "linkat", false},
	{SYS_renameat, "renameat", false},
#ifdef SYS_rename
	{SYS_rename, "rename", false},
#endif
	{SYS_fsync, "fsync", false},
	{SYS_kill, "kill", false},
	{SYS_pidfd_send_signal, "pidfd_send_signal", false},
	{SYS_clone, "clone", false},
	{SYS_exit_group, "exit_group", false},
	{SYS_ptrace, "ptrace", true},
};

static const char *counted(const struct striker *s, long nr)
{
	for (unsigned i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (calls[i].nr == nr && (!calls[i].landing || s->party != TF_PARTY_SENDER))
			return calls[i].name;
	return NULL;
}

static void hit(struct striker *s, const char *name)
{
	s->struck = true;
	snprintf(s->call, 32, "%s", name);
	phase_of(s->w->here, "moves", s->phase[0]);
	phase_of(s->w->there, "arrivals", s->phase[1]);
	if (s->party == TF_PARTY_RECEIVER)
		kill(s->parent, SIGKILL);
	kill(s->victim, SIGKILL);
}

/* A stop of the victim at a system call. */
static void at_call(struct striker *s)
{
	struct __ptrace_syscall_info info = {0};
	const char *name;

	ptrace(PTRACE_GET_SYSCALL_INFO, s->victim, (void *)sizeof(info), &info);
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return;
	name = counted(s, (long)info.entry.nr);
	if (name && !s->left--)
		hit(s, name);
}

static void stopped(struct striker *s, pid_t pid, int status)
{
	int signo = WSTOPSIG(status), event = status >> 16;

	if (!s->victim && pid != s->parent) { /* the first session: its children are its own */
		s->victim = pid;
		ptrace(PTRACE_SETOPTIONS, pid, NULL, OPTIONS);
	}
	if (pid == s->victim && signo == (SIGTRAP | 0x80) && !s->struck)
		at_call(s);
	if (event || signo == (SIGTRAP | 0x80))
		signo = 0;
	if (pid == s->victim)
		ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)signo);
	else if (pid == s->parent)
		ptrace(PTRACE_CONT, pid, NULL, (void *)(long)signo);
	else /* a later session */
		ptrace(PTRACE_DETACH, pid, NULL, (void *)(long)signo);
}

static void seize(pid_t pid, unsigned long options)
{
	if (ptrace(PTRACE_SEIZE, pid, NULL, options) || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
		die("seize: %s", strerror(errno));
}

/* Until move has ended and, if it was struck, the victim is dead. */
static int follow(struct striker *s, pid_t move)
{
	bool dead = false;
	int code = -1, status;

	while (code < 0 || (s->struck && !dead)) {
		pid_t pid = waitpid(-1, &status, __WALL);

		if (pid < 0)
			die("wait: %s", strerror(errno));
		if (WIFSTOPPED(status)) {
			stopped(s, pid, status);
			continue;
		}
		if (pid == move)
			code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
		if (pid == s->victim)
			dead = true;
		if (pid == s->w->source)
			s->w->source = 0;
		if (pid == s->w->serve)
			s->w->serve = 0;
	}
	return code;
}

/* The parent of a session that was struck, or the session of a move that went well, go on alone. */
static void let_alone(struct striker *s, pid_t pid)
{
	int status;

	if (pid <= 0 || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
		return;
	if (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
		int signo = WSTOPSIG(status);

		if (status >> 16 || signo == (SIGTRAP | 0x80))
			signo = 0;
		ptrace(PTRACE_DETACH, pid, NULL, (void *)(long)signo);
	} else if (pid == s->w->serve) {
		s->w->serve = 0;
	}
}

bool strike(struct world *w, enum tf_party party, int n, char phase[2][16], char call[static 32])
{
	struct striker s = {.party = party, .left = n, .w = w, .phase = phase, .call = call};
	char pid[16];
	const char *argv[] = {telefork, "move", "--idle-time", w->idle, pid, w->to, NULL};
	int hold[2], code;
	pid_t move;

	snprintf(pid, sizeof(pid), "%d", (int)w->source);
	if (pipe(hold))
		die("pipe");
	if (party != TF_PARTY_SENDER) {
		s.parent = w->serve;
		seize(w->serve, OPTIONS | PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE);
	}
	move = start(w, w->here, "move", hold[0], argv);
	if (party == TF_PARTY_SENDER) {
		s.victim = move;
		seize(move, OPTIONS);
	}
	if (write(hold[1], "x", 1) != 1)
		die("pipe");
	code = follow(&s, move);
	close(hold[0]);
	close(hold[1]);
	if (party != TF_PARTY_SENDER && w->serve)
		let_alone(&s, s.parent);
	if (!s.struck && party != TF_PARTY_SENDER)
		let_alone(&s, s.victim);
	if (!s.struck && code)
		die("nobody was killed, and move ended with %d", code);
	return s.struck;
}
