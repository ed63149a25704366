/* SPDX-License-Identifier: MIT */
/*
 * See choose.h. The line is slow when it has bytes of ours all the time and takes them slower than
 * we could make them. Then a block goes in the way that it has left in the least time: what the
 * line waits for us, which it need not while it has others to send, and what it needs for the
 * block.
 */
#include "core/pack/choose.h"

#define LOOK_NS     1000000u /* a shorter time says nothing of a line */
#define TRY_STEP    (UINT64_C(8) << 20)
#define TRY_STEPS   (UINT64_C(256) << 20) /* what brings nothing is tried ever less */
#define TRY_LOSS    0.1                   /* of the time that a block takes, for a try */
#define WORTH_RATIO 0.9
#define WORTH_SPEED 0.5 /* of what we make: the receiver has to undo it, and be no slower */
#define HASH_SPEED  1e9 /* about, until it is known */

/* About, until they are known; whoever is slower finds out by one block. */
static const double speeds[2][TF_CODECS] = {{0, 300e6, 100e6}, {0, 600e6, 300e6}};

void tf_choose_begin(struct tf_chooser *c, unsigned may)
{
	*c = (struct tf_chooser){.may = may};
	for (unsigned i = 0; i < TF_CODECS; i++)
		c->codec[0][i].step = c->codec[1][i].step = TRY_STEP;
}

/* The middle of what was, and what is. */
static double drift(double was, double is)
{
	return was > 0 ? (was + is) / 2 : is;
}

void tf_choose_anew(struct tf_chooser *c)
{
	c->at_ns = 0;
}

bool tf_choose_looks(const struct tf_chooser *c, uint64_t now_ns)
{
	return !c->at_ns || now_ns - c->at_ns >= LOOK_NS;
}

void tf_choose_look(struct tf_chooser *c, uint64_t now_ns, uint64_t sent, uint32_t unsent)
{
	uint64_t left = sent - unsent;
	double rate;

	if (!tf_choose_looks(c, now_ns))
		return;
	if (c->at_ns) {
		rate = (double)(left - c->left) * 1e9 / (double)(now_ns - c->at_ns);
		if (unsent && c->unsent)
			c->line = drift(c->line, rate);
		else if (c->line > 0 && rate > c->line) /* it can do that, and perhaps more */
			c->line = rate;
	}
	c->at_ns = now_ns;
	c->left = left;
	c->unsent = unsent;
}

/* Seconds that the line has nothing to do meanwhile. */
static double idle(const struct tf_chooser *c, double n, double speed)
{
	double time = n / speed - (double)c->unsent / c->line;

	return time > 0 ? time : 0;
}

static bool is_small(uint64_t n)
{
	return n < TF_CHOOSE_SMALL;
}

enum tf_codec tf_choose_codec(struct tf_chooser *c, uint64_t sent, uint64_t n)
{
	enum tf_codec best = TF_CODEC_NONE;
	double raw = (double)n / c->line, least = WORTH_RATIO * raw;

	if (!(c->line > 0))
		return TF_CODEC_NONE;
	for (unsigned i = TF_CODEC_LZ4; i < TF_CODECS; i++) {
		const struct tf_measured *m = &c->codec[!is_small(n)][i];
		double speed = m->speed > 0 ? m->speed : speeds[!is_small(n)][i];
		double lost = idle(c, (double)n, speed), time = lost + m->ratio * raw;

		if (!(c->may >> i & 1) || c->line > speed * WORTH_SPEED)
			continue;
		if (sent >= m->next && lost < TRY_LOSS * raw)
			return (enum tf_codec)i;
		if (m->speed > 0 && time < least) {
			best = (enum tf_codec)i;
			least = time;
		}
	}
	return best;
}

void tf_choose_learn(struct tf_chooser *c, enum tf_codec codec, uint64_t sent, uint64_t n,
	uint64_t packed, uint64_t ns)
{
	struct tf_measured *m = &c->codec[!is_small(n)][codec];

	m->speed = drift(m->speed, (double)n * 1e9 / (double)(ns + 1));
	m->ratio = drift(m->ratio, (double)packed / (double)n);
	if (sent < m->next)
		return;
	m->next = sent + m->step;
	if (m->step < TRY_STEPS)
		m->step *= 2;
}

bool tf_choose_list(const struct tf_chooser *c)
{
	return c->line > 0 && c->line < WORTH_SPEED * (c->hash > 0 ? c->hash : HASH_SPEED);
}

void tf_choose_hashed(struct tf_chooser *c, uint64_t n, uint64_t ns)
{
	c->hash = drift(c->hash, (double)n * 1e9 / (double)(ns + 1));
}
