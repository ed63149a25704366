/* SPDX-License-Identifier: MIT */
/* What is asked of a receiver's zygotes, by the library and the commands. */
#include "core/base/cleanup.h"
#include "core/image/stream.h"
#include "core/telefork_internal.h"

#include <string.h>
#include <unistd.h>

int tf_zygote_errand(
	const struct tf_address *a, const char *name, struct tf_errand *ret, struct tf_err *e)
{
	struct tf_zygote_name n;

	_Static_assert(sizeof(n) == sizeof(ret->id), "a name is an errand's id");
	if (a->kind != TF_ADDRESS_TCP && a->kind != TF_ADDRESS_UNIX)
		return tf_fail(e, TELEFORK_E_ADDRESS,
			"%s: nobody stays there to keep a zygote: tcp://host:port or unix:path",
			a->text);
	if (tf_zygote_name_parse(name, &n, e))
		return e->code;
	ret->kind = TF_ERRAND_KEEP;
	memcpy(ret->id, &n, sizeof(ret->id));
	return 0;
}

static int ask_it(
	struct tf_io *io, const struct tf_zygote_ask *ask, struct tf_reply *reply, struct tf_err *e)
{
	char message[TELEFORK_MESSAGE_MAX];
	int rc = tf_io_write(io, ask, sizeof(*ask), e);

	if (!rc)
		rc = tf_reply_read(io, reply, message, e);
	if (!rc && reply->code)
		rc = tf_fail(e, reply->code, "%s", message);
	return rc;
}

int tf_zygote_request(const char *uri, const struct telefork_options *options,
	const struct tf_zygote_ask *ask, void *records, size_t size, uint32_t max, uint32_t *ret_n,
	struct tf_err *e)
{
	struct tf_errand errand = {.kind = TF_ERRAND_ZYGOTE};
	struct tf_reply reply = {0};
	struct tf_address a;
	struct tf_io io;
	TF_CLOSE int fd = -1;
	int rc = tf_address_parse(uri, &a, e);

	if (!rc && a.kind != TF_ADDRESS_TCP && a.kind != TF_ADDRESS_UNIX)
		return tf_fail(e, TELEFORK_E_ADDRESS,
			"%s: no zygotes are kept there: tcp://host:port or unix:path", uri);
	if (rc || (fd = tf_dial(&a, options, &errand, NULL, e)) < 0)
		return rc ? rc : fd;
	tf_io_init(&io, fd, options);
	rc = ask_it(&io, ask, &reply, e);
	if (!rc && reply.memory > max)
		rc = tf_fail(e, TELEFORK_E_PROTOCOL, "%llu records are too many",
			(unsigned long long)reply.memory);
	if (!rc)
		rc = tf_io_read(&io, records, reply.memory * size, e);
	*ret_n = (uint32_t)reply.memory;
	return rc;
}

int telefork_spawn(const char *uri, const char *name, unsigned n, unsigned first, pid_t *pids,
	const struct telefork_options *options, struct telefork_result *result)
{
	struct tf_zygote_ask ask = {.what = TF_ZYGOTE_SPAWN, .n = n, .first = first};
	int32_t ids[TF_SPAWN_MAX] = {0};
	struct telefork_options o;
	struct tf_err e = {0};
	uint64_t start = tf_now_ns();
	uint32_t got = 0;
	int rc = tf_options_take(options, &o, &e);

	if (!rc && (!n || n > TF_SPAWN_MAX))
		rc = tf_fail(&e, TELEFORK_E_INVAL, "%u copies: 1 to %u at once", n, TF_SPAWN_MAX);
	if (!rc)
		rc = tf_zygote_name_parse(name, &ask.name, &e);
	if (!rc)
		rc = tf_zygote_request(uri, &o, &ask, ids, sizeof(*ids), n, &got, &e);
	if (!rc && got != n)
		rc = tf_fail(&e, TELEFORK_E_PROTOCOL, "%u copies were made, not %u", got, n);
	for (uint32_t i = 0; i < n && !rc && pids; i++)
		pids[i] = ids[i];
	tf_result_from(result, &e);
	if (result) {
		result->pid = rc ? 0 : ids[0];
		result->total_ns = tf_now_ns() - start;
	}
	return rc;
}
