/* SPDX-License-Identifier: MIT */
/*
 * What need not be sent, or not as it is: a program that comes to the same receiver a second time
 * after a page in a hundred was changed; and one over slow lines, as it is and compressed where
 * that is faster. In turns, medians; bytes do not depend on the machine.
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

#define REPEAT 5
#define PAGE   4096u

/* Shared with the program. */
struct subject {
	volatile int ready, change, changed;
};

struct sent {
	uint64_t ns, bytes, memory;
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

/* A copy of it ends at once. */
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
	while (getpid() == self) {
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

/* A copy of it to uri, as telefork copy makes it. */
static int send_copy(
	pid_t pid, const char *uri, const struct tf_pack_wishes *wishes, struct sent *ret)
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
	if (!rc)
		rc = tf_task_snapshot(&task, pid);
	task.packer = packer;
	if (!rc)
		rc = tf_task_save(&task, fd);
	if (!rc)
		rc = tf_task_commit(&task);
	if (!rc)
		rc = tf_task_answer(&task, &reply, message);
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

static double ms(const uint64_t *v)
{
	uint64_t copy[REPEAT];

	memcpy(copy, v, sizeof(copy));
	return (double)bench_median(copy, REPEAT) / 1e6;
}

/* --- the second time --- */

static int second(const char *uri, uint64_t mib, struct subject *s, json_t *list)
{
	static const struct tf_pack_wishes as_is = {
		.compress = TF_WISH_NEVER, .store = TF_WISH_NEVER};
	static const struct tf_pack_wishes known = {
		.compress = TF_WISH_NEVER, .store = TF_WISH_ALWAYS};
	uint64_t plain[REPEAT], again[REPEAT];
	struct sent first, n = {0};
	pid_t pid = start_subject(s, mib << 20, false);
	double part;
	int rc = pid < 0 ? -1 : send_copy(pid, uri, &known, &first);

	for (unsigned i = 0; i < REPEAT && !rc; i++) {
		rc = send_copy(pid, uri, &as_is, &n);
		plain[i] = n.ns;
		change(s);
		if (!rc)
			rc = send_copy(pid, uri, &known, &n);
		again[i] = n.ns;
	}
	end_program(pid);
	if (rc)
		return rc;
	part = (double)n.bytes / (double)n.memory;
	printf("%4llu MiB | %8.1f %8.1f %8.1f | %9.2f %9.2f  %5.2f%%%s\n", (unsigned long long)mib,
		ms(plain), (double)first.ns / 1e6, ms(again), (double)first.bytes / 1048576,
		(double)n.bytes / 1048576, part * 100, part > 0.03 ? " *" : "");
	fflush(stdout);
	json_array_append_new(list,
		json_pack("{s:I,s:f,s:f,s:f,s:I,s:I,s:I}", "mib", (json_int_t)mib, "as_it_is_ms",
			ms(plain), "first_ms", (double)first.ns / 1e6, "second_ms", ms(again),
			"first_bytes", (json_int_t)first.bytes, "second_bytes", (json_int_t)n.bytes,
			"memory_bytes", (json_int_t)n.memory));
	return 0;
}

/* --- lines --- */

/* rate 0: loopback as it is. */
static int over_line(
	const char *uri, uint64_t mib, bool soft, uint64_t rate, struct subject *s, json_t *list)
{
	static const struct tf_pack_wishes as_is = {
		.compress = TF_WISH_NEVER, .store = TF_WISH_NEVER};
	static const struct tf_pack_wishes automatic = {.store = TF_WISH_NEVER};
	uint64_t plain[REPEAT], packed[REPEAT];
	struct sent n = {0};
	char slow[64];
	pid_t link = 0;
	pid_t pid = start_subject(s, mib << 20, soft);
	int rc = pid < 0 ? -1 : 0;

	if (!rc && rate) {
		link = start_line(strrchr(uri, ':') + 1, rate, slow);
		rc = link < 0 ? -1 : 0;
		uri = slow;
	}
	for (unsigned i = 0; i < REPEAT && !rc; i++) {
		rc = send_copy(pid, uri, &as_is, &n);
		plain[i] = n.ns;
		if (!rc)
			rc = send_copy(pid, uri, &automatic, &n);
		packed[i] = n.ns;
	}
	end_program(link);
	end_program(pid);
	if (rc)
		return rc;
	printf("%4llu MiB %-14s %5.0f | %8.1f %8.1f %5.2fx | %9.2f %9.2f%s\n",
		(unsigned long long)mib, soft ? "compressible" : "incompressible",
		(double)rate / 1e6, ms(plain), ms(packed), ms(packed) / ms(plain),
		(double)n.memory / 1048576, (double)n.bytes / 1048576,
		ms(packed) > 1.05 * ms(plain) ? " *" : "");
	fflush(stdout);
	json_array_append_new(
		list, json_pack("{s:I,s:b,s:I,s:f,s:f,s:I,s:I}", "mib", (json_int_t)mib,
			      "compressible", soft, "line_bytes_per_s", (json_int_t)rate,
			      "as_it_is_ms", ms(plain), "auto_ms", ms(packed), "memory_bytes",
			      (json_int_t)n.memory, "auto_bytes", (json_int_t)n.bytes));
	return 0;
}

int bench_again(const char *uri, bool quick, json_t *list)
{
	static const uint64_t rates[] = {0, 100000000, 20000000};
	json_t *seconds = json_array(), *lines = json_array();
	struct subject *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int rc;

	json_array_append_new(list, json_pack("{s:o,s:o}", "second", seconds, "lines", lines));
	printf("\nthe same program again, 1 page in 100 changed, to a receiver that keeps pages\n"
	       "         |       until it runs (ms)   |          sent (MiB)\n"
	       "heap     |    as is    first   second |     first    second   second/memory\n");
	rc = second(uri, 64, s, seconds);
	if (!rc && !quick)
		rc = second(uri, 512, s, seconds);
	printf("\nover lines, compressed where that is faster\n"
	       "                         MB/s |       until it runs (ms)  |        MiB\n"
	       "heap                          |    as is     auto   ratio |    memory      sent\n");
	for (unsigned i = 0; i < 6 && !rc; i++)
		rc = over_line(uri, rates[i / 2] ? 32 : 256, i % 2, rates[i / 2], s, lines);
	printf("* misses its aim: at most 3 percent of the bytes; never slower than as it is\n");
	munmap(s, sizeof(*s));
	return rc;
}
