/* SPDX-License-Identifier: MIT */
/*
 * Plans: held against golden texts as `telefork restore --dry-run` prints them, played on paper
 * (plan_model.h), and looked into for each thing that an image or a destination can vary. A plan's
 * numbers are those of the architecture that builds it: make check runs this on both. Golden files
 * are written anew with TF_GOLDEN=write; sources are looked for in $TF_SRCDIR, or here.
 */
#include <check.h>
#include <stdlib.h>

#define PLAN_BROKEN(...) ck_abort_msg(__VA_ARGS__)
#include "tests/unit/plan_model.h"
#include "tests/unit/plan_sample.h"
#include "tests/unit/suite.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>
#include <sys/prctl.h>

#define RESTORER_SIZE 2345

static struct tf_arena arena;
static struct tf_image image;
static struct tf_facts facts;
static struct tf_restore plan;
static struct tf_err e;
static struct model model;

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)256 << 20), 0);
	e = (struct tf_err){0};
	plan = (struct tf_restore){0};
	ck_assert_int_eq(sample_program(&image, &arena), 0);
	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_native, &e), 0);
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

/* Segments anew, after a test has changed the maps. */
static void cover(const struct tf_run *runs, size_t n)
{
	uint8_t *head;

	ck_assert_int_eq(tf_image_make_segments(&image, &arena, runs, n, 0x40000), 0);
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
}

static void build(bool peer)
{
	uint8_t *head;

	plan = (struct tf_restore){0};
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, peer, false, &e), 0);
	ck_assert_msg(
		!tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e), "%s", e.text);
	model_play(&model, &plan, &image, &facts);
}

static void use_emulator(void)
{
	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_emulated, &e), 0);
}

static void use_equal_vdso(void)
{
	facts.vdso.digest = image.vdso.digest;
}

/* --- looking into a plan --- */

/* The n-th step (from 0) with that comment; NULL if there is none. */
static const struct tf_step *need(const char *comment)
{
	const struct tf_step *s = plan_step(&plan, comment, 0);

	ck_assert_msg(s, "no step \"%s\"", comment);
	return s;
}

static uint64_t index_of(const struct tf_step *s)
{
	return (uint64_t)(s - plan.plan.steps);
}

static const void *data_at(uint64_t address)
{
	ck_assert(address >= plan.data_at && address < plan.data_at + plan.data_size);
	return plan.data + (address - plan.data_at);
}

/* --- golden texts --- */

static char *plan_text(void)
{
	size_t room = plan.plan.n_steps * 512, n = 0;
	char *text = tf_arena_alloc(&arena, room), line[512];

	for (uint64_t i = 0; i < plan.plan.n_steps; i++) {
		tf_step_text(&plan.plan.steps[i], line, sizeof(line));
		n += (size_t)snprintf(
			text + n, room - n, "%llu\t%s\n", (unsigned long long)i, line);
	}
	return text;
}

static void hold_against(const char *name)
{
	const char *dir = getenv("TF_SRCDIR"), *mode = getenv("TF_GOLDEN");
	static char expected[65536];
	char path[4096], *text = plan_text();
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/golden/plan-%s-%s.txt", dir ? dir : ".",
		tf_arch_native()->name, name);
	f = fopen(path, mode && !strcmp(mode, "write") ? "w+" : "r");
	ck_assert_msg(f, "%s: cannot be opened (set TF_SRCDIR)", path);
	if (mode && !strcmp(mode, "write"))
		ck_assert_int_eq(fputs(text, f) < 0 || fflush(f), 0);
	rewind(f);
	expected[fread(expected, 1, sizeof(expected) - 1, f)] = '\0';
	fclose(f);
	for (char *a = text, *b = expected; *a || *b;) {
		size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");

		if (n != m || memcmp(a, b, n))
			ck_abort_msg("%s:\n  expected %.*s\n  planned  %.*s", path, (int)m, b,
				(int)n, a);
		a += n + !!a[n];
		b += m + !!b[m];
	}
}

