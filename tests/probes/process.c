/* SPDX-License-Identifier: MIT */
/* See process.h. Signals above 31 are the C library's and QEMU's. */
#include "tests/probes/process.h"
#include "core/base/host.h"
#include "tests/probes/probe.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIGNALS 32

static sigset_t mask;
static stack_t altstack;
static char stack[65536];
static struct sigaction actions[SIGNALS];
static char comm[16];
static mode_t creation_mask;
static void *brk_before, *robust_before;

static void nothing(int signo)
{
	(void)signo;
}

static void *robust_list(void)
{
	void *head = NULL;
	size_t len;

	return syscall(SYS_get_robust_list, 0, &head, &len) ? NULL : head;
}

static void set_up_signals(uint64_t bits, const int *own, unsigned n)
{
	sigemptyset(&mask);
	for (int i = 1; i < SIGNALS; i++)
		if (bits >> i & 1 && i != SIGKILL && i != SIGSTOP)
			sigaddset(&mask, i);
	for (unsigned i = 0; i < n; i++)
		sigdelset(&mask, own[i]);
	for (int i = SIGSEGV; i; i = i == SIGSEGV ? SIGBUS : i == SIGBUS ? SIGILL : 0)
		sigdelset(&mask, i);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	altstack = (stack_t){.ss_sp = stack, .ss_size = sizeof(stack) - (bits >> 32 & 0xff0)};
	sigaltstack(&altstack, NULL);
	signal(SIGWINCH, SIG_IGN);
	sigaction(SIGURG,
		&(struct sigaction){.sa_handler = nothing, .sa_mask = mask, .sa_flags = SA_RESTART},
		NULL);
}

void process_set_up(uint64_t seed, const int *own, unsigned n)
{
	set_up_signals(probe_next(&seed), own, n);
	for (int i = 1; i < SIGNALS; i++)
		sigaction(i, NULL, &actions[i]);
	for (unsigned i = 0; i < 9; i++)
		comm[i] = (char)('a' + probe_next(&seed) % 26);
	prctl(PR_SET_NAME, comm);
	creation_mask = 0121;
	umask(creation_mask);
	robust_before = robust_list();
	brk_before = sbrk(0);
}

static void compare_actions(const char *whose)
{
	for (int i = 1; i < SIGNALS; i++) {
		const struct sigaction *a = &actions[i];
		struct sigaction b;

		if (sigaction(i, NULL, &b))
			continue;
		if (a->sa_handler != b.sa_handler)
			probe_lost("%ssignal action: handler of SIG%s", whose, sigabbrev_np(i));
		else if (a->sa_flags != b.sa_flags)
			probe_lost("%ssignal action: flags of SIG%s: expected %#x found %#x", whose,
				sigabbrev_np(i), a->sa_flags, b.sa_flags);
		for (int k = 1; k < SIGNALS; k++)
			if (sigismember(&a->sa_mask, k) != sigismember(&b.sa_mask, k))
				probe_lost("%ssignal action: mask of SIG%s: SIG%s", whose,
					sigabbrev_np(i), sigabbrev_np(k));
	}
}

static void compare_signals(const char *whose)
{
	sigset_t now;
	stack_t ss;

	sigprocmask(SIG_SETMASK, NULL, &now);
	for (int i = 1; i < SIGNALS; i++)
		if (sigismember(&now, i) != sigismember(&mask, i))
			probe_lost("%ssignal mask: SIG%s is%s blocked", whose, sigabbrev_np(i),
				sigismember(&now, i) ? "" : " not");
	sigaltstack(NULL, &ss);
	if (ss.ss_sp != altstack.ss_sp || ss.ss_size != altstack.ss_size || ss.ss_flags)
		probe_lost(
			"%salternate stack: expected %p, %zu bytes found %p, %zu bytes, flags %#x",
			whose, altstack.ss_sp, altstack.ss_size, ss.ss_sp, ss.ss_size, ss.ss_flags);
}

/* The C library's own idea of the tid: it writes it into an error-checking mutex. */
static void compare_tid(const char *whose)
{
	pthread_mutexattr_t attr;
	pthread_mutex_t m;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m, &attr);
	pthread_mutex_lock(&m);
	if (m.__data.__owner != gettid())
		probe_lost("%stid: the C library's is %d, the kernel's %d", whose, m.__data.__owner,
			(int)gettid());
	pthread_mutex_unlock(&m);
}

void process_compare(const char *whose)
{
	char name[16] = "";
	mode_t now = umask(0);

	umask(now);
	if (now != creation_mask)
		probe_lost("%sumask: expected %#o found %#o", whose, creation_mask, now);
	prctl(PR_GET_NAME, name);
	if (strcmp(name, comm))
		probe_lost("%sname: expected %s found %s", whose, comm, name);
	if (robust_list() != robust_before)
		probe_lost(
			"%srobust list: expected %p found %p", whose, robust_before, robust_list());
	if (brk_before != (void *)-1 && (uint64_t)syscall(SYS_brk, 0) != (uint64_t)brk_before &&
		!tf_host_emulated())
		probe_lost(
			"%sbreak: expected %p found %#lx", whose, brk_before, syscall(SYS_brk, 0));
	compare_signals(whose);
	compare_actions(whose);
	compare_tid(whose);
}
