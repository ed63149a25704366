/* SPDX-License-Identifier: MIT */
/*
 * One cell: receivers along the route, the probe at its start, the verdict at its end.
 *
 *   tcp, unix   PROBE ADDRESS [--next ADDRESS]…   the copies go on; the verdict comes back to A
 *   file        PROBE FILE                        the file is carried to B and made a process there
 *
 * A probe's failure is an outcome of the cell; everything else that goes wrong is an error.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "harness/alone.h"
#include "harness/compare.h"
#include "harness/evidence.h"
#include "harness/faults_cell.h"
#include "harness/run.h"
#include "qemu/io.h"

#define PAD      "telefork-pad"
#define ARGV_MAX (2 * TF_CELL_ROUTE + TF_CELL_ARGS + 8)
#define WORDS_MS 5000

int tf_journey_failed(struct tf_journey *j, const char *fmt, ...)
{
	struct tf_outcome *o = j->outcome;
	char *more = NULL, *all;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&more, fmt, ap) < 0)
		more = NULL;
	va_end(ap);
	if (more)
		tf_evidence_strip(more);
	all = o->why && more ? tf_vm_format("%s\n%s", o->why, more) : NULL;
	if (all || !o->why) {
		free(o->why);
		o->why = all ? all : more;
		more = all ? more : NULL;
	}
	free(more);
	o->verdict = TF_VERDICT_FAILED;
	return 0;
}

static struct tf_remote *machine_at(const struct tf_journey *j, unsigned place)
{
	return j->machines[j->cell->route[place]];
}

int tf_journey_put(struct tf_journey *j, struct tf_remote *m, const char *folder, const char *name,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s/build/%s%s/%s/%s", j->options->root,
		m->spec.arch, j->options->variant, folder, name);

	return path ? tf_remote_put(m, path, name, 0755, err)
		    : tf_vm_fail(err, -ENOMEM, "no memory");
}

int tf_journey_wait(struct tf_journey *j, struct tf_job *job, int stream, const char *word,
	char **ret_line, struct tf_vm_error *err)
{
	return tf_job_wait(j->machines, j->cell->n_machines, job, stream, word, ret_line,
		tf_vm_left_ms(j->deadline_ms), err);
}

const char *tf_journey_patience(
	const struct tf_journey *j, const char *option, char *buf, size_t size)
{
	snprintf(buf, size, "%s=%d", option, tf_vm_left_ms(j->deadline_ms) / 1000 + 1);
	return buf;
}

int tf_journey_blame(struct tf_journey *j, int rc, const struct tf_vm_error *err)
{
	return rc == -ETIMEDOUT || rc == -ESRCH ? tf_journey_failed(j, "%s", err->text) : rc;
}

static int make_token(struct tf_journey *j, struct tf_vm_error *err)
{
	unsigned char bytes[16];
	char text[2 * sizeof(bytes) + 1];
	tf_vm_autofree char *path = tf_vm_format("%s/" TF_TOKEN_FILE, j->folder);

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return tf_vm_fail_errno(err, -errno, "getrandom");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	j->token = strdup(text);
	return path && j->token ? tf_vm_write_file(path, text, strlen(text), err)
				: tf_vm_fail(err, -ENOMEM, "no memory");
}

static int start_receiver(struct tf_journey *j, unsigned place, bool once, struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, place);
	tf_vm_autofree char *token = tf_vm_format("%s/" TF_TOKEN_FILE, j->folder), *line = NULL;
	char pad[4096], token_there[4096], address[256], greeting[64], idle[64];
	const char *const argv[] = {pad, "serve", "--timing",
		tf_journey_patience(j, "--handshake-time", greeting, sizeof(greeting)),
		tf_journey_patience(j, "--idle-time", idle, sizeof(idle)), "--token-file",
		token_there, address, once ? "--once" : NULL, once ? "--input" : NULL, NULL};
	unsigned how = TF_JOB_RECEIVER | (once && tf_outside_holds(j, place) ? TF_JOB_HELD : 0);
	int rc = token ? tf_journey_put(j, m, "bin", PAD, err) : -ENOMEM;

	if (rc == 0)
		rc = tf_remote_put(m, token, TF_TOKEN_FILE, 0600, err);
	if (rc == 0)
		rc = m->ops->address(m, j->cell->transport, address, sizeof(address), err);
	if (rc < 0)
		return rc;
	tf_remote_path(m, PAD, pad, sizeof(pad));
	tf_remote_path(m, TF_TOKEN_FILE, token_there, sizeof(token_there));
	rc = tf_job_start(m, argv, how, &j->receivers[place], err);
	if (rc == 0)
		rc = tf_journey_wait(j, j->receivers[place], 0, "", &line, err);
	if (rc < 0)
		return rc;
	if (snprintf(j->addresses[place], sizeof(j->addresses[place]), "%s", line) >=
		(int)sizeof(j->addresses[place]))
		return tf_vm_fail(err, -ENAMETOOLONG, "%s: too long an address", line);
	return tf_faults_relay(j, place, j->addresses[place], sizeof(j->addresses[place]), err);
}

int tf_journey_receivers(struct tf_journey *j, bool once, struct tf_vm_error *err)
{
	int rc = make_token(j, err);

	tf_evidence_step(j, "receivers");
	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++)
		rc = start_receiver(j, i, once, err);
	return rc;
}

/* @text with @word, which stands for something, replaced. NULL without memory. */
static char *with(const char *text, const char *word, const char *value)
{
	const char *at = strstr(text, word);

	return at ? tf_vm_format("%.*s%s%s", (int)(at - text), text, value, at + strlen(word))
		  : strdup(text);
}

