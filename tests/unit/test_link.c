/* SPDX-License-Identifier: MIT */
/*
 * What links do to those who talk over them: chance is the seed's alone, and what is to happen at a
 * byte of a message happens there, on an Ethernet and on TCP.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "qemu/faults.h"
#include "qemu/io.h"
#include "qemu/link.h"
#include "tests/unit/suite.h"

#define PATIENT_MS 60000
#define QUIET_MS   60 /* nothing has come by then */

static struct tf_vm_error err;
static struct tf_link *line;

/* --- chance --- */

static unsigned fate_bits(const struct tf_link_fate *f)
{
	return f->lost | f->twice << 1 | f->behind << 2 | f->late_us << 3;
}

START_TEST(chance_is_the_seeds)
{
	struct tf_link_faults f = {.seed = 7,
		.loss_ppm = 100000,
		.duplicate_ppm = 50000,
		.reorder_ppm = 20000,
		.delay_us = 1000,
		.jitter_us = 500};
	struct tf_link_faults other = f;
	unsigned lost = 0, twice = 0, behind = 0, differ[2] = {0};
	uint64_t sum = 0;

	other.seed = 8;
	for (uint64_t n = 0; n < 100000; n++) {
		struct tf_link_fate a = tf_link_fate(&f, 3, n), b = tf_link_fate(&f, 3, n);
		struct tf_link_fate c = tf_link_fate(&other, 3, n), d = tf_link_fate(&f, 4, n);

		ck_assert_uint_eq(fate_bits(&a), fate_bits(&b));
		ck_assert_uint_ge(a.late_us, 1000);
		ck_assert_uint_le(a.late_us, 1500 + (a.behind ? 1000 : 0));
		differ[0] += fate_bits(&a) != fate_bits(&c);
		differ[1] += fate_bits(&a) != fate_bits(&d);
		lost += a.lost;
		twice += a.twice;
		behind += a.behind;
		sum = sum * 31 + fate_bits(&a);
	}
	ck_assert(lost > 9500 && lost < 10500);
	ck_assert(twice > 4700 && twice < 5300);
	ck_assert(behind > 1850 && behind < 2150);
	ck_assert(differ[0] > 90000 && differ[1] > 90000);
	/* On every machine, in every version: a seed in a report means the same for ever. */
	ck_assert_uint_eq(sum, UINT64_C(505789727241089658));
}
END_TEST

START_TEST(pace_is_bytes_over_time)
{
	struct tf_link_faults f = {.bytes_per_s = 1000};
	int64_t ready = 0;

	ck_assert_int_eq(tf_link_pace(&f, &ready, 5000, 100), 105000);
	ck_assert_int_eq(tf_link_pace(&f, &ready, 5000, 100), 205000);
	ck_assert_int_eq(tf_link_pace(&f, &ready, 900000, 10), 910000);
	f.bytes_per_s = 0;
	ck_assert_int_eq(tf_link_pace(&f, &ready, 1, 100), 1);
}
END_TEST

/* --- moments --- */

START_TEST(moments_of_a_conversation)
{
	struct tf_link_moment third = {.message = 2, .bytes = 5},
			      all = {.message = -1, .bytes = 25};
	struct tf_link_talk t = {0};

	ck_assert_uint_eq(tf_link_may_pass(&t, &third, 1, 10), 10);
	ck_assert_uint_eq(tf_link_may_pass(&t, &(struct tf_link_moment){0}, 1, 10), 0);
	ck_assert_uint_eq(tf_link_may_pass(&t, &(struct tf_link_moment){.bytes = 4}, 1, 10), 4);
	tf_link_passed(&t, 1, 6);
	tf_link_passed(&t, 1, 4);
	ck_assert_int_eq(t.message, 0);
	ck_assert_uint_eq(tf_link_may_pass(&t, &third, 2, 10), 10);
	tf_link_passed(&t, 2, 10);
	ck_assert_int_eq(t.message, 1);
	ck_assert_uint_eq(tf_link_may_pass(&t, &third, 1, 10), 5);
	ck_assert_uint_eq(tf_link_may_pass(&t, &all, 1, 10), 5);
	tf_link_passed(&t, 1, 5);
	ck_assert_uint_eq(tf_link_may_pass(&t, &third, 1, 10), 0);
	ck_assert_uint_eq(tf_link_may_pass(&t, &all, 2, 10), 0);
	/* Shorter than its moment: then at the beginning of the next. */
	third.bytes = 100;
	ck_assert_uint_eq(tf_link_may_pass(&t, &third, 2, 10), 0);
}
END_TEST

