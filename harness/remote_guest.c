/* SPDX-License-Identifier: MIT */
/* Machines of the tier "system": clones of QEMU guests on one link. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#include "harness/machines.h"
#include "qemu/io.h"
#include "qemu/remote.h"
#include "qemu/template.h"

#define FOLDER    "/tmp/bed"
#define PING_MS   5000
#define ASK_MS    20  /* between two questions whether a file is there */
#define MAX_GUEST 254 /* identities on one link */
#define ARGS_MAX  64
#define AUXV_MAX  4096

struct guest {
	struct tf_remote base;
	struct tf_vm_template *tmpl;
	struct tf_vm *vm;
};

static struct guest *guest_of(const struct tf_remote *r)
{
	return (struct guest *)r;
}

static int guest_put(struct tf_remote *r, const char *host_path, const char *path, mode_t mode,
	struct tf_vm_error *err)
{
	return tf_vm_put(guest_of(r)->vm, host_path, path, mode, err);
}

static int guest_get(
	struct tf_remote *r, const char *path, const char *host_path, struct tf_vm_error *err)
{
	return tf_vm_get(guest_of(r)->vm, path, host_path, err);
}

static int guest_start(struct tf_remote *r, const char *const argv[], unsigned how,
	struct tf_job *job, struct tf_vm_error *err)
{
	/* As in tier user: the stack of a receiver is larger than any program's. */
	const char *const env[] = {"PATH=/bin:/usr/bin:/tmp", "HOME=/", "TERM=dumb", "QEMU_CPU=max",
		how & TF_JOB_RECEIVER ? "QEMU_STACK_SIZE=1073741824" : NULL, NULL};
	const char *full[ARGS_MAX + 2] = {TF_EMULATOR};
	struct tf_vm_command cmd = {.argv = argv, .stdin_pipe = how & TF_JOB_HELD};

	if (tf_spec_emulates(&r->spec)) {
		cmd.argv = full;
		cmd.env = env;
		for (size_t i = 0; argv[i]; i++) {
			if (i == ARGS_MAX)
				return tf_vm_fail(err, -E2BIG, "%s: more than %d arguments",
					argv[0], ARGS_MAX);
			full[i + 1] = argv[i];
		}
	}
	return tf_vm_spawn(guest_of(r)->vm, &cmd, &job->id, &job->pid, err);
}

static int guest_let_go(struct tf_job *job, struct tf_vm_error *err)
{
	int rc = tf_vm_stdin(guest_of(job->remote)->vm, job->id, "", 0, err);

	return rc == -ESRCH || rc == -EPIPE ? 0 : rc; /* it has ended meanwhile */
}

static void on_output(
	void *arg, struct tf_vm *vm, uint32_t id, int stream, const void *data, size_t len)
{
	struct tf_job *job = tf_job_find(arg, id);

	(void)vm;
	if (job)
		tf_job_keep(job, stream - 1, data, len);
}

static void on_exit_of(void *arg, struct tf_vm *vm, uint32_t id, int status)
{
	struct tf_job *job = tf_job_find(arg, id);

	(void)vm;
	if (job) {
		job->ended = true;
		job->status = status;
	}
}

static void on_closed(void *arg, struct tf_vm *vm, uint32_t id)
{
	struct tf_job *job = tf_job_find(arg, id);

	(void)vm;
	if (job)
		job->closed = true;
}

static void on_dead(void *arg, struct tf_vm *vm, const struct tf_vm_error *why)
{
	struct tf_remote *r = arg;

	(void)vm;
	r->dead = true;
	r->why = *why;
}

static void guest_pump(struct tf_remote *r)
{
	const struct tf_vm_callbacks cb = {r, on_output, on_exit_of, on_closed, on_dead};

	tf_vm_dispatch(guest_of(r)->vm, &cb);
}

static void guest_signal(struct tf_job *job, int signo)
{
	struct tf_vm_error ignored;

	tf_vm_signal(guest_of(job->remote)->vm, job->id, signo, &ignored);
}

