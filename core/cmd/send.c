/* SPDX-License-Identifier: MIT */
/*
 * telefork dump, copy and move: a running process, captured from outside, into a file or to a
 * receiver. Whatever fails or dies before the commit, the process here goes on as if nothing had
 * been. A move commits like this:
 *
 *   memory is out | SIGSTOP, which outlives us | trailer | answer: kill it | no answer: it stays
 * stopped
 *
 * The receiver makes no process without the trailer, and nobody runs it here again without knowing.
 */
#include "core/base/cleanup.h"
#include "core/capture/task.h"
#include "core/cmd/check.h"
#include "core/cmd/cmd.h"
#include "core/cmd/progress.h"
#include "core/telefork_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LANDING_MS 2000

enum what { DUMP, COPY, MOVE };

struct sending {
	enum what what;
	const char *command; /* "telefork move" */
	int pid;
	const char *to, *token_file;
	bool kill, quiet;
	struct tf_allowed allowed;

	struct tf_address address;
	struct tf_task task;
	struct tf_progress progress;
	int fd;
	bool answers, committed;
	uint64_t start_ns, frozen_ns, thawed_ns;
	struct tf_reply reply;
	char message[TELEFORK_MESSAGE_MAX]; /* of a receiver that refuses */
};

enum { KEY_KILL = 256, KEY_ALLOW, KEY_TOKEN, KEY_TCP };

/* --- the way --- */

static int open_channel(struct sending *s)
{
	static char token[TELEFORK_TOKEN_MAX + 1];
	struct telefork_options o = {.token = s->token_file ? token : NULL};
	struct tf_err *e = &s->task.capture.err;
	int rc = s->what == DUMP ? 0 : tf_address_parse(s->to, &s->address, e), flags;

	if (!rc && s->token_file)
		rc = tf_read_token(s->token_file, token, e);
	if (rc)
		return rc;
	s->fd = s->what == DUMP ? tf_file_create(s->to, e) : tf_dial(&s->address, &o, e);
	if (s->fd < 0)
		return s->fd;
	flags = fcntl(s->fd, F_GETFL);
	s->answers = s->what != DUMP && s->address.kind != TF_ADDRESS_FILE &&
		     (flags & O_ACCMODE) == O_RDWR;
	if (s->what != MOVE || s->answers)
		return 0;
	return tf_fail(e, TELEFORK_E_ADDRESS,
		"%s: nobody answers there: move to tcp://host:port, ssh://host or unix:path; to a file: "
		"telefork dump --kill",
		s->to);
}

/* A process that was half asked must not be left by a signal to us. */
static void hold_signals(sigset_t *ret_before)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, ret_before);
}

static int capture(struct sending *s)
{
	sigset_t before;
	int rc;

	hold_signals(&before);
	if (s->what == MOVE || s->kill) { /* it is not to run on */
		rc = tf_task_stop(&s->task, s->pid);
		if (!rc)
			rc = tf_task_describe(&s->task);
	} else {
		rc = tf_task_snapshot(&s->task, s->pid);
	}
	if (!rc && s->task.stands[0])
		fprintf(stderr,
			"%s: process %d stands still until all is written: no fork of it can be "
			"made (%s)\n",
			s->command, s->pid, s->task.stands);
	s->frozen_ns = s->task.stopped_ns;
	s->thawed_ns = s->task.released_ns;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (!rc && s->task.capture.image.source.flags & TF_SOURCE_OUTSIDE)
		rc = tf_fail(&s->task.capture.err, TELEFORK_E_UNSUPPORTED,
			"process %d could not be asked for its signal actions and break", s->pid);
	return rc;
}

static int read_answer(struct sending *s)
{
	struct tf_capture *c = &s->task.capture;

	return tf_reply_read(&c->io, &s->reply, s->message, &c->err);
}

/* When sending fails, the receiver may have said why before it closed. */
static void read_refusal(struct sending *s)
{
	struct tf_capture *c = &s->task.capture;
	struct tf_err why = c->err;

	if (why.code != TELEFORK_E_CLOSED || !s->answers)
		return;
	c->io.idle_ms = 1000;
	c->err = (struct tf_err){0};
	if (!read_answer(s) && s->reply.code)
		tf_fail(&c->err, s->reply.code, "%s", s->message);
	else
		c->err = why;
}

static void thaw(struct sending *s)
{
	tf_progress_end(&s->progress);
	if (!s->thawed_ns)
		s->thawed_ns = tf_now_ns();
}

/* --- ends --- */

