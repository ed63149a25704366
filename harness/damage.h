/* SPDX-License-Identifier: MIT */
/*
 * Deliberate faults in transit. Which there are follows from tables of the code: every field of
 * every kind of state (core/image/notes.h), every register of the architecture (arch/regs.h), and
 * for memory every mapping that stands for its sort. A fault is
 *
 *   drop    zero, nothing, a flag that is not set, a record or a page that is missing
 *   flip    one bit, or one character, or a flag, is another
 *   off     one more, or one less; the next one of an enumeration; moved by a page or a byte
 *   stale   as it was before: in an image of before the change
 *   swap    exchanged with its neighbour
 *   upper   of a wide register: the half above is lost
 *
 * and only if it makes a difference to the image.
 */
#ifndef TF_HARNESS_DAMAGE_H
#define TF_HARNESS_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/image/notes.h"
#include "harness/specimen.h"

struct tf_damage {
	char state[64]; /* which kind of state: "thread.sigmask", "register.vector", "memory.first"
			 */
	char item[48];  /* of which record, register or mapping: "1", "ymm3" */
	char how[16];
};

/* True: this one is to be made. */
typedef bool tf_damage_fn(void *ctx, const struct tf_damage *f);

/* Offers every fault that s can have to fn, until one is to be made, and makes it: true. older may
 * be NULL: an image of before, for what is stale. seed: which bit is flipped. least: bytes that a
 * mapping without a file has to have in it to be damaged. */
bool tf_damage_each(struct tf_specimen *s, const struct tf_specimen *older, uint64_t seed,
	uint64_t least, tf_damage_fn *fn, void *ctx);

/* Calls fn for every state that any image can have a fault in. */
void tf_damage_states(void (*fn)(void *ctx, const char *state), void *ctx);

/* A number that belongs to a seed and a text. */
uint64_t tf_damage_hash(uint64_t seed, const char *text);

/* --- for the parts: damage.c, damage_registers.c, damage_memory.c --- */

struct tf_damage_walk {
	struct tf_specimen *s;
	const struct tf_specimen *older;
	uint64_t seed, least;
	tf_damage_fn *fn;
	void *ctx;
	struct tf_damage now; /* state and item of what is being damaged */
	bool made;
};

/* Offers walk->now by that name of a fault; true when it is to be made, now. */
bool tf_damage_offer(struct tf_damage_walk *w, const char *how);

/* Sets state and item of what follows. */
void tf_damage_at(struct tf_damage_walk *w, const char *item, const char *state, ...)
	__attribute__((format(printf, 3, 4)));

/* damage_meaning.c: whether a record, one of its fields, or a flag of such a field is read by
 * anybody; which bits of a field. */
bool tf_damage_record_means(const struct tf_image *img, const struct tf_kind *k, uint32_t i);
bool tf_damage_means(const struct tf_image *img, const struct tf_kind *k, uint32_t i,
	const struct tf_field *f, unsigned element);
bool tf_damage_flag_means(const struct tf_image *img, const struct tf_kind *k, uint32_t i,
	const struct tf_field *f, uint32_t flag);
uint64_t tf_damage_bits(const struct tf_kind *k, const struct tf_field *f);

/* Offers each fault of the number of 4 bytes at at; next: its neighbour or NULL. */
void tf_damage_word(struct tf_damage_walk *w, uint32_t *at, uint32_t *next);

/* One record of a kind of state: each of its fields, and the whole. */
void tf_damage_record(struct tf_damage_walk *w, const struct tf_kind *k, uint32_t i);

void tf_damage_registers(struct tf_damage_walk *w);
void tf_damage_memory(struct tf_damage_walk *w);

#endif
