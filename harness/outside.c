/* SPDX-License-Identifier: MIT */
/*
 * The journey of a program that knows nothing of telefork: it is started on the first machine and,
 * when it has said something, taken to the next one by telefork move or copy, and so on.
 *
 * What it says in all places together has to be what it says where it is left alone, no line lost
 * and none twice: tests/programs/NAME.out. Everything that it holds back in a buffer travels too.
 * A probe says "ready", and at SIGUSR1, in the end, whether all is as it was: "right N".
 *
 * Its standard input does not end before it is at its last place. A program that reads it to its
 * end before it says its last line is there for as long as its journey takes.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/evidence.h"
#include "harness/run.h"
#include "qemu/io.h"

#define TELEFORK     "telefork"
#define EXPECTED_MAX ((size_t)1 << 20)

static struct tf_remote *machine_at(const struct tf_journey *j, unsigned place)
{
	return j->machines[j->cell->route[place]];
}

/* What a person at the machines would have seen goes to transcript.txt. */
__attribute__((format(printf, 2, 3))) static void note(
	const struct tf_journey *j, const char *fmt, ...)
{
	tf_vm_autofree char *path = tf_vm_format("%s/transcript.txt", j->folder);
	FILE *f = path ? fopen(path, "ae") : NULL;
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (f && text) {
		tf_evidence_strip(text);
		fputs(text, f);
	}
	if (f)
		fclose(f);
	free(text);
}

/* Puts telefork, the token and the program on all machines: its file may be looked for there. */
static int put_all(struct tf_journey *j, struct tf_vm_error *err)
{
	tf_vm_autofree char *token = tf_vm_format("%s/" TF_TOKEN_FILE, j->folder);
	int rc = token ? 0 : tf_vm_fail(err, -ENOMEM, "no memory");

	for (unsigned i = 0; i < j->cell->n_machines && rc == 0; i++) {
		struct tf_remote *m = j->machines[i];
		tf_vm_autofree char *path = tf_journey_program(j, m);

		rc = tf_journey_put(j, m, "bin", TELEFORK, err);
		if (rc == 0)
			rc = tf_remote_put(m, token, TF_TOKEN_FILE, 0600, err);
		if (rc == 0)
			rc = path ? tf_remote_put(m, path, j->cell->probe, 0755, err)
				  : tf_vm_fail(err, -ENOMEM, "no memory");
		if (rc == 0)
			rc = tf_journey_put_files(j, m, err);
	}
	return rc;
}

bool tf_outside_holds(const struct tf_journey *j, unsigned place)
{
	return j->cell->sender == TF_SENDER_MOVE && place + 1 < j->cell->n_route;
}

static int start_program(struct tf_journey *j, struct tf_vm_error *err)
{
	const char *argv[TF_CELL_ARGS + 2];
	char path[4096];

	argv[0] = tf_remote_path(machine_at(j, 0), j->cell->probe, path, sizeof(path));
	return tf_journey_start(j, machine_at(j, 0), argv, 1, err);
}

/* What the process of @job has said so far. A received one speaks where its receiver does, whose
 * lines may come in the middle of one of its own: they are taken out. NULL without memory. */
static char *said_by(const struct tf_job *job, bool received)
{
	char *all = tf_vm_format("%s", job->text[received ? 1 : 0]);
	char *own = received && all ? strstr(all, "telefork: ") : NULL;

	for (; own; own = strstr(own, "telefork: ")) {
		const char *next = own + strcspn(own, "\n");

		next += *next == '\n';
		memmove(own, next, strlen(next) + 1);
	}
	return all;
}

static struct tf_job *job_at(const struct tf_journey *j, unsigned place)
{
	return place ? j->receivers[place] : j->probe;
}

/* Its last line is still to be said, which may wait for the end of its standard input. */
static bool is_last_line(const char *rest)
{
	const char *end = strchr(rest, '\n');

	return end && !end[1];
}

/* Waits for the next line of @rest from the process at @place: then it is at work there. */
static int await_work(
	struct tf_journey *j, unsigned place, const char *rest, struct tf_vm_error *err)
{
	tf_vm_autofree char *line = tf_vm_format("%.*s", (int)strcspn(rest, "\n"), rest);

