/* SPDX-License-Identifier: MIT */
/* See faults.h: machines with receivers, the program, and commands on the machines. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/faults.h"
#include "qemu/io.h"

#define COMMAND_MS 60000
#define PATIENT_MS 30000
#define ARGS_MAX   16
#define PORT       7700 /* in guests */
#define BASELINE   "x86-64-v3"
#define STATE_MIB  "1" /* of the file system that has the journal of a guest */

int tf_campaign_patience(const struct tf_campaign *c)
{
	const struct tf_remote *m = *c->places[0].remote;

	return m->ops->scale(m, PATIENT_MS) + 2 * 1000 * c->idle_s;
}

static struct tf_remote *remote_of(const struct tf_campaign *c, unsigned place)
{
	return *c->places[place].remote;
}

/* --- commands --- */

static int exit_code(const struct tf_job *job)
{
	return WIFEXITED(job->status) ? WEXITSTATUS(job->status) : 128 + WTERMSIG(job->status);
}

/* Waits for the end of @job, and frees it. */
static int finish(struct tf_campaign *c, struct tf_job *job, char **ret_text, int *ret_code,
	struct tf_vm_error *err)
{
	struct tf_remote *m = job->remote;
	int rc = tf_job_wait(&m, 1, job, 0, NULL, NULL,
		m->ops->scale(m, COMMAND_MS) + 3 * 1000 * c->idle_s, err);

	if (rc == 0) {
		*ret_code = exit_code(job);
		if (ret_text)
			*ret_text = tf_vm_format("%s%s", job->text[0], job->text[1]);
		if (ret_text && !*ret_text)
			rc = tf_vm_fail(err, -ENOMEM, "no memory");
	}
	tf_job_free(job);
	return rc;
}

int tf_place_run(struct tf_campaign *c, unsigned place, const char *const argv[], char **ret_text,
	int *ret_code, struct tf_vm_error *err)
{
	struct tf_job *job;
	int rc = tf_job_start(remote_of(c, place), argv, 0, &job, err);

	return rc ? rc : finish(c, job, ret_text, ret_code, err);
}

/* The command of telefork that is a receiver; QEMU user mode needs another one. */
static const char *receiver_of(const struct tf_remote *m)
{
	return m->spec.tier == TF_TIER_USER ? "telefork-pad" : "telefork";
}

