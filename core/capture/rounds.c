/* SPDX-License-Identifier: MIT */
/* See rounds.h. The process runs: nothing that is read of it need be true any more. */
#include "core/capture/rounds.h"
#include "arch/arch.h"
#include "core/base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LITTLE_NS  4000000u /* what is sent in so long need not get less */
#define LITTLE_MIN 131072u  /* bytes: less is little at any rate */
#define VAIN       3        /* rounds after which it does not get less */

static int no_memory(struct tf_rounds *r)
{
	return tf_fail(&r->err, TELEFORK_E_NOMEM, "out of memory for rounds");
}

/* --- mappings --- */

/* smaps takes long, and is read only if there is something new. */
static int look_at_maps(struct tf_rounds *r)
{
	char path[64], *text;
	size_t size;
	uint32_t seen;
	int rc;

	tf_arena_rewind(&r->text, 0);
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)r->pid);
	rc = tf_proc_read(&r->text, path, &text, &size, &r->err);
	if (rc)
		return rc;
	seen = tf_crc32c(0, text, size) | 1;
	if (seen == r->seen)
		return 0;
	r->seen = seen;
	tf_arena_rewind(&r->arena, 0);
	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)r->pid);
	return tf_maps_read(&r->arena, path, &r->maps, &r->n_maps, &r->err);
}

static int add_place(
	struct tf_rounds *r, uint64_t start, uint64_t end, const struct tf_map *m, uint32_t bytes)
{
	if (r->n_place == r->room_place) {
		size_t room = r->room_place ? 2 * r->room_place : 64;
		struct tf_round_place *v = realloc(r->place, room * sizeof(*v));

		if (!v)
			return no_memory(r);
		r->place = v;
		r->room_place = room;
	}
	r->place[r->n_place++] =
		(struct tf_round_place){start, end, m->vmflags & TF_PLACE_FLAGS, bytes};
	return 0;
}

/* What of the mapping is new to the other side. */
static int add_places(struct tf_rounds *r, const struct tf_map *m)
{
	struct tf_run whole = {m->start, m->end};
	const struct tf_runs one = {.v = &whole, .n = 1};
	struct tf_runs fresh = {0};
	int rc = tf_runs_make(&fresh, TF_RUNS_WITHOUT, &one, &r->known) ? no_memory(r) : 0;

	for (size_t i = 0; i < fresh.n && !rc; i++)
		rc = add_place(r, fresh.v[i].start, fresh.v[i].end, m, 1);
	if (!rc && fresh.n && tf_runs_change(&r->known, TF_RUNS_EITHER, &one))
		rc = no_memory(r);
	tf_runs_done(&fresh);
	return rc;
}

static int tell_places(struct tf_rounds *r)
{
	int rc = 0;

	for (size_t n; r->told < r->n_place && !rc; r->told += n) {
		n = r->n_place - r->told;
		n = n < TF_EXTENT_SIZE / sizeof(*r->place) ? n : TF_EXTENT_SIZE / sizeof(*r->place);
		rc = tf_sink_plain(&r->sink, TF_PLACES_OFFSET, r->place + r->told,
			n * sizeof(*r->place), NULL, &r->err);
	}
	return rc ? rc : tf_sink_flush(&r->sink, &r->err);
}

static bool may_go(const struct tf_rounds *r, const struct tf_map *m)
{
	return tf_map_may_be_staged(m) &&
	       tf_span_of(m->start, r->span, r->shift) == tf_span_of(m->end - 1, r->span, r->shift);
}

/* --- rounds --- */

static int begin_round(struct tf_rounds *r)
{
	struct tf_runs where = {0};
	int rc = look_at_maps(r);

	for (uint32_t i = 0; i < r->n_maps && !rc; i++)
		if (may_go(r, &r->maps[i]) && tf_runs_add(&where, r->maps[i].start, r->maps[i].end))
			rc = no_memory(r);
	if (!rc)
		rc = tf_track_round(&r->track, &where, &r->err);
	tf_runs_done(&where);
	return rc;
}

/* What is there and was written to since the last round. */
static int see_written(struct tf_rounds *r)
{
	uint32_t before = r->seen;
	int rc = begin_round(r);

	tf_runs_clear(&r->written);
	for (uint32_t i = 0; i < r->n_maps && !rc; i++) {
		const struct tf_map *m = &r->maps[i];
		int ours = may_go(r, m) ? tf_track_add(&r->track, m->start, m->end, &r->err) : 0;

		if (ours < 0)
			return ours;
		if (r->seen != before)
			rc = ours ? add_places(r, m) : add_place(r, m->start, m->end, m, 0);
		if (!rc && ours)
			rc = tf_track_written(&r->track, m->start, m->end, &r->written, &r->err);
	}
	return rc ? rc : tell_places(r);
}

