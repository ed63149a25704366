/* SPDX-License-Identifier: MIT */
/* See precopy.h. */
#include "core/cmd/precopy.h"
#include "core/cmd/progress.h"

#include <inttypes.h>

static void explain(struct tf_precopy *p, const char *command)
{
	fprintf(stderr, "%s: no rounds, pre-copy is not possible here: %s\n", command,
		p->rounds.err.text);
	tf_precopy_end(p);
}

void tf_precopy_begin(
	struct tf_precopy *p, const char *command, pid_t pid, struct tf_errand *errand)
{
	if (!p->wanted)
		return;
	if (tf_rounds_begin(&p->rounds, pid)) {
		explain(p, command);
		return;
	}
	p->on = true;
	errand->kind = TF_ERRAND_ROUNDS;
}

int tf_precopy_run(struct tf_precopy *p, const char *command, struct tf_task *t, pid_t pid, int fd,
	const struct telefork_options *options, struct tf_timing *timing)
{
	struct tf_rounds *r = &p->rounds;
	int rc = tf_rounds_offer(r, fd, options);

	if (rc == TELEFORK_E_UNSUPPORTED)
		explain(p, command);
	else if (rc)
		return tf_fail(&t->capture.err, rc, "%s", r->err.text);
	t->rounds = p->on ? r : NULL;
	tf_timing_begin(timing, "look");
	rc = tf_task_begin(t, pid);
	if (rc || !p->on)
		return rc;
	tf_timing_begin(timing, "rounds");
	rc = tf_rounds_run(r);
	if (rc)
		return tf_fail(&t->capture.err, rc, "%s", r->err.text);
	if (!r->little)
		fprintf(stderr,
			"%s: process %d writes faster than its memory goes: it is stopped for what "
			"is left after %" PRIu32 " rounds\n",
			command, (int)pid, r->n);
	t->before = r->maps;
	t->n_before = r->n_maps;
	return 0;
}

int tf_precopy_over(struct tf_precopy *p, struct tf_task *t)
{
	return !p->on || !tf_rounds_over(&p->rounds)
		       ? 0
		       : tf_fail(&t->capture.err, p->rounds.err.code, "%s", p->rounds.err.text);
}

void tf_precopy_tell(const struct tf_precopy *p, FILE *out)
{
	const struct tf_rounds *r = &p->rounds;
	char bytes[24];

	if (!p->on)
		return;
	fprintf(out, "%" PRIu32 " rounds (", r->n);
	for (uint32_t i = 0; i < r->n; i++)
		fprintf(out, "%s%s", i ? ", " : "", tf_bytes_text(r->round[i].bytes, bytes));
	fprintf(out, "), ");
}

void tf_precopy_end(struct tf_precopy *p)
{
	tf_rounds_end(&p->rounds);
	p->on = false;
}
