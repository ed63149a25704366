/* SPDX-License-Identifier: MIT */
/* See alone.h. */
#include "harness/alone.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/pack.h"
#include "qemu/io.h"

#define DIR         "/tmp/bed" /* there: the programs, and whatever they make */
#define PAD         "telefork-pad"
#define CONSOLE_MAX ((size_t)1 << 20)
#define SAID_MAX    4000

bool tf_alone_is(const struct tf_cell *cell)
{
	return cell->machines[0].tier == TF_TIER_ICOUNT;
}

/* --- the script --- */

/* A word of the shell's; "{dir}" is replaced. */
static void put_word(FILE *f, const char *word)
{
	fputs(" '", f);
	for (const char *p = word; *p; p++) {
		if (!strncmp(p, "{dir}", 5)) {
			fputs(DIR, f);
			p += 4;
		} else {
			fputs(*p == '\'' ? "'\\''" : (char[2]){*p}, f);
		}
	}
	fputc('\'', f);
}

static void put_probe(FILE *f, const struct tf_cell *c, const char *token)
{
	fprintf(f, "run probe " DIR "/%s-%s", c->probe, c->build);
	for (unsigned i = 1; i < c->n_route; i++)
		fprintf(f, "%s $address%u", i > 1 ? " --next" : "", i);
	if (token)
		fprintf(f, " --token %s", token);
	for (unsigned i = 0; c->args[i]; i++)
		put_word(f, c->args[i]);
	fputc('\n', f);
}

/* Receivers at all places but the first; waiting for them costs no time but the machine's. */
static void put_receivers(FILE *f, const struct tf_cell *c)
{
	for (unsigned i = 1; i < c->n_route; i++) {
		fprintf(f, DIR "/" PAD " serve --token-file " DIR "/" TF_TOKEN_FILE);
		if (c->transport == TF_TRANSPORT_TCP)
			fprintf(f, " tcp://127.0.0.1:%u", 7700 + i);
		else
			fprintf(f, " unix:" DIR "/socket%u", i);
		fprintf(f,
			" >" DIR "/said%u &\n"
			"until [ -s " DIR "/said%u ]; do sleep 0.01; done\n"
			"read -r address%u <" DIR "/said%u\n",
			i, i, i, i);
	}
}

static void put_script(FILE *f, const struct tf_cell *c, const char *token)
{
	/* A kernel that tells whom a signal ended also tells where. */
	fputs("#!/bin/sh\n"
	      "mount -t proc proc /proc\n"
	      "mount -t sysfs sysfs /sys\n"
	      "mount -t devtmpfs dev /dev\n"
	      "mkdir -p /dev/shm\n"
	      "mount -t tmpfs shm /dev/shm\n"
	      "mount -t tmpfs tmp /tmp\n"
	      "mv /cell/put " DIR "\n" /* what initramfs is unpacked to has little room */
	      "ip link set lo up\n"
	      "dmesg -n 7\n"
	      "[ ! -e /proc/sys/debug/exception-trace ] || echo 1 >/proc/sys/debug/exception-trace\n"
	      "run() {\n"
	      "	who=$1\n"
	      "	shift\n"
	      "	echo \"telebed: $who begins\"\n"
	      "	\"$@\"\n"
	      "	echo \"telebed: $who ended $?\"\n"
	      "}\n",
		f);
	if (c->transport != TF_TRANSPORT_FILE)
		put_receivers(f, c);
	for (unsigned i = 1; c->transport == TF_TRANSPORT_FILE && i < c->n_route; i++)
		fprintf(f, "address%u=" DIR "/image%u.tf\n", i, i);
	put_probe(f, c, token);
	for (unsigned i = 1; c->transport == TF_TRANSPORT_FILE && i < c->n_route; i++)
		fprintf(f, "run copy%u " DIR "/" PAD " restore $address%u\n", i, i);
	/* The console stands for all of the images' registers and memory. */
	fputs("dmesg -n 1\ncd " DIR
	      "\nfor i in *.tf; do [ ! -e $i ] || sha256sum $i; done\npoweroff -f\n",
		f);
}

/* --- the files of the machine --- */

