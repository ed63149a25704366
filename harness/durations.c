/* SPDX-License-Identifier: MIT */
/* See durations.h. */
#include "harness/durations.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/io.h"

#define FILE_NAME "durations.json"
#define LONGEST   86400000 /* a day, in milliseconds */

static char *file_path(void)
{
	struct tf_vm_error ignored;
	char cache[4096];

	return tf_vm_cachedir(cache, sizeof(cache), &ignored) < 0
		       ? NULL
		       : tf_vm_format("%s/" FILE_NAME, cache);
}

/* An object of milliseconds by the cells' names. */
static json_t *load(const char *path)
{
	json_t *all = path ? json_load_file(path, 0, NULL) : NULL;

	if (json_is_object(all))
		return all;
	json_decref(all);
	return json_object();
}

void tf_durations_recall(struct tf_cells *cells)
{
	tf_vm_autofree char *path = file_path();
	json_t *all = load(path);

	for (size_t i = 0; i < cells->n; i++) {
		json_int_t ms = json_integer_value(json_object_get(all, cells->v[i].name));

		if (ms > 0 && ms <= LONGEST)
			cells->v[i].takes_ms = (int)ms;
	}
	json_decref(all);
}

void tf_durations_keep(const struct tf_report *r)
{
	tf_vm_autofree char *path = file_path(), *text = NULL;
	json_t *all = load(path);
	const struct tf_outcome *o;
	struct tf_vm_error ignored;

	for (size_t i = 0; (o = tf_report_outcome(r, i)); i++)
		if (o->verdict == TF_VERDICT_OK)
			json_object_set_new(
				all, o->cell->name, json_integer(o->ms > 0 ? o->ms : 1));
	text = json_dumps(all, JSON_INDENT(1) | JSON_SORT_KEYS);
	json_decref(all);
	if (path && text)
		tf_vm_write_file(path, text, strlen(text), &ignored);
}
