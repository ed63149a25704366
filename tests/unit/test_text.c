/* SPDX-License-Identifier: MIT */
/* Text out of anywhere, for documents: harness/text.c. */
#include "harness/text.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdlib.h>

#define R "\xef\xbf\xbd"

static const struct {
	const char *in, *out;
} texts[] = {
	{"", ""},
	{"plain\n\ttext", "plain\n\ttext"},
	{"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\x80"},
	{"\x01\x1b[31m\r\x7f", R R "[31m" R R},
	{"\xff\xfe", R R},
	{"\x80"
	 "a",
		R "a"},
	{"\xc0\xaf", R R},                  /* a slash the long way */
	{"\xe0\x80\xaf", R R R},            /* longer */
	{"\xed\xa0\x80", R R R},            /* half of a pair */
	{"\xf4\x90\x80\x80", R R R R},      /* beyond Unicode */
	{"\xef\xbf\xbe\xef\xbf\xbf", R R},  /* no characters, says XML */
	{"\xc2\x85\xc2\xa0", R "\xc2\xa0"}, /* a control character; a space */
	{"\xe2\x82", R R},                  /* cut */
	{"\xf0\x9f\x9a", R R R},
};

START_TEST(test_text)
{
	json_t *j = tf_text_json(texts[_i].in, 100);

	ck_assert_str_eq(json_string_value(j), texts[_i].out);
	json_decref(j);
}
END_TEST

START_TEST(test_cut)
{
	json_t *j = tf_text_json("abc\xc3\xa9", 4);

	ck_assert_str_eq(json_string_value(j), "abc" R);
	json_decref(j);
	ck_assert(json_is_null(tf_text_json(NULL, 4)));
}
END_TEST

START_TEST(test_clean)
{
	json_t *j = json_loads(
		"{\"a\": [\"x\\u0001\", 1, null], \"b\": {\"c\": \"\\uffff\"}}", 0, NULL);
	json_t *want = json_loads(
		"{\"a\": [\"x\\ufffd\", 1, null], \"b\": {\"c\": \"\\ufffd\"}}", 0, NULL);

	tf_text_clean(j);
	ck_assert(json_equal(j, want));
	json_decref(j);
	json_decref(want);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("text");
	TCase *t = tcase_create("text");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_loop_test(t, test_text, 0, sizeof(texts) / sizeof(*texts));
	tcase_add_test(t, test_cut);
	tcase_add_test(t, test_clean);
	suite_add_tcase(s, t);
	return suite_run(s);
}
