/* SPDX-License-Identifier: MIT */
/* See arrival.h, and docs/commit.md for why every order of deaths comes out right. */
#include "core/cmd/arrival.h"
#include "core/base/cleanup.h"
#include "core/image/notes.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int record(struct tf_arrival *a, struct tf_record *r, pid_t child, struct tf_err *e)
{
	int rc = tf_identity_of(child, &r->process);

	if (rc)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, -rc, "process %d", (int)child);
	r->phase = TF_PHASE_PREPARED;
	r->time = time(NULL);
	memcpy(r->id, a->id, sizeof(r->id));
	a->child = child;
	a->held = tf_journal_write(&a->journal, r, e);
	return a->held < 0 ? a->held : 0;
}

/* What it is stands in the head, which comes last. */
static int born(void *ctx, pid_t child, struct tf_err *e)
{
	struct tf_record r = {0};

	return record(ctx, &r, child, e);
}

int tf_arrival_begin(struct tf_arrival *a, const uint8_t id[static TF_MOVE_ID], struct tf_err *e)
{
	struct tf_record before;
	int rc;

	*a = (struct tf_arrival){.held = -1};
	tf_move_id_text(id, a->id);
	rc = tf_journal_open(&a->journal, "arrivals", e);
	if (rc)
		return tf_fail(e, rc, "this receiver cannot record moves");
	tf_journal_path(&a->journal, a->id, TF_PHASE_PREPARED, a->from);
	tf_journal_path(&a->journal, a->id, TF_PHASE_COMMITTED, a->to);
	a->mark = (struct tf_mark){.from = a->from, .to = a->to, .born = born, .ctx = a};
	rc = tf_journal_read(&a->journal, a->id, &before, e);
	return rc > 0 ? tf_fail(e, TELEFORK_E_INVAL, "move %s was made before", a->id) : rc;
}

int tf_arrival_prepared(struct tf_arrival *a, const struct tf_pad *pad, struct tf_err *e)
{
	struct tf_record r = {
		.stopped = pad->image.source.flags & TF_SOURCE_STOPPED,
		.later = pad->restore.post_copy,
	};

	snprintf(r.exe, sizeof(r.exe), "%s", pad->image.source.exe);
	if (a->held < 0)
		return record(a, &r, pad->child, e);
	if (a->child != pad->child && tf_identity_of(pad->child, &r.process))
		return tf_fail(e, TELEFORK_E_SYSTEM, "process %d has ended", (int)pad->child);
	return tf_journal_add(a->held, &r) && r.process.pid
		       ? tf_fail(e, TELEFORK_E_SYSTEM, "this receiver cannot record moves")
		       : 0;
}

void tf_arrival_running(struct tf_arrival *a)
{
	tf_journal_turn(&a->journal, a->id, TF_PHASE_COMMITTED, TF_PHASE_RUNNING, NULL);
}

void tf_arrival_lost(struct tf_arrival *a)
{
	tf_journal_turn(&a->journal, a->id, TF_PHASE_COMMITTED, TF_PHASE_LOST, NULL);
}

bool tf_arrival_undo(struct tf_arrival *a, struct tf_pad *pad)
{
	struct tf_record now = {.phase = TF_PHASE_GONE};

	if (a->held >= 0 &&
		tf_journal_turn(&a->journal, a->id, TF_PHASE_PREPARED, TF_PHASE_GONE, NULL) <= 0)
		tf_journal_read(&a->journal, a->id, &now, NULL);
	if (now.phase == TF_PHASE_COMMITTED || now.phase == TF_PHASE_RUNNING)
		return false;
	tf_pad_kill(pad);
	return true;
}

void tf_arrival_end(struct tf_arrival *a)
{
	tf_closep(&a->held);
	a->held = -1;
	tf_journal_close(&a->journal);
}

/* --- questions --- */

/* Its receiver may have died before it let the copy go. Whether the copy stands already, or is
 * about to: this takes the SIGSTOP away. */
static void finish(struct tf_journal *j, const struct tf_record *r)
{
	if (r->held)
		return;
	if (!r->stopped)
		tf_identity_signal(&r->process, SIGCONT);
	tf_journal_turn(j, r->id, TF_PHASE_COMMITTED, TF_PHASE_RUNNING, NULL);
}

/* Post-copy. Its receiver has died: what is left of the copy, its guard has ended, or this does. */
static int lose(struct tf_journal *j, const struct tf_record *r)
{
	if (r->held)
		return TF_OUTCOME_COMING;
	tf_identity_signal(&r->process, SIGKILL);
	return tf_journal_turn(j, r->id, TF_PHASE_COMMITTED, TF_PHASE_LOST, NULL) ? TF_OUTCOME_LOST
										  : TF_OUTCOMES;
}

/* TF_OUTCOMES: its phase has changed meanwhile. */
static int settle(struct tf_journal *j, const struct tf_record *r, struct tf_err *e)
{
	int rc;

	switch (r->phase) {
	case TF_PHASE_PREPARED:
		rc = tf_journal_turn(j, r->id, TF_PHASE_PREPARED, TF_PHASE_GONE, e);
		if (rc <= 0)
			return rc ? rc : TF_OUTCOMES;
		tf_identity_signal(&r->process, SIGKILL);
		return TF_OUTCOME_GONE;
	case TF_PHASE_COMMITTED:
		if (r->later)
			return lose(j, r);
		finish(j, r);
		return TF_OUTCOME_RUNNING;
	case TF_PHASE_RUNNING:
		return TF_OUTCOME_RUNNING;
	case TF_PHASE_GONE:
		return TF_OUTCOME_GONE;
	case TF_PHASE_LOST:
		return TF_OUTCOME_LOST;
	default:
		return TF_OUTCOME_UNKNOWN;
	}
}

int tf_arrival_settle(const uint8_t id[static TF_MOVE_ID], int32_t *ret_pid, struct tf_err *e)
{
	char text[TF_MOVE_ID_TEXT + 1];
	struct tf_journal j;
	struct tf_record r;
	int rc = tf_journal_open(&j, "arrivals", e), outcome = TF_OUTCOMES;

	if (rc)
		return rc;
	tf_move_id_text(id, text);
	while (outcome == TF_OUTCOMES && (rc = tf_journal_read(&j, text, &r, e)) > 0)
		outcome = settle(&j, &r, e);
	tf_journal_close(&j);
	*ret_pid = rc > 0 ? r.process.pid : 0;
	return rc < 0 ? rc : rc ? outcome : TF_OUTCOME_UNKNOWN;
}

void tf_arrival_recover(void)
{
	TF_FREE struct tf_record *all = NULL;
	struct tf_err quiet = {0};
	struct tf_journal j;
	int n;

	if (tf_journal_open(&j, "arrivals", &quiet))
		return; /* a move will be told so */
	n = tf_journal_list(&j, &all, &quiet);
	for (int i = 0; i < n; i++)
		if (!all[i].held)
			settle(&j, &all[i], &quiet);
	tf_journal_close(&j);
}
