/* SPDX-License-Identifier: MIT */
/* Calls in the name of a stopped thread, see task_call.h. */
#include "core/capture/task_call.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/maps.h"

#define SYSGOOD (SIGTRAP | 0x80)
#define CHUNK   65536
#define PATTERN 16 /* no less than what an exit's code has */

/* --- whether, and which way --- */

static bool has_exits(const struct tf_task *t)
{
	return t->exits.call_return && t->exits.sigreturn;
}

/* Three times as fast as /proc/PID/mem, which reads what the process itself may not, too. */
static ssize_t read_code(const struct tf_task *t, int mem, uint64_t at, uint8_t *buf, size_t n)
{
	struct iovec to = {buf, n}, from = {(void *)at, n};
	ssize_t got = process_vm_readv(t->pid, &to, 1, &from, 1, 0);

	return got > 0 ? got : pread(mem, buf, n, (off_t)at);
}

/* They are in the C library mostly, and a program may have much code. */
static bool is_library(const struct tf_map *m)
{
	const char *name = strrchr(m->path, '/');

	return name && (!strncmp(name, "/libc", 5) || !strncmp(name, "/ld-", 4));
}

static bool may_have_exits(const struct tf_map *m, bool others)
{
	return m->prot & PROT_EXEC && m->kind != TF_MAP_ANON && is_library(m) != others;
}

/* Reads code until both are found: a piece of each mapping, then the next one, for each has its own
 * at another end. Pieces overlap by what a pattern has. */
static void find_exits(struct tf_task *t, int mem, bool others, uint8_t *buf)
{
	bool more = true;

	for (uint64_t from = 0; more && !has_exits(t); from += CHUNK - PATTERN) {
		more = false;
		for (uint32_t i = 0; i < t->n_before && !has_exits(t); i++) {
			const struct tf_map *m = &t->before[i];
			uint64_t at = m->start + from, left = m->end - at;
			ssize_t n;

			if (from >= m->end - m->start || !may_have_exits(m, others))
				continue;
			n = read_code(t, mem, at, buf, left < CHUNK ? left : CHUNK);
			if (n > 0)
				tf_arch_find_exits(buf, (size_t)n, at, &t->exits);
			more |= n > 0;
		}
	}
}

static void find_code(struct tf_task *t, int mem, const struct tf_map *m, uint8_t *buf)
{
	uint64_t size = m->end - m->start;
	ssize_t n = pread(mem, buf, size < CHUNK ? size : CHUNK, (off_t)m->start);
	size_t at = n > 0 ? tf_arch_find_syscall(buf, (size_t)n) : 0;

	if (n > 0 && at < (size_t)n)
		t->code = m->start + at;
}

int tf_task_survey(struct tf_task *t)
{
	struct tf_arena *a = &t->capture.arena;
	uint8_t *buf = tf_arena_alloc(a, CHUNK);
	char path[TF_TASK_PATH];
	TF_CLOSE int mem = -1;
	int rc;

	tf_arch_cpu(&t->here, false);
	tf_arch_cpu(&t->capture.image.cpu, true);
	/* smaps looks at every page, which takes as long as a fork. A post-copy is not to wait for
	 * that; if there was more in it than maps tells, the fork's shows it (task_snapshot.c). */
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)t->pid, t->post_copy ? "maps" : "smaps");
	rc = tf_maps_read(a, path, &t->before, &t->n_before, &t->capture.err);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)t->pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	for (int others = 0; others < 2 && buf && !rc; others++)
		find_exits(t, mem, others, buf);
	for (uint32_t i = 0; i < t->n_before && buf && !rc; i++)
		if (t->before[i].kind == TF_MAP_VDSO)
			find_code(t, mem, &t->before[i], buf);
	return rc;
}

/* What was found before it stopped is there still. */
static bool has_code(struct tf_task *t, const struct tf_exits *should)
{
	uint64_t at = should->call_return ? should->call_return : should->sigreturn;
	struct tf_exits is = {0};
	uint8_t code[PATTERN];

	if (!at)
		return true;
	if (pread(t->mem, code, sizeof(code), (off_t)at) != sizeof(code))
		return false;
	tf_arch_find_exits(code, sizeof(code), at, &is);
	return is.call_return == should->call_return && is.sigreturn == should->sigreturn;
}

