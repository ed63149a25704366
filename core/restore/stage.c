/* SPDX-License-Identifier: MIT */
/* See stage.h. The sender says anything it likes: an address counts only inside a slot. */
#include "core/restore/stage.h"
#include "core/base/cleanup.h"
#include "core/base/crc32c.h"
#include "core/base/host.h"
#include "core/base/maps.h"
#include "core/base/text.h"
#include "core/restore/pad_impl.h"
#include "core/restore/tracer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS_MAX   65536u               /* vm.max_map_count is 65,530 by default */
#define OTHERS_MAX  65536u               /* mappings that are only in the way */
#define WATCH_BYTES (UINT64_C(64) << 20) /* after so many it is looked at how much there is */

/* The new process. */
struct stager {
	struct tf_pad *p;
	struct tf_staging *s;
	struct tf_io io;
	struct tf_runs others; /* sorted by start */
	uint8_t *places;       /* TF_EXTENT_MAX bytes */
	uint32_t count, chain; /* of this round */
	uint64_t most, round, watched;
	bool unable; /* to keep what comes: it is read and forgotten */
};

static int hostile(struct stager *g, const char *what, uint64_t where)
{
	return tf_fail(&g->s->err, TELEFORK_E_IMAGE, "memory that comes before: %s at %llx", what,
		(unsigned long long)where);
}

/* No lie of the sender: it can do without rounds. */
static int unable(struct stager *g, int rc)
{
	g->unable = true;
	return rc;
}

uint64_t tf_stage_at(const struct tf_staging *s, uint64_t address)
{
	for (uint32_t i = 0; i < s->n_windows; i++)
		if (address - s->window[i].from < s->span)
			return address - s->window[i].from + s->window[i].to;
	return 0;
}

static bool is_one_span(const struct tf_staging *s, uint64_t start, uint64_t end)
{
	return tf_span_of(start, s->span, s->shift) == tf_span_of(end - 1, s->span, s->shift);
}

/* --- places --- */