START_TEST(golden)
{
	switch (_i) {
	case 0:
		build(false);
		hold_against("native");
		return;
	case 1:
		use_equal_vdso();
		build(true);
		hold_against("equal");
		return;
	default:
		use_emulator();
		image.source.flags = TF_SOURCE_EMULATED;
		build(false);
		hold_against("emulated");
	}
}
END_TEST

/* The same image and facts give the same plan, wherever the arena lies. */
START_TEST(plans_repeat)
{
	char *text;

	build(true);
	text = plan_text();
	ck_assert_ptr_nonnull(tf_arena_alloc(&arena, 12345));
	build(true);
	ck_assert_str_eq(plan_text(), text);
}
END_TEST

/* --- one thing at a time --- */

START_TEST(order_of_a_restore)
{
	static const char *const order[] = {"unregister the receiver's rseq", "park the vdso",
		"receiver", "heap", "memory", "vdso entry", "brk and the mm fields",
		"signal action", "clear_child_tid", "the C library's own tid", "robust list",
		"rseq", "name", "mailbox", "held", "umask", "working directory", "reserve",
		"channel", "ready", "control", "run"};

	build(false);
	for (size_t i = 1; i < sizeof(order) / sizeof(*order); i++)
		ck_assert_msg(index_of(need(order[i - 1])) < index_of(need(order[i])),
			"%s comes after %s", order[i - 1], order[i]);
	ck_assert_uint_eq(plan_count(&plan, "signal action"), TF_SIGNALS - 2);
	ck_assert_uint_eq(index_of(need("run")), plan.plan.n_steps - 1);
}
END_TEST

START_TEST(vdso_unequal)
{
	uint64_t parked, code;
	uint8_t expected[32];
	size_t n;

	build(false);
	parked = plan.park_at - facts.vdso.vvar_base;
	ck_assert_uint_eq(plan_count(&plan, "park the vdso"), 2);
	ck_assert_uint_eq(plan_count(&plan, "vdso, as it was"), 0);
	ck_assert_uint_eq(plan_count(&plan, "vdso"), 2); /* memory, and its protection */
	ck_assert_uint_eq(plan_count(&plan, "vvar"), 1);
	ck_assert_uint_eq(plan_count(&plan, "vdso entry"), 3);
	ck_assert_uint_eq(plan.hole.end - plan.park_at, 0x20000);
	code = need("vdso entry")->arg[1];
	n = tf_arch_code_jump(expected, facts.vdso.symbols[0].value + parked);
	ck_assert_uint_eq(need("vdso entry")->arg[2], n);
	ck_assert_mem_eq(data_at(code), expected, n);
	n = tf_arch_code_syscall(expected, tf_arch_vdso_syscall(sample_vdso_name(1)));
	ck_assert_mem_eq(data_at(plan_step(&plan, "vdso entry", 1)->arg[1]), expected, n);
	n = tf_arch_code_syscall(expected, -1);
	ck_assert_mem_eq(data_at(plan_step(&plan, "vdso entry", 2)->arg[1]), expected, n);
	ck_assert_uint_eq(plan_step(&plan, "vdso entry", 2)->arg[0], image.vdso.symbols[2].value);
}
END_TEST

START_TEST(vdso_entries_left_alone)
{
	image.vdso.symbols[0].size = 4; /* no room for a jump */
	tf_arch_native()->set_pc(&image.threads[0].regs, image.vdso.symbols[1].value + 4);
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "vdso entry"), 1);
	ck_assert_uint_eq(need("vdso entry")->arg[0], image.vdso.symbols[2].value);
	image.vdso.symbols[2].value = 0x440000; /* an image that lies: not in the vDSO */
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "vdso entry"), 0);
	image.vdso.symbols[2].value = image.vdso.base + image.vdso.size - 4;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "vdso entry"), 0);
	tf_arch_native()->set_pc(&image.threads[0].regs, image.vdso.symbols[1].value);
	image.maps[4].kind = TF_MAP_ANON; /* an emulator's: made of system calls, without data */
	image.vdso.vvar_base = image.vdso.vvar_size = 0;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "vdso entry"), 0);
}
END_TEST