/* A segment of TCP from station @from to station @to; returns the size of the frame. */
static size_t segment(uint8_t f[static 512], uint8_t from, uint8_t to, uint32_t seq, uint8_t flags,
	size_t payload)
{
	size_t total = 40 + payload;
	uint8_t head[] = {2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, /* Ethernet */
		0x45, 0, (uint8_t)(total >> 8), (uint8_t)total, 0, 0, 0, 0, 9, 6, 0, 0, /* IPv4 */
		10, 77, 0, from, 10, 77, 0, to,                                         /* … */
		30, from, 30, to, (uint8_t)(seq >> 24), (uint8_t)(seq >> 16), (uint8_t)(seq >> 8),
		(uint8_t)seq, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0};

	memset(f, 'x', 512);
	memcpy(f, head, sizeof(head));
	return 14 + total;
}

START_TEST(segments_are_read)
{
	struct tf_link_tcp t;
	uint8_t f[512];
	size_t size = segment(f, 1, 2, 0x01020304, 2, 0);

	ck_assert(tf_link_read_tcp(f, size, &t));
	ck_assert(t.opens && t.syn);
	ck_assert_uint_eq(t.seq, 0x01020304);
	ck_assert_uint_eq(t.size, 0);
	ck_assert_int_eq(memcmp(t.ends[0], (uint8_t[]){10, 77, 0, 1, 30, 1}, 6), 0);
	ck_assert_int_eq(memcmp(t.ends[1], (uint8_t[]){10, 77, 0, 2, 30, 2}, 6), 0);
	size = segment(f, 1, 2, 7, 16, 33);
	ck_assert(tf_link_read_tcp(f, size + 6, &t)); /* Ethernet pads */
	ck_assert(!t.syn && !t.opens);
	ck_assert_uint_eq(t.size, 33);
	for (size_t n = 0; n < size; n++)
		ck_assert(!tf_link_read_tcp(f, n, &t));
	f[14 + 6] = 0x20; /* a fragment */
	ck_assert(!tf_link_read_tcp(f, size, &t));
	segment(f, 1, 2, 7, 16, 33);
	f[14 + 20 + 12] = 0xf0; /* a header longer than the packet */
	ck_assert(!tf_link_read_tcp(f, 14 + 41, &t));
}
END_TEST

/* --- an Ethernet --- */

static char folder[64], path[96];
static int station[3];

static void set(const struct tf_link_faults *f)
{
	ck_assert_int_eq(tf_link_set_faults(line, f, &err), 0);
}

static void await_guests(unsigned n)
{
	struct tf_link_stats s;

	do
		ck_assert_int_eq(tf_link_stats(line, &s, &err), 0);
	while (s.guests != n);
}

static void await_frames(uint64_t n)
{
	struct tf_link_stats s;

	do
		ck_assert_int_eq(tf_link_stats(line, &s, &err), 0);
	while (s.frames < n);
}

static void begin_ethernet(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	strcpy(folder, "/tmp/test_link.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/link", folder);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	ck_assert_int_eq(tf_link_start(path, &line, &err), 0);
	for (int i = 0; i < 3; i++) {
		station[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		ck_assert_int_eq(connect(station[i], (struct sockaddr *)&un, sizeof(un)), 0);
	}
	await_guests(3);
}

static void end_ethernet(void)
{
	for (int i = 0; i < 3; i++)
		close(station[i]);
	tf_link_free(line);
	rmdir(folder);
}

static void send_frame(int fd, const uint8_t *frame, size_t size)
{
	uint8_t f[600] = {0, 0, (uint8_t)(size >> 8), (uint8_t)size};

	memcpy(f + 4, frame, size);
	ck_assert_int_eq(write(fd, f, size + 4), (ssize_t)size + 4);
}

/* The byte of the next frame after its two addresses and type, -1 if none comes. */
static int receive_mark(int fd, int limit_ms)
{
	uint8_t f[600];

	if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, limit_ms) <= 0)
		return -1;
	ck_assert_int_eq(recv(fd, f, 4, MSG_WAITALL), 4);
	ck_assert_int_eq(recv(fd, f + 4, f[2] * 256u + f[3], MSG_WAITALL), f[2] * 256 + f[3]);
	return f[4 + 14];
}

