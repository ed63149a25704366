/* SPDX-License-Identifier: MIT */
/*
 * Whether a process can live at a destination: each reason alone, by its words and its code, and
 * all of them at once; and the text of facts that destinations on paper are read from. Nothing here
 * depends on the machine but the architecture's own features (test_arch.c has those).
 */
#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/plan_sample.h"
#include "tests/unit/suite.h"

static struct tf_arena arena;
static struct tf_image image;
static struct tf_facts facts;
static struct tf_err e;
static uint64_t max_memory;

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)64 << 20), 0);
	e = (struct tf_err){0};
	max_memory = 0;
	ck_assert_int_eq(sample_program(&image, &arena), 0);
	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_native, &e), 0);
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

static int check(void)
{
	e = (struct tf_err){0};
	return tf_compat_check(&image, &facts, max_memory, &e);
}

/* --- reasons: each function spoils one thing --- */

static void other_machine(void)
{
	facts.machine = EM_SPARC;
}

static void returning(void)
{
	image.source.origin = TF_ORIGIN_RETURN;
}

static void not_asked(void)
{
	image.source.flags |= TF_SOURCE_OUTSIDE;
}

static void other_page(void)
{
	facts.page_size = 16384;
}

static void narrow(void)
{
	facts.max_addr = (uint64_t)1 << 39;
}

static void high_minimum(void)
{
	facts.min_addr = 0x411000;
}

static void few_mappings(void)
{
	facts.max_map_count = image.n_maps + 16; /* one has a part beyond a file's end */
}

static void little_address_space(void)
{
	facts.address_limit = 8 << 20;
}

static void little_memory(void)
{
	facts.memory_free = 4096;
}

static void modest_receiver(void)
{
	max_memory = 4096;
}

static void few_threads(void)
{
	facts.threads_free = image.n_threads - 1;
}

/* An ordinary signal takes no place. */
static void short_queue(void)
{
	static struct tf_pending pending[] = {
		{.signo = 10, .info = {10, 0}},
		{.signo = 12, .info = {12, (uint32_t)-1}}, /* SI_QUEUE */
		{.signo = 34, .info = {34, 0}},
	};

	image.pending = pending;
	image.n_pending = 3;
	facts.pending_free = 1;
}

static void low_break(void)
{
	facts.flags &= ~TF_FACT_MM_MAP;
	facts.brk = image.mm.brk + 1;
}

static void few_locks(void)
{
	image.maps[2].vmflags |= TF_VMF_LOCKED;
	facts.lock_limit = 0x3ffff;
}

static void strict_kernel(void)
{
	facts.commit_free = 0x10000;
}

static void huge_pages(void)
{
	image.maps[3].huge = 21;
	facts.huge[0] = (struct tf_huge){UINT64_C(1) << 21, 0};
}

static void no_keys(void)
{
	image.maps[2].key = 3;
	facts.flags &= ~TF_FACT_KEYS;
}

static const struct {
	void (*spoil)(void);
	const char *words;
} reasons[] = {
	{returning, "yoyo"},
	{not_asked, "without asking the process"},
	{other_page, "page size: the process has pages of 4096 bytes, here they have 16384"},
	{narrow, "address width: the process uses 7f0000000000-7f0000200000"},
	{high_minimum, "vm.mmap_min_addr here is 4263936"},
	{few_mappings, "vm.max_map_count here is 22: raise it to 23"},
	{little_address_space, "RLIMIT_AS"},
	{little_memory, "are free here"},
	{few_threads, "threads: the process has 1, 0 more may be here"},
	{short_queue, "signals: 2 are pending, 1 more may be here"},
	{low_break, "telefork-pad"},
	{few_locks, "locked 262144 bytes and all that is to come, RLIMIT_MEMLOCK here is 262143"},
	{strict_kernel, "vm.overcommit_memory here is 2 and 65536 are left"},
	{huge_pages, "the process has 1 of 2048 KiB, 0 are free here: raise vm.nr_hugepages"},
	{no_keys, "memory protection keys"},
};

#define N_REASONS (sizeof(reasons) / sizeof(*reasons))

START_TEST(can_live)
{
	ck_assert_msg(!check(), "%s", e.text);
	/* At the very edge of each limit. */
	facts.max_addr = image.maps[image.n_maps - 1].end;
	facts.min_addr = image.maps[0].start;
	facts.max_map_count = image.n_maps + 17;
	facts.threads_free = image.n_threads;
	short_queue();
	facts.pending_free = 2;
	facts.flags &= ~TF_FACT_MM_MAP;
	facts.brk = image.mm.brk;
	image.maps[2].vmflags |= TF_VMF_LOCKED;
	facts.lock_limit = 0x40000;
	image.maps[3].huge = 21;
	facts.huge[0] = (struct tf_huge){UINT64_C(1) << 21, 1};
	ck_assert_msg(!check(), "%s", e.text);
}
END_TEST