START_TEST(vdso_equal)
{
	use_equal_vdso();
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "park the vdso"), 2);
	ck_assert_uint_eq(plan_count(&plan, "vdso, as it was"), 2);
	ck_assert_uint_eq(plan_step(&plan, "vdso, as it was", 1)->arg[4], image.vdso.base);
	ck_assert_uint_eq(plan_count(&plan, "vdso entry"), 0);
	ck_assert_uint_eq(plan_count(&plan, "vdso"), 0);
	/* Its bytes still arrive, and go nowhere. */
	for (uint64_t i = 0; i < plan.n_fills; i++)
		ck_assert(
			(plan.fills[i].address == 0) ==
			(tf_image_address(&image, plan.fills[i].offset, NULL) == image.vdso.base));
}
END_TEST

START_TEST(emulated)
{
	const struct tf_step *s;

	use_emulator();
	build(false);
	for (unsigned i = 0; (s = plan_step(&plan, "receiver", i)); i++)
		ck_assert(s->arg[0] < 0x7ffff7f10000 ? s->arg[0] + s->arg[1] <= 0x7ffff7f10000
						     : s->arg[0] >= 0x7ffff7f12000);
	ck_assert_uint_eq(
		plan_count(&plan, "receiver"), 6); /* one of them around the pages that stay */
	ck_assert_uint_eq(plan_count(&plan, "unregister the receiver's rseq"), 0);
	ck_assert_uint_eq(plan_count(&plan, "brk and the mm fields"), 0);
	ck_assert_uint_eq(need("signal action")->expect, TF_EXPECT_ANY);
	ck_assert_uint_eq(need("robust list")->expect, TF_EXPECT_ANY);
}
END_TEST

START_TEST(brk_set)
{
	const struct prctl_mm_map *map;
	const struct tf_step *s;

	build(false);
	s = need("brk and the mm fields");
	ck_assert_uint_eq(s->arg[0], PR_SET_MM);
	ck_assert_uint_eq(s->arg[3], sizeof(*map));
	map = data_at(s->arg[2]);
	ck_assert_uint_eq(map->start_code, image.mm.start_code);
	ck_assert_uint_eq(map->end_data, image.mm.end_data);
	ck_assert_uint_eq(map->start_brk, image.mm.start_brk);
	ck_assert_uint_eq(map->brk, image.mm.brk);
	ck_assert_uint_eq(map->env_end, image.mm.env_end);
	ck_assert_uint_eq(map->exe_fd, ~0u);
	ck_assert_uint_eq(map->auxv_size, image.n_auxv * 16);
	ck_assert_mem_eq(data_at((uint64_t)map->auxv), image.auxv, image.n_auxv * 16);
	facts.auxv_size = image.n_auxv * 16 - 1; /* more than the kernel keeps */
	build(false);
	map = data_at(need("brk and the mm fields")->arg[2]);
	ck_assert_uint_eq(map->auxv_size, 0);
	image.mm.start_code = 0; /* a source that does not know its own */
	build(false);
	map = data_at(need("brk and the mm fields")->arg[2]);
	ck_assert_uint_eq(map->start_code, image.maps[0].start);
	ck_assert_uint_eq(map->start_brk, image.mm.brk);
	ck_assert_uint_lt(map->arg_start, map->arg_end);
}
END_TEST

START_TEST(brk_blocked)
{
	const struct tf_step *s;

	use_emulator();
	build(false);
	s = need("no brk");
	ck_assert_uint_eq(s->arg[0], facts.brk);
	ck_assert_uint_eq(s->arg[2], PROT_NONE);
	facts.brk = 0x410000; /* a mapping of the image stands there already */
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "no brk"), 0);
	facts.flags = 0; /* a kernel without PR_SET_MM */
	facts.n_keep = 0;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "no brk"), 0);
	ck_assert_uint_eq(plan_count(&plan, "brk and the mm fields"), 0);
}
END_TEST

