/* SPDX-License-Identifier: MIT */
/* telefork_many(), and what sender and receivers of a chain say to each other. See many.h. */
#include "core/many.h"
#include "core/base/cleanup.h"
#include "core/telefork_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tf_chain_uri(const struct tf_chain *c, uint32_t k)
{
	const char *at = c->uris;

	while (k--)
		at += strlen(at) + 1;
	return at;
}

/* As many texts as it says, none of them empty or longer than an address may be. */
static bool is_sound(const struct tf_chain *c)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < c->head.n; i++) {
		size_t n = strnlen(c->uris + at, c->head.size - at);

		if (!n || n >= TF_ADDRESS_TEXT || at + n == c->head.size)
			return false;
		at += (uint32_t)n + 1;
	}
	return at == c->head.size;
}

int tf_chain_read(struct tf_io *io, struct tf_chain *c, struct tf_err *e)
{
	int rc = tf_io_read(io, &c->head, sizeof(c->head), e);
	const struct tf_chain_head *h = &c->head;

	c->uris = NULL;
	if (rc)
		return rc;
	if (!h->n || h->n > TF_CHAIN_MAX || !h->index || h->index > TF_CHAIN_MAX ||
		h->size > TF_CHAIN_MAX * TF_ADDRESS_TEXT)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "a chain of %u receivers, from %u on", h->n,
			h->index);
	c->uris = calloc(1, (size_t)h->size + 1);
	if (!c->uris)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for %u addresses", h->n);
	rc = tf_io_read(io, c->uris, h->size, e);
	if (!rc && !is_sound(c))
		rc = tf_fail(e, TELEFORK_E_PROTOCOL, "the addresses of a chain are damaged");
	return rc;
}

void tf_chain_step(struct tf_chain *c)
{
	size_t n = strlen(c->uris) + 1;

	memmove(c->uris, c->uris + n, c->head.size - n);
	c->head.size -= (uint32_t)n;
	c->head.n--;
	c->head.index++;
}

