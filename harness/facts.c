/* SPDX-License-Identifier: MIT */
/* See facts.h. */
#include "harness/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "harness/text.h"
#include "qemu/io.h"
#include "qemu/remote.h"

#define ANSWER_MS 30000
#define TEXT_MAX  512

/* The first line of @text, which may be NULL. */
static json_t *line_of(char *text)
{
	if (text)
		text[strcspn(text, "\n")] = '\0';
	return tf_text_json(text, TEXT_MAX);
}

static json_t *host_kernel(void)
{
	struct utsname u;

	return uname(&u) ? json_null() : tf_text_json(u.release, TEXT_MAX);
}

/* Of x86_64 the model's name; other kernels do not name it. */
static json_t *host_cpu(void)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	json_t *found = NULL;
	char line[TEXT_MAX];

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ':');

		if (value && !strncmp(line, "model name", 10))
			found = line_of(value + 1 + (value[1] == ' '));
	}
	if (f)
		fclose(f);
	return found ? found : json_null();
}

json_t *tf_facts_host(void)
{
	return json_pack("{s:s, s:o, s:o}", "arch", tf_vm_host_arch(), "kernel", host_kernel(),
		"cpu", host_cpu());
}

/* QEMU's user mode says its version itself. */
static json_t *emulator_version(const struct tf_spec *spec)
{
	tf_vm_autofree char *command = tf_vm_format("'%s%s' --version 2>/dev/null",
		spec->qemu[0] ? "" : "qemu-", spec->qemu[0] ? spec->qemu : spec->arch);
	FILE *f = command && !strchr(spec->qemu, '\'') ? popen(command, "re") : NULL;
	char line[TEXT_MAX], *version;
	json_t *found = NULL;

	if (f && fgets(line, sizeof(line), f) && (version = strstr(line, "version ")))
		found = line_of(version + strlen("version "));
	if (f)
		pclose(f);
	return found ? found : json_null();
}

static json_t *guest_version(struct tf_vm *vm)
{
	struct tf_vm_error ignored;
	json_t *answer = NULL, *text;
	const char *package = "";
	int major, minor, micro;

	if (tf_qmp_execute(tf_vm_qmp(vm), "query-version", NULL, ANSWER_MS, &answer, &ignored) <
			0 ||
		json_unpack(answer, "{s:{s:i, s:i, s:i}, s?s}", "qemu", "major", &major, "minor",
			&minor, "micro", &micro, "package", &package) < 0)
		text = json_null();
	else
		text = json_sprintf("%d.%d.%d%s%s%s", major, minor, micro, *package ? " (" : "",
			package, *package ? ")" : "");
	json_decref(answer);
	return text;
}

static json_t *guest_kernel(struct tf_vm *vm)
{
	struct tf_vm_error ignored;
	char *text = NULL;
	size_t len;
	json_t *found;

	if (tf_vm_get_data(vm, "/proc/sys/kernel/osrelease", TEXT_MAX, &text, &len, &ignored) < 0)
		text = NULL;
	found = line_of(text);
	free(text);
	return found;
}

static void ask_guest(struct tf_vm *vm, json_t *facts)
{
	const struct tf_vm_machine *m = tf_vm_machine(vm);

	json_object_set_new(facts, "kernel", guest_kernel(vm));
	json_object_set_new(facts, "cpu", tf_text_json(m->cpu, TEXT_MAX));
	json_object_set_new(
		facts, "accelerator", json_string(m->accel == TF_VM_KVM ? "kvm" : "tcg"));
	json_object_set_new(facts, "qemu", guest_version(vm));
	json_object_set_new(facts, "memory_mib", json_integer(m->memory_mib));
	json_object_set_new(facts, "cores", json_integer(m->cores));
	if (strcmp(m->arch, json_string_value(json_object_get(facts, "arch"))) != 0)
		json_object_set_new(facts, "on", tf_text_json(m->arch, TEXT_MAX));
}

json_t *tf_facts(struct tf_remote *m)
{
	struct tf_vm *vm = m->ops->vm(m);

	if (m->facts)
		return m->facts;
	m->facts =
		json_pack("{s:s, s:s}", "arch", m->spec.arch, "tier", tf_tier_names[m->spec.tier]);
	if (vm) {
		ask_guest(vm, m->facts);
		return m->facts;
	}
	json_object_set_new(m->facts, "kernel", host_kernel());
	json_object_set_new(m->facts, "cpu",
		m->spec.tier == TF_TIER_NATIVE
			? host_cpu()
			: tf_text_json(*m->spec.cpu ? m->spec.cpu : "default", TEXT_MAX));
	if (m->spec.tier == TF_TIER_USER)
		json_object_set_new(m->facts, "qemu", emulator_version(&m->spec));
	return m->facts;
}

json_t *tf_facts_alone(const struct tf_spec *spec)
{
	return json_pack("{s:s, s:s, s:n, s:o, s:s}", "arch", spec->arch, "tier",
		tf_tier_names[spec->tier], "kernel", "cpu",
		tf_text_json(*spec->cpu ? spec->cpu : "default", TEXT_MAX), "accelerator", "tcg");
}
