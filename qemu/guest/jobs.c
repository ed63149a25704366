/* SPDX-License-Identifier: MIT */
/*
 * Programs that run in the guest on behalf of the host. A job is a session of its own; its
 * stdout and stderr are pipes. EXIT is queued when the first process has been reaped and all
 * it wrote is queued; descendants may hold the pipes for longer, CLOSED says when none does.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/guest/guest.h"

#define MOVE_BYTES (16 * 1024) /* of one stream in one round */

struct job {
	uint32_t id;    /* 0: free */
	pid_t pid;      /* also the process group */
	int in, out[2]; /* our ends of the pipes, -1 when closed */
	struct tf_wire_buf input;
	bool input_eof;
	bool exited, exit_sent;
	int owed[2]; /* bytes that were in the pipes when it exited */
	int status;
};

static struct job jobs[TF_AGENT_MAX_JOBS];
static uint32_t last_id;

/* What SPAWN asks for; the vectors are NULL-terminated. */
struct order {
	uint32_t flags;
	char **argv, **env;
	char *cwd;
};

static char **get_strings(struct tf_wire_reader *r)
{
	uint32_t n = tf_wire_get_u32(r);
	char **v = n > TF_AGENT_MAX_ARGS ? NULL : calloc(n + 1, sizeof(*v));

	if (!v) {
		r->failed = true;
		return NULL;
	}
	for (uint32_t i = 0; i < n && !r->failed; i++)
		v[i] = tf_wire_get_string(r, TF_AGENT_MAX_PAYLOAD);
	return v;
}

