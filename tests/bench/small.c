/* SPDX-License-Identifier: MIT */
/*
 * small URI ROUNDS: a program with 1 MiB of its own sends itself to a receiver, and says how many
 * microseconds passed until each copy's first word was here. Static: also for QEMU user mode.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/io.h"
#include "core/telefork.h"

#define HEAP (1u << 20)

static _Noreturn void be_copy(void)
{
	int back = telefork_peer_fd();
	char end;

	_exit(write(back, "x", 1) != 1 || read(back, &end, 1));
}

/* The word first, the snapshot's end later: until the job is done the answer is the snapshot's. */
static int go(const char *uri, struct telefork_result *result)
{
	int fd = telefork_dial(uri, NULL, result), rc;
	struct telefork_job *job;
	struct pollfd done;
	uint64_t start;
	char word;

	if (fd < 0)
		return fd;
	start = tf_now_ns();
	rc = telefork(fd, NULL, &job);
	if (!rc)
		be_copy();
	if (rc != TELEFORK_PARENT)
		return rc;
	done = (struct pollfd){.fd = telefork_job_fd(job), .events = POLLIN};
	if (poll(&done, 1, -1) == 1 && read(fd, &word, 1) == 1)
		printf("%llu\n", (unsigned long long)(tf_now_ns() - start) / 1000);
	rc = telefork_wait(job, result);
	close(fd);
	return rc;
}

int main(int argc, char **argv)
{
	static struct telefork_result result;
	char *heap = malloc(HEAP);
	int rc = 0;

	if (argc < 3 || !heap)
		return 64;
	memset(heap, 'h', HEAP);
	for (int i = atoi(argv[2]); i > 0 && !rc; i--)
		rc = go(argv[1], &result);
	if (rc)
		fprintf(stderr, "small: %s\n", *result.message ? result.message : telefork_why());
	free(heap);
	return rc ? 1 : 0;
}
