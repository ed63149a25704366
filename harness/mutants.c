/* SPDX-License-Identifier: MIT */
/* See mutants.h: an image is made, damaged, put to a machine, restored; what is said is judged. */
#include "harness/mutants.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/io.h"
#include "qemu/machine.h"

#define LIMIT_MS   200000 /* for one process */
#define JOBS_MAX   16
#define MEMORY_MIB 512 /* of a guest, whose files are in its memory */
#define NO_MUTANT  1   /* the fault makes no image */

const char *const tf_mutant_verdicts[TF_MUTANT_VERDICTS] = {
	"seen", "refused", "ended", "SURVIVED", "MISNAMED", "CRASHED", "HUNG"};

struct trial {
	struct tf_job *job;
	struct tf_mutant *mutant; /* NULL: the undamaged one */
	char file[32];
};

struct bench {
	const struct tf_mutant_options *options;
	const struct tf_subject *subject;
	const char *arch;
	enum tf_tier tier;
	struct tf_remote *machine;
	char whole[4096], older[4096], one[4096]; /* files of the host */
	pid_t pid;                                /* of the original */
	bool leaves;                              /* the receiver goes without something even so */
	unsigned count;
	struct trial trial[JOBS_MAX];
	unsigned n_trials;
};

bool tf_mutant_caught(enum tf_mutant_verdict v)
{
	return v < TF_MUTANT_SURVIVED;
}

enum tf_tier tf_subject_tier(const struct tf_subject *subject, const char *arch)
{
	if (!strcmp(arch, tf_vm_host_arch()))
		return TF_TIER_NATIVE;
	return subject->way == TF_BY_CALL ? TF_TIER_USER : TF_TIER_SYSTEM;
}

/* --- programs on the machine --- */

/* Runs it to its end: *ret_job is left to the caller. */
static int run(struct bench *b, const char *const argv[], bool receiver, struct tf_job **ret_job,
	struct tf_vm_error *err)
{
	int rc = tf_job_start(b->machine, argv, receiver ? TF_JOB_RECEIVER : 0, ret_job, err);

	if (rc < 0)
		return rc;
	return tf_job_wait(&b->machine, 1, *ret_job, 0, NULL, NULL,
		b->machine->ops->scale(b->machine, LIMIT_MS), err);
}

/* As run(), and it has to end well. */
static int must_run(struct bench *b, const char *const argv[], struct tf_vm_error *err)
{
	struct tf_job *job = NULL;
	char fate[128];
	int rc = run(b, argv, false, &job, err);

	if (rc == 0 && job->status)
		rc = tf_vm_fail(err, -EPROTO, "%s %s: %s%s", job->name,
			tf_job_fate(job, fate, sizeof(fate)), job->text[0], job->text[1]);
	tf_job_free(job);
	return rc;
}

static int put(struct bench *b, const struct tf_site *site, const char *folder, const char *file,
	const char *as, struct tf_vm_error *err)
{
	tf_vm_autofree char *from = tf_vm_format(
		"%s/build/%s%s/%s/%s", site->root, b->arch, site->variant, folder, file);

	return from ? tf_remote_put(b->machine, from, as, 0755, err)
		    : tf_vm_fail(err, -ENOMEM, "no memory");
}

/* --- images --- */

/* It saves itself into a file. Its addresses are those of every other time. */
static int save(struct bench *b, uint64_t seed, const char *host, struct tf_vm_error *err)
{
	char probe[4096], file[4096], number[32];
	const char *argv[10] = {"/usr/bin/setarch", "-R"}, **at = argv;
	int rc;

	snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
	at += b->tier == TF_TIER_NATIVE ? 2 : 0; /* an emulator has its own */
	*at++ = tf_remote_path(b->machine, "probe", probe, sizeof(probe));
	*at++ = tf_remote_path(b->machine, "whole.tf", file, sizeof(file));
	for (unsigned i = 0; b->subject->args[i]; i++)
		*at++ = strcmp(b->subject->args[i], "{seed}") ? b->subject->args[i] : number;
	*at = NULL;
	unlink(host);
	rc = must_run(b, argv, err);
	return rc ? rc : tf_remote_get(b->machine, "whole.tf", host, err);
}

/* In a folder of its own that has a file, with nothing but standard streams. */
static const char start_alone[] =
	"cd \"$1\" && rm -rf home kept && mkdir home && cd home && echo 0123456789 >file && shift &&"
	"for fd in /proc/self/fd/*; do fd=${fd##*/}; [ \"$fd\" -le 2 ] || eval \"exec $fd>&-\"; done;"
	/* A leader of a group cannot lead a session; addresses are those of every other time. */
	"exec setsid --wait setarch -R \"$@\" </dev/null";

