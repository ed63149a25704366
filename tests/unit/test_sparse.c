/* SPDX-License-Identifier: MIT */
/*
 * Terabytes reserved, and a few hundred pages used of them, as a program under AddressSanitizer
 * does: all of these pages are found, no others, and soon. On kernels before 6.7, in guests, that
 * is core/capture/task_sparse.c. And large mappings, whose pages are elsewhere while their flags
 * are read (task_smaps.c). One static program.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/image/file.h"
#include "tests/unit/suite.h"

#define GIB   (UINT64_C(1) << 30)
#define TIB   (UINT64_C(1) << 40)
#define PAGES 60 /* in each, at random */
#define EDGES 6  /* more, where something begins or ends */

static struct area {
	uint64_t size;
	bool no_dump;
	uint8_t *at;
	uint64_t used[PAGES + EDGES]; /* offsets */
} areas[] = {{14 * TIB, false, NULL, {0}}, {2 * TIB, true, NULL, {0}}};

#define N_AREAS (sizeof(areas) / sizeof(*areas))

static struct tf_task task;
static pid_t child;
static uint64_t page;

static uint64_t random_page(uint64_t size)
{
	static uint64_t x = 88172645463325252u; /* xorshift64 */

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x % (size / page) * page;
}

static void reserve(struct area *a)
{
	uint64_t next, edge;

	a->at = mmap(NULL, a->size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert(a->at != MAP_FAILED);
	ck_assert(!a->no_dump || !madvise(a->at, a->size, MADV_DONTDUMP));
	ck_assert(!madvise(a->at, a->size, MADV_NOHUGEPAGE));
	next = -(uint64_t)a->at & (64 * GIB - 1);
	edge = next + 3 * 64 * GIB;
	memcpy(a->used,
		(uint64_t[EDGES]){
			0, a->size - page, next - page, next, edge + GIB - page, edge + GIB},
		EDGES * sizeof(*a->used));
	for (unsigned i = 0; i < PAGES; i++)
		a->used[EDGES + i] = random_page(a->size);
}

/* Each page has its address in it, but one in four, which is only read. */
static bool is_read_only(unsigned i)
{
	return i >= EDGES && i % 4 == 0;
}

static void use(const struct area *a)
{
	for (unsigned i = 0; i < PAGES + EDGES; i++) {
		volatile uint64_t *p = (uint64_t *)(void *)(a->at + a->used[i]);

		if (!is_read_only(i))
			*p = (uint64_t)p;
		else if (*p)
			_exit(1);
	}
}

static void __attribute__((noreturn)) be_program(void)
{
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int fd = 0; fd < 256; fd++)
		if (fd > STDERR_FILENO || dup2(null, fd) < 0)
			close(fd);
	for (size_t i = 0; i < N_AREAS; i++)
		if (areas[i].at)
			use(&areas[i]);
	raise(SIGSTOP);
	for (;;)
		pause();
}

static void assert_there(const struct tf_file *f, const struct area *a)
{
	for (unsigned i = 0; i < PAGES + EDGES; i++) {
		uint64_t at = (uint64_t)a->at + a->used[i], n = 1;

		ck_assert_int_eq(tf_file_read(f, at, &n, sizeof(n)), sizeof(n));
		ck_assert_msg(n == (is_read_only(i) ? 0 : at), "page %u, %#llx: %#llx", i,
			(unsigned long long)at, (unsigned long long)n);
	}
}

