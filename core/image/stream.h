/* SPDX-License-Identifier: MIT */
/*
 * The image on its way: a header, extents {offset, size, crc, data} of the very same sparse file,
 * a trailer, and the receiver's answer. A file holds the same extents at their offsets, and their
 * table behind data_end. All integers little-endian. Runs in a forked child: no allocator, no lock.
 *
 *   stream:  header | extent data | extent data | … | trailer        answer comes back: tf_reply
 *   file:    head (ELF) | segments' data, sparse | table header | extents
 *
 * The first extents carry the head [0, head_size) in order; then memory in any order. An extent's
 * crc covers its offset, size and data; the trailer's covers the extents' crcs in order, so that a
 * lost, doubled or exchanged extent is noticed.
 *
 * Post-copy, where the image has memory that comes later: behind the trailer, and the answer that
 * the process runs, the extents of that memory follow, and a trailer of their own; then comes a
 * second answer. Meanwhile the receiver may ask for an address whose page is to come next, and says
 * how much it has taken: tf_want.
 */
#ifndef TF_IMAGE_STREAM_H
#define TF_IMAGE_STREAM_H

#include "core/base/io.h"
#include "core/image/image.h"

#define TF_STREAM_MAGIC   "TELEFORK"
#define TF_TABLE_MAGIC    "TFEXTENT"
#define TF_REPLY_MAGIC    "TFREPLY1"
#define TF_WHY_MS         10000      /* so long a receiver that has closed may take to say why */
#define TF_EXTENT_MAX     (1u << 20) /* bytes of data in one extent, at most */
#define TF_EXTENT_SIZE    (1u << 17) /* in one of ours: it is checked and sent from the cache */
#define TF_TRAILER_OFFSET UINT64_MAX
#define TF_MAX_EXTENTS    (1u << 28)

/* Post-copy: extents that tell something of memory, in place of bytes. */
#define TF_ZEROS_OFFSET (UINT64_MAX - 1) /* struct tf_run[]: these pages are zero */
#define TF_OWNED_OFFSET                                                                      \
	(UINT64_MAX - 2) /* u64[]: addresses of words in which a thread's id stands, because \
			    it holds a lock; of the next extent of bytes */

#define TF_ABSENT_OFFSET (UINT64_MAX - 6) /* struct tf_run[]: these pages were nowhere */

/* Of a stream to a receiver that offered it: what follows has extents that are packed, until the
 * next such mark. The upper bits of a packed extent's size say how; its data begins with a u32, how
 * many bytes follow, but for TF_PACK_LIST, where hashes of pages (core/pack/store.h) follow. Its
 * crc covers what it stands for, as if it were not packed; of a list, what stands there. */
#define TF_PACKED_OFFSET (UINT64_MAX - 3)
#define TF_PACK_SHIFT    24
#define TF_PACK_CODEC    0xfu  /* enum tf_codec */
#define TF_PACK_LIST     0x10u /* hashes of its pages: a tf_lacks comes back */
#define TF_PACK_REST     0x20u /* the pages of the oldest list that were lacking */
#define TF_PACK_WINDOW   8u    /* lists whose rest has not come */

#define TF_LACKS_MAGIC "TFLACKS1"

/* Which pages of a list the receiver has not got. */
struct tf_lacks {
	char magic[8];
	uint64_t offset;                    /* of the list */
	uint8_t lacks[TF_EXTENT_MAX >> 15]; /* a bit for each page of 4096 bytes */
	uint32_t size;                      /* of the list */
	uint32_t crc;                       /* of all before */
};

/*
 * Pre-copy, a move whose errand says so (TF_ERRAND_ROUNDS): before the header of the stream comes
 * tf_rounds_header, and is answered: TF_OUTCOME_COMING, or (with the reason) TF_OUTCOME_GONE: the
 * stream comes at once. Then, while the process runs here, rounds of extents whose offset is an
 * address of the process, each round with its trailer, which is answered by tf_taken:
 *   header | answer | { places  extents  trailer | tf_taken } ... | extent TF_ROUNDS_OVER | stream
 * What counts of all that, the image says: `staged`. All else of it is as if it had not come.
 * Who cannot take a round after all says so at any place in it, by a reply with TF_OUTCOME_GONE and
 * the reason: nothing of any round counts, and the sender ends this one, which is the last.
 */
#define TF_ROUNDS_MAGIC "TFROUNDS"
#define TF_TAKEN_MAGIC  "TFTAKEN1"
#define TF_PLACES_OFFSET \
	(UINT64_MAX - 4)                /* struct tf_round_place[]: where something may come from */
#define TF_ROUNDS_OVER (UINT64_MAX - 5) /* no size, no crc, no bytes */
#define TF_ROUNDS_MAX  30               /* rounds of one move */

