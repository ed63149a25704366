/* SPDX-License-Identifier: MIT */
/*
 * As far as the receiver may grant it: each thing that the kernel keeps, against receivers that
 * have less; the steps that a plan makes of what is left, and their order; and what a system call
 * filter says to a call, asked on paper.
 */
#include <check.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/capture/task_impl.h"
#include "core/restore/fit.h"
#include "tests/unit/plan_sample.h"
#include "tests/unit/suite.h"

#define RESTORER_SIZE 2345
#define BIT(cap)      (UINT64_C(1) << (cap))

static struct tf_arena arena;
static struct tf_image image;
static struct tf_facts facts;
static struct tf_restore plan;
static struct tf_err e, left;

/* A receiver that is root in the first user namespace, on the machine where the image was taken. */
static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)256 << 20), 0);
	e = left = (struct tf_err){0};
	plan = (struct tf_restore){0};
	ck_assert_int_eq(sample_program(&image, &arena), 0);
	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_native, &e), 0);
	facts.flags |= TF_FACT_TIMER_IDS | TF_FACT_FIRST_USER | TF_FACT_UNFILTERED |
		       TF_FACT_TIME_NS | TF_FACT_EXE;
	for (unsigned i = TF_CAP_P; i <= TF_CAP_B; i++)
		facts.rights.caps[i] = UINT64_C(0x1ffffffffff);
	for (unsigned i = 0; i < 2 * TF_LIMITS; i++)
		facts.limits[i] = 100;
	facts.nr_open = 1048576;
	facts.cpus[0] = 15;
	facts.boot = image.process.boot;
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

static void make_nobody(void)
{
	memset(facts.rights.caps, 0, sizeof(facts.rights.caps));
	for (unsigned i = 0; i < 4; i++)
		facts.rights.uid[i] = facts.rights.gid[i] = 65534;
}

static void need_left(const char *words)
{
	ck_assert_msg(left.code && strstr(left.text, words), "%s, not %s", left.text, words);
}

/* --- what is granted --- */

START_TEST(root_grants_all)
{
	struct tf_process process = image.process;
	struct tf_rights rights = image.rights[0];
	struct tf_attributes attributes = image.attributes[0];

	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), 0);
	ck_assert_msg(!left.code && !e.code, "%s%s", left.text, e.text);
	ck_assert_mem_eq(&image.process, &process, sizeof(process));
	ck_assert_mem_eq(&image.rights[0], &rights, sizeof(rights));
	ck_assert_mem_eq(&image.attributes[0], &attributes, sizeof(attributes));
}
END_TEST

START_TEST(nothing_known_nothing_left)
{
	make_nobody();
	facts.boot = "another";
	image.process.flags = 0;
	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), 0);
	ck_assert(!left.code && !e.code);
}
END_TEST

START_TEST(limits_and_priorities)
{
	make_nobody();
	image.n_filters = 0;
	image.process.oom_score_adj = -1;
	image.attributes[0].policy = 1;
	image.attributes[0].priority = 101;
	image.attributes[0].ioprio = 1 << 13;
	ck_assert_int_eq(tf_fit(&image, &facts, true, &left, &e), 0);
	need_left("limit core: its hard limit is 1009, here 100 is the most");
	ck_assert_uint_eq(image.process.limits[8], 100);
	ck_assert_uint_eq(image.process.limits[9], 100);
	need_left("oom_score_adj: it is -1, here 0 is the least");
	ck_assert_int_eq(image.process.oom_score_adj, 0);
	need_left("thread 4711: scheduling policy 1, priority 101");
	ck_assert_uint_eq(image.attributes[0].policy, 0);
	need_left("real-time I/O priority");
	ck_assert_uint_eq(image.attributes[0].ioprio, 0);
}
END_TEST

START_TEST(nice_needs_a_right)
{
	facts.rights.caps[TF_CAP_E] &= ~BIT(CAP_SYS_NICE);
	facts.limits[2 * RLIMIT_NICE] = 10; /* nice 10 at least */
	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), 0);
	need_left("thread 4711: nice -5: here 0 is the least");
	ck_assert_int_eq(image.attributes[0].nice, 0);
}
END_TEST

/* In another user namespace root is root for little. */
START_TEST(root_of_a_namespace)
{
	facts.flags &= ~TF_FACT_FIRST_USER;
	facts.limits[2 * RLIMIT_NICE] = 10;
	image.n_filters = 0;
	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), 0);
	need_left("limit core");
	need_left("nice -5");
	ck_assert_uint_eq(image.rights[0].uid[0], 1000);
}
END_TEST

