/* SPDX-License-Identifier: MIT */
/* The public calls of telefork.h, on top of capture/, channel/ and restore/. */
#include "core/telefork.h"
#include "core/base/own.h"
#include "core/capture/self.h"
#include "core/restore/pad.h"
#include "core/telefork_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS_MAX 4096u /* bytes of any header's: more is no size */

const char *telefork_strerror(int code)
{
	switch (code) {
	case 0:
		return "success";
#define X(name, number, text)   \
	case TELEFORK_E_##name: \
		return text;
		TELEFORK_ERRORS(X)
#undef X
	default:
		return "unknown error";
	}
}

const char *telefork_errname(int code)
{
	switch (code) {
#define X(name, number, text)   \
	case TELEFORK_E_##name: \
		return "TELEFORK_E_" #name;
		TELEFORK_ERRORS(X)
#undef X
	default:
		return "TELEFORK_E_?";
	}
}

/* Each TELEFORK_RESTORE_* has a bit of its own: their sum has no carry. */
#define RESTORE_ALL                                                                            \
	(TELEFORK_RESTORE_SAME_PID + TELEFORK_RESTORE_HOLD_FILES + TELEFORK_RESTORE_OWN_USER + \
		TELEFORK_RESTORE_DETACHED + TELEFORK_RESTORE_PART_FILES +                      \
		TELEFORK_RESTORE_PART_MEMORY)
_Static_assert(RESTORE_ALL == (1u << 6) - 1, "six bits, one each");

int tf_options_take(const struct telefork_options *given, struct telefork_options *ret_options,
	struct tf_err *e)
{
	struct telefork_options o = {0};
	size_t size = given ? given->size : 0;

	if (given && !size)
		size = sizeof(o);
	if (given && (size < sizeof(o.size) || size > OPTIONS_MAX))
		return tf_fail(e, TELEFORK_E_INVAL,
			"options.size is %zu: it has to be sizeof(struct telefork_options)", size);
	for (size_t i = sizeof(o); i < size; i++)
		if (((const char *)given)[i])
			return tf_fail(e, TELEFORK_E_INVAL,
				"an option at byte %zu is not known to this library (%s)", i,
				TELEFORK_VERSION);
	if (given)
		memcpy(&o, given, size < sizeof(o) ? size : sizeof(o));
	if (o.deadline_ms < 0 || o.idle_ms < 0)
		return tf_fail(e, TELEFORK_E_INVAL, "a time limit is negative");
	if (o.restore & ~RESTORE_ALL)
		return tf_fail(e, TELEFORK_E_INVAL,
			"options.restore has bits %#x that are no TELEFORK_RESTORE_* of this library (%s)",
			o.restore & ~RESTORE_ALL, TELEFORK_VERSION);
	*ret_options = o;
	return 0;
}

int tf_result_from(struct telefork_result *result, const struct tf_err *e)
{
	if (result) {
		*result = (struct telefork_result){.error = e->code};
		snprintf(result->message, sizeof(result->message), "%s", e->text);
	}
	return e->code;
}

/* Of a greeting that has come to rc. */
static int end_dialing(struct tf_dialing *d, int rc, struct tf_err *e)
{
	if (d->a->kind == TF_ADDRESS_SSH)
		d->fd = tf_ssh_settle(&d->ssh, d->a, rc, e);
	else if (rc)
		close(d->fd);
	if (rc && d->fd >= 0)
		d->fd = rc;
	return d->fd;
}

static int connect_to(
	struct tf_dialing *d, const struct telefork_options *options, struct tf_err *e)
{
	struct tf_resolved r;
	int rc;

	if (d->a->kind == TF_ADDRESS_SSH) {
		rc = tf_ssh_start(&d->ssh, d->a, e);
		return rc ? rc : d->ssh.fd;
	}
	rc = tf_address_resolve(d->a, false, &r, e);
	return rc ? rc : tf_channel_connect(&r, d->a->text, options, e);
}

int tf_dial_start(struct tf_dialing *d, const struct tf_address *a,
	const struct telefork_options *options, const struct tf_errand *errand, struct tf_err *e)
{
	uint64_t start = tf_now_ns();
	int rc;

	*d = (struct tf_dialing){.a = a};
	if (a->kind == TF_ADDRESS_STDIO)
		return d->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	if (a->kind == TF_ADDRESS_FILE)
		return d->fd = tf_file_create(a->path, e);
	d->fd = connect_to(d, options, e);
	if (d->fd < 0)
		return d->fd;
	d->greets = true;
	tf_io_init(&d->io, d->fd, options);
	if (d->io.deadline_ns) /* it began with the connecting */
		d->io.deadline_ns = start + (uint64_t)options->deadline_ms * 1000000u;
	if (a->kind == TF_ADDRESS_SSH && d->io.idle_ms < TF_SSH_LOGIN_MS)
		d->io.idle_ms = TF_SSH_LOGIN_MS;
	rc = tf_greet_say(&d->io, options ? options->token : NULL, errand, e);
	return rc ? end_dialing(d, rc, e) : d->fd;
}

