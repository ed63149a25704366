/* SPDX-License-Identifier: MIT */
/*
 * Templates in the cache folder: templates/<key>/{ram,state,boot_ms}. A folder gets its final
 * name when all is in it; a lock file beside it keeps two programs from making the same one.
 * The template is built with a hub as its network, since SLIRP would put a section of its own
 * into the state that no other backend can resume.
 */
#include "qemu/template.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "qemu/vm_impl.h"

#define FORMAT         "telefork template 2"
#define NORMAL_BOOT_MS 3000
#define MAX_SCALE      20
#define SAVE_MS        60000

struct tf_vm_template {
	struct tf_vm_machine machine;
	char *kernel, *initramfs, *append;
	char *dir, *ram, *state;
	bool made;
	int boot_ms;
};

/* 128 bits, not against an adversary: two multiplicative hashes over 8-byte words. */
struct hash {
	uint64_t a, b;
};

static void hash_word(struct hash *h, uint64_t w)
{
	h->a = (h->a ^ w) * 0x9e3779b97f4a7c15u;
	h->a ^= h->a >> 29;
	h->b = ((h->b << 23 | h->b >> 41) + w) * 0xc2b2ae3d27d4eb4fu;
	h->b ^= h->b >> 32;
}

static void hash_bytes(struct hash *h, const void *data, size_t len)
{
	const uint8_t *p = data;

	hash_word(h, len);
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t w;

		memcpy(&w, p, 8);
		hash_word(h, w);
	}
	for (; len; len--)
		hash_word(h, *p++);
}

/*
 * What has been hashed before, in this process: a file as it was then, or a program's version. A
 * clone takes a tenth of a second, and half of that would go into the same files again.
 */
static struct known {
	struct known *next;
	char *name;
	struct stat st; /* of a file; a program's is all zero */
	struct hash h;
} * all_known;
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_known(const char *name, const struct stat *st, struct hash *ret)
{
	bool found = false;

	pthread_mutex_lock(&known_lock);
	for (const struct known *k = all_known; k && !found; k = k->next) {
		found = !strcmp(k->name, name) && k->st.st_dev == st->st_dev &&
			k->st.st_ino == st->st_ino && k->st.st_size == st->st_size &&
			k->st.st_mtim.tv_sec == st->st_mtim.tv_sec &&
			k->st.st_mtim.tv_nsec == st->st_mtim.tv_nsec;
		if (found)
			*ret = k->h;
	}
	pthread_mutex_unlock(&known_lock);
	return found;
}

static void make_known(const char *name, const struct stat *st, const struct hash *h)
{
	struct known *k = malloc(sizeof(*k));
	char *copy = strdup(name);

	if (!k || !copy) {
		free(k);
		free(copy);
		return;
	}
	*k = (struct known){.name = copy, .st = *st, .h = *h};
	pthread_mutex_lock(&known_lock);
	k->next = all_known;
	all_known = k;
	pthread_mutex_unlock(&known_lock);
}

static void hash_hash(struct hash *h, const struct hash *part)
{
	hash_word(h, part->a);
	hash_word(h, part->b);
}

static int hash_file(struct hash *h, const char *path, struct tf_vm_error *err)
{
	struct hash own = {1, 2};

	tf_vm_autoclose int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	struct stat st;
	void *map;

	if (fd < 0 || fstat(fd, &st) < 0)
		return tf_vm_fail_errno(err, path ? -errno : -EINVAL,
			"%s (qemu/guest/mkguest.sh makes it)",
			path ? path : "no kernel or initramfs given");
	if (is_known(path, &st, &own)) {
		hash_hash(h, &own);
		return 0;
	}
	map = st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)
			 : MAP_FAILED;
	if (map == MAP_FAILED)
		return tf_vm_fail(err, -EIO, "%s: empty or not to be mapped", path);
	hash_bytes(&own, map, (size_t)st.st_size);
	munmap(map, (size_t)st.st_size);
	make_known(path, &st, &own);
	hash_hash(h, &own);
	return 0;
}

/* QEMU's own word for its version, and its absence reported early. */
static int hash_version(
	struct hash *h, const char *qemu, const char *cachedir, struct tf_vm_error *err)
{
	tf_vm_autofree char *path =
		tf_vm_format("%s/version.%d.%ld", cachedir, (int)getpid(), (long)random());
	tf_vm_autofree char *text = NULL;
	const char *argv[] = {qemu, "--version", NULL};
	struct tf_vm_child *child;
	const struct stat none = {0};
	struct hash own = {1, 2};
	char how[256];
	int status = -1, rc;