	tf_evidence_step(j, "program");
	if (is_last_line(rest))
		return 0;
	return line ? tf_journey_wait(j, job_at(j, place), place ? 1 : 0, line, NULL, err)
		    : tf_vm_fail(err, -ENOMEM, "no memory");
}

static const char *const mode_options[TF_MODES] = {
	[TF_MODE_WHOLE] = "--no-precopy",
	[TF_MODE_PRECOPY] = "--precopy",
	[TF_MODE_LAZY] = "--lazy",
};

/* Whether what @job said at its end is of the mode that was asked for. Where a machine cannot tell
 * what is written to, the sender goes on without rounds and says so. */
static bool in_mode(enum tf_mode mode, const struct tf_job *job)
{
	switch (mode) {
	case TF_MODE_PRECOPY:
		return strstr(job->text[0], " rounds (") || strstr(job->text[0], "no pre-copy, ");
	case TF_MODE_LAZY:
		return strstr(job->text[0], "runs after ") &&
		       !strstr(job->text[1], "cannot wait for memory");
	case TF_MODE_WHOLE:
		return !strstr(job->text[0], " rounds (") && !strstr(job->text[0], "runs after ");
	default:
		return true;
	}
}

/* telefork move or copy, from the machine of @place to that of @to. *@pid is it there afterwards;
 * what it said is in *@ret_job. */
static int send_on(struct tf_journey *j, unsigned place, unsigned to, pid_t *pid,
	struct tf_job **ret_job, struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, place);
	const char *verb = j->cell->sender == TF_SENDER_COPY ? "copy" : "move";
	char path[4096], token[4096], number[16], idle[64];
	const char *const argv[] = {path, verb, "--timing",
		tf_journey_patience(j, "--idle-time", idle, sizeof(idle)), "--token-file", token,
		number, j->addresses[to], mode_options[j->cell->mode], NULL};
	struct tf_job *job;
	const char *at;
	int rc;

	tf_remote_path(m, TELEFORK, path, sizeof(path));
	tf_remote_path(m, TF_TOKEN_FILE, token, sizeof(token));
	snprintf(number, sizeof(number), "%d", (int)*pid);
	tf_evidence_step(j, verb);
	rc = tf_job_start(m, argv, 0, &job, err);
	if (rc == 0)
		rc = tf_journey_wait(j, job, 0, NULL, NULL, err);
	if (rc < 0)
		return rc;
	*ret_job = job;
	if (j->cell->refused)
		return 0;
	at = strstr(job->text[0], ": pid ");
	if (!WIFEXITED(job->status) || WEXITSTATUS(job->status) || !at)
		return tf_vm_fail(err, -ESRCH, "telefork %s on %s said: %.300s%.1000s", verb,
			m->name, job->text[0], job->text[1]);
	*pid = atoi(at + 6);
	if (!in_mode(j->cell->mode, job))
		return tf_journey_failed(j,
			"telefork %s on %s did not go by mode %s: %.300s%.1000s", verb, m->name,
			tf_mode_names[j->cell->mode], job->text[0], job->text[1]);
	return 0;
}

/* A prompt begins its line, also where the process left in the middle of one. */
static const char *line_end(const char *said)
{
	size_t n = strlen(said);

	return n && said[n - 1] != '\n' ? "\n" : "";
}

/* What was said at @place, and the command by which the process left it, if it did. */
static void note_place(
	const struct tf_journey *j, unsigned place, pid_t pid, const struct tf_job *by)
{
	const char *name = machine_at(j, place)->name;
	const char *said = job_at(j, place)->text[place ? 1 : 0];

	if (place)
		note(j, "%s$ telefork serve --once %s\n%s%s", name, j->addresses[place], said,
			line_end(said));
	else
		note(j, "%s$ ./%s\n%s%s", name, j->cell->probe, said, line_end(said));
	if (by)
		note(j, "%s$ telefork move %d %s\n%s", name, (int)pid, j->addresses[place + 1],
			by->text[0]);
}

static bool exited_well(struct tf_journey *j, const struct tf_job *job)
{
	char fate[64];

	if (WIFEXITED(job->status) && !WEXITSTATUS(job->status))
		return true;
	tf_journey_failed(j, "%s on %s %s, and said: %.2000s%.2000s", job->name, job->remote->name,
		tf_job_fate(job, fate, sizeof(fate)), job->text[0], job->text[1]);
	return false;
}

