/* SPDX-License-Identifier: MIT */
/* See machines.h: the table, files of further rows, and what can be had here. */
#include "harness/machines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qemu/io.h"

#define MACHINES "machines.conf"

static const struct tf_row builtin[] = {
	{"x86_64", "Debian's kernel 6.1 under QEMU", {.arch = "x86_64", .tier = TF_TIER_SYSTEM}, 1,
		1, 0},
	{"x86_64-6.12", "kernel 6.12", {.arch = "x86_64", .tier = TF_TIER_SYSTEM, .kernel = "6.12"},
		1, 1, 0},
	{"x86_64-newest", "the newest kernel that Debian has",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .kernel = "newest"}, 1, 1, 0},
	{"x86_64-nehalem", "a processor without AVX",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .cpu = "Nehalem"}, 1, 1, 0},
	{"x86_64-haswell", "a processor with AVX2 and without protection keys",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .cpu = "Haswell"}, 1, 1, 0},
	{"x86_64-nompx", "all that QEMU has, without MPX, as processors are today",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .cpu = "max,-mpx"}, 1, 1, 0},
	{"x86_64-48bit", "four levels of page tables",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .cpu = "max,-la57"}, 1, 1, 0},
	{"x86_64-qemu10", "QEMU of bookworm-backports",
		{.arch = "x86_64",
			.tier = TF_TIER_SYSTEM,
			.qemu = "qemu-system-x86_64" TF_QEMU_NEWER},
		1, 1, 0},
	{"x86_64-kvm", "the host's own processor, by KVM",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .cpu = "host"}, 1, 1, 0},
	{"x86_64-large", "memory for much at once",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .memory_mib = 1024}, 1, 1, 0},
	{"x86_64-on-aarch64", "an aarch64 machine whose programs run under qemu-x86_64",
		{.arch = "x86_64", .tier = TF_TIER_SYSTEM, .on = "aarch64", .memory_mib = 1536}, 1,
		1, 0},
	{"x86_64-user", "QEMU user mode on the host", {.arch = "x86_64", .tier = TF_TIER_USER}, 1,
		1, 0},
	{"x86_64-user-nehalem", "the same, a processor without AVX",
		{.arch = "x86_64", .tier = TF_TIER_USER, .cpu = "Nehalem"}, 1, 1, 0},
	{"x86_64-native", "the host itself", {.arch = "x86_64", .tier = TF_TIER_NATIVE}, 1, 1, 0},
	{"aarch64", "Debian's kernel 6.1 under QEMU", {.arch = "aarch64", .tier = TF_TIER_SYSTEM},
		1, 1, 0},
	{"aarch64-6.12", "kernel 6.12",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .kernel = "6.12"}, 1, 1, 0},
	{"aarch64-newest", "the newest kernel that Debian has",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .kernel = "newest"}, 1, 1, 0},
	{"aarch64-newest-nosme", "the newest kernel, which knows SME, on a processor without it",
		{.arch = "aarch64",
			.tier = TF_TIER_SYSTEM,
			.cpu = "max,pauth-impdef=on,sme=off",
			.kernel = "newest"},
		1, 1, 0},
	{"aarch64-16k", "pages of 16 KiB",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .kernel = "16k", .page_kib = 16}, 1, 1,
		0},
	{"aarch64-sve256", "SVE vectors of 32 bytes at most",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .vector_length = 32}, 1, 1, 0},
	{"aarch64-nosve", "no SVE, no SME",
		{.arch = "aarch64",
			.tier = TF_TIER_SYSTEM,
			.cpu = "max,pauth-impdef=on,sve=off,sme=off"},
		1, 1, 0},
	{"aarch64-a57", "a processor of 2012: no SVE, no pointer authentication",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .cpu = "cortex-a57"}, 1, 1, 0},
	{"aarch64-qemu10", "QEMU of bookworm-backports, memory tags",
		{.arch = "aarch64",
			.tier = TF_TIER_SYSTEM,
			.qemu = "qemu-system-aarch64" TF_QEMU_NEWER,
			.board = "mte=on"},
		1, 1, 0},
	{"aarch64-kvm", "the host's own processor, by KVM",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .cpu = "host"}, 1, 1, 0},
	{"aarch64-large", "memory for much at once",
		{.arch = "aarch64", .tier = TF_TIER_SYSTEM, .memory_mib = 1024}, 1, 1, 0},
	{"aarch64-user", "QEMU user mode on the host", {.arch = "aarch64", .tier = TF_TIER_USER}, 1,
		1, 0},
	{"aarch64-native", "the host itself", {.arch = "aarch64", .tier = TF_TIER_NATIVE}, 1, 1, 0},
};