	if (is_known(qemu, &none, &own)) {
		hash_hash(h, &own);
		return 0;
	}
	if (!path)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	rc = tf_vm_child_start(argv, NULL, 0, path, &child, err);
	if (rc < 0)
		return rc;
	if (!tf_vm_child_ended(child, 20000, &status) || status) {
		tf_vm_child_explain(child, how, sizeof(how));
		rc = tf_vm_fail(
			err, -ENOENT, "%s (packages qemu-system-x86, qemu-system-arm)", how);
	}
	tf_vm_child_free(child);
	text = tf_vm_file_tail(path, 4096);
	unlink(path);
	if (text)
		hash_bytes(&own, text, strlen(text));
	if (text && rc == 0)
		make_known(qemu, &none, &own);
	hash_hash(h, &own);
	return rc;
}

static void config_of(const struct tf_vm_template *t, struct tf_vm_config *config)
{
	config->machine = t->machine;
	config->guest = (struct tf_vm_guest){t->kernel, t->initramfs, t->append};
}

static int make_key(const struct tf_vm_template *t, const char *cachedir, struct hash *h,
	struct tf_vm_error *err)
{
	struct tf_vm_config config = {};
	struct tf_vm_launch how = {.ram = "ram", .share = true};
	struct tf_vm_args args = {};
	int rc = 0;

	config_of(t, &config);
	config.guest.kernel = config.guest.initramfs = "";
	tf_vm_command_line(&args, &config, &how, "console");
	hash_bytes(h, FORMAT, strlen(FORMAT));
	for (size_t i = 0; i < args.n; i++)
		hash_bytes(h, args.v[i], strlen(args.v[i]));
	if (args.failed)
		rc = tf_vm_fail(err, -ENOMEM, "no memory");
	tf_vm_args_done(&args);
	if (rc == 0)
		rc = hash_file(h, t->kernel, err);
	if (rc == 0)
		rc = hash_file(h, t->initramfs, err);
	if (rc == 0)
		rc = hash_version(h, tf_vm_machine_qemu(&t->machine), cachedir, err);
	return rc;
}

static int ignore_shared(struct tf_vm *vm, struct tf_vm_error *err)
{
	json_t *args = json_pack(
		"{s:[{s:s, s:b}]}", "capabilities", "capability", "x-ignore-shared", "state", 1);

	return tf_qmp_execute(vm->qmp, "migrate-set-capabilities", args, TF_VM_QMP_MS, NULL, err);
}

/* A path for the /bin/sh that QEMU runs for an exec: migration. */
static char *shell_quote(const char *path)
{
	char *out = malloc(4 * strlen(path) + 3), *to = out;

	if (!out)
		return NULL;
	*to++ = '\'';
	for (; *path; path++) {
		if (*path == '\'')
			to = stpcpy(to, "'\\''");
		else
			*to++ = *path;
	}
	*to++ = '\'';
	*to = '\0';
	return out;
}

static void nap_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static int migrate(struct tf_vm *vm, const char *command, const char *tool, const char *file,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *quoted = shell_quote(file);
	tf_vm_autofree char *uri = quoted ? tf_vm_format("exec:%s %s", tool, quoted) : NULL;

	if (!uri)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	return tf_qmp_execute(
		vm->qmp, command, json_pack("{s:s}", "uri", uri), TF_VM_QMP_MS, NULL, err);
}

static int await_saved(struct tf_vm *vm, struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + SAVE_MS;

	while (tf_vm_left_ms(deadline)) {
		json_t *value = NULL;
		int rc = tf_qmp_execute(vm->qmp, "query-migrate", NULL, TF_VM_QMP_MS, &value, err);
		const char *status = json_string_value(json_object_get(value, "status"));
		bool done = status && !strcmp(status, "completed");

		if (rc == 0 && status && !strcmp(status, "failed"))
			rc = tf_vm_explain(vm, -EIO, "saving the template failed", err);
		json_decref(value);
		if (rc < 0 || done)
			return rc;
		nap_ms(2);
	}
	return tf_vm_explain(vm, -ETIMEDOUT, "saving the template", err);
}

static int save(struct tf_vm *vm, const char *state, struct tf_vm_error *err)
{
	int rc = tf_vm_pause(vm, err);

	if (rc == 0)
		rc = ignore_shared(vm, err);
	if (rc == 0)
		rc = migrate(vm, "migrate", "cat >", state, err);
	return rc < 0 ? rc : await_saved(vm, err);
}