static void differs(struct tf_journey *j, const char *who, const char *said, const char *expected)
{
	const char *from = said, *line = expected;

	/* The first line that is another one. */
	for (size_t n = 0; said[n] && said[n] == expected[n]; n++)
		if (said[n] == '\n') {
			from = said + n + 1;
			line = expected + n + 1;
		}
	tf_journey_failed(j, "%s: it said \"%.*s\", not \"%.*s\"", who, (int)strcspn(from, "\n"),
		from, (int)strcspn(line, "\n"), line);
}

/* A process that moves: what is said at each place goes on where the one before was interrupted. */
static int move_along(struct tf_journey *j, const char *expected, struct tf_vm_error *err)
{
	unsigned last = j->cell->n_route - 1;
	const char *rest = expected;
	pid_t pid = j->probe->pid;
	int rc = 0;

	for (unsigned i = 0; i <= last && rc == 0; i++) {
		tf_vm_autofree char *said = NULL;
		struct tf_job *by = NULL;
		pid_t here = pid;

		if (i < last) {
			rc = await_work(j, i, rest, err);
			if (rc == 0)
				rc = send_on(j, i, i + 1, &pid, &by, err);
		}
		if (i == last)
			tf_evidence_step(j, "verdict");
		if (rc == 0)
			rc = tf_journey_wait(j, job_at(j, i), 0, NULL, NULL, err);
		if (rc < 0)
			return rc;
		note_place(j, i, here, by);
		said = said_by(job_at(j, i), i > 0);
		if (!said)
			return tf_vm_fail(err, -ENOMEM, "no memory");
		if (i == last && !exited_well(j, job_at(j, i)))
			return 0;
		if (!said[0] && !*rest)
			return tf_journey_failed(j,
				"it had said all before it was at %s: a program that works longer "
				"is wanted",
				machine_at(j, i)->name);
		if ((!said[0] && !(i && i < last && is_last_line(rest))) ||
			strncmp(rest, said, strlen(said)) != 0) {
			differs(j, machine_at(j, i)->name, said, rest);
			return 0;
		}
		rest += strlen(said);
	}
	if (rc == 0 && *rest)
		differs(j, machine_at(j, last)->name, "", rest);
	return rc;
}

/* The copy at @place says what the original says from somewhere on. */
static int hear_copy(struct tf_journey *j, unsigned place, const char *expected)
{
	struct tf_job *job = j->receivers[place];
	tf_vm_autofree char *copy = said_by(job, true);

	if (!copy)
		return -ENOMEM;
	if (exited_well(j, job) &&
		(!copy[0] || strlen(copy) >= strlen(expected) ||
			strcmp(copy, expected + strlen(expected) - strlen(copy)) != 0))
		tf_journey_failed(j, "the copy on %s did not say the rest but \"%.500s\"",
			job->remote->name, copy);
	return 0;
}

/* The original says everything; each copy, from somewhere on, as well. */
static int copy_over(struct tf_journey *j, const char *expected, struct tf_vm_error *err)
{
	tf_vm_autofree char *original = NULL;
	int rc = await_work(j, 0, expected, err);

	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++) {
		struct tf_job *by;
		pid_t pid = j->probe->pid;

		rc = send_on(j, 0, i, &pid, &by, err);
	}
	tf_evidence_step(j, "verdict");
	if (rc == 0)
		rc = tf_job_let_go(j->probe, err);
	if (rc == 0)
		rc = tf_journey_wait(j, j->probe, 0, NULL, NULL, err);
	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++) {
		rc = tf_journey_wait(j, j->receivers[i], 0, NULL, NULL, err);
		if (rc == 0)
			rc = hear_copy(j, i, expected);
	}
	if (rc < 0 || !exited_well(j, j->probe))
		return rc;
	original = said_by(j->probe, false);
	if (!original)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (strcmp(original, expected) != 0)
		differs(j, "the original", original, expected);
	return 0;
}

