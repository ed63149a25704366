/* SPDX-License-Identifier: MIT */
/*
 * telefork diff: two images of one process, the earlier first. Every inequality is a line; what a
 * landing changes by its nature is counted, and shown with --all. Works on any host for every known
 * architecture. Whatever comes out of an image goes through tf_text_safe().
 */
#include "core/base/text.h"
#include "core/cmd/cmd.h"
#include "core/cmd/diff.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/cmd/symbols.h"
#include "core/cmd/text_json.h"
#include "core/image/compare.h"
#include "core/image/notes.h"

#define VALUE_MAX 80 /* a line's longest value; --json has all */

struct report {
	const struct tf_diff *options;
	const struct tf_file *a, *b;
	json_t *list; /* --json */
};

static const char *const kind_names[TF_COMPARE_KINDS] = {
	[TF_COMPARE_REGISTER] = "registers",
	[TF_COMPARE_MAPPING] = "mappings",
	[TF_COMPARE_MEMORY] = "bytes",
	[TF_COMPARE_STATE] = "state",
};

static void print_value(const char *s)
{
	char text[4 * TF_MAX_STR + 1];
	bool all = tf_text_safe(s, text, sizeof(text)) <= VALUE_MAX;

	printf("%.*s%s", VALUE_MAX, text, all ? "" : "...");
}

/* The path or kind of a mapping, for people. */
static const char *map_name(const struct tf_map *m)
{
	static const char *const names[TF_MAP_KINDS] = {
		[TF_MAP_ANON] = "memory",
		[TF_MAP_FILE] = "file",
		[TF_MAP_HEAP] = "[heap]",
		[TF_MAP_STACK] = "[stack]",
		[TF_MAP_VDSO] = "[vdso]",
		[TF_MAP_VVAR] = "[vvar]",
		[TF_MAP_STAGE] = "[stage]",
	};

	return m->path && m->path[0] ? m->path : names[m->kind];
}

/* The symbol that holds addr, in either image: the copy's file mappings are plain memory. */
static bool find_symbol(const struct report *r, uint64_t addr, struct tf_place *place)
{
	return tf_place_find_any(r->a, addr, place) || tf_place_find_any(r->b, addr, place);
}

static void print_where(const struct report *r, const struct tf_difference *d)
{
	struct tf_place place;

	switch (d->kind) {
	case TF_COMPARE_REGISTER:
		printf("thread %d: register %s", d->tid, d->name);
		break;
	case TF_COMPARE_MAPPING:
		printf("mapping %" PRIx64 "-%" PRIx64 " ", d->address, d->address + d->size);
		print_value(map_name(d->map_a ? d->map_a : d->map_b));
		printf(": %s", d->name);
		break;
	case TF_COMPARE_MEMORY:
		printf("byte %" PRIx64 " ", d->address);
		if (d->map_a)
			print_value(map_name(d->map_a));
		if (find_symbol(r, d->address, &place)) {
			printf(" ");
			print_value(place.name);
			printf("+0x%" PRIx64, place.offset);
		}
		break;
	default:
		printf("%s", d->name);
		break;
	}
}

static void print_difference(const struct report *r, const struct tf_difference *d)
{
	if (d->except && !r->options->all)
		return;
	print_where(r, d);
	printf(": ");
	print_value(d->a);
	printf(" -> ");
	print_value(d->b);
	if (d->kind == TF_COMPARE_MEMORY && d->size > 1)
		printf(" (the first of %" PRIu64 " bytes in this page)", d->size);
	if (d->except)
		printf("  [%s]", tf_compare_exception_text(d->except));
	putchar('\n');
}

/* --- JSON --- */

static void add_where(const struct report *r, json_t *o, const struct tf_difference *d)
{
	const struct tf_map *m = d->map_a ? d->map_a : d->map_b;
	struct tf_place place;

	if (d->kind == TF_COMPARE_REGISTER)
		json_object_set_new(o, "thread", json_integer(d->tid));
	if (d->kind != TF_COMPARE_MAPPING && d->kind != TF_COMPARE_MEMORY)
		return;
	json_object_set_new(o, "address", json_sprintf("0x%" PRIx64, d->address));
	json_object_set_new(o, "size", json_integer((json_int_t)d->size));
	if (m)
		json_object_set_new(o, "mapping", tf_json_text(map_name(m)));
	if (d->kind == TF_COMPARE_MEMORY && find_symbol(r, d->address, &place)) {
		json_object_set_new(o, "symbol", tf_json_text(place.name));
		json_object_set_new(o, "symbol_offset", json_integer((json_int_t)place.offset));
	}
}

