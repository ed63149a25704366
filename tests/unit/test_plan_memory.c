/* SPDX-License-Identifier: MIT */
/*
 * Memory that is more than bytes, in plans: files that are here, objects that several mappings and
 * descriptors lead to, locks, protection keys, huge pages. Each plan is played on paper
 * (plan_model.h), then looked into.
 */
#include <check.h>
#include <stdlib.h>

#define PLAN_BROKEN(...) ck_abort_msg(__VA_ARGS__)
#include "tests/unit/plan_model.h"
#include "tests/unit/plan_sample.h"
#include "tests/unit/suite.h"

#include <fcntl.h>

static struct tf_arena arena;
static struct tf_image image;
static struct tf_facts facts;
static struct tf_restore plan;
static struct tf_err e;
static struct model model;

static const struct tf_object objects[] = {
	{TF_OBJECT_FILE, 0, 0644, UINT32_MAX, UINT32_MAX, 0, 0, 0, 0x10000, "/var/lib/data", 0, 0,
		0},
	{TF_OBJECT_SHM, 0, 0600, UINT32_MAX, UINT32_MAX, 0, 0, 0, 0x10000, "/dev/shm/name", 0, 0,
		0},
	{TF_OBJECT_MEMFD, TF_OBJECT_DELETED, 0777, UINT32_MAX, UINT32_MAX, 0x3f, 0, 0, 0x20000,
		"/memfd:m", 0, 0, 0},
	{TF_OBJECT_SYSV, TF_OBJECT_DELETED, 0600, UINT32_MAX, UINT32_MAX, 0, 0, 42, 0x10000,
		"/SYSV00000000", 0, 0, 0},
};

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)256 << 20), 0);
	e = (struct tf_err){0};
	plan = (struct tf_restore){0};
	ck_assert_int_eq(sample_program(&image, &arena), 0);
	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_native, &e), 0);
	image.source.origin = TF_ORIGIN_TASK;
	image.n_objects = sizeof(objects) / sizeof(*objects);
	image.objects = tf_arena_dup(&arena, objects, sizeof(objects));
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

/* The shared mapping of the sample shows that object, all of it; bytes for it travel. */
static void show(uint32_t object, uint32_t prot, uint32_t vmflags)
{
	static const struct tf_run runs[] = {{0x410000, 0x420000}, {0x430000, 0x440000}};
	struct tf_map *m = &image.maps[1];

	m->object = object + 1;
	m->data_end = m->end;
	m->prot = prot;
	m->vmflags = vmflags;
	ck_assert_int_eq(tf_image_make_segments(&image, &arena, runs, 2, 0x40000), 0);
}

static void build(void)
{
	uint8_t *head;

	plan = (struct tf_restore){0};
	ck_assert_int_eq(tf_image_link_objects(&image, &arena), 0);
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, false, false, &e), 0);
	ck_assert_msg(!tf_restore_build(&plan, &image, &facts, 2345, &arena, &e), "%s", e.text);
	model_play(&model, &plan, &image, &facts);
}

/* The n-th step (from 0) that is that call, with an argument; NULL: none. */
static const struct tf_step *call(long nr, unsigned arg, uint64_t value)
{
	for (uint64_t i = 0; i < plan.plan.n_steps; i++) {
		const struct tf_step *s = &plan.plan.steps[i];

		if (s->op == TF_OP_SYSCALL && s->nr == nr && s->arg[arg] == value &&
			(!(s->refs >> arg & 1) || nr == SYS_shmctl))
			return s;
	}
	return NULL;
}

static const struct tf_step *need(long nr, unsigned arg, uint64_t value)
{
	const struct tf_step *s = call(nr, arg, value);

	ck_assert_msg(
		s, "no call %ld with argument %u = %#llx", nr, arg, (unsigned long long)value);
	return s;
}

static uint64_t number(uint32_t object)
{
	return (uint64_t)plan.fds.objects + object;
}

static enum tf_fill_how how(uint64_t address)
{
	for (uint64_t i = 0; i < plan.n_fills; i++)
		if (plan.fills[i].address == address)
			return (enum tf_fill_how)plan.fills[i].how;
	ck_abort_msg("%#llx is not filled", (unsigned long long)address);
}