bool tf_task_can_ask(struct tf_task *t, const char **ret_why)
{
	const struct tf_exits call_return = {.call_return = t->exits.call_return},
			      sigreturn = {.sigreturn = t->exits.sigreturn};
	const char *seccomp = strstr(t->status, "\nSeccomp:");

	if (!seccomp || strtol(seccomp + 9, NULL, 10) == SECCOMP_MODE_STRICT)
		*ret_why = "it may make no call but read and write";
	else if (!t->code || !has_code(t, &call_return) || !has_code(t, &sigreturn))
		*ret_why = "it has no code to call the kernel with";
	else
		return true;
	return false;
}

/* --- one call --- */

static int fail(struct tf_asking *q, const char *what)
{
	return tf_fail_errno(&q->t->capture.err, TELEFORK_E_SYSTEM, errno, "process %d: %s",
		(int)q->t->pid, what);
}

static int go_on(struct tf_asking *q, int signo)
{
	if (ptrace(PTRACE_SYSCALL, q->x->tid, NULL, (void *)(uintptr_t)signo))
		return fail(q, "ptrace");
	q->x->stopped = false;
	return 0;
}

int tf_asking_resume(struct tf_asking *q)
{
	return go_on(q, 0);
}

int tf_asking_await(struct tf_asking *q, int *ret_event)
{
	int status, event, rc;

	for (;;) {
		rc = tf_task_wait_any(q->t, q->x, UINT64_MAX, &status);
		if (!rc)
			rc = tf_fail(&q->t->capture.err, TELEFORK_E_SYSTEM, "process %d has ended",
				(int)q->t->pid);
		if (rc < 0)
			return rc;
		event = status >> 16;
		*ret_event = event == PTRACE_EVENT_STOP ? 0 : event;
		if (WSTOPSIG(status) == SYSGOOD || *ret_event)
			return 0;
		/* SIGSTOP cannot be held: it takes its course, and changes nothing for us. */
		rc = go_on(q, event ? 0 : WSTOPSIG(status));
		if (rc)
			return rc;
	}
}

/* Filters are suspended while we trace; should we die, the thread makes the call under them. */
static int check_filters(struct tf_asking *q, long nr, const uint64_t arg[6])
{
	uint32_t thread = (uint32_t)(q->thread - q->t->capture.image.threads);

	return tf_task_check_call(q->t, thread, q->way.at, nr, arg);
}

/* After its registers: so there is no moment at which our death would leave it without its mask. */
int tf_asking_hold(struct tf_asking *q, uint64_t but)
{
	uint64_t mask = ~but;

	if (ptrace(PTRACE_SETSIGMASK, q->x->tid, (void *)sizeof(mask), &mask))
		return fail(q, "hold signals");
	q->x->held = true;
	return 0;
}

int tf_asking_start(struct tf_asking *q, long nr, const uint64_t arg[6])
{
	int rc = check_filters(q, nr, arg);

	if (rc)
		return rc;
	if (tf_arch_task_call(q->x->tid, &q->x->as_found, &q->way, nr, arg))
		return fail(q, "set registers");
	if (!q->x->held)
		rc = tf_asking_hold(q, 0);
	return rc ? rc : go_on(q, 0);
}

int tf_asking_enter(struct tf_asking *q, bool last)
{
	int event, rc = tf_asking_await(q, &event);

	if (rc)
		return rc;
	return last ? tf_asking_interrupt(q) : go_on(q, 0);
}

int tf_asking_leave(struct tf_asking *q, int64_t *ret)
{
	int event, rc = tf_asking_await(q, &event);

	if (!rc)
		*ret = tf_arch_task_result(q->x->tid);
	return rc;
}

int tf_asking_call(struct tf_asking *q, long nr, const uint64_t arg[6], int64_t *ret)
{
	int rc = tf_asking_start(q, nr, arg);

	if (!rc)
		rc = tf_asking_enter(q, false);
	return rc ? rc : tf_asking_leave(q, ret);
}