/* While extents go the receiver says nothing but that it wants no more. */
static int hear_refusal(struct tf_io *io, struct tf_err *e)
{
	struct tf_rounds *r = io->told_ctx;
	struct tf_reply reply;
	int rc = tf_io_read(io, reply.magic, sizeof(reply.magic), e);

	if (!rc)
		rc = tf_sink_hear(&r->sink, &reply, sizeof(reply.magic), e);
	return rc ? rc : 1;
}

int tf_rounds_hear(struct tf_rounds *r)
{
	struct pollfd p = {.fd = r->io.fd, .events = POLLIN};
	int rc = r->io.heed && poll(&p, 1, 0) > 0 ? hear_refusal(&r->io, &r->err) : 0;

	return rc < 0 ? rc : 0;
}

static int await_taken(struct tf_rounds *r)
{
	struct tf_taken s;
	int rc = tf_sink_await(&r->sink, s.magic, &r->err);

	if (!rc)
		rc = tf_io_read(&r->io, &s.bytes, sizeof(s.bytes), &r->err);
	if (rc)
		return rc;
	return memcmp(s.magic, TF_TAKEN_MAGIC, sizeof(s.magic))
		       ? tf_fail(&r->err, TELEFORK_E_PROTOCOL,
				 "the receiver says something else than that it has the round")
		       : 0;
}

static int one_round(struct tf_rounds *r)
{
	struct tf_round *now = &r->round[r->n];
	uint64_t start = tf_now_ns();
	int rc;

	*now = (struct tf_round){0};
	rc = see_written(r);
	now->looked_ns = tf_now_ns() - start;
	if (!rc)
		rc = tf_rounds_send(r);
	if (!rc)
		rc = tf_sink_end(&r->sink, NULL, &r->err);
	tf_sink_anew(&r->sink);
	if (!rc)
		rc = await_taken(r);
	now->ns = tf_now_ns() - start;
	r->n++;
	return rc;
}

/* At the best rate so far. */
static bool is_little(const struct tf_rounds *r)
{
	const struct tf_round *last = &r->round[r->n - 1];
	double rate = 0;

	for (uint32_t i = 0; i < r->n; i++) {
		uint64_t ns = r->round[i].ns - r->round[i].looked_ns;

		if (r->round[i].bytes > rate * (double)ns)
			rate = (double)r->round[i].bytes / (double)ns;
	}
	return last->bytes <= LITTLE_MIN || (double)last->bytes <= rate * LITTLE_NS;
}

/* It writes to nearly all of it while that goes, or the last rounds were no smaller than one before
 * them. */
static bool is_vain(const struct tf_rounds *r)
{
	uint64_t least = UINT64_MAX;

	if (r->n > 1 && r->round[r->n - 1].bytes >= r->round[0].bytes / 4 * 3)
		return true;
	if (r->n <= VAIN)
		return false;
	for (uint32_t i = 0; i < r->n - VAIN; i++)
		least = r->round[i].bytes < least ? r->round[i].bytes : least;
	for (uint32_t i = r->n - VAIN; i < r->n; i++)
		if (r->round[i].bytes < least / 4 * 3)
			return r->n == TF_ROUNDS_MAX;
	return true;
}

int tf_rounds_run(struct tf_rounds *r)
{
	int rc = 0;

	do {
		rc = one_round(r);
		r->little = !rc && is_little(r);
	} while (!rc && !*r->refusal && !r->little && !is_vain(r));
	if (!rc && *r->refusal)
		rc = tf_rounds_over(r);
	return rc || !*r->refusal
		       ? rc
		       : tf_fail(&r->err, TELEFORK_E_UNSUPPORTED, "the receiver: %s", r->refusal);
}

int tf_rounds_over(struct tf_rounds *r)
{
	struct tf_extent x = {.offset = TF_ROUNDS_OVER};

	return tf_io_write(&r->io, &x, sizeof(x), &r->err);
}

/* --- begin and end --- */