static const char *const arches[] = {"x86_64", "aarch64"};

/* Which kernels the Makefile has, and the target that makes them. */
static const struct {
	const char *name, *make;
} kernels[] = {
	{"", "make guests"},
	{"6.12", "make more-guests"},
	{"newest", "make more-guests"},
	{"16k", "make more-guests"},
};

/* --- files --- */

#define PLACE(field) offsetof(struct tf_row, field), sizeof(((struct tf_row *)0)->field)

const struct tf_key tf_machine_keys[] = {
	{"name", TF_KEY_TEXT, PLACE(name), 0, 0, 0, 0, 0, "by which it is known", "must be given"},
	{"machine", TF_KEY_OTHER, 0, 0, 0, 0, 0, 0, 0,
		"a row whose attributes it has where it says nothing else (`telebed machines`)",
		"none"},
	{"help", TF_KEY_TEXT, PLACE(help), 0, 0, 0, 0, 0, "one line for `telebed machines`", ""},
	{"arch", TF_KEY_TEXT, PLACE(spec.arch), arches, 2, 0, 0, 0, "of its programs",
		"the scenario's"},
	{"tier", TF_KEY_WORD, PLACE(spec.tier), tf_tier_names, TF_TIERS, 0, 0, 0, "",
		"the scenario's"},
	{"on", TF_KEY_TEXT, PLACE(spec.on), arches, 2, 0, 0, 0,
		"system: the machine's own architecture, where its programs run under QEMU user "
		"mode",
		"that of its programs"},
	{"kernel", TF_KEY_TEXT, PLACE(spec.kernel), 0, 0, 0, 0, 0,
		"system: `6.1`, `6.12`, `newest`, `16k` (all but the first: `make more-guests`), or "
		"a file, beside its `initramfs`",
		"`6.1`"},
	{"initramfs", TF_KEY_TEXT, PLACE(spec.initramfs), 0, 0, 0, 0, 0,
		"system: a file that `make own-guest` has made", "that of the kernel"},
	{"cpu", TF_KEY_TEXT, PLACE(spec.cpu), 0, 0, 0, 0, 0,
		"QEMU's model and features: `max,-la57`; `host` needs KVM", "`max`"},
	{"qemu", TF_KEY_TEXT, PLACE(spec.qemu), 0, 0, 0, 0, 0,
		"QEMU's program, by name or by file; templates are of one QEMU alone",
		"`qemu-system-ARCH`, `qemu-ARCH`"},
	{"board", TF_KEY_TEXT, PLACE(spec.board), 0, 0, 0, 0, 0,
		"system: properties of QEMU's `-M`: `mte=on` has memory tags on aarch64, which QEMU "
		"before 8.0 gets wrong",
		"none"},
	{"memory", TF_KEY_NUMBER, PLACE(spec.memory_mib), 0, 0, 16, 65536, 0, "MiB, system", "256"},
	{"cores", TF_KEY_NUMBER, PLACE(spec.cores), 0, 0, 1, 64, 0, "system", "1"},
	{"page_size", TF_KEY_NUMBER, PLACE(spec.page_kib), 0, 0, 4, 64, 0,
		"KiB: what the kernel has, which a machine is asked for when it starts", "4"},
	{"vector_length", TF_KEY_NUMBER, PLACE(spec.vector_length), 0, 0, 16, 256, 0,
		"bytes of the longest SVE vector, a power of two", "what the processor has"},
};
const size_t tf_n_machine_keys = sizeof(tf_machine_keys) / sizeof(*tf_machine_keys);

/* A name with a slash is a file's, taken from the folder of @conf. */
static int from_folder(const struct tf_conf *r, const config_setting_t *s, const char *key,
	char *path, size_t size)
{
	const char *slash = strrchr(r->path, '/');
	tf_vm_autofree char *full = NULL;

	if (!config_setting_get_member(s, key) || !strchr(path, '/') || path[0] == '/')
		return 0;
	full = tf_vm_format("%.*s%s", slash ? (int)(slash + 1 - r->path) : 0, r->path, path);
	if (!full || strlen(full) >= size)
		return tf_conf_wrong(r, s, "%s: expected at most %zu characters", key, size - 1);
	strncpy(path, full, size); /* what is behind is zero, too: it is compared as bytes */
	return 0;
}

