/* SPDX-License-Identifier: MIT */
/*
 * Held locks under new thread ids (core/restore/owners.h), on pages of this process: what glibc's
 * look like in memory and what only nearly does, futex words that calls name, and robust lists,
 * with those that a hostile image may bring: they lead nowhere, round, or out of memory.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/restore/owners.h"
#include "tests/unit/suite.h"

#define PAGES 5

/* The ids overlap: 101 becomes 102, which was somebody else. */
static struct tf_owner owner[] = {{.old = 101, .now = 102}, {.old = 102, .now = 103},
	{.old = 4000000, .now = 101, .robust = 0}};
static uint64_t words[2];
static struct tf_owner_range range[2];
static struct tf_owners owners;
static uint8_t there[TF_OWNER_PAGES], *memory;
static uint64_t found[TF_OWNER_FOUND];
static bool noted; /* while it came */
static size_t page;

static void set_up(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	memory = mmap(
		NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(memory != MAP_FAILED);
	/* A hole between the ranges that must not be touched, and one at each end. */
	ck_assert_int_eq(mprotect(memory, page, PROT_NONE), 0);
	ck_assert_int_eq(mprotect(memory + 2 * page, page, PROT_NONE), 0);
	ck_assert_int_eq(mprotect(memory + 4 * page, page, PROT_NONE), 0);
	range[0] = (struct tf_owner_range){(uint64_t)memory + page, (uint64_t)memory + 2 * page};
	range[1] =
		(struct tf_owner_range){(uint64_t)memory + 3 * page, (uint64_t)memory + 4 * page};
	owners = (struct tf_owners){.owner = owner,
		.range = range,
		.part = range,
		.word = words,
		.n_owners = 3,
		.n_ranges = 2,
		.n_parts = 2,
		.page = page,
		.found = noted ? found : NULL};
}

static void set_up_noted(void)
{
	noted = true;
	set_up();
}

static void tear_down(void)
{
	munmap(memory, PAGES * page);
}

static uint32_t *at(unsigned number, size_t offset)
{
	return (uint32_t *)(range[number].start + offset);
}

static uint64_t address(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static void note(void)
{
	owners.n_found = 0;
	for (unsigned i = 0; i < 2; i++)
		tf_owner_note(&owners, range[i].start, range[i].start, page);
}

static void change(void)
{
	if (noted)
		note();
	tf_owners_change(&owners, there);
}

static void put(uint32_t *to, const uint32_t *from, size_t n)
{
	memcpy(to, from, n * sizeof(*from));
}

/* --- by their looks --- */

#define WAITERS 0x80000000u

/* lock, count, owner, users, kind; what becomes of lock and owner. */
static const struct looks {
	uint32_t m[10], lock, owner;
} looks[] = {
	{{1, 1, 101, 1, 1}, 1, 102},                          /* recursive */
	{{2, 7, 102, 3, 129}, 2, 103},                        /* a condition's, and shared */
	{{2, 0, 4000000, 1, 2}, 2, 101},                      /* checking */
	{{101, 1, 101, 1, 32}, 102, 102},                     /* inheriting */
	{{102 | WAITERS, 2, 102, 1, 33}, 103 | WAITERS, 103}, /* recursive as well */
	{{101, 1, 101, 1, 34}, 102, 102},                     /* checking as well */
	{{102 | WAITERS, 1, 102, 1, 16, 0, 9, 9, 9}, 103 | WAITERS, 103}, /* robust, in no list */
	{{(5 << 19) | 1, 1, 101, 1, 65}, (5 << 19) | 1, 102}, /* recursive, with a ceiling */
	/* No lock that knows its holder. */
	{{1, 0, 101, 1, 0}, 1, 101},     /* normal */
	{{1, 0, 101, 1, 3}, 1, 101},     /* adaptive */
	{{0, 0, 101, 1, 2}, 0, 101},     /* not held */
	{{1, 0, 101, 1, 1}, 1, 101},     /* recursive, held no time */
	{{1, 2, 101, 1, 2}, 1, 101},     /* checking, held twice */
	{{1, 1, 101, 0, 1}, 1, 101},     /* without users */
	{{1, 1, 101, 70000, 1}, 1, 101}, /* too many */
	{{1, 1, 101, 1, 1025}, 1, 101},  /* no such kind */
	{{1, 1, 101, 1, 1, 1}, 1, 101},  /* something behind it */
	{{1, 1, 101, 1, 1, 0, 0, 0, 0, 1}, 1, 101},
	{{102, 1, 101, 1, 32}, 102, 101}, /* two owners */
	{{1, 1, 103, 1, 1}, 1, 103},      /* a stranger's */
	{{1, 1, 100, 1, 1}, 1, 100},
};

START_TEST(mutexes)
{
	const struct looks *l = &looks[_i];
	size_t last = page - sizeof(l->m);
	const size_t offset[] = {0, 8, 1000, last};

	for (unsigned i = 0; i < 4; i++) {
		put(at(i % 2, offset[i]), l->m, 10);
		change();
		ck_assert_uint_eq(at(i % 2, offset[i])[0], l->lock);
		ck_assert_uint_eq(at(i % 2, offset[i])[2], l->owner);
		ck_assert_int_eq(memcmp(at(i % 2, offset[i]) + 3, l->m + 3, 28), 0);
		memset(at(i % 2, 0), 0, page);
	}
	/* Not in its place, not whole. */
	put(at(0, 4), l->m, 10);
	put(at(1, last + 8), l->m, 8);
	change();
	ck_assert_uint_eq(at(0, 4)[2], l->m[2]);
	ck_assert_uint_eq(at(1, last + 8)[2], l->m[2]);
}
END_TEST

/* readers, writers, two futexes, two zeros, the writer, shared, zeros, flags. */
static const struct rwlooks {
	uint32_t m[14], writer;
} rwlooks[] = {
	{{3, 0, 1, 1, 0, 0, 101, 0}, 102},
	{{3 | 8 << 3, 2, 3, 3, 0, 0, 102, 1, 0, 0, 0, 0, 2}, 103},
	{{2, 0, 1, 1, 0, 0, 101, 0}, 101},
	{{3, 0, 4, 1, 0, 0, 101, 0}, 101},
	{{3, 0, 1, 4, 0, 0, 101, 0}, 101},
	{{3, 0, 1, 1, 1, 0, 101, 0}, 101},
	{{3, 0, 1, 1, 0, 1, 101, 0}, 101},
	{{3, 0, 1, 1, 0, 0, 101, 2}, 101},
	{{3, 0, 1, 1, 0, 0, 101, 0, 1}, 101},
	{{3, 0, 1, 1, 0, 0, 101, 0, 0, 0, 0, 0, 4}, 101},
	{{3, 0, 1, 1, 0, 0, 100, 0}, 100},
};

START_TEST(rwlocks)
{
	const struct rwlooks *l = &rwlooks[_i];

	put(at(0, 0), l->m, 14);
	put(at(1, page - sizeof(l->m)), l->m, 14);
	change();
	ck_assert_uint_eq(at(0, 0)[6], l->writer);
	ck_assert_uint_eq(at(1, page - sizeof(l->m))[6], l->writer);
}
END_TEST

/* --- by the calls that name them --- */

START_TEST(named)
{
	static const uint32_t m[10] = {101 | WAITERS, 1, 101, 1, 32};

	put(at(0, 64), m, 10);      /* it looks like one, too: once is enough */
	*at(1, 12) = 102 | WAITERS; /* a bare word */
	words[0] = address(at(0, 64));
	words[1] = address(at(1, 12));
	owners.n_words = 2;
	change();
	ck_assert_uint_eq(at(0, 64)[0], 102 | WAITERS);
	ck_assert_uint_eq(at(0, 64)[2], 102);
	ck_assert_uint_eq(*at(1, 12), 103 | WAITERS);
}
END_TEST

START_TEST(named_nowhere)
{
	const uint64_t bad[] = {0, 1, ~UINT64_C(0), ~UINT64_C(3), address(memory),
		address(memory + 2 * page), address(memory + 2 * page - 2), range[1].end};

	owners.n_words = 1;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		words[0] = bad[i];
		change();
	}
}
END_TEST

/* --- by robust lists --- */

/* Head of the list of owner i at the page's begin, an entry n bytes behind it, locks 16 before. */
static void list(unsigned i, uint64_t first, uint64_t pending)
{
	uint64_t *head = (uint64_t *)at(0, 0);

	head[0] = first;
	head[1] = (uint64_t)-16;
	head[2] = pending;
	owner[i].robust = address(head);
}

static void entry(size_t offset, uint32_t lock, uint64_t next)
{
	*(uint64_t *)at(0, offset) = next;
	*at(0, offset - 16) = lock;
	*at(0, offset - 8) = lock & TF_OWNER_TID; /* glibc's second place */
}

START_TEST(listed)
{
	uint64_t head = range[0].start;

	list(0, head + 64, head + 256);
	entry(64, 101 | WAITERS, (head + 128) | 1);
	entry(128, 101, head + 192);
	entry(192, 102, head); /* somebody else's */
	entry(256, 101, 0);    /* being taken */
	entry(320, 101, 0);    /* in no list */
	change();
	ck_assert_uint_eq(*at(0, 48), 102 | WAITERS);
	ck_assert_uint_eq(*at(0, 56), 102);
	ck_assert_uint_eq(*at(0, 112), 102);
	ck_assert_uint_eq(*at(0, 176), 102);
	ck_assert_uint_eq(*at(0, 240), 102);
	ck_assert_uint_eq(*at(0, 304), 101);
	owner[0].robust = 0;
}
END_TEST

/* A robust mutex of somebody who has a list is not looked for. */
START_TEST(listed_once)
{
	static const uint32_t m[10] = {102, 1, 102, 1, 16};

	list(1, range[0].start, 0);
	put(at(1, 0), m, 10);
	change();
	ck_assert_uint_eq(*at(1, 0), 102);
	owner[1].robust = 0;
}
END_TEST

/* But where it is the only thread: a fork's list is empty. */
START_TEST(not_listed_alone)
{
	static const uint32_t m[10] = {101, 1, 101, 1, 16};

	list(0, range[0].start, 0);
	owners.n_owners = 1;
	put(at(1, 0), m, 10);
	change();
	ck_assert_uint_eq(*at(1, 0), 102);
	ck_assert_uint_eq(*at(1, 8), 102);
	owner[0].robust = 0;
}
END_TEST

START_TEST(listed_nowhere)
{
	uint64_t head = range[0].start;
	const uint64_t bad[] = {0, 8, 12, ~UINT64_C(7), address(memory + 8), range[0].end,
		range[0].end - 8, range[1].end - 4, head + 64 /* itself */, head + 3};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		list(0, head + 64, bad[i]);
		entry(64, 101, bad[i]);
		change();
		ck_assert_uint_eq(*at(0, 48), 102);
		list(0, bad[i], bad[i]);
		change();
		owner[0].robust = bad[i];
		change();
	}
	for (uint64_t offset = 1; offset; offset <<= 1) { /* locks anywhere */
		list(0, head + 64, head + 128);
		((uint64_t *)head)[1] = offset;
		change();
		((uint64_t *)head)[1] = -offset;
		change();
	}
	owner[0].robust = 0;
}
END_TEST

