/* SPDX-License-Identifier: MIT */
/* Images of a cell, looked at on the host through core/image. */
#include "harness/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/text.h"
#include "core/image/compare.h"
#include "core/image/notes.h"
#include "harness/evidence.h"
#include "harness/oracle.h"
#include "qemu/io.h"

#define GO        SIGPROF /* PROBE_GO of tests/probes/probe.h */
#define WITNESS   "telefork-witness"
#define LINES_MAX 12 /* losses that are told at once; differences.txt has all */

#define LOOKS_MAX 3 /* until original and copy are surely where they wait */
#define SAVES_MAX 6

/* One comparison: what it found, and the losses as text. */
struct hearing {
	struct tf_journey *j; /* whose report hears of it; or NULL */
	const struct tf_file *a, *b;
	struct tf_compared sum;
	FILE *all, *losses;
	unsigned told;
};

int tf_witness_count(struct tf_journey *j, const char *path)
{
	struct tf_outcome *o = j->outcome;
	struct tf_err e = {0};
	struct tf_file f = {.fd = -1};

	if (tf_file_open(&f, path, &e))
		return tf_journey_failed(j, "%s", e.text);
	o->registers = o->bytes = 0;
	o->mappings = f.image.n_maps;
	for (uint32_t i = 0; i < f.image.n_threads; i++)
		o->registers += tf_regs_count(tf_arch_by_machine(f.image.source.machine),
			&f.image.threads[i].regs, &f.image.cpu);
	for (uint32_t i = 0; i < f.image.n_maps; i++)
		o->bytes += tf_file_present(&f, f.image.maps[i].start, f.image.maps[i].end);
	tf_file_close(&f);
	return 0;
}

/* A difference as a line. Values come out of an image: they are made safe to print. */
static char *line_of(const struct tf_difference *d)
{
	static const char *const kinds[TF_COMPARE_KINDS] = {
		[TF_COMPARE_REGISTER] = "register",
		[TF_COMPARE_MAPPING] = "mapping",
		[TF_COMPARE_MEMORY] = "memory",
		[TF_COMPARE_STATE] = "state",
	};
	const struct tf_map *m = d->map_a ? d->map_a : d->map_b;
	char a[256], b[256], path[256], where[320] = "", size[64] = "";

	tf_text_safe(d->a, a, sizeof(a));
	tf_text_safe(d->b, b, sizeof(b));
	tf_text_safe(m ? m->path : "", path, sizeof(path));
	if (d->kind == TF_COMPARE_MAPPING || d->kind == TF_COMPARE_MEMORY)
		snprintf(where, sizeof(where), " 0x%" PRIx64 "%s%s", d->address,
			*path ? " of " : "", path);
	if (d->kind == TF_COMPARE_MEMORY)
		snprintf(size, sizeof(size), " (%" PRIu64 " in this page)", d->size);
	return tf_vm_format("%s %s%s: %s -> %s%s%s%s%s", kinds[d->kind], d->name, where, a, b, size,
		d->except ? " [" : "", tf_compare_exception_name(d->except), d->except ? "]" : "");
}

static void hear(void *ctx, const struct tf_difference *d)
{
	struct hearing *h = ctx;
	tf_vm_autofree char *line = line_of(d);

	if (h->j)
		tf_evidence_difference(h->j, d, h->a, h->b);
	if (!line)
		return;
	if (h->all)
		fprintf(h->all, "%s\n", line);
	if (!d->except && h->told++ < LINES_MAX)
		fprintf(h->losses, "%s%s", h->told > 1 ? "\n" : "", line);
}

/*
 * An image taken from outside does not say where the process has the library's mailbox, and with it
 * what is the library's own: it is found by its magic, where a process keeps its variables.
 */
static void find_mailbox(struct tf_file *f)
{
	struct tf_image *img = &f->image;
	uint64_t words[512];

	for (uint32_t i = 0; i < img->n_maps && !img->source.mailbox; i++) {
		const struct tf_map *m = &img->maps[i];
		bool variables = m->kind == TF_MAP_ANON || m->kind == TF_MAP_FILE;

		if (!variables || !(m->prot & PROT_WRITE) || m->flags & TF_MAP_SHARED ||
			!tf_file_present(f, m->start, m->data_end))
			continue;
		for (uint64_t at = m->start; at < m->data_end; at += sizeof(words)) {
			if (tf_file_read(f, at, words, sizeof(words)) != sizeof(words))
				break;
			for (size_t k = 0; k < sizeof(words) / sizeof(*words); k++)
				if (words[k] == TF_MAILBOX_MAGIC && !img->source.mailbox)
					img->source.mailbox = at + k * sizeof(*words);
		}
	}
}

