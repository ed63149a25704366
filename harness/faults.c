/* SPDX-License-Identifier: MIT */
/* See faults.h: the kinds of faults, and what a seed makes of a step. */
#include "harness/faults.h"
#include "harness/faults_table.h"

#include <stdio.h>
#include <string.h>

#define N (1u << TF_TIER_NATIVE | 1u << TF_TIER_USER)
#define S (1u << TF_TIER_SYSTEM)

const char *const tf_fault_names[TF_FAULT_KINDS] = {
#define X(name, text, tiers, help) [TF_FAULT_##name] = (text),
	TF_FAULTS(X)
#undef X
};

const char *const tf_fault_help[TF_FAULT_KINDS] = {
#define X(name, text, tiers, help) [TF_FAULT_##name] = (help),
	TF_FAULTS(X)
#undef X
};

static const unsigned possible[TF_FAULT_KINDS] = {
#define X(name, text, tiers, help) [TF_FAULT_##name] = (tiers),
	TF_FAULTS(X)
#undef X
};

const char *const tf_message_names[TF_FAULT_MESSAGES] = {
	"greeting", "welcome", "image", "prepared", "commit", "running"};

bool tf_fault_possible(enum tf_fault kind, enum tf_tier tier)
{
	return possible[kind] >> tier & 1;
}

/* splitmix64 */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint32_t below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(draw(state) % n);
}

/* Every other step has a link that is not perfect. What is lost on a stream costs 200 ms. */
static void draw_link(struct tf_link_faults *f, uint64_t *state, enum tf_tier tier)
{
	f->seed = draw(state);
	if (below(state, 2))
		return;
	f->delay_us = below(state, 8000);
	f->jitter_us = below(state, 8000);
	f->loss_ppm = below(state, tier == TF_TIER_SYSTEM ? 30000 : 20000);
	f->duplicate_ppm = below(state, 50000);
	f->reorder_ppm = below(state, 50000);
	if (below(state, 4) == 0)
		f->bytes_per_s = (1 + below(state, 16)) * UINT64_C(250000);
}

/* Messages are short but for the image; a moment behind a message's end is the next one's begin. */
static void draw_moment(struct tf_link_moment *m, uint64_t *state)
{
	m->message = (int32_t)below(state, TF_FAULT_MESSAGES);
	m->bytes = below(state, 3) ? below(state, m->message == 2 ? 400000 : 24) : 0;
}

void tf_step_draw(struct tf_step *s, uint64_t seed, uint64_t n, enum tf_tier tier, int idle_ms)
{
	uint64_t state = seed;

	state = draw(&state) ^ n * UINT64_C(0xd1342543de82ef95);
	*s = (struct tf_step){0};
	do
		s->kind = (enum tf_fault)below(&state, TF_FAULT_KINDS);
	while (!tf_fault_possible(s->kind, tier));
	draw_moment(&s->moment, &state);
	draw_link(&s->link, &state, tier);
	/* Half of what lasts a while lasts longer than anybody's patience. */
	s->hold_ms = below(&state, 2) ? idle_ms * 3 / 2 : (int)below(&state, (uint32_t)idle_ms / 4);
	s->jump_s = (below(&state, 2) ? 1 : -1) * (int)(1 + below(&state, 90 * 24 * 3600));
}

void tf_step_precopy(struct tf_step *s)
{
	s->precopy = true;
	s->moment.message += (int32_t)(s->moment.bytes % 5);
}

static int add_link(const struct tf_link_faults *f, char *buf, size_t size)
{
	char rate[32];

	if (!f->delay_us && !f->jitter_us && !f->loss_ppm && !f->bytes_per_s && !f->duplicate_ppm &&
		!f->reorder_ppm)
		return 0;
	snprintf(rate, sizeof(rate), ", %llu KB/s", (unsigned long long)f->bytes_per_s / 1000);
	return snprintf(buf, size,
		"; link: %.1f to %.1f ms, %.2f %% lost, %.2f %% twice, %.2f %% late%s",
		f->delay_us / 1e3, (f->delay_us + f->jitter_us) / 1e3, f->loss_ppm / 1e4,
		f->duplicate_ppm / 1e4, f->reorder_ppm / 1e4, f->bytes_per_s ? rate : "");
}

const char *tf_step_text(const struct tf_step *s, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s", tf_fault_names[s->kind]);

	if (s->kind != TF_FAULT_NONE && n < size && s->precopy)
		n += (size_t)snprintf(buf + n, size - n, " at byte %llu of message %d, pre-copy",
			(unsigned long long)s->moment.bytes, (int)s->moment.message);
	else if (s->kind != TF_FAULT_NONE && n < size)
		n += (size_t)snprintf(buf + n, size - n, " at byte %llu of '%s'",
			(unsigned long long)s->moment.bytes, tf_message_names[s->moment.message]);
	if (n < size &&
		(s->kind == TF_FAULT_PARTITION || s->kind == TF_FAULT_LINK_DOWN ||
			s->kind == TF_FAULT_PAUSE_SENDER || s->kind == TF_FAULT_PAUSE_RECEIVER))
		n += (size_t)snprintf(buf + n, size - n, " for %d ms", s->hold_ms);
	if (n < size && (s->kind == TF_FAULT_CLOCK_SENDER || s->kind == TF_FAULT_CLOCK_RECEIVER))
		n += (size_t)snprintf(buf + n, size - n, " by %d s", s->jump_s);
	if (n < size)
		add_link(&s->link, buf + n, size - n);
	return buf;
}

bool tf_verdict_allowed(
	const struct tf_step *s, const struct tf_step_outcome *o, const char **ret_allowed)
{
	const char *allowed = "here, there, stopped: here, stopped: there";

	switch (s->kind) {
	case TF_FAULT_KILL_SENDER:
		allowed = tf_table_death(TF_PARTY_SENDER, o->phase[0], o->phase[1]);
		break;
	case TF_FAULT_KILL_SESSION:
		allowed = tf_table_death(TF_PARTY_SESSION, o->phase[0], o->phase[1]);
		break;
	case TF_FAULT_KILL_RECEIVER:
		allowed = tf_table_death(TF_PARTY_RECEIVER, o->phase[0], o->phase[1]);
		break;
	case TF_FAULT_CUT:
	case TF_FAULT_SILENT:
	case TF_FAULT_CUT_OFF:
	case TF_FAULT_SILENCE: /* there are as many messages as rounds want */
		if (!s->precopy)
			allowed = tf_table_break(o->message,
				s->kind == TF_FAULT_CUT_OFF || s->kind == TF_FAULT_SILENCE);
		break;
	case TF_FAULT_LOSE_SENDER:
		/* What had not been committed is lost with it. */
		allowed = !strcmp(o->phase[1], "running") || !strcmp(o->phase[1], "committed")
				  ? "there"
				  : "lost, there";
		break;
	case TF_FAULT_LOSE_RECEIVER:
		allowed = !strcmp(o->phase[0], "committing") ? "stopped: here" : "here";
		break;
	case TF_FAULT_NONE:
		allowed = "there";
		break;
	default:
		break;
	}
	if (o->message < 0) /* it did not come to that */
		allowed = "there";
	*ret_allowed = allowed ? allowed : "nothing: these phases are not in the table";
	return allowed && tf_table_has(allowed, o->verdict);
}
