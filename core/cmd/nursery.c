/* SPDX-License-Identifier: MIT */
/* See nursery.h. All that comes over these sockets is this program's own. */
#include "core/cmd/nursery.h"
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"
#include "core/image/stream.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- the receiver --- */

int tf_nursery_init(struct tf_nursery *n, unsigned sessions, struct tf_err *e)
{
	n->own = -1;
	n->place = calloc(sessions, sizeof(*n->place));
	if (!n->place)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for %u sessions", sessions);
	n->n_places = sessions;
	for (unsigned i = 0; i < sessions; i++)
		n->place[i] = (struct tf_place){.fd = -1};
	return 0;
}

void tf_nursery_done(struct tf_nursery *n)
{
	for (unsigned i = 0; i < n->n_places; i++)
		tf_closep(&n->place[i].fd);
	free(n->place);
	n->place = NULL;
	n->n_places = 0;
}

static struct tf_place *place_of(struct tf_nursery *n, pid_t session)
{
	for (unsigned i = 0; i < n->n_places; i++)
		if (n->place[i].session == session)
			return &n->place[i];
	return NULL;
}

void tf_nursery_open(struct tf_nursery *n)
{
	struct tf_place *p = n->most ? place_of(n, 0) : NULL;
	int fd[2];

	n->own = -1;
	if (!p || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
		return;
	p->fd = fd[0];
	p->session = -1;
	n->own = fd[1];
}

void tf_nursery_forked(struct tf_nursery *n, pid_t pid)
{
	struct tf_place *p = place_of(n, -1);

	if (pid && n->own >= 0)
		tf_closep(&n->own);
	if (!p)
		return;
	p->session = pid > 0 ? pid : 0;
	if (pid <= 0) {
		tf_closep(&p->fd);
		p->fd = -1;
	}
}

void tf_nursery_left(struct tf_nursery *n, pid_t pid)
{
	struct tf_place *p = place_of(n, pid);

	if (!p)
		return;
	tf_closep(&p->fd);
	*p = (struct tf_place){.fd = -1};
}

void tf_nursery_poll(const struct tf_nursery *n, struct pollfd *p)
{
	for (unsigned i = 0; i < n->n_places; i++)
		p[i] = (struct pollfd){.fd = n->place[i].fd, .events = POLLIN};
}

static const struct tf_place *find(const struct tf_nursery *n, const struct tf_zygote_name *name)
{
	for (unsigned i = 0; i < n->n_places; i++)
		if (n->place[i].keeps && !memcmp(&n->place[i].name, name, sizeof(*name)))
			return &n->place[i];
	return NULL;
}

int tf_nursery_may(const struct tf_nursery *n, const struct tf_zygote_name *name, struct tf_err *e)
{
	char text[TF_ZYGOTE_NAME + 1];
	unsigned kept = 0;

	tf_zygote_name_text(name, text);
	if (!n->most)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"this receiver keeps no zygotes: start it as telefork serve --zygote");
	if (!tf_zygote_name_valid(name))
		return tf_fail(e, TELEFORK_E_PROTOCOL, "that is no name of a zygote");
	if (find(n, name))
		return tf_fail(e, TELEFORK_E_INVAL,
			"there is a zygote %s already: telefork zygotes --drop %s", text, text);
	for (unsigned i = 0; i < n->n_places; i++)
		kept += n->place[i].keeps;
	if (kept >= n->most)
		return tf_fail(e, TELEFORK_E_LIMIT,
			"this receiver keeps %u zygotes already: telefork zygotes --drop NAME",
			kept);
	return 0;
}

/* What a session that wants to keep something is told. */
struct verdict {
	struct tf_err err;
};

