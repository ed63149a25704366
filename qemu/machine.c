/* SPDX-License-Identifier: MIT */
/*
 * Machine descriptions and QEMU's command line. Everything that depends on the guest's
 * architecture is a row of the table below.
 */
#include "qemu/machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "qemu/agent.h"
#include "qemu/io.h"

static const struct arch {
	const char *name;
	const char *qemu;
	const char *board;
	const char *cpu;
	const char *kvm_cpu; /* instead of `cpu` where KVM does not know its properties */
	const char *console; /* and what else the kernel is told */
	unsigned int min_memory_mib;
} archs[] = {
	/* A 6.12 mostly crashes at boot under QEMU 7.2, in its allocator behind a cmpxchg16b, with
	 * flags that cannot be. The kernel does without the instruction; programs keep it. */
	{"x86_64", "qemu-system-x86_64", "q35", "max", "max", "ttyS0 clearcpuid=cx16", 96},
	{"aarch64", "qemu-system-aarch64", "virt", "max,pauth-impdef=on", "max", "ttyAMA0", 64},
};

#define NARCHS (sizeof(archs) / sizeof(archs[0]))

/* Translated code of one TCG guest, in MiB; QEMU's own default is up to 1 GiB a process. */
#define TB_SIZE_MIB 64

static const struct arch *find_arch(const char *name)
{
	for (size_t i = 0; i < NARCHS; i++) {
		if (!strcmp(archs[i].name, name))
			return &archs[i];
	}
	return NULL;
}

void tf_vm_args_add(struct tf_vm_args *args, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	if (args->n + 2 > args->cap) {
		size_t cap = args->cap ? args->cap * 2 : 32;
		char **v = realloc(args->v, cap * sizeof(*v));

		if (!v) {
			args->failed = true;
			return;
		}
		args->v = v;
		args->cap = cap;
	}
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	args->failed |= !text;
	if (text)
		args->v[args->n++] = text;
	args->v[args->n] = NULL;
}

void tf_vm_args_done(struct tf_vm_args *args)
{
	for (size_t i = 0; i < args->n; i++)
		free(args->v[i]);
	free(args->v);
	*args = (struct tf_vm_args){};
}

int tf_vm_args_write(const struct tf_vm_args *args, const char *path, struct tf_vm_error *err)
{
	tf_vm_autofree char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < args->n; i++) {
		fputs(i ? " \\\n\t'" : "'", f);
		for (const char *p = args->v[i]; *p; p++)
			fputs(*p == '\'' ? "'\\''" : (char[2]){*p}, f);
		fputc('\'', f);
	}
	fputc('\n', f);
	fclose(f);
	return tf_vm_write_file(path, text, len, err);
}

const char *tf_vm_qemu_program(const char *arch)
{
	const struct arch *a = find_arch(arch);

	return a ? a->qemu : NULL;
}

const char *tf_vm_machine_qemu(const struct tf_vm_machine *m)
{
	return m->qemu[0] ? m->qemu : tf_vm_qemu_program(m->arch);
}

const char *tf_vm_host_arch(void)
{
	static struct utsname u;

	return uname(&u) == 0 ? u.machine : "unknown";
}

int tf_vm_machine_init(struct tf_vm_machine *m, const char *arch, struct tf_vm_error *err)
{
	const struct arch *a = find_arch(arch);

	if (!a)
		return tf_vm_fail(err, -EINVAL,
			"machine: unknown architecture '%s' (known: %s, %s)", arch, archs[0].name,
			archs[1].name);
	*m = (struct tf_vm_machine){.memory_mib = 256, .cores = 1, .accel = TF_VM_TCG};
	snprintf(m->name, sizeof(m->name), "%s", a->name);
	snprintf(m->arch, sizeof(m->arch), "%s", a->name);
	snprintf(m->cpu, sizeof(m->cpu), "%s", a->cpu);
	return 0;
}

static bool only(const char *s, const char *extra)
{
	for (; *s; s++) {
		bool alnum = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
			     (*s >= '0' && *s <= '9');

		if (!alnum && !strchr(extra, *s))
			return false;
	}
	return true;
}

int tf_vm_machine_check(const struct tf_vm_machine *m, struct tf_vm_error *err)
{
	const struct arch *a = find_arch(m->arch);

	if (!a)
		return tf_vm_fail(
			err, -EINVAL, "machine %s: unknown architecture '%s'", m->name, m->arch);
	if (!m->name[0] || m->name[0] == '.' || !only(m->name, "._-"))
		return tf_vm_fail(
			err, -EINVAL, "machine name '%s': use letters, digits, . _ -", m->name);
	if (!m->cpu[0] || !only(m->cpu, "._-,=+"))
		return tf_vm_fail(
			err, -EINVAL, "machine %s: malformed CPU model '%s'", m->name, m->cpu);
	if (!only(m->board, "._-,="))
		return tf_vm_fail(err, -EINVAL, "machine %s: malformed board properties '%s'",
			m->name, m->board);
	if (m->memory_mib < a->min_memory_mib || m->memory_mib > 65536)
		return tf_vm_fail(err, -EINVAL, "machine %s: %u MiB of memory, need %u to 65536",
			m->name, m->memory_mib, a->min_memory_mib);
	if (m->cores < 1 || m->cores > 64)
		return tf_vm_fail(
			err, -EINVAL, "machine %s: %u cores, need 1 to 64", m->name, m->cores);
	return 0;
}

/* In QEMU's option syntax a comma inside a value is written twice. */
char *tf_vm_escape(const char *value)
{
	char *out = malloc(2 * strlen(value) + 1), *to = out;

	for (; out && *value; value++) {
		if (*value == ',')
			*to++ = ',';
		*to++ = *value;
	}
	if (out)
		*to = '\0';
	return out;
}

