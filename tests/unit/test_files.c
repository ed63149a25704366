/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of a program that was moved from outside: the steps that open them again, and what is
 * said of files that are not here as they were there.
 */
#include <check.h>
#include <stdlib.h>

#define PLAN_BROKEN(...) ck_abort_msg(__VA_ARGS__)
#include "core/restore/files.h"
#include "core/restore/objects.h"
#include "tests/unit/plan_model.h"
#include "tests/unit/plan_sample.h"
#include "tests/unit/suite.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct tf_arena arena;
static struct tf_image image;
static struct tf_facts facts;
static struct tf_restore plan;
static struct tf_err e;
static char folder[] = "/tmp/test_files.XXXXXX", path[64];

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)256 << 20), 0);
	e = (struct tf_err){0};
	ck_assert_int_eq(sample_program(&image, &arena), 0);
	ck_assert_int_eq(sample_facts(&facts, &arena, sample_facts_native, &e), 0);
	image.source.origin = TF_ORIGIN_TASK;
	image.source.channel_fd = -1;
	image.source.cwd = "/";
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/file", folder);
}

static void tear_down(void)
{
	unlink(path);
	rmdir(path);
	rmdir(folder);
	tf_arena_done(&arena);
}

static void build(void)
{
	static struct model model;
	uint8_t *head;

	plan = (struct tf_restore){0};
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, false, false, &e), 0);
	ck_assert_msg(!tf_restore_build(&plan, &image, &facts, 2345, &arena, &e), "%s", e.text);
	model_play(&model, &plan, &image, &facts);
}

/* The n-th step (from 0) with that comment; NULL if there is none. */
START_TEST(files_opened_again)
{
	static struct tf_fd fds[] = {
		{2, TF_FD_TTY, O_RDWR, -1, 0, 0, "/dev/pts/3", 0, 0, 0},
		{3, TF_FD_FILE, O_WRONLY | O_APPEND | O_CLOEXEC | O_TRUNC | O_CREAT, -1, 7, 9,
			"/tmp/log", 0, 0, 0},
		{4, TF_FD_DIR, O_RDONLY | O_DIRECTORY, -1, 3, 0, "/tmp", 0, 0, 0},
		{5, TF_FD_FILE, O_WRONLY | O_APPEND, 3, 7, 9, "/tmp/log", 0, 0, 0},
		{6, TF_FD_TTY, O_RDWR, 2, 0, 0, "/dev/pts/3", 0, 0, 0},
		{7, TF_FD_PIPE, O_RDONLY, -1, 0, 0, "pipe:[1]", 0, 0, 0},
		{8, TF_FD_PIPE, O_RDONLY, 7, 0, 0, "pipe:[1]", 0, 0, 0},
		{9, TF_FD_CHAR, O_RDWR, -1, 0, 0, "/dev/null", 0, 0, 0},
		{10, TF_FD_CHAR, O_RDWR, -1, 0, 0, "/dev/fuse", 0, 0, 0},
	};
	const struct tf_step *s;

	image.fds = fds;
	image.n_fds = sizeof(fds) / sizeof(*fds);
	build();
	s = plan_step(&plan, "/tmp/log", 0);
	ck_assert_uint_eq(s->arg[2], O_WRONLY | O_APPEND);
	ck_assert_uint_eq(plan_count(&plan, "/tmp/log"), 1);
	ck_assert_uint_eq(plan_step(&plan, "/tmp", 0)->arg[2], O_DIRECTORY);
	ck_assert_uint_eq(plan_count(&plan, "/dev/null"), 1);
	ck_assert_uint_eq(plan_count(&plan, "/dev/fuse"), 0);
	ck_assert_uint_eq(plan_count(&plan, "position"), 2);
	s = plan_step(&plan, "position", 0);
	ck_assert_uint_eq(s->arg[1], 7);
	ck_assert_int_eq(s->expect, TF_EXPECT_SUCCESS);
	s = plan_step(&plan, "position", 1);
	ck_assert_uint_eq(s->arg[1], 3);
	ck_assert_int_eq(s->expect, TF_EXPECT_ANY);
	ck_assert_uint_eq(plan_count(&plan, "duplicate"), 3);
	for (unsigned i = 0; (s = plan_step(&plan, "duplicate", i)); i++)
		ck_assert_uint_eq(s->arg[0], (uint64_t)fds[s->arg[1] - 2].same);
	ck_assert_int_eq(plan_step(&plan, "working directory", 0)->expect, TF_EXPECT_SUCCESS);
	image.source.origin = TF_ORIGIN_CALL;
	build();
	ck_assert_uint_eq(plan_count(&plan, "/tmp/log"), 0);
	ck_assert_int_eq(plan_step(&plan, "working directory", 0)->expect, TF_EXPECT_ANY);
}
END_TEST

