/* SPDX-License-Identifier: MIT */
/* The stream, its file form and the answer, see stream.h. Nothing here touches process state. */
#include "core/image/stream.h"
#include "arch/arch.h"
#include "core/base/crc32c.h"
#include "core/base/text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Queued data is written out at this size: large enough to make system calls few, small enough that
 * it is in the cache still, and the other side not idle. */
#define BATCH_BYTES (2 * TF_EXTENT_SIZE)

uint32_t tf_extent_crc_with(bool instruction, uint64_t offset, uint32_t size, const void *data)
{
	struct {
		uint64_t offset;
		uint32_t size;
	} __attribute__((packed)) key = {offset, size};

	return tf_crc32c_by(instruction, tf_crc32c(0, &key, sizeof(key)), data, size);
}

uint32_t tf_extent_crc(uint64_t offset, uint32_t size, const void *data)
{
	return tf_extent_crc_with(tf_crc32c_has_instruction(), offset, size, data);
}

uint32_t tf_chain_crc(uint32_t chain, uint32_t extent_crc)
{
	return tf_crc32c(chain, &extent_crc, sizeof(extent_crc));
}

int tf_sink_begin(struct tf_sink *s, struct tf_io *io, bool file, const struct tf_image *img,
	uint64_t memory, uint32_t flags, uint32_t max_extents, struct tf_arena *a, struct tf_err *e)
{
	struct tf_stream_header *h = &s->header;

	*s = (struct tf_sink){.io = io,
		.file = file,
		.max_table = max_extents,
		.crc_instruction = tf_crc32c_has_instruction()};
	if (file) {
		s->table = tf_arena_array(a, max_extents, sizeof(*s->table));
		return s->table ? 0 : tf_fail(e, TELEFORK_E_NOMEM, "out of memory for extents");
	}
	*h = (struct tf_stream_header){
		.version = TELEFORK_FORMAT,
		.machine = img->source.machine,
		.head_size = img->head_size,
		.memory = memory,
		.flags = flags,
	};
	memcpy(h->magic, TF_STREAM_MAGIC, sizeof(h->magic));
	h->crc = tf_crc32c(0, h, offsetof(struct tf_stream_header, crc));
	s->iov[0] = (struct iovec){h, sizeof(*h)};
	return 0;
}

static int flush_file(struct tf_sink *s, struct tf_err *e)
{
	for (int i = 0; i < s->n_batch; i++) {
		int rc = tf_io_pwrite(s->io->fd, s->iov[2 * i + 2].iov_base, s->batch[i].size,
			s->batch[i].offset, e);

		if (rc)
			return rc;
		s->io->sent += s->batch[i].size;
	}
	return 0;
}

int tf_sink_flush(struct tf_sink *s, struct tf_err *e)
{
	int rc = s->file ? flush_file(s, e) : tf_io_writev(s->io, s->iov, 1 + 2 * s->n_batch, e);

	s->iov[0].iov_len = 0;
	s->n_batch = 0;
	s->batch_bytes = 0;
	return rc;
}

static void put(struct tf_sink *s, const struct tf_extent *head, const void *data, uint32_t n)
{
	struct tf_extent *x = &s->batch[s->n_batch];

	*x = *head;
	s->iov[2 * s->n_batch + 1] = (struct iovec){x, sizeof(*x)};
	s->iov[2 * s->n_batch + 2] = (struct iovec){(void *)data, n};
	s->n_batch++;
	s->batch_bytes += n;
}

static bool is_full(const struct tf_sink *s)
{
	return s->n_batch == 256 || s->batch_bytes >= BATCH_BYTES;
}

static int queue(
	struct tf_sink *s, uint64_t offset, const void *data, uint32_t size, struct tf_err *e)
{
	struct tf_extent x = {
		offset, size, tf_extent_crc_with(s->crc_instruction, offset, size, data)};

	if (s->file) {
		if (s->count == s->max_table)
			return tf_fail(e, TELEFORK_E_LIMIT, "more than %u extents", s->max_table);
		s->table[s->count] = x;
	}
	s->chain = tf_chain_crc(s->chain, x.crc);
	s->count++;
	s->data += size;
	put(s, &x, data, size);
	return 0;
}

int tf_sink_queue(struct tf_sink *s, const struct tf_extent *head, const void *data, uint32_t n,
	struct tf_err *e)
{
	put(s, head, data, n);
	return is_full(s) ? tf_sink_flush(s, e) : 0;
}