static int finish_dump(struct sending *s)
{
	int rc = tf_task_commit(&s->task);

	if (!rc)
		rc = tf_file_publish(s->fd, &s->task.capture.err);
	if (!rc && s->kill && kill(s->pid, SIGKILL))
		rc = tf_fail_errno(&s->task.capture.err, TELEFORK_E_SYSTEM, errno,
			"the image is complete, but process %d could not be killed", s->pid);
	thaw(s);
	return rc;
}

static void release_threads(struct sending *s)
{
	struct tf_arena keep = s->task.capture.arena;

	s->task.capture.arena = (struct tf_arena){0};
	tf_task_release(&s->task);
	s->task.capture.arena = keep;
}

static int finish_copy(struct sending *s)
{
	int rc = tf_task_commit(&s->task);

	if (!rc && s->address.kind == TF_ADDRESS_FILE)
		rc = tf_file_publish(s->fd, &s->task.capture.err);
	release_threads(s); /* it does not wait for the answer */
	thaw(s);
	if (rc || !s->answers)
		return rc;
	s->committed = true;
	rc = read_answer(s);
	return rc              ? rc
	       : s->reply.code ? tf_fail(&s->task.capture.err, s->reply.code, "%s", s->message)
			       : 0;
}

/* Takes our stop back: what was not delivered yet never will be. */
static void unstop(struct sending *s)
{
	if (!s->task.was_stopped)
		kill(s->pid, SIGCONT);
}

static int finish_move(struct sending *s)
{
	struct tf_err *e = &s->task.capture.err;
	sigset_t before;
	int rc;

	hold_signals(&before);
	if (!s->task.was_stopped && kill(s->pid, SIGSTOP))
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "process %d", s->pid);
	rc = tf_task_commit(&s->task);
	if (rc) {
		/* What did not leave whole cannot run over there. */
		unstop(s);
		return rc;
	}
	s->committed = true;
	rc = read_answer(s);
	if (!rc && s->reply.code) {
		s->committed = false;
		unstop(s);
		return tf_fail(e, s->reply.code, "%s", s->message);
	}
	if (!rc && kill(s->pid, SIGKILL))
		rc = tf_fail_errno(e, TELEFORK_E_SYSTEM, errno,
			"it runs over there, but process %d here, which is stopped, could not be "
			"killed",
			s->pid);
	thaw(s);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static int transfer(struct sending *s)
{
	static int (*const finish[])(struct sending *) = {finish_dump, finish_copy, finish_move};
	int rc = capture(s);

	if (rc)
		return rc;
	if (!s->quiet)
		tf_progress_begin(&s->progress);
	s->task.progress = tf_progress_tell;
	s->task.ctx = &s->progress;
	rc = tf_task_save(&s->task, s->fd);
	if (!rc)
		rc = finish[s->what](s);
	thaw(s);
	if (rc && !s->committed)
		read_refusal(s);
	return s->task.capture.err.code ? s->task.capture.err.code : rc;
}

/* --- what is said at the end --- */

static void summarise(const struct sending *s, uint64_t sent)
{
	static const char *const done[] = {"saved", "copied", "moved"};
	/* The process itself may be on standard output. */
	FILE *out = s->address.kind == TF_ADDRESS_STDIO ? stderr : stdout;
	char memory[24], bytes[24];

	if (s->quiet)
		return;
	fprintf(out, "%d %s", s->pid, done[s->what]);
	if (s->answers)
		fprintf(out, ": pid %d", s->reply.pid);
	fprintf(out, ": frozen %.1f ms, total %.1f ms, %s of memory, %s sent\n",
		(double)(s->thawed_ns - s->frozen_ns) / 1e6,
		(double)(tf_now_ns() - s->start_ns) / 1e6,
		tf_bytes_text(s->task.capture.memory, memory), tf_bytes_text(sent, bytes));
}

/* A receiver's refusal has a code of its own that says nothing about the line between. */
static int explain(const struct sending *s, int rc)
{
	if (s->what == MOVE && s->committed && !s->reply.code) {
		tf_complain(s->to, s->task.capture.err.text);
		fprintf(stderr,
			"telefork: no answer came after everything was sent: whether the process "
			"runs "
			"over there is not known.\nIt stays stopped here, as process %d. If it "
			"runs "
			"there: kill -KILL %d. If not: kill -CONT %d\n",
			s->pid, s->pid, s->pid);
		return TF_EXIT_UNKNOWN;
	}
	tf_complain(s->command + strlen("telefork "), s->task.capture.err.text);
	return tf_exit_code(rc);
}

/* The receiver traces the process until its answer has gone; when that is over, it says so by
 * closing its side, and another capture may come. */
static void await_landing(struct sending *s)
{
	struct tf_err quiet = {0};
	char none;

	if (!s->answers)
		return;
	s->task.capture.io.idle_ms = LANDING_MS;
	tf_io_read(&s->task.capture.io, &none, 1, &quiet);
}

