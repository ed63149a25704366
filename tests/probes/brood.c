/* SPDX-License-Identifier: MIT */
/*
 * A program that becomes a zygote, and what its copies say of themselves.
 *
 *   brood DIR URI NAME TOKEN  sends itself; then the copies, at telefork()'s return
 *   brood DIR [PATH]          is captured from outside, with three more threads that hold locks,
 *                             and shared memory in a file of this name, or in one without a name
 *
 * Each writes DIR/at.ID (the latter when there is DIR/begin), waits until there is DIR/go, and
 * writes DIR/done.ID: a line of words for tests/zygote.sh. ID is the index, or the process id. All
 * are there at the same time, so that what they share by mistake is seen.
 */
#include "core/telefork.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS 3
#define BYTES   (1u << 20)

static const char *folder;
static unsigned char *plain, *wiped, *absent;
static unsigned *shared, *named;
static int named_fd = -1;
static pthread_mutex_t own, held[THREADS];
static _Atomic int go, right, waiting;
static int file;

static void *map(int flags, int advice)
{
	void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || (advice && madvise(at, BYTES, advice)))
		exit(2);
	memset(at, 0x5a, BYTES);
	return at;
}

static void init_lock(pthread_mutex_t *m)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(m, &a);
}

/* Only its holder may unlock it, who is known by his thread id. */
static void *hold(void *arg)
{
	pthread_mutex_t *m = arg;

	pthread_mutex_lock(m);
	waiting++;
	while (!go)
		usleep(1000);
	right += !pthread_mutex_unlock(m);
	return NULL;
}

static void say(const char *what, long id, const char *text)
{
	char path[512], whole[600];
	int fd;

	snprintf(path, sizeof(path), "%s/.%ld", folder, id);
	snprintf(whole, sizeof(whole), "%s/%s.%ld", folder, what, id);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) || rename(path, whole))
		_exit(3);
}

static void wait_for(const char *what)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, what);
	while (access(path, F_OK))
		usleep(2000);
}

/* Memory behind a descriptor, which its mapping shows. */
static void map_named(const char *path)
{
	named_fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
			: memfd_create("brood", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (named_fd < 0 || ftruncate(named_fd, BYTES) ||
		(!path && fcntl(named_fd, F_ADD_SEALS, F_SEAL_GROW)))
		exit(2);
	named = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, named_fd, 0);
	if (named == MAP_FAILED)
		exit(2);
	memset(named, 0x5a, BYTES);
}

/* 1: it was alone with it; 99: the two do not belong together. */
static unsigned look_named(void)
{
	unsigned at_end = 0, first = 0;

	if (named_fd < 0)
		return 0;
	if (pread(named_fd, &first, sizeof(first), 0) != sizeof(first) ||
		pread(named_fd, &at_end, sizeof(at_end), BYTES - sizeof(at_end)) !=
			sizeof(at_end) ||
		fcntl(named_fd, F_GET_SEALS) != F_SEAL_GROW)
		return 99;
	return first == *named && at_end == 0x5a5a5a5a ? first - 0x5a5a5a5a : 99;
}

/* What a copy alone has, and what all have. */
static void look(long id, pthread_t *threads, unsigned n)
{
	const unsigned char *random = (const void *)getauxval(AT_RANDOM);
	unsigned char ours = 0, wipe = 0;
	char text[512], byte = 0;
	int at = sprintf(text, "index=%u random=", telefork_index());

	for (int i = 0; i < 16; i++)
		at += sprintf(text + at, "%02x", random[i]);
	++*shared;
	if (named)
		++*named;
	plain[0]++;
	say("at", id, "");
	wait_for("go");
	go = 1;
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < BYTES; i++) {
		wipe |= wiped[i];
		ours |= plain[i] ^ (i ? 0x5a : 0x5b);
	}
	sprintf(text + at,
		" wiped=%d memory=%d shared=%u named=%u absent=%x lock=%d threads=%d file=%d\n",
		!wipe, !ours, *shared - 0x5a5a5a5a, look_named(), absent ? absent[1] : 0,
		!pthread_mutex_unlock(&own), right,
		file < 0                    ? -1
		: read(file, &byte, 1) == 1 ? byte
					    : -errno);
	say("done", id, text);
}

static int become(const char *uri, const char *name, const char *token)
{
	struct telefork_options o = {.zygote = name, .token = *token ? token : NULL};
	struct telefork_result r;
	struct telefork_job *job;
	int fd = telefork_dial(uri, &o, &r), rc;

	if (fd < 0) {
		printf("%s\n", r.message);
		return 1;
	}
	absent = NULL; /* no fork has it */
	file = -1;     /* nor this file */
	rc = telefork(fd, &o, &job);
	if (!rc) {
		look(telefork_index(), NULL, 0);
		_exit(telefork_peer_fd() < 0 ? 0 : 4);
	}
	if (rc < 0 || telefork_wait(job, &r)) {
		printf("%s\n", rc < 0 ? telefork_why() : r.message);
		return 1;
	}
	printf("kept %d\n", (int)r.pid);
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	folder = argv[1];
	plain = map(MAP_PRIVATE, 0);
	wiped = map(MAP_PRIVATE, MADV_WIPEONFORK);
	absent = map(MAP_PRIVATE, MADV_DONTFORK);
	shared = map(MAP_SHARED, 0);
	file = open(argv[0], O_RDONLY | O_CLOEXEC);
	init_lock(&own);
	pthread_mutex_lock(&own);
	if (argc > 4)
		return become(argv[2], argv[3], argv[4]);
	map_named(argv[2]);
	for (int i = 0; i < THREADS; i++) {
		init_lock(&held[i]);
		pthread_create(&threads[i], NULL, hold, &held[i]);
	}
	while (waiting < THREADS)
		usleep(1000);
	lseek(file, 1, SEEK_SET);
	say("ready", 0, "");
	wait_for("begin");
	look(getpid(), threads, THREADS);
	return 0;
}
