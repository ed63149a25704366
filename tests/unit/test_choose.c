/* SPDX-License-Identifier: MIT */
/* What pays on a line (core/pack/choose.h): which compression, and whether to ask what is there. */
#include "core/pack/choose.h"
#include "tests/unit/suite.h"

#define MS UINT64_C(1000000)

/* A line of so many bytes a second that always has a queue. */
static void line(struct tf_chooser *c, double rate, uint32_t unsent)
{
	for (unsigned i = 0; i < 4; i++)
		tf_choose_look(c, (i + 1) * 10 * MS, unsent + (uint64_t)(rate / 100 * i), unsent);
}

START_TEST(chosen)
{
	struct tf_chooser c;

	tf_choose_begin(&c, 1u << TF_CODEC_LZ4 | 1u << TF_CODEC_ZSTD);
	ck_assert_int_eq(tf_choose_codec(&c, 0, 131072), TF_CODEC_NONE); /* nothing is known */
	ck_assert(!tf_choose_list(&c));
	line(&c, 3e9, 1 << 20); /* loopback */
	ck_assert_int_eq(tf_choose_codec(&c, 0, 131072), TF_CODEC_NONE);
	ck_assert(!tf_choose_list(&c));

	tf_choose_begin(&c, 1u << TF_CODEC_LZ4 | 1u << TF_CODEC_ZSTD);
	line(&c, 10e6, 1 << 20);
	ck_assert(tf_choose_list(&c));
	ck_assert_int_eq(tf_choose_codec(&c, 0, 131072), TF_CODEC_LZ4); /* is tried */
	tf_choose_learn(&c, TF_CODEC_LZ4, 0, 1000000, 700000, MS);
	ck_assert_int_eq(tf_choose_codec(&c, 131072, 131072), TF_CODEC_ZSTD);
	tf_choose_learn(&c, TF_CODEC_ZSTD, 131072, 1000000, 500000, 3 * MS);
	ck_assert_int_eq(tf_choose_codec(&c, 262144, 131072), TF_CODEC_ZSTD); /* makes less of it */
	line(&c, 120e6, 1 << 20); /* then it is the slower one */
	ck_assert_int_eq(tf_choose_codec(&c, 262144, 131072), TF_CODEC_LZ4);
	c.unsent = 0; /* it waits for us, and is done sooner all the same */
	ck_assert_int_eq(tf_choose_codec(&c, 262144, 131072), TF_CODEC_LZ4);
	line(&c, 400e6, 1 << 20);
	ck_assert_int_eq(tf_choose_codec(&c, 262144, 131072), TF_CODEC_LZ4);
	c.unsent = 0; /* it would not be */
	ck_assert_int_eq(tf_choose_codec(&c, 262144, 131072), TF_CODEC_NONE);

	/* What is known of large blocks says nothing of small ones. */
	tf_choose_begin(&c, 1u << TF_CODEC_LZ4);
	line(&c, 100e6, 1 << 20);
	tf_choose_learn(&c, TF_CODEC_LZ4, 0, 131072, 60000, MS / 4);
	tf_choose_learn(&c, TF_CODEC_LZ4, 0, 4096, 2000, MS / 4);
	ck_assert_int_eq(tf_choose_codec(&c, 131072, 131072), TF_CODEC_LZ4);
	ck_assert_int_eq(tf_choose_codec(&c, 131072, 4096), TF_CODEC_NONE);

	/* What brings nothing is tried ever less. */
	tf_choose_begin(&c, 1u << TF_CODEC_LZ4);
	line(&c, 10e6, 1 << 20);
	{
		unsigned tries = 0;

		for (uint64_t sent = 0; sent < UINT64_C(1) << 30; sent += 131072)
			if (tf_choose_codec(&c, sent, 131072)) {
				tf_choose_learn(&c, TF_CODEC_LZ4, sent, 131072, 131072, MS / 5);
				tries++;
			}
		ck_assert_uint_ge(tries, 4);
		ck_assert_uint_le(tries, 10);
	}
}
END_TEST

/* An idle line tells nothing of itself, but that it can do what it did. */
START_TEST(idle)
{
	struct tf_chooser c;

	tf_choose_begin(&c, 1u << TF_CODEC_LZ4);
	for (unsigned i = 1; i < 10; i++)
		tf_choose_look(&c, i * 10 * MS, i * 1000, 0);
	ck_assert(c.line <= 0);
	line(&c, 10e6, 1 << 20);
	ck_assert(c.line > 5e6 && c.line < 15e6);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("choose");
	TCase *t = tcase_create("choose");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, chosen);
	tcase_add_test(t, idle);
	suite_add_tcase(s, t);
	return suite_run(s);
}
