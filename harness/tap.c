/* SPDX-License-Identifier: MIT */
/* See tap.h. The card's network is "n0" (tf_vm_args_net). */
#include "harness/tap.h"

#include <stdlib.h>

#include "qemu/io.h"

#define ID        "tap"
#define FRAME_MAX 1024
#define ANSWER_MS 30000

static struct tf_qmp *qmp_of(const struct tf_remote *m)
{
	struct tf_vm *vm = m && !m->dead ? m->ops->vm(m) : NULL;

	return vm ? tf_vm_qmp(vm) : NULL;
}

static void begin(const struct tf_journey *j, unsigned i)
{
	tf_vm_autofree char *folder = tf_vm_format("%s/%s", j->folder, j->cell->machine_names[i]);
	tf_vm_autofree char *path = folder ? tf_vm_format("%s/link.pcap", folder) : NULL;
	struct tf_vm_error ignored;

	if (!path || tf_vm_make_dirs(folder) < 0)
		return;
	tf_qmp_execute(qmp_of(j->machines[i]), "object-add",
		json_pack("{s:s, s:s, s:s, s:s, s:i}", "qom-type", "filter-dump", "id", ID,
			"netdev", "n0", "file", path, "maxlen", FRAME_MAX),
		ANSWER_MS, NULL, &ignored);
}

void tf_tap_begin(const struct tf_journey *j)
{
	for (unsigned i = 0; i < j->cell->n_machines; i++)
		if (qmp_of(j->machines[i]))
			begin(j, i);
}

void tf_tap_end(const struct tf_journey *j)
{
	struct tf_vm_error ignored;

	for (unsigned i = 0; i < j->cell->n_machines; i++)
		if (qmp_of(j->machines[i]))
			tf_qmp_execute(qmp_of(j->machines[i]), "object-del",
				json_pack("{s:s}", "id", ID), ANSWER_MS, NULL, &ignored);
}
