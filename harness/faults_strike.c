/* SPDX-License-Identifier: MIT */
/*
 * See faults.h: a move, and what happens to it. The link stands at the moment of the step; then the
 * journals of both sides are read, and what is to happen is done; then all goes on.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/faults.h"
#include "qemu/io.h"

#define QMP_MS 30000

struct strike {
	struct tf_campaign *c;
	unsigned from, to;
	const struct tf_step *step;
	struct tf_step_outcome *o;
	struct tf_job *holder; /* something that fills a disk, … */
	struct tf_link *link;
};

static struct tf_remote *remote_of(const struct strike *s, unsigned place)
{
	return *s->c->places[place].remote;
}

/* --- the moment --- */

/* The phase of a move that was not there before the step. */
static void phase_of(const struct tf_census_record *list, unsigned n,
	const struct tf_census_record *old, unsigned n_old, char phase[static 16])
{
	phase[0] = '\0';
	for (unsigned i = 0; i < n; i++) {
		unsigned k = 0;

		while (k < n_old && strcmp(old[k].id, list[i].id) != 0)
			k++;
		if (k == n_old)
			snprintf(phase, 16, "%s", list[i].phase);
	}
}

static int look(struct strike *s, pid_t *ret_session, struct tf_vm_error *err)
{
	struct tf_campaign *c = s->c;
	const struct tf_census *before = &c->places[s->from].before;
	struct tf_census now;
	int rc = tf_place_census(c, s->from, &now, err);

	if (rc < 0)
		return rc;
	phase_of(now.moves, now.n_moves, before->moves, before->n_moves, s->o->phase[0]);
	tf_census_done(&now);
	before = &c->places[s->to].before;
	rc = tf_place_census(c, s->to, &now, err);
	if (rc < 0)
		return rc;
	phase_of(
		now.arrivals, now.n_arrivals, before->arrivals, before->n_arrivals, s->o->phase[1]);
	*ret_session = now.session;
	tf_census_done(&now);
	return 0;
}

/* Until the link stands (1), or the move has ended (0). */
static int await_moment(struct strike *s, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(s, s->from);
	int64_t deadline = tf_vm_now_ms() + tf_campaign_patience(s->c);

	for (;;) {
		struct pollfd fds[] = {{.fd = tf_link_struck_fd(s->link), .events = POLLIN},
			{.fd = m->ops->fd(m), .events = POLLIN}};

		if (s->c->move->ended && s->c->move->closed)
			return 0;
		if (poll(fds, 2, tf_vm_left_ms(deadline)) == 0)
			return tf_vm_fail(err, -ETIMEDOUT,
				"telefork move has neither come to its moment nor ended in %d ms",
				tf_campaign_patience(s->c));
		if (fds[1].revents)
			m->ops->pump(m);
		if (m->dead)
			return tf_vm_fail(err, -ECHILD, "%s", m->why.text);
		if (fds[0].revents)
			return 1;
	}
}

/* --- what happens --- */

static int set_link(
	struct strike *s, enum tf_link_break what, bool for_good, struct tf_vm_error *err)
{
	struct tf_link_faults f = s->step->link;

	f.what = what;
	f.moment = s->step->moment;
	f.for_good = for_good;
	return tf_link_set_faults(s->link, &f, err);
}

static int kill_pid(struct strike *s, unsigned place, pid_t pid, struct tf_vm_error *err)
{
	char text[16];
	const char *const args[] = {"kill", text, "9", NULL};

	snprintf(text, sizeof(text), "%d", (int)pid);
	return pid ? tf_place_hand(s->c, place, args, NULL, err) : 0;
}

/* The receiver and its sessions; what it was about to let go ends with them. */
static int kill_receiver(struct strike *s, struct tf_vm_error *err)
{
	struct tf_camp *p = &s->c->places[s->to];
	struct tf_remote *m = *p->remote;
	int rc;

	tf_job_signal(p->serve, SIGKILL);
	rc = tf_job_wait(&m, 1, p->serve, 0, NULL, NULL, 0, err);
	while (rc == -ETIMEDOUT && !p->serve->ended)
		rc = tf_job_wait(&m, 1, p->serve, 0, NULL, NULL, 100, err);
	p->serve =
		NULL; /* what it has received still lives below it: it is freed with the machine */
	return rc == -ECHILD ? rc : 0;
}

static int lose(struct strike *s, unsigned place)
{
	tf_vm_kill(remote_of(s, place)->ops->vm(remote_of(s, place)));
	remote_of(s, place)->dead = true;
	if (place == s->from)
		s->c->move = NULL; /* goes with its machine */
	return 0;
}

