/* SPDX-License-Identifier: MIT */
/*
 * What only the process itself can say: of each thread its altstack, tid address and some
 * attributes, of the process its timers, signal actions and break. All threads are asked at a time:
 * each makes all of its calls on its own (task_batch.c), or, where the process may have no code of
 * ours, or ignores no signal, one by one.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <linux/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* --- what each thread is asked --- */

static int take_altstack(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	stack_t ss;

	(void)question;
	memcpy(&ss, bytes, sizeof(ss));
	if (!result)
		q->thread->altstack =
			(struct tf_altstack){(uint64_t)ss.ss_sp, ss.ss_size, ss.ss_flags};
	return 0;
}

static int take_tid_address(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	(void)question;
	if (!result)
		memcpy(&q->thread->tid_addr, bytes, sizeof(uint64_t));
	return 0;
}

static uint32_t number_of(const struct tf_asking *q)
{
	return (uint32_t)(q->thread - q->t->capture.image.threads);
}

static struct tf_attributes *attributes_of(const struct tf_asking *q)
{
	return &q->t->capture.image.attributes[number_of(q)];
}

static int take_pdeathsig(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	struct tf_attributes *at = attributes_of(q);

	(void)question;
	at->flags |= TF_ATTR_ASKED;
	if (!result)
		memcpy(&at->pdeathsig, bytes, sizeof(at->pdeathsig));
	return 0;
}

/* task_attrs.c has a record for each thread until the end. */
static int take_securebits(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	(void)question;
	(void)bytes;
	q->t->capture.image.rights[number_of(q)].securebits = result > 0 ? (uint32_t)result : 0;
	return 0;
}

static int take_slack(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	(void)question;
	(void)bytes;
	attributes_of(q)->flags |= TF_ATTR_SLACK;
	attributes_of(q)->slack = (uint64_t)result;
	return 0;
}

static int take_personality(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	(void)question;
	(void)bytes;
	attributes_of(q)->personality = (uint32_t)result;
	return 0;
}

/* Of the main thread a fork knows the first one. */
static const struct tf_question of_thread[] = {
	{SYS_sigaltstack, {0}, 1, take_altstack, NULL},
	{SYS_prctl, {PR_GET_TID_ADDRESS}, 1, take_tid_address, NULL},
	{SYS_prctl, {PR_GET_PDEATHSIG}, 1, take_pdeathsig, NULL},
	{SYS_prctl, {PR_GET_SECUREBITS}, 0, take_securebits, NULL},
	{SYS_prctl, {PR_GET_TIMERSLACK}, 0, take_slack, NULL},
	{SYS_personality, {0xffffffff}, 0, take_personality, NULL},
};

#define OF_THREAD (sizeof(of_thread) / sizeof(*of_thread))

/* --- each call by itself --- */

static int start(struct tf_asking *q, const struct tf_question *question)
{
	uint64_t arg[6];

	memcpy(arg, question->arg, sizeof(arg));
	if (question->at)
		arg[question->at] = q->result;
	return tf_asking_start(q, question->nr, arg);
}

static int leave(struct tf_asking *q, const struct tf_question *question, bool last)
{
	uint8_t bytes[sizeof(((struct tf_batch_call *)NULL)->bytes)];
	int64_t result;
	int rc;

	if (last) {
		rc = tf_asking_settle(q);
		result = rc ? 0 : tf_arch_task_result(q->x->tid);
	} else {
		rc = tf_asking_leave(q, &result);
	}
	if (!rc && question->at)
		rc = tf_task_read(q->t, q->result, bytes, sizeof(bytes));
	return rc ? rc : question->take(q, question, result, bytes);
}

/* While one thread is on its way into a call, another is on its way out; all are done with the last
 * question. */
static int ask_question(
	struct tf_asking *q, uint32_t first, uint32_t end, const struct tf_question *question)
{
	bool last = question == &of_thread[OF_THREAD - 1];
	int rc = 0;

	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = start(q, question);
	}
	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = tf_asking_enter(q, last);
	}
	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = leave(q, question, last);
	}
	return rc;
}

static int ask_singly(struct tf_asking *q, uint32_t first, uint32_t end)
{
	int rc = 0;

	for (uint32_t i = first; i < end && !rc; i++) {
		tf_asking_turn(q, i);
		rc = tf_asking_ready(q);
	}
	for (size_t k = 0; k < OF_THREAD && !rc; k++)
		rc = ask_question(q, first, end, &of_thread[k]);
	return rc;
}