/* --- are they here? --- */

static void has_file(struct tf_fd *fd, uint32_t kind, uint32_t flags)
{
	*fd = (struct tf_fd){.fd = 5, .kind = kind, .flags = flags, .same = -1, .path = path};
	image.fds = fd;
	image.n_fds = 1;
}

static void make_file(size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert(fd >= 0 && !ftruncate(fd, (off_t)size));
	close(fd);
}

/* What is said, first as a refusal, then by a receiver that goes on without. */
static void refused(const char *words)
{
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_files_check(&image, false, &e), TELEFORK_E_INCOMPATIBLE);
	ck_assert_msg(strstr(e.text, words), "%s", e.text);
	ck_assert_ptr_nonnull(strstr(e.text, "--allow files"));
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_files_check(&image, true, &e), 0);
	ck_assert_msg(strstr(e.text, words), "%s", e.text);
	build(); /* nothing in it can fail for that reason */
	ck_assert_uint_eq(plan_count(&plan, path), 0);
}

START_TEST(file_is_here)
{
	struct tf_fd fd;

	has_file(&fd, TF_FD_FILE, O_RDWR);
	make_file(10);
	fd.size = 20;
	fd.offset = 10;
	ck_assert_msg(!tf_files_check(&image, false, &e), "%s", e.text);
	fd.offset = 21; /* it was beyond the end before */
	ck_assert_msg(!tf_files_check(&image, false, &e), "%s", e.text);
}
END_TEST

START_TEST(file_is_missing)
{
	struct tf_fd fd;

	has_file(&fd, TF_FD_FILE, O_RDONLY);
	refused("file: ENOENT");
}
END_TEST

START_TEST(file_is_shorter)
{
	struct tf_fd fd;

	has_file(&fd, TF_FD_FILE, O_RDONLY);
	make_file(10);
	fd.size = fd.offset = 11;
	refused("shorter here");
}
END_TEST

START_TEST(file_is_a_directory)
{
	struct tf_fd fd;

	has_file(&fd, TF_FD_FILE, O_RDONLY);
	ck_assert(!mkdir(path, 0700));
	refused("no regular file here");
}
END_TEST

START_TEST(directory_is_a_file)
{
	struct tf_fd fd;

	has_file(&fd, TF_FD_DIR, O_RDONLY);
	make_file(1);
	refused("no directory here");
}
END_TEST

START_TEST(file_cannot_be_opened)
{
	struct tf_fd fd;

	has_file(&fd, TF_FD_FILE, O_RDONLY | O_DIRECTORY);
	make_file(1);
	refused("file: ENOTDIR");
}
END_TEST

START_TEST(nowhere_to_be)
{
	image.n_fds = 0;
	image.source.cwd = path;
	refused("working directory");
	ck_assert_uint_eq(plan_count(&plan, "working directory"), 0);
	image.source.cwd = path;
	make_file(1);
	refused("no directory here");
	image.source.cwd = path;
	image.source.origin = TF_ORIGIN_CALL; /* as ever: it stays where it can */
	e = (struct tf_err){0};
	ck_assert_msg(!tf_files_check(&image, false, &e), "%s", e.text);
}
END_TEST

/* Each file that mappings show is looked at once, as far as there is room. */
START_TEST(files_that_are_asked_for)
{
	struct tf_found_file file[2] = {0};
	struct tf_found found = {.file = file, .max = 2};
	struct tf_map maps[3] = {[1] = image.maps[0], image.maps[0]};
	struct tf_known by = {.map = 1};
	struct tf_err left = {0};
	uint8_t page[TF_KNOWN_PAGE];
	int fd = open("/proc/self/exe", O_RDONLY);

	ck_assert_int_eq(pread(fd, page, sizeof(page), 0), sizeof(page));
	by.size = (uint64_t)lseek(fd, 0, SEEK_END);
	close(fd);
	maps[0] = maps[1];
	maps[0].path = maps[1].path = maps[2].path = "/proc/self/exe";
	maps[0].offset = 1; /* of no page: not this file's */
	image.maps = maps;
	image.n_maps = 3;
	image.n_objects = 0;
	ck_assert_int_eq(tf_objects_check(&image, &facts, 0, &found, &left, &e), 0);
	ck_assert(!maps[0].here && maps[1].here && maps[2].here);
	ck_assert_uint_eq(found.n, 1);
	ck_assert_str_eq(file[0].path, "/proc/self/exe");
	ck_assert(file[0].usable == tf_known_by(page, &by) && !file[0].told);
	ck_assert_mem_eq(&file[0].by, &by, sizeof(by));
	found = (struct tf_found){.file = file};
	ck_assert_int_eq(tf_objects_check(&image, &facts, 0, &found, &left, &e), 0);
	ck_assert_uint_eq(found.n, 0);
}
END_TEST