/* --- frames --- */

/* Into q->bytes, which is a slot. */
static int make_frame(struct tf_asking *q, const struct tf_thread *thread, const struct tf_cpu *cpu,
	uint64_t at, struct tf_call_way *ret_way)
{
	struct tf_capture *c = &q->t->capture;
	uint8_t *bytes = q->bytes + TF_ASK_RESULT;
	uint64_t sp;
	int rc = tf_arch_frame_from_regs(
		thread, &c->image.cpu, cpu, bytes, q->frame, at, &sp, &c->err);

	if (!rc)
		*ret_way = tf_arch_task_way(&q->t->exits, bytes, at, sp);
	return rc;
}

static int lay(struct tf_asking *q, size_t from, size_t to, uint64_t at)
{
	return pwrite(q->t->mem, q->bytes + from, to - from, (off_t)at) == (ssize_t)(to - from)
		       ? 0
		       : fail(q, "a frame could not be laid");
}

/* The thread as it is, in its slot, and the way there. */
static int make_own_frame(struct tf_asking *q)
{
	struct tf_thread thread = *q->thread;
	int rc = tf_task_settle_thread(q->t, q->x, &thread, true);

	if (!rc)
		rc = make_frame(q, &thread, &q->t->here, q->result + TF_ASK_RESULT, &q->way);
	q->x->way = q->way;
	return rc;
}

int tf_asking_lay(struct tf_asking *q, const struct tf_batch_call *call, uint32_t n)
{
	memcpy(q->bytes, call, n * sizeof(*call));
	return lay(q, 0, n * sizeof(*call), q->result);
}

int tf_asking_fill(struct tf_asking *q, const struct tf_batch_call *call, uint32_t n)
{
	memcpy(q->bytes, call, n * sizeof(*call));
	return make_own_frame(q);
}

/* That are asked at a time. */
static uint32_t wave(const struct tf_task *t)
{
	return t->n_traced - 1 < TF_ASK_WAVE ? t->n_traced - 1 : TF_ASK_WAVE;
}

static uint64_t slot_at(const struct tf_asking *q, uint32_t i)
{
	bool spare = i == q->t->n_traced;

	if (q->stack && (!i || spare))
		return q->stack + (spare ? q->slot : 0);
	return q->room + (spare ? 1 + wave(q->t) : i ? 1 + (i - 1) % TF_ASK_WAVE : 0) * q->slot;
}

int tf_asking_lay_wave(struct tf_asking *q, uint32_t first, uint32_t end)
{
	tf_asking_turn(q, first);
	return lay(q, 0, (end - first) * q->slot, q->result);
}

uint64_t tf_asking_spare(const struct tf_asking *q)
{
	return slot_at(q, q->t->n_traced);
}

/* What every frame has. */
static struct tf_regs plain(const struct tf_regs *regs)
{
	return (struct tf_regs){.n = 2,
		.set = {*tf_regs_find(regs, NT_PRSTATUS), *tf_regs_find(regs, NT_FPREGSET)}};
}

static const struct tf_cpu plain_cpu;

int tf_asking_lay_spare(struct tf_asking *q, const struct tf_batch_call *call, uint32_t n, long nr,
	const uint64_t arg[6], struct tf_call_way *ret_way)
{
	const struct tf_call_way last = {.at = q->t->exits.call_return};
	uint64_t at = tf_asking_spare(q);
	struct tf_thread thread = *q->thread;
	struct tf_regset *set = thread.regs.set;
	size_t from = TF_ASK_RESULT - TF_ASK_SPARE;
	int rc;

	thread.regs = plain(&q->x->as_found);
	set->data = tf_arena_dup(&q->t->capture.arena, set->data, set->size);
	if (!set->data)
		return tf_fail(&q->t->capture.err, TELEFORK_E_NOMEM, "out of memory for a frame");
	tf_arch_regs_call(&thread.regs, &last, nr, arg);
	rc = make_frame(q, &thread, &plain_cpu, at + TF_ASK_SPARE, ret_way);
	if (rc)
		return rc;
	memcpy(q->bytes + from, call, n * sizeof(*call));
	return lay(q, from, from + q->spare, at);
}

