/* SPDX-License-Identifier: MIT */
/*
 * See alone.h. sleep=off: idle time passes at once instead of waiting for the host's clock, so that
 * a recorded run is the same as one that is not. Going backwards is going forwards from a snapshot;
 * rrsnapshot takes one at the start.
 */
#include "qemu/alone.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "qemu/io.h"

#define TOOL_MS   30000
#define SNAPSHOTS "1G" /* the most that the file may grow to */

static void add_counting(struct tf_vm_args *args, const struct tf_vm_alone *a)
{
	tf_vm_autofree char *recording = a->recording ? tf_vm_escape(a->recording) : NULL;
	tf_vm_autofree char *snapshots = a->snapshots ? tf_vm_escape(a->snapshots) : NULL;

	tf_vm_args_add(args, "-icount");
	if (a->mode == TF_VM_ALONE_RUN) {
		tf_vm_args_add(args, "shift=3,sleep=off");
		return;
	}
	args->failed |= !recording || !snapshots;
	tf_vm_args_add(args, "shift=3,sleep=off,rr=%s,rrfile=%s,rrsnapshot=start",
		a->mode == TF_VM_ALONE_RECORD ? "record" : "replay", recording ? recording : "");
	tf_vm_args_add(args, "-drive");
	tf_vm_args_add(
		args, "file=%s,format=qcow2,if=none,id=snapshots", snapshots ? snapshots : "");
}

static void add_gdb(struct tf_vm_args *args, const char *gdb)
{
	tf_vm_autofree char *path = tf_vm_escape(gdb);

	args->failed |= !path;
	tf_vm_args_add(args, "-S");
	tf_vm_args_add(args, "-chardev");
	tf_vm_args_add(args, "socket,id=gdb,path=%s,server=on,wait=off", path ? path : "");
	tf_vm_args_add(args, "-gdb");
	tf_vm_args_add(args, "chardev:gdb");
}

void tf_vm_alone_args(struct tf_vm_args *args, const struct tf_vm_alone *a)
{
	struct tf_vm_guest guest = {a->kernel, a->initramfs, a->append};
	tf_vm_autofree char *console = tf_vm_escape(a->console);

	tf_vm_args_add(args, "%s", tf_vm_machine_qemu(&a->machine));
	tf_vm_args_add(args, "-name");
	tf_vm_args_add(args, "%s", a->machine.name);
	tf_vm_args_machine(args, &a->machine, NULL, false);
	tf_vm_args_kernel(args, &a->machine, &guest);
	tf_vm_args_add(args, "-no-user-config");
	tf_vm_args_add(args, "-nodefaults");
	tf_vm_args_add(args, "-no-reboot");
	tf_vm_args_add(args, "-display");
	tf_vm_args_add(args, "none");
	tf_vm_args_add(args, "-chardev");
	tf_vm_args_add(args, "file,id=console,path=%s", console ? console : "");
	tf_vm_args_add(args, "-serial");
	tf_vm_args_add(args, "chardev:console");
	tf_vm_args_add(args, "-rtc");
	tf_vm_args_add(args, "base=2021-01-01,clock=vm");
	tf_vm_args_add(args, "-seed");
	tf_vm_args_add(args, "%u", a->seed);
	args->failed |= !console;
	add_counting(args, a);
	if (a->gdb)
		add_gdb(args, a->gdb);
}

static int make_snapshots(const struct tf_vm_alone *a, struct tf_vm_error *err)
{
	const char *const argv[] = {
		"qemu-img", "create", "-q", "-f", "qcow2", a->snapshots, SNAPSHOTS, NULL};
	struct tf_vm_child *child;
	char how[256];
	int status = -1, rc = tf_vm_child_start(argv, NULL, 0, a->log, &child, err);

	if (rc < 0)
		return rc;
	if (!tf_vm_child_ended(child, TOOL_MS, &status) || status) {
		tf_vm_child_explain(child, how, sizeof(how));
		rc = tf_vm_fail(err, -ENOENT, "%s: %s (package qemu-utils)", a->snapshots, how);
	}
	tf_vm_child_free(child);
	return rc;
}

int tf_vm_alone_start(
	const struct tf_vm_alone *a, struct tf_vm_child **ret_child, struct tf_vm_error *err)
{
	struct tf_vm_args args = {0};
	int rc = tf_vm_machine_check(&a->machine, err);

	if (rc == 0 && a->mode == TF_VM_ALONE_RECORD)
		rc = make_snapshots(a, err);
	if (rc < 0)
		return rc;
	tf_vm_alone_args(&args, a);
	if (args.failed)
		rc = tf_vm_fail(err, -ENOMEM, "no memory");
	if (rc == 0 && a->cmdline)
		rc = tf_vm_args_write(&args, a->cmdline, err);
	if (rc == 0)
		rc = tf_vm_child_start(
			(const char *const *)args.v, NULL, 0, a->log, ret_child, err);
	tf_vm_args_done(&args);
	return rc;
}