START_TEST(each_reason)
{
	reasons[_i].spoil();
	ck_assert_int_eq(check(), TELEFORK_E_INCOMPATIBLE);
	ck_assert_int_eq(e.code, TELEFORK_E_INCOMPATIBLE);
	ck_assert_msg(strstr(e.text, reasons[_i].words), "%s", e.text);
	ck_assert_msg(!strchr(e.text, '\n'), "more than one reason: %s", e.text);
}
END_TEST

START_TEST(all_reasons_at_once)
{
	unsigned lines = 1;

	for (size_t i = 0; i < N_REASONS; i++)
		reasons[i].spoil();
	ck_assert_int_eq(check(), TELEFORK_E_INCOMPATIBLE);
	for (size_t i = 0; i < N_REASONS; i++)
		ck_assert_msg(strstr(e.text, reasons[i].words), "%s is missing in: %s",
			reasons[i].words, e.text);
	for (const char *p = e.text; (p = strchr(p, '\n')); p++)
		lines++;
	ck_assert_uint_eq(lines, N_REASONS);
}
END_TEST

/* Of another architecture nothing else can be said. */
START_TEST(architecture)
{
	not_asked();
	other_page();
	other_machine();
	ck_assert_int_eq(check(), TELEFORK_E_INCOMPATIBLE);
	ck_assert_ptr_nonnull(strstr(e.text, "architecture: the process is "));
	ck_assert_ptr_nonnull(strstr(e.text, tf_arch_native()->name));
	ck_assert_ptr_null(strchr(e.text, '\n'));
}
END_TEST

/* What a receiver is told to take at most counts, not what is free. */
START_TEST(memory_limit)
{
	uint64_t present = 0;

	for (uint32_t i = 0; i < image.n_segments; i++)
		present += image.segments[i].filesz;
	modest_receiver();
	ck_assert_int_eq(check(), TELEFORK_E_INCOMPATIBLE);
	ck_assert_ptr_nonnull(strstr(e.text, "this receiver takes 4096 at most"));
	max_memory = present - 1;
	ck_assert_int_ne(check(), 0);
	max_memory = present;
	ck_assert_msg(!check(), "%s", e.text);
	little_memory();
	ck_assert_msg(!check(), "%s", e.text);
	max_memory = 0;
	facts.memory_free = present;
	ck_assert_msg(!check(), "%s", e.text);
}
END_TEST

START_TEST(features_in_use)
{
	const struct tf_arch *arch = tf_arch_native();
	size_t i = 0;

	while (i < arch->n_features && arch->features[i].hint)
		i++;
	ck_assert_uint_lt(i, arch->n_features);
	memset(facts.cpu.features, 0, sizeof(facts.cpu.features));
	memset(image.cpu.features, 0, sizeof(image.cpu.features));
	image.cpu.n_words = TF_FEATURE_WORDS;
	image.cpu.features[arch->features[i].word] |= UINT64_C(1) << arch->features[i].bit;
	ck_assert_int_eq(check(), TELEFORK_E_INCOMPATIBLE);
	ck_assert_msg(strstr(e.text, arch->features[i].name), "%s", e.text);
	ck_assert_msg(!image.n_tags == !strstr(e.text, "memory tags"), "%s", e.text);
	not_asked();
	ck_assert_int_eq(check(), TELEFORK_E_INCOMPATIBLE);
	ck_assert_ptr_nonnull(strstr(e.text, "without asking"));
	ck_assert_ptr_nonnull(strstr(e.text, arch->features[i].name));
}
END_TEST

START_TEST(emulator)
{
	struct tf_map own = {.start = 0x7f0000100000, .end = 0x7f0000101000, .path = "/qemu"};

	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_emulated, &e), 0);
	ck_assert_msg(!check(), "%s", e.text);
	facts.keep[1] = 0x7effffa00000; /* the first page of the stack that is mapped whole */
	ck_assert_int_eq(check(), TELEFORK_E_COLLISION);
	ck_assert_ptr_nonnull(strstr(e.text, "holds page 7effffa00000"));
	ck_assert_ptr_nonnull(strstr(e.text, "QEMU_STACK_SIZE"));
	facts.keep[1] = 0x7effff9ff000;
	ck_assert_msg(!check(), "%s", e.text);
	facts.taken = &own;
	facts.n_taken = 1;
	ck_assert_int_eq(check(), TELEFORK_E_COLLISION);
	ck_assert_ptr_nonnull(strstr(e.text, "(/qemu)"));
	facts.maps = &own; /* a page that the guest sees is the receiver's: it goes */
	facts.n_maps = 1;
	ck_assert_msg(!check(), "%s", e.text);
	facts.maps = NULL;
	facts.n_maps = 0;
	facts.flags &= ~TF_FACT_EMULATED; /* natively all of it goes */
	ck_assert_msg(!check(), "%s", e.text);
}
END_TEST