static int sync_file(const char *dir, const char *name, struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s/%s", dir, name);
	tf_vm_autoclose int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0 || fdatasync(fd) < 0)
		return tf_vm_fail_errno(
			err, path ? -errno : -ENOMEM, "template file %s/%s", dir, name);
	return 0;
}

/* Boot in the folder @dir and leave its files there. */
static int build(struct tf_vm_template *t, const char *dir, int timeout_ms, struct tf_vm_error *err)
{
	tf_vm_autofree char *ram = tf_vm_format("%s/ram", dir);
	tf_vm_autofree char *state = tf_vm_format("%s/state", dir);
	tf_vm_autofree char *boot = tf_vm_format("%s/boot_ms", dir);
	struct tf_vm_launch how = {.ram = ram, .share = true};
	struct tf_vm_config config = {.rundir = dir};
	char text[32];
	struct tf_vm *vm;
	int rc;

	if (!ram || !state || !boot)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	config_of(t, &config);
	rc = tf_vm_launch(&config, &how, &vm, err);
	if (rc < 0)
		return rc;
	rc = tf_vm_await_agent(vm, timeout_ms, err);
	t->boot_ms = tf_vm_ready_ms(vm);
	if (rc == 0)
		rc = save(vm, state, err);
	tf_vm_free(vm);
	snprintf(text, sizeof(text), "%d\n", t->boot_ms);
	if (rc == 0)
		rc = tf_vm_write_file(boot, text, strlen(text), err);
	if (rc == 0)
		rc = sync_file(dir, "state", err);
	if (rc == 0)
		rc = sync_file(dir, "ram", err);
	return rc;
}

static void remove_dir(const char *dir)
{
	static const char *const files[] = {
		"ram", "state", "boot_ms", "console.log", "qemu.log", "cmdline"};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		tf_vm_autofree char *path = tf_vm_format("%s/%s", dir, files[i]);

		if (path)
			unlink(path);
	}
	rmdir(dir);
}

static bool find(struct tf_vm_template *t)
{
	tf_vm_autofree char *path = tf_vm_format("%s/boot_ms", t->dir);
	tf_vm_autofree char *text = path ? tf_vm_file_tail(path, 32) : NULL;

	if (!text || !*text || access(t->ram, R_OK) < 0 || access(t->state, R_OK) < 0)
		return false;
	t->boot_ms = atoi(text);
	return true;
}

/* With the lock held: look again, else build under a temporary name. */
static int make(struct tf_vm_template *t, int timeout_ms, struct tf_vm_error *err)
{
	tf_vm_autofree char *temp = tf_vm_format("%s.tmp", t->dir);
	int rc;

	if (!temp)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (find(t))
		return 0;
	remove_dir(temp);
	remove_dir(t->dir);
	rc = tf_vm_make_dirs(temp);
	if (rc < 0)
		return tf_vm_fail_errno(err, rc, "template folder %s", temp);
	rc = build(t, temp, timeout_ms, err);
	if (rc < 0)
		return rc;
	if (rename(temp, t->dir) < 0)
		return tf_vm_fail_errno(err, -errno, "rename %s to %s", temp, t->dir);
	t->made = true;
	return 0;
}

static int find_or_make(struct tf_vm_template *t, int timeout_ms, struct tf_vm_error *err)
{
	tf_vm_autofree char *path = tf_vm_format("%s.lock", t->dir);
	tf_vm_autoclose int lock = -1;
	int rc;

	if (find(t))
		return 0;
	lock = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (lock < 0)
		return tf_vm_fail_errno(err, path ? -errno : -ENOMEM, "lock %s.lock", t->dir);
	do
		rc = flock(lock, LOCK_EX) < 0 ? -errno : 0;
	while (rc == -EINTR);
	if (rc < 0)
		return tf_vm_fail_errno(err, rc, "lock %s", path);
	return make(t, timeout_ms, err);
}

static int set_paths(struct tf_vm_template *t, const char *cachedir, const struct hash *h,
	struct tf_vm_error *err)
{
	tf_vm_autofree char *all = tf_vm_format("%s/templates", cachedir);
	int rc = all ? tf_vm_make_dirs(all) : -ENOMEM;

	if (rc < 0)
		return tf_vm_fail_errno(err, rc, "cache folder %s/templates", cachedir);
	t->dir = tf_vm_format("%s/%s-%016" PRIx64 "%016" PRIx64, all, t->machine.arch, h->a, h->b);
	t->ram = t->dir ? tf_vm_format("%s/ram", t->dir) : NULL;
	t->state = t->dir ? tf_vm_format("%s/state", t->dir) : NULL;
	if (t->ram && t->state)
		return 0;
	tf_vm_fail(err, -ENOMEM, "no memory");
	return -ENOMEM;
}

