/* SPDX-License-Identifier: MIT */
/* The end of every main() of the tests here. */
#ifndef TESTS_UNIT_SUITE_H
#define TESTS_UNIT_SUITE_H

#include <check.h>

#define SUITE_LIMIT_S 300 /* one that hangs is ended; no machine is that slow */

/* Runs all of s and frees it; the exit code. */
static inline int suite_run(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

#endif
