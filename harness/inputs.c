/* SPDX-License-Identifier: MIT */
/* See inputs.h. */
#include "harness/inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"
#include "qemu/io.h"

char *tf_inputs_list(const char *root, const struct tf_spec *spec)
{
	char kernel[4096], initramfs[4096];

	if (tf_spec_guest(root, spec, kernel, initramfs, NULL) < 0)
		return NULL;
	return tf_vm_format("%.*s/inputs", (int)(strrchr(initramfs, '/') - initramfs), initramfs);
}

/* A list of mkguest.sh or mkqemu.sh: kind, architecture, package, version, hash, "=" or the pinned
 * version. */
static void report_list(const char *path, struct tf_report *report)
{
	FILE *f = fopen(path, "re");
	char line[1024], package[256], version[256], pinned[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %255s %255s %*s %255s", package, version, pinned) == 3 &&
			strcmp(pinned, "=") != 0)
			tf_report_input(report, package, version, pinned);
	if (f)
		fclose(f);
}

static bool is_guest(const struct tf_spec *spec)
{
	return spec->tier == TF_TIER_SYSTEM || spec->tier == TF_TIER_ICOUNT;
}

static bool same_guest(const struct tf_spec *a, const struct tf_spec *b)
{
	return is_guest(a) && is_guest(b) && !strcmp(tf_spec_on(a), tf_spec_on(b)) &&
	       !strcmp(a->kernel, b->kernel);
}

/* Whether a cell before @cell, or a machine before @machine of it, has the same guest. */
static bool seen(const struct tf_cells *cells, size_t cell, unsigned machine)
{
	const struct tf_spec *spec = &cells->v[cell].machines[machine];

	for (size_t c = 0; c <= cell; c++)
		for (unsigned m = 0; m < (c < cell ? cells->v[c].n_machines : machine); m++)
			if (same_guest(&cells->v[c].machines[m], spec))
				return true;
	return false;
}

void tf_inputs_report(const char *root, const struct tf_cells *cells, struct tf_report *report)
{
	tf_vm_autofree char *qemu = tf_vm_format("%s/build/qemu/inputs", root);
	bool newer = false;

	for (size_t c = 0; c < cells->n; c++)
		for (unsigned m = 0; m < cells->v[c].n_machines; m++) {
			tf_vm_autofree char *path = NULL;

			newer = newer || strstr(cells->v[c].machines[m].qemu, TF_QEMU_NEWER);
			if (!is_guest(&cells->v[c].machines[m]) || seen(cells, c, m))
				continue;
			path = tf_inputs_list(root, &cells->v[c].machines[m]);
			if (path)
				report_list(path, report);
		}
	if (newer && qemu)
		report_list(qemu, report);
}