START_TEST(file_that_is_here)
{
	const struct tf_step *s;

	build();
	ck_assert_uint_eq(how(0x410000), TF_FILL_WRITE);
	ck_assert(need(SYS_mmap, 0, 0x410000)->arg[3] & MAP_ANONYMOUS);
	image.maps[0].here = true;
	build();
	s = need(SYS_mmap, 0, 0x410000);
	ck_assert_uint_eq(s->arg[3], MAP_PRIVATE | MAP_FIXED_NOREPLACE);
	ck_assert_uint_eq(s->arg[5], image.maps[0].offset);
	ck_assert_uint_eq(s->refs, 1u << 4);
	ck_assert_str_eq(plan.plan.steps[s->arg[4]].comment, image.maps[0].path);
	ck_assert_uint_eq(how(0x410000), TF_FILL_DIFFERENT);
	ck_assert_uint_eq(need(SYS_mprotect, 0, 0x410000)->arg[2], PROT_READ | PROT_EXEC);
}
END_TEST

/* Nothing comes for it before the process runs: it is what it will be at once, and takes no bytes.
 */
START_TEST(memory_that_waits)
{
	image.maps[0].here = image.maps[0].waits = true;
	build();
	ck_assert_uint_eq(need(SYS_mmap, 0, 0x410000)->arg[2], PROT_READ | PROT_EXEC);
	ck_assert_ptr_null(call(SYS_mprotect, 0, 0x410000));
	for (uint64_t i = 0; i < plan.n_fills; i++)
		ck_assert_uint_ne(plan.fills[i].address, 0x410000);
}
END_TEST

/* One call for mappings that stand together and get the same. */
START_TEST(protected_together)
{
	static const struct tf_run runs[] = {
		{0x410000, 0x420000}, {0x430000, 0x440000}, {0x440000, 0x480000}};

	image.maps[1].flags = image.maps[1].vmflags = image.maps[2].vmflags = image.n_tags = 0;
	image.maps[1].data_end = image.maps[1].end;
	image.maps[1].prot = image.maps[2].prot = PROT_READ;
	image.source.mailbox = 0;
	ck_assert_int_eq(tf_image_make_segments(&image, &arena, runs, 3, 0x40000), 0);
	build();
	ck_assert_uint_eq(need(SYS_mprotect, 0, 0x430000)->arg[1], 0x50000);
	ck_assert_ptr_null(call(SYS_mprotect, 0, 0x440000));
	image.maps[2].prot = PROT_NONE;
	build();
	ck_assert_uint_eq(need(SYS_mprotect, 0, 0x430000)->arg[1], 0x10000);
	ck_assert_uint_eq(need(SYS_mprotect, 0, 0x440000)->arg[1], 0x40000);
}
END_TEST

static void fills_heap(enum tf_fill_how expected)
{
	bool asks;

	build();
	asks = plan_step(&plan, "pages for memory", 0);
	ck_assert_uint_eq(how(0x440000), expected);
	ck_assert_int_eq(asks, expected == TF_FILL_PUT);
}

/* Pages are made of what comes, where it is much, and nothing huge is to be had. */
START_TEST(pages_are_put)
{
	struct tf_map *m = &image.maps[2];
	const struct tf_step *s;

	ck_assert_uint_eq(m->start, 0x440000);
	m->vmflags = image.n_tags = 0;
	fills_heap(TF_FILL_PUT);
	s = plan_step(&plan, "memory", 0);
	for (unsigned i = 0; s->op != TF_OP_FILL; i++)
		s = plan_step(&plan, "memory", i);
	ck_assert_int_eq(plan.plan.steps[s->arg[1]].nr, SYS_userfaultfd);
	ck_assert_uint_eq(how(0x410000), TF_FILL_WRITE); /* too little */
	m->vmflags |= TF_VMF_HUGEPAGE;
	fills_heap(TF_FILL_WRITE);
	m->vmflags = TF_VMF_LOCKED;
	fills_heap(TF_FILL_WRITE);
	m->vmflags = 0;
	facts.flags |= TF_FACT_THP;
	fills_heap(TF_FILL_WRITE);
	facts.flags &= ~TF_FACT_THP;
	fills_heap(TF_FILL_PUT);
}
END_TEST