int tf_vm_template_get(const struct tf_vm_machine *m, const struct tf_vm_guest *guest,
	const char *cachedir, int timeout_ms, struct tf_vm_template **ret_tmpl,
	struct tf_vm_error *err)
{
	struct tf_vm_template *t;
	struct hash h = {1, 2};
	int rc = tf_vm_machine_check(m, err);

	if (rc < 0)
		return rc;
	t = calloc(1, sizeof(*t));
	if (!t)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	t->machine = *m;
	/* Machines that differ only in their name share a template. */
	snprintf(t->machine.name, sizeof(t->machine.name), "%s", m->arch);
	t->kernel = guest->kernel ? strdup(guest->kernel) : NULL;
	t->initramfs = guest->initramfs ? strdup(guest->initramfs) : NULL;
	t->append = guest->append ? strdup(guest->append) : NULL;
	rc = make_key(t, cachedir, &h, err);
	if (rc == 0)
		rc = set_paths(t, cachedir, &h, err);
	if (rc == 0)
		rc = find_or_make(t, timeout_ms, err);
	t->machine = *m;
	if (rc < 0)
		tf_vm_template_free(t);
	else
		*ret_tmpl = t;
	return rc;
}

void tf_vm_template_free(struct tf_vm_template *t)
{
	if (!t)
		return;
	free(t->kernel);
	free(t->initramfs);
	free(t->append);
	free(t->dir);
	free(t->ram);
	free(t->state);
	free(t);
}

const struct tf_vm_machine *tf_vm_template_machine(const struct tf_vm_template *t)
{
	return &t->machine;
}

const char *tf_vm_template_dir(const struct tf_vm_template *t)
{
	return t->dir;
}

bool tf_vm_template_made(const struct tf_vm_template *t)
{
	return t->made;
}

int tf_vm_template_boot_ms(const struct tf_vm_template *t)
{
	return t->boot_ms;
}

int tf_vm_scale_ms(const struct tf_vm_template *t, int ms)
{
	int64_t scaled = (int64_t)ms * t->boot_ms / NORMAL_BOOT_MS;

	if (scaled < ms)
		return ms;
	return scaled > (int64_t)ms * MAX_SCALE ? ms * MAX_SCALE : (int)scaled;
}

static int await_loaded(struct tf_vm *vm, int64_t deadline, struct tf_vm_error *err)
{
	do {
		json_t *value = NULL;
		int rc = tf_qmp_execute(vm->qmp, "query-status", NULL, TF_VM_QMP_MS, &value, err);
		const char *status = json_string_value(json_object_get(value, "status"));
		bool loading = status && !strcmp(status, "inmigrate");

		json_decref(value);
		if (rc < 0)
			return rc;
		if (!loading)
			return 0;
		nap_ms(1);
	} while (tf_vm_left_ms(deadline));
	return tf_vm_explain(vm, -ETIMEDOUT, "loading the template", err);
}

static int load(struct tf_vm *vm, const char *state, int64_t deadline, struct tf_vm_error *err)
{
	int rc = ignore_shared(vm, err);

	if (rc == 0)
		rc = migrate(vm, "migrate-incoming", "cat", state, err);
	if (rc == 0)
		rc = await_loaded(vm, deadline, err);
	if (rc == 0)
		rc = tf_vm_resume(vm, err);
	if (rc == -EPIPE)
		rc = tf_vm_explain(vm, rc,
			"the template cannot be loaded; remove its folder in "
			"the cache",
			err);
	return rc;
}

int tf_vm_clone(const struct tf_vm_template *t, const struct tf_vm_config *config,
	struct tf_vm **ret_vm, struct tf_vm_error *err)
{
	struct tf_vm_launch how = {.ram = t->ram, .incoming = true};
	int timeout_ms = config->timeout_ms ? config->timeout_ms : 60000;
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	struct tf_vm_config full = *config;
	struct tf_vm *vm;
	int rc;

	config_of(t, &full);
	if (config->machine.name[0])
		memcpy(full.machine.name, config->machine.name, sizeof(full.machine.name));
	rc = tf_vm_launch(&full, &how, &vm, err);
	if (rc < 0)
		return rc;
	rc = load(vm, t->state, deadline, err);
	if (rc == 0)
		rc = tf_vm_await_agent(vm, timeout_ms, err);
	if (rc == 0)
		rc = tf_vm_setup(vm, &config->id, err);
	if (rc < 0)
		tf_vm_free(vm);
	else
		*ret_vm = vm;
	return rc;
}
