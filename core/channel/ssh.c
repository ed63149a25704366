/* SPDX-License-Identifier: MIT */
/* See ssh.h. The helper is a forked child of a program that may have threads: system calls only. */
#include "core/channel/ssh.h"
#include "core/base/cleanup.h"
#include "core/base/host.h"
#include "core/base/text.h"
#include "core/capture/self.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MAX 16384
#define SHOWN_MAX 1024 /* of them in a message */
#define REMOTE    "telefork serve --once --detach -"
#define END_MS    10000 /* ssh whose connection is gone has ended by then */
#define STEP_MS   10

enum { KEEP = 'k', END = 'e', KILL = 'K' };

/* --- the helper --- */

static void write_all(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0)
		_exit(126);
}

static _Noreturn void run_ssh(char *const argv[], int channel, int words)
{
	sigset_t none;

	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(channel, STDIN_FILENO);
	dup2(channel, STDOUT_FILENO);
	dup2(words, STDERR_FILENO);
	execvp(argv[0], argv);
	write_all(STDERR_FILENO, argv[0]);
	write_all(STDERR_FILENO, ": ");
	write_all(STDERR_FILENO, tf_errno_name(errno));
	_exit(255);
}

static _Noreturn void help(char *const argv[], int channel, int words, int control)
{
	const int keep[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, channel, words, control};
	int status = 0, waited = 0;
	char word = END;
	pid_t pid;

	tf_host_close_all(keep, sizeof(keep) / sizeof(*keep));
	signal(SIGCHLD, SIG_DFL); /* ignored it would take the exit status away */
	pid = (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
	if (!pid)
		run_ssh(argv, channel, words);
	close(channel);
	close(words);
	while (read(control, &word, 1) < 0 && errno == EINTR)
		;
	if (word == KEEP || pid < 0)
		_exit(0);
	if (word == KILL)
		kill(pid, SIGTERM);
	while (!waitpid(pid, &status, WNOHANG)) {
		waited += STEP_MS;
		if (waited == END_MS || waited == 2 * END_MS)
			kill(pid, waited == END_MS ? SIGTERM : SIGKILL);
		poll(NULL, 0, STEP_MS);
	}
	_exit(send(control, &status, sizeof(status), MSG_NOSIGNAL) < 0);
}

/* --- the caller --- */

static int words_file(void)
{
	int fd = memfd_create("telefork-ssh", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && (ftruncate(fd, WORDS_MAX) || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW))) {
		close(fd);
		return -1;
	}
	return tf_fd_above_stdio(fd);
}

/* All above the standard streams, which the program may have closed. */
static int open_ends(struct tf_ssh *s, int channel[2], int control[2])
{
	int *const ends[] = {&channel[0], &channel[1], &control[0], &control[1]};
	bool bad = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) ||
		   socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control);

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		*ends[i] = tf_fd_above_stdio(*ends[i]);
		bad |= *ends[i] < 0;
	}
	s->words = words_file();
	return bad || s->words < 0 ? -1 : 0;
}

int tf_ssh_start(struct tf_ssh *s, const struct tf_address *a, struct tf_err *e)
{
	const char *ssh = secure_getenv("TELEFORK_SSH");
	char *argv[8];
	int channel[2] = {-1, -1}, control[2] = {-1, -1}, n = 0, why;
	sigset_t all, before;

	*s = (struct tf_ssh){.fd = -1, .words = -1, .control = -1, .helper = -1};
	argv[n++] = (char *)(ssh && *ssh ? ssh : "ssh");
	if (a->port[0]) {
		argv[n++] = (char *)"-p";
		argv[n++] = (char *)a->port;
	}
	argv[n++] = (char *)a->host;
	argv[n++] = (char *)REMOTE;
	argv[n] = NULL;
	if (!open_ends(s, channel, control)) {
		sigfillset(&all); /* no handler of the program's runs in the helper */
		pthread_sigmask(SIG_BLOCK, &all, &before);
		s->helper = tf_fork_hidden(&s->child);
		if (!s->helper)
			help(argv, channel[1], s->words, control[1]);
		why = errno;
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		errno = why;
	}
	why = errno;
	tf_closep(&channel[1]);
	tf_closep(&control[1]);
	s->fd = channel[0];
	s->control = control[0];
	if (s->helper > 0)
		return 0;
	tf_closep(&s->fd);
	tf_closep(&s->control);
	tf_closep(&s->words);
	return tf_fail_errno(e, TELEFORK_E_SYSTEM, why, "%s: starting %s", a->text, argv[0]);
}

/* What ssh has said, without the carriage returns that it puts there. */
static void read_words(const struct tf_ssh *s, char text[static SHOWN_MAX])
{
	ssize_t n = pread(s->words, text, SHOWN_MAX - 1, 0);
	size_t at = 0;

	text[n > 0 ? n : 0] = '\0';
	for (const char *p = text; *p; p++)
		if (*p != '\r')
			text[at++] = *p;
	while (at && text[at - 1] == '\n')
		at--;
	text[at] = '\0';
}

/* How ssh ended; -1: it was not told. */
static int await_end(struct tf_ssh *s, char word)
{
	struct pollfd p = {.fd = s->control, .events = POLLIN};
	int status, rc;

	if (send(s->control, &word, 1, MSG_NOSIGNAL) != 1)
		return -1;
	do
		rc = poll(&p, 1, 3 * END_MS);
	while (rc < 0 && errno == EINTR);
	return rc > 0 && recv(s->control, &status, sizeof(status), MSG_DONTWAIT) == sizeof(status)
		       ? status
		       : -1;
}

/* The receiver's own refusal is told as it is; else it is ssh that knows. */
static void explain(
	const struct tf_ssh *s, const struct tf_address *a, int status, struct tf_err *e)
{
	struct tf_err why = *e;
	char words[SHOWN_MAX], how[96] = "";

	read_words(s, words);
	if (why.code != TELEFORK_E_CLOSED && why.code != TELEFORK_E_TIMEOUT &&
		why.code != TELEFORK_E_PROTOCOL)
		return;
	if (why.code != TELEFORK_E_CLOSED)
		snprintf(how, sizeof(how), "%.90s", why.text);
	else if (status >= 0 && WIFSIGNALED(status))
		snprintf(how, sizeof(how), "ssh was ended by signal %d", WTERMSIG(status));
	else if (status >= 0)
		snprintf(how, sizeof(how), "ssh ended with exit code %d", WEXITSTATUS(status));
	*e = (struct tf_err){0};
	tf_fail(e, why.code == TELEFORK_E_CLOSED ? TELEFORK_E_REFUSED : why.code, "%s: %s%s%s%s",
		a->text, *how ? how : why.text, *words ? ": " : "", words,
		status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127
			? ": telefork has to be in the PATH over there"
			: "");
	tf_message_safe(e->text);
}

int tf_ssh_settle(struct tf_ssh *s, const struct tf_address *a, int rc, struct tf_err *e)
{
	char keep = KEEP;

	if (rc) {
		tf_closep(&s->fd);
		explain(s, a, await_end(s, rc == TELEFORK_E_TIMEOUT ? KILL : END), e);
	} else {
		send(s->control, &keep, 1, MSG_NOSIGNAL);
	}
	tf_closep(&s->control);
	tf_closep(&s->words);
	while (s->child && waitpid(s->helper, NULL, __WALL) < 0 && errno == EINTR)
		;
	return rc ? e->code : s->fd;
}