void tf_nursery_hear(struct tf_nursery *n, const struct pollfd *p)
{
	for (unsigned i = 0; i < n->n_places; i++) {
		struct tf_place *place = &n->place[i];
		struct tf_zygote_name name;
		struct verdict v = {0};
		ssize_t got;

		if (place->fd < 0 || p[i].fd != place->fd || !p[i].revents)
			continue;
		got = recv(place->fd, &name, sizeof(name), MSG_DONTWAIT);
		if (!got) { /* nothing more can be asked there */
			tf_closep(&place->fd);
			place->fd = -1;
			place->keeps = false;
		}
		if (got != sizeof(name))
			continue;
		if (!tf_nursery_may(n, &name, &v.err)) {
			place->keeps = true;
			place->name = name;
		}
		send(place->fd, &v, sizeof(v), MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

/* --- a session that keeps --- */

int tf_nursery_keep(struct tf_nursery *n, const struct tf_zygote_name *name, struct tf_err *e)
{
	struct verdict v;

	if (n->own < 0 || send(n->own, name, sizeof(*name), MSG_NOSIGNAL) != sizeof(*name) ||
		recv(n->own, &v, sizeof(v), 0) != sizeof(v))
		return tf_fail(e, TELEFORK_E_SYSTEM, "the receiver does not answer its session");
	if (v.err.code)
		*e = v.err;
	return v.err.code;
}

struct keeper {
	struct tf_nursery *n;
	struct tf_pad *pad;
	struct tf_zygote_name name;
	uint64_t made;
	unsigned running;
	pid_t *pids; /* those that run, of n->copies */
};

static volatile sig_atomic_t woken;

static void on_child(int signo)
{
	(void)signo;
	woken = 1;
}

static void drop(struct keeper *k)
{
	tf_pad_kill(k->pad);
	tf_closep(&k->n->own);
	k->n->own = -1;
}

static void forget(struct keeper *k, pid_t pid)
{
	for (unsigned i = 0; i < k->running; i++)
		if (k->pids[i] == pid) {
			k->pids[i] = k->pids[--k->running];
			return;
		}
}

/* Under QEMU user mode copies are somebody else's children. */
static void reap(struct keeper *k)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		if (pid == k->pad->child) {
			tf_complain("zygote", "it has ended");
			k->pad->child = 0;
			drop(k);
			continue;
		}
		if (WIFSIGNALED(status))
			fprintf(stderr, "telefork: pid %d ended by signal %d\n", (int)pid,
				WTERMSIG(status));
		forget(k, pid);
	}
	for (unsigned i = k->running; i && k->pad->facts.flags & TF_FACT_EMULATED; i--)
		if (kill(k->pids[i - 1], 0) && errno == ESRCH)
			forget(k, k->pids[i - 1]);
}

static void answer(int fd, const struct tf_err *e, const void *records, size_t size, uint32_t n)
{
	struct tf_reply r = {.code = e->code, .memory = e->code ? 0 : n};
	struct tf_err quiet = {0};
	struct tf_io io;

	tf_io_init(&io, fd, NULL);
	if (!tf_reply_write(&io, &r, e->text, &quiet) && r.memory)
		tf_io_write(&io, records, size * n, &quiet);
}

/* They run when whoever asked for them knows. */
static void spawn(struct keeper *k, int fd, const struct tf_zygote_ask *ask)
{
	pid_t *pids = k->pids + k->running;
	uint64_t first = ask->first ? ask->first : k->made + 1;
	struct tf_err *e = &k->pad->err;
	char word = 0;

	*e = (struct tf_err){0};
	if (!ask->n || ask->n > TF_SPAWN_MAX)
		tf_fail(e, TELEFORK_E_INVAL, "%u copies: 1 to %u at once", ask->n, TF_SPAWN_MAX);
	else if (ask->n > k->n->copies - k->running)
		tf_fail(e, TELEFORK_E_LIMIT,
			"%u copies run already, and no more than %u may: serve --max-copies",
			k->running, k->n->copies);
	else
		tf_zygote_make(k->pad, ask->n, first, pids);
	if (e->code) {
		answer(fd, e, NULL, 0, 0);
		return;
	}
	answer(fd, e, pids, sizeof(*pids), ask->n);
	if (read(fd, &word, 1) != 1 || word != 'g') {
		tf_zygote_end(k->pad, false);
		return;
	}
	if (tf_zygote_end(k->pad, true))
		return;
	k->running += ask->n;
	k->made = first - 1 + ask->n > k->made ? first - 1 + ask->n : k->made;
}

static void tell(const struct keeper *k, int fd)
{
	const char *exe = k->pad->image.source.exe;
	size_t n = strlen(exe);
	struct tf_zygote_info info = {.name = k->name,
		.pid = k->pad->child,
		.running = k->running,
		.made = k->made,
		.memory = k->pad->result.memory};

	snprintf(info.exe, sizeof(info.exe), "%s",
		n < sizeof(info.exe) ? exe : exe + n + 1 - sizeof(info.exe));
	answer(fd, &(struct tf_err){0}, &info, sizeof(info), 1);
}

/* One request, and a descriptor for its answer. False: nobody can ask any more. */
static bool serve_one(struct keeper *k)
{
	struct tf_zygote_ask ask;
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {&ask, sizeof(ask)};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(k->n->own, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	TF_CLOSE int fd = -1;

	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	if (got != sizeof(ask) || fd < 0)
		return got > 0 || errno == EINTR || errno == EAGAIN;
	if (ask.what == TF_ZYGOTE_SPAWN) {
		spawn(k, fd, &ask);
	} else if (ask.what == TF_ZYGOTE_LIST) {
		tell(k, fd);
	} else {
		drop(k);
		answer(fd, &(struct tf_err){0}, NULL, 0, 0);
	}
	return true;
}

void tf_nursery_run(struct tf_nursery *n, struct tf_pad *pad, const struct tf_errand *errand)
{
	struct keeper k = {.n = n, .pad = pad};
	struct sigaction sa = {.sa_handler = on_child};
	sigset_t block, waiting;

	memcpy(&k.name, errand->id, sizeof(k.name));
	k.pids = calloc(n->copies + 1, sizeof(*k.pids));
	if (!k.pids)
		return;
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0); /* with the receiver it ends */
	sigemptyset(&block);
	sigaddset(&block, SIGCHLD);
	sigprocmask(SIG_BLOCK, &block, &waiting);
	sigdelset(&waiting, SIGCHLD);
	sigaction(SIGCHLD, &sa, NULL);
	while (n->own >= 0 || k.running) {
		struct pollfd p = {.fd = n->own, .events = POLLIN};
		int ready = ppoll(&p, 1, NULL, &waiting);

		reap(&k);
		if (ready > 0 && n->own >= 0 && !serve_one(&k))
			drop(&k);
	}
	free(k.pids);
}

/* --- a session that asks --- */

static int send_ask(int to, const struct tf_zygote_ask *ask, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.align = {.cmsg_len = CMSG_LEN(sizeof(int)),
			     .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {(void *)ask, sizeof(*ask)};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_LEN(sizeof(int))};

	memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	return sendmsg(to, &m, MSG_NOSIGNAL) == sizeof(*ask) ? 0 : TELEFORK_E_CLOSED;
}

/* Asks a keeper; *ret_fd is the caller's, to say the word. Records: as many as fit into room bytes.
 */
static int ask_keeper(const struct tf_place *place, const struct tf_zygote_ask *ask, size_t size,
	void *records, size_t room, uint32_t *ret_n, int *ret_fd, struct tf_err *e)
{
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_reply r;
	struct tf_io io;
	int fd[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "socketpair");
	*ret_fd = fd[0];
	rc = send_ask(place->fd, ask, fd[1]);
	close(fd[1]);
	if (rc)
		return tf_fail(e, rc, "the zygote has just ended");
	tf_io_init(&io, fd[0], NULL);
	io.idle_ms = INT32_MAX; /* it has limits of its own, and its end is an end of file */
	rc = tf_reply_read(&io, &r, message, e);
	if (!rc && r.code)
		rc = tf_fail(e, r.code, "%s", message);
	*ret_n = rc ? 0 : (uint32_t)r.memory;
	if (!rc && r.memory * size > room)
		rc = tf_fail(e, TELEFORK_E_PROTOCOL, "%u records", *ret_n);
	return rc ? rc : tf_io_read(&io, records, *ret_n * size, e);
}

static uint32_t list(const struct tf_nursery *n, struct tf_zygote_info *info)
{
	const struct tf_zygote_ask ask = {.what = TF_ZYGOTE_LIST};
	struct tf_err quiet = {0};
	uint32_t k = 0;

	for (unsigned i = 0; i < n->n_places && k < TF_ZYGOTES_MAX; i++) {
		uint32_t one = 0;
		TF_CLOSE int fd = -1;

		if (n->place[i].keeps)
			ask_keeper(&n->place[i], &ask, sizeof(*info), &info[k], sizeof(*info), &one,
				&fd, &quiet);
		k += one;
	}
	return k;
}

int tf_nursery_answer(const struct tf_nursery *n, int fd, const struct telefork_options *options,
	struct tf_err *e)
{
	static union {
		int32_t pids[TF_SPAWN_MAX];
		struct tf_zygote_info info[TF_ZYGOTES_MAX];
	} records;
	size_t size = sizeof(*records.pids);
	struct tf_err why = {0};
	struct tf_zygote_ask ask;
	struct tf_reply r = {0};
	const struct tf_place *place;
	TF_CLOSE int keeper = -1;
	struct tf_io io;
	uint32_t count = 0;
	int rc;

	tf_io_init(&io, fd, options);
	rc = tf_io_read(&io, &ask, sizeof(ask), e);
	if (rc)
		return rc;
	place = find(n, &ask.name);
	if (ask.what == TF_ZYGOTE_LIST) {
		size = sizeof(*records.info);
		count = list(n, records.info);
	} else if (ask.what >= TF_ZYGOTE_WHATS || !tf_zygote_name_valid(&ask.name)) {
		tf_fail(&why, TELEFORK_E_PROTOCOL, "that is no question about zygotes");
	} else if (!place) {
		tf_fail(&why, TELEFORK_E_INVAL, "there is no zygote %.16s here", ask.name.text);
	} else {
		ask_keeper(place, &ask, size, &records, sizeof(records), &count, &keeper, &why);
	}
	r.code = why.code;
	r.memory = why.code ? 0 : count;
	rc = tf_reply_write(&io, &r, why.text, e);
	if (!rc && r.memory)
		rc = tf_io_write(&io, &records, r.memory * size, e);
	if (!rc && keeper >= 0)
		send(keeper, "g", 1, MSG_NOSIGNAL);
	return rc;
}
