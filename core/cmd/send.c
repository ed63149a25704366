/* SPDX-License-Identifier: MIT */
/*
 * telefork dump, copy and move: a running process, captured from outside, into a file or to a
 * receiver. Whatever fails or dies before the commit, the process here goes on as if nothing had
 * been. A move commits like this (docs/commit.md):
 *
 *   all is out | "prepared" comes | journal: committing | SIGSTOP, which outlives us | commit |
 *   "running" comes: kill it | "gone": it goes on | nothing: ask; no answer: it stays stopped
 */
#include "core/base/cleanup.h"
#include "core/base/stop.h"
#include "core/capture/task.h"
#include "core/cmd/check.h"
#include "core/cmd/cmd.h"
#include "core/cmd/packing.h"
#include "core/cmd/precopy.h"
#include "core/cmd/progress.h"
#include "core/cmd/settle.h"
#include "core/cmd/timing.h"
#include "core/telefork_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LANDING_MS 20000

enum what { DUMP, COPY, MOVE };

struct sending {
	enum what what;
	const char *command; /* "telefork move" */
	int pid;
	const char *to, *token_file, *zygote;
	bool kill, quiet;
	struct telefork_options options; /* of the way */
	struct tf_allowed allowed;
	struct tf_pack_wishes wishes;

	struct tf_address address;
	struct tf_dialing dialing;
	struct tf_task task;
	struct tf_packer *packer; /* NULL: none */
	struct tf_precopy precopy;
	struct tf_progress progress;
	struct tf_timing timing;
	int fd;
	bool answers, committed;
	bool ended;              /* the process here, before it was captured */
	bool lost;               /* a post-copy ran there, and its memory did not get there */
	struct tf_errand errand; /* a move's, with its id */
	struct tf_journal journal;
	struct tf_record record;
	int held; /* the record is ours */
	uint64_t start_ns, frozen_ns, thawed_ns;
	uint64_t split;   /* bytes of its huge pages that are in small ones now */
	uint64_t runs_ns; /* a post-copy runs there from then on, as we hear */
	struct tf_reply reply;
	char message[TELEFORK_MESSAGE_MAX]; /* of a receiver that refuses */
};

enum {
	KEY_KILL = 256,
	KEY_ALLOW,
	KEY_TOKEN,
	KEY_TCP,
	KEY_IDLE,
	KEY_TIMING,
	KEY_LAZY,
	KEY_ZYGOTE,
	KEY_PRECOPY,
	KEY_NO_PRECOPY,
};

/* --- the way --- */

static bool may_answer(int fd)
{
	struct stat st;

	return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && !fstat(fd, &st) &&
	       !S_ISREG(st.st_mode);
}

/* A receiver that does not know of rounds does not know the errand. */
static int dial_at_once(struct sending *s, uint32_t *ret_offers, struct tf_err *e)
{
	int fd = tf_dial(&s->address, &s->options, &s->errand, ret_offers, e);

	if (fd != TELEFORK_E_PROTOCOL || !s->precopy.on)
		return fd;
	tf_precopy_refused(&s->precopy, s->command, e->text);
	s->errand.kind = TF_ERRAND_MOVE;
	*e = (struct tf_err){0};
	return tf_dial(&s->address, &s->options, &s->errand, ret_offers, e);
}

/* The receiver has had time for it. */
static int hear_welcome(void *sending, struct tf_err *e)
{
	struct sending *s = sending;
	uint32_t offers = 0;

	s->fd = tf_dial_finish(&s->dialing, &offers, e);
	return s->fd < 0 ? s->fd : tf_packer_new(&s->wishes, offers, &s->packer, e);
}

/* Of a process that is not stopped at once the receiver's welcome is heard just before that. */
static bool may_hear_later(const struct sending *s)
{
	return s->what == COPY && s->address.kind != TF_ADDRESS_SSH;
}