START_TEST(rseq)
{
	const struct tf_thread *t = &image.threads[0];
	const struct tf_step *s;

	build(false);
	s = need("unregister the receiver's rseq");
	ck_assert_uint_eq(s->arg[0], facts.rseq.addr);
	ck_assert_uint_eq(s->arg[2], 1);
	s = need("rseq");
	ck_assert_uint_eq(s->arg[0], t->rseq.addr);
	ck_assert_uint_eq(s->arg[1], t->rseq.len);
	ck_assert_uint_eq(s->arg[3], t->rseq.sig);
	ck_assert_uint_eq(need("rseq: no critical section")->arg[0], t->rseq.addr + 8);
	facts.rseq.addr = 0;
	facts.flags &= ~TF_FACT_RSEQ;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "unregister the receiver's rseq"), 0);
	ck_assert_uint_eq(plan_count(&plan, "rseq"), 0);
	ck_assert_uint_eq(need("rseq: not here")->arg[1] >> 32, 0xfffffffe); /* cpu_id */
	image.threads[0].rseq.addr = 0;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "rseq: not here"), 0);
	image.threads[0].rseq.addr = 0x410000; /* not writable: not a C library's */
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "rseq: no critical section"), 0);
}
END_TEST

START_TEST(tid_and_robust_list)
{
	const struct tf_step *s;

	build(false);
	s = need("the C library's own tid");
	ck_assert_uint_eq(s->op, TF_OP_STORE_IF);
	ck_assert_uint_eq(s->arg[0], image.threads[0].tid_addr);
	ck_assert_uint_eq(s->refs, 2);
	ck_assert_uint_eq(s->arg[1], index_of(need("clear_child_tid")));
	ck_assert_uint_eq(s->arg[3], (uint64_t)image.threads[0].tid);
	ck_assert_uint_eq(need("robust list")->arg[0], image.threads[0].robust_head);
	ck_assert_str_eq(data_at(need("name")->arg[1]), "sample");
	image.threads[0].tid_addr = 0;
	image.threads[0].robust_head = 0;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "clear_child_tid"), 1);
	ck_assert_uint_eq(plan_count(&plan, "the C library's own tid"), 0);
	ck_assert_uint_eq(plan_count(&plan, "robust list"), 0);
}
END_TEST

START_TEST(signal_actions)
{
	const struct tf_sigaction *sa;
	const struct tf_step *s;

	build(false);
	for (unsigned i = 0; (s = plan_step(&plan, "signal action", i)); i++) {
		ck_assert(s->arg[0] != SIGKILL && s->arg[0] != SIGSTOP);
		sa = data_at(s->arg[1]);
		ck_assert_mem_eq(sa, &image.sigactions[s->arg[0] - 1], sizeof(*sa));
	}
	image.n_sigactions = 0;
	build(false);
	for (unsigned i = 0; (s = plan_step(&plan, "signal action", i)); i++) {
		sa = data_at(s->arg[1]);
		ck_assert_uint_eq(sa->handler, 0);
	}
}
END_TEST

START_TEST(descriptors)
{
	const struct tf_step *s;

	build(true);
	ck_assert_int_eq(plan.fds.channel, 10);
	ck_assert_int_eq(plan.fds.reserve, 12);
	ck_assert_uint_eq(plan_count(&plan, "held"), 1);
	s = need("held");
	ck_assert_uint_eq(s->arg[0], (uint64_t)plan.fds.reserve);
	ck_assert_uint_eq(s->arg[1], 7);
	ck_assert_uint_eq(s->arg[2], O_CLOEXEC); /* as 7 has it */
	s = need("the way back");
	ck_assert_uint_eq(s->arg[0], (uint64_t)plan.fds.channel);
	ck_assert_uint_eq(s->arg[1], 9);
	image.fds[2].fd = 9;
	build(true); /* the channel itself is not held */
	ck_assert_uint_eq(plan_count(&plan, "held"), 0);
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "held"), 1);
	ck_assert_uint_eq(plan_count(&plan, "the way back"), 0);
	image.source.channel_fd = -1;
	build(true);
	ck_assert(!plan.fds.peer);
	image.fds[2].fd = 1021; /* and four more for the restore, and the objects */
	ck_assert_int_eq(
		tf_restore_choose_fds(&plan, &image, &facts, true, false, &e), TELEFORK_E_LIMIT);
	ck_assert_ptr_nonnull(strstr(e.text, "1021"));
	e = (struct tf_err){0};
	facts.fd_limit = 1026 + image.n_objects;
	build(true);
	ck_assert_int_eq(plan.fds.reserve, 1024);
}
END_TEST

