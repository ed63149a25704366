/* SPDX-License-Identifier: MIT */
/*
 * Receiving. The plan is complete before anything is torn down; then a child gives its own address
 * space to the restorer, reports over the control socket, and waits for 'g':
 *
 *   receiver                          child
 *   head, checks, plan
 *   fork --------------------------->  descriptors, restorer's range, executes the plan
 *   (pumps a file's extents)           reads extents ...
 *   <------------ 'r' ---------------  BARRIER
 *   (sets by ptrace what only ptrace sets)
 *   answer to the sender
 *   ------------- 'g' -------------->  rt_sigreturn
 *
 * A process that knows nothing of us is followed through its rt_sigreturn before the sender hears
 * of it, see landing.h. One that is moved is held until the sender says that its own stands still,
 * and noted before it runs (docs/commit.md). The child's side is pad_child.c.
 */
#include "core/restore/pad.h"
#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/wait.h"
#include "core/restore/files.h"
#include "core/restore/fit.h"
#include "core/restore/known.h"
#include "core/restore/landing.h"
#include "core/restore/objects.h"
#include "core/restore/pad_impl.h"
#include "core/restore/tracer.h"
#include "core/restore/zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Bytes a second, on the whole, without a deadline. */
#define SLOWEST 4096u

#define SMALL_PLAN 262144u /* bytes of the arena: a small program's head, image and plan */

#define FACTS_NS 1000000000u /* what is known of the machine is good for so long */

/* The deadline, or without one: idle time is no bound for a sender that sends a byte now and then,
 * so the whole has to come at a rate. */
static uint64_t last_moment(const struct tf_pad *p, uint64_t bytes)
{
	uint64_t seconds = bytes / SLOWEST;

	if (p->options->deadline_ms > 0)
		return p->io.deadline_ns;
	if (seconds > 1000000000u)
		seconds = 1000000000u;
	return tf_now_ns() + (uint64_t)p->io.idle_ms * 1000000u + seconds * 1000000000u;
}

/* --- prepare --- */

static int read_stream_head(struct tf_pad *p)
{
	struct tf_stream_header h;
	int rc;

	p->io.deadline_ns = last_moment(p, 0);
	rc = tf_stream_read_header(&p->io, &h, &p->err);
	if (rc)
		return rc;
	p->io.deadline_ns = last_moment(p, h.head_size);
	p->stream_flags = h.flags;
	p->head_size = h.head_size;
	p->head = tf_arena_alloc(&p->arena, h.head_size);
	if (!p->head)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "a head of %llu bytes",
			(unsigned long long)h.head_size);
	return tf_stream_read_head(&p->io, p->head, h.head_size, &p->chain, &p->count, &p->err);
}

static int find_way_back(struct tf_pad *p)
{
	struct stat st;
	int flags = fcntl(p->io.fd, F_GETFL);

	if (flags < 0)
		return tf_fail_errno(&p->err, TELEFORK_E_INVAL, errno, "descriptor %d", p->io.fd);
	if ((flags & O_PATH) || (flags & O_ACCMODE) == O_WRONLY)
		return tf_fail(&p->err, TELEFORK_E_INVAL, "descriptor %d is not open for reading",
			p->io.fd);
	p->file = !fstat(p->io.fd, &st) && S_ISREG(st.st_mode);
	p->answers = !p->file && (p->io.socket || (flags & O_ACCMODE) == O_RDWR);
	return 0;
}

bool tf_pad_relayed(const struct tf_pad *p)
{
	return p->stream_flags & TF_STREAM_RELAY;
}

static int check_relay(struct tf_pad *p)
{
	if (p->stream_flags & ~(TF_STREAM_RELAY | TF_STREAM_ASK | TF_STREAM_OFFER))
		return tf_fail(&p->err, TELEFORK_E_PROTOCOL, "the stream has unknown flags %#x",
			p->stream_flags);
	if (p->mark.from && (!p->answers || tf_pad_relayed(p)))
		return tf_fail(&p->err, TELEFORK_E_PROTOCOL,
			"a move arrived as a process that is to come back, or on a one-way channel");
	if (tf_pad_relayed(p) &&
		(!p->answers || p->restore.zygote || p->image.source.channel_fd < 0))
		return tf_fail(&p->err, TELEFORK_E_PROTOCOL,
			"a process that is to come back arrived on a one-way channel");
	return 0;
}

