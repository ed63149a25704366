/* SPDX-License-Identifier: MIT */
/*
 * Many calls of a thread for one stop. It runs code of ours that makes them one after the other and
 * then takes its frame: should we die, at any moment, it does so without us. The last of the calls
 * sends a signal to the thread itself, one that the process ignores: a tracer sees it before the
 * kernel throws it away.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNANSWERED INT64_MIN

static int fail(struct tf_asking *q, const char *what)
{
	return tf_fail_errno(&q->t->capture.err, TELEFORK_E_SYSTEM, errno, "thread %d: %s",
		(int)q->x->tid, what);
}

static uint64_t bit(int signo)
{
	return UINT64_C(1) << (signo - 1);
}

/* Nobody waits for one that is ignored and not blocked: whoever sends it now as well is heard no
 * less than without us. */
int tf_batch_signal(const struct tf_task *t)
{
	static const struct {
		int signo;
		bool by_default;
	} list[] = {{SIGURG, true}, {SIGWINCH, true}, {SIGCHLD, true}, {SIGPIPE, false},
		{SIGHUP, false}, {SIGUSR1, false}, {SIGUSR2, false}};
	uint64_t ignored = tf_text_number(t->status, "\nSigIgn:", 16, 0);
	uint64_t caught = tf_text_number(t->status, "\nSigCgt:", 16, 0), blocked = 0;

	if (t->capture.image.n_filters)
		return 0;
	for (uint32_t i = 0; i < t->n_traced; i++) {
		blocked |= t->capture.image.threads[i].sigmask;
		if (!t->traced[i].own_tid)
			return 0;
	}
	for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++) {
		uint64_t its = bit(list[i].signo);

		if (!(blocked & its) && (ignored & its || (list[i].by_default && !(caught & its))))
			return list[i].signo;
	}
	return 0;
}

uint32_t tf_batch_compose(const struct tf_asking *q, const struct tf_question *question, uint32_t n,
	struct tf_batch_call *call)
{
	pid_t own;

	memset(call, 0, n * sizeof(*call));
	for (uint32_t k = 0; k < n; k++) {
		call[k].nr = (uint64_t)question[k].nr;
		memcpy(call[k].arg, question[k].arg, sizeof(call[k].arg));
		if (question[k].at)
			call[k].arg[question[k].at] = q->result + k * sizeof(*call) +
						      offsetof(struct tf_batch_call, bytes);
		call[k].result = UNANSWERED;
	}
	if (!q->x->own_tid)
		return n;
	own = q->x == &q->t->shot.x ? q->x->own_tid : q->t->traced[0].own_tid;
	call[n] = (struct tf_batch_call){.nr = SYS_tgkill,
		.arg = {(uint64_t)own, (uint64_t)q->x->own_tid, (uint64_t)q->quiet}};
	return n + 1;
}

static int go_on(struct tf_asking *q, int signo)
{
	if (ptrace(PTRACE_CONT, q->x->tid, NULL, (void *)(uintptr_t)signo))
		return fail(q, "ptrace");
	q->x->stopped = false;
	return 0;
}

int tf_batch_resume(struct tf_asking *q)
{
	return go_on(q, 0);
}

int tf_batch_go(struct tf_asking *q, uint32_t n)
{
	int rc;

	if (tf_arch_task_batch(q->x->tid, &q->x->as_found, &q->way, q->code, q->result, n))
		return fail(q, "set registers");
	rc = tf_asking_hold(q, bit(q->quiet));
	return rc ? rc : go_on(q, 0);
}

int tf_batch_start(struct tf_asking *q, const struct tf_question *question, uint32_t n)
{
	struct tf_batch_call call[TF_ASK_MOST];
	int rc;

	n = tf_batch_compose(q, question, n, call);
	rc = tf_asking_lay(q, call, n);
	return rc ? rc : tf_batch_go(q, n);
}

/* The next stop but of SIGSTOP, which cannot be held and takes its course. */
static int next_stop(struct tf_asking *q, int *ret_event)
{
	uint64_t deadline = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);

	for (;;) {
		int status, event, rc = tf_task_wait_any(q->t, q->x, deadline, &status);

		*ret_event = -1;
		if (rc <= 0) {
			q->x->held = false; /* it has taken its frame */
			return rc;
		}
		event = status >> 16;
		*ret_event = event == PTRACE_EVENT_STOP ? 0 : event;
		if (*ret_event || (!event && WSTOPSIG(status) == q->quiet))
			return 0;
		rc = go_on(q, event ? 0 : WSTOPSIG(status));
		if (rc)
			return rc;
	}
}

int tf_batch_read(struct tf_asking *q, uint32_t n, struct tf_batch_call *call)
{
	return tf_task_read(q->t, q->result, call, n * sizeof(*call));
}

int tf_batch_await(struct tf_asking *q, uint32_t n, struct tf_batch_call *call, int *ret_event)
{
	for (;;) {
		int rc = next_stop(q, ret_event);

		if (!rc && *ret_event < 0 && q->x->own_tid)
			rc = fail(q, "has ended");
		if (!rc && call)
			rc = tf_batch_read(q, n, call);
		if (rc || *ret_event || (call && call[n - 1].result != UNANSWERED))
			return rc;
		/* Somebody else has sent it the same signal. */
		rc = go_on(q, 0);
		if (rc)
			return rc;
	}
}

int tf_batch_take(struct tf_asking *q, const struct tf_question *question, uint32_t n,
	const struct tf_batch_call *call)
{
	int rc = 0;

	for (uint32_t k = 0; k < n && !rc; k++)
		rc = question[k].take(q, &question[k], call[k].result, call[k].bytes);
	return rc;
}

static int take(struct tf_asking *q, const struct tf_question *question, uint32_t n)
{
	struct tf_batch_call call[TF_ASK_MOST];
	int event, rc = tf_batch_await(q, n, call, &event);

	return rc ? rc : tf_batch_take(q, question, n, call);
}

int tf_batch_ask(struct tf_asking *q, const struct tf_question *question, uint32_t n)
{
	int rc = tf_batch_start(q, question, n);

	return rc ? rc : take(q, question, n);
}

static int fill(struct tf_asking *q, const struct tf_question *question, uint32_t n)
{
	struct tf_batch_call call[TF_ASK_CALLS];

	return tf_asking_fill(q, call, tf_batch_compose(q, question, n, call));
}

int tf_batch_ask_wave(struct tf_asking *q, uint32_t first, uint32_t end,
	const struct tf_question *question, uint32_t n)
{
	int rc = 0;

	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = fill(q, question, n);
	}
	if (!rc)
		rc = tf_asking_lay_wave(q, first, end);
	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = tf_batch_go(q, n + 1);
	}
	return rc;
}

int tf_batch_take_wave(struct tf_asking *q, uint32_t first, uint32_t end,
	const struct tf_question *question, uint32_t n)
{
	int rc = 0;

	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = take(q, question, n);
	}
	return rc;
}