char *tf_journey_argument(const char *arg, const struct tf_remote *m)
{
	return with(arg, "{dir}", m->dir);
}

char *tf_journey_file(const struct tf_journey *j, const struct tf_remote *m, const char *file)
{
	tf_vm_autofree char *name = with(file, "{arch}", m->spec.arch);

	return name ? tf_vm_format("%s/%s", j->options->root, name) : NULL;
}

char *tf_journey_program(const struct tf_journey *j, const struct tf_remote *m)
{
	if (j->cell->program)
		return tf_journey_file(j, m, j->cell->program);
	return tf_vm_format("%s/build/%s%s/probes/%s-%s", j->options->root, m->spec.arch,
		j->options->variant, j->cell->probe, j->cell->build);
}

int tf_journey_tell(
	struct tf_journey *j, struct tf_job *process, pid_t pid, struct tf_vm_error *err)
{
	char number[16];
	const char *const argv[] = {"/bin/kill", "-USR1", number, NULL};
	struct tf_job *job;
	int rc;

	snprintf(number, sizeof(number), "%d", (int)pid);
	rc = tf_job_start(process->remote, argv, 0, &job, err);
	if (rc == 0)
		rc = tf_journey_wait(j, job, 0, NULL, NULL, err);
	return rc ? rc : tf_journey_wait(j, process, 0, NULL, NULL, err);
}

int tf_journey_put_files(struct tf_journey *j, struct tf_remote *m, struct tf_vm_error *err)
{
	int rc = 0;

	for (unsigned i = 0; j->cell->files[i] && rc == 0; i++) {
		tf_vm_autofree char *path = tf_journey_file(j, m, j->cell->files[i]);
		const char *slash = path ? strrchr(path, '/') : NULL;

		rc = slash ? tf_remote_put(m, path, slash + 1, 0755, err)
			   : tf_vm_fail(err, -ENOMEM, "no memory");
	}
	return rc;
}

/* Starts the probe at the first place, with @first and further addresses. */
int tf_journey_start(struct tf_journey *j, struct tf_remote *m, const char **argv, size_t n,
	struct tf_vm_error *err)
{
	char *args[TF_CELL_ARGS] = {NULL};
	int rc = 0;

