/* SPDX-License-Identifier: MIT */
/*
 * The document of a run: what everything else that is written about it is made of.
 * docs/report.schema.json describes it, is built in, and says which members may differ from run to
 * run.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/facts.h"
#include "harness/report.h"
#include "harness/text.h"
#include "qemu/io.h"

#define FORMAT   "telebed-report"
#define VERSION  1
#define TEXT_MAX ((size_t)64 << 10) /* of what a program said */

static json_t *text(const char *s)
{
	return tf_text_json(s, TEXT_MAX);
}

static json_t *count(uint64_t n)
{
	return n == TF_NOT_COUNTED ? json_null() : json_integer((json_int_t)n);
}

static json_t *list(json_t *array)
{
	return array ? json_incref(array) : json_array();
}

static const char *engine_of(const struct tf_cell *c)
{
	return c->engine[0] ? c->engine : c->sender ? "outside" : "library";
}

/* What the cell is: the same each time. */
static json_t *plan_of(const struct tf_outcome *o)
{
	const struct tf_cell *c = o->cell;
	json_t *route = json_array();

	for (unsigned i = 0; i < c->n_route; i++)
		json_array_append_new(route, text(c->machine_names[c->route[i]]));
	return json_pack("{s:o, s:i, s:o, s:o, s:s, s:o, s:b, s:s, s:s, s:s, s:o, s:b, s:o}",
		"name", text(c->name), "repetition", (int)o->repetition, "scenario",
		text(c->scenario), "probe", text(c->probe), "build", c->build, "engine",
		text(engine_of(c)), "peer", c->peer, "arch", c->arch, "tier",
		tf_tier_names[c->machines[c->route[0]].tier], "transport",
		tf_transport_names[c->transport], "route", route, "fan_out", c->fan_out, "file",
		text(c->file));
}

static json_t *json_outcome(const struct tf_outcome *o)
{
	json_t *cell = plan_of(o);
	json_t *found = json_pack(
		"{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"verdict", tf_verdict_names[o->verdict], "registers", count(o->registers),
		"mappings", count(o->mappings), "bytes", count(o->bytes), "lost", count(o->lost),
		"seen_registers", count(o->seen_registers), "seen_bytes", count(o->seen_bytes),
		"ms", o->ms, "ready_ms", o->ready_ms, "said", text(o->said), "why", text(o->why),
		"folder", text(o->folder), "machines", list(o->machines), "phases", list(o->phases),
		"differences", list(o->differences), "excepted", list(o->excepted), "stands",
		list(o->stands));

	json_object_update(cell, found);
	json_decref(found);
	return cell;
}

struct entry {
	json_t *cell;
};

static int by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = strcmp(json_string_value(json_object_get(x->cell, "name")),
		json_string_value(json_object_get(y->cell, "name")));

	return order ? order
		     : (int)(json_integer_value(json_object_get(x->cell, "repetition")) -
			       json_integer_value(json_object_get(y->cell, "repetition")));
}

static bool verdict_is(const json_t *cell, enum tf_verdict verdict)
{
	return !strcmp(
		json_string_value(json_object_get(cell, "verdict")), tf_verdict_names[verdict]);
}

/* How many cells had this verdict; those of peers count only where they hold. */
static json_t *count_of(const json_t *cells, enum tf_verdict verdict)
{
	const json_t *cell;
	json_int_t n = 0;
	size_t i;

	json_array_foreach(cells, i, cell)
	{
		bool counts =
			verdict == TF_VERDICT_OK || !json_is_true(json_object_get(cell, "peer"));

		n += counts && verdict_is(cell, verdict);
	}
	return json_integer(n);
}

/* Cells in the order of their names, whatever order they ended in; and the verdicts counted anew.
 */
static void settle(json_t *doc)
{
	static const char *const members[TF_VERDICTS] = {
		"passed", "failed", "broken", "skipped", "unable"};
	json_t *cells = json_object_get(doc, "cells"), *sorted = json_array(), *cell;
	size_t n = json_array_size(cells), i;
	struct entry *v = calloc(n ? n : 1, sizeof(*v));

	json_array_foreach(cells, i, cell)
	{
		if (v)
			v[i].cell = cell;
	}
	if (v)
		qsort(v, n, sizeof(*v), by_name);
	for (i = 0; v && i < n; i++)
		json_array_append(sorted, v[i].cell);
	free(v);
	json_object_set_new(doc, "cells", sorted);
	for (i = 0; i < TF_VERDICTS; i++)
		json_object_set_new(doc, members[i], count_of(sorted, (enum tf_verdict)i));
}