/* --- at hand --- */

START_TEST(at_hand)
{
	uint64_t regs[6] = {101, 101 | WAITERS, 102, UINT64_C(0x100000065), 101, 7};

	owner[0].regs = address(regs);
	owner[0].n_regs = 5;
	owner[0].call = 1u << 4; /* says which call it makes, and may look like an id */
	owner[0].sp = range[1].end - 64;
	*at(1, page - 60) = 101;
	*at(1, page - 4) = 101 | WAITERS;
	*at(1, page - 68) = 101; /* below */
	change();                /* it does not wait */
	ck_assert_uint_eq(regs[0], 101);
	ck_assert_uint_eq(*at(1, page - 60), 101);
	list(0, range[0].start, range[0].start + 64);
	change();
	ck_assert_uint_eq(regs[0], 102);
	ck_assert_uint_eq(regs[1], 102 | WAITERS);
	ck_assert_uint_eq(regs[2], 102);
	ck_assert_uint_eq(regs[3], UINT64_C(0x100000065));
	ck_assert_uint_eq(regs[4], 101);
	ck_assert_uint_eq(*at(1, page - 60), 102);
	ck_assert_uint_eq(*at(1, page - 4), 102 | WAITERS);
	ck_assert_uint_eq(*at(1, page - 68), 101);
	owner[0] = (struct tf_owner){.old = 101, .now = 102, .waits = 1, .sp = address(memory)};
	change();
	owner[0].sp = ~UINT64_C(7);
	change();
	owner[0] = (struct tf_owner){.old = 101, .now = 102};
}
END_TEST

