/* SPDX-License-Identifier: MIT */
/*
 * The journey of a program by the hands of an engine: a program of somebody's that saves a process
 * into a folder, and makes one out of it (docs/testbed/engines.md). The folder is carried here.
 *
 *   probe       says "ready", and at SIGUSR1 looks whether all is as it was: "right N"
 *   program     says together, in all places, what it says where it is left alone
 *
 * What the engine says that it cannot is an outcome of the cell; the process then has to go on
 * where it is.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/evidence.h"
#include "harness/run.h"
#include "qemu/io.h"

#define SAVED    "saved"
#define TELEFORK "telefork"

static struct tf_remote *machine_at(const struct tf_journey *j, unsigned place)
{
	return j->machines[j->cell->route[place]];
}

char *tf_engine_path(const struct tf_run_options *o, const char *name)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	char *path = tf_vm_format("%s%s/telebed/engines/%s",
		config && config[0] ? config
		: home              ? home
				    : "",
		config && config[0] ? "" : "/.config", name);

	if (path && access(path, X_OK) == 0)
		return path;
	free(path);
	path = tf_vm_format("%s/harness/engines/%s", o->root, name);
	if (path && access(path, X_OK) == 0)
		return path;
	free(path);
	return NULL;
}

/* A command on @m to its end. */
static int command(struct tf_journey *j, struct tf_remote *m, const char *const argv[],
	struct tf_job **ret, struct tf_vm_error *err)
{
	int rc = tf_job_start(m, argv, 0, ret, err);

	return rc ? rc : tf_journey_wait(j, *ret, 0, NULL, NULL, err);
}

/* A shell's command; its failure is the harness's. */
__attribute__((format(printf, 4, 5))) static int shell(
	struct tf_journey *j, struct tf_remote *m, struct tf_vm_error *err, const char *fmt, ...)
{
	char text[1024];
	const char *const argv[] = {"/bin/sh", "-c", text, NULL};
	struct tf_job *job;
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized) */
	va_end(ap);
	rc = command(j, m, argv, &job, err);
	if (rc == 0 && (!WIFEXITED(job->status) || WEXITSTATUS(job->status)))
		rc = tf_vm_fail(err, -EIO, "%s: %.200s: %.300s", m->name, text, job->text[1]);
	return rc;
}

/* The cell's outcome is what the engine says that it cannot do. */
static void unable(struct tf_journey *j, const char *verb, const struct tf_job *job)
{
	const char *said = job->text[1][0] ? job->text[1] : job->text[0];

	tf_journey_failed(j, "%s cannot %s on %s: %.2000s", j->cell->engine, verb,
		job->remote->name, said[0] ? said : "no reason was given");
	j->outcome->verdict = TF_VERDICT_UNABLE;
}

static bool did(const struct tf_job *job)
{
	return WIFEXITED(job->status) && WEXITSTATUS(job->status) == 0;
}

/* Puts what the engine has for machines of this kind, unless it is there from an earlier cell. */
static int install(struct tf_journey *j, struct tf_remote *m, struct tf_vm_error *err)
{
	tf_vm_autofree char *pack = tf_vm_format(
		"%s/build/guest/%s/%s.tar", j->options->root, m->spec.arch, j->cell->engine);
	int rc;

	if (!pack)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (m->spec.tier != TF_TIER_SYSTEM || access(pack, R_OK) < 0 ||
		!strcmp(m->engine, j->cell->engine))
		return 0;
	rc = tf_remote_put(m, pack, "engine.tar", 0600, err);
	if (rc == 0)
		rc = shell(j, m, err, "cd / && tar -xf %s/engine.tar && rm %s/engine.tar", m->dir,
			m->dir);
	if (rc == 0)
		snprintf(m->engine, sizeof(m->engine), "%s", j->cell->engine);
	return rc;
}

/* The engine, telefork and the program, on a machine. An engine that is not able to work there says
 * so now. */
