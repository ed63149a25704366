/* SPDX-License-Identifier: MIT */
/* The machines of a run, and one cell after the other on them. */
#include "harness/run.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/alone.h"
#include "harness/evidence.h"
#include "harness/explain.h"
#include "harness/faults_cell.h"
#include "harness/host.h"
#include "harness/inputs.h"
#include "harness/progress.h"
#include "harness/report.h"
#include "harness/tap.h"
#include "qemu/io.h"

/* Guests that compute at once are slow together, and their limits are measured alone. */
#define MIN_BUSY 2

#define BAD_MAX 16

/* A machine that did not start: nobody waits for it again. */
struct bad {
	struct tf_spec spec;
	struct tf_vm_error err;
};

/* What all sets of machines share. */
struct queue {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	const struct tf_run_options *options;
	const struct tf_cells *cells;
	struct tf_report *report;
	struct run *runs;
	unsigned n_runs, busy, max_busy; /* cells with guests under way */
	size_t total;
	bool *taken; /* total */
	struct bad bad[BAD_MAX];
	unsigned n_bad;
	bool stop;
	int rc;
	struct tf_vm_error err;
};

/* One set of machines. */
struct run {
	struct queue *queue;
	const struct tf_run_options *options;
	struct tf_report *report;
	pthread_t thread;
	struct tf_site site;
	const struct tf_cell *last;               /* its machines are in the pool */
	struct tf_remote *pool[TF_CELL_MACHINES]; /* as many as the last cell had */
};

uint64_t tf_cell_seed(uint64_t run_seed, const char *name, unsigned repetition)
{
	uint64_t h = run_seed ^ 0xcbf29ce484222325u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3u;
	h = (h ^ repetition) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 32;
}

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

/* Starts a machine, unless one like it did not start before. */
static int start(struct run *r, const struct tf_spec *spec, const char *name,
	struct tf_remote **ret, struct tf_vm_error *err)
{
	struct queue *q = r->queue;
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	for (unsigned i = 0; i < q->n_bad && rc == 0; i++) {
		if (memcmp(&q->bad[i].spec, spec, sizeof(*spec)) != 0)
			continue;
		*err = q->bad[i].err;
		rc = -ECHILD;
	}
	pthread_mutex_unlock(&q->lock);
	if (rc == 0)
		rc = tf_remote_new(&r->site, spec, name, ret, err);
	else
		return rc;
	pthread_mutex_lock(&q->lock);
	if (rc < 0 && q->n_bad < BAD_MAX)
		q->bad[q->n_bad++] = (struct bad){*spec, *err};
	pthread_mutex_unlock(&q->lock);
	return rc;
}

/* Puts the machines of @cell into the pool, in its order; others are ended first. */
static int prepare(
	struct run *r, const struct tf_cell *cell, int *ret_ready_ms, struct tf_vm_error *err)
{
	struct tf_remote *want[TF_CELL_MACHINES] = {NULL};
	int rc = 0;

	r->last = cell;
	if (tf_alone_is(cell)) {
		drop_pool(r);
		return 0;
	}
	for (unsigned i = 0; i < cell->n_machines; i++)
		want[i] = take(r, &cell->machines[i]);
	drop_pool(r);
	memcpy(r->pool, want, sizeof(want));
	for (unsigned i = 0; i < cell->n_machines && rc == 0; i++) {
		if (r->pool[i]) {
			snprintf(r->pool[i]->name, sizeof(r->pool[i]->name), "%s",
				cell->machine_names[i]);
		} else {
			rc = start(r, &cell->machines[i], cell->machine_names[i], &r->pool[i], err);
			if (rc == 0 && cell->machines[i].tier == TF_TIER_SYSTEM)
				tf_report_machine(r->report, r->pool[i]);
		}
		if (rc == 0 && r->pool[i]->ready_ms > *ret_ready_ms)
			*ret_ready_ms = r->pool[i]->ready_ms;
	}
	return rc;
}

static char *cell_folder(const struct run *r, const struct tf_cell *cell, unsigned repetition)
{
	char again[16] = "";
	char *folder;

	if (repetition)
		snprintf(again, sizeof(again), "-%u", repetition + 1);
	folder = tf_vm_format("%s/%s%s", r->options->out, cell->name, again);
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
		if (!r->pool[i] || r->pool[i]->ops->well(r->pool[i]) ||
			o->verdict == TF_VERDICT_BROKEN)
			continue;
		tf_journey_failed(j, "%s", r->pool[i]->why.text);
		o->verdict = TF_VERDICT_BROKEN;
	}
	tf_tap_end(j);
	/* What a peer does not hold is a remark, and nobody comes for it. */
	if ((o->verdict != TF_VERDICT_OK && (!j->cell->peer || o->verdict == TF_VERDICT_BROKEN)) ||
		r->options->keep || j->cell->fetch[0]) {
		tf_explain(j);
		o->folder = strdup(j->folder);
	} else {
		tf_vm_remove_dir(j->folder);
	}
	for (unsigned i = 0; i < j->cell->n_machines; i++)
		while (r->pool[i] && r->pool[i]->jobs)
			tf_job_free(r->pool[i]->jobs);
}