static void send_mark(int from, uint8_t to, uint8_t mark)
{
	uint8_t f[60] = {2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, (uint8_t)(from + 1), 0x88, 0xb5, mark};

	if (to == 0xff)
		memset(f, 0xff, 6);
	send_frame(station[from], f, sizeof(f));
}

/* Which of 200 frames came to station 1, how often each; @noise: another station talks, too. */
static void what_came(uint64_t seed, bool noise, uint8_t came[static 200])
{
	struct tf_link_faults f = {.seed = seed, .loss_ppm = 300000, .duplicate_ppm = 100000};
	struct tf_link_faults none = {0};
	int mark;

	begin_ethernet();
	for (int i = 0; i < 3; i++) /* who is where */
		send_mark(i, 0xff, 255);
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(receive_mark(station[i / 2], PATIENT_MS), 255);
	for (int i = 0; noise && i < 3; i++) { /* chance begins with the order */
		send_mark(0, 2, 0);
		ck_assert_int_eq(receive_mark(station[1], PATIENT_MS), 0);
	}
	set(&f);
	memset(came, 0, 200);
	for (int i = 0; i < 200; i++) {
		if (noise)
			send_mark(2, 1, 0);
		send_mark(0, 2, (uint8_t)i);
	}
	/* Frames of one station stay in order: after the last one there are none. */
	await_frames(noise ? 406 : 203);
	set(&none);
	send_mark(0, 2, 254);
	while ((mark = receive_mark(station[1], PATIENT_MS)) != 254) {
		ck_assert_int_ge(mark, 0);
		came[mark]++;
	}
	end_ethernet();
}

START_TEST(same_seed_same_frames)
{
	uint8_t a[200], b[200], c[200];
	unsigned lost = 0, twice = 0;

	what_came(5, false, a);
	what_came(5, true, b);
	what_came(6, false, c);
	ck_assert_int_eq(memcmp(a, b, sizeof(a)), 0);
	ck_assert_int_ne(memcmp(a, c, sizeof(a)), 0);
	for (int i = 0; i < 200; i++) {
		lost += !a[i];
		twice += a[i] == 2;
	}
	ck_assert(lost > 30 && lost < 90 && twice > 4);
}
END_TEST

START_TEST(partition)
{
	struct tf_link_faults f = {.apart = {[0] = 1 << 1}}; /* station 0's address ends in 1 */

	begin_ethernet();
	for (int i = 0; i < 3; i++) {
		send_mark(i, 0xff, 255);
		for (int k = 0; k < 3; k++)
			ck_assert(k == i || receive_mark(station[k], PATIENT_MS) == 255);
	}
	set(&f);
	send_mark(0, 2, 1);
	send_mark(0, 0xff, 2);
	send_mark(1, 0xff, 3); /* to 2 only */
	ck_assert_int_eq(receive_mark(station[2], PATIENT_MS), 3);
	send_mark(2, 2, 4);
	ck_assert_int_eq(receive_mark(station[1], PATIENT_MS), 4);
	ck_assert_int_eq(receive_mark(station[0], QUIET_MS), -1);
	end_ethernet();
}
END_TEST

static void say(int from, int to, uint32_t seq, uint8_t flags, size_t payload)
{
	uint8_t f[512];
	size_t size = segment(f, (uint8_t)(from + 1), (uint8_t)(to + 1), seq, flags, payload);

	send_frame(station[from], f, size);
}

static bool arrives(int at)
{
	return receive_mark(station[at], PATIENT_MS) >= 0;
}

static bool has_struck(int limit_ms)
{
	return poll(&(struct pollfd){.fd = tf_link_struck_fd(line), .events = POLLIN}, 1,
		       limit_ms) == 1;
}