static int run(struct sending *s)
{
	uint64_t sent;
	int rc;

	s->start_ns = tf_now_ns();
	s->fd = -1;
	rc = tf_check_first(s->command, s->pid, &s->allowed);
	if (rc)
		return rc;
	signal(SIGPIPE, SIG_IGN);
	rc = open_channel(s);
	if (!rc)
		rc = transfer(s);
	sent = s->task.capture.io.sent ? s->task.capture.io.sent : s->task.capture.sink.data;
	if (rc)
		rc = explain(s, rc);
	else {
		await_landing(s);
		summarise(s, sent);
	}
	tf_task_release(&s->task);
	if (s->fd >= 0)
		tf_file_forget(s->fd);
	tf_closep(&s->fd);
	return rc ? rc : fflush(stdout) ? TF_EXIT_IO : TF_EXIT_OK;
}

/* --- command lines --- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct sending *s = state->input;
	const char *why;

	switch (key) {
	case 'o':
		s->to = arg;
		return 0;
	case 'q':
		s->quiet = true;
		return 0;
	case KEY_KILL:
		s->kill = true;
		return 0;
	case KEY_TOKEN:
		s->token_file = arg;
		return 0;
	case KEY_ALLOW:
		why = tf_allow(&s->allowed, arg);
		if (why)
			argp_error(state, "--allow %s: %s", arg, why);
		return 0;
	case KEY_TCP:
		if (strcmp(arg, "reset") != 0)
			argp_error(state, "--tcp %s: only reset", arg);
		s->task.reset_tcp = s->allowed.kind[TF_OBSTACLE_TCP] = true;
		return 0;
	case ARGP_KEY_ARG:
		if (s->pid && (s->what == DUMP || s->to))
			argp_error(state, s->what == DUMP ? "one PID only" : "one PID and one URI");
		else if (s->pid)
			s->to = arg;
		else if ((s->pid = tf_parse_pid(arg)) < 0)
			argp_error(state, "%s is no process id", arg);
		return 0;
	case ARGP_KEY_END:
		if (!s->pid)
			argp_error(state, "which PID?");
		if (!s->to)
			argp_error(
				state, s->what == DUMP ? "which FILE? say -o FILE" : "which URI?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int command(struct sending *s, const struct argp *argp, int argc, char **argv)
{
	s->command = argv[0];
	if (argp_parse(argp, argc, argv, 0, NULL, s))
		return TF_EXIT_USAGE;
	return run(s);
}

#define ALLOW                                                                      \
	{                                                                          \
		"allow", KEY_ALLOW, "KIND", 0,                                     \
			"Go on without this kind of thing (see telefork check)", 0 \
	}
#define QUIET                                                                   \
	{                                                                       \
		"quiet", 'q', 0, 0, "No progress, and nothing about success", 0 \
	}
#define TCP                                                                               \
	{                                                                                 \
		"tcp", KEY_TCP, "reset", 0,                                               \
			"Go on with TCP connections, which are found reset over there", 0 \
	}
#define TOKEN                                                                       \
	{                                                                           \
		"token-file", KEY_TOKEN, "FILE", 0, "What the receiver asks for", 0 \
	}

int tf_cmd_dump(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"output", 'o', "FILE", 0, "Where the image goes; it appears when it is whole", 0},
		{"kill", KEY_KILL, 0, 0, "End the process once the image is whole", 0},
		ALLOW,
		QUIET,
		TCP,
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID",
		.doc = "Saves a running process as an image. It stands still for as long as a "
		       "fork of it takes.",
		.help_filter = tf_exit_help};
	static struct sending s = {.what = DUMP, .address.kind = TF_ADDRESS_FILE};

	return command(&s, &argp, argc, argv);
}

int tf_cmd_copy(int argc, char **argv)
{
	static const struct argp_option options[] = {TOKEN, ALLOW, TCP, QUIET, {0}};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID URI",
		.doc = "Sends a copy of a running process to a receiver. The original stands still "
		       "for as long as a fork of it takes.",
		.help_filter = tf_exit_help};
	static struct sending s = {.what = COPY};

	return command(&s, &argp, argc, argv);
}

int tf_cmd_move(int argc, char **argv)
{
	static const struct argp_option options[] = {TOKEN, ALLOW, TCP, QUIET, {0}};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID URI",
		.doc = "Moves a running process to a receiver. Until the receiver has all of it, "
		       "whatever fails leaves the process here running as it was. If no answer "
		       "comes "
		       "afterwards, it stays stopped here until you decide.",
		.help_filter = tf_exit_help};
	static struct sending s = {.what = MOVE};

	return command(&s, &argp, argc, argv);
}
