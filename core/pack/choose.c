/* SPDX-License-Identifier: MIT */
/*
 * See choose.h. The line is slow when it has bytes of ours all the time and takes them slower than
 * we could make them; and we work on a block only while it has enough to do for so long, so that it
 * never waits for us: then nothing is lost, whatever comes of it.
 */
#include "core/pack/choose.h"

#define LOOK_NS     1000000u /* a shorter time says nothing of a line */
#define TRY_STEP    (UINT64_C(8) << 20)
#define TRY_STEPS   (UINT64_C(256) << 20) /* what brings nothing is tried ever less */
#define WORTH_RATIO 0.9
#define WORTH_SPEED 0.5 /* of what we make: the receiver has to undo it, and be no slower */
#define HASH_SPEED  1e9 /* about, until it is known */

/* About, until they are known; whoever is slower finds out by one block. */
static const double speeds[TF_CODECS] = {0, 600e6, 300e6};

void tf_choose_begin(struct tf_chooser *c, unsigned may)
{
	*c = (struct tf_chooser){.may = may};
	for (unsigned i = 0; i < TF_CODECS; i++)
		c->codec[i].step = TRY_STEP;
}

/* The middle of what was, and what is. */
static double drift(double was, double is)
{
	return was > 0 ? (was + is) / 2 : is;
}

void tf_choose_look(struct tf_chooser *c, uint64_t now_ns, uint64_t sent, uint32_t unsent)
{
	uint64_t left = sent - unsent;
	double rate;

	if (c->at_ns && now_ns - c->at_ns < LOOK_NS)
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

/* Bytes a second that get there by a codec that was measured. */
static double gets_there(const struct tf_chooser *c, enum tf_codec codec)
{
	const struct tf_measured *m = &c->codec[codec];
	double made = m->speed * WORTH_SPEED, taken = c->line / m->ratio;

	if (m->ratio > WORTH_RATIO)
		return 0;
	return made < taken ? made : taken;
}

enum tf_codec tf_choose_codec(struct tf_chooser *c, uint64_t sent, uint64_t n)
{
	enum tf_codec best = TF_CODEC_NONE;
	double rate = c->line;

	if (!c->line)
		return TF_CODEC_NONE;
	for (unsigned i = TF_CODEC_LZ4; i < TF_CODECS; i++) {
		const struct tf_measured *m = &c->codec[i];
		double speed = m->speed > 0 ? m->speed : speeds[i];

		if (!(c->may >> i & 1) || c->line > speed * WORTH_SPEED ||
			(double)c->unsent / c->line < (double)n / speed)
			continue;
		if (sent >= m->next)
			return (enum tf_codec)i;
		if (gets_there(c, (enum tf_codec)i) > rate) {
			best = (enum tf_codec)i;
			rate = gets_there(c, best);
		}
	}
	return best;
}

void tf_choose_learn(struct tf_chooser *c, enum tf_codec codec, uint64_t sent, uint64_t n,
	uint64_t packed, uint64_t ns)
{
	struct tf_measured *m = &c->codec[codec];

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
