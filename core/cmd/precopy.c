/* SPDX-License-Identifier: MIT */
/* See precopy.h. */
#include "core/cmd/precopy.h"
#include "core/base/text.h"
#include "core/cmd/progress.h"

#include <inttypes.h>

/* That need not be, but should not pass unnoticed. */
static void explain(struct tf_precopy *p, const char *command)
{
	fprintf(stderr,
		"%s: process %d stands still until all of its memory has gone: no pre-copy here: "
		"%s\n",
		command, (int)p->rounds.pid, p->rounds.err.text);
	p->without = true;
	tf_precopy_end(p);
}

/* Memory of its own, as it is now. */
static bool is_worth_it(pid_t pid)
{
	char path[64], text[4096];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	tf_proc_peek(path, text, sizeof(text));
	return tf_text_number(text, "\nVmSize:", 10, 0) * 1024 < TF_PRECOPY_MOST &&
	       (tf_text_number(text, "\nRssAnon:", 10, 0) +
		       tf_text_number(text, "\nVmSwap:", 10, 0)) *
			       1024 >=
		       TF_PRECOPY_LEAST;
}

void tf_precopy_begin(
	struct tf_precopy *p, const char *command, pid_t pid, struct tf_errand *errand)
{
	if (p->wish == TF_PRECOPY_NEVER || (p->wish == TF_PRECOPY_AUTO && !is_worth_it(pid)))
		return;
	if (tf_rounds_begin(&p->rounds, pid)) {
		explain(p, command);
		return;
	}
	p->on = true;
	errand->kind = TF_ERRAND_ROUNDS;
}

void tf_precopy_refused(struct tf_precopy *p, const char *command, const char *why)
{
	tf_fail(&p->rounds.err, TELEFORK_E_UNSUPPORTED, "the receiver: %s", why);
	explain(p, command);
}

int tf_precopy_run(struct tf_precopy *p, const char *command, struct tf_task *t, pid_t pid, int fd,
	const struct telefork_options *options, struct tf_packer *packer, struct tf_timing *timing)
{
	struct tf_rounds *r = &p->rounds;
	int rc = tf_rounds_offer(r, fd, options, packer);

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
	if (rc == TELEFORK_E_UNSUPPORTED) {
		explain(p, command);
		t->rounds = NULL;
		return 0;
	}
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

bool tf_precopy_note(const struct tf_precopy *p, struct tf_record *r)
{
	snprintf(r->no_rounds, sizeof(r->no_rounds), "%.*s", (int)sizeof(r->no_rounds) - 1,
		p->without ? p->rounds.err.text : "");
	r->n_rounds = p->on ? p->rounds.n : 0;
	for (uint32_t i = 0; i < r->n_rounds; i++)
		r->rounds[i] = p->rounds.round[i].bytes;
	return r->n_rounds || *r->no_rounds;
}

void tf_precopy_tell(const struct tf_precopy *p, FILE *out)
{
	const struct tf_rounds *r = &p->rounds;
	char bytes[24];

	if (p->without)
		fputs("no pre-copy, ", out);
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