static int dial(struct sending *s, uint32_t *ret_offers, struct tf_err *e)
{
	if (!may_hear_later(s))
		return dial_at_once(s, ret_offers, e);
	s->task.may_stop = hear_welcome;
	s->task.way = s;
	return tf_dial_start(&s->dialing, &s->address, &s->options, &s->errand, e);
}

static int open_channel(struct sending *s)
{
	static char token[TELEFORK_TOKEN_MAX + 1];
	struct tf_err *e = &s->task.capture.err;
	int rc = s->what == DUMP ? 0 : tf_address_parse(s->to, &s->address, e);
	uint32_t offers = 0;

	s->options.token = s->token_file ? token : NULL;
	if (!rc && s->token_file)
		rc = tf_read_token(s->token_file, token, e);
	if (!rc && s->zygote)
		rc = tf_zygote_errand(&s->address, s->zygote, &s->errand, e);
	if (rc)
		return rc;
	s->fd = s->what == DUMP ? tf_file_create(s->to, e) : dial(s, &offers, e);
	if (s->fd < 0)
		return s->fd;
	s->answers = s->what != DUMP && may_answer(s->fd);
	if (s->answers || (s->what != MOVE && !s->task.post_copy))
		return s->task.may_stop ? 0 : tf_packer_new(&s->wishes, offers, &s->packer, e);
	return tf_fail(e, TELEFORK_E_ADDRESS,
		"%s: nobody answers there%s: %s to tcp://host:port, ssh://host or unix:path; to a file: %s",
		s->to,
		s->what == MOVE ? "" : ", so that nobody could ask for what is to come later",
		s->what == MOVE ? "move" : "copy --lazy",
		s->what == MOVE ? "telefork dump --kill" : "without --lazy");
}

/* What a move is known by should this be the last that is seen of it. */
static int open_journal(struct sending *s)
{
	struct tf_record *r = &s->record;
	struct tf_err *e = &s->task.capture.err;
	int rc = tf_journal_open(&s->journal, "moves", e);

	if (rc)
		return rc;
	s->errand.kind = s->precopy.on ? TF_ERRAND_ROUNDS : TF_ERRAND_MOVE;
	tf_move_id_new(s->errand.id);
	tf_move_id_text(s->errand.id, r->id);
	r->time = time(NULL);
	rc = tf_identity_of(s->pid, &r->process);
	s->ended = rc == -ESRCH;
	if (rc)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, -rc, "process %d", s->pid);
	r->stopped = tf_identity_state(&r->process) == 'T';
	snprintf(r->address, sizeof(r->address), "%s", s->to);
	if (s->token_file && !realpath(s->token_file, r->token_file))
		return tf_fail_errno(e, TELEFORK_E_IO, errno, "%s", s->token_file);
	return 0;
}

