/* SPDX-License-Identifier: MIT */
/*
 * The way back of a copy that has none (telefork_on_signal): the process listens on a socket of the
 * same kind as the one it sends to, and the copy, which remembers the address, calls there.
 */
#include "core/channel/channel.h"
#include "tests/probes/probe.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 120000

/* The address of this machine as the destination sees it: that of a socket connected to it. */
static bool own_host(const struct tf_address *to, char *host, socklen_t size, struct tf_err *e)
{
	struct sockaddr_storage own;
	socklen_t len = sizeof(own);
	struct tf_resolved r;
	bool v6;
	int fd;

	if (tf_address_resolve(to, false, &r, e))
		return false;
	fd = socket(r.addr[0].ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&r.addr[0], r.len[0]) ||
		getsockname(fd, (struct sockaddr *)&own, &len))
		return false;
	close(fd);
	v6 = own.ss_family == AF_INET6;
	return inet_ntop(own.ss_family,
		v6 ? (void *)&((struct sockaddr_in6 *)&own)->sin6_addr
		   : (void *)&((struct sockaddr_in *)&own)->sin_addr,
		host, size);
}

bool probe_back_open(struct probe_back *b, const char *destination)
{
	struct tf_address to, here;
	struct tf_err e = {0};
	char text[1024], host[INET6_ADDRSTRLEN];
	int rc = tf_address_parse(destination, &to, &e);

	b->listener = -1;
	if (!rc && to.kind == TF_ADDRESS_UNIX) {
		snprintf(text, sizeof(text), "unix:%.900s.%d", to.path, (int)getpid());
	} else if (!rc && to.kind == TF_ADDRESS_TCP && own_host(&to, host, sizeof(host), &e)) {
		snprintf(text, sizeof(text), strchr(host, ':') ? "tcp://[%s]:0" : "tcp://%s:0",
			host);
	} else {
		fprintf(stderr, "no way back from %s: %s\n", destination, e.text);
		return false;
	}
	rc = tf_address_parse(text, &here, &e);
	if (!rc)
		b->listener = tf_channel_listen(&here, b->address, sizeof(b->address), &e);
	if (b->listener < 0)
		fprintf(stderr, "%s: %s\n", text, e.text);
	return b->listener >= 0;
}

int probe_back_say(const struct probe_back *b)
{
	struct tf_address a;
	struct tf_resolved r;
	struct tf_err e = {0};
	int fd, code;

	if (!*b->address)
		return probe_say(STDOUT_FILENO);
	if (tf_address_parse(b->address, &a, &e) || tf_address_resolve(&a, false, &r, &e) ||
		(fd = tf_channel_connect(&r, b->address, NULL, &e)) < 0) {
		fprintf(stderr, "no way back: %s\n", e.text);
		probe_say(STDOUT_FILENO);
		return 1;
	}
	code = probe_say(fd);
	close(fd);
	return code;
}

int probe_back_hear(const char *name, struct probe_back *b)
{
	struct pollfd in = {.fd = b->listener, .events = POLLIN};
	int fd = -1, code;

	if (poll(&in, 1, PATIENCE_MS) > 0)
		fd = accept(b->listener, NULL, NULL);
	if (!strncmp(b->address, "unix:", 5))
		unlink(b->address + 5);
	close(b->listener);
	if (fd < 0) {
		printf("not ok: %s: no word from the copy\n", name);
		return 1;
	}
	code = probe_hear(name, fd);
	close(fd);
	return code;
}