/* --- the threads --- */

/* rc: whether that went well so far. */
static int put_back(struct tf_asking *q, uint32_t first, uint32_t end, int rc)
{
	for (uint32_t i = first; i < end; i++) {
		int back;

		tf_asking_turn(q, i);
		if (!q->x->held)
			continue;
		back = rc ? tf_asking_recover(q) : tf_asking_put_back(q);
		rc = rc ? rc : back;
	}
	return rc;
}

static int take_wave(struct tf_asking *q, uint32_t first, uint32_t end, int rc)
{
	if (!rc && first < end)
		rc = tf_batch_take_wave(q, first, end, of_thread, OF_THREAD);
	return put_back(q, first, end, rc);
}

static int ask_in_waves(struct tf_asking *q)
{
	uint32_t n = q->t->n_traced, first = 1, next = 1, end;
	int rc = 0;

	for (; next < n && !rc; next = end) {
		uint32_t before = first;

		end = n - next < TF_ASK_HALF ? n : next + TF_ASK_HALF;
		rc = tf_batch_ask_wave(q, next, end, of_thread, OF_THREAD);
		first = next;
		rc = take_wave(q, before, first, rc);
	}
	return take_wave(q, first, next, rc);
}

/* The main thread is held already, and stays so. */
static int ask_threads(struct tf_asking *q)
{
	uint32_t n = q->t->n_traced, end;
	int rc = 0;

	if (q->quiet)
		return ask_in_waves(q);
	for (uint32_t i = 1; i < n && !rc; i = end) {
		end = n - i < TF_ASK_WAVE ? n : i + TF_ASK_WAVE;
		rc = put_back(q, i, end, ask_singly(q, i, end));
	}
	return rc;
}

/* Of the thread whose turn it is. */
static int ask_many(struct tf_asking *q, const struct tf_question *question, uint32_t n)
{
	int rc = 0;

	for (uint32_t k = 0, some; k < n && !rc && q->quiet; k += some) {
		some = n - k < q->most ? n - k : q->most - 1;
		rc = tf_batch_ask(q, question + k, some);
	}
	for (uint32_t k = 0; k < n && !rc && !q->quiet; k++) {
		rc = start(q, &question[k]);
		if (!rc)
			rc = tf_asking_enter(q, false);
		if (!rc)
			rc = leave(q, &question[k], false);
	}
	return rc;
}

static int ask_main(struct tf_asking *q, const struct tf_question *question, uint32_t n)
{
	tf_asking_turn(q, 0);
	return ask_many(q, question, n);
}

/* Itself, and for the process. */
static int gather_own(struct tf_asking *q)
{
	uint32_t n = OF_THREAD - 1, more = tf_task_own_questions(q->t, NULL);
	struct tf_question *all = tf_arena_array(&q->t->capture.arena, n + more, sizeof(*all));

	tf_asking_turn(q, 0);
	if (!all)
		return TELEFORK_E_NOMEM;
	memcpy(all, of_thread + 1, n * sizeof(*all));
	tf_task_own_questions(q->t, all + n);
	q->own = all;
	q->n_own = n + more;
	return 0;
}

static int ask_own(struct tf_asking *q)
{
	uint32_t n = q->n_own;

	q->n_own = 0;
	return ask_main(q, q->own, n);
}

/* The calls of a fork can be made in the same breath. */
static bool can_wait(const struct tf_asking *q)
{
	return q->quiet && q->n_own + TF_FORK_CALLS < TF_ASK_CALLS;
}

/* --- of the process: a fork of it knows as well --- */

static int take_sigaction(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	(void)q;
	(void)result;
	memcpy(question->to, bytes, sizeof(struct tf_sigaction));
	return 0;
}

static int take_brk(
	struct tf_asking *q, const struct tf_question *question, int64_t result, const void *bytes)
{
	(void)question;
	(void)bytes;
	q->t->capture.image.mm.brk = (uint64_t)result;
	return 0;
}

/* Asks to protect what is not mapped: EINVAL, if there is no such key; ENOMEM, if there is. They
 * are given away from the lowest on; the kernel's own, for code that is not to be read, has EINVAL,
 * too. */
