/* SPDX-License-Identifier: MIT */
/* The machines of a run, and one cell after the other on them. */
#include "harness/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/explain.h"
#include "harness/progress.h"
#include "harness/report.h"
#include "qemu/io.h"

struct run {
	const struct tf_run_options *options;
	struct tf_report *report;
	struct tf_site site;
	struct tf_remote *pool[TF_CELL_MACHINES]; /* as many as the last cell had */
};

/* Takes the machine of the pool that is as asked, well, and not taken yet. */
static struct tf_remote *take(struct run *r, const struct tf_spec *spec)
{
	for (unsigned i = 0; i < TF_CELL_MACHINES; i++) {
		struct tf_remote *m = r->pool[i];

		if (m && !memcmp(&m->spec, spec, sizeof(*spec))) {
			r->pool[i] = NULL;
			if (m->ops->well(m))
				return m;
			tf_report_note(
				r->report, "a new machine for one that is lost: %s", m->why.text);
			tf_remote_free(m);
		}
	}
	return NULL;
}

static void drop_pool(struct run *r)
{
	for (unsigned i = 0; i < TF_CELL_MACHINES; i++) {
		tf_remote_free(r->pool[i]);
		r->pool[i] = NULL;
	}
}

/* Puts the machines of @cell into the pool, in its order; others are ended first. */
static int prepare(
	struct run *r, const struct tf_cell *cell, int *ret_ready_ms, struct tf_vm_error *err)
{
	struct tf_remote *want[TF_CELL_MACHINES] = {NULL};
	int rc = 0;

	for (unsigned i = 0; i < cell->n_machines; i++)
		want[i] = take(r, &cell->machines[i]);
	drop_pool(r);
	memcpy(r->pool, want, sizeof(want));
	for (unsigned i = 0; i < cell->n_machines && rc == 0; i++) {
		if (r->pool[i]) {
			snprintf(r->pool[i]->name, sizeof(r->pool[i]->name), "%s",
				cell->machine_names[i]);
		} else {
			rc = tf_remote_new(&r->site, &cell->machines[i], cell->machine_names[i],
				&r->pool[i], err);
			if (rc == 0 && cell->machines[i].tier == TF_TIER_SYSTEM)
				tf_report_note(r->report, "%s: %s machine, answered after %d ms",
					cell->machine_names[i], cell->machines[i].arch,
					r->pool[i]->ready_ms);
		}
		if (rc == 0 && r->pool[i]->ready_ms > *ret_ready_ms)
			*ret_ready_ms = r->pool[i]->ready_ms;
	}
	return rc;
}

static char *cell_folder(const struct run *r, const struct tf_cell *cell)
{
	char *folder = tf_vm_format("%s/%s", r->options->out, cell->name);

	for (char *p = folder ? folder + strlen(r->options->out) + 1 : NULL; p && *p; p++)
		if (*p == '/')
			*p = '-';
	if (folder && tf_vm_make_dirs(folder) == 0)
		return folder;
	free(folder);
	return NULL;
}

/* Jobs of the last cell; machines that came to grief are told apart from probes that did. */
static void settle(struct run *r, struct tf_journey *j, int rc, const struct tf_vm_error *err)
{
	struct tf_outcome *o = j->outcome;

	if (rc < 0) {
		tf_journey_failed(j, "%s", err->text);
		o->verdict = TF_VERDICT_BROKEN;
	}
	for (unsigned i = 0; o->verdict != TF_VERDICT_OK && i < j->cell->n_machines; i++) {
		if (r->pool[i]->ops->well(r->pool[i]) || o->verdict == TF_VERDICT_BROKEN)
			continue;
		tf_journey_failed(j, "%s", r->pool[i]->why.text);
		o->verdict = TF_VERDICT_BROKEN;
	}
	if (o->verdict != TF_VERDICT_OK || r->options->keep || j->cell->fetch[0]) {
		tf_explain(j);
		o->folder = strdup(j->folder);
	} else {
		tf_vm_remove_dir(j->folder);
	}
	for (unsigned i = 0; i < j->cell->n_machines; i++)
		while (r->pool[i]->jobs)
			tf_job_free(r->pool[i]->jobs);
}

static int run_cell(struct run *r, const struct tf_cell *cell, struct tf_vm_error *err)
{
	tf_vm_autofree char *folder = cell_folder(r, cell);
	struct tf_outcome o = {
		.cell = cell,
		.registers = TF_NOT_COUNTED,
		.mappings = TF_NOT_COUNTED,
		.bytes = TF_NOT_COUNTED,
		.lost = TF_NOT_COUNTED,
		.seen_registers = TF_NOT_COUNTED,
		.seen_bytes = TF_NOT_COUNTED,
	};
	struct tf_journey j = {
		.cell = cell,
		.machines = r->pool,
		.options = r->options,
		.folder = folder,
		.outcome = &o,
	};
	int64_t start;
	int limit = cell->limit_ms, rc;

	if (!folder)
		return tf_vm_fail(
			err, -EIO, "%s: no folder for the cell %s", r->options->out, cell->name);
	rc = prepare(r, cell, &o.ready_ms, err);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < cell->n_machines; i++) {
		int scaled = r->pool[i]->ops->scale(r->pool[i], cell->limit_ms);

		limit = scaled > limit ? scaled : limit;
	}
	start = tf_vm_now_ms();
	j.deadline_ms = start + limit;
	tf_progress_begin(cell->name, cell->takes_ms);
	rc = tf_journey_go(&j, err);
	tf_progress_end();
	o.ms = (int)(tf_vm_now_ms() - start);
	settle(r, &j, rc, err);
	free(j.token);
	tf_report_add(r->report, &o);
	return 0;
}

int tf_run_cells(const struct tf_run_options *o, const struct tf_cells *cells,
	struct tf_report *report, struct tf_vm_error *err)
{
	struct run r = {
		.options = o,
		.report = report,
		.site = {.root = o->root, .variant = o->variant, .folder = o->out},
	};
	int rc = tf_vm_cachedir(r.site.cache, sizeof(r.site.cache), err);

	for (size_t i = 0; i < cells->n && rc == 0; i++)
		rc = run_cell(&r, &cells->v[i], err);
	drop_pool(&r);
	tf_site_done(&r.site);
	return rc;
}