static int put_all(struct tf_journey *j, struct tf_remote *m, struct tf_vm_error *err)
{
	tf_vm_autofree char *engine = tf_engine_path(j->options, j->cell->engine);
	tf_vm_autofree char *path = tf_journey_program(j, m);
	char there[4096];
	const char *const argv[] = {there, "capabilities", NULL};
	struct tf_job *job;
	int rc;

	if (!engine)
		return tf_vm_fail(err, -ENOENT,
			"no engine '%s' in harness/engines and ~/.config/telebed/engines",
			j->cell->engine);
	rc = path ? install(j, m, err) : tf_vm_fail(err, -ENOMEM, "no memory");
	if (rc == 0)
		rc = tf_remote_put(m, engine, "engine", 0755, err);
	if (rc == 0)
		rc = tf_journey_put(j, m, "bin", TELEFORK, err);
	if (rc == 0)
		rc = tf_remote_put(m, path, j->cell->probe, 0755, err);
	if (rc == 0)
		rc = tf_journey_put_files(j, m, err);
	tf_remote_path(m, "engine", there, sizeof(there));
	if (rc == 0)
		rc = command(j, m, argv, &job, err);
	if (rc == 0 && !did(job))
		unable(j, "work", job);
	return rc;
}

/* Runs it in its machine's folder. */
static int start_program(struct tf_journey *j, struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, 0);
	const char *argv[TF_CELL_ARGS + 5] = {
		"/bin/sh", "-c", "cd \"${0%/*}\" && exec \"$0\" \"$@\""};
	char path[4096];
	size_t n = 3;

	argv[n++] = tf_remote_path(m, j->cell->probe, path, sizeof(path));
	return tf_journey_start(j, m, argv, n, err);
}

/* It is saved, and gone from there; or the engine said why not. */
static int save(struct tf_journey *j, unsigned place, pid_t pid, struct tf_job *process,
	struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, place);
	char engine[4096], folder[4096], number[16];
	const char *const argv[] = {engine, "save", number, folder, NULL};
	struct tf_job *job;
	int rc;

	snprintf(number, sizeof(number), "%d", (int)pid);
	tf_remote_path(m, "engine", engine, sizeof(engine));
	tf_remote_path(m, SAVED, folder, sizeof(folder));
	tf_evidence_step(j, "save");
	rc = shell(j, m, err, "rm -rf '%s'", folder);
	if (rc == 0)
		rc = command(j, m, argv, &job, err);
	if (rc == 0 && !did(job))
		unable(j, "save it", job);
	else if (rc == 0) /* what it has said is complete only now */
		rc = tf_journey_wait(j, process, 0, NULL, NULL, err);
	return rc;
}

/* The folder, from one machine to another, through the host. */
static int carry(struct tf_journey *j, unsigned from, unsigned to, struct tf_vm_error *err)
{
	struct tf_remote *a = machine_at(j, from), *b = machine_at(j, to);
	tf_vm_autofree char *here = tf_vm_format("%s/%u.tar", j->folder, to);
	int rc = here ? shell(j, a, err, "cd '%s' && tar -cf " SAVED ".tar " SAVED, a->dir)
		      : tf_vm_fail(err, -ENOMEM, "no memory");

	if (rc == 0)
		rc = tf_remote_get(a, SAVED ".tar", here, err);
	if (rc == 0)
		rc = shell(j, a, err, "rm '%s/" SAVED ".tar'", a->dir);
	if (rc == 0)
		rc = tf_remote_put(b, here, SAVED ".tar", 0600, err);
	if (rc == 0)
		rc = shell(j, b, err,
			"cd '%s' && rm -rf " SAVED " && tar -xf " SAVED ".tar && rm " SAVED ".tar",
			b->dir);
	if (here && !j->options->keep)
		unlink(here);
	return rc;
}

/* A process is made of the folder; *ret_pid is 0 if the engine said why not. */
static int restore(struct tf_journey *j, unsigned place, pid_t *ret_pid, struct tf_vm_error *err)
{
	struct tf_remote *m = machine_at(j, place);
	tf_vm_autofree char *word = tf_vm_format("%s: pid ", j->cell->engine), *line = NULL;
	char engine[4096], folder[4096];
	const char *const argv[] = {engine, "restore", folder, NULL};
	int rc = word ? 0 : tf_vm_fail(err, -ENOMEM, "no memory");

	*ret_pid = 0;
	tf_remote_path(m, "engine", engine, sizeof(engine));
	tf_remote_path(m, SAVED, folder, sizeof(folder));
	if (rc == 0)
		rc = tf_job_start(m, argv, 0, &j->receivers[place], err);
	if (rc == 0)
		rc = tf_journey_wait(j, j->receivers[place], 1, word, &line, err);
	if (rc == -ESRCH) {
		unable(j, "restore it", j->receivers[place]);
		return 0;
	}
	if (rc == 0)
		*ret_pid = atoi(line);
	return rc;
}

/* A probe looks, after its last journey, whether all is right. One that is gone by then has said
 * why. */
