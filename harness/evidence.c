/* SPDX-License-Identifier: MIT */
/* See evidence.h. Best effort: without memory something is missing, and nothing else happens. */
#include "harness/evidence.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cmd/disasm.h"
#include "core/cmd/symbols.h"
#include "harness/facts.h"
#include "harness/text.h"
#include "qemu/io.h"

#define LOSSES_MAX 200 /* told in a report; differences.txt has all */
#define PHASES_MAX 256
#define VALUE_MAX  1024
#define ROW        16 /* bytes of memory in a row */
#define WINDOW     32 /* bytes that are shown of a page that differs */
#define CODE_MAX   16 /* the longest instruction */
#define TIMING     "telefork: timing "

/* --- phases --- */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static double ms_of(int64_t ns)
{
	return (double)(ns - ns % 1000) / 1e6;
}

static void add_phase(struct tf_journey *j, const char *machine, const char *name, int64_t begin_ns,
	int64_t end_ns, int64_t shift_ns)
{
	json_t *p;

	if (json_array_size(j->outcome->phases) >= PHASES_MAX)
		return;
	p = json_pack("{s:o, s:o, s:f, s:f}", "machine", tf_text_json(machine, VALUE_MAX), "name",
		tf_text_json(name, VALUE_MAX), "begin_ms", ms_of(begin_ns - j->began_ns), "ms",
		ms_of(end_ns - begin_ns));
	if (p && shift_ns)
		json_object_set_new(p, "clock_ms", json_real(ms_of(shift_ns)));
	json_array_append_new(j->outcome->phases, p);
}

void tf_evidence_begin(struct tf_journey *j)
{
	j->began_ns = now_ns();
	j->outcome->phases = json_array();
	j->outcome->differences = json_array();
	j->outcome->excepted = json_array();
	j->outcome->stands = json_array();
}

void tf_evidence_step(struct tf_journey *j, const char *name)
{
	int64_t now = now_ns();

	if (j->step)
		add_phase(j, NULL, j->step, j->step_ns, now, 0);
	j->step = name;
	j->step_ns = now;
}

/*
 * A guest's clock was set when it was started and may have been stepped since. Phases that would
 * lie outside of the cell are moved into it as a whole, which is told.
 */
static int64_t clock_shift(const struct tf_journey *j, int64_t begin, int64_t end)
{
	int64_t now = now_ns();

	return begin < j->began_ns ? j->began_ns - begin : end > now ? now - end : 0;
}

struct timing {
	char name[32];
	int64_t begin, end;
};

/* What a program of telefork said; what it received may say such lines as well, which cannot harm.
 */
static void take_timings(struct tf_journey *j, const struct tf_job *job)
{
	struct timing t[32];
	unsigned n = 0;
	int64_t shift;

	for (const char *at = job->text[1]; n < 32 && (at = strstr(at, TIMING)); at++)
		if (sscanf(at + strlen(TIMING), "%31s %" SCNd64 " %" SCNd64, t[n].name, &t[n].begin,
			    &t[n].end) == 3 &&
			t[n].begin > 0 && t[n].begin <= t[n].end && t[n].end < INT64_MAX / 2)
			n++;
	if (!n)
		return;
	shift = clock_shift(j, t[0].begin, t[n - 1].end);
	for (unsigned i = 0; i < n; i++)
		add_phase(j, job->remote->name, t[i].name, t[i].begin + shift, t[i].end + shift,
			shift);
}

void tf_evidence_strip(char *text)
{
	char *at = text, *end;

	while ((at = strstr(at, TIMING))) {
		end = strchr(at, '\n');
		memmove(at, end ? end + 1 : at + strlen(at), end ? strlen(end + 1) + 1 : 1);
	}
}

void tf_evidence_done(struct tf_journey *j)
{
	tf_evidence_step(j, NULL);
	for (unsigned i = 0; i < j->cell->n_machines; i++)
		for (const struct tf_job *job = j->machines[i] ? j->machines[i]->jobs : NULL; job;
			job = job->next)
			take_timings(j, job);
}

void tf_evidence_machines(struct tf_journey *j)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < j->cell->n_machines; i++) {
		json_t *facts = j->machines[i] ? json_copy(tf_facts(j->machines[i]))
					       : tf_facts_alone(&j->cell->machines[i]);

		json_object_set_new(
			facts, "name", tf_text_json(j->cell->machine_names[i], VALUE_MAX));
		json_array_append_new(all, facts);
	}
	json_decref(j->outcome->machines);
	j->outcome->machines = all;
}

/* --- differences --- */

void tf_evidence_forget(struct tf_journey *j)
{
	json_array_clear(j->outcome->differences);
	json_array_clear(j->outcome->excepted);
	json_array_clear(j->outcome->stands);
}

static bool told(const json_t *all, const char *exception)
{
	const json_t *d;
	size_t i;

	json_array_foreach(all, i, d)
	{
		const char *label = json_string_value(json_object_get(d, "exception"));

		if (label && !strcmp(label, exception))
			return true;
	}
	return false;
}