START_TEST(beyond_the_end_of_a_file)
{
	const struct tf_step *s;

	build(false);
	s = need("beyond the end of a file"); /* all of the sample's second mapping */
	ck_assert_uint_eq(s->arg[0], 0x430000);
	ck_assert_uint_eq(s->arg[1], 0x10000);
	ck_assert_uint_eq(s->refs, 1u << 4);
	ck_assert_uint_eq(s->arg[4], index_of(need("an empty file")));
	ck_assert_uint_eq(need("the empty file")->arg[0], s->arg[4]);
	image.maps[1].data_end = 0x438000;
	image.maps[2].data_end = 0x470000;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "an empty file"), 1);
	ck_assert_uint_eq(plan_count(&plan, "beyond the end of a file"), 2);
	ck_assert_uint_eq(plan_step(&plan, "file", 1)->arg[1], 0x8000);
	image.maps[1].data_end = 0x440000;
	image.maps[2].data_end = 0x480000;
	build(false);
	ck_assert_uint_eq(plan_count(&plan, "an empty file"), 0);
	ck_assert_uint_eq(plan_count(&plan, "the empty file"), 0);
}
END_TEST

START_TEST(stack_range)
{
	static const uint64_t top = 0x7f0000200000;
	static const struct {
		uint64_t limit, below, start;
	} cases[] = {
		{8 << 20, 0, top - (8 << 20)},
		{(8 << 20) + 4096, 0, top - (8 << 20)}, /* whole 64 KiB */
		{UINT64_MAX, 0, top - (8 << 20)},       /* no limit: the usual one */
		{1 << 30, 0, top - (64 << 20)},
		{1 << 20, 0, 0x7f0000000000},              /* has already more */
		{8 << 20, 0x7effffc00000, 0x7effffd00000}, /* a neighbour and its gap */
		{8 << 20, 0x7efffff80000, 0x7f0000000000},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct tf_range r;

		image.source.stack_limit = cases[i].limit;
		image.maps[2].end = cases[i].below ? cases[i].below : 0x480000;
		r = tf_restore_map_range(&image, 3);
		ck_assert_uint_eq(r.end, top);
		ck_assert_msg(r.start == cases[i].start, "case %zu: %llx", i,
			(unsigned long long)r.start);
	}
}
END_TEST

START_TEST(stack_is_mapped_whole)
{
	const struct tf_step *s;

	build(false);
	s = need("stack");
	ck_assert_uint_eq(s->arg[0], 0x7f0000200000 - (8 << 20));
	ck_assert_uint_eq(s->arg[3] & (MAP_STACK | MAP_NORESERVE), MAP_STACK | MAP_NORESERVE);
	ck_assert_uint_eq(s->arg[3] & MAP_GROWSDOWN, 0);
}
END_TEST

