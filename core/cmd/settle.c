/* SPDX-License-Identifier: MIT */
/*
 * telefork settle [ID]: a move whose end nobody saw. Its process stands stopped here; the
 * receiver's journal knows whether it runs there, and decides if that was open. Nothing is guessed:
 * without an answer it stays stopped, or goes on by the user's word.
 */
#include "core/cmd/settle.h"
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"
#include "core/telefork_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define STOP_MS 2000  /* a process that was let go by its tracer a moment ago stands by then */
#define TURN_MS 20000 /* but for one that has still to get a processor for that */

struct settling {
	struct tf_journal journal;
	const char *id; /* or its beginning; NULL: all */
	bool resume_here;
	int idle_ms;
	int matched, code;
};

int tf_settle_ask(const struct tf_record *r, int idle_ms, struct tf_reply *reply, struct tf_err *e)
{
	char token[TELEFORK_TOKEN_MAX + 1], message[TELEFORK_MESSAGE_MAX];
	struct telefork_options o = {.idle_ms = idle_ms, .token = *r->token_file ? token : NULL};
	struct tf_errand errand = {.kind = TF_ERRAND_SETTLE};
	struct tf_address a;
	TF_CLOSE int fd = -1;
	struct tf_io io;
	int rc = tf_address_parse(r->address, &a, e);

	if (!rc && o.token)
		rc = tf_read_token(r->token_file, token, e);
	if (!rc && !tf_move_id_parse(r->id, errand.id))
		rc = tf_fail(e, TELEFORK_E_INVAL, "%s is no id of a move", r->id);
	if (!rc)
		rc = fd = tf_dial(&a, &o, &errand, NULL, e);
	if (rc < 0)
		return rc;
	tf_io_init(&io, fd, &o);
	rc = tf_reply_read(&io, reply, message, e);
	if (!rc && reply->code)
		rc = tf_fail(e, reply->code, "%s", message);
	return rc;
}

/* --- one move --- */

static void tell(const struct tf_record *r, const char *what)
{
	printf("%s: process %d %s\n", r->id, (int)r->process.pid, what);
}

static int turn(struct settling *s, const struct tf_record *r, enum tf_phase to)
{
	struct tf_err e = {0};

	if (tf_journal_turn(&s->journal, r->id, r->phase, to, &e) >= 0)
		return TF_EXIT_OK;
	tf_complain("settle", e.text);
	return TF_EXIT_SYSTEM;
}

/* Waits until it stands. Its state; 0: it is gone. */
static char await_stop(const struct tf_identity *i)
{
	uint64_t start = tf_now_ns();
	char state;

	while ((state = tf_identity_state(i)) && state != 'T' &&
		tf_now_ns() - start < (state == 'R' ? TURN_MS : STOP_MS) * UINT64_C(1000000))
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	return state;
}

static int end_here(struct settling *s, const struct tf_record *r, int there)
{
	char state = await_stop(&r->process), text[TF_ERR_TEXT];
	int rc = 0;

	if (state && state != 'T' && state != 'Z') {
		snprintf(text, sizeof(text),
			"process %d runs there as process %d, and somebody has let the one here go "
			"on: two run now. End one of them: kill %d here, or process %d there; then "
			"settle again",
			(int)r->process.pid, there, (int)r->process.pid, there);
		tf_complain(r->id, text);
		return TF_EXIT_UNKNOWN;
	}
	if (state)
		rc = tf_identity_signal(&r->process, SIGKILL);
	if (rc && rc != -ESRCH) {
		tf_complain(r->id, strerror(-rc));
		return TF_EXIT_SYSTEM;
	}
	snprintf(text, sizeof(text), "runs there as process %d, and was ended here", there);
	tell(r, text);
	return turn(s, r, TF_PHASE_MOVED);
}

static int go_on_here(struct settling *s, const struct tf_record *r, const char *why)
{
	char text[TF_ERR_TEXT];
	int rc = r->stopped ? 0 : tf_identity_signal(&r->process, SIGCONT);

	if (rc && rc != -ESRCH) {
		tf_complain(r->id, strerror(-rc));
		return TF_EXIT_SYSTEM;
	}
	snprintf(text, sizeof(text), "%s: %s", why,
		rc           ? "it has ended here meanwhile"
		: r->stopped ? "it stays here, stopped as it was"
			     : "it goes on here");
	tell(r, text);
	return turn(s, r, TF_PHASE_HERE);
}

static int no_answer(struct settling *s, const struct tf_record *r, const char *why)
{
	fprintf(stderr, "telefork: %s: ", r->id);
	tf_complain(r->address, why);
	if (s->resume_here) {
		fprintf(stderr,
			"telefork: by your word process %d goes on here. If it runs there too, there are "
			"two of it now: end one\n",
			(int)r->process.pid);
		return go_on_here(s, r, "was not heard of");
	}
	fprintf(stderr,
		"telefork: whether it runs there is not known: process %d stays stopped here. Once "
		"the receiver can be asked: telefork settle %s. If you know that it does not run "
		"there and never will: telefork settle --resume-here %s\n",
		(int)r->process.pid, r->id, r->id);
	return TF_EXIT_UNKNOWN;
}

