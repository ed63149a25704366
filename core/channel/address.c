/* SPDX-License-Identifier: MIT */
/* Addresses as people write them, and what the resolver makes of them. */
#include "core/channel/channel.h"

#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static int bad(struct tf_err *e, const char *uri, const char *why)
{
	return tf_fail(e, TELEFORK_E_ADDRESS,
		"address \"%s\": %s (tcp://host:port, unix:path, ssh://user@host, file:path, -)",
		uri, why);
}

static int parse_tcp(const char *rest, struct tf_address *a, struct tf_err *e)
{
	const char *colon = strrchr(rest, ':'), *host = rest, *end = colon;

	if (!colon || !colon[1])
		return bad(e, a->text, "a port is missing");
	if (*host == '[' && end > host && end[-1] == ']') { /* [::1]:7700 */
		host++;
		end--;
	}
	if (end == host)
		return bad(e, a->text, "a host is missing");
	if ((size_t)(end - host) >= sizeof(a->host) || strlen(colon + 1) >= sizeof(a->port))
		return bad(e, a->text, "it is too long");
	memcpy(a->host, host, (size_t)(end - host));
	memcpy(a->port, colon + 1, strlen(colon));
	a->kind = TF_ADDRESS_TCP;
	return 0;
}

/* ssh's own files may hand these words to a shell (ProxyCommand, Match exec). */
static bool is_tame(const char *text, size_t n)
{
	static const char others[] = "._-+%:@";

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)text[i]) && !(text[i] && strchr(others, text[i])))
			return false;
	return true;
}

static int parse_ssh(const char *rest, struct tf_address *a, struct tf_err *e)
{
	size_t n = strlen(rest), n_user, n_host;
	const char *host, *port, *end;

	n -= n && rest[n - 1] == '/';
	host = memrchr(rest, '@', n);
	host = host ? host + 1 : rest;
	n_user = (size_t)(host - rest);
	end = rest + n;
	port = memrchr(host, ':', (size_t)(end - host));
	if (*host == '[') { /* [::1]:22 */
		const char *close = memchr(host, ']', (size_t)(end - host));

		if (!close || (close + 1 < end && close[1] != ':'))
			return bad(e, a->text, "a bracket is not closed");
		host++;
		port = close + 1 < end ? close + 1 : NULL;
		n_host = (size_t)(close - host);
	} else {
		n_host = (size_t)((port ? port : end) - host);
	}
	if (!n_host || n_user == 1)
		return bad(e, a->text, n_host ? "a user is missing" : "a host is missing");
	if (*rest == '-' || *host == '-' || !is_tame(rest, n_user) || !is_tame(host, n_host))
		return bad(e, a->text, "no name of a user or host for ssh");
	if (n_user + n_host >= sizeof(a->host))
		return bad(e, a->text, "it is too long");
	memcpy(a->host, rest, n_user);
	memcpy(a->host + n_user, host, n_host);
	n = port ? (size_t)(end - ++port) : 0;
	if (port && (!n || n > 5 || strspn(port, "0123456789") < n))
		return bad(e, a->text, "a port is a number");
	memcpy(a->port, port ? port : "", n);
	a->kind = TF_ADDRESS_SSH;
	return 0;
}

static int parse_path(
	const char *path, enum tf_address_kind kind, struct tf_address *a, struct tf_err *e)
{
	if (!*path)
		return bad(e, a->text, "a path is missing");
	if (kind == TF_ADDRESS_UNIX && strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return bad(e, a->text, "the path of a socket has at most 107 bytes");
	memcpy(a->path, path, strlen(path) + 1);
	a->kind = kind;
	return 0;
}

int tf_address_parse(const char *uri, struct tf_address *a, struct tf_err *e)
{
	*a = (struct tf_address){0};
	if (!uri || !*uri)
		return bad(e, "", "it is empty");
	if (strlen(uri) >= sizeof(a->text))
		return tf_fail(e, TELEFORK_E_ADDRESS, "the address has more than %zu bytes",
			sizeof(a->text) - 1);
	memcpy(a->text, uri, strlen(uri) + 1);
	if (!strcmp(uri, "-")) {
		a->kind = TF_ADDRESS_STDIO;
		return 0;
	}
	if (!strncmp(uri, "tcp://", 6))
		return parse_tcp(uri + 6, a, e);
	if (!strncmp(uri, "ssh://", 6))
		return parse_ssh(uri + 6, a, e);
	if (!strncmp(uri, "unix:", 5))
		return parse_path(uri + 5, TF_ADDRESS_UNIX, a, e);
	if (!strncmp(uri, "file:", 5))
		return parse_path(uri + 5, TF_ADDRESS_FILE, a, e);
	if (strstr(uri, "://"))
		return bad(e, uri, "this scheme is not known");
	return parse_path(uri, TF_ADDRESS_FILE, a, e);
}

static int resolve_tcp(
	const struct tf_address *a, bool passive, struct tf_resolved *r, struct tf_err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
	int rc;

	hints.ai_flags = passive ? AI_PASSIVE : 0;
	rc = getaddrinfo(!strcmp(a->host, "*") ? NULL : a->host, a->port, &hints, &list);
	if (rc)
		return tf_fail(e, TELEFORK_E_ADDRESS, "%s: %s", a->text, gai_strerror(rc));
	for (struct addrinfo *i = list; i && r->n < TF_RESOLVED_MAX; i = i->ai_next) {
		memcpy(&r->addr[r->n], i->ai_addr, i->ai_addrlen);
		r->len[r->n++] = i->ai_addrlen;
	}
	freeaddrinfo(list);
	return 0;
}

int tf_address_resolve(
	const struct tf_address *a, bool passive, struct tf_resolved *r, struct tf_err *e)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	*r = (struct tf_resolved){0};
	if (a->kind == TF_ADDRESS_TCP)
		return resolve_tcp(a, passive, r, e);
	if (a->kind != TF_ADDRESS_UNIX)
		return bad(e, a->text, "this is no address of a socket");
	memcpy(un.sun_path, a->path, strlen(a->path));
	memcpy(&r->addr[0], &un, sizeof(un));
	r->len[0] = sizeof(un);
	r->n = 1;
	return 0;
}
