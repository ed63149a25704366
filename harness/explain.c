/* SPDX-License-Identifier: MIT */
/* The folder of a cell. */
#include "harness/explain.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/alone.h"
#include "harness/keep.h"
#include "qemu/io.h"

#define LOG_MAX ((size_t)1 << 20)

static void say_job(FILE *f, const struct tf_job *job)
{
	char fate[64];

	fprintf(f, "=== %s on %s %s\n--- standard output\n%s\n--- standard error\n%s\n", job->name,
		job->remote->name, tf_job_fate(job, fate, sizeof(fate)), job->text[0],
		job->text[1]);
}

void tf_explain_jobs(const char *folder, struct tf_remote *const machines[], unsigned n)
{
	tf_vm_autofree char *path = tf_vm_format("%s/said.txt", folder);
	FILE *f = path ? fopen(path, "we") : NULL;

	if (!f)
		return;
	for (unsigned i = 0; i < n; i++)
		for (const struct tf_job *job = machines[i] ? machines[i]->jobs : NULL; job;
			job = job->next)
			say_job(f, job);
	fclose(f);
}

static void copy_log(const struct tf_remote *m, const char *folder, const char *name)
{
	tf_vm_autofree char *from = tf_vm_format("%s/%s", m->folder, name);
	tf_vm_autofree char *to = tf_vm_format("%s/%s", folder, name);
	tf_vm_autofree char *text =
		from && !access(from, R_OK) ? tf_vm_file_tail(from, LOG_MAX) : NULL;

	if (text && to)
		tf_vm_write_file(to, text, strlen(text), NULL);
}

static void copy_logs(const struct tf_journey *j)
{
	static const char *const names[] = {"console.log", "qemu.log", "cmdline", "log"};

	for (unsigned i = 0; i < j->cell->n_machines; i++) {
		tf_vm_autofree char *folder =
			tf_vm_format("%s/%s", j->folder, j->cell->machine_names[i]);

		if (!folder || !j->machines[i] || tf_vm_make_dirs(folder) < 0)
			continue;
		for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
			copy_log(j->machines[i], folder, names[k]);
	}
}

static void write_text(const struct tf_journey *j, const char *name, const char *text)
{
	tf_vm_autofree char *path = tf_vm_format("%s/%s", j->folder, name);

	if (path && text)
		tf_vm_write_file(path, text, strlen(text), NULL);
}

void tf_explain(const struct tf_journey *j)
{
	if (!tf_alone_is(j->cell)) /* whose programs speak on the console */
		tf_explain_jobs(j->folder, j->machines, j->cell->n_machines);
	copy_logs(j);
	tf_keep(j);
	write_text(j, "why.txt", j->outcome->why);
}
