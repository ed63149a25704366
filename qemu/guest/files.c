/* SPDX-License-Identifier: MIT */
/*
 * PUT and GET: files in pieces. Neither keeps a state between two pieces, so that a host that
 * goes away in the middle leaves nothing but a file with a temporary name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/guest/guest.h"

#define PUT_SUFFIX ".tf-put"

static void make_parents(char *path)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
}

static int write_all(int fd, const uint8_t *data, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int put(
	uint32_t flags, mode_t mode, char *path, uint64_t offset, const void *data, size_t len)
{
	char temp[TF_AGENT_MAX_PATH + sizeof(PUT_SUFFIX)];
	int how = O_WRONLY | O_CLOEXEC | O_NOFOLLOW;
	int fd, rc;

	snprintf(temp, sizeof(temp), "%s" PUT_SUFFIX, path);
	if (flags & TF_AGENT_PUT_FIRST) {
		make_parents(path);
		how |= O_CREAT | O_TRUNC;
	}
	fd = open(temp, how, 0600);
	if (fd < 0)
		return -errno;
	rc = write_all(fd, data, len, offset);
	if (rc == 0 && (flags & TF_AGENT_PUT_LAST) &&
		(fchmod(fd, mode & 07777) < 0 || rename(temp, path) < 0))
		rc = -errno;
	close(fd);
	if (rc < 0)
		unlink(temp);
	return rc;
}

void guest_put(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	uint32_t flags = tf_wire_get_u32(r);
	uint32_t mode = tf_wire_get_u32(r);
	char *path = tf_wire_get_string(r, TF_AGENT_MAX_PATH);
	uint64_t offset = tf_wire_get_u64(r);
	size_t len;
	const void *data = tf_wire_get_blob(r, TF_AGENT_CHUNK, &len);
	int rc = -EBADMSG;

	if (data && path && path[0] == '/')
		rc = put(flags, mode, path, offset, data, len);
	free(path);
	guest_reply(g, tag, rc);
}

void guest_get(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	static uint8_t data[TF_AGENT_CHUNK];
	char *path = tf_wire_get_string(r, TF_AGENT_MAX_PATH);
	uint64_t offset = tf_wire_get_u64(r);
	uint32_t count = tf_wire_get_u32(r);
	ssize_t n = -EBADMSG;
	size_t mark;

	if (!r->failed && count <= sizeof(data)) {
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

		n = fd < 0 ? -1 : pread(fd, data, count, (off_t)offset);
		if (n < 0)
			n = -errno;
		if (fd >= 0)
			close(fd);
	}
	free(path);
	mark = guest_reply_begin(g, tag, n < 0 ? (int)n : 0);
	if (n >= 0)
		tf_wire_blob(&g->out, data, (size_t)n);
	guest_reply_end(g, mark, tag);
}