/* Probing takes signal actions and addresses for a moment: one thread at a time. */
static int gather_facts(struct tf_pad *p)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int rc;

	if (!p->break_page)
		p->break_page = tf_guest_hold_break();
	p->facts_ns = tf_now_ns();
	pthread_mutex_lock(&lock);
	rc = tf_facts_gather(&p->facts, &p->arena, &p->err);
	pthread_mutex_unlock(&lock);
	return rc;
}

/* They were gathered before the head came: they are still true if that was not long ago,
 * and nobody else is here to map memory. */
static int settle_facts(struct tf_pad *p)
{
	bool old = p->staging || tf_now_ns() - p->facts_ns > FACTS_NS || tf_host_threads() != 1;
	int rc = old ? gather_facts(p) : 0;

	if (!rc && p->image.source.origin == TF_ORIGIN_TASK &&
		!(p->facts.flags & (TF_FACT_EMULATED | TF_FACT_PTRACE)) &&
		(p->facts.traces || tf_tracer_allowed()))
		p->facts.flags |= TF_FACT_PTRACE;
	if (!rc)
		p->facts.flags |= tf_facts_link(&p->facts, &p->image);
	return rc;
}

/* Nobody has the copy's threads wait for what is left. */
static void give_up_waits(struct tf_image *img)
{
	for (uint32_t i = 0; i < img->n_waits; i++) {
		struct tf_regs *regs = &img->threads[img->waits[i].thread].regs;
		uint64_t arg[6];
		long nr = tf_arch_next_call(regs, arg);

		if (tf_wait_gives_up(nr, arg, true))
			tf_arch_task_give_up(regs, EINTR);
	}
	img->n_waits = 0;
}

/* Where the receiver may trace: it follows each thread to its place. Else the copy gets there
 * alone. */
static bool lands(const struct tf_pad *p)
{
	return p->image.source.origin == TF_ORIGIN_TASK && p->facts.flags & TF_FACT_PTRACE &&
	       !p->restore.zygote;
}

/* Whether memory that comes later can be waited for. */
static bool may_wait(const struct tf_pad *p)
{
	return p->image.n_later && p->options->restore & TF_RESTORE_POST_COPY && lands(p) &&
	       p->facts.flags & TF_FACT_UFFD && p->facts.page_size <= p->image.source.page_size;
}

/* What is waited for. Files that are here would be compared with what comes: those parts are the
 * process's own memory then, if they have to come at all. */
static int settle_later(struct tf_pad *p)
{
	struct tf_image *img = &p->image;
	uint32_t k = 0;
	int rc;

	tf_image_note_waiting(img);
	rc = tf_known_choose(p);
	for (uint32_t i = 0; i < img->n_maps; i++) {
		while (k < img->n_later && img->later[k].end <= img->maps[i].start)
			k++;
		if (k < img->n_later && img->later[k].start < img->maps[i].end)
			img->maps[i].here = false;
	}
	p->restore.post_copy = img->n_later;
	return rc;
}

static int later_of(int before, int now)
{
	return now ? now : before;
}

/* For files that the sender is told of, whether they are here. */
static bool make_room(struct tf_pad *p)
{
	struct tf_found *f = &p->found;

	if (!p->image.n_known && !(p->stream_flags & TF_STREAM_OFFER))
		return false;
	f->max = p->image.n_maps < TF_KNOWN_MAX ? p->image.n_maps : TF_KNOWN_MAX;
	f->file = tf_arena_array(&p->arena, f->max, sizeof(*f->file));
	return f->file;
}