	for (unsigned i = 0; j->cell->args[i] && rc == 0; i++) {
		args[i] = tf_journey_argument(j->cell->args[i], m);
		argv[n++] = args[i];
		if (!args[i])
			rc = tf_vm_fail(err, -ENOMEM, "no memory");
	}
	argv[n] = NULL;
	if (rc == 0)
		rc = tf_job_start(m, argv, j->cell->sender && !j->cell->engine[0] ? TF_JOB_HELD : 0,
			&j->probe, err);
	for (unsigned i = 0; i < TF_CELL_ARGS; i++)
		free(args[i]);
	return rc;
}

static int start_probe(struct tf_journey *j, bool wait, struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, 0);
	tf_vm_autofree char *name = tf_vm_format("%s-%s", j->cell->probe, j->cell->build);
	const char *argv[ARGV_MAX];
	char path[4096];
	size_t n = 0;
	int rc;

	tf_evidence_step(j, "probe");
	rc = name ? tf_journey_put(j, m, "probes", name, err) : -ENOMEM;

	if (rc == 0)
		rc = tf_journey_put_files(j, m, err);
	if (rc < 0)
		return rc;
	argv[n++] = tf_remote_path(m, name, path, sizeof(path));
	argv[n++] = j->addresses[1];
	for (unsigned i = 2; i < TF_CELL_ROUTE && j->addresses[i][0]; i++) {
		argv[n++] = "--next";
		argv[n++] = j->addresses[i];
	}
	if (j->token) {
		argv[n++] = "--token";
		argv[n++] = j->token;
	}
	if (wait)
		argv[n++] = "--wait";
	return tf_journey_start(j, m, argv, n, err);
}

/* What the probe was to leave; a probe that failed may have left nothing. */
static int fetch(struct tf_journey *j, struct tf_vm_error *err)
{
	for (unsigned i = 0; j->cell->fetch[i] && j->outcome->verdict == TF_VERDICT_OK; i++) {
		tf_vm_autofree char *path = tf_vm_format("%s/%s", j->folder, j->cell->fetch[i]);
		int rc = path ? tf_remote_get(machine_at(j, 0), j->cell->fetch[i], path, err)
			      : tf_vm_fail(err, -ENOMEM, "no memory");

		if (rc == -ENOENT)
			tf_journey_failed(j, "%s", err->text);
		else if (rc < 0)
			return rc;
	}
	return 0;
}

/* The last "N @what" in a text; TF_NOT_COUNTED if there is none. */
static uint64_t count_of(const char *text, const char *what)
{
	uint64_t found = TF_NOT_COUNTED;
	char word[32];

	snprintf(word, sizeof(word), " %s", what);
	for (const char *at = text; (at = strstr(at, word)); at++) {
		const char *from = at;

		while (from > text && from[-1] >= '0' && from[-1] <= '9')
			from--;
		if (from < at)
			found = strtoull(from, NULL, 10);
	}
	return found;
}

static void count(uint64_t *ret, const char *text, const char *what)
{
	if (*ret == TF_NOT_COUNTED)
		*ret = count_of(text, what);
}

void tf_journey_count(struct tf_journey *j, const char *text)
{
	count(&j->outcome->registers, text, "registers");
	count(&j->outcome->mappings, text, "mappings");
	count(&j->outcome->bytes, text, "bytes");
}

/* The verdict of a job that had to end with 0 and to say "ok" on its last line. */
static void judge(struct tf_journey *j, const struct tf_job *job, bool must_say)
{
	struct tf_outcome *o = j->outcome;
	const char *said = job->text[0], *line = strstr(said, "ok");
	char fate[64];

	count(&o->registers, said, "registers");
	count(&o->mappings, job->text[1], "mappings");
	count(&o->mappings, said, "mappings");
	count(&o->bytes, job->text[1], "bytes");
	count(&o->bytes, said, "bytes");
	if (!WIFEXITED(job->status) || WEXITSTATUS(job->status))
		tf_journey_failed(j, "%s on %s %s, and said: %.4000s%.1000s", job->name,
			job->remote->name, tf_job_fate(job, fate, sizeof(fate)), said,
			job->text[1]);
	else if (must_say && !line)
		tf_journey_failed(j, "%s on %s did not say ok but: %.4000s%.1000s", job->name,
			job->remote->name, said, job->text[1]);
	else if (must_say && !o->said)
		o->said = strndup(line, strcspn(line, "\n"));
}

