/* SPDX-License-Identifier: MIT */
/*
 * See rewind.h. Going back is going forwards from the snapshot at the start, with a stop one
 * instruction earlier.
 */
#include "harness/rewind.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/alone.h"
#include "harness/janitor.h"
#include "harness/keep.h"
#include "qemu/io.h"

#define CONSOLE_MAX ((size_t)1 << 20)
#define RECORD_MS   600000
#define SOCKET_MS   60000
#define NAP_US      20000
#define BATCH_MS    300000

/* One cell being gone through. */
struct way {
	struct tf_rewind *r;
	char temp[32]; /* folder: a socket's path has to be short */
	char *socket, *script, *heard, *program;
	struct tf_alone_files files;
	unsigned long long pc; /* where a signal came; 0: none did */
};

const char *tf_rewind_text(const struct tf_rewind *r, const char *key)
{
	const char *text = json_string_value(json_object_get(r->cell, key));

	return text ? text : "";
}

int tf_rewind_gdb(struct tf_rewind *r, const char *const argv[])
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		execvp(argv[0], (char *const *)argv);
		fprintf(stderr, "telebed: %s: %s (package gdb-multiarch)\n", argv[0],
			strerror(errno));
		_exit(127);
	}
	if (pid < 0)
		return tf_vm_fail_errno(&r->err, -errno, "fork");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int find_files(struct way *w, enum tf_vm_alone_mode mode)
{
	struct tf_rewind *r = w->r;
	tf_vm_autofree char *folder =
		tf_vm_format("%s/%s", r->folder, tf_rewind_text(r, "machine"));
	struct tf_vm_machine m;
	int rc = folder ? tf_vm_machine_init(&m, tf_rewind_text(r, "arch"), &r->err)
			: tf_vm_fail(&r->err, -ENOMEM, "no memory");

	if (rc < 0)
		return rc;
	snprintf(m.cpu, sizeof(m.cpu), "%s", tf_rewind_text(r, "cpu"));
	snprintf(m.qemu, sizeof(m.qemu), "%s", tf_rewind_text(r, "qemu"));
	snprintf(m.board, sizeof(m.board), "%s", tf_rewind_text(r, "board"));
	m.memory_mib = (unsigned)json_integer_value(json_object_get(r->cell, "memory"));
	tf_alone_files_done(&w->files);
	rc = tf_alone_files(&w->files, folder, &m,
		(uint32_t)json_integer_value(json_object_get(r->cell, "seed")), mode, &r->err);
	w->files.alone.cmdline = NULL;
	return rc;
}

/* Where a signal ended the program, by the kernel's words on the console; 0: nowhere. */
static unsigned long long signal_pc(const char *console)
{
	static const char *const words[] = {" ip ", " ip:", "pc : "};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		const char *at = strstr(console, words[i]);

		if (at)
			return strtoull(at + strlen(words[i]), NULL, 16);
	}
	return 0;
}

/* The same run again, recorded. It has to have said the same. */
static int record(struct way *w)
{
	struct tf_vm_alone *a = &w->files.alone;
	tf_vm_autofree char *first = NULL, *now = NULL;
	struct tf_vm_child *child;
	int rc = find_files(w, TF_VM_ALONE_RECORD);

	if (rc < 0)
		return rc;
	printf("no recording was made (telebed run --record): it is made now\n");
	fflush(stdout);
	first = tf_vm_file_tail(a->console, CONSOLE_MAX);
	a->console = w->heard;
	rc = tf_vm_alone_start(a, &child, &w->r->err);
	if (rc < 0)
		return rc;
	if (!tf_vm_child_ended(child, RECORD_MS, NULL))
		rc = tf_vm_fail(&w->r->err, -ETIMEDOUT, "the machine does not end");
	tf_vm_child_free(child);
	now = tf_vm_file_tail(w->heard, CONSOLE_MAX);
	if (rc == 0 && (!first || !now || strcmp(first, now) != 0))
		rc = tf_vm_fail(&w->r->err, -EIO,
			"%s: the machine did not do the same again; inputs.txt has the QEMU that it "
			"ran with",
			w->r->folder);
	if (rc < 0)
		unlink(a->recording);
	return rc;
}

/* --- QEMU and gdb --- */

static int start_qemu(struct way *w, struct tf_vm_child **ret)
{
	struct tf_vm_alone *a = &w->files.alone;
	tf_vm_autofree char *console = tf_vm_format("%s/replayed.log", w->temp);
	int64_t deadline = tf_vm_now_ms() + SOCKET_MS;
	int rc;

	if (!console)
		return tf_vm_fail(&w->r->err, -ENOMEM, "no memory");
	unlink(w->socket);
	a->console = console;
	a->gdb = w->socket;
	rc = tf_vm_alone_start(a, ret, &w->r->err);
	while (rc == 0 && access(w->socket, F_OK) < 0) {
		if (tf_vm_child_ended(*ret, 0, NULL) || !tf_vm_left_ms(deadline)) {
			tf_vm_child_free(*ret);
			return tf_vm_fail(&w->r->err, -ECHILD,
				"the recording cannot be replayed: %s has why", a->log);
		}
		usleep(NAP_US);
	}
	return rc;
}

