/* SPDX-License-Identifier: MIT */
/*
 * A program that looks at the clock again and again, with so much memory that cannot be compressed:
 * what it misses is how long it stood still, and where it goes on is when its copy runs.
 *
 *   ticker DIR MIB   writes DIR/ready.PID, and at each SIGUSR1 DIR/said.PID: the longest time
 *                    since the last one that it did not see, and when that ended (ns)
 *   ticker now       what time it is
 *
 * No descriptor is open but the standard ones, and these are /dev/null: nothing is in any
 * engine's way.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void on_signal(int signo)
{
	(void)signo;
	asked = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int fill(uint64_t size)
{
	uint64_t *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t x = 88172645463325252u;

	if (at == MAP_FAILED || madvise(at, size, MADV_NOHUGEPAGE))
		return -1;
	for (uint64_t i = 0; i < size / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		at[i] = x;
	}
	return 0;
}

static int say(const char *folder, const char *what, uint64_t gap, uint64_t end)
{
	char text[64], path[512], whole[512];
	int n = snprintf(text, sizeof(text), "%llu %llu\n", (unsigned long long)gap,
		(unsigned long long)end);
	int fd;

	snprintf(path, sizeof(path), "%s/new.%d", folder, (int)getpid());
	snprintf(whole, sizeof(whole), "%s/%s.%d", folder, what, (int)getpid());
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return -1;
	return close(fd) || rename(path, whole) ? -1 : 0;
}

static int tick(const char *folder)
{
	const struct timespec moment = {.tv_nsec = 100000};
	uint64_t last = now_ns(), gap = 0, end = 0;

	for (;;) {
		uint64_t now;

		nanosleep(&moment, NULL);
		now = now_ns();
		if (now - last > gap) {
			gap = now - last;
			end = now;
		}
		if (asked) {
			asked = 0;
			if (say(folder, "said", gap, end))
				return 1;
			gap = 0;
			now = now_ns();
		}
		last = now;
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "now"))
		return printf("%llu\n", (unsigned long long)now_ns()) < 0;
	if (argc != 3)
		return fprintf(stderr, "usage: ticker DIR MIB | ticker now\n"), 64;
	closefrom(STDERR_FILENO + 1);
	signal(SIGUSR1, on_signal);
	if (fill(strtoull(argv[2], NULL, 10) << 20) || say(argv[1], "ready", 0, 0))
		return 1;
	return tick(argv[1]);
}
