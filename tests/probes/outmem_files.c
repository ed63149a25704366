/* SPDX-License-Identifier: MIT */
/* Files in a folder that are mapped: the caller leaves "same", changes a byte of "changed" and
 * "tail", takes "gone" away, and grows "short" while we are not running. */
#include "tests/probes/outmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

#define PAGES 8

static struct {
	const char *name;
	uint8_t *at;
} private_files[] = {{"same", 0}, {"changed", 0}, {"gone", 0}};

static const char *folder;
static uint8_t *tail, *read_only, *written, *moved_on, *nameless, *nameless_end;
static int written_fd, nameless_fd;

static int make(const char *dir, const char *name, size_t bytes)
{
	static uint64_t buf[OUT_WORDS * PAGES];
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = out_must_fd(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), name);
	out_fill(buf, PAGES * OUT_PAGE, name);
	if (write(fd, buf, bytes) != (ssize_t)bytes)
		out_wrong(name, "could not be written");
	return fd;
}

static uint8_t *map(int fd, size_t pages, int prot, int flags, off_t at, const char *name)
{
	return out_must(mmap(NULL, pages * OUT_PAGE, prot, flags, fd, at), name);
}

/* Page 0 is only read, 1 written, 2 written with zeros; the rest is never touched. */
static void make_private(const char *dir)
{
	for (size_t i = 0; i < sizeof(private_files) / sizeof(*private_files); i++) {
		const char *name = private_files[i].name;
		int fd = make(dir, name, PAGES * OUT_PAGE);
		uint8_t *p = map(fd, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, name);

		private_files[i].at = p;
		(void)*(volatile uint8_t *)p;
		out_fill(p + OUT_PAGE, OUT_PAGE, "written");
		memset(p + 2 * OUT_PAGE, 0, OUT_PAGE);
		mprotect(p, PAGES * OUT_PAGE, PROT_READ);
		out_note(name, p);
		close(fd);
	}
}

static void check_private(void)
{
	static const uint8_t zero[OUT_WORDS * 8];
	static uint64_t whole[OUT_WORDS * PAGES];

	for (size_t i = 0; i < sizeof(private_files) / sizeof(*private_files); i++) {
		const char *name = private_files[i].name;
		uint8_t *p = private_files[i].at;
		size_t own = out_private(p);

		out_fill(whole, PAGES * OUT_PAGE, name);
		out_check(!memcmp(p, whole, OUT_PAGE), name, "what was read");
		out_check(out_same(p + OUT_PAGE, OUT_PAGE, "written"), name, "what was written");
		out_check(
			!memcmp(p + 2 * OUT_PAGE, zero, OUT_PAGE), name, "zeros that were written");
		out_check(!memcmp(p + 3 * OUT_PAGE, (uint8_t *)whole + 3 * OUT_PAGE,
				  (PAGES - 3) * OUT_PAGE),
			name, "what was never touched");
		if (strcmp(name, "same") != 0)
			continue;
		out_check(
			strstr(out_name_at(p), "/same") != NULL, name, "is no mapping of the file");
		out_check(own == 2 * OUT_PAGE, name, "has not the two pages of its own");
	}
}

/* A page and a half: the third page of the mapping is behind the end. */
static void make_tail(const char *dir)
{
	int fd = make(dir, "tail", OUT_PAGE + OUT_PAGE / 2);

	tail = map(fd, 3, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, "tail");
	out_note("tail", tail);
	close(fd);
}

static void check_tail(void)
{
	bool zeros = true;

	out_check(out_same(tail, OUT_PAGE + OUT_PAGE / 2, "tail"), "tail", "content");
	for (size_t i = OUT_PAGE + OUT_PAGE / 2; i < 2 * OUT_PAGE && zeros; i++)
		zeros = !tail[i];
	out_check(zeros, "tail", "zeros behind the end");
	out_check(out_fault(tail + 2 * OUT_PAGE, false) == SIGBUS, "tail", "no SIGBUS behind it");
	out_check(!out_fault(tail + OUT_PAGE, true), "tail", "cannot be written");
}

static void make_shared(const char *dir)
{
	char path[512];
	int fd = make(dir, "read-only", 2 * OUT_PAGE), ro;

	close(fd);
	snprintf(path, sizeof(path), "%s/read-only", dir);
	ro = out_must_fd(open(path, O_RDONLY | O_CLOEXEC), "read-only");
	read_only = map(ro, 2, PROT_READ, MAP_SHARED, 0, "read-only");
	out_note("read-only", read_only);
	close(ro);
	fd = make(dir, "moved-on", 2 * OUT_PAGE);
	close(fd);
	snprintf(path, sizeof(path), "%s/moved-on", dir);
	ro = out_must_fd(open(path, O_RDONLY | O_CLOEXEC), "moved-on");
	moved_on = map(ro, 2, PROT_READ, MAP_SHARED, 0, "moved-on");
	out_note("moved-on", moved_on);
	close(ro);
	written_fd = make(dir, "shared", 2 * OUT_PAGE);
	written = map(written_fd, 2, PROT_READ | PROT_WRITE, MAP_SHARED, 0, "shared");
	out_fill(written, OUT_PAGE, "in the file");
	out_note("shared", written);
}

