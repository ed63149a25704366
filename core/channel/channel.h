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

#define TF_MOVE_ID      16 /* bytes of a move's id, which are random */
#define TF_MOVE_ID_TEXT 32 /* the same in hexadecimal digits */

/* What a client comes for. */
enum tf_errand_kind {
	TF_ERRAND_BRING,  /* it brings a process, which runs as soon as it is there */
	TF_ERRAND_MOVE,   /* it brings a process, which runs when it says so: tf_commit */
	TF_ERRAND_SETTLE, /* it asks what became of a move, and wants that decided */
	TF_ERRAND_KEEP,   /* it brings a process that is to be kept as a zygote of that name */
	TF_ERRAND_ZYGOTE, /* it asks something about zygotes: struct tf_zygote_ask follows */
	TF_ERRAND_CHAIN,  /* it brings a process for this and other receivers (core/many.h) */
	TF_ERRAND_ROUNDS, /* as TF_ERRAND_MOVE, but rounds of memory come first (stream.h) */
	TF_ERRANDS,
};

struct tf_errand {
	uint32_t kind;
	uint8_t id[TF_MOVE_ID]; /* of the move; or a zygote's name (struct tf_zygote_name) */
};

/* An id, from the kernel's random numbers; as text, and back: false if the text is none. */
void tf_move_id_new(uint8_t id[static TF_MOVE_ID]);
void tf_move_id_text(const uint8_t id[static TF_MOVE_ID], char text[static TF_MOVE_ID_TEXT + 1]);
bool tf_move_id_parse(const char *text, uint8_t id[static TF_MOVE_ID]);

/* --- zygotes (zygote_name.c) --- */

#define TF_ZYGOTE_NAME TELEFORK_ZYGOTE_NAME

/* As it travels: what is left is zero. */
struct tf_zygote_name {
	char text[TF_ZYGOTE_NAME];
};

enum tf_zygote_what {
	TF_ZYGOTE_SPAWN, /* n copies, with indices from first on (0: where the last ended) */
	TF_ZYGOTE_LIST,
	TF_ZYGOTE_DROP,
	TF_ZYGOTE_WHATS,
};

/* Is answered by struct tf_reply, whose memory says how many records follow: i32 ids of copies, or
 * struct tf_zygote_info. */
struct tf_zygote_ask {
	uint32_t what, n, first, reserved;
	struct tf_zygote_name name;
};

#define TF_SPAWN_MAX   4096u /* copies by one request */
#define TF_ZYGOTES_MAX 1024u

struct tf_zygote_info {
	struct tf_zygote_name name;
	int32_t pid;
	uint32_t running; /* copies */
	uint64_t made, memory;
	char exe[64]; /* the end of it */
};

/* The text of a name in a buffer of TF_ZYGOTE_NAME + 1; and back: 0, or _INVAL with what it may be.
 */
void tf_zygote_name_text(const struct tf_zygote_name *name, char text[static TF_ZYGOTE_NAME + 1]);
int tf_zygote_name_parse(const char *text, struct tf_zygote_name *ret, struct tf_err *e);

/* Whether it is one: letters, digits, and . _ - */
bool tf_zygote_name_valid(const struct tf_zygote_name *name);

/*
 * The greeting that comes before a stream on a socket, answered by 16 bytes and a text:
 *   client  "TFHELLO1" u32 version u32 token_size, u32 errand u8 id[16], token
 *   server  "TFHELLO1" i32 code    u32 text_size,  text
 * The text of code 0 has a word for each thing that the server can do besides; others are ignored.
 */
#define TF_OFFER_LZ4   1u /* "lz4": it takes extents that are compressed so */
#define TF_OFFER_ZSTD  2u /* "zstd" */
#define TF_OFFER_STORE 4u /* "store": and lists of hashes, for it keeps pages */

/* Client's part; errand NULL: it brings a process. *ret_offers (NULL: not asked for): TF_OFFER_*.
 * [child] */
int tf_greet_server(struct tf_io *io, const char *token, const struct tf_errand *errand,
	uint32_t *ret_offers, struct tf_err *e);

/* Its two halves: what is said, and what comes back. [child] */
int tf_greet_say(
	struct tf_io *io, const char *token, const struct tf_errand *errand, struct tf_err *e);
int tf_greet_answer(struct tf_io *io, uint32_t *ret_offers, struct tf_err *e);

/* Server's part: hears the client out, and compares the token in constant time; token NULL: any is
 * accepted. What is wrong stands in e (which may hold a reason already), for tf_greet_tell().
 * 0, or _PROTOCOL, or as tf_io_read(): then nobody is there to be told. */
int tf_greet_hear(struct tf_io *io, const char *token, struct tf_errand *ret, struct tf_err *e);

/* Tells the client that it is welcome, or why not. Returns e->code. */
int tf_greet_tell(struct tf_io *io, uint32_t offers, struct tf_err *e);

/* The word of a sender that its process stands still for good, and that the copy is to run:
 * "TFCOMMIT" and the move's id. Reading: _PROTOCOL if it is another one, or as tf_io_read(). */
int tf_commit_write(struct tf_io *io, const uint8_t id[static TF_MOVE_ID], struct tf_err *e);
int tf_commit_read(struct tf_io *io, const uint8_t id[static TF_MOVE_ID], struct tf_err *e);

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