/* Once somebody listens. */
static int begin_record(struct sending *s)
{
	struct tf_record *r = &s->record;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", s->pid);
	n = readlink(path, r->exe, sizeof(r->exe) - 1);
	r->exe[n > 0 ? n : 0] = '\0';
	s->held = tf_journal_write(&s->journal, r, &s->task.capture.err);
	if (s->held < 0)
		return s->held;
	fprintf(stderr, "telefork: move %s: process %d to %s\n", r->id, s->pid, s->to);
	return 0;
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
	struct tf_record rounds = {0};
	sigset_t before;
	int rc;

	rc = s->precopy.on ? tf_precopy_run(&s->precopy, s->command, &s->task, s->pid, s->fd,
				     &s->options, s->packer, &s->timing)
			   : 0;
	if (rc)
		return rc;
	if (tf_precopy_note(&s->precopy, &rounds))
		tf_journal_add(s->held, &rounds);
	hold_signals(&before);
	tf_timing_begin(&s->timing, "freeze");
	if (s->what == MOVE || s->kill) { /* it is not to run on */
		rc = s->errand.kind == TF_ERRAND_ROUNDS ? tf_task_halt(&s->task)
							: tf_task_stop(&s->task, s->pid);
		if (!rc)
			rc = tf_precopy_over(&s->precopy, &s->task);
		tf_timing_begin(&s->timing, "description");
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
	return tf_task_answer(&s->task, &s->reply, s->message);
}

/* When sending fails, the receiver may have said why before it closed. */
static void read_refusal(struct sending *s)
{
	struct tf_capture *c = &s->task.capture;
	struct tf_err why = c->err;

	if (why.code != TELEFORK_E_CLOSED || !s->answers || s->fd < 0)
		return;
	c->io.idle_ms = TF_WHY_MS;
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

/* It runs there, and the rest of its memory follows. */
static int serve_later(struct sending *s)
{
	struct tf_reply first = s->reply;
	int rc;

	s->runs_ns = tf_now_ns();
	if (s->task.post_copy && s->task.all_first)
		fprintf(stderr,
			"%s: the receiver cannot wait for memory (no userfaultfd there, or not "
			"allowed): all of it went first\n",
			s->command);
	if (s->task.post_copy)
		tf_timing_begin(&s->timing, "memory");
	rc = tf_task_serve(&s->task, &s->reply, s->message);
	s->reply.pid = first.pid;
	return rc;
}

static int finish_copy(struct sending *s)
{
	int rc = tf_task_commit(&s->task);

	if (!rc && s->address.kind == TF_ADDRESS_FILE)
		rc = tf_file_publish(s->fd, &s->task.capture.err);
	if (!s->task.post_copy) /* it does not wait for the answer */
		release_threads(s);
	if (!s->task.post_copy || !s->task.stands[0])
		thaw(s);
	if (rc || !s->answers)
		return rc;
	s->committed = true;
	tf_timing_begin(&s->timing, "answer");
	rc = read_answer(s);
	if (!rc && s->reply.code)
		rc = tf_fail(&s->task.capture.err, s->reply.code, "%s", s->message);
	return rc ? rc : serve_later(s);
}

/* --- the commit --- */

static int turn(struct sending *s, enum tf_phase to)
{
	int rc = tf_journal_turn(
		&s->journal, s->record.id, s->record.phase, to, &s->task.capture.err);

	if (!rc)
		rc = tf_fail(&s->task.capture.err, TELEFORK_E_SYSTEM,
			"the record of move %s is not in the journal any more", s->record.id);
	if (rc < 0)
		return rc;
	s->record.phase = to;
	return 0;
}

/* Before anything irrevocable is said: it is written down, and our death leaves it stopped. */
static int stand_still(struct sending *s)
{
	struct tf_err *e = &s->task.capture.err;

	if (s->record.stopped != s->task.was_stopped)
		return tf_fail(e, TELEFORK_E_SYSTEM,
			"somebody stopped process %d, or let it go on, in this very moment: try "
			"again",
			s->pid);
	if (turn(s, TF_PHASE_COMMITTING))
		return e->code;
	if (!s->record.stopped && kill(s->pid, SIGSTOP))
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "process %d", s->pid);
	return 0;
}

/* Nothing runs there: our stop is taken back, as if it had never been. */
static void go_on_here(struct sending *s)
{
	if (s->record.phase == TF_PHASE_COMMITTING && !s->record.stopped)
		tf_stop_take_back(s->pid);
	turn(s, TF_PHASE_HERE);
}

static int end_here(struct sending *s)
{
	if (tf_identity_signal(&s->record.process, SIGKILL))
		return tf_fail_errno(&s->task.capture.err, TELEFORK_E_SYSTEM, errno,
			"it runs over there, but process %d here, which is stopped, could not be "
			"killed",
			s->pid);
	return turn(s, TF_PHASE_MOVED);
}

/* Says the word, and hears what became of it: from this connection, or else from another one. */
static int say_commit(struct sending *s)
{
	struct tf_capture *c = &s->task.capture;
	struct tf_err lost = {0}, quiet = {0};

	s->committed = true;
	if (!tf_commit_write(&c->io, s->errand.id, &lost) &&
		!tf_reply_read(&c->io, &s->reply, s->message, &lost))
		return 0;
	s->message[0] = '\0';
	if (tf_settle_ask(&s->record, s->options.idle_ms, &s->reply, &quiet))
		return tf_fail(&c->err, lost.code, "%s; asked anew: %s", lost.text, quiet.text);
	return 0;
}

static int commit(struct sending *s)
{
	struct tf_err *e = &s->task.capture.err;
	int rc = stand_still(s);

	if (!rc)
		rc = say_commit(s);
	else
		go_on_here(s);
	if (rc)
		return rc;
	if (!s->reply.code && s->reply.outcome == TF_OUTCOME_RUNNING && !s->task.post_copy)
		thaw(s);
	if (!s->reply.code && s->reply.outcome == TF_OUTCOME_RUNNING)
		rc = serve_later(s);
	if (rc) {
		s->lost = true;
		return rc;
	}
	if (!s->reply.code && s->reply.outcome == TF_OUTCOME_RUNNING)
		return end_here(s);
	if (!s->reply.code && s->reply.outcome != TF_OUTCOME_GONE)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "the receiver has no record of this move");
	go_on_here(s);
	return tf_fail(e, s->reply.code ? s->reply.code : TELEFORK_E_CLOSED, "%s",
		*s->message ? s->message
			    : "the connection was lost, and the receiver has given it up");
}