static uint64_t resident(pid_t pid)
{
	char path[64], text[64];
	unsigned long long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	tf_proc_peek(path, text, sizeof(text));
	sscanf(text, "%*u %llu", &pages);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Bytes of mappings that would lie in two spans, of as many as there are at most. */
static uint64_t cut_by(const struct tf_map *maps, uint32_t n, uint64_t shift)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		if (tf_map_may_be_staged(&maps[i]) &&
			tf_span_of(maps[i].start, TF_SPAN_MAX, shift) !=
				tf_span_of(maps[i].end - 1, TF_SPAN_MAX, shift))
			bytes += maps[i].end - maps[i].start;
	return bytes;
}

/* Where spans begin so that little is cut: GiB. */
static uint32_t choose_shift(struct tf_rounds *r)
{
	uint64_t least = UINT64_MAX;
	struct tf_err quiet = {0};
	struct tf_map *maps;
	uint32_t n, best = 0;
	char path[64];

	tf_arena_rewind(&r->text, 0);
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)r->pid);
	if (tf_maps_read(&r->text, path, &maps, &n, &quiet))
		return 0;
	for (uint32_t i = 0; i < TF_SPAN_MAX >> TF_SPAN_SHIFT && least; i++) {
		uint64_t bytes = cut_by(maps, n, (uint64_t)i << TF_SPAN_SHIFT);

		if (bytes < least) {
			least = bytes;
			best = i;
		}
	}
	return best;
}

int tf_rounds_offer(struct tf_rounds *r, int fd, const struct telefork_options *options,
	struct tf_packer *packer)
{
	struct tf_rounds_header h = {.machine = tf_arch_native()->machine,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.memory = resident(r->pid),
		.shift = choose_shift(r)};
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_reply reply;
	int rc;

	tf_io_init(&r->io, fd, options);
	r->io.told = hear_refusal;
	r->io.told_ctx = r;
	r->sink = (struct tf_sink){.io = &r->io,
		.crc_instruction = tf_crc32c_has_instruction(),
		.packer = packer,
		.refusal = r->refusal};
	memcpy(h.magic, TF_ROUNDS_MAGIC, sizeof(h.magic));
	h.crc = tf_crc32c(0, &h, offsetof(struct tf_rounds_header, crc));
	rc = tf_io_write(&r->io, &h, sizeof(h), &r->err);
	if (!rc)
		rc = tf_reply_read(&r->io, &reply, message, &r->err);
	if (rc)
		return rc;
	if (reply.code)
		return tf_fail(&r->err, reply.code, "%s", message);
	r->span = reply.memory;
	r->shift = (uint64_t)h.shift << TF_SPAN_SHIFT;
	r->io.heed = r->io.socket;
	if (reply.outcome == TF_OUTCOME_COMING && r->span && !(r->span & (r->span - 1)))
		return 0;
	return tf_fail(&r->err, TELEFORK_E_UNSUPPORTED, "the receiver: %s", message);
}

int tf_rounds_begin(struct tf_rounds *r, pid_t pid)
{
	char path[64];
	int rc;

	*r = (struct tf_rounds){
		.pid = pid, .mem = -1, .track = {.uffd = -1, .pagemap = -1, .clear = -1}};
	r->bytes = malloc(TF_ROUNDS_BUFFER);
	r->other = malloc(TF_ROUNDS_BUFFER);
	if (!r->bytes || !r->other || tf_arena_init(&r->arena, TF_ARENA_DEFAULT) ||
		tf_arena_init(&r->text, TF_ARENA_DEFAULT))
		return no_memory(r);
	rc = tf_track_begin(&r->track, pid, TF_TRACK_UFFD | TF_TRACK_SOFT, &r->err);
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	r->mem = open(path, O_RDONLY | O_CLOEXEC);
	return r->mem < 0 ? tf_fail_errno(&r->err, TELEFORK_E_SYSTEM, errno, "%s", path) : 0;
}

void tf_rounds_end(struct tf_rounds *r)
{
	if (!r->bytes)
		return;
	tf_track_end(&r->track);
	if (r->mem >= 0)
		close(r->mem);
	free(r->place);
	free(r->owners.owner);
	free(r->held);
	free(r->bytes);
	free(r->other);
	tf_runs_done(&r->known);
	tf_runs_done(&r->sent);
	tf_runs_done(&r->ever);
	tf_runs_done(&r->written);
	tf_runs_done(&r->clean);
	tf_arena_done(&r->arena);
	tf_arena_done(&r->text);
	r->bytes = NULL;
}
