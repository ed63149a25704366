/* SPDX-License-Identifier: MIT */
/*
 * Life and death of one QEMU: the command line, the start, the first answer of the agent, and
 * the report when any of it fails.
 */
#include "qemu/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "qemu/vm_impl.h"

#define QMP_FD        3
#define CTL_FD        4
#define BOOT_MS       180000 /* some seconds, where nothing else runs */
#define LOG_TAIL      400    /* bytes of QEMU's stderr and of the console in an error */
#define CONSOLE_TAIL  450
#define CONSOLE_LOOK  8192
#define LAST_WORDS_MS 500

struct tf_vm_identity tf_vm_identity(unsigned int n)
{
	struct tf_vm_identity id = {
		.ipv4 = {10, 77, 0, (uint8_t)n},
		.prefix = 24,
		.mac = {0x52, 0x54, 0x00, 0x4d, (uint8_t)(n >> 8), (uint8_t)n},
	};

	snprintf(id.host, sizeof(id.host), "vm%u", n);
	return id;
}

void tf_vm_command_line(struct tf_vm_args *args, const struct tf_vm_config *config,
	const struct tf_vm_launch *how, const char *console)
{
	const struct tf_vm_machine *m = &config->machine;

	tf_vm_args_add(args, "%s", tf_vm_machine_qemu(m));
	tf_vm_args_add(args, "-name");
	tf_vm_args_add(args, "%s", m->name);
	tf_vm_args_machine(args, m, how->ram, how->share);
	/* It is in a clone's memory already, and to read it takes an aarch64 QEMU 0.1 s. */
	if (!how->incoming)
		tf_vm_args_kernel(args, m, &config->guest);
	tf_vm_args_common(args, console, QMP_FD, CTL_FD);
	tf_vm_args_net(args, config->link_path, config->id.mac);
	if (how->incoming)
		tf_vm_args_incoming(args);
	for (size_t i = 0; config->extra && config->extra[i]; i++)
		tf_vm_args_add(args, "%s", config->extra[i]);
}

static int check_file(const char *what, const char *path, struct tf_vm_error *err)
{
	struct stat st;

	if (!path)
		return tf_vm_fail(
			err, -EINVAL, "no %s given (qemu/guest/mkguest.sh makes one)", what);
	if (stat(path, &st) < 0)
		return tf_vm_fail_errno(
			err, -errno, "%s %s (qemu/guest/mkguest.sh makes it)", what, path);
	if (!S_ISREG(st.st_mode) || access(path, R_OK) < 0)
		return tf_vm_fail(err, -EACCES, "%s %s: not a readable file", what, path);
	return 0;
}

/* So that a failure can be repeated by hand. */
static int write_cmdline(
	const struct tf_vm *vm, const struct tf_vm_args *args, struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s/cmdline", vm->rundir);

	return path ? tf_vm_args_write(args, path, err) : tf_vm_fail(err, -ENOMEM, "no memory");
}

static int spawn_qemu(struct tf_vm *vm, const struct tf_vm_args *args, struct tf_vm_error *err)
{
	int qmp[2] = {-1, -1}, ctl[2] = {-1, -1}, rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp) < 0)
		return tf_vm_fail_errno(err, -errno, "socketpair");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ctl) < 0) {
		rc = tf_vm_fail_errno(err, -errno, "socketpair");
	} else {
		struct tf_vm_child_fd fds[] = {{qmp[1], QMP_FD}, {ctl[1], CTL_FD}};

		vm->started_us = tf_vm_now_us();
		rc = tf_vm_child_start(
			(const char *const *)args->v, fds, 2, vm->log, &vm->child, err);
		if (rc == 0)
			rc = tf_vm_channel_init(vm, ctl[0]);
		else
			close(ctl[0]);
		if (rc < 0 && vm->child)
			tf_vm_fail_errno(err, rc, "event descriptors");
		close(ctl[1]);
	}
	close(qmp[1]);
	if (rc < 0) {
		close(qmp[0]);
		return rc;
	}
	return tf_qmp_open(qmp[0], TF_VM_QMP_MS, &vm->qmp, err);
}

static struct tf_vm *new_vm(const struct tf_vm_config *config)
{
	struct tf_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->machine = config->machine;
	vm->id = config->id;
	vm->ctl = vm->epoll = vm->wake = -1;
	vm->rundir = strdup(config->rundir);
	vm->console = tf_vm_format("%s/console.log", config->rundir);
	vm->log = tf_vm_format("%s/qemu.log", config->rundir);
	if (vm->rundir && vm->console && vm->log)
		return vm;
	tf_vm_free(vm);
	return NULL;
}

int tf_vm_launch(const struct tf_vm_config *config, const struct tf_vm_launch *how,
	struct tf_vm **ret_vm, struct tf_vm_error *err)
{
	struct tf_vm_args args = {};
	struct tf_vm *vm;
	int rc = tf_vm_machine_check(&config->machine, err);

	if (rc == 0)
		rc = check_file("kernel", config->guest.kernel, err);
	if (rc == 0)
		rc = check_file("initramfs", config->guest.initramfs, err);
	if (rc == 0 && (!config->rundir || access(config->rundir, W_OK) < 0))
		rc = tf_vm_fail(err, -ENOENT, "run folder %s of %s: not a writable folder",
			config->rundir ? config->rundir : "(none)", config->machine.name);
	if (rc < 0)
		return rc;
	vm = new_vm(config);
	if (!vm) {
		tf_vm_fail(err, -ENOMEM, "no memory");
		return -ENOMEM;
	}
	tf_vm_command_line(&args, config, how, vm->console);
	if (args.failed)
		rc = tf_vm_fail(err, -ENOMEM, "no memory");
	else
		rc = write_cmdline(vm, &args, err);
	if (rc == 0)
		rc = spawn_qemu(vm, &args, err);
	if (rc < 0 && vm->child)
		rc = tf_vm_explain(vm, rc, "does not start", err);
	tf_vm_args_done(&args);
	if (rc < 0)
		tf_vm_free(vm);
	else
		*ret_vm = vm;
	return rc;
}

