/* SPDX-License-Identifier: MIT */
/*
 * What need not be sent, or not as it is: a program that comes to the same receiver a second time
 * after a page in a hundred was changed; and one over slow lines, as it is and compressed where
 * that is faster: everything first, behind it when it runs, and in rounds before it is stopped. In
 * turns, medians; bytes do not depend on the machine.
 */
#include "tests/bench/bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/capture/task.h"
#include "core/pack/packer.h"
#include "core/telefork_internal.h"

#define ROUNDS 5
#define PAGE   4096u

/* Shared with the program. */
struct subject {
	volatile int ready, change, changed;
	volatile int stay; /* a copy does not end */
};

struct sent {
	uint64_t ns, bytes, memory;
	int copy; /* lazy: to be killed */
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
	return x ^ x >> 27;
}

/* soft: it can be compressed to a half. */
static void fill(uint64_t *page, uint64_t seed, bool soft)
{
	for (uint64_t i = 0; i < PAGE / 8; i++)
		page[i] = mix(seed * PAGE + (soft ? i % (PAGE / 16) : i));
}

/* A copy of it ends at once, or stays. */
static _Noreturn void be_subject(struct subject *s, uint64_t size, bool soft)
{
	pid_t self = getpid();
	uint64_t pages = size / PAGE;
	uint8_t *heap = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t i = 0; i < pages && heap != MAP_FAILED; i++)
		fill((uint64_t *)(void *)(heap + i * PAGE), i, soft);
	s->ready = heap == MAP_FAILED ? -1 : 1;
	while (getpid() == self || s->stay) {
		if (s->changed != s->change) {
			for (uint64_t i = (uint64_t)s->change % 100; i < pages; i += 100)
				fill((uint64_t *)(void *)(heap + i * PAGE),
					pages * (uint64_t)(s->change + 1) + i, soft);
			s->changed = s->change;
		}
		usleep(1000);
	}
	_exit(0);
}

static pid_t start_subject(struct subject *s, uint64_t size, bool soft)
{
	pid_t pid;

	*s = (struct subject){0};
	fflush(stdout);
	pid = fork();
	if (!pid)
		be_subject(s, size, soft);
	while (pid > 0 && !s->ready)
		usleep(1000);
	return s->ready < 0 ? -1 : pid;
}

static void change(struct subject *s)
{
	s->change++;
	while (s->changed != s->change)
		usleep(1000);
}

/* A copy of it to uri, as telefork copy makes it; lazy: until all of it is there. */
static int send_copy(pid_t pid, const char *uri, const struct tf_pack_wishes *wishes, bool lazy,
	struct sent *ret)
{
	static struct tf_task task;
	struct tf_address a;
	struct tf_packer *packer = NULL;
	struct tf_reply reply = {0};
	struct tf_err e = {0};
	char message[TELEFORK_MESSAGE_MAX] = "";
	uint32_t offers = 0;
	uint64_t start = tf_now_ns();
	int rc = tf_address_parse(uri, &a, &e), fd = -1;

	if (!rc)
		rc = fd = tf_dial(&a, NULL, NULL, &offers, &e);
	if (rc >= 0)
		rc = tf_packer_new(wishes, offers, &packer, &e);
	task.post_copy = lazy;
	if (!rc)
		rc = tf_task_snapshot(&task, pid);
	task.packer = packer;
	if (!rc)
		rc = tf_task_save(&task, fd);
	if (!rc)
		rc = tf_task_commit(&task);
	if (!rc)
		rc = tf_task_answer(&task, &reply, message);
	ret->copy = lazy ? reply.pid : 0;
	if (!rc && lazy)
		rc = tf_task_serve(&task, &reply, message);
	ret->ns = tf_now_ns() - start;
	ret->bytes = task.capture.io.sent;
	ret->memory = task.capture.memory;
	if (rc || reply.code)
		fprintf(stderr, "bench: %s%s%s\n", e.text, task.capture.err.text, message);
	tf_task_release(&task);
	tf_packer_free(packer);
	if (fd >= 0)
		close(fd);
	return rc || reply.code ? -1 : 0;
}

static void end_copy(const struct sent *n)
{
	if (n->copy > 0)
		kill(n->copy, SIGKILL);
}

static void end_program(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* A line to that port, from the one in uri: tests/tools/slow, which stands beside this program. */
static pid_t start_line(const char *port, uint64_t rate, char uri[static 64])
{
	char path[4096], bytes[32], own[16] = "";
	int out[2];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	pid_t pid;

	if (n < 0 || pipe(out))
		return -1;
	path[n] = '\0';
	snprintf(strrchr(path, '/'), 16, "/tools/slow");
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)rate);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(out[1], 1);
		execl(path, path, port, bytes, NULL);
		_exit(127);
	}
	close(out[1]);
	n = read(out[0], own, sizeof(own) - 1);
	close(out[0]);
	snprintf(uri, 64, "tcp://127.0.0.1:%d", atoi(own));
	return n > 0 ? pid : -1;
}

/* --- rows --- */

static const struct tf_pack_wishes as_is = {.compress = TF_WISH_NEVER, .store = TF_WISH_NEVER};