static int finish_move(struct sending *s)
{
	struct tf_err *e = &s->task.capture.err;
	sigset_t before;
	int rc = tf_task_commit(&s->task);

	tf_timing_begin(&s->timing, "answer");
	if (!rc)
		rc = read_answer(s);
	if (!rc && s->reply.code)
		rc = tf_fail(e, s->reply.code, "%s", s->message);
	if (!rc && s->reply.outcome != TF_OUTCOME_PREPARED)
		rc = tf_fail(e, TELEFORK_E_PROTOCOL, "the receiver does not wait for the commit");
	if (rc)
		return rc;
	hold_signals(&before);
	tf_timing_begin(&s->timing, "commit");
	rc = commit(s);
	thaw(s);
	return rc;
}

static int transfer(struct sending *s)
{
	static int (*const finish[])(struct sending *) = {finish_dump, finish_copy, finish_move};
	int rc = capture(s);

	s->ended = rc && tf_identity_ended(s->pid); /* what could not be read of it says less */
	if (rc)
		return rc;
	if (!s->quiet)
		tf_progress_begin(&s->progress);
	s->task.options = &s->options;
	s->task.packer = s->packer;
	s->task.progress = tf_progress_tell;
	s->task.ctx = &s->progress;
	tf_timing_begin(&s->timing, "pages");
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
	const char *what = s->zygote ? "kept" : done[s->what];
	/* The process itself may be on standard output. */
	FILE *out = s->address.kind == TF_ADDRESS_STDIO ? stderr : stdout;
	char memory[24], bytes[24];

	if (s->quiet)
		return;
	fprintf(out, "%d %s", s->pid, what);
	if (s->answers)
		fprintf(out, ": pid %d", s->reply.pid);
	fprintf(out, ": frozen %.1f ms, ", (double)(s->thawed_ns - s->frozen_ns) / 1e6);
	tf_precopy_tell(&s->precopy, out);
	if (s->task.post_copy)
		fprintf(out, "runs after %.1f ms, %" PRIu64 " requests, ",
			(double)(s->runs_ns - s->start_ns) / 1e6, s->task.requests);
	fprintf(out, "total %.1f ms, %s of memory, %s sent",
		(double)(tf_now_ns() - s->start_ns) / 1e6,
		tf_bytes_text(s->task.capture.memory, memory), tf_bytes_text(sent, bytes));
	tf_packing_tell(out, s->packer);
	if (s->split)
		fprintf(out, ", %s of huge pages became small ones",
			tf_bytes_text(s->split, memory));
	fputc('\n', out);
}