int tf_sink_data(struct tf_sink *s, uint64_t offset, const void *data, uint64_t size,
	bool *ret_flushed, struct tf_err *e)
{
	return s->packer ? s->packer->data(s->packer, s, offset, data, size, ret_flushed, e)
			 : tf_sink_plain(s, offset, data, size, ret_flushed, e);
}

int tf_sink_plain(struct tf_sink *s, uint64_t offset, const void *data, uint64_t size,
	bool *ret_flushed, struct tf_err *e)
{
	const uint8_t *p = data;

	while (size) {
		uint32_t n = size < TF_EXTENT_SIZE ? (uint32_t)size : TF_EXTENT_SIZE;
		int rc = queue(s, offset, p, n, e);

		if (rc)
			return rc;
		p += n;
		offset += n;
		size -= n;
		if (!is_full(s))
			continue;
		if ((rc = tf_sink_flush(s, e)))
			return rc;
		if (ret_flushed)
			*ret_flushed = true;
	}
	return 0;
}

void tf_sink_anew(struct tf_sink *s)
{
	s->count = s->chain = 0;
}

static int end_file(struct tf_sink *s, const struct tf_image *img, struct tf_err *e)
{
	struct tf_table_header h = {.count = s->count, .crc = s->chain};
	uint64_t bytes = (uint64_t)s->count * sizeof(struct tf_extent);
	int rc;

	memcpy(h.magic, TF_TABLE_MAGIC, sizeof(h.magic));
	rc = tf_io_pwrite(s->io->fd, s->table, bytes, img->data_end + sizeof(h), e);
	if (!rc)
		rc = tf_io_pwrite(s->io->fd, &h, sizeof(h), img->data_end, e);
	if (!rc)
		s->io->sent += sizeof(h) + bytes;
	return rc;
}

int tf_sink_end(struct tf_sink *s, const struct tf_image *img, struct tf_err *e)
{
	struct tf_extent trailer;
	int rc = s->packer ? s->packer->end(s->packer, s, e) : 0;

	if (!rc)
		rc = tf_sink_flush(s, e);
	trailer = (struct tf_extent){TF_TRAILER_OFFSET, s->count, s->chain};

	if (rc)
		return rc;
	if (s->file)
		return end_file(s, img, e);
	return tf_io_write(s->io, &trailer, sizeof(trailer), e);
}

int tf_stream_check_header(const struct tf_stream_header *h, struct tf_err *e)
{
	if (memcmp(h->magic, TF_STREAM_MAGIC, sizeof(h->magic)))
		return tf_fail(
			e, TELEFORK_E_PROTOCOL, "what arrived does not begin as a telefork stream");
	if (h->version != TELEFORK_FORMAT)
		return tf_fail(e, TELEFORK_E_VERSION,
			"the stream has format %u, this receiver reads format %d: install the same "
			"version on both sides",
			h->version, TELEFORK_FORMAT);
	if (h->crc != tf_crc32c(0, h, offsetof(struct tf_stream_header, crc)))
		return tf_fail(e, TELEFORK_E_CHECKSUM, "the stream's header arrived damaged");
	if (h->head_size < TF_HEAD_PEEK || h->head_size > TF_MAX_HEAD)
		return tf_fail(e, TELEFORK_E_IMAGE, "a head of %llu bytes (at most %llu)",
			(unsigned long long)h->head_size, (unsigned long long)TF_MAX_HEAD);
	return 0;
}

int tf_stream_read_header(struct tf_io *io, struct tf_stream_header *h, struct tf_err *e)
{
	int rc = tf_io_read(io, h, sizeof(*h), e);

	return rc ? rc : tf_stream_check_header(h, e);
}

int tf_stream_read_head(struct tf_io *io, uint8_t *bytes, uint64_t head_size, uint32_t *chain,
	uint32_t *count, struct tf_err *e)
{
	*chain = *count = 0;
	for (uint64_t at = 0; at < head_size;) {
		struct tf_extent x;
		int rc = tf_io_read(io, &x, sizeof(x), e);

		if (rc)
			return rc;
		if (x.offset != at || !x.size || x.size > TF_EXTENT_MAX || x.size > head_size - at)
			return tf_fail(e, TELEFORK_E_IMAGE,
				"extent %u: %u bytes at %llu do not continue the head", *count,
				x.size, (unsigned long long)x.offset);
		if ((rc = tf_io_read(io, bytes + at, x.size, e)))
			return rc;
		if (x.crc != tf_extent_crc(x.offset, x.size, bytes + at))
			return tf_fail(e, TELEFORK_E_CHECKSUM,
				"extent %u of the head arrived damaged", *count);
		*chain = tf_chain_crc(*chain, x.crc);
		(*count)++;
		at += x.size;
	}
	return 0;
}

