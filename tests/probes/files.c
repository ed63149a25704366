/* SPDX-License-Identifier: MIT */
/*
 * files: a program that knows nothing of telefork and has descriptors of every kind that travels,
 * made in its working directory. Says "ready PID"; on SIGUSR1 it looks whether each still leads to
 * the same, with the same flags and position, whether duplicates still share one description and
 * others do not, and what is in files that have no name. "right N" values, or what is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS  64
#define HOLE (3 << 20)

static struct state {
	int flags, fd_flags;
	off_t at;
	struct stat st;
	char same[FDS]; /* a duplicate of that one */
} had[FDS];

static int out = -1, nameless = -1, again = -1, memory = -1;
static unsigned values;

static void __attribute__((noreturn)) wrong(const char *what, int a, int b)
{
	printf("wrong: %s: descriptor %d (%d): %s\n", what, a, b, strerror(errno));
	exit(1);
}

static int make(const char *name, int flags)
{
	int fd = open(name, flags | O_CREAT, 0600);

	if (fd < 0)
		wrong(name, fd, flags);
	return fd;
}

static bool is_same(int a, int b)
{
	return !syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b);
}

static void look(int fd, struct state *s)
{
	s->flags = fcntl(fd, F_GETFL);
	s->fd_flags = fcntl(fd, F_GETFD);
	s->at = lseek(fd, 0, SEEK_CUR);
	fstat(fd, &s->st);
	for (int i = 0; i < FDS; i++)
		s->same[i] = i != fd && is_same(fd, i);
}

static void set_up(void)
{
	int fd = make("data", O_RDWR);

	if (write(fd, "0123456789", 10) != 10)
		wrong("data", fd, 0);
	lseek(fd, 5, SEEK_SET);
	fcntl(fd, F_DUPFD_CLOEXEC, 50); /* shares the position, not the flag */
	dup(fd);
	lseek(make("data", O_RDWR), 3, SEEK_SET); /* the same file, on its own */
	lseek(make("data", O_RDONLY), 1000, SEEK_SET);
	make("log", O_WRONLY | O_APPEND | O_CLOEXEC);
	chmod("log", 0200);
	make("data", O_RDWR | O_NONBLOCK | O_SYNC);
	make("data", O_RDWR | O_DSYNC | O_NOATIME);
	open("data", O_RDONLY | O_DIRECT); /* where the file system can */
	open("data", O_PATH);
	open(".", O_RDONLY | O_DIRECTORY);
	open("..", O_PATH | O_DIRECTORY);
	open("/dev/null", O_WRONLY);
	open("/dev/zero", O_RDONLY | O_CLOEXEC);
	out = dup(1);
	fcntl(2, F_DUPFD, 60);
}

/* Files without a name: a deleted one, the same opened again read-only and duplicated, one with a
 * hole that is mapped by nobody, and memory with a descriptor. */
static void set_up_nameless(void)
{
	char path[32];

	nameless = make("deleted", O_RDWR | O_CLOEXEC);
	if (write(nameless, "abcdef", 6) != 6 || pwrite(nameless, "xyz", 3, HOLE) != 3 ||
		unlink("deleted"))
		wrong("deleted", nameless, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", nameless);
	again = open(path, O_RDONLY);
	lseek(again, HOLE, SEEK_SET);
	dup(again);
	memory = memfd_create("memory", 0);
	if (ftruncate(memory, 10000) || pwrite(memory, "m", 1, 9999) != 1)
		wrong("memory", memory, 0);
}

static void verify_nameless(void)
{
	char buf[8] = "", *all = malloc(HOLE);
	struct stat st;

	if (pread(nameless, buf, 6, 0) != 6 || memcmp(buf, "abcdef", 6))
		wrong("content", nameless, 0);
	if (pread(nameless, all, HOLE - 6, 6) != HOLE - 6 || *all || memcmp(all, all + 1, HOLE - 7))
		wrong("hole", nameless, 0);
	if (fstat(nameless, &st) || st.st_size != HOLE + 3 || st.st_blocks > HOLE / 1024)
		wrong("size, or the hole", nameless, (int)st.st_blocks);
	if (read(again, buf, 8) != 3 || memcmp(buf, "xyz", 3))
		wrong("content", again, 0);
	/* What is written to the one is read from the other. */
	if (pwrite(nameless, "new", 3, HOLE) != 3 || pread(again, buf, 3, HOLE) != 3 ||
		memcmp(buf, "new", 3))
		wrong("not the same file", again, 0);
	if (fstat(memory, &st) || st.st_size != 10000 || pread(memory, buf, 8, 9999) != 1 ||
		buf[0] != 'm')
		wrong("content", memory, 0);
	values += 6;
}

static bool has_name(int fd)
{
	return fd != nameless && fd != memory && had[fd].st.st_nlink;
}

static void verify_fd(int fd)
{
	const struct state *was = &had[fd];
	struct state now;

	look(fd, &now);
	for (int i = 0; i < FDS; i++, values++)
		if (now.same[i] != was->same[i])
			wrong("duplicates", fd, i);
	if (now.fd_flags != was->fd_flags)
		wrong("close-on-exec", fd, now.fd_flags);
	values++;
	if (fd < 3 || was->same[1] || was->same[2])
		return; /* the receiver's */
	if (now.flags != was->flags)
		wrong("flags", fd, now.flags);
	if (now.at != was->at)
		wrong("position", fd, (int)now.at);
	if (has_name(fd) && (now.st.st_ino != was->st.st_ino || now.st.st_dev != was->st.st_dev))
		wrong("another file", fd, 0);
	values += 3;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int signo;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	set_up();
	if (argc < 2 || strcmp(argv[1], "named") != 0)
		set_up_nameless();
	for (int fd = 0; fd < FDS; fd++)
		look(fd, &had[fd]);
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	sigwait(&set, &signo);
	for (int fd = 0; fd < FDS; fd++)
		verify_fd(fd);
	/* The duplicate of standard output leads where that does. */
	if (dprintf(out, "through the duplicate\n") < 0)
		wrong("standard output", out, 0);
	if (nameless >= 0)
		verify_nameless();
	printf("right %u\n", values);
	return 0;
}