/* A lock that a register leads to, in the middle of changing hands; the id in another register
 * (1: changed), and the lock's words afterwards. */
static const struct hands {
	uint32_t m[14], lock, owner;
	bool changed;
} hands[] = {
	{{0, 0, 0, 0, 1}, 0, 0, true},           /* yet to be taken */
	{{1, 1, 0, 0, 1}, 1, 0, true},           /* taken, without its holder */
	{{1, 1, 101, 0, 1}, 1, 102, true},       /* and without users */
	{{2, 0, 101, 0, 2}, 2, 102, true},       /* checking */
	{{101, 1, 101, 0, 33}, 102, 102, true},  /* inheriting */
	{{1, 1, 101, 1, 1}, 1, 102, true},       /* about to be given back */
	{{2, 0, 0, 1, 2}, 2, 0, true},           /* no more */
	{{0, 0, 0, 0, 16, 0, 9, 9}, 0, 0, true}, /* robust */
	{{1, 1, 103, 1, 1}, 1, 103, false},      /* a stranger's */
	{{1, 0, 101, 0, 0}, 1, 101, false},      /* normal: asks nobody */
	{{3, 1, 101, 0, 1}, 3, 101, false},      /* no such state */
	{{1, 1, 0, 0, 1, 1}, 1, 0, false},       /* something behind it */
	{{1, 1, 0, 0, 1025}, 1, 0, false},       /* no such kind */
	{{0}, 0, 0, false},                      /* zeros */
	{{3, 0, 1, 1, 0, 0, 0}, 3, 1, true},     /* read-write, without its writer */
	{{3, 0, 1, 1, 0, 0, 101}, 3, 1, true},   /* about to be given back */
	{{2, 0, 1, 1, 0, 0, 0}, 2, 1, false},    /* for readers */
};

