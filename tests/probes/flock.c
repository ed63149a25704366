/* SPDX-License-Identifier: MIT */
/*
 * flock TOKEN DIR MIB URI...: goes to all of them at once, with so much memory that says where it
 * is. Each copy checks it, and writes DIR/INDEX; the parent prints a line for each: its index, what
 * came of it, and how long all took, in microseconds.
 */
#include "core/base/io.h"
#include "core/telefork.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX 1024

static int arrived(const char *folder, const uint64_t *memory, size_t n)
{
	char path[512], whole[512], text[64];
	size_t wrong = 0;
	int fd, size;

	for (size_t i = 0; i < n; i++)
		wrong += memory[i] != i * 0x9e3779b97f4a7c15;
	snprintf(path, sizeof(path), "%s/.%u", folder, telefork_index());
	snprintf(whole, sizeof(whole), "%s/%u", folder, telefork_index());
	size = snprintf(text, sizeof(text), "%zu wrong, peer %d\n", wrong, telefork_peer_fd());
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600); /* once */
	return fd < 0 || write(fd, text, (size_t)size) != size || rename(path, whole) ? 3 : 0;
}

int main(int argc, char **argv)
{
	static struct telefork_result results[MAX];
	struct telefork_options o = {.token = argc > 1 ? argv[1] : NULL};
	unsigned n = argc > 4 ? (unsigned)argc - 4 : 0;
	size_t words;
	uint64_t *memory, start, us;
	int rc;

	if (!n || n > MAX)
		return 2;
	words = strtoul(argv[3], NULL, 10) << 17;
	memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 2;
	for (size_t i = 0; i < words; i++)
		memory[i] = i * 0x9e3779b97f4a7c15;
	start = tf_now_ns();
	rc = telefork_many((const char *const *)argv + 4, n, &o, results);
	if (!rc)
		_exit(arrived(argv[2], memory, words));
	us = (tf_now_ns() - start) / 1000;
	for (unsigned i = 0; i < n; i++)
		printf("%u %s %d %llu %s\n", i + 1, telefork_errname(results[i].error),
			results[i].pid, (unsigned long long)us, results[i].message);
	return rc == TELEFORK_PARENT ? 0 : 1;
}