/* A file of the destination is compared, never written; unless somebody may, it is opened so. */
START_TEST(shared_file)
{
	const struct tf_step *s;

	show(0, PROT_READ | PROT_WRITE, TF_VMF_MAYWRITE);
	build();
	s = need(SYS_mmap, 0, 0x430000);
	ck_assert_uint_eq(s->arg[2] & PROT_READ, PROT_READ);
	ck_assert_uint_eq(s->arg[3], MAP_SHARED | MAP_FIXED_NOREPLACE);
	ck_assert_uint_eq(s->arg[4], number(0));
	ck_assert_uint_eq(how(0x430000), TF_FILL_EQUAL);
	ck_assert_uint_eq(plan.plan.steps[plan.object_step[0]].arg[2], O_RDWR | O_CLOEXEC);
	ck_assert_ptr_null(call(SYS_ftruncate, 0, number(0)));
	ck_assert_ptr_null(call(SYS_fchmod, 0, number(0)));
	show(0, PROT_READ, 0);
	build();
	ck_assert_uint_eq(plan.plan.steps[plan.object_step[0]].arg[2], O_RDONLY | O_CLOEXEC);
	image.objects[0].how = TF_OBJECT_NAMELESS;
	build();
	ck_assert_int_eq(plan.plan.steps[plan.object_step[0]].nr, SYS_memfd_create);
	ck_assert_uint_eq(how(0x430000), TF_FILL_WRITE);
}
END_TEST

START_TEST(memory_with_a_name)
{
	show(1, PROT_READ | PROT_WRITE, TF_VMF_MAYWRITE);
	build();
	ck_assert_uint_eq(
		plan.plan.steps[plan.object_step[1]].arg[2], O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC);
	ck_assert_uint_eq(need(SYS_ftruncate, 0, number(1))->arg[1], 0x10000);
	ck_assert_uint_eq(need(SYS_fchmod, 0, number(1))->arg[1], 0600);
	ck_assert_uint_eq(need(SYS_mmap, 0, 0x430000)->arg[4], number(1));
	ck_assert_uint_eq(how(0x430000), TF_FILL_WRITE);
	image.objects[1].flags = TF_OBJECT_DELETED;
	image.objects[1].how = TF_OBJECT_TMPFILE;
	build();
	ck_assert_uint_eq(
		plan.plan.steps[plan.object_step[1]].arg[2], O_TMPFILE | O_RDWR | O_CLOEXEC);
}
END_TEST

/* What cannot be made writable is mapped again before it is sealed. */
START_TEST(sealed)
{
	const struct tf_step *again, *seal;

	show(2, PROT_READ, 0);
	build();
	again = need(SYS_mmap, 3, MAP_SHARED | MAP_FIXED);
	ck_assert_uint_eq(again->arg[0], 0x430000);
	ck_assert_uint_eq(again->arg[2], PROT_READ);
	seal = need(SYS_fcntl, 2, 0x1e);
	ck_assert_uint_eq(seal->arg[0], number(2));
	ck_assert_uint_eq(seal->arg[1], F_ADD_SEALS);
	ck_assert(again < seal);
	ck_assert(seal < need(SYS_fcntl, 2, 1)); /* no more after that */
	ck_assert_uint_eq(need(SYS_fcntl, 2, 0x20)->expect, TF_EXPECT_ANY);
	show(2, PROT_READ, TF_VMF_MAYWRITE);
	build();
	ck_assert_ptr_null(call(SYS_mmap, 3, MAP_SHARED | MAP_FIXED));
}
END_TEST

START_TEST(segment)
{
	const struct tf_step *s;

	show(3, PROT_READ | PROT_WRITE, TF_VMF_MAYWRITE);
	build();
	s = need(SYS_shmat, 1, 0x430000);
	ck_assert_uint_eq(s->arg[0], plan.object_step[3]);
	ck_assert_uint_eq(s->refs, 1);
	ck_assert_int_eq(plan.plan.steps[s->arg[0]].nr, SYS_shmget);
	ck_assert_uint_eq(plan.plan.steps[s->arg[0]].arg[1], 0x10000);
	ck_assert_ptr_nonnull(call(SYS_shmctl, 0, plan.object_step[3])); /* it was removed */
	show(3, PROT_READ, 0);
	build();
	ck_assert_uint_eq(need(SYS_shmat, 2, 050000)->arg[1], 0x430000); /* REMAP, RDONLY */
}
END_TEST

