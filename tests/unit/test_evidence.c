/* SPDX-License-Identifier: MIT */
/* What a report keeps of a cell: harness/evidence.c. */
#include "harness/evidence.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

static struct tf_cell cell = {.n_machines = 1};
static struct tf_remote machine = {.name = "B"};
static struct tf_remote *machines[] = {&machine};
static struct tf_outcome outcome;
static struct tf_journey journey = {.cell = &cell, .machines = machines, .outcome = &outcome};

static void begin(void)
{
	tf_evidence_begin(&journey);
}

static void end(void)
{
	json_decref(outcome.phases);
	json_decref(outcome.differences);
	json_decref(outcome.excepted);
	json_decref(outcome.stands);
}

static const json_t *phase(size_t i)
{
	return json_array_get(outcome.phases, i);
}

static double number(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

static void say(const char *said)
{
	static char text[2][1000];
	static struct tf_job job = {.remote = &machine, .text = {text[0], text[1]}};

	snprintf(text[1], sizeof(text[1]), "%s", said);
	machine.jobs = &job;
	tf_evidence_done(&journey);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

START_TEST(test_strip)
{
	char text[] =
		"telefork: timing a 1 2\nsaid\ntelefork: timing b 3 4\nmore telefork: timing c";

	tf_evidence_strip(text);
	ck_assert_str_eq(text, "said\nmore ");
}
END_TEST

/* Steps of the testbed follow one another; what a machine told is on the same axis. */
START_TEST(test_phases)
{
	int64_t from = journey.began_ns;
	char text[300];

	tf_evidence_step(&journey, "probe");
	tf_evidence_step(&journey, "verdict");
	snprintf(text, sizeof(text),
		"telefork: timing plan %lld %lld\nnoise\ntelefork: timing bad 9 1\n"
		"telefork: timing restore %lld %lld\n",
		(long long)from, (long long)from + 5000, (long long)from + 5000,
		(long long)now_ns());
	say(text);
	ck_assert_uint_eq(json_array_size(outcome.phases), 4);
	ck_assert_str_eq(json_string_value(json_object_get(phase(0), "name")), "probe");
	ck_assert(json_is_null(json_object_get(phase(0), "machine")));
	ck_assert_str_eq(json_string_value(json_object_get(phase(2), "machine")), "B");
	ck_assert(number(phase(2), "begin_ms") == 0);
	ck_assert(number(phase(2), "ms") == 0.005);
	ck_assert_ptr_null(json_object_get(phase(2), "clock_ms"));
	ck_assert_str_eq(json_string_value(json_object_get(phase(3), "name")), "restore");
}
END_TEST

/* A machine whose clock was set another way: its phases are moved together, and it is told. */
START_TEST(test_clock)
{
	int64_t from = journey.began_ns - 3600 * SECOND;
	char text[300];

	snprintf(text, sizeof(text),
		"telefork: timing plan %lld %lld\ntelefork: timing restore %lld %lld\n",
		(long long)from, (long long)from + 2000000, (long long)from + 2000000,
		(long long)from + 3000000);
	say(text);
	ck_assert(number(phase(0), "begin_ms") == 0 && number(phase(1), "begin_ms") == 2);
	ck_assert(number(phase(1), "clock_ms") == 3600000);
}
END_TEST

START_TEST(test_seen)
{
	const json_t *d;

	tf_evidence_seen(&journey, &machine, "rax", 0, "00", "01");
	tf_evidence_seen(&journey, &machine, "byte", 0x1000, "aa", "bb");
	ck_assert_uint_eq(json_array_size(outcome.differences), 2);
	d = json_array_get(outcome.differences, 1);
	ck_assert_str_eq(json_string_value(json_object_get(d, "witness")), "qemu");
	ck_assert_str_eq(json_string_value(json_object_get(d, "kind")), "memory");
	ck_assert_str_eq(json_string_value(json_object_get(d, "machine")), "B");
	ck_assert_str_eq(json_string_value(json_object_get(d, "address")), "0x1000");
	ck_assert_str_eq(json_string_value(json_object_get(d, "a")), "aa");
	ck_assert_str_eq(json_string_value(json_object_get(d, "b")), "bb");
	ck_assert(json_is_null(json_object_get(d, "exception")));
	for (unsigned i = 0; i < 300; i++)
		tf_evidence_seen(&journey, &machine, "rax", 0, "00", "01");
	ck_assert_uint_eq(json_array_size(outcome.differences), 200);
	tf_evidence_forget(&journey);
	ck_assert_uint_eq(json_array_size(outcome.differences), 0);
}
END_TEST

/* All losses, and of each exception one. */
START_TEST(test_differences)
{
	struct tf_file none = {.fd = -1};
	struct tf_difference d = {
		.kind = TF_COMPARE_REGISTER, .name = "rax", .a = "00", .b = "\xff", .tid = 7};

	for (unsigned i = 0; i < 3; i++)
		tf_evidence_difference(&journey, &d, &none, &none);
	d.kind = TF_COMPARE_STATE;
	d.except = TF_EXCEPT_TID;
	for (unsigned i = 0; i < 3; i++)
		tf_evidence_difference(&journey, &d, &none, &none);
	ck_assert_uint_eq(json_array_size(outcome.differences), 3);
	ck_assert_uint_eq(json_array_size(outcome.excepted), 1);
	ck_assert(number(json_array_get(outcome.differences, 0), "thread") == 7);
	ck_assert_str_eq(json_string_value(
				 json_object_get(json_array_get(outcome.excepted, 0), "exception")),
		"tid");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("evidence");
	TCase *t = tcase_create("evidence");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_checked_fixture(t, begin, end);
	tcase_add_test(t, test_strip);
	tcase_add_test(t, test_phases);
	tcase_add_test(t, test_clock);
	tcase_add_test(t, test_seen);
	tcase_add_test(t, test_differences);
	suite_add_tcase(s, t);
	return suite_run(s);
}