START_TEST(map_flags)
{
	static const struct {
		uint32_t flag;
		int advice;
	} advices[] = {{TF_VMF_HUGEPAGE, MADV_HUGEPAGE}, {TF_VMF_NOHUGEPAGE, MADV_NOHUGEPAGE},
		{TF_VMF_DONTDUMP, MADV_DONTDUMP}, {TF_VMF_DONTFORK, MADV_DONTFORK},
		{TF_VMF_WIPEONFORK, MADV_WIPEONFORK}, {TF_VMF_MERGEABLE, MADV_MERGEABLE},
		{TF_VMF_SEQ, MADV_SEQUENTIAL}, {TF_VMF_RAND, MADV_RANDOM}};

	image.maps[1].vmflags = 0;
	for (size_t i = 0; i < sizeof(advices) / sizeof(*advices); i++) {
		image.maps[2].vmflags = advices[i].flag;
		build(false);
		ck_assert_uint_eq(plan_count(&plan, "advice"), 1);
		ck_assert_uint_eq(need("advice")->arg[0], image.maps[2].start);
		ck_assert_uint_eq(need("advice")->arg[2], (uint64_t)advices[i].advice);
		ck_assert_uint_eq(need("advice")->expect, TF_EXPECT_ANY);
	}
	image.maps[2].vmflags = TF_VMF_NORESERVE;
	image.maps[2].flags = TF_MAP_SHARED;
	build(false);
	ck_assert_uint_ne(need("heap")->arg[3] & MAP_NORESERVE, 0);
	ck_assert_uint_eq(need("heap")->arg[3] & MAP_TYPE, MAP_SHARED);
	image.maps[2].vmflags = 0;
	build(false);
	ck_assert_uint_eq(need("heap")->arg[3] & MAP_NORESERVE, 0);
	facts.memory_free = 4096; /* larger than what is free */
	build(false);
	ck_assert_uint_ne(need("heap")->arg[3] & MAP_NORESERVE, 0);
}
END_TEST

START_TEST(protections)
{
	uint32_t prot = PROT_READ | PROT_EXEC;
	const struct tf_step *s;

	build(false);
	/* Filled while writable, then as it was; without data at once. */
	s = need("file");
	ck_assert_uint_eq(s->arg[2], PROT_READ | PROT_WRITE);
	s = plan_step(&plan, "file", 1);
	ck_assert_int_eq(s->nr, SYS_mprotect);
	ck_assert_uint_eq(s->arg[2], prot);
	image.source.flags = TF_SOURCE_EMULATED;
	ck_assert_uint_eq(tf_restore_map_prot(&image, 2), PROT_READ | PROT_WRITE | PROT_EXEC);
	image.maps[2].prot = image.maps[2].vmflags = image.n_tags = 0;
	ck_assert_uint_eq(tf_restore_map_prot(&image, 2), 0);
	cover(NULL, 0);
	build(false);
	s = need("file");
	ck_assert_uint_eq(s->arg[2], prot);
	ck_assert_uint_eq(need("heap")->arg[2], 0);
}
END_TEST

START_TEST(mailbox)
{
	unsigned n;
	const struct tf_step *s;

	build(true);
	n = plan_count(&plan, "mailbox");
	ck_assert_uint_eq(n, 6);
	ck_assert_uint_eq(plan_step(&plan, "mailbox", 0)->arg[0], image.source.mailbox + 8);
	for (unsigned i = 0; (s = plan_step(&plan, "mailbox", i)); i++)
		switch (s->arg[0] - image.source.mailbox) {
		case offsetof(struct tf_mailbox, hole_start):
			ck_assert_uint_eq(s->arg[1], plan.hole.start);
			break;
		case offsetof(struct tf_mailbox, hole_size):
			ck_assert_uint_eq(s->arg[1], plan.park_at - plan.hole.start);
			break;
		case offsetof(struct tf_mailbox, index): /* the only one */
			ck_assert_uint_eq(s->arg[1], 0);
			break;
		case offsetof(struct tf_mailbox, peer_fd):
			ck_assert_uint_eq(s->arg[1], 9);
			break;
		case offsetof(struct tf_mailbox, generation):
			ck_assert_uint_eq(s->arg[1], image.source.generation + 1);
			break;
		case offsetof(struct tf_mailbox, flags):
			ck_assert_uint_eq(s->arg[1], 0);
			break;
		default:
			ck_abort_msg("an unknown field");
		}
	image.source.mailbox = 0x47fff8; /* does not fit */
	build(true);
	ck_assert_uint_eq(plan_count(&plan, "mailbox"), 0);
	image.source.mailbox = 0x430100; /* behind the end of a file */
	build(true);
	ck_assert_uint_eq(plan_count(&plan, "mailbox"), 0);
}
END_TEST