static void guest_drop(struct tf_job *job)
{
	(void)job; /* late events of it find nobody */
}

/* The agent knows jobs only, and cannot watch a folder: it is asked for the file every so often. */
static int guest_ask(struct tf_job *job, pid_t pid, int signo, const char *name, int limit_ms,
	struct tf_vm_error *err)
{
	struct tf_vm *vm = guest_of(job->remote)->vm;
	int64_t deadline = tf_vm_now_ms() + limit_ms;
	char path[256];
	size_t len;
	int rc;

	(void)pid;
	tf_remote_path(job->remote, name, path, sizeof(path));
	rc = tf_vm_put_data(vm, "", 0, path, 0600, err); /* an older one does not count */
	if (rc == 0)
		rc = tf_vm_signal(vm, job->id, signo, err);
	while (rc == 0) {
		struct tf_vm_error why;
		char *head = NULL;

		/* Longer than this is what it is when it is there. */
		rc = tf_vm_get_data(vm, path, 1, &head, &len, &why);
		free(head);
		if (rc == -EFBIG)
			return 0;
		if (rc != 0 && rc != -ENOENT)
			return tf_vm_fail(err, rc, "%s", why.text);
		if (!tf_vm_left_ms(deadline))
			return tf_vm_fail(err, -ETIMEDOUT, "%s on %s does not write %s", job->name,
				job->remote->name, name);
		rc = poll(NULL, 0, ASK_MS) < 0 ? -errno : 0;
	}
	return rc;
}

static int guest_fd(const struct tf_remote *r)
{
	return tf_vm_fd(guest_of(r)->vm);
}

static int guest_address(const struct tf_remote *r, enum tf_transport transport, char *buf,
	size_t size, struct tf_vm_error *err)
{
	const uint8_t *ip = tf_vm_identity_of(guest_of(r)->vm)->ipv4;

	if (transport != TF_TRANSPORT_TCP)
		return tf_vm_fail(err, -EINVAL, "machine %s: guests are joined by tcp, not by %s",
			r->name, tf_transport_names[transport]);
	snprintf(buf, size, "tcp://%u.%u.%u.%u:0", ip[0], ip[1], ip[2], ip[3]);
	return 0;
}

static bool guest_well(struct tf_remote *r)
{
	if (!r->dead && tf_vm_ping(guest_of(r)->vm, PING_MS, NULL, &r->why) < 0)
		r->dead = true;
	return !r->dead;
}

static int guest_scale(const struct tf_remote *r, int ms)
{
	return tf_vm_scale_ms(guest_of(r)->tmpl, ms);
}

static struct tf_vm *guest_vm(const struct tf_remote *r)
{
	return guest_of(r)->vm;
}

static void guest_end(struct tf_remote *r)
{
	struct guest *g = guest_of(r);

	tf_vm_free(g->vm);
	tf_vm_template_free(g->tmpl);
	free(g);
}

static const struct tf_remote_ops guest_ops = {
	.put = guest_put,
	.get = guest_get,
	.start = guest_start,
	.let_go = guest_let_go,
	.signal = guest_signal,
	.drop = guest_drop,
	.ask = guest_ask,
	.fd = guest_fd,
	.pump = guest_pump,
	.address = guest_address,
	.well = guest_well,
	.scale = guest_scale,
	.vm = guest_vm,
	.end = guest_end,
};

int tf_spec_describe(const struct tf_spec *spec, const char *cache, struct tf_vm_machine *m,
	struct tf_vm_error *err)
{
	int rc = tf_vm_machine_init(m, tf_spec_on(spec), err);
	size_t n;

	if (rc < 0)
		return rc;
	if (spec->cpu[0])
		snprintf(m->cpu, sizeof(m->cpu), "%s", spec->cpu);
	n = strlen(m->cpu);
	if (spec->vector_length)
		snprintf(
			m->cpu + n, sizeof(m->cpu) - n, ",sve-max-vq=%u", spec->vector_length / 16);
	if (spec->memory_mib)
		m->memory_mib = spec->memory_mib;
	if (spec->cores)
		m->cores = spec->cores;
	snprintf(m->qemu, sizeof(m->qemu), "%s", spec->qemu);
	snprintf(m->board, sizeof(m->board), "%s", spec->board);
	m->accel = tf_vm_probe_kvm(m, cache) ? TF_VM_KVM : TF_VM_TCG;
	return tf_vm_machine_check(m, err);
}