START_TEST(found)
{
	char path[] = "/tmp/test_sparse.XXXXXX";
	int fd = mkstemp(path), status;
	struct tf_file f;
	struct tf_err e = {0};

	for (size_t i = 0; i < N_AREAS; i++)
		reserve(&areas[i]);
	child = fork();
	if (!child)
		be_program();
	ck_assert_int_eq(waitpid(child, &status, WUNTRACED), child);
	ck_assert(WIFSTOPPED(status));
	ck_assert_msg(!tf_task_snapshot(&task, child), "%s", task.capture.err.text);
	ck_assert_str_eq(task.stands, "");
	ck_assert_uint_lt(task.capture.memory, UINT64_C(64) << 20);
	ck_assert_msg(
		!tf_task_save(&task, fd) && !tf_task_commit(&task), "%s", task.capture.err.text);
	tf_task_release(&task);
	ck_assert_msg(!tf_file_open(&f, path, &e), "%s", e.text);
	unlink(path);
	for (size_t i = 0; i < N_AREAS; i++) {
		const struct tf_map *m = tf_image_map_at(&f.image, (uint64_t)areas[i].at);

		assert_there(&f, &areas[i]);
		ck_assert_ptr_nonnull(m);
		ck_assert_uint_eq(
			m->vmflags & TF_VMF_DONTDUMP, areas[i].no_dump ? TF_VMF_DONTDUMP : 0);
	}
	tf_file_close(&f);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
}
END_TEST

/* --- large mappings, whose pages are elsewhere while their flags are read --- */

#define BIG  ((size_t)9 << 20) /* more than LARGE there; a guest has little */
#define BIGS 4u

/* Neighbours that differ in their flags only, each with its number in every page. */
static char *map_bigs(void)
{
	static const int advice[BIGS] = {
		MADV_DONTDUMP, MADV_NOHUGEPAGE, MADV_RANDOM, MADV_SEQUENTIAL};
	char *p =
		mmap(NULL, BIGS * BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert(p != MAP_FAILED);
	for (size_t i = 0; i < BIGS; i++)
		ck_assert(!madvise(p + i * BIG, BIG, advice[i]));
	for (size_t at = 0; at < BIGS * BIG; at += 4096)
		*(uint64_t *)(void *)(p + at) = at + 1;
	return p;
}

START_TEST(large_mappings)
{
	static const uint32_t flag[BIGS] = {
		TF_VMF_DONTDUMP, TF_VMF_NOHUGEPAGE, TF_VMF_RAND, TF_VMF_SEQ};
	const uint32_t all = flag[0] | flag[1] | flag[2] | flag[3];
	char path[] = "/tmp/test_sparse.XXXXXX", *p = map_bigs();
	int fd = mkstemp(path), status;
	struct tf_err e = {0};
	struct tf_file f;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child = fork();
	if (!child)
		be_program();
	ck_assert_int_eq(waitpid(child, &status, WUNTRACED), child);
	ck_assert_msg(!tf_task_snapshot(&task, child), "%s", task.capture.err.text);
	ck_assert_str_eq(task.stands, "");
	ck_assert_msg(
		!tf_task_save(&task, fd) && !tf_task_commit(&task), "%s", task.capture.err.text);
	close(fd);
	ck_assert_msg(!tf_file_open(&f, path, &e), "%s", e.text);
	unlink(path);
	for (size_t i = 0; i < BIGS; i++) {
		const struct tf_map *m = tf_image_map_at(&f.image, (uint64_t)p + i * BIG);

		ck_assert_ptr_nonnull(m);
		ck_assert_uint_eq(m->start, (uint64_t)p + i * BIG);
		ck_assert_uint_eq(m->end, m->start + BIG);
		ck_assert_uint_eq(m->vmflags & all, flag[i]);
	}
	for (size_t at = 0; at < BIGS * BIG; at += 4096) {
		uint64_t n;

		ck_assert_int_eq(tf_file_read(&f, (uint64_t)p + at, &n, sizeof(n)), sizeof(n));
		ck_assert_uint_eq(n, at + 1);
	}
	tf_file_close(&f);
	tf_task_release(&task);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
}
END_TEST

START_TEST(refused_by_name)
{
	ck_assert_int_eq(tf_task_snapshot(&task, getppid()), TELEFORK_E_UNSUPPORTED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sparse");
	TCase *tc = tcase_create("sparse");

	page = (uint64_t)sysconf(_SC_PAGESIZE);
	tcase_set_timeout(tc, SUITE_LIMIT_S);
	tcase_add_test(tc, tf_host_emulated() ? refused_by_name : found);
	if (!tf_host_emulated())
		tcase_add_test(tc, large_mappings);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