static void rest(struct strike *s)
{
	poll(NULL, 0, s->step->hold_ms);
}

/* Nothing comes through for a while; between guests, from and to the sender's. */
static int partition(struct strike *s, struct tf_vm_error *err)
{
	struct tf_vm *vm = remote_of(s, s->from)->ops->vm(remote_of(s, s->from));
	uint8_t station = vm ? tf_vm_identity_of(vm)->mac[5] : 0;
	struct tf_link_faults f = s->step->link;
	int rc;

	f.cut = !vm;
	f.apart[station / 8] |= (uint8_t)((vm != NULL) << station % 8);
	rc = tf_link_set_faults(s->link, &f, err);
	rest(s);
	return rc;
}

static int unplug(struct strike *s, struct tf_vm_error *err)
{
	/* Which of them follows from the step, as everything does. */
	unsigned place = s->step->moment.bytes & 1 ? s->from : s->to;
	struct tf_vm *vm = remote_of(s, place)->ops->vm(remote_of(s, place));
	int rc = tf_qmp_set_link(tf_vm_qmp(vm), "n0", false, QMP_MS, err);

	if (rc == 0)
		rc = set_link(s, TF_LINK_WHOLE, false, err);
	rest(s);
	return rc ? rc : tf_qmp_set_link(tf_vm_qmp(vm), "n0", true, QMP_MS, err);
}

/* A machine that can be stopped is; else what of telefork is at work on it. */
static int pause_at(struct strike *s, unsigned place, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(s, place);
	struct tf_vm *vm = m->ops->vm(m);
	struct tf_job *job = place == s->from ? s->c->move : s->c->places[place].serve;
	int rc = 0;

	if (vm)
		rc = tf_vm_pause(vm, err);
	else
		tf_job_signal(job, SIGSTOP);
	if (rc == 0)
		rc = set_link(s, TF_LINK_WHOLE, false, err);
	rest(s);
	if (!vm)
		tf_job_signal(job, SIGCONT);
	return rc || !vm ? rc : tf_vm_resume(vm, err);
}

/* Something of telebed-hand's that holds until the move has ended. */
static int hold(struct strike *s, unsigned place, const char *verb, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(s, place);
	char state[4096];
	const char *const args[] = {verb, !strcmp(verb, "fill") ? state : NULL, NULL};
	int rc;

	tf_remote_path(m, "state", state, sizeof(state));
	rc = tf_place_start_hand(s->c, place, args, &s->holder, err);
	if (rc == 0)
		rc = tf_job_wait(
			&m, 1, s->holder, 0, "holding", NULL, tf_campaign_patience(s->c), err);
	return rc;
}

static int release(struct strike *s, struct tf_vm_error *err)
{
	struct tf_remote *m;
	int rc;

	if (!s->holder)
		return 0;
	m = s->holder->remote;
	tf_job_signal(s->holder, SIGTERM);
	rc = tf_job_wait(&m, 1, s->holder, 0, NULL, NULL, tf_campaign_patience(s->c), err);
	tf_job_free(s->holder);
	s->holder = NULL;
	return rc;
}

static int step_clock(struct strike *s, unsigned place, int seconds, struct tf_vm_error *err)
{
	char text[16];
	const char *const args[] = {"step", text, NULL};

	snprintf(text, sizeof(text), "%d", seconds);
	return tf_place_hand(s->c, place, args, NULL, err);
}

static int happen(struct strike *s, pid_t session, struct tf_vm_error *err)
{
	switch (s->step->kind) {
	case TF_FAULT_PARTITION:
		return partition(s, err);
	case TF_FAULT_LINK_DOWN:
		return unplug(s, err);
	case TF_FAULT_PAUSE_SENDER:
		return pause_at(s, s->from, err);
	case TF_FAULT_PAUSE_RECEIVER:
		return pause_at(s, s->to, err);
	case TF_FAULT_KILL_SENDER:
		tf_job_signal(s->c->move, SIGKILL);
		return 0;
	case TF_FAULT_KILL_SESSION:
		if (!session)
			s->o->message = -1; /* nobody was there yet */
		return kill_pid(s, s->to, session, err);
	case TF_FAULT_KILL_RECEIVER:
		return kill_receiver(s, err);
	case TF_FAULT_LOSE_SENDER:
		return lose(s, s->from);
	case TF_FAULT_LOSE_RECEIVER:
		return lose(s, s->to);
	case TF_FAULT_DISK_SENDER:
		return hold(s, s->from, "fill", err);
	case TF_FAULT_DISK_RECEIVER:
		return hold(s, s->to, "fill", err);
	case TF_FAULT_MEMORY_SENDER:
		return hold(s, s->from, "tight", err);
	case TF_FAULT_MEMORY_RECEIVER:
		return hold(s, s->to, "tight", err);
	case TF_FAULT_CLOCK_SENDER:
		return step_clock(s, s->from, s->step->jump_s, err);
	case TF_FAULT_CLOCK_RECEIVER:
		return step_clock(s, s->to, s->step->jump_s, err);
	default:
		return 0;
	}
}