/* As the program will: it is not shown what it may not see. */
static int look_for_files(struct tf_pad *p)
{
	bool hold = p->options->restore & TELEFORK_RESTORE_HOLD_FILES;
	bool before = p->err.code;
	struct tf_files_as as;
	int rc;

	tf_files_as(&as, &p->image, &p->facts);
	rc = tf_files_check(&p->image, hold, hold ? &p->left : &p->err);
	if (!rc && !before)
		rc = tf_objects_check(&p->image, &p->facts, p->options->restore,
			make_room(p) ? &p->found : NULL, &p->left, &p->err);
	tf_files_back(&as, &p->image, &p->facts);
	return rc;
}

int tf_pad_begin(struct tf_pad *p, int fd, const struct telefork_options *options)
{
	static const struct telefork_options defaults;
	bool rounds = options && options->restore & TF_RESTORE_ROUNDS;
	int rc;

	*p = (struct tf_pad){.options = options ? options : &defaults,
		.control = -1,
		.pager = {.uffd = -1, .guard.tell = -1},
		.pump = -1,
		.failed_step = UINT64_MAX,
		.relay = TF_RELAY_NONE};
	tf_io_init(&p->io, fd, p->options);
	rc = find_way_back(p);
	if (rc)
		return rc;
	if (rounds ? tf_arena_share(&p->arena, TF_ARENA_DEFAULT) : tf_guest_arena(&p->arena))
		return tf_fail(&p->err, TELEFORK_E_NOMEM,
			"no address space for an image (1 GiB at most, which stays untouched mostly): "
			"ulimit -v");
	return gather_facts(p);
}

int tf_pad_take(struct tf_pad *p, const struct tf_mark *mark, struct tf_unpacker *unpacker)
{
	bool own = p->options->restore & TELEFORK_RESTORE_OWN_USER;
	int rc;

	p->unpacker = unpacker;
	p->restore.zygote = p->options->restore & TF_RESTORE_ZYGOTE;
	if (mark)
		p->mark = *mark;
	if (!p->file)
		tf_arena_touch(&p->arena, SMALL_PLAN); /* the head is on its way still */
	rc = p->options->restore & TF_RESTORE_ROUNDS ? tf_stage_take(p) : 0;
	if (!rc)
		rc = p->file ? tf_pad_file_head(p) : read_stream_head(p);
	p->head_ns = rc ? 0 : tf_now_ns();
	if (p->options->deadline_ms <= 0)
		p->io.deadline_ns = 0; /* was the head's */
	if (!rc)
		rc = tf_image_decode(&p->image, &p->arena, p->head, p->head_size, &p->err);
	if (!rc && p->file)
		rc = tf_pad_file_check(p);
	for (uint32_t i = 0; i < p->image.n_segments && !rc; i++)
		p->to_come += p->image.segments[i].filesz;
	if (!rc)
		rc = settle_facts(p);
	tf_stage_count(p);
	if (!rc)
		rc = tf_compat_check(&p->image, &p->facts, p->options->max_memory, &p->err);
	/* Every reason is told. */
	if (!rc || rc == TELEFORK_E_INCOMPATIBLE)
		rc = later_of(rc, tf_fit(&p->image, &p->facts, own, &p->left, &p->err));
	if (!rc || rc == TELEFORK_E_INCOMPATIBLE)
		rc = later_of(rc, look_for_files(p));
	if (p->restore.zygote && (!rc || rc == TELEFORK_E_INCOMPATIBLE))
		rc = later_of(rc, tf_zygote_check(&p->image, &p->facts, &p->err));
	if (!rc)
		rc = check_relay(p);
	if (!lands(p))
		p->restore.mark = p->mark;
	p->restore.leads = p->mark.from;
	p->restore.index = p->mark.index;
	p->restore.same_ids = p->options->restore & TELEFORK_RESTORE_SAME_PID;
	p->restore.detached = p->options->restore & TELEFORK_RESTORE_DETACHED;
	if (!rc && may_wait(p))
		rc = settle_later(p);
	p->restore.staging = p->staging;
	/* A call of a thread that lands would wait for memory that nobody brings before it runs. */
	if (!rc && (!lands(p) || p->restore.post_copy))
		give_up_waits(&p->image);
	if (!rc)
		rc = tf_restore_choose_fds(&p->restore, &p->image, &p->facts,
			p->answers && !p->restore.zygote && !p->mark.index, tf_pad_relayed(p),
			&p->err);
	if (!rc)
		rc = tf_restore_build(
			&p->restore, &p->image, &p->facts, tf_restorer_size(), &p->arena, &p->err);
	if (rc)
		tf_stage_end(p);
	return rc;
}