static __thread volatile int own;

/* Code that reads what belongs to its thread. */
static int asks(void)
{
	return own;
}

START_TEST(changes_hands)
{
	const struct hands *h = &hands[_i];
	uint64_t regs[3] = {address(at(1, 64)), 101, address(memory)};

	owner[0].regs = address(regs);
	owner[0].n_regs = 3;
	owner[0].sp = range[1].end - 64;
	*at(1, page - 60) = 101;
	put(at(1, 64), h->m, 14);
	change(); /* it is in none of a lock's functions */
	ck_assert_uint_eq(regs[1], 101);
	owner[0].code = (uint64_t)(uintptr_t)asks;
	owner[0].n_code = 64;
	put(at(1, 64), h->m, 14);
	change();
	ck_assert_uint_eq(regs[1], h->changed ? 102 : 101);
	ck_assert_uint_eq(at(1, 64)[0], h->lock);
	ck_assert_uint_eq(at(1, 64)[2], h->owner);
	ck_assert_uint_eq(*at(1, page - 60), 101); /* it does not wait */
	memset(at(1, 64), 0, sizeof(h->m));
	owner[0] = (struct tf_owner){.old = 101, .now = 102};
}
END_TEST

/* It waits for a lock of which the kernel knows nothing: in registers, else on the stack. */
START_TEST(waits_for_hands)
{
	static const uint32_t m[10] = {2, 1, 102, 1, 1};
	uint64_t regs[3] = {address(at(0, 64)), 202, _i ? 101 : 7};

	owner[0].regs = address(regs);
	owner[0].n_regs = 3;
	owner[0].call = 2;
	owner[0].sp = range[1].end - 64;
	*at(1, page - 60) = 101;
	put(at(0, 64), m, 10);
	change();
	ck_assert_uint_eq(regs[2], _i ? 102 : 7);
	ck_assert_uint_eq(*at(1, page - 60), _i ? 101 : 102);
	owner[0] = (struct tf_owner){.old = 101, .now = 102};
}
END_TEST

