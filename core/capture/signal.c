/* SPDX-License-Identifier: MIT */
/*
 * telefork_on_signal(): the program is captured at whatever instruction a signal interrupts. The
 * handler forks, and the child sends the interrupted registers; everything here from the handler on
 * is async-signal-safe: no allocator, no lock, no resolver (the address was looked up beforehand).
 */
#include "core/base/host.h"
#include "core/base/own.h"
#include "core/telefork_internal.h"
#include "arch/arch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Set up once, read by handlers. The attempt under way is the only one: a signal that arrives
 * meanwhile waits, because the handler blocks it until READY. */
TF_OWN static struct {
	int signo;
	struct tf_address address;
	struct tf_resolved resolved;
	struct telefork_options options;
	char token[TELEFORK_TOKEN_MAX + 1];
	int status_fd; /* of the latest attempt; -1 */
	pid_t snapshot;
	bool child;
	volatile unsigned ended;
	struct telefork_result last;
	int channel_fd; /* the child's */
} on = {.status_fd = -1};

static int open_channel(void *ctx, struct tf_err *e)
{
	struct tf_io io;

	(void)ctx;
	if (on.address.kind == TF_ADDRESS_FILE)
		on.channel_fd = tf_file_create_at(on.address.path, e);
	else
		on.channel_fd = tf_channel_connect(&on.resolved, on.address.text, &on.options, e);
	if (on.channel_fd < 0 || on.address.kind == TF_ADDRESS_FILE)
		return on.channel_fd;
	tf_io_init(&io, on.channel_fd, &on.options);
	return tf_greet_server(&io, on.options.token, NULL, NULL, e) ?: on.channel_fd;
}

static int publish(void *ctx, struct tf_err *e)
{
	(void)ctx;
	return on.address.kind == TF_ADDRESS_FILE
		       ? tf_file_publish_at(on.channel_fd, on.address.path, e)
		       : 0;
}

/* Takes the outcome of the latest attempt, waiting for it if told to. */
static void collect(bool wait)
{
	struct tf_status s;
	bool done;

	if (on.status_fd < 0)
		return;
	if (!wait && fcntl(on.status_fd, F_SETFL, O_NONBLOCK))
		return;
	errno = 0;
	done = tf_status_read(on.status_fd, TF_STATUS_DONE, &s);
	if (!done && errno == EAGAIN)
		return;
	if (done) {
		on.last = s.result;
	} else {
		on.last = (struct telefork_result){.error = TELEFORK_E_SYSTEM};
		strcpy(on.last.message, "the snapshot ended without a word");
	}
	if (on.child)
		waitpid(on.snapshot, NULL, __WALL);
	close(on.status_fd);
	on.status_fd = -1;
	on.ended++;
}

static void refuse(int code, const char *why)
{
	on.last = (struct telefork_result){.error = code};
	memcpy(on.last.message, why, strnlen(why, sizeof(on.last.message) - 1));
	on.ended++;
}

void tf_signal_arrived(int signo, const void *ucontext)
{
	struct tf_snapshot s = {.options = &on.options,
		.origin = TF_ORIGIN_SIGNAL,
		.channel_fd = -1,
		.ucontext = ucontext,
		.dial = open_channel,
		.finish = publish};
	struct tf_err e = {0};
	int saved = errno;

	if (signo != on.signo)
		return;
	fcntl(on.status_fd, F_SETFL, 0); /* the attempt before this one comes first */
	collect(true);
	errno = saved;        /* the copy's, too */
	if (!tf_host_alone()) /* one that was joined a moment ago may be there still */
		refuse(TELEFORK_E_THREADS,
			"the process has other threads: a signal can only copy the one it interrupts");
	else if (tf_snapshot_fork(&s, &on.status_fd, &on.snapshot, &on.child, &e) !=
		 TELEFORK_PARENT)
		refuse(e.code, e.text);
	errno = saved;
}

unsigned telefork_signal_result(struct telefork_result *result)
{
	sigset_t only, before;
	unsigned ended;

	sigemptyset(&only);
	sigaddset(&only, on.signo ? on.signo : SIGUSR1);
	sigprocmask(SIG_BLOCK, &only, &before);
	collect(false);
	ended = on.ended;
	if (result)
		*result = on.last;
	sigprocmask(SIG_SETMASK, &before, NULL);
	return ended;
}

static int set_target(const char *uri, const struct telefork_options *options, struct tf_err *e)
{
	struct telefork_options o;
	int rc = tf_options_take(options, &o, e);

	if (!rc)
		rc = tf_address_parse(uri, &on.address, e);
	if (!rc && on.address.kind == TF_ADDRESS_STDIO)
		rc = tf_fail(e, TELEFORK_E_ADDRESS, "a signal cannot write to standard output");
	if (!rc && on.address.kind != TF_ADDRESS_FILE)
		rc = tf_address_resolve(&on.address, false, &on.resolved, e);
	if (rc)
		return rc;
	on.options = o;
	if (on.options.token) {
		strncpy(on.token, on.options.token, sizeof(on.token) - 1);
		on.options.token = on.token;
	}
	return 0;
}

int telefork_on_signal(int signo, const char *uri, const struct telefork_options *options)
{
	struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
	struct tf_err e = {0};
	int rc;

	if (signo < 1 || signo > TF_SIGNALS || signo == SIGKILL || signo == SIGSTOP)
		return TELEFORK_E_INVAL;
	rc = set_target(uri, options, &e);
	if (rc)
		return rc;
	sa.sa_sigaction = (void (*)(int, siginfo_t *, void *))tf_arch_signal_trampoline;
	sigfillset(&sa.sa_mask);
	on.signo = signo;
	return sigaction(signo, &sa, NULL) ? TELEFORK_E_INVAL : 0;
}
