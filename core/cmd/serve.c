/* SPDX-License-Identifier: MIT */
/*
 * telefork serve ADDRESS: receives processes, each in a session process of its own, so that one bad
 * sender harms nobody else. A program that arrives can do here whatever the receiving user can:
 * a tcp address needs a token, or the word that none is wanted.
 */
#include "core/base/cleanup.h"
#include "core/channel/channel.h"
#include "core/cmd/arrival.h"
#include "core/cmd/cmd.h"
#include "core/cmd/forward.h"
#include "core/cmd/nursery.h"
#include "core/cmd/pump.h"
#include "core/cmd/rehearse.h"
#include "core/cmd/timing.h"
#include "core/pack/unpack.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANDSHAKE_S 30
#define FACTS_ROOM  ((size_t)4 << 20)
#define JOBS_MAX    64
#define ZYGOTES_MAX 16
#define COPIES_MAX  4096
#define REFUSERS    16 /* sessions more, that only say that there are too many */
#define NO_TOKEN \
	"%s: whoever connects can run anything here: give --token-file FILE, or say --insecure"

struct arguments {
	const char *address, *token_file;
	bool insecure, once, detach, input, timing;
	int jobs, handshake_ms, idle_ms;
	uint64_t max_memory, store;
	unsigned zygotes, copies;
	unsigned restore; /* TELEFORK_RESTORE_* */
};

struct serve {
	struct tf_address address;
	const char *token; /* NULL: none is asked for */
	struct telefork_options options, until_plan;
	bool once, detach;
	bool looked; /* at what is here: a session */
	int jobs, handshake_ms, running;
	pid_t *session;         /* running ones */
	struct tf_store *store; /* of pages, of all sessions; NULL: none is kept */
	struct tf_unpacker *unpacker;
	struct tf_nursery nursery;
	struct tf_timing timing;
};

enum {
	KEY_TOKEN = 256,
	KEY_INSECURE,
	KEY_ONCE,
	KEY_DETACH,
	KEY_INPUT,
	KEY_JOBS,
	KEY_MEMORY,
	KEY_HANDSHAKE,
	KEY_ALLOW,
	KEY_IDLE,
	KEY_TIMING,
	KEY_STORE,
	KEY_ZYGOTE,
	KEY_COPIES,
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case KEY_TOKEN:
		a->token_file = arg;
		return 0;
	case KEY_INSECURE:
		a->insecure = true;
		return 0;
	case KEY_ONCE:
		a->once = true;
		return 0;
	case KEY_DETACH:
		a->detach = true;
		return 0;
	case KEY_INPUT:
		a->input = true;
		return 0;
	case KEY_JOBS:
		a->jobs = atoi(arg);
		if (a->jobs < 1 || a->jobs > 4096)
			argp_error(state, "--max-jobs %s: 1 to 4096", arg);
		return 0;
	case KEY_MEMORY:
		a->max_memory = strtoull(arg, NULL, 0) << 20;
		if (!a->max_memory)
			argp_error(state, "--max-memory %s: MiB, at least 1", arg);
		return 0;
	case KEY_STORE:
		a->store = strtoull(arg, NULL, 0) << 20;
		if (!a->store)
			argp_error(state, "--store %s: MiB, at least 1", arg);
		return 0;
	case KEY_HANDSHAKE:
		a->handshake_ms = tf_parse_seconds(arg);
		if (a->handshake_ms < 0)
			argp_error(state, "--handshake-time %s: 1 to 86400 seconds", arg);
		return 0;
	case KEY_ALLOW:
		if (strcmp(arg, "credentials") != 0)
			argp_error(state, "--allow %s: it can go without credentials", arg);
		a->restore |= TELEFORK_RESTORE_OWN_USER;
		return 0;
	case KEY_IDLE:
		a->idle_ms = tf_parse_seconds(arg);
		if (a->idle_ms < 0)
			argp_error(state, "--idle-time %s: 1 to 86400 seconds", arg);
		return 0;
	case KEY_ZYGOTE:
		a->zygotes = arg ? (unsigned)strtoul(arg, NULL, 10) : ZYGOTES_MAX;
		if (!a->zygotes || a->zygotes > TF_ZYGOTES_MAX)
			argp_error(state, "--zygote=%s: 1 to %u", arg, TF_ZYGOTES_MAX);
		return 0;
	case KEY_COPIES:
		a->copies = (unsigned)strtoul(arg, NULL, 10);
		if (!a->copies || a->copies > 1u << 20)
			argp_error(state, "--max-copies %s: 1 to %u", arg, 1u << 20);
		return 0;
	case KEY_TIMING:
		a->timing = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->address)
			argp_error(state, "one ADDRESS only");
		a->address = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->address)
			argp_error(state, "which ADDRESS?");
		if (a->detach && !a->once)
			argp_error(state, "--detach: say --once, too");
		if (a->address && a->input && (!a->once || a->detach || !strcmp(a->address, "-")))
			argp_error(state, "--input: say --once, too, and neither --detach nor -");
		if (a->zygotes && a->once)
			argp_error(state, "--zygote: nobody could ask, with --once");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int check_peer(int fd, struct tf_err *e)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return tf_fail_errno(e, TELEFORK_E_AUTH, errno, "the peer's uid cannot be told");
	if (peer.uid != geteuid() && peer.uid != 0)
		return tf_fail(e, TELEFORK_E_AUTH, "uid %u may not send to a receiver of uid %u",
			(unsigned)peer.uid, (unsigned)geteuid());
	return 0;
}