static int check_kernel(const struct tf_conf *r, const config_setting_t *s, struct tf_spec *spec)
{
	const config_setting_t *at = config_setting_get_member(s, "kernel");
	char known[128] = "6.1";

	if (!at || strchr(spec->kernel, '/'))
		return 0;
	if (!strcmp(spec->kernel, "6.1"))
		memset(spec->kernel, 0, sizeof(spec->kernel));
	for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++) {
		size_t len = strlen(known);

		if (!strcmp(kernels[i].name, spec->kernel))
			return 0;
		if (i)
			snprintf(known + len, sizeof(known) - len, ", %s", kernels[i].name);
	}
	return tf_conf_wrong(
		r, at, "kernel: '%s' is none of %s, and no file with a '/'", spec->kernel, known);
}

static int check(const struct tf_conf *r, const config_setting_t *s, struct tf_row *row)
{
	struct tf_spec *spec = &row->spec;
	unsigned vector = spec->vector_length, page = spec->page_kib;
	int rc = check_kernel(r, s, spec);

	if (rc == 0)
		rc = from_folder(r, s, "kernel", spec->kernel, sizeof(spec->kernel));
	if (rc == 0)
		rc = from_folder(r, s, "initramfs", spec->initramfs, sizeof(spec->initramfs));
	if (rc == 0)
		rc = from_folder(r, s, "qemu", spec->qemu, sizeof(spec->qemu));
	if (rc < 0)
		return rc;
	if (vector & (vector - 1))
		return tf_conf_wrong(r, config_setting_get_member(s, "vector_length"),
			"vector_length: expected 16, 32, 64, 128 or 256 (bytes)");
	if (page & (page - 1))
		return tf_conf_wrong(r, config_setting_get_member(s, "page_size"),
			"page_size: expected 4, 16 or 64 (KiB)");
	if (!page && !strcmp(spec->kernel, "16k"))
		spec->page_kib = 16;
	if (page == 4) /* as where nothing is said */
		spec->page_kib = 0;
	if (spec->kernel[0] == '/' && !spec->initramfs[0])
		return tf_conf_wrong(r, config_setting_get_member(s, "kernel"),
			"kernel: a file of one's own needs initramfs = \"FILE\" (make own-guest)");
	return 0;
}

int tf_row_read(const struct tf_conf *r, const struct tf_rows *rows, const config_setting_t *s,
	struct tf_row *row)
{
	const config_setting_t *base = config_setting_get_member(s, "machine");
	const char *name = base ? config_setting_get_string(base) : NULL;
	const struct tf_row *from = name ? tf_rows_find(rows, name) : NULL;
	int rc;

	if (base && !name)
		return tf_conf_wrong(r, base, "machine: expected a string");
	if (base && !from)
		return tf_conf_wrong(r, base, "machine: '%s' is no row of telebed machines", name);
	*row = from ? *from : (struct tf_row){0};
	row->name[0] = row->help[0] = '\0';
	row->file = NULL;
	rc = tf_conf_read(r, s, "machine", tf_machine_keys, tf_n_machine_keys, row);
	if (rc == 0)
		rc = check(r, s, row);
	if (rc == 0 && !row->name[0])
		rc = tf_conf_wrong(r, s, "machine: expected name = \"...\"");
	row->has_arch = from || config_setting_get_member(s, "arch");
	row->has_tier = from || config_setting_get_member(s, "tier");
	return rc;
}

static int add(struct tf_rows *rows, const struct tf_row *row, struct tf_vm_error *err)
{
	struct tf_row *known = (struct tf_row *)tf_rows_find(rows, row->name);

	if (!known && rows->n == rows->cap) {
		size_t cap = rows->cap ? rows->cap * 2 : 64;
		struct tf_row *v = realloc(rows->v, cap * sizeof(*v));

		if (!v)
			return tf_vm_fail(err, -ENOMEM, "no memory");
		rows->v = v;
		rows->cap = cap;
	}
	*(known ? known : &rows->v[rows->n++]) = *row;
	return 0;
}

static int read_rows(const struct tf_conf *r, const config_setting_t *root, struct tf_rows *rows)
{
	const config_setting_t *list = config_setting_get_member(root, "machines");
	int rc = 0;

	if (!list || !config_setting_is_list(list) || config_setting_length(root) != 1)
		return tf_conf_wrong(
			r, root, "expected machines = ( { name = \"...\"; }, ... ); alone");
	for (int i = 0; i < config_setting_length(list) && rc == 0; i++) {
		const config_setting_t *group = config_setting_get_elem(list, (unsigned)i);
		struct tf_row row = {0};

		if (!config_setting_is_group(group))
			return tf_conf_wrong(r, group, "machines: element %d is no group", i + 1);
		rc = tf_row_read(r, rows, group, &row);
		if (rc == 0 && (!row.has_arch || !row.has_tier))
			rc = tf_conf_wrong(r, group,
				"machine %s: expected arch and tier, or machine = \"ROW\"",
				row.name);
		row.file = r->path;
		if (rc == 0)
			rc = add(rows, &row, r->err);
	}
	return rc;
}