/* 100 bytes, an answer of 50, and then something happens to the third message. */
START_TEST(moment_on_an_ethernet)
{
	struct tf_link_faults f = {.what = TF_LINK_SILENT, .moment = {.message = 2, .bytes = 80}};
	struct tf_link_faults none = {0};
	struct tf_link_stats s;

	begin_ethernet();
	send_mark(0, 0xff, 255);
	send_mark(1, 0xff, 255);
	ck_assert(arrives(1) && arrives(0) && arrives(2) && arrives(2));
	set(&f);
	say(0, 1, 1000, 2, 0);
	ck_assert(arrives(1));
	say(1, 0, 5000, 18, 0);
	ck_assert(arrives(0));
	say(0, 1, 1001, 16, 100);
	ck_assert(arrives(1));
	say(1, 0, 5001, 16, 50);
	ck_assert(arrives(0));
	say(0, 1, 1001, 16, 100); /* said again: no message */
	ck_assert(arrives(1));
	say(0, 1, 1101, 16, 60);
	ck_assert(arrives(1));
	say(1, 0, 5001, 16, 50);
	ck_assert(arrives(0));
	say(0, 1, 1101, 16, 60);
	ck_assert(arrives(1));
	say(0, 1, 1161, 16, 20);
	ck_assert(arrives(1));
	ck_assert(!has_struck(0));
	say(0, 1, 1181, 16, 1);
	ck_assert(has_struck(PATIENT_MS));
	ck_assert_int_eq(tf_link_stats(line, &s, &err), 0);
	ck_assert_int_eq(s.message, 2);
	ck_assert_int_eq(receive_mark(station[1], QUIET_MS), -1);
	say(1, 0, 5051, 16, 1);
	ck_assert_int_eq(receive_mark(station[0], QUIET_MS), -1);
	send_mark(0, 2, 7); /* others are not concerned */
	ck_assert_int_eq(receive_mark(station[1], PATIENT_MS), 7);
	set(&none);
	ck_assert(!has_struck(0));
	say(1, 0, 5051, 16, 1); /* this one is silent for ever */
	ck_assert_int_eq(receive_mark(station[0], QUIET_MS), -1);
	end_ethernet();
}
END_TEST

/* --- TCP --- */

static int listener, client, server;

static int tcp_socket(struct sockaddr_in *a, unsigned port)
{
	*a = (struct sockaddr_in){.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	return socket(AF_INET, SOCK_STREAM, 0);
}

static void begin_tcp(void)
{
	struct sockaddr_in a;
	socklen_t size = sizeof(a);

	listener = tcp_socket(&a, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(listener, 8), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&a, &size), 0);
	ck_assert_int_eq(tf_link_start_stream(ntohs(a.sin_port), &line, &err), 0);
}

static int dial(void)
{
	struct sockaddr_in a;
	int fd = tcp_socket(&a, tf_link_port(line));

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void begin_talk(void)
{
	client = dial();
	server = accept(listener, NULL, NULL);
	ck_assert_int_ge(server, 0);
}

static void end_talk(void)
{
	close(client);
	close(server);
}

static void end_tcp(void)
{
	close(listener);
	tf_link_free(line);
}

static void tell(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* Whether exactly this comes. */
static bool hears(int fd, const char *text)
{
	struct timeval tv = {PATIENT_MS / 1000, 0};
	char buf[64] = "";

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return recv(fd, buf, strlen(text), MSG_WAITALL) == (ssize_t)strlen(text) &&
	       !strcmp(buf, text);
}

static bool is_quiet(int fd)
{
	return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, QUIET_MS) == 0;
}

/* What is left of it is no more than its end. */
static bool ends(int fd)
{
	char byte;

	return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENT_MS) == 1 &&
	       recv(fd, &byte, 1, 0) <= 0;
}