START_TEST(no_room)
{
	struct tf_map taken = {.start = 0x20000, .end = 0x7ffffffff000, .path = ""};

	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, false, false, &e), 0);
	facts.taken = &taken;
	facts.n_taken = 1;
	ck_assert_int_eq(tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e),
		TELEFORK_E_COLLISION);
	e = (struct tf_err){0};
	arena.size = arena.used + 1000;
	ck_assert_int_eq(tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e),
		TELEFORK_E_NOMEM);
	arena.size = (size_t)256 << 20;
}
END_TEST

/* As many mappings as there may be by default: the plan fits what was reserved for it. */
START_TEST(many_mappings)
{
	const uint32_t n = 20000;
	static struct tf_run runs[20000];

	image.maps = tf_arena_array(&arena, n, sizeof(*image.maps));
	image.n_maps = n;
	image.vdso = (struct tf_vdso){0};
	image.n_signatures = image.n_tags = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t start = 0x10000000 + (uint64_t)i * 0x4000;

		image.maps[i] = (struct tf_map){.start = start,
			.end = start + 0x2000,
			.data_end = start + 0x1000,
			.prot = PROT_READ,
			.path = "",
			.vmflags = 0xff,
			.kind = TF_MAP_FILE};
		runs[i] = (struct tf_run){start, start + 0x1000};
	}
	cover(runs, n);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, true, false, &e), 0);
	ck_assert_msg(
		!tf_restore_build(&plan, &image, &facts, RESTORER_SIZE, &arena, &e), "%s", e.text);
	ck_assert_uint_gt(plan.plan.n_steps, 11 * n);
	ck_assert_uint_eq(plan.n_fills, n);
}
END_TEST

/* --- the text of a step --- */

START_TEST(step_texts)
{
	struct tf_plan p;
	struct tf_step *s;
	char text[128];

	ck_assert_int_eq(tf_plan_init(&p, &arena, 2), 0);
	s = tf_plan_syscall(&p, "why", SYS_munmap, 2, UINT64_C(0x123000), UINT64_C(4095));
	tf_step_text(s, text, sizeof(text));
	ck_assert_str_eq(text, "munmap(0x123000, 4095)  ; why");
	s->expect = TF_EXPECT_ANY;
	s->comment = NULL;
	s->refs = 2;
	tf_step_text(s, text, sizeof(text));
	ck_assert_str_eq(text, "munmap(0x123000, result of step 4095) = any");
	tf_step_text(s, text, 10);
	ck_assert_str_eq(text, "munmap(0x");
	s = tf_plan_add(&p, TF_OP_STORE, NULL);
	s->arg[1] = (uint64_t)-1;
	tf_step_text(s, text, sizeof(text));
	ck_assert_str_eq(text, "store(0, -1, 0)");
	ck_assert(!p.full);
	tf_plan_add(&p, TF_OP_FILL, NULL); /* one more than there is room for */
	ck_assert(p.full);
	ck_assert_uint_eq(p.n_steps, 2);
}
END_TEST

/* --- the hole --- */

#define M TF_HOLE_MARGIN

