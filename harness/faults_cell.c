/* SPDX-License-Identifier: MIT */
/* See faults_cell.h. */
#include "harness/faults_cell.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run.h"
#include "qemu/io.h"

#define IDLE_S  5
#define NO_SEED UINT_MAX

/* --- the schema --- */

struct group {
	unsigned loss, duplicate, reorder, delay, jitter, rate, hold, byte, seed;
	struct tf_words strike, message;
};

#define NUMBER(field, max) TF_KEY_NUMBER, offsetof(struct group, field), 0, 0, 0, 0, max, 0
#define WORDS(field)       TF_KEY_WORDS, offsetof(struct group, field), 0
#define SOME_MS            (IDLE_S * 1500)

const struct tf_key tf_faults_keys[] = {
	{"loss", NUMBER(loss, 1000),
		"of 1000 frames, that are lost; of a stream: that are 200 ms late, with all behind",
		"0"},
	{"duplicate", NUMBER(duplicate, 1000), "of 1000 frames, that come twice; not of streams",
		"0"},
	{"reorder", NUMBER(reorder, 1000), "of 1000 frames, that come later; not of streams", "0"},
	{"delay", NUMBER(delay, 10000), "milliseconds, for everything", "0"},
	{"jitter", NUMBER(jitter, 10000), "milliseconds, up to so many more, by chance", "0"},
	{"rate", NUMBER(rate, 1000000), "KB/s of each sender", "no limit"},
	{"seed", NUMBER(seed, INT_MAX), "what chance does follows from it",
		"the run's and the cell's"},
	{"strike", WORDS(strike), tf_fault_names, TF_FAULT_KINDS, 1, 0, 0,
		"what happens in a move, each in one of its own", "nothing"},
	{"message", WORDS(message), tf_message_names, TF_FAULT_MESSAGES, 1, 0, 0,
		"in which messages of the move", "all"},
	{"byte", NUMBER(byte, 100000000), "of the message, at which it happens", "0"},
	{"while", NUMBER(hold, 600000), "milliseconds that last what lasts a while",
		"7500, longer than both sides wait"},
};

const size_t tf_n_faults_keys = sizeof(tf_faults_keys) / sizeof(tf_faults_keys[0]);

/* Which of a table's words are in a list; returns how many. */
static unsigned choose(const struct tf_words *w, const char *const table[], unsigned n, bool ret[])
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		ret[i] = !w->n;
		for (unsigned k = 0; k < w->n; k++)
			ret[i] |= !strcmp(table[i], w->v[k]);
		count += ret[i];
	}
	return count;
}

int tf_faults_read(const struct tf_conf *r, const config_setting_t *s, struct tf_cell_faults *ret)
{
	struct group g = {.hold = SOME_MS, .seed = NO_SEED};
	int rc;

	if (!config_setting_is_group(s))
		return tf_conf_wrong(r, s, "faults: expected a group: { loss = 15; }");
	rc = tf_conf_read(r, s, "faults", tf_faults_keys, tf_n_faults_keys, &g);
	if (rc < 0)
		return rc;
	*ret = (struct tf_cell_faults){
		.given = true,
		.seeded = g.seed != NO_SEED,
		.hold_ms = (int)g.hold,
		.byte = g.byte,
		.link = {.seed = g.seed,
			.loss_ppm = g.loss * 1000,
			.duplicate_ppm = g.duplicate * 1000,
			.reorder_ppm = g.reorder * 1000,
			.delay_us = g.delay * 1000,
			.jitter_us = g.jitter * 1000,
			.bytes_per_s = g.rate * UINT64_C(1000)},
	};
	choose(&g.message, tf_message_names, TF_FAULT_MESSAGES, ret->message);
	if (g.strike.n)
		ret->n_strikes = choose(&g.strike, tf_fault_names, TF_FAULT_KINDS, ret->strike);
	return 0;
}

/* --- a link that is bad for everybody --- */

