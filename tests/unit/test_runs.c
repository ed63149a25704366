/* SPDX-License-Identifier: MIT */
/* Sets of addresses (core/image/runs.h), against the same as bits. */
#include "core/image/runs.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 64u /* addresses */

static uint64_t some(void)
{
	uint64_t bits = 0;

	for (int i = 0; i < 3; i++)
		bits ^= (uint64_t)rand() << 11 * i * 2;
	return rand() % 4 ? bits & bits << 1 : bits;
}

static void fill(struct tf_runs *r, uint64_t bits)
{
	tf_runs_clear(r);
	for (unsigned i = 0; i < SIZE; i++)
		if (bits >> i & 1)
			ck_assert_int_eq(tf_runs_add(r, i, i + 1), 0);
}

/* Each run is as long as it can be. */
static uint64_t bits_of(const struct tf_runs *r)
{
	uint64_t bits = 0;

	for (size_t k = 0; k < r->n; k++) {
		ck_assert_uint_lt(r->v[k].start, r->v[k].end);
		if (k)
			ck_assert_uint_gt(r->v[k].start, r->v[k - 1].end);
		for (uint64_t i = r->v[k].start; i < r->v[k].end; i++)
			bits |= UINT64_C(1) << i;
	}
	return bits;
}

START_TEST(sets)
{
	struct tf_runs a = {0}, b = {0}, c = {0};

	for (int i = 0; i < 500; i++) {
		uint64_t x = some(), y = some();

		fill(&a, x);
		fill(&b, y);
		ck_assert_uint_eq(bits_of(&a), x);
		ck_assert_uint_eq(tf_runs_size(&a), (uint64_t)__builtin_popcountll(x));
		ck_assert_int_eq(tf_runs_make(&c, TF_RUNS_EITHER, &a, &b), 0);
		ck_assert_uint_eq(bits_of(&c), x | y);
		ck_assert_int_eq(tf_runs_make(&c, TF_RUNS_BOTH, &a, &b), 0);
		ck_assert_uint_eq(bits_of(&c), x & y);
		ck_assert_int_eq(tf_runs_change(&a, TF_RUNS_WITHOUT, &b), 0);
		ck_assert_uint_eq(bits_of(&a), x & ~y);
	}
	tf_runs_done(&a);
	tf_runs_done(&b);
	tf_runs_done(&c);
}
END_TEST

START_TEST(places)
{
	struct tf_runs a = {0};

	for (int i = 0; i < 500; i++) {
		uint64_t x = some();
		unsigned start = (unsigned)rand() % SIZE;
		unsigned end = start + (unsigned)rand() % (SIZE - start);
		bool meets = false;

		fill(&a, x);
		for (unsigned k = start; k < end; k++)
			meets |= x >> k & 1;
		if (start < end)
			ck_assert_int_eq(tf_runs_meet(&a, start, end), meets);
	}
	tf_runs_done(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("runs");
	TCase *t = tcase_create("runs");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, sets);
	tcase_add_test(t, places);
	suite_add_tcase(s, t);
	return suite_run(s);
}