/* No cell without its machines; the others may have theirs. */
static void stranded(struct run *r, struct tf_journey *j, const struct tf_vm_error *err)
{
	drop_pool(r);
	tf_journey_failed(j, "%s", err->text);
	j->outcome->verdict = TF_VERDICT_BROKEN;
	tf_explain(j);
	j->outcome->folder = strdup(j->folder);
}

static void go(struct run *r, struct tf_journey *j)
{
	const struct tf_cell *cell = j->cell;
	struct tf_vm_error err;
	int64_t begin;
	int limit = cell->limit_ms, rc;

	rc = prepare(r, cell, &j->outcome->ready_ms, &err);
	if (rc < 0) {
		stranded(r, j, &err);
		return;
	}
	for (unsigned i = 0; i < cell->n_machines && r->pool[i]; i++) {
		int scaled = r->pool[i]->ops->scale(r->pool[i], cell->limit_ms);

		limit = scaled > limit ? scaled : limit;
	}
	begin = tf_vm_now_ms();
	j->deadline_ms = begin + limit;
	tf_tap_begin(j);
	tf_evidence_begin(j);
	tf_evidence_machines(j);
	rc = tf_faults_begin(j, &err);
	if (rc == 0)
		rc = tf_journey_go(j, &err);
	tf_faults_end(j);
	j->outcome->ms = (int)(tf_vm_now_ms() - begin);
	tf_evidence_done(j);
	settle(r, j, rc, &err);
}

/* Whether somebody looks at a program of the cell from outside, on a machine that is this host. */
static bool is_looked_at(const struct tf_cell *c, const struct tf_spec *spec)
{
	return spec->tier == TF_TIER_NATIVE &&
	       (c->sender || c->engine[0] || c->checks & TF_CHECK_WITNESS);
}

/* Whether all machines of the cell can be had here; else its outcome says why not. */
static bool can_be_had(const struct run *r, struct tf_outcome *o)
{
	char why[256];

	for (unsigned i = 0; i < o->cell->n_machines; i++) {
		const struct tf_spec *spec = &o->cell->machines[i];

		if (tf_spec_possible(r->options->home, spec, why) &&
			(!is_looked_at(o->cell, spec) || tf_host_looks(why)))
			continue;
		o->verdict = r->options->no_skip ? TF_VERDICT_BROKEN : TF_VERDICT_SKIPPED;
		o->why = tf_vm_format("%s: %s", o->cell->machine_names[i], why);
		return false;
	}
	return true;
}

static int run_cell(struct run *r, size_t at, enum tf_verdict *ret, struct tf_vm_error *err)
{
	const struct tf_cells *cells = r->queue->cells;
	tf_vm_autofree char *folder = NULL;
	struct tf_outcome o = {
		.cell = &cells->v[at % cells->n],
		.repetition = (unsigned)(at / cells->n),
		.registers = TF_NOT_COUNTED,
		.mappings = TF_NOT_COUNTED,
		.bytes = TF_NOT_COUNTED,
		.lost = TF_NOT_COUNTED,
		.seen_registers = TF_NOT_COUNTED,
		.seen_bytes = TF_NOT_COUNTED,
	};
	struct tf_journey j = {
		.cell = o.cell,
		.machines = r->pool,
		.site = &r->site,
		.options = r->options,
		.outcome = &o,
		.seed = tf_cell_seed(r->options->seed, o.cell->name, o.repetition),
	};
	int rc = 0;

	tf_progress_begin(o.cell->name, o.cell->takes_ms);
	if (can_be_had(r, &o)) {
		j.folder = folder = cell_folder(r, o.cell, o.repetition);
		if (folder)
			go(r, &j);
		else
			rc = tf_vm_fail(err, -EIO, "%s: no folder for the cell %s", r->options->out,
				o.cell->name);
	}
	free(j.token);
	*ret = o.verdict;
	tf_progress_end(
		o.verdict == TF_VERDICT_OK || o.verdict == TF_VERDICT_SKIPPED || o.cell->peer);
	if (rc == 0)
		tf_report_add(r->report, at, &o);
	return rc;
}

/* --- which cell is next --- */

static bool has_guests(const struct tf_cell *cell)
{
	for (unsigned i = 0; i < cell->n_machines; i++)
		if (cell->machines[i].tier >= TF_TIER_SYSTEM)
			return true;
	return false;
}

static bool same_machines(const struct tf_cell *a, const struct tf_cell *b)
{
	return a && b && a->n_machines == b->n_machines &&
	       !memcmp(a->machines, b->machines, a->n_machines * sizeof(a->machines[0]));
}