START_TEST(streams_pass)
{
	struct tf_link_faults slow = {.delay_us = 50000}, rate = {.bytes_per_s = 1000};
	int64_t start;

	begin_tcp();
	begin_talk();
	tell(client, "good day");
	ck_assert(hears(server, "good day"));
	tell(server, "and to you");
	shutdown(server, SHUT_WR);
	ck_assert(hears(client, "and to you"));
	ck_assert(ends(client));
	tell(client, "one more"); /* one end of two */
	ck_assert(hears(server, "one more"));
	close(client);
	ck_assert(ends(server));
	close(server);
	set(&slow);
	begin_talk();
	start = tf_vm_now_us();
	tell(client, "late");
	ck_assert(hears(server, "late"));
	ck_assert_int_ge(tf_vm_now_us() - start, 50000);
	set(&rate);
	start = tf_vm_now_us();
	tell(client, "0123456789012345678901234567890123456789");
	ck_assert(hears(server, "0123456789012345678901234567890123456789"));
	ck_assert_int_ge(tf_vm_now_us() - start, 40000);
	end_talk();
	end_tcp();
}
END_TEST

START_TEST(cut_at_a_byte)
{
	struct tf_link_faults f = {
		.what = TF_LINK_CUT, .moment = {.message = 1, .bytes = 3}, .for_good = true};
	struct tf_link_faults none = {0};
	int again;

	begin_tcp();
	set(&f);
	begin_talk();
	tell(client, "question");
	ck_assert(hears(server, "question"));
	tell(server, "answer");
	ck_assert(hears(client, "ans"));
	ck_assert(ends(client) && ends(server));
	ck_assert(has_struck(PATIENT_MS));
	end_talk();
	again = dial();
	ck_assert(ends(again)); /* for good */
	close(again);
	set(&none);
	ck_assert(!has_struck(0));
	begin_talk();
	tell(client, "question");
	ck_assert(hears(server, "question"));
	end_talk();
	end_tcp();
}
END_TEST

START_TEST(silence_and_hold)
{
	struct tf_link_faults silent = {
		.what = TF_LINK_SILENT, .moment = {.message = TF_LINK_ANY_MESSAGE, .bytes = 10}};
	struct tf_link_faults hold = {.what = TF_LINK_HOLD, .moment = {.message = 1}};
	struct tf_link_faults none = {0}, cut = {.cut = true};
	int first[2];

	begin_tcp();
	set(&silent);
	begin_talk();
	tell(client, "question");
	ck_assert(hears(server, "question"));
	tell(server, "answer");
	ck_assert(hears(client, "an"));
	ck_assert(is_quiet(client) && has_struck(PATIENT_MS));
	first[0] = client, first[1] = server;
	begin_talk(); /* another one is not concerned */
	tell(client, "hello");
	ck_assert(hears(server, "hello"));
	end_talk();
	close(first[0]); /* not even that comes through */
	ck_assert(is_quiet(first[1]));
	close(first[1]);
	silent.for_good = true;
	set(&silent);
	begin_talk();
	tell(client, "question, and more");
	ck_assert(has_struck(PATIENT_MS));
	end_talk();
	await_guests(0);
	for (int i = 0; i < 40; i++) { /* who goes away leaves nothing in the relay */
		client = dial();
		await_guests(1);
		close(client);
		await_guests(0);
	}
	set(&hold);
	begin_talk();
	tell(client, "question");
	ck_assert(hears(server, "question"));
	tell(server, "answer");
	ck_assert(has_struck(PATIENT_MS));
	ck_assert(is_quiet(client));
	set(&none);
	ck_assert(hears(client, "answer"));
	set(&cut);
	tell(client, "lost?");
	ck_assert(is_quiet(server));
	set(&none);
	ck_assert(hears(server, "lost?")); /* as TCP does it */
	end_talk();
	end_tcp();
}
END_TEST

static Suite *link_suite(void)
{
	const TTest *const tests[] = {
		chance_is_the_seeds,
		pace_is_bytes_over_time,
		moments_of_a_conversation,
		segments_are_read,
		same_seed_same_frames,
		partition,
		moment_on_an_ethernet,
		streams_pass,
		cut_at_a_byte,
		silence_and_hold,
	};
	Suite *s = suite_create("link");
	TCase *c = tcase_create("link");

	tcase_set_timeout(c, SUITE_LIMIT_S);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tcase_add_test(c, tests[i]);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	return suite_run(link_suite());
}
