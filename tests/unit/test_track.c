/* SPDX-License-Identifier: MIT */
/*
 * Which pages a process wrote to (core/capture/track.h), in either way, as a child of this one
 * writes to them, gives them up and moves them. With an argument both ways have to be possible:
 * in a guest; without, those that are.
 */
#include "core/capture/track.h"
#include "core/capture/pagemap.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TABLE (UINT64_C(2) << 20) /* what a page of a page table maps, of 4 KiB pages */
#define FIRST UINT64_C(0x300000000000)
#define AREA  (2 * TABLE)
#define GAP   (AREA + 2 * TABLE)

static bool both; /* ways have to be possible */
static uint64_t page;

/* --- the child --- */

enum what { WRITE, GIVE_UP, READ, MOVE, NEW, FORK };

struct order {
	enum what what;
	uint64_t at, n, to; /* bytes; NEW: 1: it cannot be written to, and is no part of another */
};

static void fork_once(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static void obey(const struct order *o)
{
	volatile uint8_t *at = (uint8_t *)o->at;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	for (uint64_t i = 0; i < o->n && (o->what == WRITE || o->what == READ); i += page)
		if (o->what == WRITE)
			at[i]++;
		else
			(void)at[i];
	if (o->what == GIVE_UP && madvise((void *)o->at, o->n, MADV_DONTNEED))
		_exit(2);
	if (o->what == MOVE && mremap((void *)o->at, o->n, o->n, MREMAP_MAYMOVE | MREMAP_FIXED,
				       (void *)o->to) == MAP_FAILED)
		_exit(3);
	if (o->what == NEW &&
		mmap((void *)o->at, o->n, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		_exit(4);
	if (o->what == FORK)
		fork_once();
}

static int line;

static _Noreturn void child(int fd)
{
	struct order o;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(fd, &o, sizeof(o)) == sizeof(o)) {
		obey(&o);
		if (write(fd, "", 1) != 1)
			break;
	}
	_exit(0);
}

static void tell(enum what what, uint64_t at, uint64_t n, uint64_t to)
{
	struct order o = {what, at, n, to};
	char done;

	ck_assert_int_eq(write(line, &o, sizeof(o)), sizeof(o));
	ck_assert_int_eq(read(line, &done, 1), 1);
}

static pid_t start(void)
{
	int fd[2];
	pid_t pid;

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	pid = fork();
	if (!pid)
		child(fd[1]);
	close(fd[1]);
	line = fd[0];
	for (uint64_t area = 0; area < 2; area++) {
		tell(NEW, FIRST + area * GAP, AREA, 0);
		tell(WRITE, FIRST + area * GAP, AREA, 0);
	}
	return pid;
}

/* --- rounds --- */

static struct tf_track track;
static struct tf_err error;

/* Pages of both areas. */
static uint64_t at(unsigned area, uint64_t number)
{
	return FIRST + area * GAP + number * page;
}

static void written(struct tf_runs *ret)
{
	struct tf_runs where = {0};

	for (unsigned area = 0; area < 2; area++)
		ck_assert(!tf_runs_add(&where, at(area, 0), at(area, 0) + AREA));
	ck_assert_msg(!tf_track_round(&track, &where, &error), "%s", error.text);
	tf_runs_clear(ret);
	for (unsigned area = 0; area < 2; area++) {
		ck_assert_int_eq(tf_track_add(&track, at(area, 0), at(area, 0) + AREA, &error), 1);
		ck_assert(!tf_track_written(&track, at(area, 0), at(area, 0) + AREA, ret, &error));
	}
	tf_runs_done(&where);
}

/* These pages of area, and no other. */
static void only(const struct tf_runs *r, unsigned area, uint64_t from, uint64_t to)
{
	for (size_t i = 0; i < r->n; i++)
		ck_assert_msg(r->v[i].start == at(area, from) && r->v[i].end == at(area, to),
			"%llx-%llx of %llx-%llx", (unsigned long long)r->v[i].start,
			(unsigned long long)r->v[i].end, (unsigned long long)at(area, from),
			(unsigned long long)at(area, to));
	ck_assert_uint_eq(r->n, 1);
}

static int take_clean(void *ctx, uint64_t from, uint64_t to, bool clean)
{
	return clean ? tf_runs_add(ctx, from, to) : 0;
}

/* While it stands: at each half of the areas, but for one that is not mapped. */
static void look(pid_t pid, struct tf_runs *clean, unsigned but)
{
	char path[64];
	int pagemap;

	kill(pid, SIGSTOP);
	ck_assert_int_eq(waitpid(pid, NULL, WUNTRACED), pid);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	tf_runs_clear(clean);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t from = at(i / 2, 0) + i % 2 * TABLE;

		ck_assert(i == but || !tf_track_look(&track, pagemap, from, from + TABLE,
					      take_clean, clean, &error));
	}
	close(pagemap);
	kill(pid, SIGCONT);
}

static const struct {
	unsigned way;
	const char *name;
} ways[] = {{TF_TRACK_UFFD, "userfaultfd"}, {TF_TRACK_SOFT, "soft-dirty"}};

/* False: not on this machine. */
static bool begin(int i, pid_t pid)
{
	int rc = tf_track_begin(&track, pid, ways[i].way, &error);

	if (rc == TELEFORK_E_UNSUPPORTED && !both) {
		printf("skip: %s: %s\n", ways[i].name, error.text);
		tf_track_end(&track);
		return false;
	}
	ck_assert_msg(!rc, "%s: %s", ways[i].name, error.text);
	return true;
}

static void end(pid_t pid)
{
	tf_track_end(&track);
	close(line);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(rounds)
{
	uint64_t all = AREA / page, table = TABLE / page;
	struct tf_runs r = {0};
	pid_t pid = start();

	if (!begin(_i, pid)) {
		end(pid);
		return;
	}
	written(&r);
	ck_assert_uint_eq(tf_runs_size(&r), 2 * AREA);
	written(&r);
	ck_assert_uint_eq(r.n, 0);
	tell(WRITE, at(1, 7), page, 0);
	written(&r);
	only(&r, 1, 7, 8);
	tell(READ, at(0, 0), AREA, 0);
	tell(FORK, 0, 0, 0);
	written(&r);
	ck_assert_uint_eq(r.n, 0);
	tell(WRITE, at(0, all - 3), 3 * page, 0);
	written(&r);
	only(&r, 0, all - 3, all);
	tell(GIVE_UP, at(0, 5), page, 0);
	tell(WRITE, at(0, 5), page, 0);
	written(&r);
	only(&r, 0, 5, 6);
	/* A whole page of a page table, whose entries nobody looks at. */
	tell(MOVE, at(0, 0), TABLE, at(1, table));
	tell(NEW, at(0, 0), TABLE, 1);
	written(&r);
	if (ways[_i].way == TF_TRACK_SOFT) /* what it was cut from counts, too */
		ck_assert_uint_eq(r.v[r.n - 1].start, at(1, table));
	else
		only(&r, 1, table, all);
	tf_runs_done(&r);
	end(pid);
}
END_TEST

START_TEST(in_the_end)
{
	uint64_t all = AREA / page, table = TABLE / page;
	struct tf_runs r = {0}, clean = {0};
	pid_t pid = start();

	if (!begin(_i, pid)) {
		end(pid);
		return;
	}
	written(&r);
	look(pid, &clean, 4);
	ck_assert_uint_eq(tf_runs_size(&clean), 2 * AREA);
	tell(WRITE, at(0, 9), page, 0);
	tell(GIVE_UP, at(0, 3), page, 0);
	tell(READ, at(0, 3), page, 0);
	tell(GIVE_UP, at(1, all - 1), page, 0);
	tell(MOVE, at(0, table), TABLE, at(1, 0));
	look(pid, &clean, 1);
	ck_assert(tf_runs_meet(&clean, at(0, 0), at(0, 1)));
	ck_assert(!tf_runs_meet(&clean, at(0, 9), at(0, 10)));
	ck_assert(!tf_runs_meet(&clean, at(0, 3), at(0, 4)));
	ck_assert(!tf_runs_meet(&clean, at(1, 0), at(1, table)));
	ck_assert(tf_runs_meet(&clean, at(1, table), at(1, table) + 1));
	ck_assert(!tf_runs_meet(&clean, at(1, all - 1), at(1, all)));
	/* All other pages are. */
	ck_assert_uint_eq(tf_runs_size(&clean), 2 * (AREA - TABLE) - 3 * page);
	tf_runs_done(&r);
	tf_runs_done(&clean);
	end(pid);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("track");
	TCase *t = tcase_create("track");

	(void)argv;
	both = argc > 1;
	page = (uint64_t)sysconf(_SC_PAGESIZE);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_loop_test(t, rounds, 0, 2);
	tcase_add_loop_test(t, in_the_end, 0, 2);
	suite_add_tcase(s, t);
	return suite_run(s);
}
