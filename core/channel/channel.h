/* SPDX-License-Identifier: MIT */
/*
 * A channel is a file descriptor; this folder turns an address into one. Addresses are
 *   tcp://host:port   unix:path   ssh://user@host:port   file:path or a plain path   -
 * and nothing above knows which it was. What has to run in a forked child or a signal handler is
 * marked [child]: no allocator, no lock.
 */
#ifndef TF_CHANNEL_CHANNEL_H
#define TF_CHANNEL_CHANNEL_H

#include <sys/socket.h>

#include "core/base/io.h"

enum tf_address_kind {
	TF_ADDRESS_TCP,
	TF_ADDRESS_UNIX,
	TF_ADDRESS_SSH,
	TF_ADDRESS_FILE,
	TF_ADDRESS_STDIO,
};

#define TF_ADDRESS_TEXT 1024 /* longest address */
#define TF_RESOLVED_MAX 8    /* addresses of one host that are tried */

struct tf_address {
	enum tf_address_kind kind;
	char host[256], port[32];   /* tcp; ssh: [user@]host, port may be empty */
	char path[TF_ADDRESS_TEXT]; /* unix, file */
	char text[TF_ADDRESS_TEXT]; /* as it was given, for messages */
};

struct tf_resolved {
	unsigned n;
	struct sockaddr_storage addr[TF_RESOLVED_MAX];
	socklen_t len[TF_RESOLVED_MAX];
};

/* Takes an address apart. _ADDRESS with what is wrong and an example. */
int tf_address_parse(const char *uri, struct tf_address *a, struct tf_err *e);

/* Looks up what connect and bind need. passive: for listening.
 * _ADDRESS with the resolver's words. */
int tf_address_resolve(
	const struct tf_address *a, bool passive, struct tf_resolved *r, struct tf_err *e);

/* Connects to the first of r that answers, within limits. A descriptor, or _REFUSED, _TIMEOUT,
 * _SYSTEM naming text. [child] */
int tf_channel_connect(const struct tf_resolved *r, const char *text,
	const struct telefork_options *o, struct tf_err *e);

/* A listening socket. An abandoned unix socket is removed first. *ret_text (size bytes): the
 * address with the port that was given (tcp port 0). */
int tf_channel_listen(const struct tf_address *a, char *ret_text, size_t size, struct tf_err *e);

/*
 * The greeting that comes before a stream on a socket, 16 bytes and the token, answered by 16 bytes
 * and a text:
 *   client  "TFHELLO1" u32 version u32 token_size token
 *   server  "TFHELLO1" i32 code    u32 text_size  text
 */
int tf_greet_server(
	struct tf_io *io, const char *token, struct tf_err *e); /* client's part. [child] */

/* Server's part: compares the token in constant time; token NULL: any is accepted. Tells the client
 * what was wrong. _AUTH, _VERSION, _PROTOCOL, or as tf_io_read. */
int tf_greet_client(struct tf_io *io, const char *token, struct tf_err *e);

/* Server's part for a client that is not wanted: hears it out and tells it why.
 * Returns why->code. */
int tf_greet_refuse(struct tf_io *io, const struct tf_err *why);

/* Opens a file that has no name until tf_file_publish(). _IO. */
int tf_file_create(const char *path, struct tf_err *e);

/* Gives the file at fd, made by tf_file_create(), its name. [child] 0 or _IO. Files that were not
 * made there are left alone. */
int tf_file_publish(int fd, struct tf_err *e);

/* The two above without memory of each other, for a signal's child; the file system must have
 * O_TMPFILE. [child] */
int tf_file_create_at(const char *path, struct tf_err *e);
int tf_file_publish_at(int fd, const char *path, struct tf_err *e);

/* Forgets fd: after close. Removes what was never published. */
void tf_file_forget(int fd);

#endif
