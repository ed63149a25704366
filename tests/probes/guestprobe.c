/* SPDX-License-Identifier: MIT */
/*
 * A small program to be run inside guests by tests/tools/vmcheck: it talks TCP to another guest,
 * computes, floods its output, leaves orphans behind, and tells who the guest is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "guestprobe: %s: %s\n", what, strerror(errno));
	return 1;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A byte of the pattern that both ends know. */
static unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 31 + (i >> 12) + 7);
}

/* listen PORT: take one connection, check the pattern, answer with the count. */
static int do_listen(char **argv)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[0]))};
	static unsigned char buf[65536];
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, c;
	size_t total = 0, bad = 0;
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(fd, 1) < 0)
		return fail("listen");
	c = accept(fd, NULL, NULL);
	if (c < 0)
		return fail("accept");
	while ((n = read(c, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			bad += buf[i] != pattern(total + (size_t)i);
		total += (size_t)n;
	}
	if (n < 0)
		return fail("read");
	dprintf(c, "%zu bytes, %zu wrong\n", total, bad);
	printf("received %zu bytes, %zu wrong\n", total, bad);
	return bad != 0;
}

static int dial(const char *address)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	char host[64];
	int fd = -1;

	snprintf(host, sizeof(host), "%s", address);
	if (!strchr(host, ':'))
		return -1;
	in.sin_port = htons((uint16_t)atoi(strchr(host, ':') + 1));
	*strchr(host, ':') = '\0';
	inet_pton(AF_INET, host, &in.sin_addr);
	for (int i = 0; i < 100; i++) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0)
			return fd;
		close(fd);
		usleep(20000);
	}
	return -1;
}

/* send HOST:PORT MIB */
static int do_send(char **argv)
{
	size_t size = (size_t)(argv[1] ? atoi(argv[1]) : 1) << 20, sent = 0;
	static unsigned char buf[65536];
	char answer[128] = "";
	double start;
	int fd = dial(argv[0]);

	if (fd < 0)
		return fail(argv[0]);
	start = now();
	while (sent < size) {
		size_t want = size - sent < sizeof(buf) ? size - sent : sizeof(buf), done = 0;

		for (size_t i = 0; i < want; i++)
			buf[i] = pattern(sent + i);
		while (done < want) {
			ssize_t n = write(fd, buf + done, want - done);

			if (n < 0)
				return fail("write");
			done += (size_t)n;
		}
		sent += want;
	}
	shutdown(fd, SHUT_WR);
	if (read(fd, answer, sizeof(answer) - 1) < 0)
		return fail("read");
	printf("sent %zu bytes in %.2f s; the other says: %s", sent, now() - start, answer);
	return 0;
}

/* spin SECONDS of wall clock */
static int do_spin(char **argv)
{
	double end = now() + atof(argv[0]);
	unsigned long turns = 0;

	while (now() < end)
		turns++;
	printf("%lu turns\n", turns);
	return 0;
}

/* flood MIB: a pattern on stdout as fast as it is taken */
static int do_flood(char **argv)
{
	size_t size = (size_t)atoi(argv[0]) << 20;
	static unsigned char buf[65536];

	for (size_t sent = 0; sent < size; sent += sizeof(buf)) {
		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = pattern(sent + i);
		if (fwrite(buf, sizeof(buf), 1, stdout) != 1)
			return fail("stdout");
	}
	return 0;
}

/* orphan SECONDS: end at once and leave a talking child behind */
static int do_orphan(char **argv)
{
	double end = now() + atof(argv[0]);

	if (fork() == 0) {
		while (now() < end) {
			printf("orphan, parent %d\n", (int)getppid());
			fflush(stdout);
			usleep(100000);
		}
		_exit(0);
	}
	return 5;
}

/* id: host name, MAC, wall clock, random bytes */
static int do_id(char **argv)
{
	struct ifreq req = {.ifr_name = "eth0"};
	unsigned char r[8], *mac = (unsigned char *)req.ifr_hwaddr.sa_data;
	char host[65] = "";
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	(void)argv;
	gethostname(host, sizeof(host) - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &req) < 0)
		return fail("eth0");
	if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return fail("getrandom");
	printf("%s %02x:%02x:%02x:%02x:%02x:%02x time %ld random", host, mac[0], mac[1], mac[2],
		mac[3], mac[4], mac[5], (long)time(NULL));
	for (size_t i = 0; i < sizeof(r); i++)
		printf("%s%02x", i ? "" : " ", r[i]);
	printf(" pid %d\n", (int)getpid());
	return 0;
}

/* cat: stdin to stdout */
static int do_cat(char **argv)
{
	static char buf[65536];
	ssize_t n;

	(void)argv;
	while ((n = read(0, buf, sizeof(buf))) > 0) {
		if (fwrite(buf, (size_t)n, 1, stdout) != 1)
			return fail("stdout");
	}
	return n < 0 ? fail("stdin") : 0;
}

static int do_exit(char **argv)
{
	return atoi(argv[0]);
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **argv);
} commands[] = {
	{"listen", 1, do_listen},
	{"send", 1, do_send},
	{"spin", 1, do_spin},
	{"flood", 1, do_flood},
	{"orphan", 1, do_orphan},
	{"id", 0, do_id},
	{"cat", 0, do_cat},
	{"exit", 1, do_exit},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(argv[1], commands[i].name) && argc - 2 >= commands[i].args)
			return commands[i].run(argv + 2);
	}
	fprintf(stderr, "usage: guestprobe listen|send|spin|flood|orphan|id|cat|exit ...\n");
	return 2;
}