/* A receiver's refusal has a code of its own that says nothing about the line between. */
static int explain(const struct sending *s, int rc)
{
	if (s->ended) {
		fprintf(stderr, "%s: process %d has ended meanwhile\n", s->command, s->pid);
		return TF_EXIT_OBSTACLE;
	}
	if (s->record.phase != TF_PHASE_COMMITTING) {
		tf_complain(s->command + strlen("telefork "), s->task.capture.err.text);
		return tf_exit_code(rc);
	}
	tf_complain(s->to, s->task.capture.err.text);
	if (s->lost)
		fprintf(stderr,
			"telefork: it ran there, and ends there: not all of its memory came. It stays "
			"stopped here, as process %d, as it was when it was moved; what it did there "
			"is lost. To let it go on from here: telefork settle --resume-here %s\n",
			s->pid, s->record.id);
	else
		fprintf(stderr,
			"telefork: everything was sent, and whether the process runs over there is not "
			"known. It stays stopped here, as process %d, until you say: telefork settle %s\n",
			s->pid, s->record.id);
	return TF_EXIT_UNKNOWN;
}

/* Before the commit nothing has happened here. */
static void end_record(struct sending *s)
{
	if (s->held >= 0 && s->record.phase == TF_PHASE_SENDING)
		tf_journal_turn(&s->journal, s->record.id, TF_PHASE_SENDING, TF_PHASE_HERE, NULL);
	tf_closep(&s->held);
	tf_journal_close(&s->journal);
}

/* The receiver traces the process until it closes its side: then another capture may come. */
static void await_landing(struct sending *s)
{
	struct tf_err quiet = {0};
	char none;

	if (!s->answers)
		return;
	if (s->task.capture.io.idle_ms > LANDING_MS)
		s->task.capture.io.idle_ms = LANDING_MS;
	tf_timing_begin(&s->timing, "landing");
	tf_io_read(&s->task.capture.io, &none, 1, &quiet);
}

