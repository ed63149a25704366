/* SPDX-License-Identifier: MIT */
/*
 * telebed shell: a machine that lives as long as somebody is in it, and telebed cp, which copies
 * into it and out of it meanwhile. The two find each other by a socket in the machine's folder.
 */
#include <argp.h>
#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "harness/bed.h"
#include "qemu/io.h"

#define PIECE    4096
#define FULL_MS  20 /* until a program that does not read its input is offered it again */
#define ORDER_MS 120000

struct arguments {
	const char *machines;
	char **args;
};

enum { KEY_MACHINES = 'm' };

static volatile sig_atomic_t resized, ended;
static struct termios before;

static void on_signal(int signo)
{
	if (signo == SIGWINCH)
		resized = 1;
	else
		ended = 1;
}

static void restore_terminal(void)
{
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

/* Every key goes to the machine, Ctrl-C as well. */
static void take_terminal(void)
{
	static const int signals[] = {SIGWINCH, SIGTERM, SIGHUP};
	struct sigaction sa = {.sa_handler = on_signal};
	struct termios raw;

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &sa, NULL);
	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return;
	raw = before;
	cfmakeraw(&raw);
	atexit(restore_terminal);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
}

static int resize(struct tf_bed *b, uint32_t job)
{
	struct winsize size;

	resized = 0;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
		return 0;
	return tf_vm_resize(b->vm, job, size.ws_row, size.ws_col, &b->err);
}

/* --- copying --- */

static int listen_in(const char *folder, const char *name, struct tf_vm_error *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/cp-%s", folder, name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 8) < 0)
		return tf_vm_fail_errno(err, -errno, "%s", un.sun_path);
	return fd;
}

/* One order: three strings, each with its NUL. What became of it is the answer, "" if all is well.
 */
static void serve_copy(struct tf_bed *b, int listener)
{
	tf_vm_autoclose int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct tf_vm_error err = {.text = ""};
	char order[3 * PIECE];
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);
	ssize_t n = fd < 0 ? -1 : recv(fd, order, sizeof(order) - 1, 0);
	const char *from, *to;
	struct stat st = {0};

	if (n <= 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
		peer.uid != geteuid())
		return;
	order[n] = '\0';
	from = order + strlen(order) + 1;
	to = from < order + n ? from + strlen(from) + 1 : from;
	if (to >= order + n)
		return;
	if (!strcmp(order, "put") && stat(from, &st) < 0)
		tf_vm_fail_errno(&err, -errno, "%s", from);
	else if (!strcmp(order, "put"))
		tf_vm_put(b->vm, from, to, st.st_mode & 0777, &err);
	else
		tf_vm_get(b->vm, from, to, &err);
	(void)!send(fd, err.text, strlen(err.text) + 1, MSG_NOSIGNAL);
}

/* --- the shell --- */

/* Somebody's input to the machine. False at its end. */
static bool feed(struct tf_bed *b, uint32_t job, int *ret_rc)
{
	char data[PIECE];
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	do {
		*ret_rc = tf_vm_stdin(b->vm, job, data, n > 0 ? (size_t)n : 0, &b->err);
		if (*ret_rc == -EAGAIN) { /* it is not read: its output may have to go first */
			struct tf_vm_callbacks cb = tf_bed_callbacks;

			cb.arg = b;
			tf_vm_wait(&b->vm, 1, &cb, FULL_MS);
		}
	} while (*ret_rc == -EAGAIN && !b->dead);
	if (*ret_rc == -EPIPE || *ret_rc == -ESRCH) /* it does not want more */
		*ret_rc = n = 0;
	return n > 0;
}