/* A receiver that did its work is still there. */
static void judge_receivers(struct tf_journey *j)
{
	char fate[64];

	for (unsigned i = 1; i < j->cell->n_route; i++)
		if (j->receivers[i] && j->receivers[i]->ended)
			tf_journey_failed(j, "the receiver on %s %s, and said: %.1000s",
				j->receivers[i]->remote->name,
				tf_job_fate(j->receivers[i], fate, sizeof(fate)),
				j->receivers[i]->text[1]);
}

/* Original and copy, which wait, go on to what they have to say: the verdict, or why there is no
 * copy, for which there is time when that of the cell is over. */
static void let_go(struct tf_journey *j)
{
	struct tf_job *receiver = j->receivers[j->cell->n_route - 1];
	int64_t words = tf_vm_now_ms() + WORDS_MS;

	if (j->outcome->verdict != TF_VERDICT_OK && j->deadline_ms < words)
		j->deadline_ms = words;
	if (receiver)
		tf_job_signal(receiver, SIGTERM);
	if (j->probe)
		tf_job_signal(j->probe, SIGTERM);
}

/* Looks at original and copy while both wait, then lets them go on to the verdict. */
static int compare_waiting(struct tf_journey *j, struct tf_vm_error *err)
{
	int rc = tf_journey_blame(j, tf_witness_socket(j, err), err);

	let_go(j);
	return rc;
}

static int go_by_socket(struct tf_journey *j, struct tf_vm_error *err)
{
	bool wait = j->cell->checks & TF_CHECK_WITNESS;
	int rc = tf_journey_receivers(j, false, err);

	if (rc == 0)
		rc = start_probe(j, wait, err);
	if (rc == 0 && wait)
		rc = compare_waiting(j, err);
	if (rc == 0)
		rc = tf_journey_blame(j, tf_journey_wait(j, j->probe, 0, NULL, NULL, err), err);
	if (rc == 0 && j->probe->ended)
		judge(j, j->probe, true);
	if (rc == 0 && !wait) /* else the signal has ended it */
		judge_receivers(j);
	return rc;
}

/* Fetches the image that the job at @place has saved as @name; it is number j->images. */
static int fetch_image(struct tf_journey *j, unsigned place, const char *name, char *ret_path,
	size_t size, struct tf_vm_error *err)
{
	snprintf(ret_path, size, "%s/%u.tf", j->folder, ++j->images);
	return tf_remote_get(machine_at(j, place), name, ret_path, err);
}

/* Starts a process from the image on the machine of @place. */
static int restore_at(struct tf_journey *j, unsigned place, const char *image, const char *name,
	struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, place);
	char pad[4096], file[4096];
	const char *const argv[] = {pad, "restore", "--timing", file, NULL};
	int rc;

	tf_evidence_step(j, "carry");
	rc = tf_journey_put(j, m, "bin", PAD, err);
	if (rc == 0)
		rc = tf_remote_put(m, image, name, 0600, err);
	tf_remote_path(m, PAD, pad, sizeof(pad));
	tf_remote_path(m, name, file, sizeof(file));
	tf_evidence_step(j, "restore");
	return rc ? rc : tf_job_start(m, argv, TF_JOB_RECEIVER, &j->receivers[place], err);
}

static int await_end(struct tf_journey *j, struct tf_job *job, struct tf_vm_error *err)
{
	return tf_journey_blame(j, tf_journey_wait(j, job, 0, NULL, NULL, err), err);
}

static void image_name(unsigned place, char *buf, size_t size)
{
	snprintf(buf, size, "image%u.tf", place);
}

/* One image, and a process made of it at every other place, all at once. */
static int go_fan_out(struct tf_journey *j, const char *image, struct tf_vm_error *err)
{
	char name[32];
	int rc = 0;

	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++) {
		image_name(i, name, sizeof(name));
		rc = restore_at(j, i, image, name, err);
	}
	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++) {
		rc = await_end(j, j->receivers[i], err);
		if (rc == 0 && j->receivers[i]->ended)
			judge(j, j->receivers[i], true);
	}
	return rc;
}