/* Clocks are set right again. */
static int undo(struct strike *s, struct tf_vm_error *err)
{
	int rc = release(s, err);

	if (rc == 0 && s->o->message >= 0 && s->step->kind == TF_FAULT_CLOCK_SENDER)
		rc = step_clock(s, s->from, -s->step->jump_s, err);
	if (rc == 0 && s->o->message >= 0 && s->step->kind == TF_FAULT_CLOCK_RECEIVER)
		rc = step_clock(s, s->to, -s->step->jump_s, err);
	return rc;
}

/* --- the move --- */

static bool is_break(enum tf_fault kind)
{
	return kind == TF_FAULT_CUT || kind == TF_FAULT_CUT_OFF || kind == TF_FAULT_SILENT ||
	       kind == TF_FAULT_SILENCE;
}

/* What the link is told to do at the moment by itself. */
static int arm(struct strike *s, struct tf_vm_error *err)
{
	enum tf_fault kind = s->step->kind;
	bool for_good = kind == TF_FAULT_CUT_OFF || kind == TF_FAULT_SILENCE;

	if (kind == TF_FAULT_NONE)
		return set_link(s, TF_LINK_WHOLE, false, err);
	if (!is_break(kind))
		return set_link(s, TF_LINK_HOLD, false, err);
	return set_link(s,
		kind == TF_FAULT_CUT || kind == TF_FAULT_CUT_OFF ? TF_LINK_CUT : TF_LINK_SILENT,
		for_good, err);
}

static int start_move(struct strike *s, struct tf_vm_error *err)
{
	struct tf_campaign *c = s->c;
	char pid[16], idle[16], address[64];
	const char *const args[] = {"move", "--idle-time", idle, pid,
		c->tier == TF_TIER_SYSTEM ? c->places[s->to].address : address,
		s->step->precopy ? "--precopy" : "--no-precopy", NULL};

	snprintf(pid, sizeof(pid), "%d", (int)c->pid);
	snprintf(idle, sizeof(idle), "%d", c->idle_s);
	if (c->tier != TF_TIER_SYSTEM)
		snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", tf_link_port(s->link));
	return tf_place_start_telefork(c, s->from, args, &s->c->move, err);
}

static int await_end(struct strike *s, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(s, s->from);
	int rc = 0;

	s->o->code = -1;
	if (s->c->move)
		rc = tf_job_wait(&m, 1, s->c->move, 0, NULL, NULL, tf_campaign_patience(s->c), err);
	if (rc == 0 && s->c->move && WIFEXITED(s->c->move->status))
		s->o->code = WEXITSTATUS(s->c->move->status);
	if (rc == 0 && s->c->move)
		snprintf(s->c->said, sizeof(s->c->said), "%.400s%.600s", s->c->move->text[0],
			s->c->move->text[1]);
	return rc;
}

int tf_campaign_strike(struct tf_campaign *c, unsigned to, const struct tf_step *step,
	struct tf_step_outcome *o, struct tf_vm_error *err)
{
	struct strike s = {.c = c,
		.from = c->where,
		.to = to,
		.step = step,
		.o = o,
		.link = tf_campaign_link(c, to)};
	struct tf_link_stats stats;
	pid_t session = 0;
	int rc = arm(&s, err);

	o->message = -1;
	if (rc == 0)
		rc = start_move(&s, err);
	if (rc == 0 && step->kind != TF_FAULT_NONE)
		rc = await_moment(&s, err);
	if (rc == 1) {
		rc = tf_link_stats(s.link, &stats, err);
		o->message = stats.message;
		if (rc == 0 && !is_break(step->kind)) {
			rc = look(&s, &session, err);
			if (rc == 0)
				rc = happen(&s, session, err);
			if (rc == 0)
				rc = set_link(&s, TF_LINK_WHOLE, false, err);
		}
	}
	if (rc == 0)
		rc = await_end(&s, err);
	if (rc == 0)
		rc = undo(&s, err);
	return rc;
}
