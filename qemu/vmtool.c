/* SPDX-License-Identifier: MIT */
/*
 * vmtool: a development driver of the qemu floor, not installed. It shows each part at work
 * by hand, prints times, and is what the checks in this folder's commits were made with.
 * Guests come from build/guest/ARCH (or $GUEST_DIR/ARCH).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/io.h"
#include "qemu/link.h"
#include "qemu/remote.h"
#include "qemu/template.h"

struct tool {
	struct tf_vm_error err;
	char cache[4096];
	char run[64];
	char *kernel, *initramfs;
	struct tf_vm_machine machine;
};

static int report(struct tool *t, int rc)
{
	if (rc < 0)
		fprintf(stderr, "vmtool: %s (%d)\n", t->err.text, rc);
	return rc;
}

static struct tf_vm_guest guest_of(const struct tool *t)
{
	return (struct tf_vm_guest){t->kernel, t->initramfs, NULL};
}

static int tool_init(struct tool *t, const char *arch)
{
	const char *dir = getenv("GUEST_DIR") ? getenv("GUEST_DIR") : "build/guest";
	const char *kernel = getenv("KERNEL");
	int rc = tf_vm_cachedir(t->cache, sizeof(t->cache), &t->err);

	if (rc == 0)
		rc = tf_vm_machine_init(&t->machine, arch, &t->err);
	if (rc < 0)
		return report(t, rc);
	if (tf_vm_probe_kvm(&t->machine, t->cache))
		t->machine.accel = TF_VM_KVM;
	strcpy(t->run, "/tmp/vmtool.XXXXXX");
	if (!mkdtemp(t->run))
		return -errno;
	t->kernel = tf_vm_format("%s/%s/kernel", dir, arch);
	t->initramfs = tf_vm_format("%s/%s/initramfs", dir, arch);
	if (kernel)
		t->kernel = strdup(kernel);
	return 0;
}

static int make_vm(
	struct tool *t, unsigned int n, const struct tf_link *link, bool cold, struct tf_vm **ret)
{
	struct tf_vm_config c = {.machine = t->machine,
		.guest = guest_of(t),
		.id = tf_vm_identity(n),
		.qemu = getenv("QEMU"),
		.link_path = link ? tf_link_path(link) : NULL};
	tf_vm_autofree char *dir = tf_vm_format("%s/%s", t->run, c.id.host);
	int64_t start = tf_vm_now_ms();
	int rc;

	c.rundir = dir;
	tf_vm_make_dirs(dir);
	snprintf(c.machine.name, sizeof(c.machine.name), "vm%u", n);
	if (cold) {
		rc = tf_vm_boot(&c, ret, &t->err);
	} else {
		struct tf_vm_template *tmpl;
		struct tf_vm_guest g = guest_of(t);

		rc = tf_vm_template_get(&t->machine, &g, t->cache, 0, &tmpl, &t->err);
		if (rc < 0)
			return report(t, rc);
		printf("template %s in %d ms (boot %d ms)\n",
			tf_vm_template_made(tmpl) ? "made" : "found", (int)(tf_vm_now_ms() - start),
			tf_vm_template_boot_ms(tmpl));
		start = tf_vm_now_ms();
		rc = tf_vm_clone(tmpl, &c, ret, &t->err);
		tf_vm_template_free(tmpl);
	}
	if (rc == 0)
		printf("%s: agent after %d ms, set up after %d ms, qemu pid %d, run folder %s\n",
			c.id.host, tf_vm_ready_ms(*ret), (int)(tf_vm_now_ms() - start),
			(int)tf_vm_pid(*ret), dir);
	fflush(stdout);
	return report(t, rc);
}

static int run(struct tool *t, struct tf_vm *vm, const char *const *argv)
{
	struct tf_vm_command cmd = {.argv = argv};
	struct tf_vm_result r;
	int rc = tf_vm_run(vm, &cmd, 1 << 20, 60000, &r, &t->err);

	printf("%s: status %d in %d ms\n%s%s", argv[0], r.status, r.elapsed_ms, r.out ? r.out : "",
		r.err ? r.err : "");
	if (rc == 0 && !(WIFEXITED(r.status) && WEXITSTATUS(r.status) == 0))
		rc = tf_vm_fail(&t->err, -EIO, "%s failed", argv[0]);
	tf_vm_result_done(&r);
	return report(t, rc);
}

/* vmtool boot|clone ARCH [PROGRAM ARGS...]: PROGRAM is put into the guest and run. */
static int cmd_run(struct tool *t, char **argv, bool cold)
{
	struct tf_vm *vm = NULL;
	int64_t us;
	int rc = make_vm(t, 1, NULL, cold, &vm);

	for (int i = 0; rc == 0 && i < 3; i++) {
		rc = report(t, tf_vm_ping(vm, 5000, &us, &t->err));
		printf("ping %d us\n", (int)us);
	}
	if (rc == 0 && argv[0]) {
		const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
		tf_vm_autofree char *path = tf_vm_format("/bin/%s", name);

		rc = report(t, tf_vm_put(vm, argv[0], path, 0755, &t->err));
		argv[0] = path;
		if (rc == 0)
			rc = run(t, vm, (const char *const *)argv);
		argv[0] = NULL;
	}
	if (rc == 0)
		rc = report(t, tf_vm_poweroff(vm, 10000, &t->err));
	tf_vm_free(vm);
	return rc;
}

static int cmd_boot(struct tool *t, char **argv)
{
	return cmd_run(t, argv, true);
}

static int cmd_clone(struct tool *t, char **argv)
{
	return cmd_run(t, argv, false);
}