static const char dump_it[] =
	"cd \"$1\" && rm -f whole.tf && ./telefork dump \"$2\" -o whole.tf --kill && cp -a home kept";

/* The program says that it is ready, and its pid. */
static int dump(struct bench *b, const char *const program[], const char *ready, const char *host,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *said = NULL;
	const char *argv[16] = {"/bin/bash", "-c", start_alone, "start", b->machine->dir};
	const char *take[] = {"/bin/bash", "-c", dump_it, "dump", b->machine->dir, NULL, NULL};
	struct tf_job *job = NULL;
	int rc;

	for (unsigned i = 0; i < 9 && program[i]; i++)
		argv[5 + i] = program[i];
	rc = tf_job_start(b->machine, argv, 0, &job, err);
	if (rc == 0)
		rc = tf_job_wait(&b->machine, 1, job, 0, ready, &said,
			b->machine->ops->scale(b->machine, LIMIT_MS), err);
	if (rc == 0) {
		b->pid = (pid_t)strtol(said, NULL, 10);
		take[5] = said;
		rc = must_run(b, take, err);
	}
	tf_job_free(job);
	return rc ? rc : tf_remote_get(b->machine, "whole.tf", host, err);
}

static int dump_probe(struct bench *b, struct tf_vm_error *err)
{
	char probe[4096], home[4096];
	const char *argv[8] = {tf_remote_path(b->machine, "probe", probe, sizeof(probe))};

	tf_remote_path(b->machine, "home", home, sizeof(home));
	for (unsigned i = 0; b->subject->args[i]; i++)
		argv[i + 1] = strcmp(b->subject->args[i], "{dir}") ? b->subject->args[i] : home;
	return dump(b, argv, b->subject->ready ?: "ready ", b->whole, err);
}

/* Of before: the same with another seed; or a process that has only begun. */
static int make_images(struct bench *b, struct tf_vm_error *err)
{
	static const char *const begun[] = {
		"/bin/bash", "-c", "echo ready $$; exec sleep 1000", NULL};
	int rc;

	if (b->subject->way == TF_BY_CALL) {
		rc = save(b, b->options->seed + 1, b->older, err);
		return rc ? rc : save(b, b->options->seed, b->whole, err);
	}
	rc = dump(b, begun, "ready ", b->older, err);
	return rc ? rc : dump_probe(b, err);
}

/* --- one trial --- */

static const char receive[] = "exec $run \"$dir/telefork\" restore \"$image\" </dev/null";

static int start_restore(
	struct bench *b, struct trial *t, const char *host, struct tf_vm_error *err)
{
	char image[4096], pad[4096], pid[16];
	const struct tf_subject *s = b->subject;
	tf_vm_autofree char *script =
		tf_vm_format("dir=$1 image=$2 pid=$3\n%s\n%s", s->before ? s->before : "", receive);
	const char *by_call[] = {tf_remote_path(b->machine, "telefork-pad", pad, sizeof(pad)),
		"restore", image, NULL};
	const char *by_dump[] = {
		"/bin/bash", "-c", script, "restore", b->machine->dir, image, pid, NULL};
	int rc;

	snprintf(t->file, sizeof(t->file), "%u.tf", b->count++ % b->options->jobs);
	snprintf(pid, sizeof(pid), "%d", (int)b->pid);
	tf_remote_path(b->machine, t->file, image, sizeof(image));
	rc = script ? tf_remote_put(b->machine, host, t->file, 0600, err) : -ENOMEM;
	return rc ? rc
		  : tf_job_start(b->machine, s->way == TF_BY_CALL ? by_call : by_dump,
			    s->way == TF_BY_CALL ? TF_JOB_RECEIVER : 0, &t->job, err);
}

static bool is_it(void *ctx, const struct tf_damage *f)
{
	const struct tf_damage *want = ctx;

	return !strcmp(f->state, want->state) && !strcmp(f->item, want->item) &&
	       !strcmp(f->how, want->how);
}

