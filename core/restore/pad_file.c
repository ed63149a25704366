/* SPDX-License-Identifier: MIT */
/* Receiving from a saved image: its head is read where it is, its memory is pumped as a stream. */
#include "core/restore/pad_impl.h"

int tf_pad_file_head(struct tf_pad *p)
{
	uint8_t peek[TF_HEAD_PEEK];
	uint32_t machine;
	int rc = tf_io_pread(p->io.fd, peek, sizeof(peek), 0, &p->err);

	if (!rc)
		rc = tf_image_peek(peek, &machine, &p->head_size, &p->err);
	if (rc)
		return rc;
	p->head = tf_arena_alloc(&p->arena, p->head_size);
	if (!p->head)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "a head of %llu bytes",
			(unsigned long long)p->head_size);
	return tf_io_pread(p->io.fd, p->head, p->head_size, 0, &p->err);
}

int tf_pad_file_check(struct tf_pad *p)
{
	int rc =
		tf_table_read(p->io.fd, &p->image, &p->arena, &p->table_header, &p->table, &p->err);

	if (rc)
		return rc;
	while (p->count < p->table_header.count && p->table[p->count].offset < p->head_size) {
		const struct tf_extent *x = &p->table[p->count];

		if (x->size > p->head_size - x->offset ||
			x->crc != tf_extent_crc(x->offset, x->size, p->head + x->offset))
			return tf_fail(&p->err, TELEFORK_E_CHECKSUM,
				"the image's head is damaged in extent %u", p->count);
		p->chain = tf_chain_crc(p->chain, x->crc);
		p->count++;
	}
	return 0;
}

int tf_pad_file_pump(struct tf_pad *p)
{
	struct tf_extent trailer = {TF_TRAILER_OFFSET, p->table_header.count, p->table_header.crc};
	struct tf_err quiet = {0};
	struct tf_io out;
	int rc = 0;
	uint8_t *data = tf_arena_alloc(&p->arena, TF_EXTENT_MAX);

	if (!data)
		return tf_fail(&p->err, TELEFORK_E_NOMEM, "out of memory");
	tf_io_init(&out, p->pump, p->options);
	for (uint32_t i = p->count; i < p->table_header.count; i++) {
		struct tf_extent *x = &p->table[i];
		struct iovec iov[2] = {{x, sizeof(*x)}, {data, x->size}};

		rc = tf_io_pread(p->io.fd, data, x->size, x->offset, &p->err);

		if (!rc)
			rc = tf_io_writev(&out, iov, 2, &quiet);
		if (rc == TELEFORK_E_CLOSED)
			return 0; /* the child reports why it does not read any more */
		if (rc)
			return tf_fail(&p->err, rc, "filling the new process: %s", quiet.text);
	}
	rc = tf_io_write(&out, &trailer, sizeof(trailer), &quiet);
	return !rc || rc == TELEFORK_E_CLOSED ? 0 : tf_fail(&p->err, rc, "%s", quiet.text);
}