struct tf_rounds_header {
	char magic[8];
	uint32_t machine;   /* ELF e_machine */
	uint32_t page_size; /* bytes */
	uint64_t memory;    /* bytes of its memory that may come, at most, as it is now */
	uint32_t
		shift; /* GiB: where spans of addresses begin; how long they are, the answer says */
	uint32_t crc;  /* of the 28 bytes before */
};

#define TF_SPAN_SHIFT 30                  /* to bytes */
#define TF_SPAN_MAX   (UINT64_C(1) << 38) /* which they have with 47 bits of address and more */

/* The span that an address lies in; shift: bytes. */
static inline uint64_t tf_span_of(uint64_t address, uint64_t span, uint64_t shift)
{
	return (address - shift) / span;
}

/* A part of a mapping. What was told does not end, though the mapping may. */
struct tf_round_place {
	uint64_t start, end;
	uint32_t vmflags; /* TF_PLACE_FLAGS that it has */
	uint32_t bytes;   /* non-zero: some may come; else it is only in the way */
};

#define TF_PLACE_FLAGS (TF_VMF_NORESERVE | TF_VMF_HUGEPAGE | TF_VMF_NOHUGEPAGE)

/* The receiver has the round. */
struct tf_taken {
	char magic[8];
	uint64_t bytes; /* of all rounds */
};

#define TF_WANT_MAGIC "TFWANT01"
#define TF_WANT_ALL   UINT64_MAX /* everything comes before the process runs */

/* TF_TAKEN_MAGIC: not a request, but so many bytes of extents are in place by now, while some are
 * asked for. */
struct tf_want {
	char magic[8];
	uint64_t address; /* in the process, or TF_WANT_ALL; or a number of bytes */
};

#define TF_STREAM_RELAY 1u   /* the receiver stays between: framed output, exit status (yoyo) */
#define TF_STREAM_ASK   2u   /* only the head comes: could that process live there? */
#define TF_STREAM_OFFER 256u /* pages of files that are there need not come: known.h */

struct tf_stream_header {
	char magic[8];
	uint32_t version; /* TELEFORK_FORMAT */
	uint32_t machine; /* ELF e_machine: a receiver may hand the stream to an emulated one */
	uint64_t head_size;
	uint64_t memory; /* bytes of present memory that follow the head */
	uint32_t flags;  /* TF_STREAM_* */
	uint32_t crc;    /* of the 36 bytes before */
};

struct tf_extent {
	uint64_t offset; /* in the file; TF_TRAILER_OFFSET: this is the trailer */
	uint32_t size;   /* bytes of data that follow; trailer: number of extents */
	uint32_t crc;
};

struct tf_table_header {
	char magic[8];
	uint32_t count; /* extents that follow */
	uint32_t crc;   /* the trailer's */
};

/* What an answer says of the process that was sent. */
enum tf_outcome {
	TF_OUTCOME_RUNNING,  /* it runs there, as pid */
	TF_OUTCOME_PREPARED, /* it is whole, and waits for the word to run */
	TF_OUTCOME_GONE,     /* it has never run there, and never will */
	TF_OUTCOME_UNKNOWN,  /* nothing is known of it */
	TF_OUTCOME_COMING,   /* post-copy: it runs there, and its memory is still coming */
	TF_OUTCOME_LOST,     /* post-copy: it ran there, and was ended: not all of it came */
	TF_OUTCOMES,
};

struct tf_reply {
	char magic[8];
	int32_t code; /* 0 or a TELEFORK_E_* */
	int32_t pid;
	uint64_t memory;              /* bytes filled */
	uint32_t mappings, registers; /* registers: compared by the witness, 0 without one */
	uint64_t received;            /* bytes the receiver read */
	uint32_t message_size;        /* bytes of text that follow, < TELEFORK_MESSAGE_MAX */
	uint32_t outcome;             /* enum tf_outcome */
};

struct tf_sink;

/* Sends extents of memory in a way of its own (core/pack/packer.h). */
struct tf_packer {
	/* In place of tf_sink_data(), whose parameters these are; and before the trailer. */
	int (*data)(struct tf_packer *p, struct tf_sink *s, uint64_t offset, const void *data,
		uint64_t size, bool *ret_flushed, struct tf_err *e);
	int (*end)(struct tf_packer *p, struct tf_sink *s, struct tf_err *e);
};