/* Only the second page of the first range is searched; in the first one words are known, and each
 * place is changed once: 101 is 102 then, which was somebody else. */
START_TEST(held)
{
	static const uint32_t checking[] = {2, 1, 101, 1, 2, 0, 0, 0, 0, 0};
	static const uint32_t inheriting[] = {101, 1, 101, 1, 32, 0, 0, 0, 0, 0};
	const struct tf_owner_range part[] = {{range[0].end, range[0].end + page}};
	const uint64_t known[] = {address(at(0, 128) + 2), address(at(0, page - 8))};

	ck_assert_int_eq(mprotect(memory + 2 * page, page, PROT_READ | PROT_WRITE), 0);
	range[0].end += page;
	owners.part = part;
	owners.n_parts = 1;
	owners.held = known;
	owners.n_held = 2;
	put(at(0, 64), checking, 10);         /* nobody has found it */
	put(at(0, 128), checking, 10);        /* found */
	put(at(0, page - 8), inheriting, 10); /* its first word was, the other lies behind */
	put(at(0, page + 1024), checking, 10);
	change();
	ck_assert_uint_eq(at(0, 64)[2], 101);
	ck_assert_uint_eq(at(0, 128)[2], 102);
	ck_assert_uint_eq(at(0, page - 8)[0], 102);
	ck_assert_uint_eq(at(0, page - 8)[2], 102);
	ck_assert_uint_eq(at(0, page + 1024)[2], 102);
}
END_TEST

/* --- noted while it came --- */

START_TEST(noted_elsewhere)
{
	put(at(0, 8), looks[0].m, 10);
	tf_owner_note(
		&owners, range[1].start, range[0].start, page); /* a copy of what will be there */
	ck_assert_uint_eq(owners.n_found, 1);
	ck_assert_uint_eq(found[0], range[1].start + 16);
	put(at(1, 8), looks[0].m, 10);
	tf_owner_note(&owners, range[1].end, range[0].start, 64); /* in no range: not looked at */
	ck_assert_uint_eq(owners.n_found, 2);
	tf_owners_change(&owners, there);
	ck_assert_uint_eq(at(0, 8)[2], 101);
	ck_assert_uint_eq(at(1, 8)[2], 102);
}
END_TEST

/* More than there is room for, or halves of words: everything is looked at. */
START_TEST(noted_not_all)
{
	put(at(1, 8), looks[0].m, 10);
	if (_i)
		tf_owner_note(&owners, range[0].start, range[0].start, 20);
	for (size_t i = 0; i < page && !_i; i += 8)
		*(uint64_t *)at(0, i) = 101;
	for (unsigned i = 0; i <= TF_OWNER_FOUND * 8 / page && !_i; i++)
		tf_owner_note(&owners, range[0].start, range[0].start, page);
	ck_assert_uint_gt(owners.n_found, TF_OWNER_FOUND);
	tf_owners_change(&owners, there);
	ck_assert_uint_eq(at(1, 8)[2], 102);
}
END_TEST