/* Looks at what is here. Until the plan is made the handshake's time runs. */
static int look(struct tf_pad *pad, int fd, struct serve *s, bool rounds)
{
	s->until_plan = s->options;
	s->until_plan.deadline_ms = s->handshake_ms;
	s->until_plan.restore |= rounds ? TF_RESTORE_ROUNDS : 0;
	s->unpacker = tf_unpacker_new(s->store); /* memory stays as it is then */
	s->looked = true;
	return tf_pad_begin(pad, fd, &s->until_plan);
}

/* full: no process is taken at the moment; questions are answered. While it waits for our word, a
 * sender on this machine leaves us the processors that its fork needs afterwards. */
static int greet(int fd, struct serve *s, bool full, struct tf_errand *errand, struct tf_pad *pad,
	struct tf_err *e)
{
	struct telefork_options limits = {.deadline_ms = s->handshake_ms};
	struct tf_io io;

	tf_io_init(&io, fd, &limits);
	if (s->address.kind == TF_ADDRESS_UNIX)
		check_peer(fd, e);
	if (tf_greet_hear(&io, s->token, errand, e))
		return e->code;
	if (full && errand->kind != TF_ERRAND_SETTLE && errand->kind != TF_ERRAND_ZYGOTE)
		tf_fail(e, TELEFORK_E_LIMIT, "this receiver has %d processes already: try later",
			s->jobs);
	if (!e->code && errand->kind == TF_ERRAND_BRING && look(pad, fd, s, false))
		*e = pad->err;
	return tf_greet_tell(&io, tf_unpack_offers(s->store), e);
}

static int prepare(
	struct tf_pad *pad, int fd, struct serve *s, const struct tf_mark *mark, bool rounds)
{
	int rc;

	tf_timing_begin(&s->timing, "description");
	rc = s->looked ? 0 : look(pad, fd, s, rounds);
	if (!rc)
		rc = tf_pad_take(pad, mark, s->unpacker);
	if (pad->head_ns)
		tf_timing_began(&s->timing, "plan", pad->head_ns);
	if (!rc)
		tf_timing_begin(&s->timing, "restore");
	pad->options = &s->options;
	pad->io.deadline_ns = 0;
	return rc;
}

/* What a yoyo's function left behind, also outside of its process group: it was all born here. */
static void end_orphans(void)
{
	char text[4096];

	for (;;) {
		TF_CLOSE int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

		if (n <= 0)
			return;
		text[n] = '\0';
		for (char *at = text, *end; *at; at = end) {
			long pid = strtol(at, &end, 10);

			if (end == at || *end != ' ') /* the last one may be cut */
				break;
			kill((pid_t)pid, SIGKILL);
		}
		if (waitpid(-1, NULL, __WALL) < 0)
			return;
	}
}

/* Post-copy: it runs, and the rest of its memory comes. Without it, it must not go on, nor what it
 * forked. */
static int take_later(struct tf_pad *pad, struct serve *s)
{
	int rc;

	if (!pad->restore.post_copy)
		return 0;
	tf_announce(pad);
	tf_timing_begin(&s->timing, "memory");
	rc = tf_pad_page(pad);
	if (rc)
		end_orphans();
	return rc;
}

/* tf_pad_start(). Between the answer and the word to the copy nobody ends us, for its sender was
 * told that it runs; and who hears from the copy may end us before we have told anything more. */