int tf_dial_finish(struct tf_dialing *d, uint32_t *ret_offers, struct tf_err *e)
{
	if (!d->greets)
		return d->fd;
	d->greets = false;
	return end_dialing(d, tf_greet_answer(&d->io, ret_offers, e), e);
}

int tf_dial(const struct tf_address *a, const struct telefork_options *options,
	const struct tf_errand *errand, uint32_t *ret_offers, struct tf_err *e)
{
	struct tf_dialing d = {0};
	int fd = tf_dial_start(&d, a, options, errand, e);

	return fd < 0 ? fd : tf_dial_finish(&d, ret_offers, e);
}

int telefork_dial(
	const char *uri, const struct telefork_options *options, struct telefork_result *result)
{
	struct telefork_options o;
	struct tf_address a;
	struct tf_dialing d = {0};
	struct tf_err e = {0};
	struct tf_errand keep = {.kind = TF_ERRAND_KEEP};
	int fd = tf_options_take(options, &o, &e);

	if (!fd)
		fd = tf_address_parse(uri, &a, &e);
	if (!fd && o.zygote)
		fd = tf_zygote_errand(&a, o.zygote, &keep, &e);
	if (!fd)
		fd = tf_dial_start(&d, &a, &o, o.zygote ? &keep : NULL, &e);
	if (fd >= 0) {
		tf_capture_rehearse();
		fd = tf_dial_finish(&d, NULL, &e);
	}
	tf_result_from(result, &e);
	return fd < 0 && !e.code ? TELEFORK_E_SYSTEM : fd;
}

/* The C library's memory of brk (glibc). It believes that it is the heap's end. */
extern void *__curbrk __attribute__((weak));

/* Where brk is another's (QEMU user mode), it cannot grow, which malloc() can bear. Nor can it
 * shrink; but free() takes the answer for the heap's new end. It does not try when the heap seems
 * not to end at brk. */
static void keep_heap(void)
{
	if ((tf_mailbox.flags & TF_MAILBOX_NO_BRK) && &__curbrk && __curbrk)
		__curbrk = (char *)__curbrk + 2 * sizeof(void *);
}

/* In a copy: takes away what the restorer left. */
void tf_copy_arrived(void)
{
	keep_heap();
	if (tf_mailbox.hole_size)
		munmap((void *)tf_mailbox.hole_start, tf_mailbox.hole_size);
	tf_mailbox.hole_start = tf_mailbox.hole_size = 0;
}

static int publish(void *ctx, struct tf_err *e)
{
	return tf_file_publish(*(int *)ctx, e);
}

/* In a copy, the job of the call that it returns from, for its next one: to free that would write
 * to four pages, which the copies of a zygote share. */
TF_OWN static struct telefork_job *spare;

int tf_job_start(struct tf_snapshot *s, struct telefork_job **ret_job, struct tf_err *e)
{
	struct telefork_job *job = __atomic_exchange_n(&spare, NULL, __ATOMIC_SEQ_CST);
	int rc;

	if (!job && !(job = malloc(sizeof(*job))))
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory");
	*job = (struct telefork_job){.start_ns = tf_now_ns()};
	job->channel_fd = s->channel_fd;
	rc = tf_snapshot_fork(s, &job->fd, &job->snapshot, &job->child, e);
	if (rc == TELEFORK_PARENT) {
		job->stopped_ns = tf_now_ns() - job->start_ns;
		*ret_job = job;
		return rc;
	}
	if (rc) {
		free(job);
		return rc;
	}
	spare = job;
	tf_copy_arrived();
	return rc;
}

/* Why this thread's latest telefork() started nothing. */
static _Thread_local char why[TELEFORK_MESSAGE_MAX];

int tf_say_why(const struct tf_err *e)
{
	snprintf(why, sizeof(why), "%s", e->text);
	return e->code;
}