uint32_t tf_stage_slot(const struct tf_staging *s, uint64_t at)
{
	uint32_t low = 0, high = s->n_slots;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (s->slot[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_taken(const struct stager *g, const struct tf_map *maps, uint32_t n, uint64_t at)
{
	const struct tf_staging *s = g->s;

	for (uint32_t i = 0; i < n; i++)
		if (maps[i].start < at + s->span && maps[i].end > at)
			return true;
	for (uint32_t i = 0; i < s->n_windows; i++)
		if (s->window[i].from == at || s->window[i].to == at)
			return true;
	return tf_runs_meet(&g->others, at, at + s->span);
}

/* A span that is free here and there. */
static int open_window(struct stager *g, uint64_t address)
{
	struct tf_staging *s = g->s;
	struct tf_arena arena = {0}; /* the receiver allocates in the other one */
	struct tf_map *maps;
	uint32_t n;
	uint64_t from = address - (address - s->shift) % s->span, at = TF_HOLE_TOP;
	int rc = tf_arena_init(&arena, TF_ARENA_DEFAULT);

	if (!rc)
		rc = tf_maps_read(&arena, "/proc/self/maps", &maps, &n, &s->err);
	if (rc) {
		tf_arena_done(&arena);
		return tf_fail(&s->err, rc, "out of memory for its own mappings");
	}
	if (at > g->p->facts.max_addr)
		at = g->p->facts.max_addr;
	for (at -= at % s->span + 2 * s->span - s->shift; at >= s->span; at -= s->span)
		if (at != from && !is_taken(g, maps, n, at))
			break;
	tf_arena_done(&arena);
	if (at < s->span || s->n_windows == TF_STAGE_WINDOWS)
		return unable(g, tf_fail(&s->err, TELEFORK_E_COLLISION,
					 "no addresses are free for memory that comes before"));
	s->window[s->n_windows].from = from;
	s->window[s->n_windows++].to = at;
	return 0;
}

static int map_slot(struct stager *g, const struct tf_round_place *p, uint64_t at)
{
	uint64_t n = p->end - p->start;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
		    (p->vmflags & TF_VMF_NORESERVE ? MAP_NORESERVE : 0);
	void *got = mmap((void *)at, n, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (got != (void *)at)
		return unable(
			g, tf_fail_errno(&g->s->err, TELEFORK_E_NOMEM,
				   got == MAP_FAILED ? errno : EEXIST,
				   "room for %llu bytes that come before", (unsigned long long)n));
	if (p->vmflags & TF_VMF_HUGEPAGE)
		madvise(got, n, MADV_HUGEPAGE);
	if (p->vmflags & TF_VMF_NOHUGEPAGE)
		madvise(got, n, MADV_NOHUGEPAGE);
	return 0;
}

static int add_slot(struct stager *g, const struct tf_round_place *p)
{
	struct tf_staging *s = g->s;
	uint32_t i = tf_stage_slot(s, p->start);
	int rc = 0;

	if (!is_one_span(s, p->start, p->end) || p->vmflags & ~TF_PLACE_FLAGS)
		return hostile(g, "a place", p->start);
	if (i < s->n_slots && s->slot[i].start < p->end)
		return hostile(g, "a place that was told before", p->start);
	if (s->n_slots == s->max_slots)
		return unable(
			g, tf_fail(&s->err, TELEFORK_E_LIMIT, "more than %u places", s->max_slots));
	if (!tf_stage_at(s, p->start))
		rc = open_window(g, p->start);
	if (!rc)
		rc = map_slot(g, p, tf_stage_at(s, p->start));
	if (rc)
		return rc;
	memmove(s->slot + i + 1, s->slot + i, (s->n_slots - i) * sizeof(*s->slot));
	s->slot[i] = (struct tf_slot){p->start, p->end, p->vmflags};
	s->n_slots++;
	return 0;
}

static int add_other(struct stager *g, const struct tf_round_place *p)
{
	struct tf_run run = {p->start, p->end};
	const struct tf_runs one = {.v = &run, .n = 1};

	if (g->others.n == OTHERS_MAX)
		return 0;
	return tf_runs_change(&g->others, TF_RUNS_EITHER, &one)
		       ? tf_fail(&g->s->err, TELEFORK_E_NOMEM, "out of memory")
		       : 0;
}

/* Those that are in the way first. */
static int take_places(struct stager *g, uint32_t size)
{
	uint64_t mask = g->p->facts.page_size - 1;
	const struct tf_round_place *p = (const struct tf_round_place *)(void *)g->places;
	size_t n = size / sizeof(*p);
	int rc = size % sizeof(*p) ? hostile(g, "places", size) : 0;

	for (size_t i = 0; i < n && !rc; i++)
		if (p[i].start >= p[i].end || (p[i].start | p[i].end) & mask ||
			p[i].end > TF_MAX_ADDR)
			rc = hostile(g, "a place", p[i].start);
		else if (!p[i].bytes)
			rc = add_other(g, &p[i]);
	for (size_t i = 0; i < n && !rc; i++)
		if (p[i].bytes)
			rc = add_slot(g, &p[i]);
	return rc;
}

/* --- bytes --- */

static uint64_t resident(void)
{
	char text[64];
	unsigned long long pages = 0;

	tf_proc_peek("/proc/self/statm", text, sizeof(text));
	sscanf(text, "%*u %llu", &pages);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Nobody sends more than he may have here, nor one round for ever. */
static int watch(struct stager *g, uint32_t size)
{
	g->round += size;
	g->watched += size;
	if (g->round > g->most)
		return tf_fail(&g->s->err, TELEFORK_E_LIMIT,
			"memory: more than %llu bytes came before", (unsigned long long)g->most);
	if (g->watched < WATCH_BYTES)
		return 0;
	g->watched = 0;
	return resident() < g->most + WATCH_BYTES
		       ? 0
		       : tf_fail(&g->s->err, TELEFORK_E_LIMIT,
				 "memory: more than %llu bytes came before",
				 (unsigned long long)g->most);
}

/* In one slot, or in several that touch each other. */
static bool is_in_slots(const struct tf_staging *s, uint64_t start, uint64_t end)
{
	uint64_t at = start;

	if (end - 1 - start >= s->span || !is_one_span(s, start, end))
		return false;
	for (uint32_t i = tf_stage_slot(s, at); at < end; i++) {
		if (i == s->n_slots || s->slot[i].start > at)
			return false;
		at = s->slot[i].end;
	}
	return true;
}

/* Where the bytes of an extent go that says something possible. */
static int find_room(struct stager *g, const struct tf_extent *x, uint8_t **ret)
{
	const struct tf_staging *s = g->s;
	int rc;

	*ret = g->places;
	if (!x->size || x->size > TF_EXTENT_MAX)
		return hostile(g, "an extent's size", x->offset);
	if (x->offset == TF_PLACES_OFFSET && !g->unable)
		return 0;
	if (!g->unable &&
		((x->offset | x->size) & (g->p->facts.page_size - 1) || x->offset > TF_MAX_ADDR ||
			!is_in_slots(s, x->offset, x->offset + x->size)))
		return hostile(g, "an extent that is in no place", x->offset);
	rc = watch(g, x->size);
	if (!rc && !g->unable)
		*ret = (uint8_t *)tf_stage_at(s, x->offset);
	return rc || *ret ? rc : hostile(g, "an extent that is in no place", x->offset);
}

/* Once: what was kept so far is not needed. */
static int refuse(struct stager *g)
{
	const struct tf_reply r = {.outcome = TF_OUTCOME_GONE};
	struct tf_staging *s = g->s;
	struct tf_err why = s->err;

	s->refused = true;
	s->err = (struct tf_err){0};
	for (uint32_t i = 0; i < s->n_slots; i++)
		munmap((void *)tf_stage_at(s, s->slot[i].start), s->slot[i].end - s->slot[i].start);
	return tf_reply_write(&g->io, &r, why.text, &s->err);
}

/* Its bytes are there. */
static int settle(struct stager *g, const struct tf_extent *x, const uint8_t *at)
{
	int rc = 0;

	if (tf_extent_crc(x->offset, x->size, at) != x->crc)
		return tf_fail(&g->s->err, TELEFORK_E_CHECKSUM,
			"an extent of a round arrived damaged, at %llx",
			(unsigned long long)x->offset);
	g->chain = tf_chain_crc(g->chain, x->crc);
	g->count++;
	if (x->offset == TF_PLACES_OFFSET && !g->unable)
		rc = take_places(g, x->size);
	return rc && g->unable && !g->s->refused ? refuse(g) : rc;
}

static int take_extent(struct stager *g, const struct tf_extent *x)
{
	uint8_t *at;
	int rc = find_room(g, x, &at);

	if (!rc)
		rc = tf_io_read(&g->io, at, x->size, &g->s->err);
	return rc ? rc : settle(g, x, at);
}

static int take_unpacked(void *ctx, const struct tf_extent *x, uint8_t *bytes)
{
	struct stager *g = ctx;
	uint8_t *at;
	int rc = find_room(g, x, &at);

	if (!rc)
		memcpy(at, bytes, x->size);
	return rc ? rc : settle(g, x, at);
}

static int take_section(struct stager *g, const struct tf_extent *mark)
{
	struct tf_unpacker *u = g->p->unpacker;

	if (!u || mark->size != 1)
		return hostile(g, "a section of packed memory", mark->size);
	return u->run(u, &g->io, take_unpacked, g, &g->s->err);
}

static int end_round(struct stager *g, const struct tf_extent *x, uint32_t *rounds)
{
	struct tf_taken done = {.bytes = g->io.received};

	if (x->size != g->count || x->crc != g->chain)
		return tf_fail(&g->s->err, TELEFORK_E_CHECKSUM, "an extent of a round is missing");
	if (++*rounds > TF_ROUNDS_MAX)
		return hostile(g, "one round too many", *rounds);
	g->count = g->chain = 0;
	g->round = 0;
	memcpy(done.magic, TF_TAKEN_MAGIC, sizeof(done.magic));
	return tf_io_write(&g->io, &done, sizeof(done), &g->s->err);
}

static int take_rounds(struct stager *g)
{
	uint32_t rounds = 0;
	struct tf_extent x;
	int rc;

	for (;;) {
		rc = tf_io_read(&g->io, &x, sizeof(x), &g->s->err);
		if (rc || x.offset == TF_ROUNDS_OVER)
			return rc;
		rc = x.offset == TF_TRAILER_OFFSET  ? end_round(g, &x, &rounds)
		     : x.offset == TF_PACKED_OFFSET ? take_section(g, &x)
						    : take_extent(g, &x);
		if (rc)
			return rc;
	}
}

/* --- the new process --- */

static _Noreturn void stager(struct tf_pad *p, uint64_t most, int control)
{
	struct stager g = {.p = p, .s = p->staging, .most = most};
	struct telefork_options limits = *p->options;
	struct tf_relay_ends ends = TF_RELAY_NO_ENDS;
	char word = 's';

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != p->receiver)
		_exit(127);
	limits.deadline_ms = 0;
	tf_io_init(&g.io, p->io.fd, &limits);
	g.places = malloc(TF_EXTENT_MAX);
	if (!g.places)
		tf_fail(&g.s->err, TELEFORK_E_NOMEM, "out of memory");
	else
		take_rounds(&g);
	g.s->bytes = resident();
	if (send(control, &word, 1, MSG_NOSIGNAL) != 1 || g.s->err.code ||
		recv(control, &word, 1, 0) != 1)
		_exit(127);
	tf_pad_child(g.s->pad, p->io.fd, control, &ends);
}

/* --- the receiver --- */

static int read_header(struct tf_pad *p, struct tf_rounds_header *h)
{
	int rc = tf_io_read(&p->io, h, sizeof(*h), &p->err);

	if (rc)
		return rc;
	if (memcmp(h->magic, TF_ROUNDS_MAGIC, sizeof(h->magic)))
		return tf_fail(&p->err, TELEFORK_E_PROTOCOL,
			"what arrived does not begin as rounds of memory");
	return h->crc == tf_crc32c(0, h, offsetof(struct tf_rounds_header, crc))
		       ? 0
		       : tf_fail(&p->err, TELEFORK_E_CHECKSUM,
				 "the rounds' header arrived damaged");
}

/* NULL: they may come; or why not. */
static const char *obstacle(const struct tf_pad *p, const struct tf_rounds_header *h, uint64_t most)
{
	struct rlimit space;

	if (p->facts.flags & TF_FACT_EMULATED || !tf_tracer_allowed())
		return "it may not trace the process that arrives";
	if (h->machine != p->facts.machine || h->page_size != p->facts.page_size)
		return "another processor or another size of pages";
	if (h->memory > most)
		return "so much memory is not free there";
	if (getrlimit(RLIMIT_AS, &space) || space.rlim_cur != RLIM_INFINITY)
		return "its address space is limited (ulimit -v)";
	if (p->options->restore & TELEFORK_RESTORE_SAME_PID)
		return "the process is to have the id that it had";
	return NULL;
}

static int answer(struct tf_pad *p, const char *why, uint64_t span)
{
	struct tf_reply r = {.outcome = why ? TF_OUTCOME_GONE : TF_OUTCOME_COMING, .memory = span};

	return tf_reply_write(&p->io, &r, why, &p->err);
}

static int start(struct tf_pad *p, uint64_t most)
{
	int control[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
		return tf_fail_errno(&p->err, TELEFORK_E_SYSTEM, errno, "socketpair");
	p->began = time(NULL);
	p->receiver = getpid();
	p->child = _Fork();
	if (!p->child) {
		close(control[0]);
		stager(p, most, control[1]);
	}
	close(control[1]);
	p->control = control[0];
	return p->child > 0 ? 0 : tf_fail_errno(&p->err, TELEFORK_E_SYSTEM, errno, "fork");
}

/* The image is to come as if no rounds had. */
static void forget(struct tf_pad *p)
{
	tf_stage_end(p);
	tf_closep(&p->control);
	p->control = -1;
	p->staging = NULL;
}

static int await_rounds(struct tf_pad *p)
{
	char word;
	ssize_t n;

	do
		n = recv(p->control, &word, 1, 0);
	while (n < 0 && errno == EINTR);
	if (p->staging->err.code)
		return tf_fail(&p->err, p->staging->err.code, "%s", p->staging->err.text);
	if (n != 1)
		return tf_fail(&p->err, TELEFORK_E_RESTORE,
			"the new process was ended while its memory came (out of memory?)");
	if (p->staging->refused)
		forget(p);
	return 0;
}

/* The new process sees what the plan will be. */
static int share(struct tf_pad *p, uint64_t shift)
{
	struct tf_staging *s;

	p->staging = s = tf_arena_alloc(&p->arena, sizeof(*s));
	if (!s)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory");
	s->max_slots = SLOTS_MAX;
	s->span = p->facts.max_addr / 512;
	if (s->span > TF_SPAN_MAX) /* of 52 bits: there would be few below TF_HOLE_TOP */
		s->span = TF_SPAN_MAX;
	while (s->span & (s->span - 1))
		s->span += s->span & -s->span;
	s->shift = shift % s->span;
	s->slot = tf_arena_array(&p->arena, SLOTS_MAX, sizeof(*s->slot));
	return s->slot ? 0 : tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory for places");
}

static int take(struct tf_pad *p)
{
	uint64_t most = p->options->max_memory ? p->options->max_memory : p->facts.memory_free;
	struct tf_rounds_header h;
	const char *why;
	int rc = read_header(p, &h);

	if (!rc)
		rc = share(p, (uint64_t)h.shift << TF_SPAN_SHIFT);
	if (rc)
		return rc;
	why = obstacle(p, &h, most);
	if (!why)
		rc = start(p, most);
	if (!rc)
		rc = answer(p, why, p->staging->span);
	if (!rc && !why && p->mark.born)
		rc = p->mark.born(p->mark.ctx, p->child, &p->err);
	if (!rc && !why)
		rc = await_rounds(p);
	if (why)
		p->staging = NULL;
	return rc;
}

/* The head's time begins anew behind them. */
int tf_stage_take(struct tf_pad *p)
{
	uint64_t start_ns = tf_now_ns();
	int rc = p->answers ? take(p)
			    : tf_fail(&p->err, TELEFORK_E_PROTOCOL, "rounds on a one-way channel");

	if (p->io.deadline_ns)
		p->io.deadline_ns += tf_now_ns() - start_ns;
	return rc;
}

void tf_stage_count(struct tf_pad *p)
{
	uint64_t bytes = p->staging ? p->staging->bytes : 0;

	p->facts.memory_free += bytes;
	if (p->facts.commit_free != UINT64_MAX)
		p->facts.commit_free += bytes;
}

void tf_stage_end(struct tf_pad *p)
{
	if (p->child <= 0)
		return;
	kill(p->child, SIGKILL);
	while (waitpid(p->child, NULL, 0) < 0 && errno == EINTR)
		;
	p->child = 0;
}

int tf_stage_go(struct tf_pad *p)
{
	struct tf_pad *copy = tf_arena_dup(&p->arena, p, sizeof(*p));
	char word = 'p';

	if (!copy)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory");
	copy->options = tf_arena_dup(&p->arena, p->options, sizeof(*p->options));
	p->staging->pad = copy;
	if (!copy->options || send(p->control, &word, 1, MSG_NOSIGNAL) != 1)
		return tf_fail(&p->err, TELEFORK_E_RESTORE,
			"the new process ended before it could be restored");
	return 0;
}