/* The bytes that no mapping of the process shows come, and their mapping goes. */
START_TEST(staged)
{
	struct tf_map *m = tf_arena_array(&arena, image.n_maps + 1, sizeof(*m));
	static const struct tf_run runs[] = {{0x600000, 0x610000}};

	memcpy(m, image.maps, 3 * sizeof(*m));
	m[3] = (struct tf_map){.start = 0x600000,
		.end = 0x610000,
		.data_end = 0x610000,
		.prot = PROT_READ | PROT_WRITE,
		.flags = TF_MAP_SHARED,
		.kind = TF_MAP_STAGE,
		.offset = 0x10000,
		.object = 3,
		.path = ""};
	memcpy(m + 4, image.maps + 3, (image.n_maps - 3) * sizeof(*m));
	image.maps = m;
	image.n_maps++;
	ck_assert_int_eq(tf_image_make_segments(&image, &arena, runs, 1, 0x40000), 0);
	build();
	ck_assert_uint_eq(need(SYS_mmap, 0, 0x600000)->arg[5], 0x10000);
	ck_assert_uint_eq(need(SYS_munmap, 0, 0x600000)->arg[1], 0x10000);
	ck_assert(!model_has(&model, 0x600000, 0x610000, 0));
}
END_TEST

/* Each opening has a position of its own. */
START_TEST(descriptors)
{
	const struct tf_step *s;
	char path[40];

	image.fds[2] = (struct tf_fd){
		7, TF_FD_FILE, O_RDWR | O_CLOEXEC, -1, 77, 0x20000, "/memfd:m (deleted)", 3, 0, 0};
	build();
	need(SYS_dup3, 1, 7);
	s = need(SYS_lseek, 1, 77);
	s = &plan.plan.steps[s->arg[0]];
	ck_assert_int_eq(s->nr, SYS_openat);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", (int)number(2));
	ck_assert_str_eq((const char *)plan.data + (s->arg[1] - plan.data_at), path);
	ck_assert(s < need(SYS_close, 0, number(2)));
}
END_TEST

START_TEST(locks)
{
	const struct tf_step *s;

	image.maps[2].vmflags = TF_VMF_LOCKED;
	image.mm.locks = TF_LOCK_FUTURE | TF_LOCK_ONFAULT;
	build();
	s = need(SYS_mlock2, 0, 0x440000);
	ck_assert_uint_eq(s->arg[1], 0x40000);
	ck_assert_uint_eq(s->arg[2], 0);
	ck_assert(s < need(SYS_mlockall, 0, 6));
	image.maps[2].vmflags |= TF_VMF_ONFAULT;
	image.mm.locks = 0;
	build();
	ck_assert_uint_eq(need(SYS_mlock2, 0, 0x440000)->arg[2], 1);
	ck_assert_ptr_null(call(SYS_mlockall, 0, 2));
}
END_TEST

/* Key 1 is the kernel's, for code that is not to be read; 3 is the program's; 2 was given back. */
START_TEST(keys)
{
	const struct tf_step *s;

	image.mm.keys = 1 | 1 << 3;
	image.maps[2].key = 3;
	image.maps[0].key = 1;
	image.maps[0].prot = PROT_EXEC;
	build();
	s = need(SYS_mprotect, 0, 0x410000);
	ck_assert_uint_eq(s->arg[2], PROT_EXEC);
	ck_assert_uint_eq(s[1].expected, 2);
	ck_assert_int_eq(s[1].nr, SYS_pkey_alloc);
	ck_assert_uint_eq(s[2].expected, 3);
	ck_assert_int_eq(s[3].nr, SYS_pkey_free);
	ck_assert_uint_eq(s[3].arg[0], 2);
	ck_assert_uint_eq(need(SYS_pkey_mprotect, 0, 0x440000)->arg[3], 3);
}
END_TEST

START_TEST(huge_and_growing)
{
	image.maps[2].huge = 16;
	build();
	ck_assert_uint_eq(need(SYS_mmap, 0, 0x440000)->arg[3] & (MAP_HUGETLB | 0x3fu << 26),
		MAP_HUGETLB | 16u << 26);
	image.maps[2].huge = 0;
	image.maps[2].vmflags = TF_VMF_GROWSDOWN;
	build();
	ck_assert(need(SYS_mmap, 0, 0x440000)->arg[3] & MAP_GROWSDOWN);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plan_memory");
	TCase *t = tcase_create("memory");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, file_that_is_here);
	tcase_add_test(t, memory_that_waits);
	tcase_add_test(t, protected_together);
	tcase_add_test(t, pages_are_put);
	tcase_add_test(t, shared_file);
	tcase_add_test(t, memory_with_a_name);
	tcase_add_test(t, sealed);
	tcase_add_test(t, segment);
	tcase_add_test(t, staged);
	tcase_add_test(t, descriptors);
	tcase_add_test(t, locks);
	tcase_add_test(t, keys);
	tcase_add_test(t, huge_and_growing);
	suite_add_tcase(s, t);
	return suite_run(s);
}