static json_t *hex_address(uint64_t address)
{
	return json_sprintf("0x%" PRIx64, address);
}

static json_t *hex_bytes(const struct tf_file *f, uint64_t address)
{
	uint8_t bytes[WINDOW];
	char text[2 * WINDOW + 1];

	if (tf_file_read(f, address, bytes, WINDOW) != WINDOW)
		return json_null();
	for (unsigned i = 0; i < WINDOW; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	return json_string(text);
}

static void add_symbol(json_t *o, const struct tf_place *place)
{
	char text[320];

	snprintf(text, sizeof(text), "%s+0x%" PRIx64, place->name, place->offset);
	json_object_set_new(o, "symbol", tf_text_json(text, VALUE_MAX));
}

static void add_memory(
	json_t *o, const struct tf_difference *d, const struct tf_file *a, const struct tf_file *b)
{
	uint64_t from = d->address - d->address % ROW;
	struct tf_place place;

	if (tf_place_find_any(a, d->address, &place) || tf_place_find_any(b, d->address, &place))
		add_symbol(o, &place);
	json_object_set_new(o, "bytes_at", hex_address(from));
	json_object_set_new(o, "bytes_a", hex_bytes(a, from));
	json_object_set_new(o, "bytes_b", hex_bytes(b, from));
}

void tf_evidence_difference(struct tf_journey *j, const struct tf_difference *d,
	const struct tf_file *a, const struct tf_file *b)
{
	static const char *const kinds[TF_COMPARE_KINDS] = {
		[TF_COMPARE_REGISTER] = "register",
		[TF_COMPARE_MAPPING] = "mapping",
		[TF_COMPARE_MEMORY] = "memory",
		[TF_COMPARE_STATE] = "state",
	};
	const struct tf_map *m = d->map_a ? d->map_a : d->map_b;
	const char *exception = tf_compare_exception_name(d->except);
	json_t *all = d->except ? j->outcome->excepted : j->outcome->differences, *o;

	if (d->except ? told(all, exception) : json_array_size(all) >= LOSSES_MAX)
		return;
	o = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "witness", "image", "kind", kinds[d->kind],
		"name", tf_text_json(d->name, VALUE_MAX), "a", tf_text_json(d->a, VALUE_MAX), "b",
		tf_text_json(d->b, VALUE_MAX), "exception",
		d->except ? json_string(exception) : json_null());
	if (d->kind == TF_COMPARE_REGISTER)
		json_object_set_new(o, "thread", json_integer(d->tid));
	if (d->kind == TF_COMPARE_MAPPING || d->kind == TF_COMPARE_MEMORY) {
		json_object_set_new(o, "address", hex_address(d->address));
		json_object_set_new(o, "size", json_integer((json_int_t)d->size));
		json_object_set_new(o, "mapping", tf_text_json(m ? m->path : NULL, VALUE_MAX));
	}
	if (d->kind == TF_COMPARE_MEMORY)
		add_memory(o, d, a, b);
	json_array_append_new(all, o);
}

void tf_evidence_seen(struct tf_journey *j, const struct tf_remote *m, const char *name,
	uint64_t address, const char *image, const char *qemu)
{
	json_t *o;

	if (json_array_size(j->outcome->differences) >= LOSSES_MAX)
		return;
	o = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:n}", "witness", "qemu", "kind",
		address ? "memory" : "register", "machine", tf_text_json(m->name, VALUE_MAX),
		"name", tf_text_json(name, VALUE_MAX), "a", tf_text_json(image, VALUE_MAX), "b",
		tf_text_json(qemu, VALUE_MAX), "exception");
	if (address)
		json_object_set_new(o, "address", hex_address(address));
	json_array_append_new(j->outcome->differences, o);
}

/* --- where it stands --- */

static void keep_text(void *ctx, uint64_t addr, const uint8_t *bytes, size_t size, const char *text)
{
	char hex[2 * CODE_MAX + 1] = "";

	(void)addr;
	for (size_t i = 0; i < size && i < CODE_MAX; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	json_object_set_new(ctx, "instruction", text ? tf_text_json(text, VALUE_MAX) : json_null());
	json_object_set_new(ctx, "code", json_string(hex));
}

void tf_evidence_stands(struct tf_journey *j, const struct tf_file *f)
{
	const struct tf_image *img = &f->image;

	for (uint32_t i = 0; i < img->n_threads && i < 16; i++) {
		uint64_t pc = tf_arch_by_machine(img->source.machine)->pc(&img->threads[i].regs);
		json_t *o = json_pack(
			"{s:i, s:o}", "thread", (int)img->threads[i].tid, "pc", hex_address(pc));
		struct tf_place place;
		uint8_t code[CODE_MAX];

		if (tf_place_find(f, pc, &place))
			add_symbol(o, &place);
		if (tf_file_read(f, pc, code, sizeof(code)) == sizeof(code))
			tf_disasm(img->source.machine, pc, code, sizeof(code), 1, keep_text, o);
		json_array_append_new(j->outcome->stands, o);
	}
}