/* Post-copy: what it did there is gone, and not everybody would do it twice. */
static int lost(struct settling *s, const struct tf_record *r)
{
	if (s->resume_here)
		return go_on_here(s, r, "was lost there");
	fprintf(stderr,
		"telefork: %s: process %d ran there, and was ended before all of its memory had come. "
		"It stays stopped here as it was when it was moved; what it did there is lost. To let "
		"it go on from here: telefork settle --resume-here %s\n",
		r->id, (int)r->process.pid, r->id);
	return TF_EXIT_UNKNOWN;
}

static int settle_committing(struct settling *s, const struct tf_record *r)
{
	struct tf_reply reply;
	struct tf_err e = {0};

	if (tf_settle_ask(r, s->idle_ms, &reply, &e))
		return no_answer(s, r, e.text);
	switch (reply.outcome) {
	case TF_OUTCOME_RUNNING:
		return end_here(s, r, reply.pid);
	case TF_OUTCOME_GONE:
		return go_on_here(s, r, "has never run there");
	case TF_OUTCOME_COMING:
		tell(r, "runs there, and its memory is still on its way: ask again");
		return TF_EXIT_UNKNOWN;
	case TF_OUTCOME_LOST:
		return lost(s, r);
	default:
		return no_answer(s, r,
			"the receiver there has no record of this move: is it another one, or has "
			"it lost its journal?");
	}
}

static int settle(struct settling *s, const struct tf_record *r)
{
	if (r->phase == TF_PHASE_MOVED || r->phase == TF_PHASE_HERE) {
		if (s->id)
			tell(r, r->phase == TF_PHASE_MOVED ? "has moved; nothing is open"
							   : "is here; nothing is open");
		return TF_EXIT_OK;
	}
	if (r->held) {
		tell(r, "is being moved at the moment");
		return s->id ? TF_EXIT_UNKNOWN : TF_EXIT_OK;
	}
	if (r->phase == TF_PHASE_COMMITTING)
		return settle_committing(s, r);
	tell(r, "was not stopped yet: it goes on here");
	return turn(s, r, TF_PHASE_HERE);
}

static int settle_all(struct settling *s)
{
	TF_FREE struct tf_record *all = NULL;
	struct tf_err e = {0};
	int n = 0;

	if (tf_journal_open(&s->journal, "moves", &e) < 0 ||
		(n = tf_journal_list(&s->journal, &all, &e)) < 0) {
		tf_complain("settle", e.text);
		return TF_EXIT_SYSTEM;
	}
	for (int i = 0; i < n; i++) {
		int code;

		if (s->id && strncmp(all[i].id, s->id, strlen(s->id)) != 0)
			continue;
		s->matched++;
		code = settle(s, &all[i]);
		s->code = s->code ? s->code : code;
	}
	tf_journal_close(&s->journal);
	if (s->id && !s->matched) {
		tf_complain(s->id, "there is no such move (see telefork jobs)");
		return TF_EXIT_INPUT;
	}
	return s->code;
}

/* --- the command --- */

enum { KEY_RESUME = 256, KEY_IDLE };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct settling *s = state->input;

	switch (key) {
	case KEY_RESUME:
		s->resume_here = true;
		return 0;
	case KEY_IDLE:
		s->idle_ms = tf_parse_seconds(arg);
		if (s->idle_ms < 0)
			argp_error(state, "--idle-time %s: 1 to 86400 seconds", arg);
		return 0;
	case ARGP_KEY_ARG:
		if (s->id)
			argp_error(state, "one ID only");
		s->id = arg;
		return 0;
	case ARGP_KEY_END:
		if (s->resume_here && !s->id)
			argp_error(state, "--resume-here: which ID? see telefork jobs");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int tf_cmd_settle(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"resume-here", KEY_RESUME, 0, 0,
			"If the receiver cannot tell: go on here, on your word that it does not run "
			"there and never will; or if a lazy move was lost",
			0},
		{"idle-time", KEY_IDLE, "SECONDS", 0, "Wait so long for the receiver's answer (30)",
			0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "[ID]",
		.doc = "Ends what a move left unfinished: asks the receiver what became of the move "
		       "ID (or its first digits; without one: of all), and ends the stopped process "
		       "here if it runs there, or lets it go on here if it has never run there. "
		       "Without an answer it stays stopped.",
		.help_filter = tf_exit_help};
	struct settling s = {0};
	int code;

	if (argp_parse(&argp, argc, argv, 0, NULL, &s))
		return TF_EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	code = settle_all(&s);
	return fflush(stdout) && !code ? TF_EXIT_IO : code;
}