static int let_run(struct tf_pad *pad, struct serve *s)
{
	sigset_t all, before;
	int rc = tf_pad_hold(pad);

	if (rc)
		return rc;
	tf_timing_tell(&s->timing);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	rc = tf_pad_go(pad);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static int receive(struct tf_pad *pad, int fd, struct serve *s, const struct tf_mark *mark)
{
	int rc = prepare(pad, fd, s, mark, false);

	if (!rc)
		rc = let_run(pad, s);
	if (!rc)
		rc = take_later(pad, s);
	if (rc || !pad->restore.post_copy)
		return rc;
	rc = tf_pad_answer(pad, TF_OUTCOME_RUNNING);
	tf_pad_hang_up(pad);
	return rc;
}

/* The copy is held and recorded: lets it run on the sender's word. */
static int commit(
	struct tf_pad *pad, struct tf_arrival *a, const struct tf_errand *errand, struct serve *s)
{
	int rc = tf_arrival_prepared(a, pad, &pad->err);

	if (!rc)
		rc = tf_pad_answer(pad, TF_OUTCOME_PREPARED);
	if (!rc)
		rc = tf_commit_read(&pad->io, errand->id, &pad->err);
	tf_timing_tell(&s->timing);
	if (!rc)
		rc = tf_pad_release(pad);
	if (rc && tf_arrival_undo(a, pad))
		return rc;
	if (pad->restore.post_copy) {
		tf_pad_answer(pad, TF_OUTCOME_RUNNING);
		rc = take_later(pad, s);
	}
	if (pad->restore.post_copy && rc) {
		tf_arrival_lost(a);
		return rc;
	}
	tf_arrival_running(a);
	pad->err = (struct tf_err){0};
	tf_pad_answer(pad, TF_OUTCOME_RUNNING); /* if it is lost, the sender asks */
	if (pad->restore.post_copy)
		tf_pad_hang_up(pad);
	pad->err = (struct tf_err){0};
	return 0;
}

static int receive_move(struct tf_pad *pad, int fd, struct serve *s, const struct tf_errand *errand)
{
	struct tf_err e = {0};
	struct tf_arrival a;
	int unable = tf_arrival_begin(&a, errand->id, &e);
	int rc = prepare(pad, fd, s, unable ? NULL : &a.mark, errand->kind == TF_ERRAND_ROUNDS);

	if (!rc && unable) {
		pad->err = e;
		rc = unable;
	}
	if (!rc)
		rc = tf_pad_hold(pad);
	if (rc && a.held >= 0)
		tf_arrival_undo(&a, pad);
	if (!rc) {
		tf_timing_begin(&s->timing, "commit");
		rc = commit(pad, &a, errand, s);
	}
	tf_arrival_end(&a);
	return rc;
}

/* What comes is a zygote, and this session its keeper. */
static int receive_zygote(
	struct tf_pad *pad, int fd, struct serve *s, const struct tf_errand *errand)
{
	struct tf_zygote_name name;
	struct tf_err e = {0};
	int rc, unable;

	memcpy(&name, errand->id, sizeof(name));
	unable = tf_nursery_may(&s->nursery, &name, &e);
	s->options.restore |= TF_RESTORE_ZYGOTE;
	rc = prepare(pad, fd, s, NULL, false);
	if (!rc && unable) {
		pad->err = e;
		rc = unable;
	}
	if (!rc)
		rc = tf_pad_hold(pad);
	if (rc)
		return rc;
	rc = tf_nursery_keep(&s->nursery, &name, &pad->err);
	if (!rc)
		rc = tf_pad_answer(pad, TF_OUTCOME_RUNNING);
	if (rc)
		tf_pad_kill(pad);
	return rc;
}

static int answer_question(int fd, const struct serve *s, const struct tf_errand *errand)
{
	struct tf_err e = {0}, quiet = {0};
	struct tf_reply r = {0};
	struct tf_io io;
	int outcome = tf_arrival_settle(errand->id, &r.pid, &e);

	tf_io_init(&io, fd, &s->options);
	if (outcome < 0)
		r.code = outcome;
	else
		r.outcome = (uint32_t)outcome;
	return tf_reply_write(&io, &r, e.text, &quiet) ? TF_EXIT_IO : TF_EXIT_OK;
}

/* One of many: the errand becomes what is to be done here. */
static int enter_chain(int fd, const struct serve *s, struct tf_errand *errand,
	struct tf_mark *ret_mark, struct tf_err *e)
{
	struct telefork_options o = {.idle_ms = s->options.idle_ms, .token = s->token};
	struct tf_chain c;

	fd = tf_forward_begin(fd, &o, &c, e);
	if (fd < 0) {
		tf_complain("refused", e->text);
		return fd;
	}
	errand->kind = c.head.zygote.text[0] ? TF_ERRAND_KEEP : TF_ERRAND_BRING;
	memcpy(errand->id, &c.head.zygote, sizeof(errand->id));
	ret_mark->index = c.head.index;
	return fd;
}

/* One sender. Returns the exit code of the process that arrived, as a shell would. */
static int session(int fd, struct serve *s, bool full)
{
	struct tf_errand errand;
	struct tf_err e = {0};
	struct tf_mark mark = {0};
	struct tf_pad pad;
	int rc, status = 0;
	bool relayed;
	pid_t child;

	tf_timing_begin(&s->timing, "greet");
	if (greet(fd, s, full, &errand, &pad, &e)) {
		tf_complain("refused", e.text);
		return TF_EXIT_REFUSED;
	}
	if (errand.kind == TF_ERRAND_SETTLE)
		return answer_question(fd, s, &errand);
	if (errand.kind == TF_ERRAND_ZYGOTE)
		return tf_nursery_answer(&s->nursery, fd, &s->options, &e) ? TF_EXIT_IO
									   : TF_EXIT_OK;
	if (errand.kind == TF_ERRAND_CHAIN) {
		fd = enter_chain(fd, s, &errand, &mark, &e);
		if (fd < 0)
			return TF_EXIT_REFUSED;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	rc = errand.kind == TF_ERRAND_MOVE || errand.kind == TF_ERRAND_ROUNDS
		     ? receive_move(&pad, fd, s, &errand)
	     : errand.kind == TF_ERRAND_KEEP ? receive_zygote(&pad, fd, s, &errand)
					     : receive(&pad, fd, s, mark.index ? &mark : NULL);
	if (!rc && !tf_pad_relayed(&pad))
		prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	tf_timing_tell(&s->timing);
	if (rc) {
		tf_complain(telefork_errname(rc), pad.err.text);
		tf_pad_refuse(&pad);
		return tf_exit_code(rc);
	}
	if (pad.left.code)
		tf_complain("left behind", pad.left.text);
	if (!pad.restore.post_copy)
		tf_announce(&pad);
	if (errand.kind == TF_ERRAND_KEEP) {
		close(fd);
		tf_nursery_run(&s->nursery, &pad, &errand);
		tf_pad_done(&pad);
		return TF_EXIT_OK;
	}
	relayed = tf_pad_relayed(&pad);
	if (relayed)
		tf_relay_run(&pad.relay);
	child = pad.child;
	tf_pad_done(&pad);
	close(fd); /* else from here on the connection is the copy's */
	if (s->detach && !relayed)
		return TF_EXIT_OK;
	telefork_child_wait(child, &status);
	if (relayed)
		end_orphans();
	if (WIFSIGNALED(status))
		fprintf(stderr, "telefork: pid %d ended by signal %d\n", (int)child,
			WTERMSIG(status));
	return tf_exit_status(status);
}

/* --- many senders --- */

static volatile sig_atomic_t stopped;

static void on_signal(int signo)
{
	stopped |= signo != SIGCHLD;
}

/* Signals that arrive while we wait for a sender, and only then. */
static void take_signals(sigset_t *ret_waiting)
{
	static const int signals[] = {SIGCHLD, SIGTERM, SIGINT};
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		sigaddset(&set, signals[i]);
		sigaction(signals[i], &sa, NULL);
	}
	sigprocmask(SIG_BLOCK, &set, ret_waiting);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigdelset(ret_waiting, signals[i]);
}

static void give_signals_back(const sigset_t *waiting)
{
	signal(SIGCHLD, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigprocmask(SIG_SETMASK, waiting, NULL);
}

static void reap(struct serve *s, int flags)
{
	bool killed = false;
	int status;
	pid_t pid;

	while (s->running && (pid = waitpid(-1, &status, flags)) > 0) {
		killed |= WIFSIGNALED(status);
		for (int i = 0; i < s->running; i++)
			if (s->session[i] == pid)
				s->session[i] = s->session[--s->running];
		tf_nursery_left(&s->nursery, pid);
	}
	if (killed)
		tf_arrival_recover();
}

static void start_session(int fd, int listener, struct serve *s, const sigset_t *waiting)
{
	pid_t pid;

	if (s->running == s->jobs + REFUSERS)
		return; /* it sees the connection close */
	tf_nursery_open(&s->nursery);
	pid = fork();
	tf_nursery_forked(&s->nursery, pid);
	if (!pid) {
		give_signals_back(waiting);
		close(listener);
		_exit(session(fd, s, s->running >= s->jobs));
	}
	if (pid > 0)
		s->session[s->running++] = pid;
	else
		fprintf(stderr, "telefork: fork: %s\n", strerror(errno));
}

/* Waits for a sender. A descriptor; -1: a signal came, or nobody after all; -2: no more. */
static int next_sender(int listener, struct serve *s, struct pollfd *p, const sigset_t *waiting)
{
	unsigned n = s->nursery.n_places;
	int fd;

	tf_nursery_poll(&s->nursery, p);
	p[n] = (struct pollfd){listener, POLLIN, 0};
	if (ppoll(p, n + 1, NULL, waiting) < 0)
		return -1;
	tf_nursery_hear(&s->nursery, p);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0 || errno == EINTR || errno == ECONNABORTED || errno == EAGAIN)
		return fd;
	fprintf(stderr, "telefork: accept: %s\n", strerror(errno));
	return -2;
}

/* Transfers under way end with their sessions; processes that run here stay. */
static void end_sessions(struct serve *s)
{
	for (int i = 0; i < s->running; i++)
		kill(s->session[i], SIGTERM);
	reap(s, 0);
}

static int serve_all(int listener, struct serve *s)
{
	unsigned sessions = (unsigned)s->jobs + REFUSERS;
	TF_FREE struct pollfd *p = calloc(sessions + 1, sizeof(*p));
	struct tf_err e = {0};
	sigset_t waiting;
	int fd = -1;

	s->session = calloc(sessions, sizeof(*s->session));
	if (!s->session || !p || tf_nursery_init(&s->nursery, sessions, &e)) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): p is freed by its attribute */
		free(s->session);
		return TF_EXIT_SYSTEM;
	}
	/* Between poll and accept a sender may leave. */
	fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
	take_signals(&waiting);
	while (!stopped && fd != -2) {
		fd = next_sender(listener, s, p, &waiting);
		reap(s, WNOHANG);
		if (fd >= 0 && s->once)
			break;
		if (fd >= 0) {
			start_session(fd, listener, s, &waiting);
			close(fd);
		}
	}
	close(listener);
	if (s->address.kind == TF_ADDRESS_UNIX)
		unlink(s->address.path);
	end_sessions(s);
	tf_nursery_done(&s->nursery);
	free(s->session);
	give_signals_back(&waiting);
	if (fd >= 0 && s->once)
		return session(fd, s, false);
	return fd == -2 ? TF_EXIT_SYSTEM : TF_EXIT_OK;
}