static void free_strings(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

static void order_done(struct order *o)
{
	free_strings(o->argv);
	free_strings(o->env);
	free(o->cwd);
}

static int get_order(struct tf_wire_reader *r, struct order *o)
{
	*o = (struct order){.flags = tf_wire_get_u32(r)};
	o->argv = get_strings(r);
	o->env = get_strings(r);
	o->cwd = tf_wire_get_string(r, TF_AGENT_MAX_PATH);
	if (r->failed || !o->argv[0]) {
		order_done(o);
		return -EBADMSG;
	}
	return 0;
}

static struct job *find_job(uint32_t id)
{
	for (size_t i = 0; id && i < TF_AGENT_MAX_JOBS; i++) {
		if (jobs[i].id == id)
			return &jobs[i];
	}
	return NULL;
}

static struct job *free_job(void)
{
	for (size_t i = 0; i < TF_AGENT_MAX_JOBS; i++) {
		if (!jobs[i].id)
			return &jobs[i];
	}
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* pipes[0..2] are the job's stdin, stdout, stderr; pipes[3] carries exec's errno. */
static void close_pipes(int pipes[4][2])
{
	for (int i = 0; i < 4; i++) {
		close_fd(&pipes[i][0]);
		close_fd(&pipes[i][1]);
	}
}

/* Our ends are two of the same terminal; stderr has none of its own. */
static int open_terminal(int pipes[4][2])
{
	int ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	int theirs = ours < 0 || unlockpt(ours) < 0
			     ? -1
			     : ioctl(ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

	pipes[1][0] = ours;
	pipes[0][0] = theirs;
	if (theirs < 0)
		return -errno;
	pipes[0][1] = fcntl(ours, F_DUPFD_CLOEXEC, 3);
	pipes[1][1] = fcntl(theirs, F_DUPFD_CLOEXEC, 3);
	pipes[2][1] = fcntl(theirs, F_DUPFD_CLOEXEC, 3);
	return pipes[0][1] < 0 || pipes[1][1] < 0 || pipes[2][1] < 0 ? -errno : 0;
}

static int open_pipes(const struct order *o, int pipes[4][2])
{
	bool terminal = o->flags & TF_AGENT_SPAWN_TTY;

	for (int i = 0; i < 4; i++)
		pipes[i][0] = pipes[i][1] = -1;
	if (terminal) {
		int rc = open_terminal(pipes);

		if (rc < 0) {
			close_pipes(pipes);
			return rc;
		}
	}
	for (int i = terminal ? 3 : 0; i < 4; i++) {
		if (i == 0 && !(o->flags & TF_AGENT_SPAWN_STDIN))
			continue;
		if (pipe2(pipes[i], O_CLOEXEC) < 0) {
			int rc = -errno;

			close_pipes(pipes);
			return rc;
		}
	}
	if (pipes[0][1] >= 0)
		fcntl(pipes[0][1], F_SETFL, O_NONBLOCK);
	fcntl(pipes[1][0], F_SETFL, O_NONBLOCK);
	if (!terminal)
		fcntl(pipes[2][0], F_SETFL, O_NONBLOCK);
	return 0;
}

static void run_child(const struct order *o, int pipes[4][2]) __attribute__((noreturn));

static void run_child(const struct order *o, int pipes[4][2])
{
	sigset_t none;
	int code, in, fd;

	setsid();
	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, "0", 1);
	in = pipes[0][0] >= 0 ? pipes[0][0] : open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (dup2(in, 0) < 0 || dup2(pipes[1][1], 1) < 0 || dup2(pipes[2][1], 2) < 0)
		goto fail;
	if (o->flags & TF_AGENT_SPAWN_TTY && ioctl(0, TIOCSCTTY, 0) < 0)
		goto fail;
	if (chdir(o->cwd[0] ? o->cwd : "/") < 0)
		goto fail;
	environ = o->env;
	execvpe(o->argv[0], o->argv, o->env);
fail:
	code = errno;
	(void)!write(pipes[3][1], &code, sizeof(code));
	_exit(127);
}

/* Returns the pid, or what stopped exec. The child of a failed exec is reaped by the loop. */
static pid_t start(const struct order *o, int pipes[4][2])
{
	int code = 0;
	ssize_t n;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		run_child(o, pipes);
	close_fd(&pipes[3][1]);
	do
		n = read(pipes[3][0], &code, sizeof(code));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(code) ? -code : pid;
}

void guest_spawn(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	struct order o;
	struct job *job = free_job();
	int pipes[4][2];
	size_t mark;
	int rc = get_order(r, &o);

	if (rc < 0) {
		guest_reply(g, tag, rc);
		return;
	}
	rc = job ? open_pipes(&o, pipes) : -EAGAIN;
	if (rc == 0) {
		rc = start(&o, pipes);
		if (rc > 0) {
			*job = (struct job){.id = ++last_id ? last_id : ++last_id,
				.pid = rc,
				.in = pipes[0][1],
				.out = {pipes[1][0], pipes[2][0]}};
			pipes[0][1] = pipes[1][0] = pipes[2][0] = -1;
		}
		close_pipes(pipes);
	}
	order_done(&o);
	mark = guest_reply_begin(g, tag, rc < 0 ? rc : 0);
	if (rc > 0) {
		tf_wire_u32(&g->out, job->id);
		tf_wire_u32(&g->out, (uint32_t)rc);
	}
	guest_reply_end(g, mark, tag);
}

void guest_stdin(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	struct job *job = find_job(tf_wire_get_u32(r));
	size_t len;
	const void *data = tf_wire_get_blob(r, TF_AGENT_CHUNK, &len);
	int rc = 0;

	if (!data) {
		rc = -EBADMSG;
	} else if (!job || job->exited) {
		rc = -ESRCH;
	} else if (job->in < 0 || job->input_eof) {
		rc = -EPIPE;
	} else if (!len) {
		job->input_eof = true;
	} else if (tf_wire_size(&job->input) + len > TF_AGENT_MAX_STDIN) {
		rc = -EAGAIN;
	} else {
		job->input.failed = false;
		tf_wire_bytes(&job->input, data, len);
		rc = job->input.failed ? -ENOMEM : 0;
	}
	guest_reply(g, tag, rc);
}

void guest_signal(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	struct job *job = find_job(tf_wire_get_u32(r));
	uint32_t signo = tf_wire_get_u32(r);
	int rc = 0;

	if (r->failed || signo > 64)
		rc = -EBADMSG;
	else if (!job)
		rc = -ESRCH;
	else if (kill(-job->pid, (int)signo) < 0)
		rc = -errno;
	guest_reply(g, tag, rc);
}

void guest_resize(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	struct job *job = find_job(tf_wire_get_u32(r));
	struct winsize size = {
		.ws_row = (unsigned short)tf_wire_get_u32(r),
		.ws_col = (unsigned short)tf_wire_get_u32(r),
	};
	int rc = 0;

	if (r->failed)
		rc = -EBADMSG;
	else if (!job || job->out[0] < 0)
		rc = -ESRCH;
	else if (ioctl(job->out[0], TIOCSWINSZ, &size) < 0)
		rc = -errno;
	guest_reply(g, tag, rc);
}

size_t guest_jobs_poll(struct guest *g, struct pollfd fds[static GUEST_JOB_POLLS])
{
	bool room = guest_has_room(g);
	size_t n = 0;

	for (size_t i = 0; i < TF_AGENT_MAX_JOBS; i++) {
		struct job *job = &jobs[i];

		if (!job->id)
			continue;
		for (int s = 0; s < 2 && room; s++) {
			if (job->out[s] >= 0)
				fds[n++] = (struct pollfd){.fd = job->out[s], .events = POLLIN};
		}
		if (job->in >= 0 && tf_wire_size(&job->input))
			fds[n++] = (struct pollfd){.fd = job->in, .events = POLLOUT};
	}
	return n;
}

/* Queue up to MOVE_BYTES of stream @s. */
static void move_output(struct guest *g, struct job *job, int s)
{
	char data[MOVE_BYTES];
	ssize_t n;
	size_t mark;

	if (job->out[s] < 0)
		return;
	n = read(job->out[s], data, sizeof(data));
	if (n < 0 && errno != EIO) {
		job->owed[s] = 0;
		return;
	}
	if (n <= 0) { /* a terminal that nobody has open any more says EIO */
		close_fd(&job->out[s]);
		job->owed[s] = 0;
		return;
	}
	job->owed[s] -= n < job->owed[s] ? (int)n : job->owed[s];
	mark = tf_wire_begin(&g->out, TF_AGENT_OUTPUT, job->id);
	tf_wire_u32(&g->out, (uint32_t)s + 1);
	tf_wire_blob(&g->out, data, (size_t)n);
	if (tf_wire_end(&g->out, mark) < 0)
		guest_log("no memory: %zd bytes of output of job %u lost", n, job->id);
}

static void move_input(struct job *job)
{
	while (job->in >= 0 && tf_wire_size(&job->input)) {
		ssize_t n = write(
			job->in, job->input.data + job->input.start, tf_wire_size(&job->input));

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			close_fd(&job->in);
			break;
		}
		tf_wire_drop(&job->input, (size_t)n);
	}
	if (job->input_eof)
		close_fd(&job->in);
}

static int send_event(struct guest *g, const struct job *job, uint16_t type)
{
	size_t mark = tf_wire_begin(&g->out, type, job->id);

	if (type == TF_AGENT_EXIT)
		tf_wire_u32(&g->out, (uint32_t)job->status);
	return tf_wire_end(&g->out, mark);
}

static void finish(struct guest *g, struct job *job)
{
	if (!job->exit_sent) {
		close_fd(&job->in);
		job->exit_sent = send_event(g, job, TF_AGENT_EXIT) == 0;
	}
	if (!job->exit_sent || job->out[0] >= 0 || job->out[1] >= 0)
		return;
	if (send_event(g, job, TF_AGENT_CLOSED) == 0) {
		tf_wire_done(&job->input);
		job->id = 0;
	}
}

static bool owes(const struct job *job)
{
	return job->owed[0] > 0 || job->owed[1] > 0;
}

void guest_jobs_move(struct guest *g)
{
	for (size_t i = 0; i < TF_AGENT_MAX_JOBS; i++) {
		struct job *job = &jobs[i];

		if (!job->id)
			continue;
		move_input(job);
		do {
			for (int s = 0; s < 2 && guest_has_room(g); s++)
				move_output(g, job, s);
		} while (job->exited && owes(job) && guest_has_room(g));
		if (job->exited && !owes(job))
			finish(g, job);
	}
}

bool guest_jobs_due(const struct guest *g)
{
	for (size_t i = 0; i < TF_AGENT_MAX_JOBS && guest_has_room(g); i++) {
		if (jobs[i].id && jobs[i].exited && !jobs[i].exit_sent)
			return true;
	}
	return false;
}

/*
 * A descendant that goes on writing must not hold back the exit status, so what the pipes
 * hold at the exit is counted and EXIT follows just that.
 */
static void note_exit(struct job *job, int status)
{
	job->exited = true;
	job->status = status;
	for (int s = 0; s < 2; s++) {
		if (job->out[s] < 0 || ioctl(job->out[s], FIONREAD, &job->owed[s]) < 0)
			job->owed[s] = 0;
	}
}

void guest_jobs_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (size_t i = 0; i < TF_AGENT_MAX_JOBS; i++) {
			if (jobs[i].id && jobs[i].pid == pid && !jobs[i].exited)
				note_exit(&jobs[i], status);
		}
	}
}