static int start_link(struct tf_site *site, struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s/link", site->folder);

	if (site->link)
		return 0;
	return path ? tf_link_start(path, &site->link, err) : tf_vm_fail(err, -ENOMEM, "no memory");
}

/* Its kernel has the pages that its row promises. */
static int check_pages(struct tf_vm *vm, const struct tf_spec *spec, struct tf_vm_error *err)
{
	tf_vm_autofree char *auxv = NULL;
	uint64_t want = (spec->page_kib ? spec->page_kib : 4) * 1024, word[2] = {0};
	size_t len = 0;
	int rc = tf_vm_get_data(vm, "/proc/self/auxv", AUXV_MAX, &auxv, &len, err);

	for (size_t i = 0; rc == 0 && i + sizeof(word) <= len && word[0] != AT_PAGESZ;
		i += sizeof(word))
		memcpy(word, auxv + i, sizeof(word));
	if (rc == 0 && (word[0] != AT_PAGESZ || word[1] != want))
		rc = tf_vm_fail(err, -EINVAL,
			"its pages have %" PRIu64 " bytes, not the %" PRIu64 " of its page_size",
			word[1], want);
	return rc;
}

/* The guest takes it from here on. */
static int set_up(struct tf_site *site, struct guest *g, struct tf_vm_error *err)
{
	const struct tf_spec *spec = &g->base.spec;
	tf_vm_autofree char *emulator =
		tf_vm_format("%s/build/guest/%s/qemu-%s", site->root, tf_spec_on(spec), spec->arch);
	int rc = check_pages(g->vm, spec, err);

	if (rc == 0 && !emulator)
		rc = tf_vm_fail(err, -ENOMEM, "no memory");
	if (rc == 0 && tf_spec_emulates(spec))
		rc = tf_vm_put(g->vm, emulator, TF_EMULATOR, 0755, err);
	return rc;
}

static int start(struct tf_site *site, struct guest *g, struct tf_vm_error *err)
{
	char kernel[4096], initramfs[4096];
	struct tf_vm_guest guest = {.kernel = kernel, .initramfs = initramfs};
	struct tf_vm_config c = {
		.id = tf_vm_identity((site->count - 1) % MAX_GUEST + 1),
		.rundir = g->base.folder,
	};
	struct tf_vm_machine m;
	int rc;

	c.id.seed = site->seed ? site->seed + site->count : 0;
	rc = tf_spec_describe(&g->base.spec, site->cache, &m, err);

	if (rc == 0)
		rc = tf_spec_guest(site->root, &g->base.spec, kernel, initramfs, err);
	if (rc == 0)
		rc = start_link(site, err);
	if (rc == 0)
		rc = tf_vm_template_get(&m, &guest, site->cache, 0, &g->tmpl, err);
	if (rc < 0)
		return rc;
	c.link_path = tf_link_path(site->link);
	snprintf(c.machine.name, sizeof(c.machine.name), "%.31s", c.id.host);
	rc = tf_vm_clone(g->tmpl, &c, &g->vm, err);
	return rc < 0 ? rc : set_up(site, g, err);
}

int tf_remote_new_guest(struct tf_site *site, struct tf_remote *common, struct tf_remote **ret,
	struct tf_vm_error *err)
{
	struct guest *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	g->base = *common;
	g->base.ops = &guest_ops;
	g->base.dir = FOLDER;
	rc = start(site, g, err);
	if (rc < 0) {
		guest_end(&g->base);
		return rc;
	}
	g->base.ready_ms = tf_vm_ready_ms(g->vm);
	g->base.ready_cpu_ms = tf_vm_ready_cpu_ms(g->vm);
	*ret = &g->base;
	return 0;
}