/* The image with that fault, or without one. 0, NO_MUTANT or an error. */
static int make_image(struct bench *b, const struct tf_damage *fault, struct tf_vm_error *err)
{
	struct tf_specimen s = {.file.fd = -1}, older = {.file.fd = -1};
	struct tf_err e = {0};
	int rc = tf_specimen_read(&s, b->whole, &e);

	if (!rc)
		rc = tf_specimen_read(&older, b->older, &e);
	if (!rc && fault &&
		!tf_damage_each(&s, &older, b->options->seed, b->subject->least, is_it,
			(void *)(uintptr_t)fault))
		rc = tf_fail(&e, TELEFORK_E_INVAL, "no such fault");
	if (!rc && b->subject->elsewhere)
		s.file.image.process.boot = "another machine's";
	if (!rc && b->subject->wake)
		rc = tf_specimen_wake(&s, b->subject->wake, &e);
	if (!rc) {
		rc = tf_specimen_write(&s, b->one, &e);
		if (rc == TELEFORK_E_INVAL || rc == TELEFORK_E_LIMIT)
			rc = NO_MUTANT;
	}
	tf_specimen_done(&s);
	tf_specimen_done(&older);
	return rc < 0 ? tf_vm_fail(err, -EIO, "%s: %s", b->subject->name, e.text) : rc;
}

/* --- what was said --- */

/* Whether text has word, with name for %s in it. */
static bool says_word(const char *text, const char *word, const char *name)
{
	const char *at = strstr(word, "%s");
	char full[256];

	snprintf(full, sizeof(full), "%.*s%s%s", at ? (int)(at - word) : (int)strlen(word), word,
		at ? name : "", at ? at + 2 : "");
	return strstr(text, full);
}

/* One of the words with | between; %s: the register's name, of one of two that were swapped. */
static bool says(const char *text, const char *words, const char *item)
{
	char all[512], both[64], *rest = all, *word, *other;

	snprintf(both, sizeof(both), "%s", item);
	other = strchr(both, '+');
	if (other)
		*other++ = '\0';
	snprintf(all, sizeof(all), "%s", words);
	while ((word = strsep(&rest, "|")))
		if (says_word(text, word, both) || (other && says_word(text, word, other)))
			return true;
	return false;
}

static bool has_line(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	while (at && at != text && at[-1] != '\n')
		at = strstr(at + 1, word);
	return at;
}

#define LEFT "telefork: left behind: "

static enum tf_mutant_verdict judge(const struct bench *b, const struct tf_job *job,
	const struct tf_claim *claim, const char *item)
{
	const char *out = job->text[0], *log = job->text[1];
	bool began = has_line(log, "telefork: pid ");
	int code = WIFEXITED(job->status) ? WEXITSTATUS(job->status) : 128;

	if (has_line(out, "wrong: ") || has_line(out, "not ok: "))
		return !claim || says(out, claim->words, item) ? TF_MUTANT_SEEN
							       : TF_MUTANT_MISNAMED;
	/* The receiver goes without, and says so; of the undamaged one it did not. */
	if (claim && has_line(log, LEFT) && !b->leaves && says(log, claim->words, item))
		return TF_MUTANT_REFUSED;
	if (!code && (has_line(out, "right ") || has_line(out, "ok ")))
		return TF_MUTANT_SURVIVED;
	if (code && code < 128 && claim && *claim->words && says(out, claim->words, item))
		return TF_MUTANT_SEEN;
	if (!began && has_line(log, "telefork: "))
		return TF_MUTANT_REFUSED;
	return code >= 128 && claim && claim->ends ? TF_MUTANT_ENDED : TF_MUTANT_CRASHED;
}

/* A line without the name of the machine's folder, which is another one every time. */
static void copy_line(char *to, size_t size, const char *line, const char *folder)
{
	size_t n = 0;

	while (*line && *line != '\n' && n + 1 < size) {
		if (!strncmp(line, folder, strlen(folder))) {
			line += strlen(folder);
			continue;
		}
		to[n++] = *line < ' ' || *line == 127 ? '?' : *line;
		line++;
	}
	to[n] = '\0';
}

/* The first line that tells something. */
static void note_said(const struct bench *b, struct tf_mutant *m, const struct tf_job *job)
{
	static const char *const words[] = {"wrong: ", "not ok: ", "telefork: ", ""};
	const char *at = NULL;
	char fate[128];

	for (unsigned i = 0; i < 4 && !at; i++)
		for (unsigned s = 0; s < 2 && !at; s++) {
			const char *p = strstr(job->text[s], words[i]);

			if (p && *p && strncmp(p, "telefork: pid ", 14) != 0)
				at = p;
		}
	if (m->verdict == TF_MUTANT_ENDED || m->verdict == TF_MUTANT_CRASHED || !at)
		at = tf_job_fate(job, fate, sizeof(fate));
	copy_line(m->said, sizeof(m->said), at, b->machine->dir);
}

