/* SPDX-License-Identifier: MIT */
/* telebed machines: which there are, which can be had here, and why the others cannot. */
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "harness/scenario.h"
#include "qemu/io.h"

struct arguments {
	const char *machines;
	char **names;
	bool json;
};

enum { KEY_MACHINES = 'm', KEY_JSON = 'j' };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_MACHINES:
		a->machines = arg;
		return 0;
	case KEY_JSON:
		a->json = true;
		return 0;
	case ARGP_KEY_ARGS:
		a->names = state->argv + state->next;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* How fast: QEMU translates unless there is KVM. */
static const char *accel_of(const struct tf_spec *spec)
{
	char cache[4096];
	struct tf_vm_error err;
	struct tf_vm_machine m;

	if (spec->tier != TF_TIER_SYSTEM || tf_vm_cachedir(cache, sizeof(cache), &err) < 0 ||
		tf_spec_describe(spec, cache, &m, &err) < 0)
		return "";
	return m.accel == TF_VM_KVM ? "KVM" : "TCG";
}

static void show(const struct tf_row *row, bool possible, const char *why)
{
	char what[768];

	printf("%-20s %-6s %s%s%s\n", row->name, possible ? accel_of(&row->spec) : "no",
		tf_spec_text(&row->spec, what, sizeof(what)), row->help[0] ? ": " : "", row->help);
	if (!possible)
		printf("%-20s        %s\n", "", why);
}

static json_t *json_row(const struct tf_row *row, bool possible, const char *why)
{
	const struct tf_spec *s = &row->spec;

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:s, "
			 "s:b, s:s, s:s?}",
		"name", row->name, "help", row->help, "arch", s->arch, "tier",
		tf_tier_names[s->tier], "on", tf_spec_on(s), "kernel",
		s->tier != TF_TIER_SYSTEM ? ""
		: s->kernel[0]            ? s->kernel
					  : "6.1",
		"initramfs", s->initramfs, "cpu", s->cpu, "qemu", s->qemu, "memory",
		(int)s->memory_mib, "cores", (int)(s->cores ? s->cores : 1), "page_size",
		(int)(s->page_kib ? s->page_kib : 4), "vector_length", (int)s->vector_length,
		"accelerator", accel_of(s), "possible", possible, "why", why, "file", row->file);
}

static bool is_named(char **names, const char *name)
{
	for (char **n = names; n && *n; n++)
		if (!strcmp(*n, name))
			return true;
	return !names || !*names;
}

static int show_all(const struct arguments *a, const struct tf_home *home,
	const struct tf_rows *rows, struct tf_vm_error *err)
{
	json_t *list = json_array();
	tf_vm_autofree char *text = NULL;
	const struct tf_row *row;
	int rc = 0;

	for (char **n = a->names; n && *n && rc == 0; n++)
		rc = tf_rows_get(rows, *n, &row, err);
	for (size_t i = 0; i < rows->n && rc == 0; i++) {
		char why[256] = "";
		bool possible;

		if (!is_named(a->names, rows->v[i].name))
			continue;
		possible = tf_spec_possible(home, &rows->v[i].spec, why);
		if (a->json)
			json_array_append_new(list, json_row(&rows->v[i], possible, why));
		else
			show(&rows->v[i], possible, why);
	}
	if (a->json && rc == 0) {
		text = json_dumps(list, JSON_INDENT(1));
		puts(text ? text : "[]");
	}
	json_decref(list);
	return rc;
}

int tf_bed_machines(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"machines", KEY_MACHINES, "FILE", 0, "Further rows", 0},
		{"json", KEY_JSON, 0, 0, "As JSON", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "[MACHINE...]",
		.doc = "Shows the machines, whether each can be had here (TCG or KVM; \"no\" and "
		       "the reason), and what it is."};
	struct arguments a = {0};
	struct tf_home home;
	struct tf_rows rows;
	struct tf_vm_error err;
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return EX_USAGE;
	rc = tf_rows_read(&rows, a.machines, &err);
	if (rc == 0)
		rc = tf_home_find(&home, &err);
	if (rc == 0)
		rc = show_all(&a, &home, &rows, &err);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", err.text);
	tf_rows_done(&rows);
	return rc < 0 ? EX_USAGE : 0;
}

static void section(const char *title)
{
	printf("\n## %s\n\n", title);
}

/* For `make docs`: the reference in docs/testbed/reference.md is the code's own tables. */
int tf_bed_schema(int argc, char **argv)
{
	static const struct argp argp = {
		.doc = "Prints the reference of scenarios and machines as Markdown."};

	if (argp_parse(&argp, argc, argv, 0, NULL, NULL))
		return EX_USAGE;
	section("Keys of a scenario");
	tf_scenario_schema(stdout);
	section("Keys of `faults`");
	tf_schema_print(stdout, tf_faults_keys, tf_n_faults_keys);
	section("Attributes of a machine");
	tf_schema_print(stdout, tf_machine_keys, tf_n_machine_keys);
	return 0;
}