static int check_channel(int fd, struct tf_err *e)
{
	int flags = fcntl(fd, F_GETFL), one;
	socklen_t size = sizeof(one);

	if (flags < 0)
		return tf_fail_errno(e, TELEFORK_E_INVAL, errno, "descriptor %d", fd);
	if ((flags & O_PATH) || (flags & O_ACCMODE) == O_RDONLY)
		return tf_fail(e, TELEFORK_E_INVAL, "descriptor %d is not open for writing", fd);
	if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &one, &size) && one)
		return tf_fail(e, TELEFORK_E_INVAL,
			"descriptor %d is a listening socket: accept() a connection first", fd);
	if (!getsockopt(fd, SOL_SOCKET, SO_TYPE, &one, &size) && one != SOCK_STREAM)
		return tf_fail(e, TELEFORK_E_INVAL, "descriptor %d is no stream socket", fd);
	return 0;
}

int telefork(int fd, const struct telefork_options *options, struct telefork_job **ret_job)
{
	struct telefork_options o;
	struct tf_snapshot s = {.options = &o,
		.origin = TF_ORIGIN_CALL,
		.channel_fd = fd,
		.finish = publish,
		.ctx = &fd};
	struct tf_err e = {0};
	int rc = tf_options_take(options, &o, &e);

	if (!rc && !ret_job)
		rc = tf_fail(&e, TELEFORK_E_INVAL, "telefork() needs a place for the job");
	if (!rc)
		rc = check_channel(fd, &e);
	if (!rc)
		rc = tf_job_start(&s, ret_job, &e);
	return rc < 0 ? tf_say_why(&e) : rc;
}

const char *telefork_why(void)
{
	return why;
}

int telefork_peer_fd(void)
{
	return tf_mailbox.peer_fd;
}

unsigned telefork_index(void)
{
	return tf_mailbox.index;
}

unsigned telefork_generation(void)
{
	return tf_mailbox.generation;
}

int telefork_save(
	const char *path, const struct telefork_options *options, struct telefork_result *result)
{
	struct telefork_job *job = NULL;
	struct telefork_options o;
	struct tf_err e = {0};
	int rc = tf_options_take(options, &o, &e), fd;

	if (!path || !*path)
		rc = tf_fail(&e, TELEFORK_E_INVAL, "a path is missing");
	if (rc)
		return tf_result_from(result, &e);
	fd = tf_file_create(path, &e);
	if (fd < 0)
		return tf_result_from(result, &e);
	struct tf_snapshot s = {.options = &o,
		.origin = TF_ORIGIN_CALL,
		.channel_fd = fd,
		.finish = publish,
		.ctx = &fd};

	rc = tf_job_start(&s, &job, &e);
	if (!rc)
		return 0; /* a copy: its descriptor is held */
	if (rc < 0)
		tf_result_from(result, &e);
	else
		rc = telefork_wait(job, result) ?: TELEFORK_PARENT;
	tf_file_forget(fd);
	close(fd);
	return rc;
}

static void *relay_main(void *arg)
{
	struct tf_relay *r = arg;

	tf_relay_run(r);
	close(r->io.fd);
	free(r);
	return NULL;
}

/* A process that is to come back needs somebody beside the caller. Without a thread to be had the
 * connection closes, and the sender is told so. */
static void stay_between(struct tf_pad *pad)
{
	struct tf_relay *r = malloc(sizeof(*r));
	int fd = r ? fcntl(pad->io.fd, F_DUPFD_CLOEXEC, 3) : -1;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	if (fd < 0) {
		free(r);
		kill(-pad->child, SIGKILL);
		return;
	}
	*r = pad->relay;
	r->io.fd = fd;
	pad->relay = (struct tf_relay)TF_RELAY_NONE;
	sigfillset(&all); /* the program's handlers run in its own threads */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread, NULL, relay_main, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		tf_relay_close(r);
		close(fd);
		free(r);
		kill(-pad->child, SIGKILL);
		return;
	}
	pthread_detach(thread);
}

pid_t telepad(int fd, const struct telefork_options *options, struct telefork_result *result)
{
	struct tf_err e = {0};
	struct telefork_options o;
	struct tf_pad pad;
	pid_t pid;
	int rc = tf_options_take(options, &o, &e);

	if (rc)
		return tf_result_from(result, &e);
	rc = tf_pad_prepare(&pad, fd, &o);
	if (!rc)
		rc = tf_pad_start(&pad);
	if (rc)
		tf_pad_refuse(&pad);
	tf_pad_result(&pad, result);
	pid = rc ? rc : pad.child;
	if (!rc && tf_pad_relayed(&pad))
		stay_between(&pad);
	tf_pad_done(&pad);
	return pid;
}

pid_t telefork_child_wait(pid_t pid, int *status)
{
	pid_t got;

	do
		got = waitpid(pid, status, __WALL);
	while (got < 0 && errno == EINTR);
	return got < 0 ? TELEFORK_E_SYSTEM : got;
}