/* vmtool hold ARCH: a clone that stays until vmtool ends, to see what becomes of it then. */
static int cmd_hold(struct tool *t, char **argv)
{
	struct tf_vm *vm = NULL;
	struct tf_link *link;
	tf_vm_autofree char *path = tf_vm_format("%s/link", t->run);
	int rc = report(t, tf_link_start(path, &link, &t->err));

	(void)argv;
	if (rc == 0)
		rc = make_vm(t, 1, link, false, &vm);
	if (rc < 0)
		return rc;
	printf("relay pid %d\n", (int)tf_link_pid(link));
	fflush(stdout);
	return tf_vm_wait(&vm, 1, &(struct tf_vm_callbacks){}, 600000);
}

static void print_output(
	void *arg, struct tf_vm *vm, uint32_t job, int stream, const void *data, size_t len)
{
	(void)arg;
	printf("[%s job %u %s] %.*s", tf_vm_identity_of(vm)->host, job, stream == 1 ? "out" : "err",
		(int)len, (const char *)data);
}

static void count_exit(void *arg, struct tf_vm *vm, uint32_t job, int status)
{
	int *left = arg;

	printf("[%s job %u] exit status %d\n", tf_vm_identity_of(vm)->host, job, status);
	--*left;
}

static void print_dead(void *arg, struct tf_vm *vm, const struct tf_vm_error *why)
{
	int *left = arg;

	(void)vm;
	printf("dead: %s\n", why->text);
	*left = 0;
}

static int spawn2(struct tool *t, struct tf_vm *vm, const char *a, const char *b, const char *c,
	uint32_t *job)
{
	const char *argv[] = {"/bin/guestprobe", a, b, c, NULL};
	struct tf_vm_command cmd = {.argv = argv};

	return report(t, tf_vm_spawn(vm, &cmd, job, NULL, &t->err));
}

/* vmtool pair ARCH GUESTPROBE [MIB]: two linked clones exchange data over TCP. */
static int cmd_pair(struct tool *t, char **argv)
{
	struct tf_vm *vms[2] = {};
	struct tf_link *link;
	struct tf_link_stats s;
	int left = 2, rc;
	struct tf_vm_callbacks cb = {&left, print_output, count_exit, NULL, print_dead};
	tf_vm_autofree char *path = tf_vm_format("%s/link", t->run);
	uint32_t job;

	rc = report(t, tf_link_start(path, &link, &t->err));
	if (rc < 0 || !argv[0])
		return rc < 0 ? rc : -EINVAL;
	for (unsigned int i = 0; rc == 0 && i < 2; i++) {
		rc = make_vm(t, i + 1, link, false, &vms[i]);
		if (rc == 0)
			rc = report(
				t, tf_vm_put(vms[i], argv[0], "/bin/guestprobe", 0755, &t->err));
	}
	if (rc == 0)
		rc = spawn2(t, vms[0], "listen", "7000", NULL, &job);
	if (rc == 0)
		rc = spawn2(t, vms[1], "send", "10.77.0.1:7000", argv[1] ? argv[1] : "8", &job);
	while (rc == 0 && left > 0) {
		rc = tf_vm_wait(vms, 2, &cb, 60000);
		rc = rc > 0 ? 0 : report(t, tf_vm_fail(&t->err, -ETIMEDOUT, "no events"));
	}
	if (rc == 0 && report(t, tf_link_stats(link, &s, &t->err)) == 0)
		printf("link: %lu frames, %lu bytes, %lu flooded, %lu dropped, %lu overflowed\n",
			s.frames, s.bytes, s.flooded, s.dropped, s.overflowed);
	tf_vm_free(vms[0]);
	tf_vm_free(vms[1]);
	tf_link_free(link);
	return rc;
}

/* vmtool jobs ARCH GUESTPROBE: busy and talkative jobs at once, and pings meanwhile. */
static int cmd_jobs(struct tool *t, char **argv)
{
	struct tf_vm *vm = NULL;
	int left = 4, rc = make_vm(t, 1, NULL, false, &vm);
	struct tf_vm_callbacks cb = {&left, NULL, count_exit, NULL, print_dead};
	const char *const what[4][2] = {
		{"spin", "2"}, {"spin", "2"}, {"flood", "4"}, {"exit", "7"}};
	uint32_t job;
	int64_t us, worst = 0;

	if (rc == 0)
		rc = report(t, tf_vm_put(vm, argv[0], "/bin/guestprobe", 0755, &t->err));
	for (int i = 0; rc == 0 && i < 4; i++)
		rc = spawn2(t, vm, what[i][0], what[i][1], NULL, &job);
	while (rc == 0 && left > 0) {
		rc = report(t, tf_vm_ping(vm, 10000, &us, &t->err));
		worst = us > worst ? us : worst;
		if (rc == 0)
			rc = tf_vm_wait(&vm, 1, &cb, 50) < 0 ? -EIO : 0;
	}
	printf("worst ping under load %d us\n", (int)worst);
	tf_vm_free(vm);
	return rc;
}

static const struct {
	const char *name;
	int (*run)(struct tool *t, char **argv);
} commands[] = {
	{"boot", cmd_boot},
	{"clone", cmd_clone},
	{"hold", cmd_hold},
	{"pair", cmd_pair},
	{"jobs", cmd_jobs},
};

int main(int argc, char **argv)
{
	static struct tool t;

	for (size_t i = 0; argc >= 3 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		if (tool_init(&t, argv[2]) < 0)
			return 1;
		return commands[i].run(&t, argv + 3) < 0;
	}
	fprintf(stderr, "usage: vmtool boot|clone|hold|pair|jobs ARCH [PROGRAM ARGS...]\n");
	return 2;
}