int tf_pad_prepare(struct tf_pad *p, int fd, const struct telefork_options *options)
{
	int rc = tf_pad_begin(p, fd, options);

	return rc ? rc : tf_pad_take(p, NULL, NULL);
}

/* --- the receiver --- */

/* Of the child, which is gone: what it had made that has a name. */
static void undo(struct tf_pad *p)
{
	struct tf_files_as as;

	tf_files_as(&as, &p->image, &p->facts);
	tf_objects_undo(&p->image, &p->restore, p->child, p->began, p->failed_step);
	tf_files_back(&as, &p->image, &p->facts);
}

void tf_pad_kill(struct tf_pad *p)
{
	tf_landing_abandon(&p->landing);
	if (p->child > 0)
		kill(p->child, SIGKILL);
	while (p->child > 0 && waitpid(p->child, NULL, 0) < 0 && errno == EINTR)
		;
	if (p->child > 0)
		undo(p);
	tf_pager_done(&p->pager);
	p->child = 0;
}

int tf_pad_explain(struct tf_pad *p, const struct tf_report *r)
{
	const struct tf_plan *plan = &p->restore.plan;
	char text[256];

	if (r->step == UINT64_MAX)
		return tf_fail_errno(
			&p->err, -(int)r->where, -r->error, "the new process could not be set up");
	if (r->error == TF_REPORT_CHECKSUM)
		return tf_fail(&p->err, TELEFORK_E_CHECKSUM,
			"the extent at byte %llu arrived damaged", (unsigned long long)r->where);
	if (r->error == TF_REPORT_IMAGE)
		return tf_fail(&p->err, TELEFORK_E_IMAGE,
			"an extent at byte %llu lies in no mapping", (unsigned long long)r->where);
	if (r->error == TF_REPORT_CLOSED)
		return tf_fail(&p->err, TELEFORK_E_CLOSED,
			"the sender closed the connection in the middle of the memory");
	if (r->error == -EAGAIN)
		return tf_fail(&p->err, TELEFORK_E_TIMEOUT, "the sender moved no byte for %d ms",
			p->io.idle_ms);
	if (r->error == -ECONNRESET)
		return tf_fail(&p->err, TELEFORK_E_CLOSED,
			"the connection was reset in the middle of the memory");
	if (r->error == TF_REPORT_DIFFERS)
		return tf_fail(&p->err, TELEFORK_E_INCOMPATIBLE,
			"the file that is mapped at %llx was changed meanwhile: try again",
			(unsigned long long)r->where);
	if (r->step >= plan->n_steps)
		return tf_fail(&p->err, TELEFORK_E_RESTORE, "the plan ended too soon");
	tf_step_text(&plan->steps[r->step], text, sizeof(text));
	return tf_fail(&p->err, r->error == -ENOMEM ? TELEFORK_E_NOMEM : TELEFORK_E_RESTORE,
		"step %llu, %s: %s", (unsigned long long)r->step, text, tf_errno_name(-r->error));
}

/* Where the child reads what was unpacked. */
struct reader {
	struct tf_io *io;
	struct tf_err why; /* _CLOSED: it does not listen any more, and says why itself */
};

static int pass_on(void *ctx, const struct tf_extent *x, uint8_t *bytes)
{
	struct reader *r = ctx;
	struct tf_extent head = *x;
	struct iovec iov[2] = {{&head, sizeof(head)}, {bytes, x->size}};

	return tf_io_writev(r->io, iov, x->size ? 2 : 1, &r->why);
}