static int read_file(struct tf_rows *rows, const char *file, struct tf_vm_error *err)
{
	char *path = realpath(file, NULL) ?: strdup(file);
	struct tf_conf r = {path, err};
	config_t config;
	int rc;

	if (!path)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	rows->files[rows->n_files++] = path;
	rc = tf_conf_open(&config, path, "no such file of machines", err);
	if (rc == 0)
		rc = read_rows(&r, config_root_setting(&config), rows);
	config_destroy(&config);
	return rc;
}

int tf_rows_read(struct tf_rows *rows, const char *file, struct tf_vm_error *err)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	tf_vm_autofree char *own = tf_vm_format("%s%s/telebed/" MACHINES,
		config && config[0] ? config
		: home              ? home
				    : "",
		config && config[0] ? "" : "/.config");
	int rc = own ? 0 : tf_vm_fail(err, -ENOMEM, "no memory");

	*rows = (struct tf_rows){0};
	for (size_t i = 0; i < sizeof(builtin) / sizeof(*builtin) && rc == 0; i++)
		rc = add(rows, &builtin[i], err);
	if (rc == 0 && access(own, F_OK) == 0)
		rc = read_file(rows, own, err);
	if (rc == 0 && access(MACHINES, F_OK) == 0)
		rc = read_file(rows, MACHINES, err);
	if (rc == 0 && file)
		rc = read_file(rows, file, err);
	return rc;
}

void tf_rows_done(struct tf_rows *rows)
{
	for (unsigned i = 0; i < rows->n_files; i++)
		free(rows->files[i]);
	free(rows->v);
	*rows = (struct tf_rows){0};
}

const struct tf_row *tf_rows_find(const struct tf_rows *rows, const char *name)
{
	for (size_t i = 0; i < rows->n; i++)
		if (!strcmp(rows->v[i].name, name))
			return &rows->v[i];
	return NULL;
}

int tf_rows_get(const struct tf_rows *rows, const char *name, const struct tf_row **ret,
	struct tf_vm_error *err)
{
	*ret = tf_rows_find(rows, name);
	return *ret ? 0
		    : tf_vm_fail(err, -EINVAL,
			      "machine '%s': no such row (telebed machines shows them, "
			      "--machines FILE adds some)",
			      name);
}

/* --- what can be had here --- */

const char *tf_spec_on(const struct tf_spec *spec)
{
	return spec->on[0] ? spec->on : spec->arch;
}

bool tf_spec_emulates(const struct tf_spec *spec)
{
	return spec->tier == TF_TIER_USER || (spec->on[0] && strcmp(spec->on, spec->arch) != 0);
}

int tf_spec_guest(const char *root, const struct tf_spec *spec, char kernel[static 4096],
	char initramfs[static 4096], struct tf_vm_error *err)
{
	const char *name = spec->kernel[0] == '/' ? "" : spec->kernel;
	int n, m;

	n = snprintf(initramfs, 4096, "%s/build/guest/%s%s%s/initramfs", root, tf_spec_on(spec),
		name[0] ? "-" : "", name);
	m = snprintf(kernel, 4096, "%.*skernel", n - (int)strlen("initramfs"), initramfs);
	if (n >= 4096 || m >= 4096)
		return tf_vm_fail(err, -ENAMETOOLONG, "%s: too long a name", root);
	if (spec->kernel[0] == '/')
		snprintf(kernel, 4096, "%s", spec->kernel);
	if (spec->initramfs[0])
		snprintf(initramfs, 4096, "%s", spec->initramfs);
	return 0;
}

/* Whether the program @name is there, by file or in PATH. */
static bool has_program(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return access(name, X_OK) == 0;
	for (size_t n; path && *path; path += n + (path[n] == ':')) {
		tf_vm_autofree char *full = NULL;

		n = strcspn(path, ":");
		full = tf_vm_format("%.*s/%s", (int)n, path, name);
		if (full && access(full, X_OK) == 0)
			return true;
	}
	return false;
}

