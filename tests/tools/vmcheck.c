/* SPDX-License-Identifier: MIT */
/*
 * vmcheck ARCH GUESTPROBE: what the qemu floor promises, checked against real guests (at most
 * two at a time). Prints a line for each check and ends with status 1 if one failed. Guests
 * come from build/guest/ARCH.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "qemu/io.h"
#include "qemu/link.h"
#include "qemu/remote.h"
#include "qemu/template.h"

#define PROBE "/bin/guestprobe"
#define BIG   (8 << 20)

static struct tf_vm_error err;
static struct tf_vm_machine machine;
static struct tf_vm_template *tmpl;
static char *kernel, *initramfs;
static const char *probe;
static char cache[4096], folder[] = "/tmp/vmcheck.XXXXXX";
static int failures;
static int64_t since;

static void check(bool ok, const char *what)
{
	printf("%-4s %s (%d ms)%s%s\n", ok ? "ok" : "FAIL", what, (int)(tf_vm_now_ms() - since),
		ok ? "" : ": ", ok ? "" : err.text);
	fflush(stdout);
	failures += !ok;
	since = tf_vm_now_ms();
}

/* A folder of its own for each vm. */
static char *new_folder(void)
{
	static int n;
	char *dir = tf_vm_format("%s/%d", folder, ++n);

	tf_vm_make_dirs(dir);
	return dir;
}

static struct tf_vm *clone_vm(unsigned int n, const struct tf_link *link)
{
	tf_vm_autofree char *dir = new_folder();
	struct tf_vm_config c = {.id = tf_vm_identity(n),
		.rundir = dir,
		.link_path = link ? tf_link_path(link) : NULL};
	struct tf_vm *vm = NULL;

	if (tf_vm_clone(tmpl, &c, &vm, &err) < 0 || tf_vm_put(vm, probe, PROBE, 0755, &err) < 0) {
		fprintf(stderr, "vmcheck: %s\n", err.text);
		exit(1);
	}
	return vm;
}

static int run(struct tf_vm *vm, const char *a, const char *b, const char *c, int ms,
	struct tf_vm_result *r)
{
	const char *argv[] = {PROBE, a, b, c, NULL};
	struct tf_vm_command cmd = {.argv = argv};

	return tf_vm_run(vm, &cmd, 1 << 20, ms, r, &err);
}

static int spawn(struct tf_vm *vm, const char *a, const char *b, bool in, uint32_t *job)
{
	const char *argv[] = {PROBE, a, b, NULL};
	struct tf_vm_command cmd = {.argv = argv, .stdin_pipe = in};

	return tf_vm_spawn(vm, &cmd, job, NULL, &err);
}

/* What the callbacks have seen. */
struct seen {
	size_t bytes, orphan_after_exit;
	int exits, closed, dead, status;
	char why[1024];
};

static void on_output(
	void *arg, struct tf_vm *vm, uint32_t job, int stream, const void *data, size_t len)
{
	struct seen *s = arg;

	(void)vm;
	(void)job;
	(void)stream;
	(void)data;
	s->bytes += len;
	s->orphan_after_exit += s->exits ? len : 0;
}

static void on_exit_of(void *arg, struct tf_vm *vm, uint32_t job, int status)
{
	struct seen *s = arg;

	(void)vm;
	(void)job;
	s->exits++;
	s->status = status;
}

static void on_closed(void *arg, struct tf_vm *vm, uint32_t job)
{
	(void)vm;
	(void)job;
	((struct seen *)arg)->closed++;
}

static void on_dead(void *arg, struct tf_vm *vm, const struct tf_vm_error *why)
{
	struct seen *s = arg;

	(void)vm;
	s->dead++;
	snprintf(s->why, sizeof(s->why), "%s", why->text);
}

static struct tf_vm_callbacks callbacks(struct seen *s)
{
	return (struct tf_vm_callbacks){s, on_output, on_exit_of, on_closed, on_dead};
}