/* --- facts --- */

START_TEST(facts_read)
{
	ck_assert_uint_eq(facts.page_size, 4096);
	ck_assert_uint_eq(facts.flags, TF_FACT_MM_MAP | TF_FACT_RSEQ | TF_FACT_PTRACE);
	ck_assert_uint_eq(facts.max_addr, 0x7ffffffff000);
	ck_assert_uint_eq(facts.address_limit, UINT64_MAX);
	ck_assert_uint_eq(facts.rseq.sig, 0x53053053);
	ck_assert_uint_eq(facts.vdso.vvar_base, 0x7ffff7fa0000);
	ck_assert_uint_eq(facts.n_maps, 7);
	ck_assert_ptr_eq(facts.maps, facts.taken);
	ck_assert_uint_eq(facts.maps[2].kind, TF_MAP_HEAP);
	ck_assert_uint_eq(facts.maps[5].kind, TF_MAP_VDSO);
	ck_assert_int_eq(tf_facts_parse(&facts, &arena, "", &e), 0);
	ck_assert_uint_eq(facts.n_maps, 0);
	ck_assert_int_eq(tf_facts_parse(&facts, &arena, "maps:", &e), 0);
	ck_assert_int_eq(tf_facts_parse(&facts, &arena, "keep 1\nkeep 2\n\n# end\nbrk 7", &e), 0);
	ck_assert_uint_eq(facts.n_keep, 2);
	ck_assert_uint_eq(facts.keep[1], 2);
	ck_assert_uint_eq(facts.brk, 7);
}
END_TEST

START_TEST(facts_nonsense)
{
	static const char *const lines[] = {"page_size", "page_size ", "page_size x",
		"page_size -1", "page_size 4096 ", "page_size 4096x", "page_size  4096",
		"page_size 4294967296", "brk 0x", "brk 18446744073709551616",
		"brk 0x10000000000000000", "page 4096", "page_sizes 4096", " brk 1", "maps",
		"rseq 1", "keep 1\nkeep 1\nkeep 1\nkeep 1\nkeep 1\nkeep 1\nkeep 1\nkeep 1\nkeep 1"};
	char text[256];

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		snprintf(text, sizeof(text), "brk 1\n%s\nbrk 2\n", lines[i]);
		e = (struct tf_err){0};
		ck_assert_msg(tf_facts_parse(&facts, &arena, text, &e) == TELEFORK_E_INVAL,
			"accepted: %s", lines[i]);
		ck_assert_msg(strstr(e.text, strchr(lines[i], '\n') ? "line 10" : "line 2"), "%s",
			e.text);
	}
	e = (struct tf_err){0};
	ck_assert_int_eq(
		tf_facts_parse(&facts, &arena, "maps:\nnonsense\n", &e), TELEFORK_E_SYSTEM);
}
END_TEST

/* What this machine says of itself: within what can be. */
START_TEST(facts_gathered)
{
	ck_assert_msg(!tf_facts_gather(&facts, &arena, &e), "%s", e.text);
	ck_assert_uint_eq(facts.machine, tf_arch_native()->machine);
	ck_assert_uint_eq(facts.page_size, (uint64_t)sysconf(_SC_PAGESIZE));
	ck_assert_uint_gt(facts.max_addr, (uint64_t)&facts);
	ck_assert_uint_le(facts.max_addr, TF_MAX_ADDR);
	ck_assert_uint_gt(facts.n_maps, 3);
	ck_assert_uint_gt(facts.memory_free, 1 << 20);
	ck_assert_uint_gt(facts.auxv_size, 16);
	ck_assert_uint_gt(facts.threads_free, 1);
	ck_assert_uint_le(facts.threads_free, TF_MAX_TID); /* kernel.pid_max, at least */
	ck_assert_uint_gt(facts.pending_free, 0);
	for (uint32_t i = 0; i < facts.n_maps; i++)
		ck_assert_uint_le(facts.maps[i].end, facts.max_addr);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("compat");
	TCase *t = tcase_create("compat");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, can_live);
	tcase_add_loop_test(t, each_reason, 0, (int)N_REASONS);
	tcase_add_test(t, all_reasons_at_once);
	tcase_add_test(t, architecture);
	tcase_add_test(t, memory_limit);
	tcase_add_test(t, features_in_use);
	tcase_add_test(t, emulator);
	tcase_add_test(t, facts_read);
	tcase_add_test(t, facts_nonsense);
	tcase_add_test(t, facts_gathered);
	suite_add_tcase(s, t);
	return suite_run(s);
}
