/* SPDX-License-Identifier: MIT */
/* See bed.h. */
#include "harness/bed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "qemu/io.h"

#define ARGS_MAX 1024

static void on_output(
	void *arg, struct tf_vm *vm, uint32_t job, int stream, const void *data, size_t len)
{
	(void)arg, (void)vm, (void)job;
	tf_vm_write_all(stream, data, len);
}

static void on_exit_of(void *arg, struct tf_vm *vm, uint32_t job, int status)
{
	(void)vm, (void)job;
	((struct tf_bed *)arg)->status = status;
}

static void on_closed(void *arg, struct tf_vm *vm, uint32_t job)
{
	(void)vm, (void)job;
	((struct tf_bed *)arg)->closed = true;
}

static void on_dead(void *arg, struct tf_vm *vm, const struct tf_vm_error *why)
{
	struct tf_bed *b = arg;

	(void)vm;
	b->dead = true;
	b->err = *why;
}

const struct tf_vm_callbacks tf_bed_callbacks = {NULL, on_output, on_exit_of, on_closed, on_dead};

int tf_bed_start(struct tf_bed *b, const char *name, const char *machines)
{
	const struct tf_row *row = NULL;
	int rc = tf_home_find(&b->home, &b->err);

	b->status = -1;
	if (rc == 0)
		rc = tf_rows_read(&b->rows, machines, &b->err);
	if (rc == 0)
		rc = tf_rows_get(&b->rows, name, &row, &b->err);
	if (rc == 0 && row && row->spec.tier != TF_TIER_SYSTEM)
		rc = tf_vm_fail(&b->err, -EINVAL,
			"machine %s: it is the host itself; this is for machines of tier system",
			name);
	if (rc == 0)
		rc = tf_vm_cachedir(b->site.cache, sizeof(b->site.cache), &b->err);
	if (rc < 0 || !row)
		return rc;
	strcpy(b->run, "/tmp/telebed.XXXXXX");
	if (!mkdtemp(b->run))
		return tf_vm_fail_errno(&b->err, -errno, "%s", b->run);
	rc = tf_janitor_start(b->run, TF_JANITOR_OURS, &b->janitor, &b->err);
	b->site.root = b->home.root;
	b->site.variant = b->home.variant;
	b->site.folder = b->run;
	if (rc == 0)
		rc = tf_remote_new(&b->site, &row->spec, row->name, &b->machine, &b->err);
	b->dead = rc < 0; /* what is left of it is told */
	if (rc == 0)
		b->vm = b->machine->ops->vm(b->machine);
	return rc;
}

void tf_bed_end(struct tf_bed *b)
{
	tf_remote_free(b->machine);
	tf_site_done(&b->site);
	if (!b->dead && b->run[0])
		tf_vm_remove_dir(b->run);
	tf_janitor_dismiss(b->janitor);
	tf_rows_done(&b->rows);
}

int tf_bed_spawn(struct tf_bed *b, const struct tf_vm_command *command, uint32_t *ret_job)
{
	const char *full[ARGS_MAX + 2] = {TF_EMULATOR};
	struct tf_vm_command c = *command;
	size_t n = 0;

	for (; n < ARGS_MAX && command->argv[n]; n++)
		full[n + 1] = command->argv[n];
	if (command->argv[n])
		return tf_vm_fail(&b->err, -E2BIG, "more than %d arguments", ARGS_MAX);
	if (tf_spec_emulates(&b->machine->spec))
		c.argv = full;
	return tf_vm_spawn(b->vm, &c, ret_job, NULL, &b->err);
}

int tf_bed_exit_code(const struct tf_bed *b, int rc)
{
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", b->err.text);
	if (rc < 0)
		return rc == -EINVAL ? EX_USAGE : EX_UNAVAILABLE;
	return WIFSIGNALED(b->status) ? 128 + WTERMSIG(b->status) : WEXITSTATUS(b->status);
}