static void check_files(struct tf_vm *vm)
{
	tf_vm_autofree char *from = tf_vm_format("%s/big", folder);
	tf_vm_autofree char *to = tf_vm_format("%s/back", folder);
	char *data = malloc(BIG + 5), *back = NULL;
	size_t len;

	for (size_t i = 0; i < BIG + 5; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	tf_vm_write_file(from, data, BIG + 5, NULL);
	since = tf_vm_now_ms();
	check(tf_vm_put(vm, from, "/tmp/a/b/big", 0640, &err) == 0, "put of 8 MB + 5 bytes");
	check(tf_vm_get(vm, "/tmp/a/b/big", to, &err) == 0, "get of the same");
	check(tf_vm_get_data(vm, "/tmp/a/b/big", BIG + 5, &back, &len, &err) == 0 &&
			len == BIG + 5 && !memcmp(back, data, len),
		"the content is the same");
	free(back);
	check(tf_vm_get_data(vm, "/tmp/a/b/big", BIG, &back, &len, &err) == -EFBIG, "-EFBIG");
	check(tf_vm_put_data(vm, "", 0, "/tmp/empty", 0600, &err) == 0 &&
			tf_vm_get_data(vm, "/tmp/empty", 10, &back, &len, &err) == 0 && len == 0,
		"empty file");
	free(back);
	check(tf_vm_get_data(vm, "/proc/meminfo", 65536, &back, &len, &err) == 0 && len > 100,
		"a file of /proc");
	free(back);
	check(tf_vm_get(vm, "/nonexistent", to, &err) == -ENOENT, "-ENOENT of a get");
	check(tf_vm_put_data(vm, data, BIG, "/proc/nothing", 0600, &err) < 0 &&
			tf_vm_ping(vm, 60000, NULL, &err) == 0,
		"a put that fails leaves the agent well");
	free(data);
}

static void check_run(struct tf_vm *vm)
{
	const char *nothing[] = {"/nonexistent", NULL};
	struct tf_vm_command cmd = {.argv = nothing};
	struct tf_vm_result r;
	uint32_t job;

	check(run(vm, "exit", "7", NULL, 60000, &r) == 0 && WEXITSTATUS(r.status) == 7, "status 7");
	tf_vm_result_done(&r);
	check(tf_vm_spawn(vm, &cmd, &job, NULL, &err) == -ENOENT, "-ENOENT of an exec");
	check(run(vm, "flood", "8", NULL, 20000, &r) == 0 && r.truncated && r.out_len == 1 << 20,
		"8 MB of output, bounded to 1 MB");
	tf_vm_result_done(&r);
	check(run(vm, "spin", "1000", NULL, 300, &r) == -ETIMEDOUT && WIFSIGNALED(r.status),
		"a command that does not end is killed");
	tf_vm_result_done(&r);
}

static void check_streams(struct tf_vm *vm)
{
	static char text[40000];
	struct seen s = {};
	struct tf_vm_callbacks cb = callbacks(&s);
	uint32_t job;
	int rc = spawn(vm, "cat", NULL, true, &job);

	for (int i = 0; rc == 0 && i < 50; i++) {
		while ((rc = tf_vm_stdin(vm, job, text, sizeof(text), &err)) == -EAGAIN)
			tf_vm_wait(&vm, 1, &cb, 100);
	}
	if (rc == 0)
		rc = tf_vm_stdin(vm, job, NULL, 0, &err);
	while (rc == 0 && !s.closed && tf_vm_wait(&vm, 1, &cb, 60000) > 0)
		;
	check(rc == 0 && s.bytes == 50 * sizeof(text) && s.exits == 1 && s.closed == 1,
		"2 MB through stdin and stdout");

	s = (struct seen){};
	rc = spawn(vm, "spin", "100", false, &job);
	rc = rc < 0 ? rc : tf_vm_signal(vm, job, SIGTERM, &err);
	while (rc == 0 && !s.closed && tf_vm_wait(&vm, 1, &cb, 60000) > 0)
		;
	check(s.exits == 1 && WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGTERM, "signal");
	check(tf_vm_signal(vm, job, SIGTERM, &err) == -ESRCH, "-ESRCH of a signal to nobody");

	s = (struct seen){};
	rc = spawn(vm, "orphan", "1", false, &job);
	while (rc == 0 && !s.closed && tf_vm_wait(&vm, 1, &cb, 60000) > 0)
		;
	check(s.exits == 1 && WEXITSTATUS(s.status) == 5 && s.orphan_after_exit > 50 &&
			s.closed == 1,
		"exit status at once, an orphan's output later");
}

static void check_many(struct tf_vm *vm)
{
	struct seen s = {};
	struct tf_vm_callbacks cb = callbacks(&s);
	int64_t us, worst = 0;
	uint32_t job;
	char what[80];
	int rc = 0;

	for (int i = 0; rc == 0 && i < 40; i++)
		rc = spawn(vm, i < 2 ? "spin" : i < 6 ? "flood" : "exit", "2", false, &job);
	while (rc == 0 && s.closed < 40) {
		rc = tf_vm_ping(vm, 60000, &us, &err);
		worst = us > worst ? us : worst;
		if (rc == 0 && tf_vm_wait(&vm, 1, &cb, 100) < 0)
			rc = -ECHILD;
	}
	snprintf(what, sizeof(what), "40 jobs at once, 40 statuses, worst ping %d us", (int)worst);
	check(rc == 0 && s.exits == 40 && s.bytes >= 4u * (2 << 20), what);
}

static void check_identity(struct tf_vm *a, struct tf_vm *b)
{
	struct tf_vm_result r[2];
	char host[2][32], mac[2][32], rnd[2][32];
	long t[2];
	bool ok = run(a, "id", NULL, NULL, 60000, &r[0]) == 0 &&
		  run(b, "id", NULL, NULL, 60000, &r[1]) == 0;

	for (int i = 0; i < 2; i++)
		ok = ok && sscanf(r[i].out, "%31s %31s time %ld random %31s", host[i], mac[i],
				   &t[i], rnd[i]) == 4;
	check(ok && strcmp(host[0], host[1]) != 0 && strcmp(mac[0], mac[1]) != 0 &&
			strcmp(rnd[0], rnd[1]) != 0,
		"two clones differ in name, MAC and random bytes");
	check(ok && labs(t[0] - (long)time(NULL)) <= 1 && labs(t[1] - (long)time(NULL)) <= 1,
		"and agree with the host's clock");
	tf_vm_result_done(&r[0]);
	tf_vm_result_done(&r[1]);
}

static bool transfer(struct tf_vm *a, struct tf_vm *b, const char *mib)
{
	struct seen s = {};
	struct tf_vm_callbacks cb = callbacks(&s);
	struct tf_vm_result r;
	uint32_t job;
	bool ok = spawn(a, "listen", "7000", false, &job) == 0 &&
		  run(b, "send", "10.77.0.1:7000", mib, 60000, &r) == 0 && r.status == 0;

	if (ok)
		printf("     %s", r.out);
	tf_vm_result_done(&r);
	while (ok && !s.closed && tf_vm_wait(&a, 1, &cb, 60000) > 0)
		;
	return ok && s.status == 0;
}

static void check_link(struct tf_vm *a, struct tf_vm *b, struct tf_link *link)
{
	struct tf_link_faults lossy = {.seed = 1, .loss_ppm = 20000, .reorder_ppm = 20000};
	struct tf_link_faults cut = {.cut = true}, none = {};
	struct tf_link_stats s;
	struct tf_vm_result r;

	since = tf_vm_now_ms();
	check(transfer(a, b, "32"), "32 MiB over TCP");
	tf_link_set_faults(link, &lossy, &err);
	check(transfer(a, b, "2"), "2 MiB with 2 % loss and 2 % reordering");
	check(tf_link_stats(link, &s, &err) == 0 && s.dropped > 10 && s.guests == 2, "counters");
	tf_link_set_faults(link, &cut, &err);
	check(run(b, "send", "10.77.0.1:7000", "1", 1000, &r) == -ETIMEDOUT, "partition");
	tf_vm_result_done(&r);
	tf_link_set_faults(link, &none, &err);
	check(transfer(a, b, "1"), "and its end");
}

static void check_death(struct tf_vm *vm)
{
	struct seen s = {};
	struct tf_vm_callbacks cb = callbacks(&s);

	check(tf_vm_pause(vm, &err) == 0 && tf_vm_ping(vm, 200, NULL, &err) == -ETIMEDOUT,
		"a paused machine does not answer");
	check(tf_vm_resume(vm, &err) == 0 && tf_vm_ping(vm, 60000, NULL, &err) == 0,
		"and does when it goes on");
	kill(tf_vm_pid(vm), SIGKILL);
	while (!s.dead && tf_vm_wait(&vm, 1, &cb, 60000) > 0)
		;
	check(s.dead == 1 && strstr(s.why, "killed by signal 9") && tf_vm_dead(vm, NULL),
		"death is reported");
	check(tf_vm_wait(&vm, 1, &cb, 100) == -ECHILD && tf_vm_ping(vm, 100, NULL, &err) == -ECHILD,
		"once, and later calls fail");
}

/* Starts that cannot succeed; the error must hold @word. */
static void check_failure(
	const char *k, const char *i, const char *qemu, int ms, int code, const char *word)
{
	tf_vm_autofree char *dir = new_folder();
	tf_vm_autofree char *what = tf_vm_format("failed start: '%s'", word);
	struct tf_vm_config c = {.machine = machine,
		.guest = {k, i, NULL},
		.rundir = dir,
		.id = tf_vm_identity(1),
		.timeout_ms = ms};
	struct tf_vm *vm = NULL;
	int rc;

	snprintf(c.machine.qemu, sizeof(c.machine.qemu), "%s", qemu ? qemu : "");
	rc = tf_vm_boot(&c, &vm, &err);
	check(rc == code && strstr(err.text, word), what);
	if (getenv("VERBOSE"))
		printf("     %s\n", err.text);
	tf_vm_free(vm);
}

static void check_failures(void)
{
	tf_vm_autofree char *empty = tf_vm_format("%s/empty.cpio", folder);

	tf_vm_write_file(empty, "x", 1, NULL);
	since = tf_vm_now_ms();
	check_failure("/nonexistent/kernel", initramfs, NULL, 6000, -ENOENT, "/nonexistent/kernel");
	check_failure(
		kernel, initramfs, "/nonexistent/qemu", 6000, -ECHILD, "could not be executed");
	check_failure(kernel, empty, NULL, 30000, -ECHILD, "Kernel panic");
	check_failure(kernel, initramfs, NULL, 300, -ETIMEDOUT, "is still running");
	strcpy(machine.cpu, "pentium-or-so");
	check_failure(kernel, initramfs, NULL, 6000, -ECHILD, "pentium-or-so");
}

static int prepare(const char *arch)
{
	struct tf_vm_guest guest;
	int rc = tf_vm_cachedir(cache, sizeof(cache), &err);

	if (rc == 0)
		rc = tf_vm_machine_init(&machine, arch, &err);
	if (rc < 0 || !mkdtemp(folder))
		return -1;
	kernel = tf_vm_format("build/guest/%s/kernel", arch);
	initramfs = tf_vm_format("build/guest/%s/initramfs", arch);
	guest = (struct tf_vm_guest){kernel, initramfs, NULL};
	since = tf_vm_now_ms();
	rc = tf_vm_template_get(&machine, &guest, cache, 0, &tmpl, &err);
	check(rc == 0, rc == 0 && tf_vm_template_made(tmpl) ? "template made" : "template found");
	return rc;
}

int main(int argc, char **argv)
{
	tf_vm_autofree char *path = NULL;
	struct tf_link *link;
	struct tf_vm *a, *b;

	if (argc != 3) {
		fprintf(stderr, "usage: vmcheck ARCH GUESTPROBE\n");
		return 2;
	}
	probe = argv[2];
	if (prepare(argv[1]) < 0)
		return 1;
	path = tf_vm_format("%s/link", folder);
	if (tf_link_start(path, &link, &err) < 0) {
		fprintf(stderr, "vmcheck: %s\n", err.text);
		return 1;
	}
	a = clone_vm(1, link);
	check(true, "first clone");
	b = clone_vm(2, link);
	check(true, "second clone");
	check_files(a);
	check_run(a);
	check_streams(a);
	check_many(a);
	check_identity(a, b);
	check_link(a, b, link);
	check_death(b);
	check(tf_vm_poweroff(a, 60000, &err) == 0, "power off");
	tf_vm_free(a);
	tf_vm_free(b);
	tf_link_free(link);
	check_failures();
	tf_vm_template_free(tmpl);
	free(kernel);
	free(initramfs);
	if (!failures)
		tf_vm_remove_dir(folder);
	printf("%s: %d failed%s%s\n", argv[1], failures, failures ? "; logs in " : "",
		failures ? folder : "");
	return failures != 0;
}