/* Begins a script that has the machine; the rest is printed into what is returned. */
static FILE *open_script(struct way *w)
{
	const char *arch = tf_rewind_text(w->r, "arch");
	FILE *f = fopen(w->script, "we");

	if (f)
		fprintf(f,
			"set pagination off\n"
			"set confirm off\n"
			"set remotetimeout 600\n"
			"set architecture %s\n"
			"set $code = *(unsigned *)%s%#llx\n"
			"target remote %s\n",
			strcmp(arch, "x86_64") ? arch : "i386:x86-64",
			w->pc ? "" : "&probe_lost + ", w->pc, w->socket);
	return f;
}

/* gdb without a terminal, for a limited time; what it says is in w->heard. */
static int run_batch(struct way *w)
{
	const char *argv[] = {
		TF_REWIND_GDB, "-nx", "-q", "-batch", "-x", w->script, w->program, NULL};
	struct tf_vm_child *gdb;
	int status = 0, rc;

	unlink(w->heard);
	rc = tf_vm_child_start(argv, NULL, 0, w->heard, &gdb, &w->r->err);
	if (rc < 0)
		return rc;
	if (!tf_vm_child_ended(gdb, BATCH_MS, &status))
		rc = tf_vm_fail(&w->r->err, -ETIMEDOUT, "%s does not come to an end in %d s",
			TF_REWIND_GDB, BATCH_MS / 1000);
	tf_vm_child_free(gdb);
	return rc ? rc : !WIFEXITED(status) || WEXITSTATUS(status) ? 1 : 0;
}

/* Runs the script on the machine. */
static int run_script(struct way *w, FILE *f, bool batch)
{
	const char *argv[] = {TF_REWIND_GDB, "-nx", "-q", "-x", w->script, w->program, NULL};
	struct tf_vm_child *qemu = NULL;
	int rc;

	fclose(f);
	rc = start_qemu(w, &qemu);
	if (rc < 0)
		return rc;
	rc = batch ? run_batch(w) : tf_rewind_gdb(w->r, argv);
	tf_vm_child_free(qemu);
	return rc;
}

static int show(struct way *w)
{
	tf_vm_autofree char *heard = NULL;
	FILE *f = open_script(w);
	int rc;

	if (!f)
		return tf_vm_fail_errno(&w->r->err, -errno, "%s", w->script);
	/* The code there tells the program from others that have something else at the address. */
	fprintf(f,
		"hbreak *(%s%#llx) if *(unsigned *)$pc == $code\ncontinue\n"
		"echo failing point\\n\nx/i $pc\ninfo symbol $pc\nbacktrace 20\n",
		w->pc ? "" : "(char *)&probe_lost + ", w->pc);
	if (w->r->batch)
		fputs("reverse-stepi\n"
		      "echo one instruction before\\n\nx/i $pc\ninfo symbol $pc\n"
		      "kill\n",
			f);
	rc = run_script(w, f, w->r->batch);
	if (rc >= 0 && w->r->batch) {
		heard = tf_vm_file_tail(w->heard, CONSOLE_MAX);
		fputs(heard ? heard : "", stdout);
	}
	return rc;
}

static int go(struct way *w)
{
	tf_vm_autofree char *console = NULL;
	int rc = find_files(w, TF_VM_ALONE_REPLAY);

	if (rc < 0)
		return rc;
	console = tf_vm_file_tail(w->files.alone.console, CONSOLE_MAX);
	if (!console)
		return tf_vm_fail(&w->r->err, -ENOMEM, "no memory");
	w->pc = signal_pc(console);
	if (access(w->files.alone.recording, R_OK) < 0) {
		rc = record(w);
		if (rc == 0)
			rc = find_files(w, TF_VM_ALONE_REPLAY);
	}
	return rc ? rc : show(w);
}

int tf_rewind(struct tf_rewind *r)
{
	struct way w = {.r = r, .temp = "/tmp/telebed.XXXXXX"};
	struct tf_janitor *janitor = NULL;
	int rc;

	if (!strcmp(tf_rewind_text(r, "build"), "pie"))
		return tf_vm_fail(&r->err, -EINVAL,
			"%s: gdb cannot know where a pie stood; run the cell with build = \"static\"",
			tf_rewind_text(r, "cell"));
	if (!mkdtemp(w.temp))
		return tf_vm_fail_errno(&r->err, -errno, "%s", w.temp);
	rc = tf_janitor_start(w.temp, TF_JANITOR_OURS, &janitor, &r->err);
	if (rc < 0)
		return rc;
	w.socket = tf_vm_format("%s/gdb", w.temp);
	w.script = tf_vm_format("%s/script", w.temp);
	w.heard = tf_vm_format("%s/heard", w.temp);
	w.program = tf_vm_format("%s/" TF_KEEP_PROGRAM, r->folder);
	rc = w.socket && w.script && w.heard && w.program
		     ? go(&w)
		     : tf_vm_fail(&r->err, -ENOMEM, "no memory");
	tf_alone_files_done(&w.files);
	tf_vm_remove_dir(w.temp);
	tf_janitor_dismiss(janitor);
	free(w.socket);
	free(w.script);
	free(w.heard);
	free(w.program);
	return rc;
}