static int ask_keys(struct tf_asking *q)
{
	struct tf_image *img = &q->t->capture.image;
	uint64_t page = img->source.page_size;
	uint64_t nowhere = ((uint64_t)1 << tf_arch_native()->max_user_bits) - 2 * page;
	bool used = false;
	int rc = 0;

	for (uint32_t i = 0; i < img->n_maps; i++)
		used |= img->maps[i].key != 0;
	for (uint32_t i = 0; i < q->t->n_before; i++)
		used |= q->t->before[i].key != 0;
	for (uint64_t key = 1; key < TF_KEYS && !rc; key++) {
		const uint64_t arg[6] = {nowhere, page, PROT_NONE, key};
		int64_t result;

		rc = tf_asking_call(q, SYS_pkey_mprotect, arg, &result);
		if (!rc && result == -ENOMEM)
			img->mm.keys |= 1u << key;
		else if (!used && key == 1)
			break;
	}
	return rc;
}

/* Altstack, signal actions, break. */
#define OF_PROCESS (1 + TF_SIGNALS + 1)

static int ask_process(struct tf_asking *q)
{
	struct tf_image *img = &q->t->capture.image;
	struct tf_question question[OF_PROCESS] = {of_thread[0]};
	int rc;

	img->sigactions =
		tf_arena_array(&q->t->capture.arena, TF_SIGNALS, sizeof(*img->sigactions));
	if (!img->sigactions)
		return TELEFORK_E_NOMEM;
	img->n_sigactions = TF_SIGNALS;
	for (int i = 0; i < TF_SIGNALS; i++)
		question[1 + i] = (struct tf_question){SYS_rt_sigaction,
			{(uint64_t)i + 1, 0, 0, sizeof(uint64_t)}, 2, take_sigaction,
			&img->sigactions[i]};
	question[OF_PROCESS - 1] = (struct tf_question){SYS_brk, {0}, 0, take_brk, NULL};
	rc = ask_many(q, question, OF_PROCESS);
	if (!rc)
		rc = ask_keys(q);
	if (!rc)
		q->t->capture.image.source.flags &= ~TF_SOURCE_OUTSIDE;
	return rc;
}

/* --- the whole --- */

int tf_task_ask(struct tf_task *t, int (*meanwhile)(struct tf_asking *q))
{
	struct tf_asking q;
	int rc = tf_asking_begin(&q, t), back;

	if (!rc)
		rc = ask_threads(&q);
	if (!rc)
		rc = gather_own(&q);
	if (!rc && !(meanwhile && can_wait(&q)))
		rc = ask_own(&q);
	if (!rc && meanwhile)
		rc = meanwhile(&q);
	if (!rc && q.n_own)
		rc = ask_own(&q);
	if (!rc && !t->shot.x.tid)
		rc = ask_process(&q);
	back = tf_asking_end(&q);
	return rc ? rc : back;
}

/* Its id as it sees it itself: where it does not see ours, it is asked. */
static int own_id(struct tf_asking *q)
{
	static const uint64_t none[6];
	int64_t id = q->x->tid;
	int rc = 0;

	if (q->t->traced[0].own_tid != q->t->traced[0].tid)
		rc = tf_asking_call(q, SYS_getpid, none, &id);
	q->x->own_tid = (pid_t)id;
	return rc;
}

/* The code is at the room's beginning; the room has 64 KiB and more. */
#define SHOT_RESULT 4096

_Static_assert(
	SHOT_RESULT + TF_ASK_MOST * sizeof(struct tf_batch_call) <= 65536, "the shot's room");

int tf_task_ask_shot(struct tf_task *t)
{
	bool roomy = t->shot.code;
	uint32_t most = roomy ? TF_ASK_MOST : TF_ASK_CALLS;
	struct tf_asking q = {
		.t = t,
		.x = &t->shot.x,
		.thread = t->capture.image.threads,
		.result = roomy ? t->shot.room + SHOT_RESULT : t->shot.result,
		.way = t->shot.x.way,
		.code = t->shot.code,
		.most = most,
		.quiet = t->shot.quiet,
		.bytes = tf_arena_alloc(&t->capture.arena, most * sizeof(struct tf_batch_call)),
	};
	int rc = q.bytes ? 0 : TELEFORK_E_NOMEM;

	if (!rc && q.quiet)
		rc = own_id(&q);
	return rc ? rc : ask_process(&q);
}
