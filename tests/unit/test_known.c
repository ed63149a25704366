/* SPDX-License-Identifier: MIT */
/*
 * What a file is known by (core/image/known.h): its build-id, size and first page, and what a
 * hostile page makes of that.
 */
#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/image/known.h"
#include "tests/unit/suite.h"

static uint8_t page[TF_KNOWN_PAGE];

/* A header, one program header behind it, a note behind that. */
#define NOTE (sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr))

static void make(const char *owner, uint32_t type, uint32_t id_size)
{
	Elf64_Ehdr e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64},
		.e_phoff = sizeof(e),
		.e_phnum = 1,
		.e_phentsize = sizeof(Elf64_Phdr)};
	Elf64_Phdr p = {
		.p_type = PT_NOTE, .p_offset = NOTE, .p_filesz = sizeof(Elf64_Nhdr) + 4 + id_size};
	Elf64_Nhdr n = {.n_namesz = 4, .n_descsz = id_size, .n_type = type};

	memset(page, 0xa5, sizeof(page));
	memcpy(page, &e, sizeof(e));
	memcpy(page + sizeof(e), &p, sizeof(p));
	memcpy(page + NOTE, &n, sizeof(n));
	memcpy(page + NOTE + sizeof(n), owner, 4);
	for (uint32_t i = 0; i < id_size; i++)
		page[NOTE + sizeof(n) + 4 + i] = (uint8_t)i;
}

START_TEST(found)
{
	struct tf_known a = {.size = 7}, b = {.size = 7};

	make("GNU", NT_GNU_BUILD_ID, 20);
	ck_assert(tf_known_by(page, &a));
	ck_assert_uint_eq(a.id[19], 19);
	ck_assert_uint_eq(a.id[20], 0);
	ck_assert(tf_known_by(page, &b) && tf_known_same(&a, &b));
	b.size++;
	ck_assert(!tf_known_same(&a, &b));
	b.size = a.size;
	page[TF_KNOWN_PAGE - 1]++; /* something else on the first page */
	ck_assert(tf_known_by(page, &b) && !tf_known_same(&a, &b));
	make("GNU", NT_GNU_BUILD_ID, 20);
	page[NOTE + sizeof(Elf64_Nhdr) + 4]++; /* the id */
	ck_assert(tf_known_by(page, &b) && !tf_known_same(&a, &b));
}
END_TEST

START_TEST(not_found)
{
	struct tf_known k;

	make("GNU", NT_GNU_BUILD_ID, 0);
	ck_assert(!tf_known_by(page, &k));
	make("GNU", NT_GNU_BUILD_ID, TF_KNOWN_ID + 1);
	ck_assert(!tf_known_by(page, &k));
	make("GNU", NT_GNU_ABI_TAG, 20);
	ck_assert(!tf_known_by(page, &k));
	make("ABC", NT_GNU_BUILD_ID, 20);
	ck_assert(!tf_known_by(page, &k));
	memset(page, 0, sizeof(page));
	ck_assert(!tf_known_by(page, &k));
}
END_TEST

/* Every byte of the headers and the note, all ways: nothing outside the page is read (the sanitizer
 * sees to that), and an id is no longer than its room. */
START_TEST(hostile)
{
	for (size_t at = 0; at < NOTE + sizeof(Elf64_Nhdr) + 24; at++)
		for (unsigned v = 0; v < 256; v++) {
			uint8_t *copy = malloc(TF_KNOWN_PAGE);
			struct tf_known k;

			make("GNU", NT_GNU_BUILD_ID, 20);
			page[at] = (uint8_t)v;
			memcpy(copy, page, TF_KNOWN_PAGE);
			tf_known_by(copy, &k);
			free(copy);
		}
}
END_TEST

START_TEST(own_program)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct tf_known k;

	ck_assert_int_eq(pread(fd, page, sizeof(page), 0), sizeof(page));
	close(fd);
	tf_known_by(page, &k); /* a linker may be told to make no id */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("known");
	TCase *t = tcase_create("known");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, found);
	tcase_add_test(t, not_found);
	tcase_add_test(t, hostile);
	tcase_add_test(t, own_program);
	suite_add_tcase(s, t);
	return suite_run(s);
}