static bool is_loopback(const struct tf_address *a)
{
	return !strncmp(a->host, "127.", 4) || !strcmp(a->host, "::1") ||
	       !strcmp(a->host, "localhost");
}

static bool is_fifo(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISFIFO(st.st_mode);
}

/* A socket that somebody else accepted (inetd, systemd, socat), or two pipes (sshd): whoever holds
 * their other ends started us. */
static int take_stdin(const struct arguments *a, struct tf_address *address, struct tf_err *e)
{
	struct sockaddr_storage peer = {0};
	socklen_t size = sizeof(peer);

	if (!a->once)
		return tf_fail(e, TELEFORK_E_ADDRESS, "-: one connection only: say --once");
	if (is_fifo(STDIN_FILENO) && is_fifo(STDOUT_FILENO)) {
		address->kind = TF_ADDRESS_UNIX;
		return tf_pump_stdio(e);
	}
	if (getsockname(STDIN_FILENO, (struct sockaddr *)&peer, &size))
		return tf_fail(e, TELEFORK_E_ADDRESS,
			"-: standard input is no socket, nor are both standard streams pipes");
	if (peer.ss_family == AF_UNIX)
		address->kind = TF_ADDRESS_UNIX; /* its peer's uid can be told */
	else if (!a->token_file && !a->insecure)
		return tf_fail(e, TELEFORK_E_AUTH, NO_TOKEN, a->address);
	return fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
}