/* A probe looks at itself where it is now. */
static int ask(struct tf_journey *j, unsigned place, pid_t pid, struct tf_vm_error *err)
{
	struct tf_job *job = job_at(j, place);
	int rc = tf_journey_tell(j, job, pid, err);
	tf_vm_autofree char *said = rc ? NULL : said_by(job, place > 0);
	const char *right = said ? strstr(said, "right") : NULL;

	if (rc < 0)
		return rc;
	if (!said)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (!exited_well(j, job))
		return 0;
	if (!right)
		return tf_journey_failed(j, "%s on %s did not say right but: %s", job->name,
			job->remote->name, said);
	free(j->outcome->said);
	j->outcome->said = strndup(right, strcspn(right, "\n"));
	return 0;
}

/* A probe, from place to place; or copied from the first to all others. */
static int take_probe(struct tf_journey *j, struct tf_vm_error *err)
{
	bool copied = j->cell->sender == TF_SENDER_COPY;
	unsigned last = j->cell->n_route - 1;
	pid_t pid[TF_CELL_ROUTE] = {j->probe->pid};
	int rc;

	tf_evidence_step(j, "program");
	rc = tf_journey_wait(j, j->probe, 0, "ready", NULL, err);
	for (unsigned i = 1; i <= last && rc == 0; i++) {
		unsigned from = copied ? 0 : i - 1;
		struct tf_job *by;

		pid[i] = pid[from];
		rc = send_on(j, from, i, &pid[i], &by, err);
		if (rc == 0 && !copied)
			rc = tf_journey_wait(j, job_at(j, from), 0, NULL, NULL, err);
	}
	tf_evidence_step(j, "verdict");
	for (unsigned i = copied ? 0 : last; i <= last && rc == 0; i++)
		rc = ask(j, i, pid[i], err);
	return rc;
}

/* The other machine cannot take it: telefork says why, and it goes on where it is, unharmed. */
static int stay(struct tf_journey *j, const char *expected, struct tf_vm_error *err)
{
	pid_t pid = j->probe->pid;
	struct tf_job *by = NULL;
	int rc = await_work(j, 0, expected, err);

	if (rc == 0)
		rc = send_on(j, 0, 1, &pid, &by, err);
	tf_evidence_step(j, "verdict");
	if (rc == 0)
		rc = tf_job_let_go(j->probe, err);
	if (rc == 0)
		rc = tf_journey_wait(j, j->probe, 0, NULL, NULL, err);
	if (rc < 0 || !by)
		return rc;
	if (WIFEXITED(by->status) && !WEXITSTATUS(by->status))
		tf_journey_failed(j, "it was not refused: %.300s", by->text[0]);
	else if (!strstr(by->text[1], j->cell->refused))
		tf_journey_failed(
			j, "'%s' was not said but: %.1000s", j->cell->refused, by->text[1]);
	if (exited_well(j, j->probe) && strcmp(j->probe->text[0], expected) != 0)
		differs(j, "the original", j->probe->text[0], expected);
	return 0;
}

int tf_journey_expected(const struct tf_journey *j, char **ret, struct tf_vm_error *err)
{
	tf_vm_autofree char *path =
		tf_vm_format("%s/tests/programs/%s.out", j->options->root, j->cell->probe);
	tf_vm_autofree char *text = path ? tf_vm_file_tail(path, EXPECTED_MAX) : NULL;

	if (!text || !text[0])
		return tf_vm_fail(err, -ENOENT, "%s: what the program says where it is left alone",
			path ? path : "no memory");
	*ret = tf_vm_format("%s\n", text);
	return *ret ? 0 : tf_vm_fail(err, -ENOMEM, "no memory");
}

int tf_outside_go(struct tf_journey *j, struct tf_vm_error *err)
{
	tf_vm_autofree char *expected = NULL;
	int rc = j->cell->program ? tf_journey_expected(j, &expected, err) : 0;

	if (rc == 0)
		rc = tf_journey_receivers(j, true, err);
	if (rc == 0)
		rc = put_all(j, err);
	if (rc == 0)
		rc = start_program(j, err);
	if (rc < 0)
		return rc;
	if (!expected)
		rc = take_probe(j, err);
	else if (j->cell->refused)
		rc = stay(j, expected, err);
	else if (j->cell->sender == TF_SENDER_COPY)
		rc = copy_over(j, expected, err);
	else
		rc = move_along(j, expected, err);
	if (j->receivers[1] && j->outcome->verdict == TF_VERDICT_OK)
		tf_journey_count(j, j->receivers[1]->text[1]);
	return tf_journey_blame(j, rc, err);
}
