/* SPDX-License-Identifier: MIT */
/*
 * What goes wrong on the way: the link is cut, stalls, crawls, damages; a side is killed or gives
 * up. Both sides say what happened, hold what they held before, and there is no half-made process.
 */
#include "core/job.h"
#include "tests/unit/sides.h"

#define SEED 0x7e1ef04b5eedu

static uint64_t state = SEED;

static uint64_t next_random(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

/* One undisturbed journey: its messages and bytes. */
static int count_messages(uint64_t *ret_forward, uint64_t *ret_back)
{
	struct journey j = {.wire.act = PASS};

	travel(&j);
	check_arrived(&j, "undisturbed");
	if (ret_forward)
		*ret_forward = shared->forward;
	if (ret_back)
		*ret_back = shared->back;
	return (int)shared->messages;
}

/* Twice as much of every time limit that was set. False: there is none, or it is long enough. */
static bool more_patience(struct journey *j)
{
	int *const ms[] = {&j->from.idle_ms, &j->from.deadline_ms, &j->to.options.idle_ms,
		&j->to.options.deadline_ms};
	bool any = false;

	for (size_t i = 0; i < sizeof(ms) / sizeof(*ms); i++) {
		any |= *ms[i] > 0 && *ms[i] < 20000;
		*ms[i] *= 2;
	}
	return any;
}

static void fails(struct journey *j, int source, int receiver, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Travels; both sides have to fail, with these codes (0: any). */
static void fails(struct journey *j, int source, int receiver, const char *fmt, ...)
{
	char what[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	/* On a busy machine a limit may pass before the wire has come to the place. */
	do
		travel(j);
	while (!shared->acted && more_patience(j));
	ck_assert_msg(shared->acted, "%s: not reached", what);
	check_failed(j, what);
	ck_assert_msg(
		!source || j->result.error == source, "%s: source: %s", what, j->result.message);
	ck_assert_msg(!receiver || report.pid == receiver, "%s: receiver: %s", what,
		report.result.message);
}

/* --- cuts --- */

START_TEST(cut_at_every_message)
{
	int n = count_messages(NULL, NULL);

	ck_assert_int_gt(n, 10);
	for (int i = 0; i < n; i++) {
		uint64_t into = i % 2 ? 7 : 0;
		struct journey j = {.wire = {CUT, .message = i, .into = into}};

		fails(&j, TELEFORK_E_CLOSED, TELEFORK_E_CLOSED, "cut %d bytes into message %d",
			(int)into, i);
	}
}
END_TEST

START_TEST(cut_at_random_bytes)
{
	uint64_t bytes;

	count_messages(&bytes, NULL);
	for (int i = 0; i < 12; i++) {
		/* The length varies a little from one journey to the next. */
		uint64_t at = next_random(bytes - (64u << 10));
		struct journey j = {.wire = {CUT, .message = AT_BYTE, .at = at}};

		fails(&j, TELEFORK_E_CLOSED, TELEFORK_E_CLOSED, "cut at byte %llu (seed %llx)",
			(unsigned long long)at, (unsigned long long)SEED);
	}
}
END_TEST

/* The answer is on its way: the source knows nothing, and says so; the copy, which runs, finds its
 * connection closed. */
START_TEST(cut_in_the_answer)
{
	uint64_t back;

	count_messages(NULL, &back);
	for (uint64_t at = back - sizeof(struct tf_reply); at < back; at += 13) {
		struct journey j = {.wire = {CUT, .back = true, .at = at}};

		travel(&j);
		ck_assert_int_eq(j.result.error, TELEFORK_E_CLOSED);
		ck_assert_ptr_nonnull(strstr(j.result.message, "not known"));
		ck_assert_int_gt(report.pid, 0);
		ck_assert_str_eq(report.differs, "");
	}
}
END_TEST

/* Before the answer the receiver tells which files it has: cut there, nothing runs, and that is
 * known.
 */
START_TEST(cut_in_the_list)
{
	uint64_t back;

	if (tf_host_emulated())
		return; /* no list is asked for */
	count_messages(NULL, &back);
	for (uint64_t at = 0; at < back - sizeof(struct tf_reply); at += 37) {
		struct journey j = {.wire = {CUT, .back = true, .at = at}};

		travel(&j);
		ck_assert_int_eq(j.result.error, TELEFORK_E_CLOSED);
		ck_assert_int_eq(report.pid, TELEFORK_E_CLOSED);
		ck_assert_str_eq(report.differs, "");
	}
}
END_TEST

/* --- greetings --- */

/* Bytes of one with the token. */
#define GREETING (16 + sizeof(struct tf_errand) + sizeof(TOKEN) - 1)

static int greet_with(int fd, const char *token)
{
	struct tf_err e = {0};
	struct tf_io io;
	int rc;

	tf_io_init(&io, fd, NULL);
	rc = tf_greet_server(&io, token, NULL, NULL, &e);
	ck_assert(!rc || e.text[0]);
	return rc;
}

static int greet_well(int fd)
{
	return greet_with(fd, TOKEN);
}

static int greet_wrongly(int fd)
{
	return greet_with(fd, "another token");
}

static int greet_without(int fd)
{
	return greet_with(fd, NULL);
}

START_TEST(cut_in_the_greeting)
{
	static const uint64_t places[] = {0, 1, 15, 16, 17, 35, 36, GREETING - 1};

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		struct journey j = {.wire = {CUT, .into = places[i], .prefix = GREETING},
			.greet = greet_well,
			.to.greet = true};

		travel(&j);
		ck_assert_int_eq(j.started, TELEFORK_E_CLOSED);
		ck_assert_int_eq(report.pid, TELEFORK_E_CLOSED);
		ck_assert_str_eq(report.differs, "");
	}
	for (uint64_t at = 0; at < 16; at += 5) {
		struct journey j = {.wire = {CUT, .back = true, .at = at},
			.greet = greet_well,
			.to.greet = true};

		travel(&j);
		ck_assert_int_eq(j.started, TELEFORK_E_CLOSED);
		ck_assert_int_eq(report.pid, TELEFORK_E_CLOSED);
	}
}
END_TEST

START_TEST(wrong_tokens)
{
	static int (*const greet[])(int) = {greet_wrongly, greet_without};

	for (int i = 0; i < 2; i++) {
		struct journey j = {.greet = greet[i], .to.greet = true};

		travel(&j);
		ck_assert_int_eq(j.started, TELEFORK_E_AUTH);
		ck_assert_int_eq(report.pid, TELEFORK_E_AUTH);
		ck_assert_str_eq(report.differs, "");
	}
}
END_TEST

START_TEST(right_token)
{
	struct journey j = {.wire.prefix = GREETING, .greet = greet_well, .to.greet = true};

	travel(&j);
	check_arrived(&j, "with a token");
}
END_TEST

static int greet_other_version(int fd)
{
	uint32_t g[4] = {0, 0, TELEFORK_FORMAT + 1, 0};
	struct {
		char magic[8];
		int32_t code;
		uint32_t size;
	} answer;
	char text[512] = "";

	memcpy(g, "TFHELLO1", 8);
	ck_assert(write(fd, g, sizeof(g)) == sizeof(g));
	ck_assert(recv(fd, &answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
	ck_assert_uint_lt(answer.size, sizeof(text));
	ck_assert(recv(fd, text, answer.size, MSG_WAITALL) == (ssize_t)answer.size);
	ck_assert_ptr_nonnull(strstr(text, "same version"));
	return answer.code;
}

static int greet_garbage(int fd)
{
	ck_assert(write(fd, "GET / HTTP/1.1\r\n\r\n", 18) == 18);
	shutdown(fd, SHUT_WR);
	return TELEFORK_E_PROTOCOL;
}

START_TEST(other_greetings)
{
	struct journey version = {.greet = greet_other_version, .to.greet = true};
	struct journey garbage = {.greet = greet_garbage, .to.greet = true};

	travel(&version);
	ck_assert_int_eq(version.started, TELEFORK_E_VERSION);
	ck_assert_int_eq(report.pid, TELEFORK_E_VERSION);
	travel(&garbage);
	ck_assert_int_eq(report.pid, TELEFORK_E_PROTOCOL);
}
END_TEST

/* --- damage --- */

START_TEST(damage)
{
	const struct {
		int message;
		uint64_t into;
		int code;
	} place[] = {
		{0, 0, TELEFORK_E_PROTOCOL}, /* magic */
		{0, 8, TELEFORK_E_VERSION},
		{0, 16, TELEFORK_E_CHECKSUM}, /* size of the head */
		{0, 36, TELEFORK_E_CHECKSUM}, /* the check itself */
		{1, 0, TELEFORK_E_IMAGE},     /* offset of the head's first extent */
		{1, 12, TELEFORK_E_CHECKSUM},
		{2, 100, TELEFORK_E_CHECKSUM},
	};
	int last = count_messages(NULL, NULL) - 1;

	for (size_t i = 0; i < sizeof(place) / sizeof(*place); i++) {
		struct journey j = {
			.wire = {FLIP, .message = place[i].message, .into = place[i].into}};

		fails(&j, place[i].code, place[i].code, "damage %d bytes into message %d",
			(int)place[i].into, place[i].message);
	}
	for (int i = 3; i < last; i += 4) { /* an extent's offset, check, data */
		struct journey offset = {.wire = {FLIP, .message = i, .into = 7}};
		struct journey check = {.wire = {FLIP, .message = i, .into = 13}};
		struct journey data = {.wire = {FLIP, .message = i + 1, .into = 2000}};

		fails(&offset, TELEFORK_E_IMAGE, TELEFORK_E_IMAGE, "offset in message %d", i);
		fails(&check, TELEFORK_E_CHECKSUM, TELEFORK_E_CHECKSUM, "check in message %d", i);
		fails(&data, TELEFORK_E_CHECKSUM, TELEFORK_E_CHECKSUM, "data in message %d", i + 1);
	}
	for (uint64_t into = 8; into < 16; into += 4) {
		struct journey j = {.wire = {FLIP, .message = AT_TRAILER, .into = into}};

		fails(&j, TELEFORK_E_CHECKSUM, TELEFORK_E_CHECKSUM, "byte %d of the trailer",
			(int)into);
	}
}
END_TEST

/* --- time --- */

static const int phases[] = {0, 1, 2, 3, 8};
#define PHASES (int)(sizeof(phases) / sizeof(*phases))

/* The receiver reads no more. */
START_TEST(peer_stops_reading)
{
	for (int i = 0; i < PHASES; i++) {
		struct journey j = {
			.wire = {STALL, .message = phases[i]}, .from.idle_ms = PATIENCE};

		fails(&j, TELEFORK_E_TIMEOUT, TELEFORK_E_CLOSED, "stops reading at message %d",
			phases[i]);
	}
}
END_TEST

/* The sender sends no more. */
START_TEST(peer_stops_sending)
{
	for (int i = 0; i < PHASES; i++) {
		struct journey j = {.wire = {STALL, .message = phases[i], .into = 3},
			.to.options.idle_ms = PATIENCE};

		fails(&j, TELEFORK_E_CLOSED, TELEFORK_E_TIMEOUT, "stops sending at message %d",
			phases[i]);
	}
}
END_TEST

/* A byte every 20 ms is never idle: the deadline ends it, on either side. */
START_TEST(crawls)
{
	for (int i = 0; i < PHASES; i++) {
		struct journey to = {.wire = {SLOW, .message = phases[i]},
			.to.options.deadline_ms = 2 * PATIENCE};
		struct journey from = {
			.wire = {SLOW, .message = phases[i]}, .from.deadline_ms = 2 * PATIENCE};

		fails(&to, TELEFORK_E_TIMEOUT, TELEFORK_E_TIMEOUT, "crawls from message %d",
			phases[i]);
		fails(&from, TELEFORK_E_TIMEOUT, TELEFORK_E_CLOSED, "crawls from message %d",
			phases[i]);
	}
}
END_TEST

/* Nor without a deadline: what is announced has to come at some speed. */
START_TEST(crawls_without_a_deadline)
{
	struct journey j = {.wire = {SLOW, .message = 0}, .to.options.idle_ms = PATIENCE};

	fails(&j, TELEFORK_E_TIMEOUT, TELEFORK_E_TIMEOUT, "crawls, no deadline");
}
END_TEST

/* --- killed --- */

/* Reaps whoever is left; a half-made process that stayed would hang here. */
static void reap_all(void)
{
	while (waitpid(-1, NULL, __WALL) > 0)
		;
}

START_TEST(receiver_killed)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int i = 0; i < PHASES; i++) {
		struct journey j = {.wire = {KILL, .message = phases[i], .into = 1}};

		j.wire.victim = &j.receiver;
		j.orphans = reap_all;
		travel(&j);
		ck_assert_msg(j.result.error == TELEFORK_E_CLOSED, "message %d: %s", phases[i],
			j.result.message);
		ck_assert_int_eq(report.pid, 0);
	}
}
END_TEST

static void kill_snapshot(struct telefork_job *job)
{
	await_act();
	ck_assert(!kill(job->snapshot, SIGKILL));
}

START_TEST(sender_killed)
{
	for (int i = 0; i < PHASES; i++) {
		struct journey j = {.wire = {STALL, .message = phases[i], .into = 1},
			.meanwhile = kill_snapshot};

		fails(&j, TELEFORK_E_SYSTEM, TELEFORK_E_CLOSED, "sender killed at message %d",
			phases[i]);
	}
}
END_TEST

/* --- giving up --- */

static void cancel_then(struct telefork_job *job)
{
	await_act();
	ck_assert_int_eq(telefork_cancel(job), 0);
}

static void cancel_now(struct telefork_job *job)
{
	ck_assert_int_eq(telefork_cancel(job), 0);
	ck_assert_int_eq(telefork_cancel(job), 0);
}

static void cancel_late(struct telefork_job *job)
{
	struct pollfd p = {telefork_job_fd(job), POLLIN, 0};

	ck_assert_int_eq(poll(&p, 1, -1), 1);
	ck_assert_int_eq(telefork_cancel(job), 0);
}

START_TEST(cancelled)
{
	struct journey now = {.meanwhile = cancel_now};
	struct journey late = {.meanwhile = cancel_late};

	for (int i = 0; i < PHASES; i++) {
		struct journey j = {
			.wire = {STALL, .message = phases[i], .into = 1}, .meanwhile = cancel_then};

		fails(&j, TELEFORK_E_CANCELLED, TELEFORK_E_CLOSED, "cancelled at message %d",
			phases[i]);
	}
	travel(&now);
	ck_assert_int_eq(now.result.error, TELEFORK_E_CANCELLED);
	/* On a loaded machine all may have been sent by then. */
	ck_assert(report.pid == TELEFORK_E_CLOSED || report.pid > 0);
	ck_assert_str_eq(report.differs, "");
	travel(&late);
	check_arrived(&late, "cancelled when it was over");
}
END_TEST

/* Not readable before the end, readable afterwards: the end of a success and of a failure. */
static void poll_job(struct telefork_job *job)
{
	struct pollfd p = {telefork_job_fd(job), POLLIN, 0};

	await_act();
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	ck_assert_int_eq(kill(job->snapshot, SIGKILL), 0);
	ck_assert_int_eq(poll(&p, 1, -1), 1);
}

START_TEST(job_can_be_polled)
{
	struct journey j = {.wire = {STALL, .message = 3}, .meanwhile = poll_job};

	fails(&j, TELEFORK_E_SYSTEM, TELEFORK_E_CLOSED, "polled");
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		cut_at_every_message,
		cut_at_random_bytes,
		cut_in_the_answer,
		cut_in_the_list,
		cut_in_the_greeting,
		wrong_tokens,
		right_token,
		other_greetings,
		damage,
		peer_stops_reading,
		peer_stops_sending,
		crawls,
		crawls_without_a_deadline,
		receiver_killed,
		sender_killed,
		cancelled,
		job_can_be_polled,
	};

	return sides_main(argc, argv,
		sides_suite("failure", sides_setup, NULL, tests, sizeof(tests) / sizeof(*tests)));
}