static void add_ram(
	struct tf_vm_args *args, const struct tf_vm_machine *m, const char *ram, bool share)
{
	tf_vm_autofree char *path = ram ? tf_vm_escape(ram) : NULL;

	tf_vm_args_add(args, "-object");
	if (path)
		tf_vm_args_add(args, "memory-backend-file,id=ram0,size=%uM,mem-path=%s,share=%s",
			m->memory_mib, path, share ? "on" : "off");
	else
		tf_vm_args_add(args, "memory-backend-ram,id=ram0,size=%uM", m->memory_mib);
	args->failed |= ram && !path;
}

void tf_vm_args_machine(
	struct tf_vm_args *args, const struct tf_vm_machine *m, const char *ram, bool share)
{
	const struct arch *a = find_arch(m->arch);
	bool kvm = m->accel == TF_VM_KVM;

	add_ram(args, m, ram, share);
	tf_vm_args_add(args, "-M");
	tf_vm_args_add(
		args, "%s,memory-backend=ram0%s%s", a->board, m->board[0] ? "," : "", m->board);
	tf_vm_args_add(args, "-accel");
	if (kvm)
		tf_vm_args_add(args, "kvm");
	else
		tf_vm_args_add(args, "tcg,tb-size=%d", TB_SIZE_MIB);
	tf_vm_args_add(args, "-cpu");
	tf_vm_args_add(args, "%s", kvm && !strcmp(m->cpu, a->cpu) ? a->kvm_cpu : m->cpu);
	tf_vm_args_add(args, "-smp");
	tf_vm_args_add(args, "%u", m->cores);
	tf_vm_args_add(args, "-m");
	tf_vm_args_add(args, "%uM", m->memory_mib);
}

void tf_vm_args_kernel(
	struct tf_vm_args *args, const struct tf_vm_machine *m, const struct tf_vm_guest *guest)
{
	tf_vm_args_add(args, "-kernel");
	tf_vm_args_add(args, "%s", guest->kernel);
	tf_vm_args_add(args, "-initrd");
	tf_vm_args_add(args, "%s", guest->initramfs);
	tf_vm_args_add(args, "-append");
	tf_vm_args_add(args, "console=%s panic=-1 loglevel=4%s%s", find_arch(m->arch)->console,
		guest->append ? " " : "", guest->append ? guest->append : "");
}

void tf_vm_args_common(struct tf_vm_args *args, const char *console, int qmp_fd, int ctl_fd)
{
	tf_vm_autofree char *path = tf_vm_escape(console);

	args->failed |= !path;
	tf_vm_args_add(args, "-no-user-config");
	tf_vm_args_add(args, "-nodefaults");
	tf_vm_args_add(args, "-no-reboot");
	tf_vm_args_add(args, "-display");
	tf_vm_args_add(args, "none");
	tf_vm_args_add(args, "-chardev");
	tf_vm_args_add(args, "file,id=console,path=%s", path ? path : "");
	tf_vm_args_add(args, "-serial");
	tf_vm_args_add(args, "chardev:console");
	tf_vm_args_add(args, "-chardev");
	tf_vm_args_add(args, "socket,id=qmp,fd=%d", qmp_fd);
	tf_vm_args_add(args, "-mon");
	tf_vm_args_add(args, "chardev=qmp,mode=control");
	tf_vm_args_add(args, "-device");
	tf_vm_args_add(args, "virtio-serial-pci");
	tf_vm_args_add(args, "-chardev");
	tf_vm_args_add(args, "socket,id=ctl,fd=%d", ctl_fd);
	tf_vm_args_add(args, "-device");
	tf_vm_args_add(args, "virtserialport,chardev=ctl,name=%s", TF_AGENT_PORT);
}

void tf_vm_args_net(struct tf_vm_args *args, const char *link_path, const uint8_t mac[static 6])
{
	tf_vm_autofree char *path = link_path ? tf_vm_escape(link_path) : NULL;

	args->failed |= link_path && !path;
	tf_vm_args_add(args, "-netdev");
	if (path)
		tf_vm_args_add(args, "stream,id=n0,server=off,addr.type=unix,addr.path=%s", path);
	else
		tf_vm_args_add(args, "hubport,id=n0,hubid=0");
	tf_vm_args_add(args, "-device");
	tf_vm_args_add(args, "virtio-net-pci,netdev=n0,romfile=,mac=%02x:%02x:%02x:%02x:%02x:%02x",
		mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

void tf_vm_args_incoming(struct tf_vm_args *args)
{
	tf_vm_args_add(args, "-incoming");
	tf_vm_args_add(args, "defer");
	tf_vm_args_add(args, "-S");
}

int tf_vm_cachedir(char *buf, size_t size, struct tf_vm_error *err)
{
	const char *own = getenv("TELEFORK_CACHE");
	const char *xdg = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");
	int n, rc;

	if (own && own[0])
		n = snprintf(buf, size, "%s", own);
	else if (xdg && xdg[0] == '/')
		n = snprintf(buf, size, "%s/telefork", xdg);
	else if (home && home[0])
		n = snprintf(buf, size, "%s/.cache/telefork", home);
	else
		return tf_vm_fail(err, -ENOENT, "no cache folder: set TELEFORK_CACHE or HOME");
	if (n < 0 || (size_t)n >= size)
		return tf_vm_fail(err, -ENAMETOOLONG, "the cache folder's name is too long");
	rc = tf_vm_make_dirs(buf);
	return rc < 0 ? tf_vm_fail_errno(err, rc, "cache folder %s", buf) : 0;
}