static int dial_first(const struct tf_chain *c, const struct telefork_options *o, struct tf_err *e)
{
	const struct tf_errand errand = {.kind = TF_ERRAND_CHAIN};
	struct iovec iov[2] = {{(void *)&c->head, sizeof(c->head)}, {c->uris, c->head.size}};
	struct tf_address a;
	struct tf_io io;
	int fd, rc = tf_address_parse(c->uris, &a, e);

	if (!rc && a.kind != TF_ADDRESS_TCP && a.kind != TF_ADDRESS_UNIX)
		rc = tf_fail(e, TELEFORK_E_ADDRESS,
			"%s: one of many has to be tcp://host:port or unix:path", a.text);
	if (rc)
		return rc;
	fd = tf_dial(&a, o, &errand, NULL, e);
	if (fd < 0)
		return fd;
	tf_io_init(&io, fd, o);
	rc = tf_io_writev(&io, iov, 2, e);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

int tf_chain_dial(struct tf_chain *c, const struct telefork_options *options,
	void (*failed)(void *ctx, uint32_t index, const struct tf_err *why), void *ctx,
	struct tf_err *e)
{
	while (c->head.n) {
		int fd;

		*e = (struct tf_err){0};
		fd = dial_first(c, options, e);
		if (fd >= 0)
			return fd;
		failed(ctx, c->head.index, e);
		tf_chain_step(c);
	}
	return e->code ? e->code : TELEFORK_E_ADDRESS;
}

int tf_chain_reply_write(
	struct tf_io *io, uint32_t index, const struct tf_reply *r, const char *message)
{
	struct tf_chain_reply c = {.index = index, .reply = *r};
	size_t n = message ? strnlen(message, TF_CHAIN_TEXT) : 0;
	struct iovec iov[2] = {{&c, sizeof(c)}, {(void *)message, n}};
	struct tf_err quiet = {0};

	memcpy(c.reply.magic, TF_REPLY_MAGIC, sizeof(c.reply.magic));
	c.reply.message_size = (uint32_t)n;
	return tf_io_writev(io, iov, 2, &quiet);
}

int tf_chain_reply_read(
	struct tf_io *io, uint32_t *ret_index, struct tf_reply *r, char *message, struct tf_err *e)
{
	uint32_t head[2];
	int rc = tf_io_read(io, head, sizeof(head), e);

	*ret_index = head[0];
	return rc ? rc : tf_reply_read(io, r, message, e);
}

/* --- the sender --- */

struct many {
	struct telefork_result *results;
	unsigned n;
	bool *told; /* of each: there is a result */
};

static void note(struct many *m, uint32_t index, int code, const char *text)
{
	struct telefork_result *r = &m->results[index - 1];

	*r = (struct telefork_result){.error = code};
	snprintf(r->message, sizeof(r->message), "%s", text);
	m->told[index - 1] = true;
}

static void passed_over(void *ctx, uint32_t index, const struct tf_err *why)
{
	note(ctx, index, why->code, why->text);
}

static void hear_answers(struct many *m, int fd, const struct telefork_options *o,
	const struct telefork_result *sent)
{
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_err e = {0};
	struct tf_io io;
	unsigned left = 0;

	for (unsigned i = 0; i < m->n; i++)
		left += !m->told[i];
	tf_io_init(&io, fd, o);
	for (; left && !e.code; left -= !e.code) {
		struct tf_reply r;
		uint32_t index = 0;

		if (tf_chain_reply_read(&io, &index, &r, message, &e))
			break;
		if (!index || index > m->n || m->told[index - 1]) {
			tf_fail(&e, TELEFORK_E_PROTOCOL, "an answer of receiver %u", index);
			break;
		}
		note(m, index, r.code, message);
		m->results[index - 1].pid = r.code ? 0 : r.pid;
		m->results[index - 1].memory = r.memory;
		m->results[index - 1].mappings = r.mappings;
		m->results[index - 1].stopped_ns = sent->stopped_ns;
		m->results[index - 1].total_ns = sent->total_ns;
	}
	for (unsigned i = 0; i < m->n; i++)
		if (!m->told[i]) {
			snprintf(message, sizeof(message),
				"no answer came (%.200s): whether the copy runs there is not known",
				sent->error ? sent->message : e.text);
			note(m, i + 1, sent->error ? sent->error : e.code, message);
		}
}

static int make_chain(struct tf_chain *c, const char *const *uris, unsigned n, struct tf_err *e)
{
	size_t size = 0;

	*c = (struct tf_chain){.head = {.index = 1, .n = n}};
	if (!n || n > TF_CHAIN_MAX)
		return tf_fail(e, TELEFORK_E_INVAL, "%u receivers: 1 to %u", n, TF_CHAIN_MAX);
	for (unsigned i = 0; i < n; i++) {
		if (!uris[i] || !*uris[i] || strlen(uris[i]) >= TF_ADDRESS_TEXT)
			return tf_fail(
				e, TELEFORK_E_ADDRESS, "address %u is missing or too long", i + 1);
		size += strlen(uris[i]) + 1;
	}
	c->uris = malloc(size);
	if (!c->uris)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for %u addresses", n);
	for (unsigned i = 0; i < n; i++) {
		size_t one = strlen(uris[i]) + 1;

		memcpy(c->uris + c->head.size, uris[i], one);
		c->head.size += (uint32_t)one;
	}
	return 0;
}

static int send_all(struct many *m, struct tf_chain *c, const struct telefork_options *o,
	struct telefork_job **job, struct tf_err *e)
{
	TF_CLOSE int fd = tf_chain_dial(c, o, passed_over, m, e);
	struct tf_snapshot s = {
		.options = o, .origin = TF_ORIGIN_CALL, .channel_fd = fd, .many = true};
	struct telefork_result sent;
	int rc;

	if (fd < 0)
		return fd;
	rc = tf_job_start(&s, job, e);
	if (rc != TELEFORK_PARENT) {
		if (!rc)
			/* NOLINTNEXTLINE(clang-analyzer-deadcode.DeadStores): it would be closed */
			fd = -1; /* a copy's number for it is held */
		return rc;
	}
	telefork_wait(*job, &sent);
	hear_answers(m, fd, o, &sent);
	return rc;
}

int telefork_many(const char *const *uris, unsigned n, const struct telefork_options *options,
	struct telefork_result *results)
{
	struct many m = {results, n, NULL};
	struct telefork_job *job = NULL;
	struct telefork_options o;
	struct tf_err e = {0};
	struct tf_chain c = {0};
	int rc = tf_options_take(options, &o, &e);

	if (!rc && !results)
		rc = tf_fail(&e, TELEFORK_E_INVAL, "telefork_many() needs a place for the results");
	if (!rc)
		rc = make_chain(&c, uris, n, &e);
	if (!rc && o.zygote)
		rc = tf_zygote_name_parse(o.zygote, &c.head.zygote, &e);
	if (!rc && !(m.told = calloc(n, sizeof(*m.told))))
		rc = tf_fail(&e, TELEFORK_E_NOMEM, "out of memory for %u results", n);
	if (!rc)
		rc = send_all(&m, &c, &o, &job, &e);
	for (unsigned i = 0; rc < 0 && m.told && i < n; i++)
		if (!m.told[i])
			note(&m, i + 1, e.code, e.text);
	free(m.told);
	free(c.uris);
	return rc < 0 ? tf_say_why(&e) : rc;
}