/* Compares two files. -EINVAL, explained, if they cannot be. */
static int compare(
	struct hearing *h, const char *earlier, const char *later, struct tf_vm_error *err)
{
	struct tf_file a = {.fd = -1}, b = {.fd = -1};
	struct tf_err e = {0};
	int rc = tf_file_open(&a, earlier, &e);

	if (!rc)
		rc = tf_file_open(&b, later, &e);
	if (!rc && !a.image.source.mailbox && !b.image.source.mailbox)
		find_mailbox(&a);
	h->a = &a;
	h->b = &b;
	if (!rc && h->j)
		tf_evidence_stands(h->j, &a);
	if (!rc)
		rc = tf_compare(&a, &b, false, hear, h, &h->sum, &e);
	h->a = h->b = NULL;
	tf_file_close(&a);
	tf_file_close(&b);
	return rc ? tf_vm_fail(err, -EINVAL, "the images %s and %s: %s", earlier, later, e.text)
		  : 0;
}

/* What was compared, and what of it was lost, becomes the cell's outcome. */
static void conclude(struct tf_journey *j, const struct hearing *h, const char *losses)
{
	struct tf_outcome *o = j->outcome;
	uint64_t n[TF_COMPARE_KINDS];

	for (unsigned i = 0; i < TF_COMPARE_KINDS; i++)
		n[i] = h->sum.count[i].equal + h->sum.count[i].different + h->sum.count[i].excepted;
	o->registers = n[TF_COMPARE_REGISTER];
	o->mappings = n[TF_COMPARE_MAPPING];
	o->bytes = n[TF_COMPARE_MEMORY];
	o->lost = tf_compared_lost(&h->sum);
	if (o->lost)
		tf_journey_failed(j, "lost on the way, %u in all:\n%s", h->told, losses);
}

/* Compares, and concludes unless something was lost and @last is not set. 1: lost. */
static int judge(struct tf_journey *j, const char *earlier, const char *later, bool last,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s/differences.txt", j->folder);
	tf_vm_autofree char *losses = NULL;
	size_t size = 0;
	struct hearing h = {
		.j = j,
		.all = path ? fopen(path, "we") : NULL,
		.losses = open_memstream(&losses, &size),
	};
	int rc;

	tf_evidence_forget(j);
	rc = h.losses ? compare(&h, earlier, later, err) : tf_vm_fail(err, -ENOMEM, "no memory");

	if (h.all)
		fclose(h.all);
	if (h.losses)
		fclose(h.losses);
	if (rc == 0 && (last || !tf_compared_lost(&h.sum)))
		conclude(j, &h, losses);
	return rc ? rc : tf_compared_lost(&h.sum) != 0;
}

/* An image of process @pid on @m, by ptrace from outside, fetched to @path. */
static int look(struct tf_journey *j, struct tf_remote *m, const char *pid, const char *name,
	const char *path, struct tf_vm_error *err)
{
	char program[4096], file[4096], fate[64];
	const char *const argv[] = {tf_remote_path(m, WITNESS, program, sizeof(program)), pid,
		tf_remote_path(m, name, file, sizeof(file)), NULL};
	struct tf_job *witness;
	int rc = tf_job_start(m, argv, 0, &witness, err);

	if (rc == 0)
		rc = tf_journey_wait(j, witness, 0, NULL, NULL, err);
	if (rc < 0)
		return rc;
	if (witness->status)
		return tf_vm_fail(err, -ESRCH, "%s on %s %s, and said: %.500s%.500s", WITNESS,
			m->name, tf_job_fate(witness, fate, sizeof(fate)), witness->text[0],
			witness->text[1]);
	tf_job_free(witness);
	return tf_remote_get(m, name, path, err);
}

/* The pid at the start of a line's rest: "12 (was 99): ..." */
static void only_pid(char *text)
{
	text[strspn(text, "0123456789")] = '\0';
}

