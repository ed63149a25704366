/* SPDX-License-Identifier: MIT */
/*
 * Locks that know by its thread id who holds them, in a process whose threads have other ids now.
 * Without a change their holder could not unlock them, would wait for himself, or the kernel would
 * look for an owner that is not there. They are found
 *   - where a thread is about to wait for one, in a call that names it (FUTEX_LOCK_PI ...);
 *   - on the threads' robust lists, which are the kernel's business and look alike everywhere;
 *   - by what they look like: glibc's mutexes and read-write locks.
 * New ids may be others' old ones, so each place is changed by one of the three only. Who is about
 * to take a lock or to give it back, or waits for one, has his own id at hand already, in registers
 * or on the stack, to write it into the lock that he gets or to compare it with the one that is
 * there.
 *
 * Part of the restorer, see restorer.c: no libc, no data. What is read here came with the image:
 * any value may stand there, and addresses are used only inside `ranges`.
 */
#ifndef TF_RESTORE_OWNERS_H
#define TF_RESTORE_OWNERS_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/restorer.h"
#include "core/base/crc32c.h"
#include "core/restore/plan.h"

#define TF_OWNER_TID    0x3fffffffu /* FUTEX_TID_MASK */
#define TF_OWNER_ROBUST 2048        /* ROBUST_LIST_LIMIT */
#define TF_OWNER_PAGES  65536       /* asked for at a time */
#define TF_OWNER_STACK  256         /* bytes that the C library has there while it waits */
#define TF_OWNER_USERS  65536u      /* of a mutex: its holder, and who waits for a condition */

#ifndef TF_OWNERS_FN
#define TF_OWNERS_FN static __attribute__((unused))
#endif

typedef uint32_t __attribute__((may_alias)) tf_owner_u32;
typedef uint64_t __attribute__((may_alias)) tf_owner_u64;

TF_OWNERS_FN const struct tf_owner *tf_owner_find(const struct tf_owners *o, uint32_t tid)
{
	uint64_t low = 0, high = o->n_owners;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (o->owner[middle].old == tid)
			return &o->owner[middle];
		if (o->owner[middle].old < tid)
			low = middle + 1;
		else
			high = middle;
	}
	return 0;
}

TF_OWNERS_FN const struct tf_owner_range *tf_owner_range_at(const struct tf_owners *o, uint64_t at)
{
	uint64_t low = 0, high = o->n_ranges;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		const struct tf_owner_range *r = &o->range[middle];

		if (at < r->start)
			high = middle;
		else if (at >= r->end)
			low = middle + 1;
		else
			return r;
	}
	return 0;
}

TF_OWNERS_FN bool tf_owner_inside(const struct tf_owners *o, uint64_t at, uint64_t n)
{
	const struct tf_owner_range *r = tf_owner_range_at(o, at);

	return r && n <= r->end - at;
}

