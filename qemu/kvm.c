/* SPDX-License-Identifier: MIT */
/*
 * Does KVM work here? /dev/kvm may be there and QEMU abort, fail or hang on it, so a machine
 * is really started, for 5 s at most. The answer is good until the next boot of the host.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qemu/child.h"
#include "qemu/io.h"
#include "qemu/machine.h"
#include "qemu/qmp.h"

#define PROBE_MS 5000
#define QMP_FD   3

static void read_boot_id(char *buf, size_t size)
{
	tf_vm_autoclose int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
}

/*
 * Firmware or not, the CPU runs from reset on; each stop makes QEMU fetch its state out of
 * the kernel, and a KVM that is broken ends or hangs QEMU by then.
 */
static bool exercise(struct tf_qmp *qmp, int64_t deadline)
{
	json_t *kvm = NULL;
	bool ok = tf_qmp_execute(qmp, "query-kvm", NULL, tf_vm_left_ms(deadline), &kvm, NULL) == 0;

	ok = ok && json_is_true(json_object_get(kvm, "enabled"));
	for (int i = 0; ok && i < 20; i++) {
		struct tf_vm_error ignored;
		char *text = NULL;

		/* No event comes from a healthy machine; an early SHUTDOWN is a failure. */
		ok = tf_qmp_event(qmp, "SHUTDOWN", 10, NULL, &ignored) == -ETIMEDOUT &&
		     tf_qmp_execute(qmp, "stop", NULL, tf_vm_left_ms(deadline), NULL, NULL) == 0 &&
		     tf_qmp_hmp(qmp, "info registers", tf_vm_left_ms(deadline), &text, NULL) == 0 &&
		     tf_qmp_execute(qmp, "cont", NULL, tf_vm_left_ms(deadline), NULL, NULL) == 0;
		free(text);
	}
	json_decref(kvm);
	return ok;
}

static bool try_kvm(const struct tf_vm_machine *m, const char *log)
{
	struct tf_vm_machine probe = *m;
	struct tf_vm_child_fd pass = {.to = QMP_FD};
	struct tf_vm_child *child = NULL;
	struct tf_qmp *qmp = NULL;
	struct tf_vm_args args = {};
	int64_t deadline = tf_vm_now_ms() + PROBE_MS;
	int pair[2];
	bool ok;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return false;
	probe.accel = TF_VM_KVM;
	pass.from = pair[1];
	tf_vm_args_add(&args, "%s", tf_vm_machine_qemu(m));
	tf_vm_args_machine(&args, &probe, NULL, false);
	tf_vm_args_add(&args, "-nodefaults");
	tf_vm_args_add(&args, "-display");
	tf_vm_args_add(&args, "none");
	tf_vm_args_add(&args, "-chardev");
	tf_vm_args_add(&args, "socket,id=qmp,fd=%d", QMP_FD);
	tf_vm_args_add(&args, "-mon");
	tf_vm_args_add(&args, "chardev=qmp,mode=control");
	ok = !args.failed &&
	     tf_vm_child_start((const char *const *)args.v, &pass, 1, log, &child, NULL) == 0;
	close(pair[1]);
	if (ok)
		ok = tf_qmp_open(pair[0], tf_vm_left_ms(deadline), &qmp, NULL) == 0;
	else
		close(pair[0]);
	ok = ok && exercise(qmp, deadline) && !tf_vm_child_ended(child, 0, NULL);
	tf_vm_child_free(child);
	tf_qmp_free(qmp);
	tf_vm_args_done(&args);
	return ok;
}

bool tf_vm_probe_kvm(const struct tf_vm_machine *m, const char *cachedir)
{
	tf_vm_autofree char *path = tf_vm_format("%s/kvm-%s", cachedir, m->arch);
	tf_vm_autofree char *log = tf_vm_format("%s/kvm-%s.log", cachedir, m->arch);
	tf_vm_autofree char *known = NULL, *line = NULL;
	char boot[64];
	bool ok;

	if (!path || !log || strcmp(m->arch, tf_vm_host_arch()) != 0 ||
		access("/dev/kvm", R_OK | W_OK) < 0)
		return false;
	read_boot_id(boot, sizeof(boot));
	known = tf_vm_file_tail(path, 256);
	if (known && boot[0] && !strncmp(known, boot, strlen(boot)))
		return !strcmp(known + strlen(boot), " yes");
	unlink(log);
	ok = try_kvm(m, log);
	line = tf_vm_format("%s %s\n", boot, ok ? "yes" : "no");
	if (line)
		tf_vm_write_file(path, line, strlen(line), NULL);
	return ok;
}