static int second(struct bench *b, uint64_t mib, struct subject *s)
{
	static const struct tf_pack_wishes known = {
		.compress = TF_WISH_NEVER, .store = TF_WISH_ALWAYS};
	struct bench_series bytes = {0};
	struct sent n = {0};
	pid_t pid = start_subject(s, mib << 20, false);
	int rc = pid < 0 ? -1 : send_copy(pid, b->uri[BENCH_TCP], &known, false, &n);

	for (unsigned i = 0; i < ROUNDS && !rc; i++) {
		change(s);
		rc = send_copy(pid, b->uri[BENCH_TCP], &known, false, &n);
		bench_push(&bytes, (double)n.bytes / 1048576);
	}
	end_program(pid);
	if (!rc)
		bench_add(b, &bytes, NULL, 0.03 * (double)n.memory / 1048576, "MiB",
			"3 % of its memory", "sent again, 1 page in 100 changed, %llu MiB",
			(unsigned long long)mib);
	return rc;
}

/* rate 0: loopback as it is. again: it came before, and is asked for. */
static int over_line(
	struct bench *b, uint64_t rate, bool soft, bool again, bool lazy, struct subject *s)
{
	const struct tf_pack_wishes automatic = {.store = again ? TF_WISH_AUTO : TF_WISH_NEVER};
	const char *uri = b->uri[BENCH_TCP];
	struct bench_series plain = {0}, packed = {0};
	uint64_t mib = rate ? 32 : 256;
	unsigned first = again ? 1 : 0; /* rounds that are not measured */
	struct sent n = {0};
	pid_t pid = start_subject(s, mib << 20, soft), link = 0;
	char slow[64];
	int rc = pid < 0 ? -1 : 0;

	s->stay = lazy;
	if (!rc && rate) {
		link = start_line(strrchr(uri, ':') + 1, rate, slow);
		rc = link < 0 ? -1 : 0;
		uri = slow;
	}
	for (unsigned i = 0; i < ROUNDS + first && !rc; i++) {
		rc = send_copy(pid, uri, &as_is, lazy, &n);
		end_copy(&n);
		if (i >= first)
			bench_push(&plain, (double)n.ns / 1e6);
		if (!rc)
			rc = send_copy(pid, uri, &automatic, lazy, &n);
		end_copy(&n);
		if (i >= first)
			bench_push(&packed, (double)n.ns / 1e6);
	}
	end_program(link);
	end_program(pid);
	if (!rc)
		bench_add(b, &packed, &plain, 1.05 * bench_median(&plain), "ms", "1.05 x as it is",
			"%s%s, %llu MiB, %.0f MB/s, auto",
			again  ? "again, "
			: lazy ? "post-copy, "
			       : "",
			soft ? "compressible" : "incompressible", (unsigned long long)mib,
			(double)rate / 1e6);
	return rc;
}

/* Moves by rounds, each of a program of its own; as it is and automatically. rate 0: as above. */
static int rounds_over_line(struct bench *b, uint64_t rate, bool soft, struct subject *s)
{
	static const char *const how[] = {"--compress=none", "--compress=auto"};
	struct bench_series took[2] = {0};
	const char *uri = b->uri[BENCH_TCP];
	uint64_t mib = rate ? 32 : 256;
	char slow[64];
	pid_t link = rate ? start_line(strrchr(uri, ':') + 1, rate, slow) : 0;
	int rc = link < 0 ? -1 : 0;

	for (unsigned i = 0; i < 2 * ROUNDS && !rc; i++) {
		pid_t pid = start_subject(s, mib << 20, soft);
		uint64_t start = tf_now_ns();

		rc = pid < 0 ? -1 : bench_move(b, pid, rate ? slow : uri, "--precopy", how[i & 1]);
		bench_push(&took[i & 1], (double)(tf_now_ns() - start) / 1e6);
		end_program(pid);
	}
	end_program(link);
	if (!rc)
		bench_add(b, &took[1], &took[0], 1.05 * bench_median(&took[0]), "ms",
			"1.05 x as it is", "pre-copy, %scompressible, %llu MiB, %.0f MB/s, auto",
			soft ? "" : "in", (unsigned long long)mib, (double)rate / 1e6);
	return rc;
}

int bench_again(struct bench *b)
{
	static const uint64_t rates[] = {0, 100000000, 20000000};
	struct subject *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int rc = second(b, 64, s);

	if (!rc && !b->quick)
		rc = second(b, 512, s);
	for (unsigned i = 0; i < 3 && !rc; i++) {
		rc = over_line(b, rates[i], false, false, false, s);
		if (!rc)
			rc = over_line(b, rates[i], true, false, false, s);
	}
	if (!rc)
		rc = over_line(b, rates[1], false, true, false, s);
	for (unsigned i = 0; i < 6 && !rc; i++) {
		rc = over_line(b, rates[i / 2], i & 1, false, true, s);
		if (!rc)
			rc = rounds_over_line(b, rates[i / 2], i & 1, s);
	}
	munmap(s, sizeof(*s));
	if (rc)
		fprintf(stderr, "bench: again could not be measured\n");
	return rc;
}