START_TEST(processors)
{
	static const struct {
		uint64_t its, here, gets;
		const char *words; /* NULL: nothing is said */
	} cases[] = {
		{5, 15, 5, NULL},
		{15, 3, UINT64_MAX, NULL},
		{5, 3, 1, "some of the processors"},
		{12, 3, UINT64_MAX, "none of the processors"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		left = (struct tf_err){0};
		image.attributes[0].cpus[0] = cases[i].its;
		facts.cpus[0] = cases[i].here;
		ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), 0);
		ck_assert_uint_eq(image.attributes[0].cpus[0], cases[i].gets);
		if (cases[i].words)
			need_left(cases[i].words);
		else
			ck_assert_int_eq(left.code, 0);
	}
}
END_TEST

START_TEST(ids_are_refused_or_waived)
{
	make_nobody();
	image.n_filters = 0;
	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), TELEFORK_E_INCOMPATIBLE);
	ck_assert_msg(
		strstr(e.text, "credentials: the process is uid 1001, gid 11 with 2 groups") &&
			strstr(e.text, "--allow credentials"),
		"%s", e.text);
	e = left = (struct tf_err){0};
	ck_assert_int_eq(tf_fit(&image, &facts, true, &left, &e), 0);
	need_left("credentials: uid 1001 and gid 11 become the receiver's, 65534 and 65534");
	ck_assert_mem_eq(image.rights[0].uid, facts.rights.uid, sizeof(facts.rights.uid));
	ck_assert_uint_eq(image.rights[0].n_groups, TF_OWN_GROUPS);
}
END_TEST

/* Whatever an image says: never more than the receiver has. */
START_TEST(capabilities_never_more)
{
	facts.rights.caps[TF_CAP_P] = facts.rights.caps[TF_CAP_B] = BIT(CAP_NET_RAW) | 1;
	facts.rights.caps[TF_CAP_E] = 1;
	memset(image.rights[0].caps, 0xff, sizeof(image.rights[0].caps));
	memcpy(image.rights[0].uid, facts.rights.uid, sizeof(facts.rights.uid));
	image.rights[0].securebits = 0x10;
	image.n_rights = 1;
	image.n_filters = 0;
	tf_fit(&image, &facts, true, &left, &e);
	need_left("capabilities ");
	for (unsigned i = 0; i < TF_CAP_SETS; i++)
		ck_assert_uint_eq(image.rights[0].caps[i] & ~facts.rights.caps[TF_CAP_P], 0);
	need_left("securebits");
}
END_TEST

START_TEST(filters_or_nothing)
{
	const uint32_t flags = facts.flags;

	facts.flags = flags & ~TF_FACT_PTRACE;
	ck_assert_int_eq(tf_fit(&image, &facts, true, &left, &e), TELEFORK_E_INCOMPATIBLE);
	ck_assert_ptr_nonnull(strstr(e.text, "seccomp: "));
	e = (struct tf_err){0};
	facts.flags = flags & ~TF_FACT_UNFILTERED;
	ck_assert_int_eq(tf_fit(&image, &facts, true, &left, &e), TELEFORK_E_INCOMPATIBLE);
	e = (struct tf_err){0};
	facts.flags = flags;
	facts.rights.caps[TF_CAP_E] &= ~BIT(CAP_SYS_ADMIN);
	ck_assert_int_eq(tf_fit(&image, &facts, true, &left, &e), TELEFORK_E_INCOMPATIBLE);
}
END_TEST

START_TEST(clocks_and_timers)
{
	facts.boot = "another";
	ck_assert(tf_fit_clocks(&image, &facts));
	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), 0);
	ck_assert_int_eq(left.code, 0);
	facts.flags &= ~(TF_FACT_TIME_NS | TF_FACT_TIMER_IDS);
	facts.monotonic_ns = image.source.monotonic_ns - UINT64_C(7000000000);
	image.timers[1].id = 5000;
	ck_assert_int_eq(tf_fit(&image, &facts, false, &left, &e), TELEFORK_E_INCOMPATIBLE);
	need_left("monotonic clock: it jumps by -7 s");
	ck_assert_ptr_nonnull(strstr(e.text, "timer id 5000 is too far away"));
}
END_TEST

/* --- what becomes of it --- */