/* --- to hold, and to put back --- */

int tf_asking_ready(struct tf_asking *q)
{
	static const uint64_t none[6];
	int rc;

	q->x->way = q->way = (struct tf_call_way){.at = q->t->code};
	if (!has_exits(q->t))
		return 0;
	rc = make_own_frame(q);
	if (!rc)
		rc = lay(q, TF_ASK_RESULT, TF_ASK_RESULT + q->frame, q->result + TF_ASK_RESULT);
	return rc ? rc : check_filters(q, SYS_rt_sigreturn, none);
}

/* From a stop in or at the end of a system call to one where signals are handled: no instruction is
 * run. */
int tf_asking_interrupt(struct tf_asking *q)
{
	if (ptrace(PTRACE_INTERRUPT, q->x->tid, NULL, NULL) ||
		ptrace(PTRACE_CONT, q->x->tid, NULL, NULL))
		return fail(q, "could not be stopped again");
	q->x->stopped = false;
	return 0;
}

/* Tables take their time, and are asked only if something is different. */
static bool same_bytes(const struct tf_regs *a, const struct tf_regs *b)
{
	bool same = a->n == b->n;

	for (uint32_t i = 0; i < a->n && same; i++)
		same = a->set[i].size == b->set[i].size &&
		       !memcmp(a->set[i].data, b->set[i].data, a->set[i].size);
	return same;
}

/* Nothing may have changed of what a table knows. */
static int check_unharmed(struct tf_asking *q, const struct tf_regs *should)
{
	struct tf_capture *c = &q->t->capture;
	struct tf_cpu cpu = c->image.cpu;
	struct tf_regs now = {0};
	size_t mark = c->arena.used;
	int rc = tf_arch_regs_from_task(q->x->tid, &cpu, &c->arena, &now, &c->err);

	if (!rc && !same_bytes(should, &now) &&
		tf_regs_diff(tf_arch_native(), should, &c->image.cpu, &now, &cpu, NULL, NULL, NULL))
		rc = tf_fail(&c->err, TELEFORK_E_SYSTEM,
			"thread %d: its registers are not what they were", (int)q->x->tid);
	tf_arena_rewind(&c->arena, mark);
	return rc;
}

int tf_asking_settle(struct tf_asking *q)
{
	uint64_t deadline = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);
	int rc = q->x->stopped ? 1 : tf_task_wait_stop(q->t, q->x, deadline);

	return rc == 1 ? 0 : rc ? rc : fail(q, "has ended");
}

int tf_asking_put_back(struct tf_asking *q)
{
	struct tf_regs regs;
	int rc = tf_asking_settle(q);

	if (!rc)
		rc = tf_task_go_on(q->t, q->x, &regs);
	if (rc)
		return rc;
	if (ptrace(PTRACE_SETSIGMASK, q->x->tid, (void *)sizeof(uint64_t), &q->thread->sigmask) ||
		tf_arch_task_put(q->x->tid, &regs))
		return fail(q, "could not be put back as it was");
	q->x->held = false;
	return check_unharmed(q, &regs);
}

int tf_asking_recover(struct tf_asking *q)
{
	int rc = 0;

	if (q->x->stopped)
		rc = tf_asking_interrupt(q);
	else if (ptrace(PTRACE_INTERRUPT, q->x->tid, NULL, NULL))
		rc = fail(q, "could not be stopped again");
	return rc ? rc : tf_asking_put_back(q);
}

void tf_asking_turn(struct tf_asking *q, uint32_t i)
{
	q->x = &q->t->traced[i];
	q->thread = &q->t->capture.image.threads[i];
	q->result = slot_at(q, i);
	q->bytes = q->slots + (i ? 1 + (i - 1) % TF_ASK_WAVE : 0) * q->slot;
	q->way = q->x->way;
}

/* --- the main thread, and room --- */

/* KiB that the process has locked. */
static uint64_t locked(struct tf_task *t)
{
	char *text;
	size_t size;

	return tf_task_read_text(t, "status", &text, &size)
		       ? 0
		       : tf_text_number(text, "\nVmLck:", 10, 0);
}

