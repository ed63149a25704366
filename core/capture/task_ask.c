/* SPDX-License-Identifier: MIT */
/*
 * What only the process itself can say: of each thread its altstack, tid address and some
 * attributes, of the process its timers, signal actions and break. All threads are asked the same
 * at a time: while one is on its way into a call, another is on its way out.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <linux/prctl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* --- of each thread, but what a fork knows of the main thread --- */

static int take_altstack(struct tf_asking *q, int64_t result)
{
	stack_t ss;
	int rc = result ? 0 : tf_task_read(q->t, q->result, &ss, sizeof(ss));

	if (!rc && !result)
		q->thread->altstack =
			(struct tf_altstack){(uint64_t)ss.ss_sp, ss.ss_size, ss.ss_flags};
	return rc;
}

static int take_tid_address(struct tf_asking *q, int64_t result)
{
	return result ? 0 : tf_task_read(q->t, q->result, &q->thread->tid_addr, sizeof(uint64_t));
}

static uint32_t number_of(const struct tf_asking *q)
{
	return (uint32_t)(q->thread - q->t->capture.image.threads);
}

static struct tf_attributes *attributes_of(const struct tf_asking *q)
{
	return &q->t->capture.image.attributes[number_of(q)];
}

static int take_pdeathsig(struct tf_asking *q, int64_t result)
{
	attributes_of(q)->flags |= TF_ATTR_ASKED;
	return result ? 0
		      : tf_task_read(q->t, q->result, &attributes_of(q)->pdeathsig,
				sizeof(attributes_of(q)->pdeathsig));
}

/* task_attrs.c has a record for each thread until the end. */
static int take_securebits(struct tf_asking *q, int64_t result)
{
	q->t->capture.image.rights[number_of(q)].securebits = result > 0 ? (uint32_t)result : 0;
	return 0;
}

static int take_slack(struct tf_asking *q, int64_t result)
{
	attributes_of(q)->flags |= TF_ATTR_SLACK;
	attributes_of(q)->slack = (uint64_t)result;
	return 0;
}

/* The second argument is where the result goes. */
static const struct {
	long nr;
	uint64_t arg;
	int (*take)(struct tf_asking *q, int64_t result);
	uint32_t first; /* thread that is asked */
} of_thread[] = {
	{SYS_sigaltstack, 0, take_altstack, 1},
	{SYS_prctl, PR_GET_TID_ADDRESS, take_tid_address, 0},
	{SYS_prctl, PR_GET_PDEATHSIG, take_pdeathsig, 0},
	{SYS_prctl, PR_GET_SECUREBITS, take_securebits, 0},
	{SYS_prctl, PR_GET_TIMERSLACK, take_slack, 0},
};

/* The main thread has more to say afterwards; others are done with the last question. */
static bool is_last(const struct tf_asking *q, size_t question)
{
	return question == q->questions - 1 && q->x != q->t->traced;
}

static int leave(struct tf_asking *q, size_t question)
{
	int64_t result;
	int rc;

	if (is_last(q, question)) {
		rc = tf_asking_settle(q);
		result = rc ? 0 : tf_arch_task_result(q->x->tid);
	} else {
		rc = tf_asking_leave(q, &result);
	}
	return rc ? rc : of_thread[question].take(q, result);
}

static int ask_question(struct tf_asking *q, size_t question)
{
	uint32_t n = q->t->n_traced, first = of_thread[question].first;
	int rc = 0;

	for (uint32_t i = first; i < n && !rc; i++) {
		tf_asking_turn(q, i);
		rc = tf_asking_start(q, of_thread[question].nr,
			(const uint64_t[6]){of_thread[question].arg, q->result});
	}
	for (uint32_t i = first; i < n && !rc; i++) {
		tf_asking_turn(q, i);
		rc = tf_asking_enter(q, is_last(q, question));
	}
	for (uint32_t i = first; i < n && !rc; i++) {
		tf_asking_turn(q, i);
		rc = leave(q, question);
	}
	return rc;
}

/* The main thread is held already, and stays so. */
static int ask_threads(struct tf_asking *q)
{
	int rc = 0, back;

	/* The last one only where /proc did not tell. */
	q->questions = sizeof(of_thread) / sizeof(*of_thread);
	if (q->t->capture.image.attributes[0].flags & TF_ATTR_SLACK)
		q->questions--;
	for (uint32_t i = 1; i < q->t->n_traced && !rc; i++) {
		tf_asking_turn(q, i);
		rc = tf_asking_hold(q);
	}
	for (size_t k = 0; k < q->questions && !rc; k++)
		rc = ask_question(q, k);
	for (uint32_t i = 1; i < q->t->n_traced; i++) {
		tf_asking_turn(q, i);
		if (!q->x->held)
			continue;
		back = rc ? tf_asking_recover(q) : tf_asking_put_back(q);
		rc = rc ? rc : back;
	}
	return rc;
}

/* --- of the process: a fork of it knows as well --- */

static int ask_sigactions(struct tf_asking *q)
{
	struct tf_image *img = &q->t->capture.image;

	img->sigactions =
		tf_arena_array(&q->t->capture.arena, TF_SIGNALS, sizeof(*img->sigactions));
	if (!img->sigactions)
		return TELEFORK_E_NOMEM;
	for (int i = 0; i < TF_SIGNALS; i++) {
		const uint64_t arg[6] = {(uint64_t)i + 1, 0, q->result, sizeof(uint64_t)};
		int64_t result;
		int rc = tf_asking_call(q, SYS_rt_sigaction, arg, &result);

		if (!rc)
			rc = tf_task_read(
				q->t, q->result, &img->sigactions[i], sizeof(img->sigactions[i]));
		if (rc)
			return rc;
	}
	img->n_sigactions = TF_SIGNALS;
	return 0;
}

static int ask_altstack(struct tf_asking *q)
{
	int64_t result;
	int rc = tf_asking_call(q, SYS_sigaltstack, (const uint64_t[6]){0, q->result}, &result);

	return rc ? rc : take_altstack(q, result);
}

static int ask_brk(struct tf_asking *q)
{
	static const uint64_t arg[6];
	int64_t result;
	int rc = tf_asking_call(q, SYS_brk, arg, &result);

	if (!rc)
		q->t->capture.image.mm.brk = (uint64_t)result;
	return rc;
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

static int ask_process(struct tf_asking *q)
{
	static int (*const question[])(struct tf_asking *) = {
		ask_altstack, ask_sigactions, ask_brk, ask_keys};
	int rc = 0;

	for (size_t i = 0; i < sizeof(question) / sizeof(*question) && !rc; i++)
		rc = question[i](q);
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
	tf_asking_turn(&q, 0);
	if (!rc)
		rc = tf_task_ask_own(&q);
	if (!rc && meanwhile)
		rc = meanwhile(&q);
	if (!rc && !t->shot.x.tid)
		rc = ask_process(&q);
	back = tf_asking_end(&q);
	return rc ? rc : back;
}

int tf_task_ask_shot(struct tf_task *t)
{
	struct tf_asking q = {
		.t = t,
		.x = &t->shot.x,
		.thread = t->capture.image.threads,
		.result = t->shot.result,
		.way = t->shot.x.way,
	};

	return ask_process(&q);
}