int tf_table_read(int fd, const struct tf_image *img, struct tf_arena *a, struct tf_table_header *h,
	struct tf_extent **ret_table, struct tf_err *e)
{
	uint32_t chain = 0;

	if (tf_io_pread(fd, h, sizeof(*h), img->data_end, NULL) ||
		memcmp(h->magic, TF_TABLE_MAGIC, sizeof(h->magic)))
		return tf_fail(e, TELEFORK_E_IMAGE,
			"no table of extents at byte %llu: the file was cut or changed",
			(unsigned long long)img->data_end);
	*ret_table = h->count <= TF_MAX_EXTENTS ? tf_arena_array(a, h->count, sizeof(**ret_table))
						: NULL;
	if (!*ret_table)
		return tf_fail(e, TELEFORK_E_IMAGE, "a table of %u extents is too large", h->count);
	if (tf_io_pread(fd, *ret_table, (size_t)h->count * sizeof(**ret_table),
		    img->data_end + sizeof(*h), NULL))
		return tf_fail(e, TELEFORK_E_IMAGE, "the table of %u extents is cut", h->count);
	for (uint32_t i = 0; i < h->count; i++) {
		const struct tf_extent *x = &(*ret_table)[i];

		chain = tf_chain_crc(chain, x->crc);
		if (!x->size || x->size > TF_EXTENT_MAX || x->offset > img->data_end ||
			x->size > img->data_end - x->offset)
			return tf_fail(e, TELEFORK_E_IMAGE, "extent %u lies outside the image", i);
	}
	if (chain != h->crc)
		return tf_fail(e, TELEFORK_E_CHECKSUM, "the table of extents is damaged");
	return 0;
}

int tf_reply_write(
	struct tf_io *io, const struct tf_reply *r, const char *message, struct tf_err *e)
{
	struct tf_reply head = *r;
	size_t n = message ? strlen(message) : 0;
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)message, n}};

	memcpy(head.magic, TF_REPLY_MAGIC, sizeof(head.magic));
	if (n >= TELEFORK_MESSAGE_MAX)
		n = iov[1].iov_len = TELEFORK_MESSAGE_MAX - 1;
	head.message_size = (uint32_t)n;
	return tf_io_writev(io, iov, 2, e);
}

int tf_reply_read(struct tf_io *io, struct tf_reply *r, char *message, struct tf_err *e)
{
	int rc = tf_io_read(io, r->magic, sizeof(r->magic), e);

	return rc ? rc : tf_reply_read_rest(io, r, sizeof(r->magic), message, e);
}

int tf_reply_read_rest(
	struct tf_io *io, struct tf_reply *r, size_t there, char *message, struct tf_err *e)
{
	int rc = tf_io_read(io, (char *)r + there, sizeof(*r) - there, e);

	if (rc)
		return rc;
	if (memcmp(r->magic, TF_REPLY_MAGIC, sizeof(r->magic)) ||
		r->message_size >= TELEFORK_MESSAGE_MAX || r->code > 0 || r->outcome >= TF_OUTCOMES)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "the answer is not a telefork answer");
	if ((rc = tf_io_read(io, message, r->message_size, e)))
		return rc;
	message[r->message_size] = '\0';
	tf_message_safe(message);
	return 0;
}

int tf_sink_hear(struct tf_sink *s, struct tf_reply *r, size_t there, struct tf_err *e)
{
	char message[TELEFORK_MESSAGE_MAX];
	int rc = tf_reply_read_rest(s->io, r, there, message, e);

	if (rc)
		return rc;
	if (r->code || r->outcome != TF_OUTCOME_GONE || !s->refusal || *s->refusal)
		return tf_fail(e, r->code ? r->code : TELEFORK_E_PROTOCOL, "%s", message);
	snprintf(s->refusal, TELEFORK_MESSAGE_MAX, "%s", *message ? message : "no more of it");
	return 0;
}

int tf_sink_await(struct tf_sink *s, char magic[static 8], struct tf_err *e)
{
	struct tf_reply r;
	int rc;

	while (!(rc = tf_io_read(s->io, magic, sizeof(r.magic), e)) &&
		!memcmp(magic, TF_REPLY_MAGIC, sizeof(r.magic))) {
		memcpy(r.magic, magic, sizeof(r.magic));
		rc = tf_sink_hear(s, &r, sizeof(r.magic), e);
		if (rc)
			return rc;
	}
	return rc;
}