START_TEST(hole_edges)
{
	const uint64_t bottom = M, size = 0x10000, top = 0x200000000000;
	struct tf_range a, b;

	/* Nothing in the way: as high as it goes. */
	ck_assert_uint_eq(tf_hole_find(NULL, 0, NULL, 0, size, bottom, top), top - M - size);
	/* Just enough room, and one page too little. */
	ck_assert_uint_eq(
		tf_hole_find(NULL, 0, NULL, 0, size, bottom, bottom + size + 2 * M), bottom + M);
	ck_assert_uint_eq(
		tf_hole_find(NULL, 0, NULL, 0, size, bottom, bottom + size + 2 * M - 4096), 0);
	ck_assert_uint_eq(tf_hole_find(NULL, 0, NULL, 0, size, top, bottom), 0);
	/* A neighbour at the margin's end is none; a page nearer it is. */
	a = (struct tf_range){top - size - 2 * M - 4096, top - size - 2 * M};
	ck_assert_uint_eq(tf_hole_find(&a, 1, NULL, 0, size, bottom, top), top - M - size);
	a.end += 4096;
	ck_assert_uint_eq(tf_hole_find(&a, 1, NULL, 0, size, bottom, top), a.start - M - size);
	/* Both lists count; ranges above the top do not. */
	b = (struct tf_range){a.start - 0x5000000, a.start - 0x100000};
	ck_assert_uint_eq(tf_hole_find(&a, 1, &b, 1, size, bottom, top), b.start - M - size);
	ck_assert_uint_eq(tf_hole_find(&b, 1, &a, 1, size, bottom, top), b.start - M - size);
	a = (struct tf_range){top, top + 0x1000000};
	ck_assert_uint_eq(tf_hole_find(&a, 1, NULL, 0, size, bottom, top), top - M - size);
	/* All of it is taken. */
	a = (struct tf_range){0, UINT64_MAX};
	ck_assert_uint_eq(tf_hole_find(&a, 1, NULL, 0, size, bottom, top), 0);
	ck_assert_uint_eq(tf_hole_find(NULL, 0, &a, 1, size, bottom, top), 0);
}
END_TEST

static bool free_for(const struct tf_range *r, size_t n, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < n; i++)
		if (r[i].start < end && r[i].end > start)
			return false;
	return true;
}

/* Against a search that tries every page from the top: the same answer. */
START_TEST(hole_is_the_highest)
{
	const uint64_t step = M / 4, bottom = step, size = step, top = 64 * step;

	srandom((unsigned)_i);
	for (int round = 0; round < 200; round++) {
		struct tf_range list[2][6];
		uint64_t expected = 0;

		for (int l = 0; l < 2; l++) {
			uint64_t at = 0;

			for (int i = 0; i < 6; i++) {
				list[l][i].start = at += step * (uint64_t)(random() % 15);
				list[l][i].end = at += step * (uint64_t)(1 + random() % 3);
			}
		}
		for (uint64_t end = top; !expected && end >= bottom + size + 2 * M; end -= step)
			if (free_for(list[0], 6, end - size - 2 * M, end) &&
				free_for(list[1], 6, end - size - 2 * M, end))
				expected = end - size - M;
		ck_assert_uint_eq(
			tf_hole_find(list[0], 6, list[1], 6, size, bottom, top), expected);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plan");
	TCase *t = tcase_create("plan");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_loop_test(t, golden, 0, 3);
	tcase_add_test(t, plans_repeat);
	tcase_add_test(t, order_of_a_restore);
	tcase_add_test(t, vdso_unequal);
	tcase_add_test(t, vdso_entries_left_alone);
	tcase_add_test(t, vdso_equal);
	tcase_add_test(t, emulated);
	tcase_add_test(t, brk_set);
	tcase_add_test(t, brk_blocked);
	tcase_add_test(t, rseq);
	tcase_add_test(t, tid_and_robust_list);
	tcase_add_test(t, signal_actions);
	tcase_add_test(t, descriptors);
	tcase_add_test(t, beyond_the_end_of_a_file);
	tcase_add_test(t, stack_range);
	tcase_add_test(t, stack_is_mapped_whole);
	tcase_add_test(t, map_flags);
	tcase_add_test(t, protections);
	tcase_add_test(t, mailbox);
	tcase_add_test(t, no_room);
	tcase_add_test(t, many_mappings);
	tcase_add_test(t, step_texts);
	tcase_add_test(t, hole_edges);
	tcase_add_loop_test(t, hole_is_the_highest, 1, 5);
	suite_add_tcase(s, t);
	return suite_run(s);
}