int tf_alone_files(struct tf_alone_files *f, const char *folder, const struct tf_vm_machine *m,
	uint32_t seed, enum tf_vm_alone_mode mode, struct tf_vm_error *err)
{
	static const char *const names[] = {"kernel", "initramfs", "recording", "snapshots",
		"console.log", "qemu.log", "cmdline"};
	struct tf_vm_alone *a = &f->alone;

	*f = (struct tf_alone_files){0};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		f->names[i] = tf_vm_format("%s/%s", folder, names[i]);
		if (!f->names[i])
			return tf_vm_fail(err, -ENOMEM, "no memory");
	}
	*a = (struct tf_vm_alone){
		.machine = *m,
		.kernel = f->names[0],
		.initramfs = f->names[1],
		.append = "rdinit=/cell/init",
		.seed = seed,
		.mode = mode,
		.recording = f->names[2],
		.snapshots = f->names[3],
		.console = f->names[4],
		.log = f->names[5],
		.cmdline = f->names[6],
	};
	return 0;
}

void tf_alone_files_done(struct tf_alone_files *f)
{
	for (size_t i = 0; i < sizeof(f->names) / sizeof(*f->names); i++)
		free(f->names[i]);
}

static int pack_programs(struct tf_journey *j, struct tf_pack *p, struct tf_vm_error *err)
{
	const struct tf_cell *c = j->cell;
	struct tf_remote m = {.spec = c->machines[0]}; /* whose names of files are asked for */
	tf_vm_autofree char *build =
		tf_vm_format("%s/build/%s%s", j->options->root, c->arch, j->options->variant);
	tf_vm_autofree char *probe = tf_journey_program(j, &m);
	tf_vm_autofree char *pad = build ? tf_vm_format("%s/bin/" PAD, build) : NULL;
	char name[512];
	int rc = pad && probe ? tf_pack_file(p, "cell/put/" PAD, 0755, pad, err)
			      : tf_vm_fail(err, -ENOMEM, "no memory");

	snprintf(name, sizeof(name), "cell/put/%s-%s", c->probe, c->build);
	if (rc == 0)
		rc = tf_pack_file(p, name, 0755, probe, err);
	for (unsigned i = 0; c->files[i] && rc == 0; i++) {
		tf_vm_autofree char *path = tf_journey_file(j, &m, c->files[i]);
		const char *slash = path ? strrchr(path, '/') : NULL;

		snprintf(name, sizeof(name), "cell/put/%s", slash ? slash + 1 : "");
		rc = slash ? tf_pack_file(p, name, 0755, path, err)
			   : tf_vm_fail(err, -ENOMEM, "no memory");
	}
	return rc;
}

static int pack(struct tf_journey *j, const char *path, const char *before, struct tf_vm_error *err)
{
	tf_vm_autofree char *script = NULL;
	char token[33];
	size_t len = 0;
	FILE *f = open_memstream(&script, &len);
	struct tf_pack p;
	int rc;

	if (!f)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	/* A secret would be none of a machine that is the same each time. */
	snprintf(token, sizeof(token), "%032" PRIx64, j->seed);
	put_script(f, j->cell, j->cell->transport == TF_TRANSPORT_FILE ? NULL : token);
	fclose(f);
	rc = tf_pack_open(&p, path, before, err);
	if (rc < 0)
		return rc;
	tf_pack_folder(&p, "cell");
	tf_pack_folder(&p, "cell/put");
	tf_pack_data(&p, "cell/init", 0755, script, len);
	tf_pack_data(&p, "cell/put/" TF_TOKEN_FILE, 0600, token, strlen(token));
	return tf_pack_close(&p, pack_programs(j, &p, err), err);
}

/* The machine's files are its own: what a build makes later is another machine. */
static int make_files(struct tf_journey *j, const struct tf_vm_alone *a, struct tf_vm_error *err)
{
	char kernel[4096], initramfs[4096];
	int rc = tf_spec_guest(j->options->root, &j->cell->machines[0], kernel, initramfs, err);

	if (rc == 0)
		rc = tf_vm_copy_file(kernel, a->kernel, err);
	return rc ? rc : pack(j, a->initramfs, initramfs, err);
}

/* --- the verdict --- */

/* What @who said: *@ret_code and the text of the console between its begin and its end. */
static char *said_by(const char *console, const char *who, int *ret_code)
{
	tf_vm_autofree char *begins = tf_vm_format("telebed: %s begins\n", who);
	tf_vm_autofree char *ended = tf_vm_format("telebed: %s ended ", who);
	const char *from = begins ? strstr(console, begins) : NULL;
	const char *to = from && ended ? strstr(from, ended) : NULL;

	*ret_code = to ? atoi(to + strlen(ended)) : -1;
	if (!from)
		return NULL;
	from += strlen(begins);
	return strndup(from, to ? (size_t)(to - from) : strlen(from));
}

