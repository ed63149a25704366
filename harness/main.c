/* SPDX-License-Identifier: MIT */
/*
 * telebed(1): QEMU machines as the remotes, and what became of a program that was sent from one to
 * the other. TAP on standard output; exit code 0 pass, 1 fail, 69 infrastructure.
 *
 *   telebed run ARCH BUILD PROBE...    each probe (a file of BUILD/probes) goes from machine A to B
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "qemu/link.h"
#include "qemu/remote.h"
#include "qemu/template.h"

#define MACHINES 2

struct bed {
	struct tf_vm_error err;
	char run[64], cache[4096];
	struct tf_link *link;
	struct tf_vm *vm[MACHINES]; /* [0] sends, [1] receives */
	struct tf_vm_template *tmpl;
	bool listening; /* the receiver has printed its address */
	char log[8192]; /* the receiver's words */
};

static int bed_start(struct bed *b, const char *arch)
{
	char kernel[128], initramfs[128], path[80];
	struct tf_vm_guest guest = {.kernel = kernel, .initramfs = initramfs};
	struct tf_vm_machine m;
	int rc = tf_vm_cachedir(b->cache, sizeof(b->cache), &b->err);

	strcpy(b->run, "/tmp/telebed.XXXXXX");
	if (!mkdtemp(b->run))
		return -1;
	snprintf(kernel, sizeof(kernel), "build/guest/%s/kernel", arch);
	snprintf(initramfs, sizeof(initramfs), "build/guest/%s/initramfs", arch);
	if (!rc)
		rc = tf_vm_machine_init(&m, arch, &b->err);
	if (rc)
		return rc;
	m.accel = tf_vm_probe_kvm(&m, b->cache) ? TF_VM_KVM : TF_VM_TCG;
	rc = tf_vm_template_get(&m, &guest, b->cache, 0, &b->tmpl, &b->err);
	snprintf(path, sizeof(path), "%s/link", b->run);
	if (!rc)
		rc = tf_link_start(path, &b->link, &b->err);
	for (unsigned i = 0; i < MACHINES && !rc; i++) {
		struct tf_vm_config c = {.id = tf_vm_identity(i + 1), .link_path = path};
		char folder[160];

		snprintf(folder, sizeof(folder), "%s/%s", b->run, c.id.host);
		mkdir(folder, 0700);
		c.rundir = folder;
		rc = tf_vm_clone(b->tmpl, &c, &b->vm[i], &b->err);
		if (!rc)
			printf("# %s: %s machine, answered after %d ms\n", c.id.host, arch,
				tf_vm_ready_ms(b->vm[i]));
	}
	return rc;
}

static void bed_end(struct bed *b)
{
	for (unsigned i = 0; i < MACHINES; i++)
		tf_vm_free(b->vm[i]);
	tf_link_free(b->link);
	tf_vm_template_free(b->tmpl);
}

static void heard(void *arg, struct tf_vm *vm, uint32_t job, int stream, const void *data,
	size_t len)
{
	struct bed *b = arg;
	size_t n = strlen(b->log);

	(void)vm, (void)job, (void)stream;
	snprintf(b->log + n, sizeof(b->log) - n, "%.*s", (int)len, (const char *)data);
	b->listening = strstr(b->log, "tcp://") != NULL;
}

static void gone(void *arg, struct tf_vm *vm, const struct tf_vm_error *why)
{
	struct bed *b = arg;

	(void)vm;
	b->err = *why;
}

/* Starts the receiver on the second machine and waits until it listens. */
static int start_receiver(struct bed *b, const char *build)
{
	static const char *const argv[] = {"/bin/telefork-pad", "serve", "--insecure",
		"tcp://10.77.0.2:7700", NULL};
	const struct tf_vm_callbacks cb = {.arg = b, .output = heard, .dead = gone};
	struct tf_vm_command cmd = {.argv = argv};
	char pad[256];
	uint32_t job;
	int rc;

	snprintf(pad, sizeof(pad), "%s/bin/telefork-pad", build);
	rc = tf_vm_put(b->vm[1], pad, "/bin/telefork-pad", 0755, &b->err);
	if (!rc)
		rc = tf_vm_spawn(b->vm[1], &cmd, &job, NULL, &b->err);
	while (!rc && !b->listening)
		if (tf_vm_wait(&b->vm[1], 1, &cb, tf_vm_scale_ms(b->tmpl, 20000)) <= 0)
			rc = tf_vm_explain(b->vm[1], -1, "telefork-pad does not listen", &b->err);
	return rc;
}

/* One journey: 0 pass, 1 fail, negative: infrastructure. */
static int journey(struct bed *b, const char *build, const char *probe)
{
	const char *const argv[] = {"/bin/probe", "tcp://10.77.0.2:7700", NULL};
	struct tf_vm_command cmd = {.argv = argv};
	struct tf_vm_result r;
	char path[256];
	int rc;

	snprintf(path, sizeof(path), "%s/probes/%s", build, probe);
	rc = tf_vm_put(b->vm[0], path, "/bin/probe", 0755, &b->err);
	if (rc)
		return rc;
	rc = tf_vm_run(b->vm[0], &cmd, 1 << 16, tf_vm_scale_ms(b->tmpl, 60000), &r, &b->err);
	if (!rc) {
		rc = !(WIFEXITED(r.status) && !WEXITSTATUS(r.status));
		printf("# %s%s", r.out ? r.out : "\n", r.err ? r.err : "");
	}
	tf_vm_result_done(&r);
	return rc;
}

static int run(int argc, char **argv)
{
	struct bed b = {0};
	int rc = bed_start(&b, argv[0]), failed = 0;

	if (!rc)
		rc = start_receiver(&b, argv[1]);
	printf("1..%d\n", argc - 2);
	for (int i = 2; i < argc && !rc; i++) {
		int verdict = journey(&b, argv[1], argv[i]);

		rc = verdict < 0 ? verdict : 0;
		failed += verdict != 0;
		printf("%s %d - %s from machine to machine, %s\n", verdict ? "not ok" : "ok", i - 1,
			argv[i], argv[0]);
		fflush(stdout);
	}
	if (rc)
		fprintf(stderr, "telebed: %s\n", b.err.text);
	if (rc || failed)
		fprintf(stderr, "telebed: run folder %s; the receiver said:\n%s\n", b.run, b.log);
	bed_end(&b);
	return rc ? EX_UNAVAILABLE : failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc > 4 && !strcmp(argv[1], "run"))
		return run(argc - 2, argv + 2);
	fprintf(stderr, "usage: telebed run ARCH BUILD PROBE...\n");
	return EX_USAGE;
}