static int ask(struct tf_journey *j, pid_t pid, struct tf_job *process, struct tf_vm_error *err)
{
	int rc = tf_journey_tell(j, process, pid, err);

	if (rc == 0 && !strstr(process->text[0], "right"))
		tf_journey_failed(j, "%s on %s did not say right but: %.2000s%.2000s",
			j->cell->probe, process->remote->name, process->text[0], process->text[1]);
	else if (rc == 0)
		j->outcome->said = strndup(strstr(process->text[0], "right"), 200);
	return rc;
}

/* What it says at this place is to go on where the last one ended. */
static int hear(struct tf_journey *j, struct tf_job *process, const char **rest, bool last,
	struct tf_vm_error *err)
{
	int rc = last ? tf_journey_wait(j, process, 0, NULL, NULL, err) : 0;
	const char *said = process->text[0];
	size_t n = strlen(said);

	if (rc < 0)
		return rc;
	if (strncmp(*rest, said, n) != 0 || (last && (*rest)[n]))
		tf_journey_failed(j, "%s: it said \"%.500s\", to be \"%.500s\"",
			process->remote->name, said, *rest);
	else
		*rest += n;
	return 0;
}

/* Waits until it is at work, which its next line shows. */
static int await_work(
	struct tf_journey *j, struct tf_job *process, const char *rest, struct tf_vm_error *err)
{
	tf_vm_autofree char *line = NULL;

	if (!rest)
		return process == j->probe ? tf_journey_wait(j, process, 0, "ready", NULL, err) : 0;
	line = tf_vm_format("%.*s", (int)strcspn(rest, "\n"), rest);
	return line ? tf_journey_wait(j, process, 0, line, NULL, err)
		    : tf_vm_fail(err, -ENOMEM, "no memory");
}

/* The end of the journey, or of what the engine can do of it: the process is to be all right. */
static int finish(struct tf_journey *j, pid_t pid, struct tf_job *process, const char **rest,
	struct tf_vm_error *err)
{
	enum tf_verdict before = j->outcome->verdict;
	int rc;

	tf_evidence_step(j, "verdict");
	rc = *rest ? hear(j, process, rest, true, err) : ask(j, pid, process, err);

	if (before == TF_VERDICT_UNABLE && rc == 0 && j->outcome->verdict != TF_VERDICT_FAILED)
		j->outcome->verdict = before;
	return rc;
}

/* From place to place. */
static int go_along(struct tf_journey *j, const char *rest, struct tf_vm_error *err)
{
	struct tf_job *process = j->probe;
	pid_t pid = process->pid;
	int rc = 0;

	for (unsigned i = 1; i < j->cell->n_route && rc == 0; i++) {
		unsigned from = j->cell->fan_out ? 0 : i - 1;

		if (i == 1 || !j->cell->fan_out) {
			rc = await_work(j, process, rest, err);
			if (rc == 0)
				rc = save(j, from, pid, process, err);
			if (rc < 0 || j->outcome->verdict != TF_VERDICT_OK)
				break;
			if (rest)
				rc = hear(j, process, &rest, false, err);
		}
		tf_evidence_step(j, "carry");
		if (rc == 0)
			rc = carry(j, from, i, err);
		tf_evidence_step(j, "restore");
		if (rc == 0)
			rc = restore(j, i, &pid, err);
		if (rc < 0 || !pid)
			return rc;
		process = j->receivers[i];
		if (j->cell->fan_out) {
			const char *rest_of_it = rest;

			rc = finish(j, pid, process, &rest_of_it, err);
		}
	}
	if (rc < 0 || (j->cell->fan_out && j->outcome->verdict == TF_VERDICT_OK))
		return rc;
	return finish(j, pid, process, &rest, err);
}

int tf_engine_go(struct tf_journey *j, struct tf_vm_error *err)
{
	tf_vm_autofree char *expected = NULL;
	int rc = j->cell->program ? tf_journey_expected(j, &expected, err) : 0;

	for (unsigned i = 0; i < j->cell->n_machines && rc == 0; i++) {
		rc = put_all(j, j->machines[i], err);
		if (j->outcome->verdict != TF_VERDICT_OK)
			return rc;
	}
	tf_evidence_step(j, "program");
	if (rc == 0)
		rc = start_program(j, err);
	if (rc == 0)
		rc = tf_journey_blame(j, go_along(j, expected, err), err);
	/* Its files are the machines' memory. */
	for (unsigned i = 0; i < j->cell->n_machines && rc == 0; i++)
		rc = shell(j, j->machines[i], err, "rm -rf '%s/" SAVED "'", j->machines[i]->dir);
	return rc;
}