static void add_difference(struct report *r, const struct tf_difference *d)
{
	json_t *o = json_object();

	json_object_set_new(o, "kind", json_string(kind_names[d->kind]));
	json_object_set_new(o, "name", tf_json_text(d->name));
	add_where(r, o, d);
	json_object_set_new(o, "a", tf_json_text(d->a));
	json_object_set_new(o, "b", tf_json_text(d->b));
	json_object_set_new(o, "exception",
		d->except ? json_string(tf_compare_exception_name(d->except)) : json_null());
	json_array_append_new(r->list, o);
}

static int print_json(const struct report *r, const struct tf_compared *sum)
{
	json_t *o = json_object(), *counts = json_object();
	int rc;

	for (unsigned i = 0; i < TF_COMPARE_KINDS; i++)
		json_object_set_new(counts, kind_names[i],
			json_pack("{s:I, s:I, s:I}", "equal", (json_int_t)sum->count[i].equal,
				"different", (json_int_t)sum->count[i].different, "excepted",
				(json_int_t)sum->count[i].excepted));
	json_object_set_new(o, "a", tf_json_text(r->options->name[0]));
	json_object_set_new(o, "b", tf_json_text(r->options->name[1]));
	json_object_set_new(o, "counts", counts);
	json_object_set_new(o, "lost", json_integer((json_int_t)tf_compared_lost(sum)));
	json_object_set(o, "differences", r->list);
	rc = json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
	return rc;
}

/* --- command --- */

static void heard(void *ctx, const struct tf_difference *d)
{
	struct report *r = ctx;

	if (r->options->json)
		add_difference(r, d);
	else
		print_difference(r, d);
}

static void print_counts(const struct tf_compared *sum)
{
	for (unsigned i = 0; i < TF_COMPARE_KINDS; i++) {
		const struct tf_compare_count *n = &sum->count[i];

		printf("%-10s %" PRIu64 " equal, %" PRIu64 " different", kind_names[i], n->equal,
			n->different);
		if (n->excepted)
			printf(", %" PRIu64 " differ as they must", n->excepted);
		putchar('\n');
	}
	printf("%" PRIu64 " lost\n", tf_compared_lost(sum));
}

int tf_diff_report(const struct tf_diff *o, const struct tf_file *a, const struct tf_file *b)
{
	struct report r = {.options = o, .a = a, .b = b, .list = json_array()};
	struct tf_compared sum;
	struct tf_err e = {0};
	int rc = tf_compare(a, b, o->strict, heard, &r, &sum, &e);

	if (rc) {
		fprintf(stderr, "telefork: %s and %s: %s\n", o->name[0], o->name[1], e.text);
		json_decref(r.list);
		return tf_exit_code(rc);
	}
	if (o->json)
		rc = print_json(&r, &sum);
	else
		print_counts(&sum);
	json_decref(r.list);
	if (rc || fflush(stdout) || ferror(stdout)) {
		tf_complain(NULL, "standard output failed");
		return TF_EXIT_IO;
	}
	return tf_compared_lost(&sum) ? TF_EXIT_DIFFERENT : TF_EXIT_OK;
}

/* Options that verify has, too. */
static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct tf_diff *o = state->input;

	(void)arg;
	switch (key) {
	case 'a':
		o->all = true;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case 's':
		o->strict = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option argp_options[] = {
	{"all", 'a', NULL, 0, "Show too what differs as it must, with the reason", 0},
	{"json", 'j', NULL, 0, "Write a JSON object", 0},
	{"strict", 's', NULL, 0, "Make no exception", 0},
	{0},
};

const struct argp tf_diff_argp = {.options = argp_options, .parser = parse_option};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tf_diff *o = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = o;
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num == 2)
			argp_error(state, "two images only");
		o->name[state->arg_num] = arg;
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num < 2)
			argp_error(state, "which two images?");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int tf_cmd_diff(int argc, char **argv)
{
	static const struct argp_child children[] = {{.argp = &tf_diff_argp}, {0}};
	static const struct argp argp = {
		.parser = parse,
		.args_doc = "A B",
		.doc = "Compares two images of one process, the earlier first: registers, "
		       "mappings, memory page by page, and all other state.",
		.children = children,
		.help_filter = tf_exit_help,
	};
	struct tf_diff o = {0};
	struct tf_err e = {0};
	struct tf_file a, b;
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &o))
		return TF_EXIT_USAGE;
	rc = tf_file_open(&a, o.name[0], &e);
	if (!rc) {
		rc = tf_file_open(&b, o.name[1], &e);
		if (rc)
			tf_file_close(&a);
	}
	if (rc) {
		tf_complain(NULL, e.text);
		return rc == TELEFORK_E_IO ? TF_EXIT_INPUT : tf_exit_code(rc);
	}
	rc = tf_diff_report(&o, &a, &b);
	tf_file_close(&a);
	tf_file_close(&b);
	return rc;
}
