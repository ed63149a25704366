/* SPDX-License-Identifier: MIT */
/* See twin.h. Runs in forked children and in receivers: no allocator, no lock. */
#include "core/base/twin.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define TWIN_STACK 16384

/* On its own stack in our memory. It never gets beyond the stop: its death is what ends it. */
static int twin_main(void *parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != (pid_t)(intptr_t)parent)
		return 0;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return errno;
	for (;;)
		kill(getpid(), SIGSTOP);
}

static pid_t wait_for(pid_t twin, int *status)
{
	pid_t got;

	do
		got = waitpid(twin, status, __WALL);
	while (got < 0 && errno == EINTR);
	return got;
}

void tf_twin_end(pid_t twin)
{
	int status;

	kill(twin, SIGKILL);
	while (wait_for(twin, &status) == twin && WIFSTOPPED(status))
		;
}

pid_t tf_twin_start(struct tf_err *e)
{
	/* Behind us on the stack: free again when the twin stands still for good. */
	_Alignas(16) char stack[TWIN_STACK];
	pid_t twin = clone(twin_main, stack + sizeof(stack), CLONE_VM, (void *)(intptr_t)getpid());
	int status = 0;

	if (twin < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "clone");
	if (wait_for(twin, &status) != twin)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "waitpid");
	if (WIFSTOPPED(status))
		return twin;
	if (WIFSIGNALED(status))
		return tf_fail(e, TELEFORK_E_SYSTEM, "ptrace ends the caller with signal %d",
			WTERMSIG(status));
	return tf_fail_errno(e, TELEFORK_E_SYSTEM, WEXITSTATUS(status), "ptrace");
}