int tf_pad_unpack(struct tf_pad *p, uint64_t deadline_ns)
{
	static const struct tf_extent over = {.offset = TF_PACKED_OFFSET};
	uint64_t before = p->io.deadline_ns;
	struct tf_io control;
	struct reader r = {.io = &control};
	int rc;

	if (!p->unpacker)
		return tf_fail(&p->err, TELEFORK_E_PROTOCOL,
			"what comes is packed, which this receiver did not offer to take");
	tf_io_init(&control, p->control, NULL);
	control.idle_ms = INT32_MAX; /* the child's own reads time out */
	control.deadline_ns = p->io.deadline_ns = deadline_ns;
	tf_io_widen(&control);
	rc = p->unpacker->run(p->unpacker, &p->io, pass_on, &r, &p->err);
	if (!rc)
		rc = pass_on(&r, &over, NULL);
	p->io.deadline_ns = before;
	if (r.why.code && r.why.code != TELEFORK_E_CLOSED)
		return tf_fail(&p->err, r.why.code, "filling the new process: %s", r.why.text);
	return r.why.code ? 0 : rc;
}

/* The child's word, within the time limits: 0 when it is ready. */
static int await_ready(struct tf_pad *p)
{
	struct tf_io control;
	struct tf_report r;
	struct tf_err quiet = {0};
	int rc, status = 0;

	tf_io_init(&control, p->control, NULL);
	control.deadline_ns = last_moment(p, p->to_come);
	control.idle_ms = INT32_MAX; /* the child's own reads time out */
	while (!(rc = tf_io_read(&control, &r, sizeof(r), &quiet)) && r.tag == 'p')
		if (tf_pad_unpack(p, control.deadline_ns))
			return p->err.code;
	if (rc == TELEFORK_E_CLOSED) {
		while (waitpid(p->child, &status, 0) < 0 && errno == EINTR)
			;
		undo(p);
		p->child = 0;
		return tf_fail(&p->err, TELEFORK_E_RESTORE,
			"the new process was ended by signal %d while it was being restored "
			"(9: out of memory?)",
			WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
	if (rc == TELEFORK_E_TIMEOUT && p->options->deadline_ms <= 0)
		return tf_fail(&p->err, rc,
			"%llu bytes of memory came at less than %u bytes a second",
			(unsigned long long)p->to_come, SLOWEST);
	if (rc)
		return tf_fail(&p->err, rc, "%s", quiet.text);
	if (r.tag != (p->restore.zygote ? 'z' : 'r')) {
		p->failed_step = r.step == UINT64_MAX ? 0 : r.step; /* before the plan: no step */
		return tf_pad_explain(p, &r);
	}
	p->result.memory = r.value;
	return 0;
}

/* Reading stops when the sender does: the restorer has no clock. */
static void limit_reads(struct tf_pad *p)
{
	struct timeval tv = {
		.tv_sec = p->io.idle_ms / 1000, .tv_usec = p->io.idle_ms % 1000 * 1000};
	socklen_t size = sizeof(p->read_limit);

	if (p->io.socket)
		getsockopt(p->io.fd, SOL_SOCKET, SO_RCVTIMEO, &p->read_limit, &size);
	if (p->io.socket)
		setsockopt(p->io.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
}

static void unlimit_reads(struct tf_pad *p)
{
	if (p->io.socket)
		setsockopt(
			p->io.fd, SOL_SOCKET, SO_RCVTIMEO, &p->read_limit, sizeof(p->read_limit));
}

static int start_child(struct tf_pad *p)
{
	struct tf_relay_ends ends = TF_RELAY_NO_ENDS;
	int control[2] = {-1, -1}, pump[2] = {-1, -1}, rc = 0;

	if (p->staging)
		return tf_stage_go(p);
	if (tf_pad_relayed(p))
		rc = tf_relay_open(&p->relay, p->io.fd, p->options, &ends, &p->err);
	if (!rc && (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) ||
			   (p->file && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pump))))
		rc = tf_fail_errno(&p->err, TELEFORK_E_SYSTEM, errno, "socketpair");
	if (!rc) {
		p->began = time(NULL);
		p->receiver = getpid();
		if (lands(p))
			tf_landing_prepare(control[1]);
		p->child = p->restore.same_ids ? tf_pad_fork_as(p->image.source.pid) : _Fork();
		if (!p->child)
			tf_pad_child(p, pump[1] >= 0 ? pump[1] : p->io.fd, control[1], &ends);
		if (p->child < 0)
			rc = tf_pad_explain_fork(p);
	}
	tf_closep(&control[1]);
	tf_closep(&pump[1]);
	tf_relay_close_ends(&ends);
	p->control = control[0];
	p->pump = pump[0];
	p->relay.child = p->child;
	return rc;
}

int tf_pad_answer(struct tf_pad *p, uint32_t outcome)
{
	struct tf_reply r = {
		.pid = p->result.pid,
		.memory = p->result.memory,
		.mappings = p->result.mappings,
		.registers = p->result.registers,
		.received = p->io.received,
		.outcome = outcome,
	};

	return p->answers ? tf_reply_write(&p->io, &r, NULL, &p->err) : 0;
}

/* The kernel wakes it on this processor where no other is idle, and leaves it there until we sleep:
 * what we have left to do has time. */
static int let_go(struct tf_pad *p)
{
	char go = 'g';

	if (send(p->control, &go, 1, MSG_NOSIGNAL) != 1)
		return tf_fail(
			&p->err, TELEFORK_E_RESTORE, "the new process ended before it could run");
	sched_yield();
	return 0;
}

/* A step behind the barrier has failed: the restorer's word says which. */
static int hear_failure(struct tf_pad *p, int rc)
{
	struct tf_report r;

	if (recv(p->control, &r, sizeof(r), MSG_DONTWAIT) != sizeof(r) || r.tag != 'e')
		return rc;
	p->err = (struct tf_err){0};
	return tf_pad_explain(p, &r);
}

static int land(struct tf_pad *p)
{
	struct tf_landing *l = &p->landing;
	uint64_t size = tf_restorer_size();
	uint64_t first = tf_arch_find_syscall(__start_tf_restorer, size), next = first + 4;
	uint64_t code[2] = {
		first, next + tf_arch_find_syscall(__start_tf_restorer + next, size - next)};
	int rc = tf_landing_begin(l, p->child, &p->restore, &p->image, &p->arena, &p->err);

	if (!rc)
		rc = let_go(p);
	if (!rc)
		rc = tf_landing_arrive(l, code, &p->facts, &p->arena, &p->err);
	return rc ? hear_failure(p, rc) : 0;
}

/* Nothing is to be made of what came: it could be, and the sender only wanted to know that. */
static int answer_question(struct tf_pad *p)
{
	int rc = tf_pad_answer(p, TF_OUTCOME_GONE);

	p->answers = false; /* it has its answer */
	return rc ? rc
		  : tf_fail(&p->err, TELEFORK_E_CANCELLED,
			    "nothing came: the sender asked only whether it could");
}

/* Before anything runs: memory that could have come later is not waited for here. */
static int want_all(struct tf_pad *p)
{
	struct tf_want w = {.magic = TF_WANT_MAGIC, .address = TF_WANT_ALL};

	if (!p->answers)
		return tf_fail(&p->err, TELEFORK_E_PROTOCOL,
			"memory is to come later, but the sender cannot be asked for it");
	return tf_io_write(&p->io, &w, sizeof(w), &p->err);
}

int tf_pad_hold(struct tf_pad *p)
{
	int rc;

	if (p->stream_flags & TF_STREAM_ASK)
		return answer_question(p);
	rc = tf_known_answer(p);
	if (!rc && p->image.n_later && !p->restore.post_copy)
		rc = want_all(p);
	if (!rc && p->stream_flags & TF_STREAM_OFFER)
		rc = tf_known_tell(p);
	limit_reads(p);
	if (!rc)
		rc = start_child(p);
	if (!rc && p->file)
		rc = tf_pad_file_pump(p);
	if (!rc && p->restore.post_copy) {
		rc = tf_pager_take(p, last_moment(p, p->to_come));
		rc = rc ? rc : tf_known_check(p); /* the files are mapped; it goes on meanwhile */
	}
	if (!rc)
		rc = await_ready(p);
	if (!rc && !p->restore.post_copy)
		rc = tf_known_check(p);
	unlimit_reads(p);
	p->result.mappings = p->image.n_maps;
	p->result.pid = p->child;
	if (!rc)
		rc = lands(p)
			     ? land(p)
			     : tf_tracer_run(p->child, &p->restore.plan, p->image.threads, &p->err);
	if (rc)
		tf_pad_kill(p);
	return rc;
}

/* The copy notes itself, and closes its end when it has. */
static int await_mark(struct tf_pad *p)
{
	struct tf_err quiet = {0};
	struct tf_report r;
	struct tf_io control;
	int rc;

	tf_io_init(&control, p->control, p->options);
	rc = tf_io_read(&control, &r, sizeof(r), &quiet);
	if (!rc)
		return tf_pad_explain(p, &r);
	if (rc == TELEFORK_E_CLOSED && !access(p->mark.to, F_OK))
		return 0;
	return tf_fail(&p->err, TELEFORK_E_RESTORE, "the new process ended before it could run");
}

/* On the disk, with its folder, before anything follows from it. Once it has its new name it holds,
 * whatever the disk says. */
static int note(struct tf_pad *p)
{
	char folder[TF_MAX_STR];
	char *slash;
	int fd, rc = 0;

	snprintf(folder, sizeof(folder), "%s", p->mark.to);
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || rename(p->mark.from, p->mark.to))
		rc = tf_fail_errno(&p->err, TELEFORK_E_SYSTEM, errno, "%s", p->mark.to);
	else
		fsync(fd);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* While it is kept it cannot run, and does not end with us: what is noted then is true whatever
 * becomes of us. */
static int release_landed(struct tf_pad *p)
{
	struct tf_err quiet = {0};
	int rc;

	if (!p->mark.from) {
		rc = tf_landing_go(&p->landing, &p->err);
		if (!rc && p->io.socket && !p->restore.post_copy)
			shutdown(p->io.fd, SHUT_WR); /* nobody traces it any more */
		return rc;
	}
	rc = tf_landing_keep(&p->landing, &p->err);
	if (!rc)
		rc = note(p);
	if (!rc)
		tf_landing_go(&p->landing, &quiet); /* should it fail, it was ended by somebody */
	return rc;
}

int tf_pad_release(struct tf_pad *p)
{
	int rc;

	if (lands(p))
		return release_landed(p);
	/* Once it goes on, it goes on from where it was. A marked one sees to that itself. */
	if (p->image.source.flags & TF_SOURCE_STOPPED && !p->mark.from)
		kill(p->child, SIGSTOP);
	rc = let_go(p);
	return rc || !p->mark.from ? rc : await_mark(p);
}

int tf_pad_go(struct tf_pad *p)
{
	int rc = tf_pad_answer(p, TF_OUTCOME_RUNNING);

	if (!rc)
		rc = tf_pad_release(p);
	if (rc)
		tf_pad_kill(p);
	return rc;
}

int tf_pad_start(struct tf_pad *p)
{
	int rc = tf_pad_hold(p);

	return rc ? rc : tf_pad_go(p);
}

int tf_pad_page(struct tf_pad *p)
{
	int rc = p->restore.post_copy ? tf_pager_run(p) : 0;

	if (rc)
		kill(p->child, SIGKILL);
	else
		tf_pager_done(&p->pager);
	return rc;
}

void tf_pad_done(struct tf_pad *p)
{
	if (p->control >= 0)
		close(p->control);
	if (p->pump >= 0)
		close(p->pump);
	tf_pager_done(&p->pager);
	tf_guard_reap(&p->pager.guard);
	tf_relay_close(&p->relay);
	if (p->break_page)
		munmap(p->break_page, p->facts.page_size);
	tf_arena_done(&p->arena);
}