TF_OWNERS_FN bool tf_owner_is_named(const struct tf_owners *o, uint64_t at)
{
	uint64_t low = 0, high = o->n_words;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (o->word[middle] == at)
			return true;
		if (o->word[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* A word with the old id, below flags, gets the new one; or that is noted. */
TF_OWNERS_FN void tf_owner_set(const struct tf_owners *o, uint64_t at, const struct tf_owner *t)
{
	volatile tf_owner_u32 *word = (volatile tf_owner_u32 *)at;

	if (!o->notes) {
		*word = (*word & ~TF_OWNER_TID) | t->now;
		return;
	}
	if (o->notes->n < o->notes->max) {
		o->notes->note[o->notes->n].at = at;
		o->notes->note[o->notes->n].owner = (uint64_t)(t - o->owner);
	}
	o->notes->n++;
}

/* A futex word that its owner's id stands in; glibc has it a second time, 8 bytes behind. */
TF_OWNERS_FN void tf_owner_change(const struct tf_owners *o, uint64_t at, const struct tf_owner *t)
{
	tf_owner_set(o, at, t);
	if (tf_owner_inside(o, at + 8, 4) && ((volatile tf_owner_u32 *)at)[2] == t->old)
		tf_owner_set(o, at + 8, t);
}

TF_OWNERS_FN void tf_owner_named(const struct tf_owners *o, uint64_t at)
{
	const struct tf_owner *t;

	if (at & 3 || !tf_owner_inside(o, at, 4))
		return;
	t = tf_owner_find(o, *(volatile tf_owner_u32 *)at & TF_OWNER_TID);
	if (t)
		tf_owner_change(o, at, t);
}

TF_OWNERS_FN void tf_owner_listed(const struct tf_owners *o, uint64_t at, const struct tf_owner *t)
{
	if (at & 3 || !tf_owner_inside(o, at, 4) || tf_owner_is_named(o, at))
		return;
	if ((*(volatile tf_owner_u32 *)at & TF_OWNER_TID) == t->old)
		tf_owner_change(o, at, t);
}

/* struct robust_list_head: the first entry, a lock's offset from its entry, and the entry of a lock
 * that is being taken or given back. The lowest bit of an entry's address says what kind it is. */
TF_OWNERS_FN void tf_owner_list(const struct tf_owners *o, const struct tf_owner *t)
{
	volatile tf_owner_u64 *head = (volatile tf_owner_u64 *)t->robust;
	uint64_t entry, offset;

	if (t->robust & 7 || !tf_owner_inside(o, t->robust, 24))
		return;
	entry = head[0] & ~UINT64_C(1);
	offset = head[1];
	for (unsigned n = 0; n < TF_OWNER_ROBUST && entry != t->robust; n++) {
		if (entry & 7 || !tf_owner_inside(o, entry, 8))
			break;
		tf_owner_listed(o, entry + offset, t);
		entry = *(volatile tf_owner_u64 *)entry & ~UINT64_C(1);
	}
	entry = head[2] & ~UINT64_C(1);
	if (entry)
		tf_owner_listed(o, entry + offset, t);
}

TF_OWNERS_FN bool tf_owner_waits(const struct tf_owners *o, const struct tf_owner *t)
{
	if (t->waits)
		return true;
	return !(t->robust & 7) && tf_owner_inside(o, t->robust, 24) &&
	       ((volatile tf_owner_u64 *)t->robust)[2];
}

/* glibc's pthread_mutex_t: lock, count, owner, users, kind, and what is zero but in robust ones.
 * lock is 1 or 2, maybe with a ceiling above, or (robust, priority inheritance) the owner's id with
 * flags. Those that do not ask who unlocks them are left alone. */
TF_OWNERS_FN bool tf_owner_is_mutex(
	const struct tf_owners *o, const volatile tf_owner_u32 *m, const struct tf_owner *t)
{
	uint32_t kind = m[4], type = kind & 3, lock = m[0];

	if (kind & ~UINT32_C(1023) || !m[3] || m[3] > TF_OWNER_USERS ||
		(type == 1 ? !m[1] : m[1] > 1))
		return false;
	if (kind & 16 /* robust */) {
		/* The C library empties the list of a fork, which the image of a telefork() is. */
		if (t->robust && o->n_owners > 1)
			return false;
	} else if (m[5] | m[6] | m[7] | m[8] | m[9]) {
		return false;
	}
	if (kind & 48 /* or priority inheritance */)
		return (lock & TF_OWNER_TID) == t->old && !tf_owner_is_named(o, (uint64_t)m);
	if (kind & 64 /* a ceiling */)
		lock &= 0x7ffff;
	return (type == 1 || type == 2) && (lock == 1 || lock == 2);
}

/* glibc's pthread_rwlock_t, held for writing: readers, writers, two futexes (and whether somebody
 * waits), two that are zero, the writer, whether it is shared, zeros, flags. */
TF_OWNERS_FN bool tf_owner_is_rwlock(const volatile tf_owner_u32 *m)
{
	return (m[0] & 3) == 3 && !(m[2] & ~3u) && !(m[3] & ~3u) && !m[4] && !m[5] && m[7] < 2 &&
	       !(m[8] | m[9] | m[10] | m[11]) && m[12] < 4;
}

/* Of these two one that asks for ids, in whatever state that is not held for reading. */
TF_OWNERS_FN bool tf_owner_is_changing(
	const struct tf_owners *o, const volatile tf_owner_u32 *m, const struct tf_owner *t)
{
	uint32_t kind = m[4], type = kind & 3, lock = m[0];

	if (!kind)
		return tf_owner_is_rwlock(m) && (!m[6] || m[6] == t->old);
	if (kind & ~UINT32_C(1023) || (m[2] && !tf_owner_find(o, m[2])) || m[3] > TF_OWNER_USERS)
		return false;
	if (kind & 48 /* robust, or priority inheritance */)
		return !(lock & TF_OWNER_TID) || tf_owner_find(o, lock & TF_OWNER_TID);
	if (kind & 64 /* a ceiling */)
		lock &= 0x7ffff;
	return (type == 1 || type == 2) && lock < 3 && !(m[5] | m[6] | m[7] | m[8] | m[9]);
}

/* The thread waits, or may be inside the C library between two instructions: code that asks who it
 * is, its id in a register and the lock's address in another. Keeps the lock that it is in and that
 * has not counted it yet. */
TF_OWNERS_FN bool tf_owner_takes(const struct tf_owners *o, struct tf_owner *t)
{
	volatile tf_owner_u64 *reg = (volatile tf_owner_u64 *)t->regs;
	bool takes = false;

	t->uncounted = 0;
	if (!t->call && !tf_r_asks_thread((const uint8_t *)t->code, t->n_code))
		return false;
	for (uint64_t i = 0; i < t->n_regs; i++) {
		const volatile tf_owner_u32 *m = (const volatile tf_owner_u32 *)reg[i];

		if (reg[i] & 3 || !tf_owner_inside(o, reg[i], 56) || !tf_owner_is_changing(o, m, t))
			continue;
		takes = true;
		if (m[4] && !(m[4] & 16) && m[2] == t->old && !m[3])
			t->uncounted = reg[i];
	}
	return takes;
}

TF_OWNERS_FN void tf_owner_count(const struct tf_owners *o, const struct tf_owner *t)
{
	if (((const volatile tf_owner_u32 *)t->uncounted)[4] & 48)
		tf_owner_set(o, t->uncounted, t);
	tf_owner_set(o, t->uncounted + 8, t);
}

TF_OWNERS_FN bool tf_owner_in_registers(const struct tf_owners *o, const struct tf_owner *t)
{
	volatile tf_owner_u64 *reg = (volatile tf_owner_u64 *)t->regs;
	bool found = false;

	for (uint64_t i = 0; i < t->n_regs; i++)
		if (!(t->call >> i & 1) && (reg[i] & ~UINT64_C(0xc0000000)) == t->old) {
			tf_owner_set(o, t->regs + 8 * i, t);
			found = true;
		}
	return found;
}

TF_OWNERS_FN void tf_owner_on_stack(const struct tf_owners *o, const struct tf_owner *t)
{
	if (t->sp & 7)
		return;
	for (uint64_t at = t->sp; at < t->sp + TF_OWNER_STACK; at += 4) {
		volatile tf_owner_u32 *word = (volatile tf_owner_u32 *)at;

		if (!tf_owner_inside(o, at, 4))
			return;
		if ((*word & TF_OWNER_TID) == t->old)
			tf_owner_set(o, at, t);
	}
}

/* Only what waits in the kernel may have put its id away. */
TF_OWNERS_FN void tf_owner_at_hand(const struct tf_owners *o, struct tf_owner *t)
{
	bool takes = tf_owner_takes(o, t), waits = tf_owner_waits(o, t);

	if (!takes && !waits)
		return;
	if ((!tf_owner_in_registers(o, t) && t->call) || waits)
		tf_owner_on_stack(o, t);
}

/* The part begins at from: what lies before is for others to change. */
TF_OWNERS_FN void tf_owner_try(const struct tf_owners *o, const struct tf_owner_range *r,
	uint64_t from, uint64_t at, uint32_t tid)
{
	const struct tf_owner *t = tf_owner_find(o, tid);
	volatile tf_owner_u32 *m = (volatile tf_owner_u32 *)(at - 8);

	if (!t || r->end - at < 32)
		return;
	if (at - r->start >= 8 && tf_owner_is_mutex(o, m, t)) {
		if (m[4] & 48 && at - from >= 8)
			tf_owner_set(o, at - 8, t);
		tf_owner_set(o, at, t);
	} else if (at - r->start >= 24 && tf_owner_is_rwlock((volatile tf_owner_u32 *)(at - 24))) {
		tf_owner_set(o, at, t);
	}
}

/* Whether a word may hold an owner: both have one as the lower half of an aligned word of 8 bytes
 * with a small upper half. */
static inline __attribute__((always_inline)) bool tf_owner_may_be(
	uint64_t word, uint32_t low, uint32_t span)
{
	return (uint32_t)word - low <= span && word >> 32 <= TF_OWNER_USERS;
}

/* While memory comes it is in the cache: notes what is to be looked at once the new ids are known.
 * n bytes that stand, or will stand, at this address. */
TF_OWNERS_FN void tf_owner_note(struct tf_owners *o, uint64_t at, uint64_t bytes, uint64_t n)
{
	uint32_t low = o->owner[0].old, span = o->owner[o->n_owners - 1].old - low;

	if ((at | n) & 7)
		o->n_found = TF_OWNER_FOUND + 1; /* of words in halves nothing is known */
	for (uint64_t i = 0; i < n; i += 8) {
		uint64_t word = *(const tf_owner_u64 *)(bytes + i);

		if (!tf_owner_may_be(word, low, span) || !tf_owner_find(o, (uint32_t)word))
			continue;
		if (o->n_found < TF_OWNER_FOUND)
			o->found[o->n_found++] = at + i;
		else
			o->n_found = TF_OWNER_FOUND + 1;
	}
}

/* The same, and the bytes' CRC32C from raw state, by the processor's instruction: one look at each
 * word, and a second one at the blocks in which something was found. */
TF_OWNERS_FN uint32_t tf_owner_note_checked(
	struct tf_owners *o, uint32_t crc, uint64_t at, uint64_t bytes, uint64_t n)
{
	const uint64_t step = UINT64_C(3) * TF_CRC32C_BLOCK;
	struct tf_crc32c_look look = {.low = o->owner[0].old};

	look.span = o->owner[o->n_owners - 1].old - look.low;
	for (; n >= step; n -= step, bytes += step, at += step) {
		crc = tf_crc32c_three_blocks(crc, (const uint8_t *)bytes, &look);
		if (look.found || at & 7)
			tf_owner_note(o, at, bytes, step);
	}
	tf_owner_note(o, at, bytes, n);
	return tf_r_crc32c(crc, (const uint8_t *)bytes, n);
}

/* [at, to) of a part of the range that begins at from. */
TF_OWNERS_FN void tf_owner_search(const struct tf_owners *o, const struct tf_owner_range *r,
	uint64_t from, uint64_t at, uint64_t to)
{
	uint32_t low = o->owner[0].old, span = o->owner[o->n_owners - 1].old - low;

	for (; at < to; at += 8) {
		uint64_t word = *(const tf_owner_u64 *)at;

		if (tf_owner_may_be(word, low, span))
			tf_owner_try(o, r, from, at, (uint32_t)word);
	}
}

/* Only pages that are there: ranges may have huge holes. One that was swapped out since it arrived
 * is not there. */
TF_OWNERS_FN void tf_owner_search_pages(
	const struct tf_owners *o, const struct tf_owner_range *part, uint8_t there[TF_OWNER_PAGES])
{
	const struct tf_owner_range *r = tf_owner_range_at(o, part->start);
	uint64_t step = TF_OWNER_PAGES * o->page;

	for (uint64_t at = part->start; r && at < part->end; at += step) {
		uint64_t n = part->end - at < step ? part->end - at : step;
		bool all = tf_r_syscall(
			TF_R_NR_mincore, (long)at, (long)n, (long)there, 0, 0, 0); /* an error */

		for (uint64_t i = 0; i < n / o->page; i++)
			if (all || there[i] & 1)
				tf_owner_search(o, r, part->start, at + i * o->page,
					at + (i + 1) * o->page);
	}
}

/* Where the part begins that it lies in. */
TF_OWNERS_FN uint64_t tf_owner_part_at(const struct tf_owners *o, uint64_t at)
{
	uint64_t low = 0, high = o->n_parts;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (o->part[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low < o->n_parts && o->part[low].start <= at ? o->part[low].start : at;
}

TF_OWNERS_FN void tf_owner_try_noted(const struct tf_owners *o, uint64_t at)
{
	const struct tf_owner_range *r = tf_owner_range_at(o, at);

	if (r && r->end - at >= 8)
		tf_owner_try(
			o, r, tf_owner_part_at(o, at), at, (uint32_t) * (const tf_owner_u64 *)at);
}

/* A word that somebody has found to hold an id, and that is changed nowhere else. */
TF_OWNERS_FN void tf_owner_held(const struct tf_owners *o, uint64_t at)
{
	const struct tf_owner *t;

	if (at & 3 || !tf_owner_inside(o, at, 4) || tf_owner_is_named(o, at) ||
		tf_owner_is_named(o, at - 8))
		return;
	t = tf_owner_find(o, *(volatile tf_owner_u32 *)at & TF_OWNER_TID);
	if (t)
		tf_owner_set(o, at, t);
}

/* All of it; now of each owner is set. there: TF_OWNER_PAGES bytes of scratch. */
TF_OWNERS_FN void tf_owners_change(const struct tf_owners *o, uint8_t *there)
{
	for (uint64_t i = 0; i < o->n_words; i++)
		tf_owner_named(o, o->word[i]);
	for (uint64_t i = 0; i < o->n_owners; i++) {
		tf_owner_list(o, &o->owner[i]);
		tf_owner_at_hand(o, &o->owner[i]);
	}
	for (uint64_t i = 0; i < o->n_owners; i++)
		if (o->owner[i].uncounted)
			tf_owner_count(o, &o->owner[i]);
	if (o->found && o->n_found <= TF_OWNER_FOUND) {
		for (uint64_t i = 0; i < o->n_found; i++)
			tf_owner_try_noted(o, o->found[i]);
	} else {
		for (uint64_t i = 0; i < o->n_parts; i++)
			tf_owner_search_pages(o, &o->part[i], there);
	}
	for (uint64_t i = 0; i < o->n_held; i++)
		tf_owner_held(o, o->held[i]);
}

/* What was noted; now of each owner is set. */
TF_OWNERS_FN void tf_owners_change_noted(const struct tf_owners *o)
{
	for (uint64_t i = 0; i < o->notes->n; i++) {
		const struct tf_owner_note *n = &o->notes->note[i];
		volatile tf_owner_u32 *word = (volatile tf_owner_u32 *)n->at;

		*word = (*word & ~TF_OWNER_TID) | o->owner[n->owner].now;
	}
}

#endif