/* The oldest of those under way comes to its end. */
static int finish_one(struct bench *b, tf_mutant_fn *fn, struct tf_vm_error *err)
{
	struct trial t = b->trial[0];
	int rc = tf_job_wait(&b->machine, 1, t.job, 0, NULL, NULL,
		b->machine->ops->scale(b->machine, LIMIT_MS), err);

	memmove(b->trial, b->trial + 1, --b->n_trials * sizeof(*b->trial));
	if (rc == 0 || rc == -ETIMEDOUT) {
		t.mutant->verdict = judge(b, t.job, t.mutant->claim, t.mutant->fault.item);
		if (rc && t.mutant->verdict != TF_MUTANT_SEEN)
			t.mutant->verdict = TF_MUTANT_HUNG;
		note_said(b, t.mutant, t.job);
		fn(t.mutant);
		rc = 0;
	}
	tf_job_free(t.job);
	return rc;
}

/* The undamaged image has to be right, or nothing is known. */
static int try_whole(struct bench *b, struct tf_vm_error *err)
{
	struct trial t = {0};
	int rc = make_image(b, NULL, err);

	if (rc == 0)
		rc = start_restore(b, &t, b->one, err);
	if (rc == 0)
		rc = tf_job_wait(&b->machine, 1, t.job, 0, NULL, NULL,
			b->machine->ops->scale(b->machine, LIMIT_MS), err);
	if (rc == 0 && judge(b, t.job, NULL, "") != TF_MUTANT_SURVIVED)
		rc = tf_vm_fail(err, -EPROTO, "%s on %s, undamaged, is not right: %.300s%.300s",
			b->subject->name, b->arch, t.job->text[0], t.job->text[1]);
	b->leaves = rc == 0 && has_line(t.job->text[1], LEFT);
	tf_job_free(t.job);
	return rc == NO_MUTANT ? tf_vm_fail(err, -EPROTO, "%s: no image", b->subject->name) : rc;
}

/* --- which ones --- */

struct collection {
	struct bench *b;
	struct tf_mutants *all;
	int rc;
};

static bool collect(void *ctx, const struct tf_damage *f)
{
	struct collection *c = ctx;
	const struct tf_claim *claim = tf_subject_claim(c->b->subject, f->state, f->how);
	struct tf_mutant *v, *m;

	if (!claim || tf_excuse_of(f->state))
		return false;
	v = realloc(c->all->v, (c->all->n + 1) * sizeof(*v));
	if (!v) {
		c->rc = -ENOMEM;
		return false;
	}
	c->all->v = v;
	m = &v[c->all->n++];
	*m = (struct tf_mutant){.fault = *f, .subject = c->b->subject, .claim = claim};
	snprintf(m->arch, sizeof(m->arch), "%s", c->b->arch);
	snprintf(m->name, sizeof(m->name), "%s.%s.%s.%s.%s.%s", c->b->arch,
		tf_tier_names[c->b->tier], c->b->subject->name, f->state, f->item, f->how);
	m->order = tf_damage_hash(c->b->options->seed, m->name);
	return false;
}

static int same_fault(const struct tf_mutant *a, const struct tf_mutant *b)
{
	int d = strcmp(a->fault.state, b->fault.state);

	return d ? d : strcmp(a->fault.how, b->fault.how);
}

static int in_order(const void *a, const void *b)
{
	const struct tf_mutant *x = a, *y = b;
	int d = same_fault(x, y);

	return d ? d : x->order < y->order ? -1 : x->order > y->order;
}

static bool wanted(const struct tf_mutant_options *o, const char *name)
{
	for (const char *const *f = o->skips; *f; f++)
		if (strstr(name, *f))
			return false;
	for (const char *const *f = o->filters; *f; f++)
		if (strstr(name, *f))
			return true;
	return !o->filters[0];
}

/* Of those from first on, the seed's choice. */
static void sample(const struct tf_mutant_options *o, struct tf_mutants *all, size_t first)
{
	size_t to = first;
	unsigned n = 0;

	qsort(all->v + first, all->n - first, sizeof(*all->v), in_order);
	for (size_t i = first; i < all->n; i++) {
		n = i > first && !same_fault(&all->v[i], &all->v[i - 1]) ? n + 1 : 0;
		if (n < o->sample && wanted(o, all->v[i].name))
			all->v[to++] = all->v[i];
	}
	all->n = to;
}