/* Every image but the first is saved by a copy. */
static int go_by_file(struct tf_journey *j, struct tf_vm_error *err)
{
	char name[32], path[4096];
	struct tf_job *job;
	int rc;

	for (unsigned i = 1; i < j->cell->n_route; i++) {
		image_name(i, name, sizeof(name));
		tf_remote_path(
			machine_at(j, i - 1), name, j->addresses[i], sizeof(j->addresses[i]));
	}
	if (j->cell->fan_out)
		j->addresses[2][0] = '\0'; /* it goes once */
	rc = start_probe(j, false, err);
	if (rc == 0)
		rc = await_end(j, j->probe, err);
	job = j->probe;
	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++) {
		if (j->outcome->verdict == TF_VERDICT_OK)
			judge(j, job, false);
		if (j->outcome->verdict != TF_VERDICT_OK)
			return 0;
		image_name(i, name, sizeof(name));
		rc = fetch_image(j, i - 1, name, path, sizeof(path), err);
		if (rc == 0 && i == 1)
			rc = tf_witness_count(j, path);
		if (rc == 0 && j->cell->fan_out)
			return go_fan_out(j, path, err);
		if (rc == 0)
			rc = restore_at(j, i, path, name, err);
		job = j->receivers[i];
		if (rc == 0)
			rc = await_end(j, job, err);
	}
	if (rc == 0 && j->outcome->verdict == TF_VERDICT_OK)
		judge(j, job, true);
	return rc;
}

/* A copy that was let go on says its verdict, whatever its receiver died of. */
static int hear_copy(struct tf_journey *j, struct tf_job *receiver, struct tf_vm_error *err)
{
	tf_vm_autofree char *rest = NULL;
	int rc = tf_journey_blame(j, tf_journey_wait(j, receiver, 0, "ok", &rest, err), err);

	if (rest)
		j->outcome->said = tf_vm_format("ok%s", rest);
	if (rc == 0 && j->outcome->verdict == TF_VERDICT_OK)
		count(&j->outcome->registers, receiver->text[0], "registers");
	return rc;
}

/* The image that leaves is saved by the waiting original; its copy waits, and is compared with it.
 */
static int wait_by_file(struct tf_journey *j, struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s/original.tf", j->folder);
	char name[32];
	int rc;

	image_name(1, name, sizeof(name));
	tf_remote_path(machine_at(j, 0), name, j->addresses[1], sizeof(j->addresses[1]));
	rc = path ? start_probe(j, true, err) : tf_vm_fail(err, -ENOMEM, "no memory");
	if (rc == 0)
		rc = tf_witness_save(j, name, path, err);
	if (rc == 0)
		rc = restore_at(j, 1, path, name, err);
	if (rc == 0)
		rc = tf_witness_copy(j, j->receivers[1], path, name, err);
	rc = tf_journey_blame(j, rc, err);
	tf_evidence_step(j, "verdict");
	let_go(j);
	if (rc == 0 && j->probe)
		rc = await_end(j, j->probe, err);
	if (rc == 0 && j->probe && j->probe->ended)
		judge(j, j->probe, false);
	return rc || !j->receivers[1] ? rc : hear_copy(j, j->receivers[1], err);
}

int tf_journey_go(struct tf_journey *j, struct tf_vm_error *err)
{
	int rc;

	if (tf_alone_is(j->cell))
		return tf_alone_go(j, err);
	if (j->cell->faults.n_strikes)
		rc = tf_faults_go(j, err);
	else if (j->cell->engine[0])
		rc = tf_engine_go(j, err);
	else if (j->cell->sender)
		rc = tf_outside_go(j, err);
	else if (j->cell->transport != TF_TRANSPORT_FILE)
		rc = go_by_socket(j, err);
	else if (j->cell->checks & TF_CHECK_WITNESS)
		rc = wait_by_file(j, err);
	else
		rc = go_by_file(j, err);
	return rc ? rc : fetch(j, err);
}