/* Before anybody waits for it. */
static int look_around(struct tf_err *e)
{
	static struct tf_arena arena;

	return tf_arena_init(&arena, FACTS_ROOM)
		       ? tf_fail(e, TELEFORK_E_NOMEM, "out of memory for what is here")
		       : tf_facts_remember(&arena, e);
}

static int start(const struct arguments *a, struct tf_err *e)
{
	static char token[TELEFORK_TOKEN_MAX + 1];
	struct serve s = {
		.options = {.stdio = a->detach  ? TELEFORK_STDIO_NULL
				     : a->input ? TELEFORK_STDIO_INPUT
						: TELEFORK_STDIO_LOG,
			.max_memory = a->max_memory,
			.restore = a->restore | TF_RESTORE_POST_COPY,
			.idle_ms = a->idle_ms},
		.token = a->token_file ? token : NULL,
		.once = a->once,
		.detach = a->detach,
		.jobs = a->jobs,
		.handshake_ms = a->handshake_ms,
		.timing = {.on = a->timing},
		.nursery = {.most = a->zygotes, .copies = a->copies},
	};
	char text[TF_ADDRESS_TEXT];
	int fd = tf_address_parse(a->address, &s.address, e);

	if (!fd && s.address.kind == TF_ADDRESS_TCP && !a->token_file && !a->insecure)
		fd = tf_fail(e, TELEFORK_E_AUTH, NO_TOKEN, a->address);
	if (!fd && a->token_file)
		fd = tf_read_token(a->token_file, token, e);
	if (!fd && a->store && !(s.store = tf_store_new(a->store, e)))
		fd = e->code;
	if (!fd && s.address.kind == TF_ADDRESS_STDIO) {
		fd = take_stdin(a, &s.address, e);
		return fd < 0 ? fd : session(fd, &s, false);
	}
	if (!fd)
		fd = look_around(e);
	if (!fd)
		fd = tf_channel_listen(&s.address, text, sizeof(text), e);
	if (fd < 0)
		return fd;
	if (s.address.kind == TF_ADDRESS_TCP && !is_loopback(&s.address))
		fprintf(stderr,
			"telefork: warning: %s is not loopback, and memory travels in the "
			"clear\n",
			text);
	tf_arrival_recover();
	if (!s.once)
		tf_rehearse(&s.options);
	printf("%s\n", text);
	fflush(stdout);
	return serve_all(fd, &s);
}