json_t *tf_document_of(const struct tf_report *r, const char *bail)
{
	json_t *cells = json_array(), *doc;
	const struct tf_outcome *o;
	struct tf_report_clones clones = tf_report_clones(r);
	const char *started;
	int64_t ms;

	for (size_t i = 0; (o = tf_report_outcome(r, i)); i++)
		json_array_append_new(cells, json_outcome(o));
	started = tf_report_started(r, &ms);
	doc = json_pack(
		"{s:s, s:i, s:[{s:s, s:s, s:I, s:I, s:{s:I, s:i, s:i, s:i}, s:I, s:I, s:o, s:o, s:O}], s:I, s:o}",
		"format", FORMAT, "version", VERSION, "runs", "telefork", TF_VERSION, "started",
		started, "ms", (json_int_t)ms, "processor_ms", (json_int_t)tf_report_cpu_ms(),
		"clones", "n", (json_int_t)clones.n, "median_ms", clones.median_ms, "slowest_ms",
		clones.slowest_ms, "processor_ms", clones.cpu_ms, "seed",
		(json_int_t)tf_report_seed(r), "planned", (json_int_t)tf_report_planned(r), "host",
		tf_facts_host(), "bail", text(bail), "inputs", tf_report_inputs(r), "planned",
		(json_int_t)tf_report_planned(r), "cells", cells);
	if (doc)
		settle(doc);
	return doc;
}

/* --- reading --- */

/* Whether everything that is leaned upon is there; the rest is shown as it comes. */
static bool is_document(const json_t *doc)
{
	const char *format = json_string_value(json_object_get(doc, "format"));
	const json_t *cells = json_object_get(doc, "cells"), *cell;
	size_t i;

	if (!format || strcmp(format, FORMAT) != 0 || !json_is_array(cells) ||
		json_integer_value(json_object_get(doc, "version")) != VERSION ||
		!json_is_integer(json_object_get(doc, "planned")) ||
		!json_is_array(json_object_get(doc, "runs")))
		return false;
	json_array_foreach(
		cells, i, cell) if (!json_is_string(json_object_get(cell, "name")) ||
				    !json_is_string(json_object_get(cell, "scenario")) ||
				    !json_is_string(json_object_get(cell, "verdict"))) return false;
	return true;
}

int tf_document_read(const char *path, json_t **ret, struct tf_vm_error *err)
{
	json_error_t e;
	json_t *doc = json_load_file(path, JSON_REJECT_DUPLICATES, &e);

	if (!doc)
		return tf_vm_fail(err, -EINVAL, "%s:%d: %s", path, e.line > 0 ? e.line : 1, e.text);
	if (!is_document(doc)) {
		json_decref(doc);
		return tf_vm_fail(err, -EINVAL,
			"%s: not a report of version %d, as telebed run --json writes it", path,
			VERSION);
	}
	tf_text_clean(doc);
	*ret = doc;
	return 0;
}

void tf_document_merge(json_t *doc, const json_t *more)
{
	json_int_t planned = json_integer_value(json_object_get(doc, "planned")) +
			     json_integer_value(json_object_get(more, "planned"));

	json_array_extend(json_object_get(doc, "runs"), json_object_get(more, "runs"));
	json_array_extend(json_object_get(doc, "cells"), json_object_get(more, "cells"));
	json_object_set_new(doc, "planned", json_integer(planned));
	settle(doc);
}

/* --- what is the same each time --- */

/* The schema of @at, whose "$ref" are "#/$defs/NAME". */
static const json_t *resolve(const json_t *schema, const json_t *at)
{
	const char *ref = json_string_value(json_object_get(at, "$ref"));

	return ref && !strncmp(ref, "#/$defs/", 8)
		       ? json_object_get(json_object_get(schema, "$defs"), ref + 8)
		       : at;
}

static json_t *stable(const json_t *schema, const json_t *at, const json_t *value)
{
	const json_t *members;
	const char *key;
	json_t *copy, *v;
	size_t i;

	at = resolve(schema, at);
	if (json_is_true(json_object_get(at, "volatile")))
		return NULL;
	if (json_is_array(value)) {
		copy = json_array();
		json_array_foreach(value, i, v)
		{
			json_t *element = stable(schema, json_object_get(at, "items"), v);

			if (element)
				json_array_append_new(copy, element);
		}
		return copy;
	}
	if (!json_is_object(value))
		return json_deep_copy(value);
	copy = json_object();
	members = json_object_get(at, "properties");
	json_object_foreach((json_t *)value, key, v)
	{
		json_t *member = stable(schema, json_object_get(members, key), v);

		if (member)
			json_object_set_new(copy, key, member);
	}
	return copy;
}

json_t *tf_document_stable(const json_t *doc)
{
	json_t *schema = json_loads(tf_report_schema, 0, NULL);
	json_t *copy = schema ? stable(schema, schema, doc) : NULL;

	json_decref(schema);
	return copy;
}

/* --- writing --- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

int tf_document_write(const json_t *doc, const char *path, struct tf_vm_error *err)
{
	tf_vm_autofree char *out = ends_with(path, ".xml")    ? tf_document_junit(doc)
				   : ends_with(path, ".html") ? tf_document_html(doc)
							      : json_dumps(doc, JSON_INDENT(1));
	size_t n = out ? strlen(out) : 0;

	if (!out)
		return tf_vm_fail(err, -ENOMEM, "no memory for %s", path);
	if (strcmp(path, "-") != 0)
		return tf_vm_write_file(path, out, n, err);
	return tf_vm_write_all(1, out, n) < 0 || tf_vm_write_all(1, "\n", 1) < 0
		       ? tf_vm_fail(err, -EIO, "standard output failed")
		       : 0;
}