/* With its journal in the machine's folder. */
int tf_place_start_telefork(struct tf_campaign *c, unsigned place, const char *const args[],
	struct tf_job **ret, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(c, place);
	bool guest = m->spec.tier == TF_TIER_SYSTEM, receiver = !strcmp(args[0], "serve");
	char path[4096], state[4096];
	const char *argv[ARGS_MAX] = {"env", state, path};
	size_t n = 3;
	int rc;

	snprintf(state, sizeof(state), "XDG_STATE_HOME=%.4000s/state", m->dir);
	tf_remote_path(m, receiver_of(m), path, sizeof(path));
	while (*args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	m->variable = guest ? NULL : state;
	rc = tf_job_start(m, argv + (guest ? 0 : 2), receiver ? TF_JOB_RECEIVER : 0, ret, err);
	m->variable = NULL;
	return rc;
}

int tf_place_telefork(struct tf_campaign *c, unsigned place, const char *const args[],
	char **ret_text, int *ret_code, struct tf_vm_error *err)
{
	struct tf_job *job;
	int rc = tf_place_start_telefork(c, place, args, &job, err);

	return rc ? rc : finish(c, job, ret_text, ret_code, err);
}

int tf_place_start_hand(struct tf_campaign *c, unsigned place, const char *const args[],
	struct tf_job **ret, struct tf_vm_error *err)
{
	const char *argv[ARGS_MAX];
	/* On the host there is one hand. */
	struct tf_remote *m = remote_of(c, c->tier == TF_TIER_SYSTEM ? place : 0);
	char path[4096];
	size_t n = 1;

	argv[0] = tf_remote_path(m, "telebed-hand", path, sizeof(path));
	while (*args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	argv[n] = NULL;
	return tf_job_start(m, argv, 0, ret, err);
}

int tf_place_hand(struct tf_campaign *c, unsigned place, const char *const args[], char **ret_text,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *text = NULL;
	struct tf_job *job;
	int code, rc = tf_place_start_hand(c, place, args, &job, err);

	if (rc == 0)
		rc = finish(c, job, &text, &code, err);
	if (rc == 0 && code)
		rc = tf_vm_fail(err, -EREMOTEIO, "%s: telebed-hand %s: %.200s",
			remote_of(c, place)->name, args[0], text);
	if (rc == 0 && ret_text) {
		*ret_text = text;
		text = NULL;
	}
	return rc;
}

int tf_place_census(
	struct tf_campaign *c, unsigned place, struct tf_census *ret, struct tf_vm_error *err)
{
	struct tf_camp *p = &c->places[place];
	char receiver[16], *text = NULL;
	const char *const args[] = {"census", (*p->remote)->dir, c->file, receiver, NULL};
	int rc;

	snprintf(receiver, sizeof(receiver), "%d", p->serve ? (int)p->serve->pid : 0);
	rc = tf_place_hand(c, place, args, &text, err);
	if (rc == 0)
		rc = tf_census_read(ret, text, err);
	free(text);
	return rc;
}

/* --- machines --- */

static int put(struct tf_campaign *c, unsigned place, const char *folder, const char *name,
	struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(c, place);
	tf_vm_autofree char *path = tf_vm_format(
		"%s/build/%s%s/%s/%s", c->site->root, m->spec.arch, c->site->variant, folder, name);

	return path ? tf_remote_put(m, path, name, 0755, err)
		    : tf_vm_fail(err, -ENOMEM, "no memory");
}

/* The program's file has to be there where it goes; natively it is the same one everywhere. */
static int furnish(struct tf_campaign *c, unsigned place, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(c, place);
	tf_vm_autofree char *empty = tf_vm_format("%s/empty", c->folder);
	char state[4096];
	const char *const small[] = {"small", state, STATE_MIB, NULL};
	int rc = put(c, place, "bin", receiver_of(m), err);

	if (rc == 0)
		rc = put(c, place, "bin", "telebed-hand", err);
	if (rc == 0)
		rc = put(c, place, "tests", "counter", err);
	c->places[place].read = 0;
	if (rc < 0 || c->tier != TF_TIER_SYSTEM)
		return rc;
	tf_remote_path(m, "state", state, sizeof(state));
	rc = empty ? tf_place_hand(c, place, small, NULL, err)
		   : tf_vm_fail(err, -ENOMEM, "no memory");
	if (rc == 0)
		rc = tf_vm_write_file(empty, "", 0, err);
	return rc ? rc : tf_remote_put(m, empty, "counted", 0600, err);
}

int tf_place_serve(struct tf_campaign *c, unsigned place, struct tf_vm_error *err)
{
	struct tf_camp *p = &c->places[place];
	struct tf_remote *m = *p->remote;
	tf_vm_autofree char *line = NULL;
	char idle[16];
	const char *const args[] = {"serve", "--insecure", "--idle-time", idle, p->address, NULL};
	int rc;

	snprintf(idle, sizeof(idle), "%d", c->idle_s);
	rc = tf_place_start_telefork(c, place, args, &p->serve, err);
	if (rc == 0)
		rc = tf_job_wait(
			&m, 1, p->serve, 0, "tcp:", &line, m->ops->scale(m, COMMAND_MS), err);
	if (rc < 0 || !line)
		return rc;
	snprintf(p->address, sizeof(p->address), "tcp:%s", line);
	p->port = (unsigned)atoi(strrchr(p->address, ':') + 1);
	return 0;
}

static int new_address(struct tf_campaign *c, unsigned place, struct tf_vm_error *err)
{
	struct tf_camp *p = &c->places[place];
	const struct tf_remote *m = *p->remote;
	int rc = m->ops->address(m, TF_TRANSPORT_TCP, p->address, sizeof(p->address), err);
	char *port = rc == 0 && c->tier == TF_TIER_SYSTEM ? strrchr(p->address, ':') : NULL;

	if (port)
		snprintf(
			port + 1, sizeof(p->address) - (size_t)(port + 1 - p->address), "%d", PORT);
	return rc;
}

static int settle_in(struct tf_campaign *c, unsigned place, struct tf_vm_error *err)
{
	struct tf_camp *p = &c->places[place];
	int rc = furnish(c, place, err);

	if (rc == 0)
		rc = new_address(c, place, err);
	if (rc == 0)
		rc = tf_place_serve(c, place, err);
	if (rc == 0 && c->tier != TF_TIER_SYSTEM)
		rc = tf_link_start_stream(p->port, &p->proxy, err);
	tf_census_done(&p->before);
	return rc ? rc : tf_place_census(c, place, &p->before, err);
}

int tf_place_replace(struct tf_campaign *c, unsigned place, struct tf_vm_error *err)
{
	struct tf_camp *p = &c->places[place];
	struct tf_spec spec = (*p->remote)->spec;
	char name[sizeof((*p->remote)->name)];
	int rc;

	snprintf(name, sizeof(name), "%s", (*p->remote)->name);
	if (c->program && c->program->remote == *p->remote)
		c->program = NULL;
	p->serve = NULL;
	tf_remote_free(*p->remote);
	*p->remote = NULL;
	rc = tf_remote_new(c->site, &spec, name, p->remote, err);
	return rc ? rc : settle_in(c, place, err);
}

struct tf_link *tf_campaign_link(struct tf_campaign *c, unsigned to)
{
	return c->tier == TF_TIER_SYSTEM ? c->site->link : c->places[to].proxy;
}

/* --- the program --- */

int tf_campaign_program(struct tf_campaign *c, unsigned place, struct tf_vm_error *err)
{
	struct tf_remote *m = remote_of(c, place);
	char path[4096], threads[8];
	char telefork[4096];
	const char *const argv[] = {tf_remote_path(m, "telefork", telefork, sizeof(telefork)),
		"run", "--baseline", BASELINE, "--",
		tf_remote_path(m, "counter", path, sizeof(path)), c->file, threads, "5000", NULL};
	/* QEMU's processor has less than the host's. */
	bool lesser = c->tier == TF_TIER_USER && !strcmp(m->spec.arch, "x86_64");
	int rc;

	snprintf(threads, sizeof(threads), "%d", TF_CAMPAIGN_THREADS);
	if (c->program)
		tf_job_free(c->program);
	c->program = NULL;
	rc = tf_job_start(m, argv + (lesser ? 0 : 5), 0, &c->program, err);
	if (rc < 0)
		return rc;
	c->where = place;
	c->pid = c->program->pid;
	memset(c->next, 0, sizeof(c->next));
	c->gap = 0;
	return 0;
}

int tf_campaign_begin(struct tf_campaign *c, struct tf_site *site, struct tf_remote **machines,
	unsigned n, const char *folder, int idle_s, struct tf_vm_error *err)
{
	int rc = 0;

	*c = (struct tf_campaign){.site = site, .folder = folder, .n = n, .idle_s = idle_s};
	if (n < 2 || n > TF_CAMPAIGN_MACHINES)
		return tf_vm_fail(
			err, -EINVAL, "faults: expected 2 to %d machines", TF_CAMPAIGN_MACHINES);
	c->tier = machines[n - 1]->spec.tier;
	for (unsigned i = 0; i < n; i++)
		c->places[i].remote = &machines[i];
	if (snprintf(c->file, sizeof(c->file), "%s/counted",
		    c->tier == TF_TIER_SYSTEM ? machines[0]->dir : folder) >= (int)sizeof(c->file))
		return tf_vm_fail(err, -ENAMETOOLONG, "%s: too long a name for a folder", folder);
	for (unsigned i = 0; i < n && rc == 0; i++)
		rc = settle_in(c, i, err);
	return rc ? rc : tf_campaign_program(c, 0, err);
}

/* In a guest it belongs to nobody's job. */
static void end_program(struct tf_campaign *c)
{
	char pid[16];
	const char *const args[] = {"kill", pid, "9", NULL};
	const struct tf_remote *m = remote_of(c, c->where);
	struct tf_vm_error ignored;

	snprintf(pid, sizeof(pid), "%d", (int)c->pid);
	if (c->pid > 1 && c->tier == TF_TIER_SYSTEM && m && !m->dead)
		tf_place_hand(c, c->where, args, NULL, &ignored);
}

void tf_campaign_end(struct tf_campaign *c)
{
	if (c->n)
		end_program(c);
	for (unsigned i = 0; i < c->n; i++) {
		tf_link_free(c->places[i].proxy);
		tf_census_done(&c->places[i].before);
	}
	c->n = 0;
}