static void build(void)
{
	uint8_t *head;

	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, true, false, &e), 0);
	ck_assert_msg(
		!tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e), "%s", e.text);
}

/* Index of the n-th step (from 0) with that comment; UINT64_MAX if there is none. */
static uint64_t index_of(const char *comment, unsigned n)
{
	for (uint64_t i = 0; i < plan.plan.n_steps; i++)
		if (plan.plan.steps[i].comment && !strcmp(plan.plan.steps[i].comment, comment) &&
			!n--)
			return i;
	return UINT64_MAX;
}

START_TEST(order_of_a_plan)
{
	/* Each before the next. */
	static const char *const order[] = {"oom_score_adj", "groups", "uid", "file system uid",
		"not to outlive the receiver", "umask", "timers get the ids that they had", "timer",
		"nice", "scheduling", "limit", "ready", "seccomp filter", "dumpable",
		"interval timer", "timer runs", "control", "run"};
	uint64_t last = 0;

	build();
	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
		uint64_t at = index_of(order[i], 0);

		ck_assert_msg(
			at != UINT64_MAX && at > last, "%s is not where it belongs", order[i]);
		last = at;
	}
	/* The last capabilities go after the filters, which need one of them. */
	ck_assert_uint_gt(index_of("capabilities", 1), index_of("seccomp filter", 1));
	ck_assert_uint_lt(index_of("capabilities", 1), index_of("dumpable", 0));
	ck_assert_uint_eq(index_of("seccomp filter", 2), UINT64_MAX);
}
END_TEST

/* A name in the image may be a link here, made by the program's user. */
START_TEST(files_as_the_program)
{
	uint64_t begin, end, made;

	build();
	begin = index_of("files: as the program may", 0);
	end = index_of("files: as the receiver may", 0);
	made = index_of(image.objects[0].path, 0);
	ck_assert_uint_lt(index_of("files: uid", 0), begin);
	ck_assert_uint_lt(begin, made);
	ck_assert_uint_lt(made, end);
	ck_assert_uint_lt(end, index_of("uid", 0));
	ck_assert_uint_eq(
		plan.plan.steps[index_of("files: uid", 0)].arg[0], image.rights[0].uid[3]);
	ck_assert_uint_eq(plan.plan.steps[index_of("files: uid", 1)].arg[0], facts.rights.uid[3]);
}
END_TEST

/* The receiver's groups are there already, for every thread; their number is none. */
START_TEST(groups_that_stay)
{
	struct tf_thread threads[2] = {image.threads[0], image.threads[0]};
	struct tf_attributes attributes[2] = {image.attributes[0], image.attributes[0]};

	make_nobody();
	facts.rights.caps[TF_CAP_P] = BIT(CAP_NET_RAW); /* which the program had not */
	memset(image.rights[0].caps, 0, sizeof(image.rights[0].caps));
	memset(image.rights[1].caps, 0, sizeof(image.rights[1].caps));
	threads[1].tid++;
	image.threads = threads;
	image.attributes = attributes;
	image.n_threads = image.n_attributes = 2;
	image.n_filters = image.n_timers = image.n_pending = 0;
	attributes[0].rights = 0;
	attributes[1].rights = 1;
	attributes[0].chain = attributes[1].chain = TF_NO_CHAIN;
	ck_assert_int_eq(tf_fit(&image, &facts, true, &left, &e), 0);
	ck_assert_uint_eq(image.rights[1].n_groups, TF_OWN_GROUPS);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, true, false, &e), 0);
	ck_assert_msg(
		!tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e), "%s", e.text);
	ck_assert_uint_eq(index_of("groups", 0), UINT64_MAX);
}
END_TEST

/* Who has what the receiver has, keeps it without a step. */
START_TEST(equal_rights_need_no_step)
{
	facts.rights = image.rights[0];
	facts.groups = image.groups;
	image.n_filters = 0;
	image.attributes[0].chain = TF_NO_CHAIN;
	build();
	ck_assert_uint_eq(index_of("uid", 0), UINT64_MAX);
	ck_assert_uint_eq(index_of("capabilities", 0), UINT64_MAX);
	ck_assert_uint_eq(index_of("files: uid", 0), UINT64_MAX);
}
END_TEST