int tf_cmd_serve(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"token-file", KEY_TOKEN, "FILE", 0, "Accept only senders with this token", 0},
		{"insecure", KEY_INSECURE, 0, 0, "Accept anyone (tcp)", 0},
		{"once", KEY_ONCE, 0, 0, "One process, then exit as it did", 0},
		{"detach", KEY_DETACH, 0, 0,
			"With --once: exit when it runs; it has /dev/null as its standard streams",
			0},
		{"input", KEY_INPUT, 0, 0, "With --once: it reads this command's standard input",
			0},
		{"max-jobs", KEY_JOBS, "N", 0, "Processes at once (64)", 0},
		{"handshake-time", KEY_HANDSHAKE, "SECONDS", 0,
			"A sender has to have said what it brings by then (30)", 0},
		{"allow", KEY_ALLOW, "KIND", 0,
			"Take processes without something: credentials, those that this user may "
			"not give them",
			0},
		{"idle-time", KEY_IDLE, "SECONDS", 0,
			"Give a sender up that moves no byte for so long (30)", 0},
		{"max-memory", KEY_MEMORY, "MIB", 0, "Most memory of one process", 0},
		{"store", KEY_STORE, "MIB", 0,
			"Keep pages in so much memory, so that what comes again need not be sent "
			"again",
			0},
		{"zygote", KEY_ZYGOTE, "N", OPTION_ARG_OPTIONAL,
			"Keep zygotes, N at most (16), and make copies of them when asked", 0},
		{"max-copies", KEY_COPIES, "N", 0, "Copies of one zygote at once (4096)", 0},
		{"timing", KEY_TIMING, 0, 0, "Say when each phase began and ended, for programs",
			0},
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "ADDRESS",
		.doc = "Receives processes at tcp://host:port or unix:path. Prints the address. "
		       "With "
		       "--once, ADDRESS may be - for a socket on standard input, or pipes on standard "
		       "input and output.",
		.help_filter = tf_exit_help};
	struct arguments a = {
		.jobs = JOBS_MAX, .handshake_ms = HANDSHAKE_S * 1000, .copies = COPIES_MAX};
	struct tf_err e = {0};
	int rc;

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	rc = start(&a, &e);
	if (rc >= 0)
		return rc;
	tf_complain("serve", e.text);
	if (rc == TELEFORK_E_AUTH)
		return TF_EXIT_USAGE;
	return a.token_file && rc == TELEFORK_E_IO ? TF_EXIT_INPUT : TF_EXIT_UNAVAILABLE;
}
