/* SPDX-License-Identifier: MIT */
/*
 * A process captured from outside at places where it matters: at every single instruction of some
 * walks (places_walks.c), blocked in each of many system calls (places_calls.c), and while it waits
 * for a time (places_limits.c). The copy has to come to the right end from there, and so has the
 * original. Runs in a guest as well: one static program. test_places STRIDE looks at every so
 * manieth instruction only, where there is no time for all.
 */
#include "tests/unit/places.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/host.h"

static void set_up(void)
{
	int fd;

	place.go = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	snprintf(place.path, sizeof(place.path), "/tmp/test_places.XXXXXX");
	fd = mkstemp(place.path);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void tear_down(void)
{
	unlink(place.path);
}

START_TEST(refused_by_name)
{
	ck_assert_int_eq(tf_task_stop(&place.task, getppid()), TELEFORK_E_UNSUPPORTED);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("places");
	TCase *t = tcase_create("places");

	if (argc > 1)
		place.stride = strtol(argv[1], NULL, 10);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_checked_fixture(t, set_up, tear_down);
	if (tf_host_emulated()) {
		tcase_add_test(t, refused_by_name);
	} else {
		place_walks(t);
		place_limits(t);
		place_calls(t);
	}
	suite_add_tcase(s, t);
	return suite_run(s);
}