int tf_witness_socket(struct tf_journey *j, struct tf_vm_error *err)
{
	struct tf_job *receiver = j->receivers[j->cell->n_route - 1];
	struct tf_remote *a = j->probe->remote, *b = receiver->remote;
	tf_vm_autofree char *pid_a = NULL, *pid_b = NULL;
	tf_vm_autofree char *path_a = tf_vm_format("%s/original.tf", j->folder);
	tf_vm_autofree char *path_b = tf_vm_format("%s/copy.tf", j->folder);
	int rc = path_a && path_b ? 0 : tf_vm_fail(err, -ENOMEM, "no memory");

	if (rc == 0)
		rc = tf_journey_put(j, a, "bin", WITNESS, err);
	if (rc == 0)
		rc = tf_journey_put(j, b, "bin", WITNESS, err);
	if (rc == 0)
		rc = tf_journey_wait(j, j->probe, 0, "holding ", &pid_a, err);
	if (rc < 0)
		return rc;
	tf_evidence_step(j, "move");
	tf_job_signal(j->probe, GO);
	rc = tf_journey_wait(j, receiver, 1, "telefork: pid ", &pid_b, err);
	if (rc < 0)
		return rc;
	only_pid(pid_b);
	tf_evidence_step(j, "witness");
	/* Either may have been seen on its way to where it waits: look again, a loss stays one. */
	for (unsigned i = 1, lost = 1; i <= LOOKS_MAX && lost && rc == 0; i++) {
		rc = look(j, a, pid_a, "original.tf", path_a, err);
		if (rc == 0)
			rc = look(j, b, pid_b, "copy.tf", path_b, err);
		if (rc == 0)
			rc = judge(j, path_a, path_b, i == LOOKS_MAX, err);
		lost = rc == 1;
		rc = rc < 0 ? rc : 0;
	}
	if (rc == 0 && j->cell->checks & TF_CHECK_ORACLE) {
		tf_evidence_step(j, "oracle");
		rc = tf_oracle_look(j, a, pid_a, path_a, err);
	}
	if (rc == 0 && j->cell->checks & TF_CHECK_ORACLE)
		rc = tf_oracle_look(j, b, pid_b, path_b, err);
	tf_evidence_step(j, "verdict");
	return rc;
}

/* Whether the registers of two images agree. */
static bool settled(const char *earlier, const char *later)
{
	struct hearing h = {.losses = fopen("/dev/null", "we")};
	bool same = h.losses && compare(&h, earlier, later, NULL) == 0 &&
		    !h.sum.count[TF_COMPARE_REGISTER].different;

	if (h.losses)
		fclose(h.losses);
	return same;
}

int tf_witness_save(
	struct tf_journey *j, const char *name, const char *path, struct tf_vm_error *err)
{
	tf_vm_autofree char *pid = NULL, *before = tf_vm_format("%s.before", path);
	int rc = before ? tf_journey_wait(j, j->probe, 0, "holding ", &pid, err) : -ENOMEM;
	bool same = false;

	/* The first may show it on its way to where it waits: two that agree do not. */
	for (unsigned i = 0; i < SAVES_MAX && !same && rc == 0; i++) {
		if (i && rename(path, before) < 0)
			return tf_vm_fail_errno(err, -errno, "rename %s", path);
		rc = tf_job_ask(j->probe, atoi(pid), GO, name, tf_vm_left_ms(j->deadline_ms), err);
		if (rc == 0)
			rc = tf_remote_get(j->probe->remote, name, path, err);
		same = rc == 0 && i && settled(before, path);
	}
	if (rc == 0 && !same)
		rc = tf_vm_fail(err, -ESRCH, "%s on %s does not come to rest", j->probe->name,
			j->probe->remote->name);
	remove(before);
	return rc;
}

/* The copy's image: from outside, or, without ptrace, by itself, into the file that it remembers.
 */
static int see_copy(struct tf_journey *j, struct tf_job *receiver, const char *pid,
	const char *name, const char *path, struct tf_vm_error *err)
{
	struct tf_remote *a = j->probe->remote, *b = receiver->remote;
	struct tf_job there = *receiver;
	int rc;

	if (b->spec.tier != TF_TIER_USER) {
		rc = tf_journey_put(j, b, "bin", WITNESS, err);
		return rc ? rc : look(j, b, pid, "copy.tf", path, err);
	}
	there.remote = a; /* both are folders of the host */
	rc = tf_job_ask(&there, atoi(pid), GO, name, tf_vm_left_ms(j->deadline_ms), err);
	return rc ? rc : tf_remote_get(a, name, path, err);
}

int tf_witness_copy(struct tf_journey *j, struct tf_job *receiver, const char *original,
	const char *name, struct tf_vm_error *err)
{
	tf_vm_autofree char *pid = NULL, *path = tf_vm_format("%s/copy.tf", j->folder);
	int rc = path ? tf_journey_wait(j, receiver, 1, "telefork: pid ", &pid, err) : -ENOMEM;
	int lost = 1;

	if (rc < 0)
		return rc;
	only_pid(pid);
	tf_evidence_step(j, "witness");
	/* It may be seen before it takes the restorer's leavings away; a loss stays one. */
	for (unsigned i = 1; i <= LOOKS_MAX && lost == 1 && rc == 0; i++) {
		rc = see_copy(j, receiver, pid, name, path, err);
		lost = rc == 0 ? judge(j, original, path, i == LOOKS_MAX, err) : 0;
		rc = lost < 0 ? lost : rc;
	}
	return rc;
}