/* 2: it has these machines; 1: nobody has; 0: another set has. */
static int fit(const struct run *r, const struct tf_cell *cell)
{
	const struct queue *q = r->queue;

	if (same_machines(r->last, cell))
		return 2;
	for (unsigned i = 0; i < q->n_runs; i++)
		if (same_machines(q->runs[i].last, cell))
			return 0;
	return 1;
}

/* The cell that suits the set best, the first of several. Waits where guests are busy enough. */
static bool next(struct run *r, size_t *ret)
{
	struct queue *q = r->queue;
	int best;

	pthread_mutex_lock(&q->lock);
	do {
		bool left = false;

		best = -1;
		for (size_t i = 0; i < q->total && best < 2 && !q->stop; i++) {
			const struct tf_cell *cell = &q->cells->v[i % q->cells->n];
			int f;

			if (q->taken[i])
				continue;
			left = true;
			if (has_guests(cell) && q->busy >= q->max_busy)
				continue;
			f = fit(r, cell);
			if (f > best) {
				best = f;
				*ret = i;
			}
		}
		if (best < 0 && left)
			pthread_cond_wait(&q->changed, &q->lock);
		else if (best < 0)
			break;
	} while (best < 0);
	if (best >= 0) {
		q->taken[*ret] = true;
		r->last = &q->cells->v[*ret % q->cells->n];
		q->busy += has_guests(r->last);
	}
	pthread_mutex_unlock(&q->lock);
	return best >= 0;
}

static void done(struct run *r, enum tf_verdict verdict, int rc, const struct tf_vm_error *err)
{
	struct queue *q = r->queue;
	bool bad = verdict == TF_VERDICT_FAILED || verdict == TF_VERDICT_BROKEN;

	pthread_mutex_lock(&q->lock);
	q->busy -= has_guests(r->last);
	if (rc < 0 && !q->rc) {
		q->rc = rc;
		q->err = *err;
	}
	q->stop = q->stop || rc < 0 || (bad && q->options->until_fail && !r->last->peer);
	pthread_cond_broadcast(&q->changed);
	pthread_mutex_unlock(&q->lock);
}

static void *work(void *arg)
{
	struct run *r = arg;
	struct tf_vm_error err;
	size_t at;

	while (next(r, &at)) {
		enum tf_verdict verdict = TF_VERDICT_OK;
		int rc = run_cell(r, at, &verdict, &err);

		done(r, verdict, rc, &err);
	}
	drop_pool(r);
	tf_site_done(&r->site);
	return NULL;
}

/* Each set in a thread; the first is the caller's own. */
static int work_all(struct queue *q)
{
	char cache[4096];
	unsigned started = 1;
	int rc = tf_vm_cachedir(cache, sizeof(cache), &q->err);

	for (unsigned i = 0; i < q->n_runs && rc == 0; i++) {
		struct run *r = &q->runs[i];

		r->queue = q;
		r->options = q->options;
		r->report = q->report;
		r->site =
			(struct tf_site){.root = q->options->root, .variant = q->options->variant};
		r->site.seed = tf_cell_seed(q->options->seed, "machines", i);
		r->site.folder = tf_vm_format("%s/machines/%u", q->options->out, i + 1);
		memcpy(r->site.cache, cache, sizeof(cache));
		if (!r->site.folder)
			rc = tf_vm_fail(&q->err, -ENOMEM, "no memory");
	}
	for (; rc == 0 && started < q->n_runs; started++)
		if (pthread_create(&q->runs[started].thread, NULL, work, &q->runs[started]))
			break; /* then there are fewer */
	if (rc == 0)
		work(&q->runs[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(q->runs[i].thread, NULL);
	for (unsigned i = 0; i < q->n_runs; i++)
		free(q->runs[i].site.folder);
	return rc ? rc : q->rc;
}

int tf_run_cells(const struct tf_run_options *o, const struct tf_cells *cells,
	struct tf_report *report, struct tf_vm_error *err)
{
	struct queue q = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
		.options = o,
		.cells = cells,
		.report = report,
		.n_runs = o->jobs,
		.max_busy = tf_run_cores() > MIN_BUSY ? tf_run_cores() : MIN_BUSY,
		.total = cells->n * o->repeat,
	};
	uint64_t takes_ms = 0;
	int rc = -ENOMEM;

	tf_inputs_report(o->root, cells, report);
	for (size_t i = 0; i < cells->n; i++)
		takes_ms += (uint64_t)cells->v[i].takes_ms * o->repeat;
	q.runs = calloc(q.n_runs, sizeof(*q.runs));
	q.taken = calloc(q.total, sizeof(*q.taken));
	tf_progress_open(o->until_fail ? 0 : q.total, takes_ms, o->jobs);
	if (q.runs && q.taken)
		rc = work_all(&q);
	else
		tf_vm_fail(&q.err, rc, "no memory");
	tf_progress_close();
	free(q.runs);
	free(q.taken);
	if (rc < 0)
		*err = q.err;
	return rc;
}

unsigned tf_run_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);
}