static uint64_t locked_before(const struct tf_asking *q)
{
	return tf_text_number(q->t->status, "\nVmLck:", 10, 0);
}

/* A mapping that is locked from the beginning tells of mlockall(MCL_FUTURE), which nothing shows;
 * one that is not present then, of MCL_ONFAULT. */
static void see_locks(struct tf_asking *q)
{
	struct tf_image *img = &q->t->capture.image;
	uint64_t page = img->source.page_size, entry = 0, before = locked_before(q);
	uint64_t last = q->room + q->room_size - page;

	if (!before || locked(q->t) <= before)
		return;
	img->mm.locks = TF_LOCK_FUTURE;
	if (pread(tf_task_pagemap(q->t), &entry, sizeof(entry),
		    (off_t)(last / page * sizeof(entry))) == sizeof(entry) &&
		!(entry >> 62))
		img->mm.locks |= TF_LOCK_ONFAULT;
}

static int lay_code(struct tf_asking *q)
{
	const uint8_t *code;
	size_t size = tf_arch_batch_code(&code);

	q->code = q->room; /* the main thread's slot is on its stack */
	return pwrite(q->t->mem, code, size, (off_t)q->code) == (ssize_t)size
		       ? 0
		       : fail(q, "code could not be laid");
}

/* *ret: where it is, or -errno. */
static int map(struct tf_asking *q, int prot, int64_t *ret)
{
	const uint64_t arg[6] = {
		0, q->room_size, (uint64_t)prot, MAP_PRIVATE | MAP_ANONYMOUS, ~UINT64_C(0), 0};

	return tf_asking_call(q, SYS_mmap, arg, ret);
}

static bool is_error(int64_t result)
{
	return result > -4096 && result < 0;
}

/* Not every process may have memory that it can write to and run. */
static int map_room(struct tf_asking *q, bool needed)
{
	int64_t result = -EPERM;
	int rc = q->quiet ? map(q, PROT_READ | PROT_WRITE | PROT_EXEC, &result) : 0;

	if (!rc && is_error(result)) {
		q->quiet = 0;
		rc = needed ? map(q, PROT_READ | PROT_WRITE, &result) : 0;
	}
	if (!rc && needed && is_error(result))
		rc = tf_fail_errno(&q->t->capture.err, TELEFORK_E_SYSTEM, (int)-result,
			"process %d has no room for a page more", (int)q->t->pid);
	if (rc || is_error(result))
		return rc;
	q->room = (uint64_t)result;
	see_locks(q);
	return q->quiet ? lay_code(q) : 0;
}
/* As the last call. */
static int unmap_room(struct tf_asking *q)
{
	const uint64_t arg[6] = {q->room, q->room_size};

	if (!q->stack) /* its frame goes with the room */
		q->way = (struct tf_call_way){.at = q->t->code};
	return tf_asking_start(q, SYS_munmap, arg);
}

static int reap(struct tf_asking *q)
{
	const uint64_t arg[6] = {q->to_reap, 0, __WALL};
	int64_t result;

	return tf_asking_call(q, SYS_wait4, arg, &result);
}

/* Whether nobody ever wrote to these pages. */
static bool is_untouched(struct tf_task *t, uint64_t at, uint64_t size, uint64_t page)
{
	for (uint64_t end = at + size, entry; at < end; at += page)
		if (pread(tf_task_pagemap(t), &entry, sizeof(entry),
			    (off_t)(at / page * sizeof(entry))) != sizeof(entry) ||
			entry >> 62)
			return false;
	return true;
}

/* Room on the stack that the kernel made: below what the main thread has there, or, if it is
 * elsewhere (a coroutine, a frame of a capture that was killed), where it has never been. 0: there
 * is none. */
static uint64_t find_place(struct tf_task *t, const struct tf_map *m, uint64_t size)
{
	uint64_t sp = tf_arch_native()->sp(&t->traced[0].as_found);
	uint64_t below = (sp - tf_arch_native()->red_zone - size) & ~UINT64_C(63);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) & ~(page - 1);

	if (sp > m->start && sp <= m->end && below >= m->start)
		return below;
	for (uint64_t at = m->start; m->end - at > pages; at += pages)
		if (is_untouched(t, at, pages, page))
			return at;
	return 0;
}