/* Whether a file of two pages over here is what it was. */
static bool is_as_made(const char *name)
{
	static uint64_t buf[OUT_WORDS * 2];
	char path[512];
	int fd;
	bool is;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	is = fd >= 0 && read(fd, buf, 2 * OUT_PAGE) == (ssize_t)(2 * OUT_PAGE) &&
	     out_same(buf, 2 * OUT_PAGE, name);
	close(fd);
	return is;
}

static void check_shared(void)
{
	static uint64_t buf[OUT_WORDS];

	out_check(out_same(read_only, 2 * OUT_PAGE, "read-only"), "read-only", "content");
	out_check(strstr(out_name_at(read_only), "/read-only") != NULL, "read-only",
		"is no mapping of the file");
	out_check(mprotect(read_only, OUT_PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
		"read-only", "can be made writable");
	out_check(out_same(moved_on, 2 * OUT_PAGE, "moved-on"), "moved-on", "content");
	if (is_as_made("moved-on"))
		out_check(strstr(out_name_at(moved_on), "/moved-on") != NULL, "moved-on",
			"is no mapping of the file");
	out_check(out_same(written, OUT_PAGE, "in the file"), "shared", "content");
	out_fill(written + OUT_PAGE, OUT_PAGE, "later");
	out_check(pread(written_fd, buf, OUT_PAGE, (off_t)OUT_PAGE) == (ssize_t)OUT_PAGE &&
			  out_same(buf, OUT_PAGE, "later"),
		"shared", "what is written does not reach the file");
}

/* A file without a name: data in pages 0, 1 and 6 of 8; pages 1 and 2 are mapped, and 7 and one
 * behind the end. */
static void make_nameless(const char *dir)
{
	char path[512];
	static uint64_t buf[OUT_WORDS];

	nameless_fd = make(dir, "nameless", 2 * OUT_PAGE);
	snprintf(path, sizeof(path), "%s/nameless", dir);
	unlink(path);
	out_fill(buf, OUT_PAGE, "page six");
	if (ftruncate(nameless_fd, (off_t)(8 * OUT_PAGE)) ||
		pwrite(nameless_fd, buf, OUT_PAGE, (off_t)(6 * OUT_PAGE)) < 0)
		out_wrong("nameless", "could not be made");
	nameless = map(
		nameless_fd, 2, PROT_READ | PROT_WRITE, MAP_SHARED, (off_t)OUT_PAGE, "nameless");
	nameless_end =
		map(nameless_fd, 2, PROT_READ, MAP_SHARED, (off_t)(7 * OUT_PAGE), "nameless");
	lseek(nameless_fd, 1234, SEEK_SET);
	out_note("nameless", nameless);
	out_note("nameless, its end", nameless_end);
}

static void check_nameless(void)
{
	static uint64_t buf[OUT_WORDS * 2], whole[OUT_WORDS * 2];
	struct stat st;

	out_fill(whole, 2 * OUT_PAGE, "nameless");
	out_check(!memcmp(nameless, (uint8_t *)whole + OUT_PAGE, OUT_PAGE), "nameless", "content");
	out_check(!fstat(nameless_fd, &st) && st.st_size == (off_t)(8 * OUT_PAGE), "nameless",
		"size");
	out_check(
		(st.st_mode & 0777) == 0644 && !st.st_nlink, "nameless", "permissions, or a name");
	out_check(st.st_uid == geteuid() && st.st_gid == getegid(), "nameless", "its owner");
	out_check(st.st_blocks * 512 <= (long)(5 * OUT_PAGE), "nameless", "has lost its holes");
	out_check(lseek(nameless_fd, 0, SEEK_CUR) == 1234, "nameless", "position");
	out_check(pread(nameless_fd, buf, OUT_PAGE, 0) == (ssize_t)OUT_PAGE &&
			  !memcmp(buf, whole, OUT_PAGE),
		"nameless", "what no mapping shows, at the beginning");
	out_check(pread(nameless_fd, buf, OUT_PAGE, (off_t)(6 * OUT_PAGE)) == (ssize_t)OUT_PAGE &&
			  out_same(buf, OUT_PAGE, "page six"),
		"nameless", "what no mapping shows, in the middle");
	out_fill(nameless, OUT_PAGE, "later");
	out_check(pread(nameless_fd, buf, OUT_PAGE, (off_t)OUT_PAGE) == (ssize_t)OUT_PAGE &&
			  out_same(buf, OUT_PAGE, "later"),
		"nameless", "mapping and descriptor are not one");
	out_check(out_fault(nameless_end + OUT_PAGE, false) == SIGBUS, "nameless", "no SIGBUS");
	out_check(!nameless_end[0], "nameless", "its last page");
}

void out_files_make(const char *dir)
{
	folder = dir;
	make_private(dir);
	make_tail(dir);
	make_shared(dir);
	make_nameless(dir);
}

void out_files_check(void)
{
	check_private();
	check_tail();
	check_shared();
	check_nameless();
}
