/* SPDX-License-Identifier: MIT */
/* What a program that has moved notes, for the bench to read: a file, which is whole when it
 * appears. */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define WAIT_MS 60000

void bench_note(const char *file, const void *bytes, size_t n)
{
	char temporary[300];
	int fd;

	snprintf(temporary, sizeof(temporary), "%s.%d", file, (int)getpid());
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || rename(temporary, file))
		_exit(1);
	close(fd);
}

int bench_await_note(const char *file, void *to, size_t n)
{
	for (int ms = 0; ms < WAIT_MS; ms++) {
		int fd = open(file, O_RDONLY | O_CLOEXEC);
		ssize_t got = fd < 0 ? -1 : read(fd, to, n);

		if (fd >= 0)
			close(fd);
		if (got == (ssize_t)n) {
			unlink(file);
			return 0;
		}
		usleep(1000);
	}
	return -1;
}