static bool system_possible(
	const struct tf_home *home, const struct tf_spec *spec, char why[static 256])
{
	const char *qemu = spec->qemu[0] ? spec->qemu : tf_vm_qemu_program(tf_spec_on(spec));
	tf_vm_autofree char *emulator =
		tf_vm_format("%s/build/guest/%s/qemu-%s", home->root, tf_spec_on(spec), spec->arch);
	char kernel[4096], initramfs[4096], cache[4096];
	struct tf_vm_error err;
	struct tf_vm_machine m;
	const char *make = "make more-guests";

	if (!has_program(qemu)) {
		snprintf(why, 256, "no %.128s (%s)", qemu,
			strstr(qemu, TF_QEMU_NEWER) ? "make more-guests"
						    : "packages qemu-system-x86, qemu-system-arm");
		return false;
	}
	for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++)
		if (!strcmp(kernels[i].name, spec->kernel))
			make = kernels[i].make;
	if (tf_spec_guest(home->root, spec, kernel, initramfs, &err) < 0 ||
		access(kernel, R_OK) < 0 || access(initramfs, R_OK) < 0) {
		snprintf(why, 256, "no kernel or initramfs: %s",
			spec->initramfs[0] ? "make own-guest" : make);
		return false;
	}
	if (tf_spec_emulates(spec) && (!emulator || access(emulator, X_OK) < 0)) {
		snprintf(why, 256, "no qemu-%s for its programs: make more-guests", spec->arch);
		return false;
	}
	if (!strncmp(spec->cpu, "host", 4) &&
		(tf_vm_machine_init(&m, tf_spec_on(spec), &err) < 0 ||
			tf_vm_cachedir(cache, sizeof(cache), &err) < 0 ||
			!tf_vm_probe_kvm(&m, cache))) {
		snprintf(why, 256, "no KVM here for %s", tf_spec_on(spec));
		return false;
	}
	return true;
}

bool tf_spec_possible(const struct tf_home *home, const struct tf_spec *spec, char why[static 256])
{
	tf_vm_autofree char *user = tf_vm_format(
		"%s%s", spec->qemu[0] ? "" : "qemu-", spec->qemu[0] ? spec->qemu : spec->arch);

	if (spec->tier == TF_TIER_SYSTEM || spec->tier == TF_TIER_ICOUNT)
		return system_possible(home, spec, why);
	if (spec->tier == TF_TIER_USER && user && !has_program(user)) {
		snprintf(why, 256, "no %.128s (package qemu-user)", user);
		return false;
	}
	if (spec->tier == TF_TIER_NATIVE && strcmp(spec->arch, tf_vm_host_arch()) != 0) {
		snprintf(why, 256, "this host is %s", tf_vm_host_arch());
		return false;
	}
	return true;
}

void tf_spec_merge(struct tf_spec *spec, const struct tf_spec *own)
{
	for (size_t i = 0; i < tf_n_machine_keys; i++) {
		const struct tf_key *key = &tf_machine_keys[i];
		bool ours = key->offset >= offsetof(struct tf_row, spec) &&
			    (key->type == TF_KEY_TEXT || key->type == TF_KEY_NUMBER);
		size_t at = ours ? key->offset - offsetof(struct tf_row, spec) : 0;

		/* Its first byte tells of a text, any of a number; a tier comes with the row. */
		for (size_t k = 0; ours && k < (key->type == TF_KEY_TEXT ? 1 : key->size); k++)
			if (((const char *)own)[at + k]) {
				memcpy((char *)spec + at, (const char *)own + at, key->size);
				break;
			}
	}
}

const char *tf_spec_text(const struct tf_spec *spec, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s %s", spec->arch, tf_tier_names[spec->tier]);
	const struct {
		const char *text, *what;
	} texts[] = {{spec->on, "on"}, {spec->kernel, "kernel"}, {spec->initramfs, "initramfs"},
		{spec->cpu, "cpu"}, {spec->qemu, "qemu"}, {spec->board, "board"}};
	const struct {
		unsigned n;
		const char *what;
	} numbers[] = {{spec->memory_mib, "MiB"}, {spec->cores, "cores"},
		{spec->page_kib, "KiB a page"}, {spec->vector_length, "bytes a vector"}};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts) && n < size; i++)
		if (texts[i].text[0])
			n += (size_t)snprintf(
				buf + n, size - n, ", %s %s", texts[i].what, texts[i].text);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers) && n < size; i++)
		if (numbers[i].n)
			n += (size_t)snprintf(
				buf + n, size - n, ", %u %s", numbers[i].n, numbers[i].what);
	return buf;
}
