/* SPDX-License-Identifier: MIT */
/*
 * See faults.h: what became of a step, and whether that is right. Nothing here believes telefork:
 * the program's own numbers say whether it ran twice or lost something, and what is left on a
 * machine is counted there.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/faults.h"
#include "qemu/io.h"

#define REST_MS        20 /* between two looks at what has no event */
#define SLACK_KIB      1024
#define SLACK_USER_KIB 16384 /* QEMU translates more of the receiver from time to time */
#define NO_BYTE        "moved no byte for" /* what telefork says then */
#define UNKNOWN        75 /* telefork's exit code: the receiver's word is missing */

struct account {
	struct tf_campaign *c;
	unsigned from, to;
	const struct tf_step *step;
	struct tf_step_outcome *o;
	bool lost[TF_CAMPAIGN_MACHINES]; /* with the machine */
	bool stopped;                    /* it stood, and had to be settled */
	struct tf_census now[TF_CAMPAIGN_MACHINES];
	struct tf_vm_error *err;
};

/* What was promised does not hold: 0, with a reason. */
#define BROKEN(a, ...) (tf_vm_fail((a)->err, 0, __VA_ARGS__))

static const char *name_of(const struct account *a, unsigned place)
{
	return (*a->c->places[place].remote)->name;
}

/* --- looking --- */

static void forget(struct account *a)
{
	for (unsigned i = 0; i < a->c->n; i++)
		tf_census_done(&a->now[i]);
}

/* All living machines. On the host a process is seen everywhere: it counts where it was, and there
 * only the one that was there. */
static int look(struct account *a)
{
	struct tf_campaign *c = a->c;
	int rc = 0;

	forget(a);
	for (unsigned i = 0; i < c->n && rc == 0; i++) {
		struct tf_census *now = &a->now[i];
		unsigned n = 0;

		if (a->lost[i])
			continue;
		rc = tf_place_census(c, i, now, a->err);
		for (unsigned k = 0; rc == 0 && c->tier != TF_TIER_SYSTEM && k < now->n_programs;
			k++) {
			bool here = k < 4 && now->programs[k] == c->pid;

			if (k >= 4 || (i == a->from ? here : i == a->to && !here)) {
				now->programs[n % 4] = now->programs[k % 4];
				now->states[n++ % 4] = now->states[k % 4];
			}
		}
		if (c->tier != TF_TIER_SYSTEM)
			now->n_programs = n;
	}
	return rc;
}

static bool is_new(const struct tf_census *before, const char *id)
{
	for (unsigned i = 0; i < before->n_moves; i++)
		if (!strcmp(before->moves[i].id, id))
			return false;
	return true;
}

/* The record of this step's move, at its sender; NULL: it has come to none. */
static const struct tf_census_record *record_of(const struct account *a)
{
	const struct tf_census *now = &a->now[a->from];

	for (unsigned i = 0; i < now->n_moves; i++)
		if (is_new(&a->c->places[a->from].before, now->moves[i].id))
			return &now->moves[i];
	return NULL;
}

static bool is_open(const char *phase)
{
	return !strcmp(phase, "sending") || !strcmp(phase, "committing") ||
	       !strcmp(phase, "prepared") || !strcmp(phase, "committed");
}

/* --- settling --- */

static int run_settle(struct account *a, const char *const args[], int wanted)
{
	tf_vm_autofree char *text = NULL;
	int code, rc = tf_place_telefork(a->c, a->from, args, &text, &code, a->err);

	if (rc < 0)
		return rc;
	return code == wanted ? 1
			      : BROKEN(a, "telefork settle ended with %d, not %d, and said: %.500s",
					code, wanted, text);
}

/* What stands has its remedy named. */
static int check_jobs(struct account *a)
{
	const char *const args[] = {"jobs", NULL};
	tf_vm_autofree char *text = NULL;
	int code, rc = tf_place_telefork(a->c, a->from, args, &text, &code, a->err);

	if (rc < 0)
		return rc;
	if (code || !strstr(text, "committing") || !strstr(text, "stopped here: telefork settle"))
		return BROKEN(a, "telefork jobs does not name the remedy: %.500s", text);
	return 1;
}

static int settle(struct account *a, const char *id)
{
	struct tf_campaign *c = a->c;
	char idle[16];
	const char *const args[] = {"settle", "--idle-time", idle, NULL};
	const char *const word[] = {"settle", "--idle-time", idle, "--resume-here", id, NULL};
	const char *const patient[] = {"settle", NULL}; /* there is somebody to be asked */
	int rc = 1;

	snprintf(idle, sizeof(idle), "%d", c->idle_s);
	if (a->stopped)
		rc = check_jobs(a);
	/* Nobody can be asked: it stays as it is, until somebody knows better. */
	if (rc == 1 && a->stopped && (a->lost[a->to] || !c->places[a->to].serve))
		rc = run_settle(a, args, UNKNOWN);
	if (rc == 1 && a->lost[a->to])
		return run_settle(a, a->stopped ? word : args, 0);
	if (rc == 1 && !c->places[a->to].serve) {
		rc = tf_place_serve(c, a->to, a->err);
		rc = rc < 0 ? rc : 1;
	}
	return rc == 1 ? run_settle(a, patient, 0) : rc;
}

