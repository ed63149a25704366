/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/task/TID/status of all threads, which alone tells their credentials. The kernel takes
 * longer to write one than for all else that is asked of a thread, so a second thread of ours reads
 * them on another processor, while this one asks by ptrace (which only a tracer may), and helps
 * when it is through with that.
 */
#include "core/capture/task_impl.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/maps.h"

#define STATUS  4096  /* bytes of a status without very many groups */
#define FEW     6     /* threads, which are sooner read than a reader begun */
#define READERS 65536 /* bytes of its stack */

static void status_path(
	const struct tf_task *t, const struct tf_traced *x, char path[static TF_TASK_PATH])
{
	snprintf(path, TF_TASK_PATH, "/proc/%d/task/%d/status", (int)t->pid, (int)x->tid);
}

/* The last number of a line: in the process's own pid namespace. 0: this kernel does not tell. */
static pid_t own_tid(const char *status)
{
	const char *line = strstr(status, "\nNSpid:");
	const char *last = line ? memrchr(line + 1, '\t', strcspn(line + 1, "\n")) : NULL;

	return last ? atoi(last + 1) : 0;
}

static void take(struct tf_traced *x, const char *text)
{
	const char *mode = strstr(text, "\nSeccomp:\t");

	x->status = text;
	x->own_tid = own_tid(text);
	x->pending = tf_text_number(text, "\nSigPnd:", 16, 0);
	x->filtered = mode && mode[10] != '0';
}

/* Nothing is taken: it did not work, or the text is longer. */
static void read_one(const struct tf_task *t, struct tf_traced *x, char *text)
{
	char path[TF_TASK_PATH];
	ssize_t n;

	if (x->status_fd < 0) {
		status_path(t, x, path);
		x->status_fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	n = pread(x->status_fd, text, STATUS, 0);
	if (n <= 0 || n == STATUS)
		return;
	text[n] = '\0';
	take(x, text);
}

/* Takes the next that nobody has taken, until there is none. */
static void *read_some(void *task)
{
	struct tf_task *t = task;
	uint32_t i;

	while ((i = atomic_fetch_add(&t->next_status, 1)) < t->n_traced) {
		read_one(t, &t->traced[i], t->status_texts + (size_t)i * STATUS);
		atomic_fetch_add(&t->read_statuses, 1);
	}
	return NULL;
}

int tf_task_status_begin(struct tf_task *t)
{
	sigset_t all, before;
	pthread_attr_t attr;

	t->next_status = t->read_statuses = 0;
	t->status_texts = tf_arena_alloc(&t->capture.arena, (size_t)t->n_traced * STATUS);
	if (!t->status_texts)
		return TELEFORK_E_NOMEM;
	if (t->n_traced < FEW || t->processors < 2)
		return 0;
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, READERS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	t->has_reader = !pthread_create(&t->reader, &attr, read_some, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return 0;
}

static int read_long(struct tf_task *t, struct tf_traced *x)
{
	char path[TF_TASK_PATH], *text;
	size_t size;
	int rc;

	status_path(t, x, path);
	rc = tf_proc_read(&t->capture.arena, path, &text, &size, &t->capture.err);
	if (!rc)
		take(x, text);
	return rc;
}

void tf_task_status_join(struct tf_task *t)
{
	if (t->has_reader)
		pthread_join(t->reader, NULL);
	t->has_reader = false;
}

int tf_task_status_end(struct tf_task *t)
{
	uint64_t until = tf_now_ns() + TF_TASK_AWAKE_NS;
	int rc = 0;

	read_some(t);
	/* The other one is at its last; its own end can wait. */
	while (atomic_load(&t->read_statuses) < t->n_traced && tf_now_ns() < until)
		;
	if (atomic_load(&t->read_statuses) < t->n_traced)
		tf_task_status_join(t);
	for (uint32_t i = 0; i < t->n_traced && !rc; i++)
		if (!t->traced[i].status)
			rc = read_long(t, &t->traced[i]);
	return rc;
}