/* Of each round one word, for it is enough that something is found in three blocks. */
enum { PASSED = 7 * TF_CRC32C_BLOCK + 4104 };
static const uint64_t passed[] = {0, TF_CRC32C_BLOCK - 8, TF_CRC32C_BLOCK, 2 * TF_CRC32C_BLOCK + 16,
	3 * TF_CRC32C_BLOCK - 8, 3 * TF_CRC32C_BLOCK, 5 * TF_CRC32C_BLOCK + 8, 6 * TF_CRC32C_BLOCK,
	PASSED - 8};

static uint32_t note_in_passing(uint64_t *bytes, uint64_t n, uint64_t offset)
{
	uint64_t x = 88172645463325252u;

	for (unsigned i = 0; i < PASSED / 8; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		bytes[i] = x | UINT64_C(1) << 63 | UINT64_C(1) << 31; /* no owner's halves */
	}
	bytes[offset / 8] = owner[offset / 8 % 3].old;
	return tf_owner_note_checked(&owners, 7, range[0].start, (uint64_t)bytes, n);
}

/* One pass for the check and for ids finds what two find: at the edges of blocks, in each of three
 * side by side, and in what is left. */
START_TEST(noted_in_passing)
{
	static uint64_t bytes[PASSED / 8];
	uint32_t crc;

	if (!tf_crc32c_has_instruction())
		return;
	crc = note_in_passing(bytes, PASSED, passed[_i]);
	ck_assert_uint_eq(crc, ~tf_crc32c(~7u, bytes, PASSED));
	ck_assert_uint_eq(owners.n_found, 1);
	ck_assert_uint_eq(found[0], range[0].start + passed[_i]);
}
END_TEST

/* Of words in halves nothing is known. */
START_TEST(noted_in_halves)
{
	static uint64_t bytes[PASSED / 8];
	uint32_t crc;

	if (!tf_crc32c_has_instruction())
		return;
	crc = note_in_passing(bytes, PASSED - 4, 0);
	ck_assert_uint_eq(crc, ~tf_crc32c(~7u, bytes, PASSED - 4));
	ck_assert_uint_gt(owners.n_found, TF_OWNER_FOUND);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, mutexes, 0, sizeof(looks) / sizeof(*looks));
	tcase_add_loop_test(tc, rwlocks, 0, sizeof(rwlooks) / sizeof(*rwlooks));
	tcase_add_test(tc, named);
	tcase_add_test(tc, named_nowhere);
	tcase_add_test(tc, listed);
	tcase_add_test(tc, listed_once);
	tcase_add_test(tc, not_listed_alone);
	tcase_add_test(tc, listed_nowhere);
	tcase_add_test(tc, at_hand);
	tcase_add_loop_test(tc, changes_hands, 0, sizeof(hands) / sizeof(*hands));
	tcase_add_loop_test(tc, waits_for_hands, 0, 2);
}

int main(void)
{
	Suite *s = suite_create("owners");
	TCase *searched = tcase_create("searched"), *seen = tcase_create("noted");

	tcase_set_timeout(searched, SUITE_LIMIT_S);
	tcase_set_timeout(seen, SUITE_LIMIT_S);
	tcase_add_checked_fixture(searched, set_up, tear_down);
	tcase_add_checked_fixture(seen, set_up_noted, tear_down);
	add(searched);
	add(seen);
	tcase_add_test(searched, held);
	tcase_add_test(seen, noted_elsewhere);
	tcase_add_loop_test(seen, noted_not_all, 0, 2);
	tcase_add_loop_test(seen, noted_in_passing, 0, sizeof(passed) / sizeof(*passed));
	tcase_add_test(seen, noted_in_halves);
	suite_add_tcase(s, searched);
	suite_add_tcase(s, seen);
	return suite_run(s);
}
