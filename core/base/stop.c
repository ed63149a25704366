/* SPDX-License-Identifier: MIT */
/* See stop.h. */
#include "core/base/stop.h"
#include "core/base/io.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#define PATIENCE_NS 1000000000 /* somebody else's SIGCONT has taken it */
#define LOOK_NS     50000      /* between two looks whether the thread stands */

/* Until the thread stands; interrupts it if it runs on. The status, or -1. */
static int wait_stop(pid_t pid, bool *interrupted)
{
	uint64_t until = tf_now_ns() + PATIENCE_NS;
	struct timespec step = {.tv_nsec = LOOK_NS};
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, __WALL | WNOHANG);

		if (got == pid)
			return WIFSTOPPED(status) ? status : -1;
		if (got < 0 && errno != EINTR)
			return -1;
		if (!*interrupted && tf_now_ns() > until)
			*interrupted = !ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
		nanosleep(&step, NULL);
	}
}

int tf_stop_take_back(pid_t pid)
{
	bool interrupted = false;
	uintptr_t signo = 0;

	for (;;) {
		int status = -1;

		if (!ptrace(PTRACE_CONT, pid, NULL, (void *)signo))
			status = wait_stop(pid, &interrupted);
		if (status < 0)
			return -ESRCH;
		if (interrupted || (!(status >> 16) && WSTOPSIG(status) == SIGSTOP))
			return 0;
		signo = status >> 16 ? 0 : (uintptr_t)WSTOPSIG(status);
	}
}
