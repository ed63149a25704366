/* SPDX-License-Identifier: MIT */
/*
 * What can be said of torture without machines: a seed's steps are the same everywhere, and a
 * census and docs/commit.md's table are read as they are meant.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "harness/faults.h"
#include "harness/faults_table.h"
#include "tests/unit/suite.h"

#define STEPS 5000

static uint64_t add(uint64_t sum, uint64_t word)
{
	return (sum ^ word) * UINT64_C(0x100000001b3);
}

static uint64_t sum_of(const struct tf_step *s)
{
	uint64_t sum = add(s->kind, (uint64_t)s->moment.message);

	sum = add(add(sum, s->moment.bytes), (uint64_t)s->hold_ms);
	sum = add(add(sum, (uint64_t)s->jump_s), s->link.seed);
	sum = add(add(sum, s->link.loss_ppm), s->link.delay_us);
	return add(add(sum, s->link.jitter_us), s->link.bytes_per_s);
}

START_TEST(steps_are_the_seeds)
{
	static const uint64_t sums[TF_TIER_SYSTEM + 1] = {UINT64_C(457864828653260912),
		UINT64_C(457864828653260912), UINT64_C(1714971463591160344)};
	unsigned kinds[TF_FAULT_KINDS] = {0}, messages[TF_FAULT_MESSAGES] = {0};
	enum tf_tier tier = (enum tf_tier)_i;
	uint64_t sum = 0;

	for (uint64_t n = 1; n <= STEPS; n++) {
		struct tf_step a, b, other;

		tf_step_draw(&a, 53, n, tier, 5000);
		tf_step_draw(&b, 53, n, tier, 5000);
		tf_step_draw(&other, 54, n, tier, 5000);
		ck_assert_uint_eq(sum_of(&a), sum_of(&b));
		ck_assert_uint_ne(sum_of(&a), sum_of(&other));
		ck_assert(tf_fault_possible(a.kind, tier));
		ck_assert_int_lt(a.moment.message, TF_FAULT_MESSAGES);
		ck_assert_int_ge(a.moment.message, 0);
		kinds[a.kind]++;
		messages[a.moment.message]++;
		sum = add(sum, sum_of(&a));
	}
	for (unsigned k = 0; k < TF_FAULT_KINDS; k++)
		ck_assert_int_eq(kinds[k] > STEPS / 100, tf_fault_possible(k, tier));
	for (unsigned m = 0; m < TF_FAULT_MESSAGES; m++)
		ck_assert_uint_gt(messages[m], STEPS / 10);
	/* A seed in a report means the same on every machine, until there are other faults. */
	ck_assert_uint_eq(sum, sums[tier]);
}
END_TEST

START_TEST(table)
{
	struct tf_step kill = {.kind = TF_FAULT_KILL_SESSION}, cut = {.kind = TF_FAULT_SILENCE};
	struct tf_step_outcome o = {.phase = {"committing", "prepared"}, .verdict = "here"};
	const char *allowed;

	ck_assert(tf_table_has("here, there", "there"));
	ck_assert(!tf_table_has("stopped: here", "here"));
	ck_assert(tf_verdict_allowed(&kill, &o, &allowed));
	o.verdict = "there";
	ck_assert(!tf_verdict_allowed(&kill, &o, &allowed));
	ck_assert_str_eq(allowed, "here");
	strcpy(o.phase[0], "landing"); /* no such phase */
	ck_assert(!tf_verdict_allowed(&kill, &o, &allowed));
	o.message = 5;
	ck_assert(!tf_verdict_allowed(&cut, &o, &allowed));
	o.verdict = "stopped: there";
	ck_assert(tf_verdict_allowed(&cut, &o, &allowed));
	o.message = -1; /* it did not come to that */
	ck_assert(!tf_verdict_allowed(&cut, &o, &allowed));
	o.verdict = "lost";
	for (unsigned k = 0; k < TF_FAULT_KINDS; k++) {
		struct tf_step s = {.kind = k};

		o.message = 2;
		ck_assert_int_eq(tf_verdict_allowed(&s, &o, &allowed), k == TF_FAULT_LOSE_SENDER);
	}
}
END_TEST

START_TEST(census)
{
	char text[] = "program 17 T\nsession 30 S\nsession 31 S\nother 40 R\nreceiver 4 80\n"
		      "file /b\nfile /a\nmoves 0123456789abcdef0123456789abcdef committing\n"
		      "arrivals ffffffffffffffffffffffffffffffff running\n";
	struct tf_census c;
	struct tf_vm_error err;

	ck_assert_int_eq(tf_census_read(&c, text, &err), 0);
	ck_assert_uint_eq(c.n_programs, 1);
	ck_assert_int_eq(c.programs[0], 17);
	ck_assert_int_eq(c.states[0], 'T');
	ck_assert_uint_eq(c.sessions, 2);
	ck_assert_int_eq(c.session, 31);
	ck_assert_uint_eq(c.others, 1);
	ck_assert(c.receiver);
	ck_assert_int_eq(c.descriptors, 4);
	ck_assert_int_eq(c.memory_kib, 80);
	ck_assert_str_eq(c.files, "/a\n/b\n");
	ck_assert_uint_eq(c.n_moves, 1);
	ck_assert_str_eq(c.moves[0].phase, "committing");
	ck_assert_uint_eq(c.n_arrivals, 1);
	ck_assert_str_eq(c.arrivals[0].phase, "running");
	tf_census_done(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("torture");
	TCase *c = tcase_create("torture");

	tcase_set_timeout(c, SUITE_LIMIT_S);
	tcase_add_loop_test(c, steps_are_the_seeds, 0, TF_TIER_SYSTEM + 1);
	tcase_add_test(c, table);
	tcase_add_test(c, census);
	suite_add_tcase(s, c);
	return suite_run(s);
}