static int attend(struct tf_bed *b, uint32_t job, int listener, bool terminal)
{
	struct tf_vm_callbacks cb = tf_bed_callbacks;
	bool input = true;
	int rc = 0;

	cb.arg = b;
	while (rc == 0 && !b->closed && !b->dead && !ended) {
		struct pollfd fds[] = {
			{.fd = tf_vm_fd(b->vm), .events = POLLIN},
			{.fd = listener, .events = POLLIN},
			{.fd = input ? STDIN_FILENO : -1, .events = POLLIN},
		};

		if (resized && terminal)
			rc = resize(b, job);
		if (rc < 0 || (poll(fds, 3, -1) < 0 && errno == EINTR))
			continue;
		if (fds[0].revents)
			tf_vm_dispatch(b->vm, &cb);
		if (fds[1].revents)
			serve_copy(b, listener);
		if (fds[2].revents)
			input = feed(b, job, &rc);
	}
	return b->dead ? -ECHILD : rc;
}

static int shell(struct tf_bed *b, const char *name, char **argv)
{
	static const char *const standard[] = {
		"/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh", NULL};
	bool terminal = isatty(STDIN_FILENO);
	tf_vm_autofree char *term = tf_vm_format("TERM=%s", getenv("TERM") ?: "dumb");
	const char *env[] = {"PATH=/bin:/usr/bin:/sbin:/usr/sbin:/tmp", "HOME=/tmp", term, NULL};
	struct tf_vm_command cmd = {
		.argv = *argv ? (const char *const *)argv : standard,
		.env = env,
		.cwd = "/tmp",
		.stdin_pipe = true,
		.tty = terminal,
	};
	tf_vm_autoclose int listener = listen_in(b->run, name, &b->err);
	uint32_t job;
	int rc = listener < 0 ? listener : tf_bed_spawn(b, &cmd, &job);

	if (rc < 0)
		return rc;
	if (terminal) {
		fprintf(stderr, "machine %s; it ends with this shell (telebed cp FILE %s:PATH)\n",
			name, name);
		take_terminal();
		resized = 1;
	}
	return attend(b, job, listener, terminal);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_MACHINES:
		a->machines = arg;
		return 0;
	case ARGP_KEY_ARGS:
		a->args = state->argv + state->next;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
	}
	return ARGP_ERR_UNKNOWN;
}

int tf_bed_shell(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"machines", KEY_MACHINES, "FILE", 0, "Further rows of machines", 0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "MACHINE [-- COMMAND [ARG...]]",
		.doc = "Makes a machine (telebed machines shows them) and runs a shell there, or "
		       "COMMAND: on a terminal if standard input is one, else with that as its "
		       "input. The machine ends with it."};
	struct tf_bed b = {0};
	struct arguments a = {0};
	int rc;

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a) || !a.args)
		return EX_USAGE;
	rc = tf_bed_start(&b, a.args[0], a.machines);
	if (rc == 0)
		rc = shell(&b, a.args[0], a.args + (a.args[1] && !strcmp(a.args[1], "--") ? 2 : 1));
	tf_bed_end(&b);
	return ended && !b.closed ? EX_UNAVAILABLE : tf_bed_exit_code(&b, rc);
}

/* --- telebed cp --- */

/* The part behind "MACHINE:", and the name before it; NULL if it is a file of the host. */
static const char *there(const char *arg, char *machine, size_t size)
{
	const char *colon = strchr(arg, ':'), *slash = strchr(arg, '/');

	if (!colon || colon == arg || (slash && slash < colon))
		return NULL;
	snprintf(machine, size, "%.*s", (int)(colon - arg), arg);
	return colon + 1;
}

