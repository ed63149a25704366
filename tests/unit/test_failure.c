/* SPDX-License-Identifier: MIT */
/*
 * What goes wrong on the way: the link is cut, stalls, crawls, damages; a side is killed; both sides
 * say what happened, hold what they held before, and there is no half-made process.
 */
#include "tests/unit/sides.h"

/* The number of messages of one undisturbed journey. */
static int count_messages(void)
{
	struct journey j = {.wire.act = PASS};

	travel(&j);
	check_arrived(&j, "undisturbed");
	return (int)shared->messages;
}

static void cut_at(int message, uint64_t into)
{
	struct journey j = {.wire = {.act = CUT, .message = message, .into = into}};
	char what[64];

	snprintf(what, sizeof(what), "cut %d bytes into message %d", (int)into, message);
	travel(&j);
	ck_assert_msg(shared->acted, "%s: not reached", what);
	check_failed(&j, what);
	ck_assert_msg(j.result.error == TELEFORK_E_CLOSED, "%s: %s", what, j.result.message);
	ck_assert_msg(report.pid == TELEFORK_E_CLOSED, "%s: %s", what, report.result.message);
}

START_TEST(cut_at_every_message)
{
	int n = count_messages();

	ck_assert_int_gt(n, 10);
	for (int i = 0; i < n; i++) {
		cut_at(i, 0);
		cut_at(i, 7);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("failure");
	TCase *t = tcase_create("wire");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, sides_setup, NULL);
	tcase_add_test(t, cut_at_every_message);
	suite_add_tcase(s, t);
	return s;
}

int main(int argc, char **argv)
{
	return sides_main(argc, argv, suite());
}