/* A move that is unfinished at the sender: whether its process stands is told apart from a tracer
 * that has just died. */
static int settle_if_open(struct account *a)
{
	int64_t deadline = tf_vm_now_ms() + tf_campaign_patience(a->c) / 10;
	const struct tf_census_record *r;
	char id[33], state;
	int rc;

	for (;;) {
		rc = look(a);
		if (rc < 0)
			return rc;
		r = record_of(a);
		if (!r || !is_open(r->phase))
			return 1;
		state = a->now[a->from].n_programs ? a->now[a->from].states[0] : 0;
		a->stopped = state && !strcmp(r->phase, "committing");
		if (state == 'T' || !state || strcmp(r->phase, "committing") != 0 ||
			!tf_vm_left_ms(deadline))
			break;
		poll(NULL, 0, REST_MS);
	}
	snprintf(id, sizeof(id), "%s", r->id);
	a->c->settled += a->stopped;
	return settle(a, id);
}

/* --- what is left --- */

static unsigned programs(const struct account *a)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->c->n; i++)
		n += a->now[i].n_programs;
	return n;
}

/* What a machine has too much; NULL: nothing. */
static const char *excess(const struct account *a, unsigned place, char *buf, size_t size)
{
	const struct tf_census *now = &a->now[place], *before = &a->c->places[place].before;

	buf[0] = '\0';
	if (now->sessions > now->n_programs)
		snprintf(buf, size, "%u sessions of the receiver with %u programs", now->sessions,
			now->n_programs);
	else if (now->others)
		snprintf(buf, size, "%u processes of telefork's", now->others);
	else if (now->receiver && now->descriptors != before->descriptors)
		snprintf(buf, size, "%d descriptors of the receiver, %d before", now->descriptors,
			before->descriptors);
	else if (now->receiver &&
		 now->memory_kib > before->memory_kib + (a->c->tier == TF_TIER_USER ? SLACK_USER_KIB
										    : SLACK_KIB))
		snprintf(buf, size, "%ld KiB of the receiver, %ld before", now->memory_kib,
			before->memory_kib);
	else if (strcmp(now->files, before->files) != 0)
		snprintf(buf, size, "files: %.400s", now->files);
	else if (now->n_arrivals > before->n_arrivals + 1 || now->n_moves > before->n_moves + 1)
		snprintf(buf, size, "%u moves and %u arrivals in the journal, %u and %u before",
			now->n_moves, now->n_arrivals, before->n_moves, before->n_arrivals);
	for (unsigned i = 0; !buf[0] && i < now->n_moves; i++)
		if (is_open(now->moves[i].phase))
			snprintf(buf, size, "move %.8s is %s", now->moves[i].id,
				now->moves[i].phase);
	for (unsigned i = 0; !buf[0] && i < now->n_arrivals; i++)
		if (is_open(now->arrivals[i].phase))
			snprintf(buf, size, "arrival %.8s is %s", now->arrivals[i].id,
				now->arrivals[i].phase);
	return buf[0] ? buf : NULL;
}

/* Waits until there is one program, and nothing beside it; with a machine it may be gone. */
static int await_one(struct account *a)
{
	int64_t deadline = tf_vm_now_ms() + tf_campaign_patience(a->c);
	char buf[600];

	for (;;) {
		const char *too_much = NULL;
		unsigned n, where = 0;
		int rc = look(a);

		if (rc < 0)
			return rc;
		n = programs(a);
		for (; where < a->c->n && !too_much; where++)
			if (!a->lost[where])
				too_much = excess(a, where, buf, sizeof(buf));
		if (!too_much && (n == 1 || (n == 0 && a->lost[a->from])))
			return 1;
		if (!tf_vm_left_ms(deadline)) {
			a->c->doubled += n > 1;
			a->c->unaccounted += n == 0;
			return BROKEN(a, "%u programs (%u at %s, %u at %s)%s%s%s%s", n,
				a->now[a->from].n_programs, name_of(a, a->from),
				a->now[a->to].n_programs, name_of(a, a->to),
				too_much ? ", and " : "", too_much ? name_of(a, where - 1) : "",
				too_much ? " has " : "", too_much ? too_much : "");
		}
		poll(NULL, 0, REST_MS);
	}
}

/* --- the program's own numbers --- */