static void find_stack(struct tf_asking *q)
{
	struct tf_task *t = q->t;
	size_t size = q->slot + q->spare;
	uint64_t at = 0;

	q->stack_size = size;
	q->under = tf_arena_alloc(&q->t->capture.arena, size);
	for (uint32_t i = 0; i < t->n_before && !at; i++)
		if (t->before[i].kind == TF_MAP_STACK)
			at = find_place(t, &t->before[i], size);
	if (at && q->under && has_exits(t) &&
		pread(t->mem, q->under, size, (off_t)at) == (ssize_t)size)
		q->stack = at;
}

int tf_asking_begin(struct tf_asking *q, struct tf_task *t)
{
	struct tf_regs few;
	bool needed;
	int rc = 0;

	*q = (struct tf_asking){.t = t, .most = TF_ASK_CALLS};
	for (uint32_t i = 0; i < t->n_traced; i++) {
		size_t n = tf_arch_frame_size(&t->capture.image.threads[i].regs, &t->here);

		q->frame = n > q->frame ? n : q->frame;
	}
	q->slot = (TF_ASK_RESULT + q->frame + 63) & ~(size_t)63;
	few = plain(&t->traced[0].as_found);
	q->spare = TF_ASK_SPARE + tf_arch_frame_size(&few, &plain_cpu);
	q->slots = tf_arena_array(&t->capture.arena, 1 + wave(t), q->slot);
	if (!q->slots)
		return tf_fail(&t->capture.err, TELEFORK_E_NOMEM, "out of memory for a frame");
	find_stack(q);
	tf_asking_turn(q, 0);
	if (q->stack)
		rc = tf_asking_ready(q);
	else
		q->x->way = q->way = (struct tf_call_way){.at = t->code};
	q->quiet = q->stack ? tf_batch_signal(t) : 0;
	/* Whose memory is locked may have said so of all that is to come: a mapping tells. */
	needed = !q->stack || t->n_traced > 1 || locked_before(q);
	if (rc || (!needed && !q->quiet))
		return rc;
	q->room_size = ((2 + wave(t)) * q->slot + 0xffff) & ~UINT64_C(0xffff);
	rc = map_room(q, needed);
	if (!rc && !q->stack) {
		tf_asking_turn(q, 0);
		rc = tf_asking_ready(q);
	}
	return rc;
}

/* A part of its stack as it was. */
static int restore(struct tf_asking *q, size_t from, size_t to)
{
	return pwrite(q->t->mem, q->under + from, to - from, (off_t)(q->stack + from)) ==
			       (ssize_t)(to - from)
		       ? 0
		       : fail(q, "its stack could not be put back as it was");
}

/* All but the frame, while the last call is under way. */
static int restore_most(struct tf_asking *q)
{
	int rc = restore(q, 0, TF_ASK_RESULT);

	return rc ? rc : restore(q, q->slot, q->stack_size);
}

/* *ret: the main thread has given back the room, and is on its way to stop. */
static int end_calls(struct tf_asking *q, bool *ret)
{
	int rc = q->to_reap && q->x->stopped ? reap(q) : 0, most = 0;

	if (rc || !q->room || !q->x->stopped)
		return rc;
	rc = unmap_room(q);
	if (q->stack)
		most = restore_most(q);
	if (!rc)
		rc = tf_asking_enter(q, true);
	*ret = !rc;
	return rc ? rc : most;
}

int tf_asking_end(struct tf_asking *q)
{
	bool interrupted = false;
	int rc = 0, back = 0;

	tf_asking_turn(q, 0);
	if (q->x->held) {
		rc = end_calls(q, &interrupted);
		back = interrupted ? tf_asking_put_back(q) : tf_asking_recover(q);
	}
	if (q->stack && !back)
		back = interrupted ? restore(q, TF_ASK_RESULT, q->slot)
				   : restore(q, 0, q->stack_size);
	return rc ? rc : back;
}