static int run(struct sending *s)
{
	uint64_t sent;
	int rc;

	s->start_ns = tf_now_ns();
	s->fd = s->held = s->journal.folder = -1;
	tf_timing_begin(&s->timing, "check");
	rc = tf_check_first(s->command, s->pid, &s->allowed);
	if (rc)
		return rc;
	signal(SIGPIPE, SIG_IGN);
	tf_timing_begin(&s->timing, "connect");
	if (s->what == MOVE && !s->task.post_copy)
		tf_precopy_begin(&s->precopy, s->command, s->pid, &s->errand);
	rc = s->what == MOVE ? open_journal(s) : 0;
	if (!rc)
		rc = open_channel(s);
	if (!rc && s->what == MOVE)
		rc = begin_record(s);
	if (!rc)
		rc = transfer(s);
	sent = s->task.capture.io.sent ? s->task.capture.io.sent : s->task.capture.sink.data;
	sent += s->precopy.rounds.io.sent;
	if (rc)
		rc = explain(s, rc);
	else {
		await_landing(s);
		if (s->what != MOVE && !s->kill)
			s->split = tf_capture_split(&s->task.capture, s->pid);
		summarise(s, sent);
	}
	tf_timing_tell(&s->timing);
	tf_packer_free(s->packer);
	tf_task_release(&s->task);
	tf_precopy_end(&s->precopy);
	end_record(s);
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
	case KEY_ZYGOTE:
		s->zygote = arg;
		return 0;
	case KEY_LAZY:
		if (s->what == DUMP)
			argp_error(state,
				"--lazy: an image in a file is whole, or nobody could run it: "
				"memory comes later only with copy and move, to a receiver");
		s->task.post_copy = true;
		return 0;
	case KEY_PRECOPY:
	case KEY_NO_PRECOPY:
		s->precopy.wish = key == KEY_PRECOPY ? TF_PRECOPY_ALWAYS : TF_PRECOPY_NEVER;
		return 0;
	case KEY_IDLE:
		s->options.idle_ms = tf_parse_seconds(arg);
		if (s->options.idle_ms < 0)
			argp_error(state, "--idle-time %s: 1 to 86400 seconds", arg);
		return 0;
	case KEY_TIMING:
		s->timing.on = true;
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
	case ARGP_KEY_INIT:
		if (s->what != DUMP)
			state->child_inputs[0] = &s->wishes;
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
		if (s->precopy.wish == TF_PRECOPY_ALWAYS && s->task.post_copy)
			argp_error(state, "--lazy or --precopy, not both");
		if (!s->to)
			argp_error(
				state, s->what == DUMP ? "which FILE? say -o FILE" : "which URI?");
		if (s->task.post_copy && s->wishes.store == TF_WISH_ALWAYS)
			argp_error(state, "--lazy: nobody waits for a page until it is known "
					  "whether it is there: leave --store away");
		if (s->task.post_copy)
			s->wishes.store = TF_WISH_NEVER;
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

#define TIMING                                                                                     \
	{                                                                                          \
		"timing", KEY_TIMING, 0, 0, "Say when each phase began and ended, for programs", 0 \
	}
#define IDLE                                                             \
	{                                                                \
		"idle-time", KEY_IDLE, "SECONDS", 0,                     \
			"Give up when nothing moves for so long (30)", 0 \
	}

#define LAZY                                                                               \
	{                                                                                  \
		"lazy", KEY_LAZY, 0, 0,                                                    \
			"Post-copy: it runs over there at once, and its memory follows", 0 \
	}

#define PRECOPY                                                                               \
	{                                                                                     \
		"precopy", KEY_PRECOPY, 0, 0,                                                 \
			"Pre-copy: its memory goes while it runs, and it is stopped for the " \
			"rest only (the default if it has much)",                             \
			0                                                                     \
	}

#define NO_PRECOPY                                                                        \
	{                                                                                 \
		"no-precopy", KEY_NO_PRECOPY, 0, 0,                                       \
			"It is stopped before anything goes, and while all of it does", 0 \
	}

int tf_cmd_dump(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"output", 'o', "FILE", 0, "Where the image goes; it appears when it is whole", 0},
		{"kill", KEY_KILL, 0, 0, "End the process once the image is whole", 0},
		ALLOW,
		QUIET,
		TCP,
		TIMING,
		{"lazy", KEY_LAZY, 0, OPTION_HIDDEN, 0, 0}, /* to say why not */
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
	static const struct argp_option options[] = {TOKEN, ALLOW, TCP, IDLE, LAZY, QUIET, TIMING,
		{"zygote", KEY_ZYGOTE, "NAME", 0,
			"It does not run over there but is kept, for telefork spawn", 0},
		{0}};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID URI",
		.children = tf_packing_children,
		.doc = "Sends a copy of a running process to a receiver. The original stands still "
		       "for as long as a fork of it takes.",
		.help_filter = tf_exit_help};
	static struct sending s = {.what = COPY};

	return command(&s, &argp, argc, argv);
}

int tf_cmd_move(int argc, char **argv)
{
	static const struct argp_option options[] = {
		TOKEN, ALLOW, TCP, IDLE, LAZY, PRECOPY, NO_PRECOPY, QUIET, TIMING, {0}};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "PID URI",
		.children = tf_packing_children,
		.doc = "Moves a running process to a receiver. Until the receiver has all of it, "
		       "whatever fails leaves the process here running as it was. Should the "
		       "receiver's word be missing afterwards, it stays stopped here until "
		       "telefork settle has asked for it.",
		.help_filter = tf_exit_help};
	static struct sending s = {.what = MOVE};

	return command(&s, &argp, argc, argv);
}