START_TEST(ids_of_timers)
{
	unsigned fillers = 0;

	build();
	ck_assert_uint_eq(index_of("on the way to a timer's id", 0), UINT64_MAX);
	facts.flags &= ~TF_FACT_TIMER_IDS;
	plan = (struct tf_restore){0};
	build();
	ck_assert_uint_eq(index_of("timers get the ids that they had", 0), UINT64_MAX);
	while (index_of("on the way to a timer's id", fillers) != UINT64_MAX)
		fillers++;
	ck_assert_uint_eq(fillers, 2 * 3); /* 0 and 1, then 3: each made and deleted */
}
END_TEST

START_TEST(timer_of_nobody)
{
	image.timers[0].tid = 99;
	ck_assert_int_eq(tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e),
		TELEFORK_E_IMAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "a timer tells thread 99"));
}
END_TEST

/* --- filters on paper --- */

START_TEST(filters_answer)
{
	const struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4), /* arch */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* nr */
		BPF_STMT(BPF_ST, 3),
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16), /* low half of the first argument */
		BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),
		BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 1),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 100, 0, 2),
		BPF_STMT(BPF_LDX | BPF_MEM, 3),
		BPF_JUMP(BPF_JMP | BPF_JA, 2, 0, 0),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_MISC | BPF_TXA, 0),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	static const struct {
		int nr;
		uint64_t arg;
		uint32_t answer;
	} cases[] = {
		{10, 1, SECCOMP_RET_TRAP},     /* (1 + 10) * 2 = 22, has bit 1 */
		{10, 2, 10},                   /* 24 has not: x */
		{10, 100, 10},                 /* 220 is greater: x from memory */
		{7, UINT64_C(0xf00000001), 7}, /* 16; only the low half is looked at */
	};
	uint64_t code[sizeof(f) / sizeof(*f)];
	struct seccomp_data data = {.arch = AUDIT_ARCH_X86_64};

	memcpy(code, f, sizeof(f));
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		data.nr = cases[i].nr;
		data.args[0] = cases[i].arg;
		ck_assert_uint_eq(
			tf_filter_run(code, sizeof(f) / sizeof(*f), &data), cases[i].answer);
	}
	data.arch = AUDIT_ARCH_AARCH64;
	ck_assert_uint_eq(
		tf_filter_run(code, sizeof(f) / sizeof(*f), &data), SECCOMP_RET_KILL_PROCESS);
	ck_assert_uint_eq(tf_filter_run(code, 1, &data), SECCOMP_RET_KILL_PROCESS);
}
END_TEST

/* A call that a filter would end the thread for is not made; one that it answers with an error is.
 */
START_TEST(calls_are_asked_for)
{
	struct tf_task t = {.capture.image = image};
	const uint64_t arg[6] = {0};
	uint64_t answer[1];
	const struct sock_filter f[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1)};
	const struct sock_filter g[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)};

	t.capture.image.filters[0].n_code = 1;
	t.capture.image.n_filters = 1;
	t.capture.image.code = answer;
	memcpy(answer, f, sizeof(f));
	ck_assert_int_eq(tf_task_check_call(&t, 0, 0, SYS_gettid, arg), 0);
	memcpy(answer, g, sizeof(g));
	ck_assert_int_eq(tf_task_check_call(&t, 0, 0, SYS_gettid, arg), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(t.capture.err.text, "seccomp: a filter of thread 4711"));
	t.capture.image.attributes[0].chain = TF_NO_CHAIN;
	ck_assert_int_eq(tf_task_check_call(&t, 0, 0, SYS_gettid, arg), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fit");
	TCase *t = tcase_create("fit");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, root_grants_all);
	tcase_add_test(t, nothing_known_nothing_left);
	tcase_add_test(t, limits_and_priorities);
	tcase_add_test(t, nice_needs_a_right);
	tcase_add_test(t, root_of_a_namespace);
	tcase_add_test(t, processors);
	tcase_add_test(t, ids_are_refused_or_waived);
	tcase_add_test(t, capabilities_never_more);
	tcase_add_test(t, filters_or_nothing);
	tcase_add_test(t, clocks_and_timers);
	tcase_add_test(t, order_of_a_plan);
	tcase_add_test(t, files_as_the_program);
	tcase_add_test(t, groups_that_stay);
	tcase_add_test(t, equal_rights_need_no_step);
	tcase_add_test(t, ids_of_timers);
	tcase_add_test(t, timer_of_nobody);
	tcase_add_test(t, filters_answer);
	tcase_add_test(t, calls_are_asked_for);
	suite_add_tcase(s, t);
	return suite_run(s);
}