static struct tf_link_faults link_of(const struct tf_journey *j)
{
	struct tf_link_faults f = j->cell->faults.link;

	if (!j->cell->faults.seeded)
		f.seed = j->seed;
	return f;
}

int tf_faults_begin(struct tf_journey *j, struct tf_vm_error *err)
{
	struct tf_link_faults f = link_of(j);

	if (!j->cell->faults.given || !j->site->link)
		return 0;
	return tf_link_set_faults(j->site->link, &f, err);
}

void tf_faults_end(struct tf_journey *j)
{
	struct tf_link_faults none = {0};
	struct tf_vm_error ignored;

	if (j->cell->faults.given && j->site->link)
		tf_link_set_faults(j->site->link, &none, &ignored);
	for (unsigned i = 0; i < TF_CELL_ROUTE; i++)
		tf_link_free(j->relays[i]);
}

int tf_faults_relay(
	struct tf_journey *j, unsigned place, char *address, size_t size, struct tf_vm_error *err)
{
	const struct tf_remote *m = j->machines[j->cell->route[place]];
	const char *port = strrchr(address, ':');
	struct tf_link_faults f = link_of(j);
	int rc;

	if (!j->cell->faults.given || m->spec.tier == TF_TIER_SYSTEM ||
		j->cell->transport != TF_TRANSPORT_TCP)
		return 0;
	rc = tf_link_start_stream((unsigned)atoi(port + 1), &j->relays[place], err);
	if (rc == 0)
		rc = tf_link_set_faults(j->relays[place], &f, err);
	if (rc == 0)
		snprintf(address, size, "tcp://127.0.0.1:%u", tf_link_port(j->relays[place]));
	return rc;
}

/* --- a campaign --- */

static int strike(struct tf_journey *j, struct tf_campaign *c, const struct tf_step *s,
	struct tf_vm_error *err)
{
	struct tf_step_outcome o;
	char text[512];
	int rc = tf_campaign_step(c, s, &o, err);

	if (rc == 0)
		tf_journey_failed(j, "%s: %s", tf_step_text(s, text, sizeof(text)), err->text);
	if (rc == 1 && tf_vm_now_ms() > j->deadline_ms)
		return tf_journey_failed(j, "%s: it takes longer than the scenario's limit",
			tf_step_text(s, text, sizeof(text)));
	return rc;
}

static int strike_all(struct tf_journey *j, struct tf_campaign *c, struct tf_vm_error *err)
{
	const struct tf_cell_faults *f = &j->cell->faults;
	struct tf_step s = {.link = link_of(j), .hold_ms = f->hold_ms, .jump_s = 3600};
	int rc = 1;

	for (unsigned kind = 0; kind < TF_FAULT_KINDS && rc == 1; kind++) {
		s.kind = (enum tf_fault)kind;
		if (!f->strike[kind] || !tf_fault_possible(s.kind, c->tier))
			continue;
		for (int m = 0; m < TF_FAULT_MESSAGES && rc == 1; m++) {
			s.moment = (struct tf_link_moment){.message = m, .bytes = f->byte};
			if (f->message[m])
				rc = strike(j, c, &s, err);
			if (s.kind == TF_FAULT_NONE)
				break; /* there is no moment */
		}
	}
	return rc;
}

int tf_faults_go(struct tf_journey *j, struct tf_vm_error *err)
{
	struct tf_campaign c;
	int rc = tf_campaign_begin(
		&c, j->site, j->machines, j->cell->n_machines, j->folder, IDLE_S, err);

	if (rc == 0)
		rc = strike_all(j, &c, err);
	if (rc >= 0)
		j->outcome->said = tf_vm_format("%llu moves of %llu went there, %llu were settled; "
						"doubled %llu, unaccounted %llu",
			(unsigned long long)c.moves, (unsigned long long)c.steps,
			(unsigned long long)c.settled, (unsigned long long)c.doubled,
			(unsigned long long)c.unaccounted);
	tf_campaign_end(&c);
	return rc < 0 ? rc : 0;
}