static int choose(struct bench *b, struct tf_mutants *all, struct tf_vm_error *err)
{
	struct tf_specimen s = {.file.fd = -1}, older = {.file.fd = -1};
	struct collection c = {b, all, 0};
	struct tf_err e = {0};
	size_t first = all->n;

	if (tf_specimen_read(&s, b->whole, &e) || tf_specimen_read(&older, b->older, &e))
		c.rc = tf_vm_fail(err, -EIO, "%s: %s", b->subject->name, e.text);
	else
		tf_damage_each(&s, &older, b->options->seed, b->subject->least, collect, &c);
	tf_specimen_done(&s);
	tf_specimen_done(&older);
	sample(b->options, all, first);
	return c.rc;
}

/* --- all of a subject --- */

static int run_one(struct bench *b, struct tf_mutant *m, tf_mutant_fn *fn, struct tf_vm_error *err)
{
	unsigned most = b->subject->alone ? 1 : b->options->jobs;
	struct trial *t;
	int rc = make_image(b, &m->fault, err);

	while (rc == 0 && b->n_trials >= most)
		rc = finish_one(b, fn, err);
	if (rc)
		return rc;
	t = &b->trial[b->n_trials];
	*t = (struct trial){.mutant = m};
	rc = start_restore(b, t, b->one, err);
	if (rc == 0)
		b->n_trials++;
	return rc;
}

static int run_all(struct bench *b, tf_mutant_fn *fn, struct tf_mutants *all, size_t first,
	struct tf_vm_error *err)
{
	size_t to = first;
	int rc = 0;

	for (size_t i = first; i < all->n && rc >= 0; i++) {
		rc = run_one(b, &all->v[i], fn, err);
		if (rc == NO_MUTANT)
			all->v[i].verdict = TF_MUTANT_VERDICTS;
	}
	while (rc >= 0 && b->n_trials)
		rc = finish_one(b, fn, err);
	for (size_t i = first; i < all->n; i++)
		if (all->v[i].verdict != TF_MUTANT_VERDICTS)
			all->v[to++] = all->v[i];
	all->n = to;
	return rc < 0 ? rc : 0;
}

/* A fresh guest has small process ids, which many a word in memory happens to be. */
static int raise_ids(struct bench *b, struct tf_vm_error *err)
{
	static const char *const argv[] = {
		"/bin/bash", "-c", "echo 20000 >/proc/sys/kernel/ns_last_pid", NULL};

	return b->tier == TF_TIER_SYSTEM ? must_run(b, argv, err) : 0;
}

static int prepare(
	struct bench *b, struct tf_site *site, struct tf_remote **machine, struct tf_vm_error *err)
{
	struct tf_spec spec = {
		.tier = b->tier, .memory_mib = b->tier == TF_TIER_SYSTEM ? MEMORY_MIB : 0};
	int rc = 0;

	snprintf(spec.arch, sizeof(spec.arch), "%s", b->arch);
	if (!*machine)
		rc = tf_remote_new(site, &spec, "mutants", machine, err);
	if (rc < 0)
		return rc;
	b->machine = *machine;
	snprintf(b->whole, sizeof(b->whole), "%s/image.tf", b->machine->folder);
	snprintf(b->older, sizeof(b->older), "%s/older.tf", b->machine->folder);
	snprintf(b->one, sizeof(b->one), "%s/mutant.tf", b->machine->folder);
	rc = put(b, site, "bin", "telefork-pad", "telefork-pad", err);
	if (rc == 0 && b->subject->way == TF_BY_DUMP)
		rc = put(b, site, "bin", "telefork", "telefork", err);
	if (rc == 0)
		rc = put(b, site, "probes", b->subject->probe, "probe", err);
	return rc ? rc : raise_ids(b, err);
}

int tf_mutants_run(const struct tf_mutant_options *o, struct tf_site *site,
	struct tf_remote **machine, const struct tf_subject *subject, const char *arch,
	tf_mutant_fn *fn, struct tf_mutants *all, struct tf_vm_error *err)
{
	struct bench b = {.options = o,
		.subject = subject,
		.arch = arch,
		.tier = tf_subject_tier(subject, arch)};
	size_t first = all->n;
	int rc = prepare(&b, site, machine, err);

	if (rc == 0)
		rc = make_images(&b, err);
	if (rc == 0)
		rc = choose(&b, all, err);
	if (rc == 0 && all->n > first && !o->list)
		rc = try_whole(&b, err);
	if (rc == 0 && !o->list)
		rc = run_all(&b, fn, all, first, err);
	for (size_t i = first; i < all->n && o->list && rc == 0; i++)
		fn(&all->v[i]);
	while (b.machine && b.machine->jobs)
		tf_job_free(b.machine->jobs);
	return rc;
}