/* Where extents go: a stream, or a file at their offsets with the table collected in the arena. */
struct tf_sink {
	struct tf_io *io;
	bool file;
	bool crc_instruction;           /* tf_crc32c_has_instruction() */
	uint32_t count, chain;          /* of extents so far */
	uint32_t max_table;             /* file */
	struct tf_extent *table;        /* file */
	struct tf_stream_header header; /* a stream's, which goes with what is written first */
	struct tf_extent batch[256];
	struct iovec iov[1 + 512];
	int n_batch;
	uint32_t batch_bytes;
	uint64_t data;            /* bytes of extents written, head included */
	struct tf_packer *packer; /* NULL: none; set it behind the head */
	/* Of TELEFORK_MESSAGE_MAX, "", for tf_sink_hear(); NULL: nobody may refuse. */
	char *refusal;
};

/* The crc of an extent over data. */
uint32_t tf_extent_crc(uint64_t offset, uint32_t size, const void *data);

/* The same, for many; instruction: tf_crc32c_has_instruction(). */
uint32_t tf_extent_crc_with(bool instruction, uint64_t offset, uint32_t size, const void *data);

/* The check of a chain, extended by one extent's crc. */
uint32_t tf_chain_crc(uint32_t chain, uint32_t extent_crc);

/* Starts: io is a stream, whose header goes with the first flush, or (file) a regular file.
 * max_extents bounds the table (arena). 0 or _NOMEM. */
int tf_sink_begin(struct tf_sink *s, struct tf_io *io, bool file, const struct tf_image *img,
	uint64_t memory, uint32_t flags, uint32_t max_extents, struct tf_arena *a,
	struct tf_err *e);

/* Queues [data, data+size) as extents at offset; data must stay as it is until the next flush.
 * Flushes by itself when enough is queued; *ret_flushed (may be NULL) is then set. */
int tf_sink_data(struct tf_sink *s, uint64_t offset, const void *data, uint64_t size,
	bool *ret_flushed, struct tf_err *e);

/* The same past the packer. */
int tf_sink_plain(struct tf_sink *s, uint64_t offset, const void *data, uint64_t size,
	bool *ret_flushed, struct tf_err *e);

/* Queues an extent in a form of its own, of a packer: its head, and n bytes that stay as they are
 * until the next flush. Counts nothing. */
int tf_sink_queue(struct tf_sink *s, const struct tf_extent *head, const void *data, uint32_t n,
	struct tf_err *e);

/* Writes out what is queued. */
int tf_sink_flush(struct tf_sink *s, struct tf_err *e);

/* Flushes, then the trailer, or (file) the table and the file's length. */
int tf_sink_end(struct tf_sink *s, const struct tf_image *img, struct tf_err *e);

/* Behind the trailer of a stream: extents that come later are counted anew. */
void tf_sink_anew(struct tf_sink *s);

/* The rest of a reply that the receiver gives while it is sent to, of which `there` bytes are in r:
 * 0, if he wants no more (TF_OUTCOME_GONE) and may say so, once: why is in s->refusal. Else it is
 * an error. */
int tf_sink_hear(struct tf_sink *s, struct tf_reply *r, size_t there, struct tf_err *e);

/* Reads how something begins that the receiver is to say, and hears what he says before of wanting
 * no more. 0, or as tf_io_read() or tf_sink_hear(). */
int tf_sink_await(struct tf_sink *s, char magic[static 8], struct tf_err *e);

/* Reads and checks a stream's header. _PROTOCOL, _VERSION, _CHECKSUM, _LIMIT or as tf_io_read. */
int tf_stream_read_header(struct tf_io *io, struct tf_stream_header *h, struct tf_err *e);

/* Checks a header that was read otherwise (peeked at). */
int tf_stream_check_header(const struct tf_stream_header *h, struct tf_err *e);

/* Reads the extents of the head into bytes[head_size]; *chain, *count carry on to the restorer. */
int tf_stream_read_head(struct tf_io *io, uint8_t *bytes, uint64_t head_size, uint32_t *chain,
	uint32_t *count, struct tf_err *e);

/* Reads the table of a saved image: img has been decoded from it. *ret_table lives in the arena.
 * _IMAGE when it is missing or damaged (the file was cut). */
int tf_table_read(int fd, const struct tf_image *img, struct tf_arena *a,
	struct tf_table_header *ret_header, struct tf_extent **ret_table, struct tf_err *e);

/* Writes the answer; message may be NULL. Reads it into *r and message[TELEFORK_MESSAGE_MAX]. */
int tf_reply_write(
	struct tf_io *io, const struct tf_reply *r, const char *message, struct tf_err *e);
int tf_reply_read(struct tf_io *io, struct tf_reply *r, char *message, struct tf_err *e);

/* The same when its first bytes, r->magic at least, are there already. */
int tf_reply_read_rest(
	struct tf_io *io, struct tf_reply *r, size_t there, char *message, struct tf_err *e);

#endif