/* Of the process @pid so far; 0 where that cannot be told. */
static int processor_ms(pid_t pid)
{
	struct timespec t = {0};
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		return 0;
	return (int)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

int tf_vm_await_agent(struct tf_vm *vm, int timeout_ms, struct tf_vm_error *err)
{
	int rc = tf_vm_ping(vm, timeout_ms ? timeout_ms : BOOT_MS, NULL, err);

	vm->ready_ms = (int)((tf_vm_now_us() - vm->started_us) / 1000);
	vm->ready_cpu_ms = processor_ms(tf_vm_pid(vm));
	return rc;
}

int tf_vm_boot(const struct tf_vm_config *config, struct tf_vm **ret_vm, struct tf_vm_error *err)
{
	struct tf_vm_launch how = {};
	struct tf_vm *vm;
	int rc = tf_vm_launch(config, &how, &vm, err);

	if (rc < 0)
		return rc;
	rc = tf_vm_await_agent(vm, config->timeout_ms, err);
	if (rc == 0)
		rc = tf_vm_setup(vm, &config->id, err);
	if (rc < 0)
		tf_vm_free(vm);
	else
		*ret_vm = vm;
	return rc;
}

const struct tf_vm_machine *tf_vm_machine(const struct tf_vm *vm)
{
	return &vm->machine;
}

const struct tf_vm_identity *tf_vm_identity_of(const struct tf_vm *vm)
{
	return &vm->id;
}

const char *tf_vm_rundir(const struct tf_vm *vm)
{
	return vm->rundir;
}

struct tf_qmp *tf_vm_qmp(struct tf_vm *vm)
{
	return vm->qmp;
}

pid_t tf_vm_pid(const struct tf_vm *vm)
{
	return tf_vm_child_pid(vm->child);
}

int tf_vm_ready_ms(const struct tf_vm *vm)
{
	return vm->ready_ms;
}

int tf_vm_ready_cpu_ms(const struct tf_vm *vm)
{
	return vm->ready_cpu_ms;
}

int tf_vm_pause(struct tf_vm *vm, struct tf_vm_error *err)
{
	return tf_qmp_execute(vm->qmp, "stop", NULL, TF_VM_QMP_MS, NULL, err);
}

int tf_vm_resume(struct tf_vm *vm, struct tf_vm_error *err)
{
	return tf_qmp_execute(vm->qmp, "cont", NULL, TF_VM_QMP_MS, NULL, err);
}

int tf_vm_kill(struct tf_vm *vm)
{
	return tf_vm_child_kill(vm->child);
}

bool tf_vm_dead(struct tf_vm *vm, int *ret_status)
{
	return tf_vm_child_ended(vm->child, 0, ret_status);
}

/* What matters of a console: its last lines, or those from the kernel's panic on. */
static char *console_words(const char *path)
{
	char *text = tf_vm_file_tail(path, CONSOLE_LOOK);
	char *from = text ? strstr(text, "Kernel panic") : NULL;
	size_t len = text ? strlen(text) : 0;

	if (!text)
		return NULL;
	if (!from && len > CONSOLE_TAIL) {
		from = strchr(text + len - CONSOLE_TAIL, '\n');
		from = from ? from + 1 : text + len - CONSOLE_TAIL;
	}
	if (from)
		memmove(text, from, strlen(from) + 1);
	if (strlen(text) > CONSOLE_TAIL)
		text[CONSOLE_TAIL] = '\0';
	return text;
}

/* QEMU itself says little of it, or nothing. */
static const char *of_memory(void)
{
	tf_vm_autofree char *mode = tf_vm_file_tail("/proc/sys/vm/overcommit_memory", 16);

	return mode && mode[0] == '2'
		       ? "; vm.overcommit_memory is 2 here, and the machine's memory and some 300 MiB "
			 "have to be promised: give it less, raise vm.overcommit_ratio, or add swap"
		       : "";
}

int tf_vm_explain(struct tf_vm *vm, int code, const char *what, struct tf_vm_error *err)
{
	tf_vm_autofree char *log = NULL, *console = NULL;
	char how[256];

	/* A closed channel is seen a moment before the end of the process. */
	if (tf_vm_child_ended(vm->child, code == -ETIMEDOUT ? 0 : LAST_WORDS_MS, NULL))
		code = -ECHILD;
	tf_vm_child_explain(vm->child, how, sizeof(how));
	log = tf_vm_file_tail(vm->log, LOG_TAIL);
	console = console_words(vm->console);
	return tf_vm_fail(err, code, "machine %s: %s; %s%s%s%s%s%s (all of it in %.160s)",
		vm->machine.name, what, how, code == -ECHILD ? of_memory() : "",
		log && *log ? "; it said:\n" : "", log ? log : "",
		console && *console ? "\nthe console's last lines:\n" : "", console ? console : "",
		vm->rundir);
}

void tf_vm_free(struct tf_vm *vm)
{
	if (!vm)
		return;
	tf_vm_child_free(vm->child);
	tf_qmp_free(vm->qmp);
	tf_vm_channel_done(vm);
	free(vm->rundir);
	free(vm->console);
	free(vm->log);
	free(vm);
}