/* The youngest machine of that name that is ours; its socket, or an error. */
static int find_machine(const char *machine, struct tf_vm_error *err)
{
	tf_vm_autofree char *pattern = tf_vm_format("/tmp/telebed.*/cp-%s", machine);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	time_t newest = 0;
	glob_t g = {0};
	struct stat st;
	int fd;

	if (!pattern)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	if (glob(pattern, 0, NULL, &g) == 0)
		for (size_t i = 0; i < g.gl_pathc; i++) {
			if (lstat(g.gl_pathv[i], &st) < 0 || st.st_uid != geteuid() ||
				st.st_mtime < newest)
				continue;
			newest = st.st_mtime;
			snprintf(un.sun_path, sizeof(un.sun_path), "%s", g.gl_pathv[i]);
		}
	globfree(&g);
	if (!un.sun_path[0])
		return tf_vm_fail(err, -EINVAL,
			"machine %s: no such machine runs (telebed shell %s starts one)", machine,
			machine);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		return tf_vm_fail_errno(err, -errno, "%s", un.sun_path);
	return fd;
}

static int order(
	int fd, const char *verb, const char *from, const char *to, struct tf_vm_error *err)
{
	char text[3 * PIECE], answer[sizeof(err->text)];
	int n = snprintf(text, sizeof(text), "%s%c%s%c%s", verb, 0, from, 0, to);
	ssize_t got;

	if (n < 0 || (size_t)n >= sizeof(text))
		return tf_vm_fail(err, -ENAMETOOLONG, "%s: too long a name", from);
	if (send(fd, text, (size_t)n + 1, MSG_NOSIGNAL) < 0)
		return tf_vm_fail_errno(err, -errno, "the machine");
	if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, ORDER_MS) <= 0)
		return tf_vm_fail(err, -ETIMEDOUT, "the machine does not answer");
	got = recv(fd, answer, sizeof(answer) - 1, 0);
	if (got <= 0)
		return tf_vm_fail(err, -EPIPE, "the machine has ended");
	answer[got] = '\0';
	return answer[0] ? tf_vm_fail(err, -EIO, "%s", answer) : 0;
}

/* A target that is a folder, by its name, gets the file's own name. */
static char *full_name(const char *folder, const char *to, const char *from)
{
	size_t n = strlen(to);
	const char *last = strrchr(from, '/');
	bool whole = n && to[n - 1] != '/';

	return tf_vm_format("%s%s%s%s", to[0] == '/' ? "" : folder, to[0] == '/' ? "" : "/", to,
		whole  ? ""
		: last ? last + 1
		       : from);
}

static int copy(const char *from, const char *to, struct tf_vm_error *err)
{
	char machine[64], here[PIECE];
	const char *source = there(from, machine, sizeof(machine));
	const char *target = source ? NULL : there(to, machine, sizeof(machine));
	tf_vm_autofree char *guest = NULL, *host = NULL;
	tf_vm_autoclose int fd = -1;

	if (!source && !target)
		return tf_vm_fail(err, -EINVAL, "expected MACHINE:PATH on one side");
	if (!getcwd(here, sizeof(here)))
		return tf_vm_fail_errno(err, -errno, "the current folder");
	guest = source ? full_name("/tmp", source, "") : full_name("/tmp", target, from);
	host = source ? full_name(here, to, source) : full_name(here, from, "");
	fd = find_machine(machine, err);
	if (fd < 0 || !guest || !host)
		return fd < 0 ? fd : tf_vm_fail(err, -ENOMEM, "no memory");
	return source ? order(fd, "get", guest, host, err) : order(fd, "put", host, guest, err);
}

int tf_bed_cp(int argc, char **argv)
{
	static const struct argp argp = {.parser = parse,
		.args_doc = "FILE MACHINE:PATH\nMACHINE:PATH FILE",
		.doc = "Copies a file into a machine that telebed shell has started, or out of it. "
		       "A PATH is taken from /tmp; one that ends with '/' gets the file's name."};
	struct arguments a = {0};
	struct tf_vm_error err;
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a) || !a.args || !a.args[1] || a.args[2])
		return EX_USAGE;
	rc = copy(a.args[0], a.args[1], &err);
	if (rc < 0)
		fprintf(stderr, "telebed: %s\n", err.text);
	return rc == 0 ? 0 : rc == -EINVAL ? EX_USAGE : EX_UNAVAILABLE;
}