static int take_line(struct account *a, const char *line)
{
	struct tf_campaign *c = a->c;
	unsigned thread, n;

	if (sscanf(line, "%u %u", &thread, &n) != 2 || thread >= TF_CAMPAIGN_THREADS)
		return BROKEN(a, "the program says \"%.60s\"", line);
	if (n < c->next[thread]) {
		c->doubled++;
		return BROKEN(a, "thread %u counts %u again, %u would come: two have run", thread,
			n, c->next[thread]);
	}
	if (n > c->next[thread] && !(c->gap & 1u << thread)) {
		c->unaccounted++;
		return BROKEN(a, "thread %u counts %u, %u would come: something is lost", thread, n,
			c->next[thread]);
	}
	c->gap &= ~(1u << thread);
	c->next[thread] = n + 1;
	c->lines++;
	return 1;
}

/* What is new in the file of a machine. @skip: it is of a program that is no more. */
static int read_file(struct account *a, unsigned place, bool skip)
{
	struct tf_camp *p = &a->c->places[place];
	char offset[32];
	const char *const args[] = {"tail", a->c->file, offset, NULL};
	tf_vm_autofree char *text = NULL;
	int rc;

	/* On the host there is one file. */
	if (a->c->tier != TF_TIER_SYSTEM)
		p = &a->c->places[0];
	snprintf(offset, sizeof(offset), "%llu", (unsigned long long)p->read);
	rc = tf_place_hand(a->c, place, args, &text, a->err);
	if (rc < 0)
		return rc;
	rc = 1;
	for (char *line = text, *end; rc == 1 && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		p->read += (uint64_t)(end + 1 - line);
		if (!skip)
			rc = take_line(a, line);
	}
	return rc;
}

static int read_both(struct account *a)
{
	int rc = a->lost[a->from] ? 1 : read_file(a, a->from, false);

	if (rc == 1 && !a->lost[a->to])
		rc = read_file(a, a->to, false);
	return rc;
}

static bool all_beyond(const struct tf_campaign *c, const uint32_t before[])
{
	for (unsigned i = 0; i < TF_CAMPAIGN_THREADS; i++)
		if (c->next[i] <= before[i] + 1)
			return false;
	return true;
}

/* Every one of its threads goes on, where it left off. */
static int await_work(struct account *a)
{
	int64_t deadline = tf_vm_now_ms() + tf_campaign_patience(a->c);
	uint32_t before[TF_CAMPAIGN_THREADS];
	int rc = read_both(a);

	memcpy(before, a->c->next, sizeof(before));
	while (rc == 1 && !all_beyond(a->c, before)) {
		if (!tf_vm_left_ms(deadline)) {
			a->c->unaccounted++;
			return BROKEN(
				a, "the program does not go on (%s)", name_of(a, a->c->where));
		}
		poll(NULL, 0, REST_MS);
		rc = read_both(a);
	}
	return rc;
}

/* --- the verdict --- */

static const char *verdict_of(const struct account *a)
{
	if (!programs(a))
		return "lost";
	if (a->now[a->from].n_programs)
		return a->stopped ? "stopped: here" : "here";
	return a->stopped ? "stopped: there" : "there";
}

/* The exit code has to say what became of it. */
static bool code_fits(const struct tf_step_outcome *o)
{
	bool stopped = !strncmp(o->verdict, "stopped", 7);

	if (o->code < 0)
		return true;
	return (o->code == UNKNOWN) == stopped && !o->code == !strcmp(o->verdict, "there");
}

static int judge(struct account *a)
{
	struct tf_step_outcome *o = a->o;
	const char *allowed;

	/* Nothing happened, but this host was so slow that they gave each other up. */
	if (o->message < 0 && !strcmp(o->verdict, "here") && strstr(a->c->said, NO_BYTE)) {
		a->c->late++;
		return 1;
	}
	if (!tf_verdict_allowed(a->step, o, &allowed))
		return BROKEN(a,
			"\"%s\" (\"%s\" here, \"%s\" there, message %d, exit code %d), where "
			"docs/commit.md has \"%s\"; telefork move said: %.300s",
			o->verdict, o->phase[0], o->phase[1], o->message, o->code, allowed,
			a->c->said);
	if (!code_fits(o))
		return BROKEN(a, "\"%s\", and telefork move's exit code was %d: %.300s", o->verdict,
			o->code, a->c->said);
	return 1;
}

/* Where the program is now. */
static void follow(struct account *a)
{
	struct tf_campaign *c = a->c;

	for (unsigned i = 0; i < c->n; i++) {
		if (!a->now[i].n_programs)
			continue;
		c->moves += i != a->from;
		c->where = i;
		c->pid = a->now[i].programs[0];
	}
	/* What it counted between the last look and the move stood on a machine that is no more. */
	if (a->lost[a->from])
		c->gap = ~0u;
}