/* The kernel makes none: an image may say so all the same. */
START_TEST(segment_of_no_bytes)
{
	struct tf_object o = {.kind = TF_OBJECT_SYSV, .path = "/SYSV00000000"};
	struct tf_err left = {0};

	image.n_objects = 1;
	image.objects = &o;
	for (uint32_t i = 0; i < image.n_maps; i++)
		image.maps[i].object = !i;
	ck_assert_int_eq(tf_image_link_objects(&image, &arena), 0);
	ck_assert_int_eq(tf_objects_check(&image, &facts, 0, NULL, &left, &e), 0);
	ck_assert_uint_eq(o.how, TF_OBJECT_NAMELESS);
}
END_TEST

/* Processor time that n objects with four mappings each cost. */
static clock_t cost_of_objects(uint32_t n)
{
	static struct tf_object objects[TF_MAX_OBJECTS];
	static struct tf_map maps[4 * TF_MAX_OBJECTS];
	struct tf_err left = {0};
	clock_t before;

	for (uint32_t i = 0; i < n; i++)
		objects[i] = (struct tf_object){.path = "/nowhere/to/be/found", .size = 4096};
	for (uint32_t i = 0; i < 4 * n; i++)
		maps[i] = (struct tf_map){.start = 0x100000 + i * UINT64_C(4096),
			.end = 0x101000 + i * UINT64_C(4096),
			.flags = TF_MAP_SHARED,
			.kind = TF_MAP_FILE,
			.path = "/nowhere/to/be/found",
			.object = i < n ? i + 1 : n};
	image.n_objects = n;
	image.objects = objects;
	image.n_maps = 4 * n;
	image.maps = maps;
	before = clock();
	ck_assert_int_eq(tf_image_link_objects(&image, &arena), 0);
	ck_assert_int_eq(tf_objects_check(&image, &facts, 0, NULL, &left, &e), 0);
	ck_assert_uint_eq(objects[n - 1].how, TF_OBJECT_NAMELESS);
	return clock() - before;
}

/* As many as a hostile image may have: each is looked at once, not for each of the others, which
 * would make eight times as many 64 times as dear. */
START_TEST(many_objects)
{
	clock_t some = cost_of_objects(TF_MAX_OBJECTS / 8), all = cost_of_objects(TF_MAX_OBJECTS);

	ck_assert_msg(all < 24 * (some + CLOCKS_PER_SEC / 100), "%ld, %ld", (long)some, (long)all);
}
END_TEST

/* A pipe that nobody writes to: whoever opens it waits, or is seen by who waits at its other end.
 */
START_TEST(device_is_not_opened)
{
	struct tf_object o = {.path = path, .size = 4096};
	struct tf_err left = {0};
	struct pollfd end;

	ck_assert(!mkfifo(path, 0600));
	end = (struct pollfd){.fd = open(path, O_RDONLY | O_NONBLOCK), .events = POLLIN};
	ck_assert_int_ge(end.fd, 0);
	image.n_objects = 1;
	image.objects = &o;
	for (uint32_t i = 0; i < image.n_maps; i++)
		image.maps[i].object = 0;
	image.maps[0].object = 1;
	image.maps[0].prot = PROT_READ | PROT_WRITE;
	ck_assert_int_eq(tf_image_link_objects(&image, &arena), 0);
	ck_assert_int_eq(
		tf_objects_check(&image, &facts, 0, NULL, &left, &e), TELEFORK_E_INCOMPATIBLE);
	ck_assert_ptr_nonnull(strstr(e.text, "no regular file here"));
	ck_assert_int_eq(poll(&end, 1, 0), 0); /* POLLHUP: somebody has opened it and is gone */
	close(end.fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("files");
	TCase *t = tcase_create("files");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, files_opened_again);
	tcase_add_test(t, file_is_here);
	tcase_add_test(t, file_is_missing);
	tcase_add_test(t, file_is_shorter);
	tcase_add_test(t, file_is_a_directory);
	tcase_add_test(t, directory_is_a_file);
	tcase_add_test(t, file_cannot_be_opened);
	tcase_add_test(t, nowhere_to_be);
	tcase_add_test(t, files_that_are_asked_for);
	tcase_add_test(t, segment_of_no_bytes);
	tcase_add_test(t, many_objects);
	tcase_add_test(t, device_is_not_opened);
	suite_add_tcase(s, t);
	return suite_run(s);
}