/* The line of @text that begins with @word. */
static const char *line_of(const char *text, const char *word)
{
	const char *at = text;

	while ((at = strstr(at, word)) && at > text && at[-1] != '\n')
		at++;
	return at;
}

/* True if it said "ok" on a line of its own, when it must. */
static bool judge(struct tf_journey *j, const char *console, const char *who, bool must_say)
{
	struct tf_outcome *o = j->outcome;
	int code;
	tf_vm_autofree char *said = said_by(console, who, &code);
	const char *line = said ? line_of(said, "ok") : NULL;

	if (!said)
		tf_journey_failed(j,
			"the machine did not come to its %s; the console's last lines:\n%s", who,
			console + (strlen(console) > SAID_MAX ? strlen(console) - SAID_MAX : 0));
	else if (code < 0)
		tf_journey_failed(j, "the %s did not end, and said: %.*s", who, SAID_MAX, said);
	else if (code)
		tf_journey_failed(j, "the %s ended with exit code %d, and said: %.*s", who, code,
			SAID_MAX, said);
	else if (must_say && !line)
		tf_journey_failed(j, "the %s did not say ok but: %.*s", who, SAID_MAX, said);
	if (o->verdict != TF_VERDICT_OK)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): said is freed by its attribute */
		return false;
	tf_journey_count(j, said);
	if (must_say && line)
		o->said = strndup(line, strcspn(line, "\n"));
	return true;
}

static void judge_all(struct tf_journey *j, const char *console)
{
	bool by_file = j->cell->transport == TF_TRANSPORT_FILE;
	bool goes_on = judge(j, console, "probe", !by_file);
	char who[32];

	for (unsigned i = 1; by_file && goes_on && i < j->cell->n_route; i++) {
		snprintf(who, sizeof(who), "copy%u", i);
		goes_on = judge(j, console, who, i + 1 == j->cell->n_route);
	}
}

static int run(struct tf_journey *j, const struct tf_vm_alone *a, struct tf_vm_error *err)
{
	tf_vm_autofree char *console = NULL;
	struct tf_vm_child *child;
	char how[256];
	int status = 0, rc = tf_vm_alone_start(a, &child, err);

	if (rc < 0)
		return rc;
	if (!tf_vm_child_ended(child, tf_vm_left_ms(j->deadline_ms), &status))
		tf_journey_failed(j, "the machine did not end in time");
	tf_vm_child_explain(child, how, sizeof(how));
	tf_vm_child_free(child);
	if (status) {
		tf_vm_autofree char *log = tf_vm_file_tail(a->log, SAID_MAX);

		return tf_vm_fail(err, -ECHILD, "%s: %s", how, log ? log : "");
	}
	console = tf_vm_file_tail(a->console, CONSOLE_MAX);
	if (!console)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	judge_all(j, console);
	return 0;
}

int tf_alone_go(struct tf_journey *j, struct tf_vm_error *err)
{
	const struct tf_cell *c = j->cell;
	tf_vm_autofree char *folder = tf_vm_format("%s/%s", j->folder, c->machine_names[0]);
	struct tf_vm_machine m = {0};
	struct tf_alone_files f = {0};
	char cache[4096];
	int rc = folder ? tf_vm_make_dirs(folder) : -ENOMEM;

	if (rc < 0)
		return tf_vm_fail_errno(err, rc, "%s/%s", j->folder, c->machine_names[0]);
	rc = tf_vm_cachedir(cache, sizeof(cache), err);
	if (rc == 0)
		rc = tf_spec_describe(&c->machines[0], cache, &m, err);
	m.accel = TF_VM_TCG;
	if (rc == 0)
		rc = tf_alone_files(&f, folder, &m, (uint32_t)j->seed,
			j->options->record ? TF_VM_ALONE_RECORD : TF_VM_ALONE_RUN, err);
	if (rc == 0)
		rc = make_files(j, &f.alone, err);
	if (rc == 0)
		rc = run(j, &f.alone, err);
	tf_alone_files_done(&f);
	return rc;
}