/* --- and on --- */

/* Jobs whose processes cannot be the program's any more. */
static void sweep(struct tf_campaign *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct tf_remote *m = *c->places[i].remote;
		struct tf_job *next;

		for (struct tf_job *job = m->jobs; job; job = next) {
			next = job->next;
			if (job == c->places[i].serve || (i == c->where && job != c->move))
				continue;
			if (job == c->program)
				c->program = NULL;
			tf_job_free(job);
		}
	}
	c->move = NULL;
}

/* The program has gone where it cannot be moved on from: its time is over. */
static int end_program(struct account *a)
{
	int64_t deadline = tf_vm_now_ms() + tf_campaign_patience(a->c);
	char pid[16];
	const char *const args[] = {"kill", pid, "9", NULL};
	int rc;

	snprintf(pid, sizeof(pid), "%d", (int)a->c->pid);
	rc = tf_place_hand(a->c, a->to, args, NULL, a->err);
	while (rc == 0 && tf_vm_left_ms(deadline)) {
		rc = look(a);
		if (rc < 0 || !programs(a))
			break;
		poll(NULL, 0, REST_MS);
	}
	return rc < 0 ? rc : 1;
}

/* Everything is as it is to be for the next step. */
static int go_on(struct account *a)
{
	struct tf_campaign *c = a->c;
	bool gone = !programs(a), ended = c->tier == TF_TIER_USER && c->where == a->to;
	int rc = ended ? end_program(a) : 1;

	sweep(c);
	for (unsigned i = 0; i < c->n && rc == 1; i++) {
		if (a->lost[i])
			rc = tf_place_replace(c, i, a->err) < 0 ? -1 : 1;
		else if (!c->places[i].serve)
			rc = tf_place_serve(c, i, a->err) < 0 ? -1 : 1;
	}
	c->lost += gone;
	gone |= ended;
	for (unsigned i = 0; gone && i < c->n && rc == 1; i++)
		rc = read_file(a, i, true);
	if (gone && rc == 1)
		rc = tf_campaign_program(c, a->from, a->err) < 0 ? -1 : 1;
	for (unsigned i = 0; i < c->n && rc == 1; i++) {
		struct tf_census now;

		rc = tf_place_census(c, i, &now, a->err) < 0 ? -1 : 1;
		if (rc < 0)
			break;
		/* Files, descriptors and memory are as at the start; only the journal grows. */
		free(c->places[i].before.moves);
		free(c->places[i].before.arrivals);
		c->places[i].before.moves = now.moves;
		c->places[i].before.n_moves = now.n_moves;
		c->places[i].before.arrivals = now.arrivals;
		c->places[i].before.n_arrivals = now.n_arrivals;
		now.moves = now.arrivals = NULL;
		tf_census_done(&now);
	}
	return rc;
}

int tf_campaign_account(struct tf_campaign *c, unsigned to, const struct tf_step *step,
	struct tf_step_outcome *o, struct tf_vm_error *err)
{
	struct account a = {.c = c, .from = c->where, .to = to, .step = step, .o = o, .err = err};
	struct tf_link_faults none = {0};
	int rc = tf_link_set_faults(tf_campaign_link(c, to), &none, err);

	if (rc < 0)
		return rc;
	a.lost[a.from] = step->kind == TF_FAULT_LOSE_SENDER && o->message >= 0;
	a.lost[a.to] = step->kind == TF_FAULT_LOSE_RECEIVER && o->message >= 0;
	rc = a.lost[a.from] ? 1 : settle_if_open(&a);
	/* A receiver that was killed settles its own side when it is there again. */
	if (rc == 1 && !a.lost[a.to] && !c->places[to].serve)
		rc = tf_place_serve(c, to, err) < 0 ? -1 : 1;
	if (rc == 1)
		rc = await_one(&a);
	if (rc == 1) {
		o->verdict = verdict_of(&a);
		follow(&a);
		rc = judge(&a);
	}
	if (rc == 1 && programs(&a))
		rc = await_work(&a);
	if (rc == 1)
		rc = go_on(&a);
	forget(&a);
	return rc;
}

int tf_campaign_step(struct tf_campaign *c, const struct tf_step *s, struct tf_step_outcome *o,
	struct tf_vm_error *err)
{
	unsigned to = (c->where + 1) % c->n;
	int rc;

	*o = (struct tf_step_outcome){.verdict = ""};
	c->steps++;
	c->kinds[s->kind]++;
	rc = tf_campaign_strike(c, to, s, o, err);
	if (rc == 0)
		rc = tf_campaign_account(c, to, s, o, err);
	/* A command that does not end has not kept its word; machines that are gone are told apart.
	 */
	return rc == -ETIMEDOUT ? 0 : rc;
}
