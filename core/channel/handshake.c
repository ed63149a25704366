/* SPDX-License-Identifier: MIT */
/* The greeting, see channel.h. Bytes from strangers: bounded before anything is believed. */
#include "core/base/text.h"
#include "core/channel/channel.h"

#include <string.h>

#define GREETING "TFHELLO1"

struct greeting {
	char magic[8];
	int32_t value; /* client: version; server: code */
	uint32_t size; /* of the token or text that follows */
};

int tf_greet_server(struct tf_io *io, const char *token, struct tf_err *e)
{
	size_t n = token ? strlen(token) : 0;
	struct greeting g = {.value = TELEFORK_FORMAT, .size = (uint32_t)n};
	struct iovec iov[2] = {{&g, sizeof(g)}, {(void *)token, n}};
	char text[TELEFORK_MESSAGE_MAX];
	int rc;

	if (n > TELEFORK_TOKEN_MAX)
		return tf_fail(
			e, TELEFORK_E_AUTH, "the token has more than %d bytes", TELEFORK_TOKEN_MAX);
	memcpy(g.magic, GREETING, sizeof(g.magic));
	rc = tf_io_writev(io, iov, 2, e);
	if (!rc)
		rc = tf_io_read(io, &g, sizeof(g), e);
	if (rc)
		return rc;
	if (memcmp(g.magic, GREETING, sizeof(g.magic)) || g.size >= sizeof(text) || g.value > 0)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "the other side is no telefork receiver");
	if ((rc = tf_io_read(io, text, g.size, e)))
		return rc;
	text[g.size] = '\0';
	tf_message_safe(text);
	return g.value ? tf_fail(e, g.value, "%s", text) : 0;
}

static bool same_secret(const char *a, size_t n_a, const char *b)
{
	size_t n = strlen(b);
	unsigned char differ = n_a != n;

	for (size_t i = 0; i < n_a; i++)
		differ |= (unsigned char)(a[i] ^ b[n ? i % n : 0]);
	return !differ;
}

static int tell(struct tf_io *io, int code, const char *text, struct tf_err *e)
{
	struct greeting g = {.value = code, .size = (uint32_t)strlen(text)};
	struct iovec iov[2] = {{&g, sizeof(g)}, {(void *)text, g.size}};

	memcpy(g.magic, GREETING, sizeof(g.magic));
	return tf_io_writev(io, iov, 2, e);
}

static int hear(struct tf_io *io, struct greeting *g, char given[static TELEFORK_TOKEN_MAX + 1],
	struct tf_err *e)
{
	int rc = tf_io_read(io, g, sizeof(*g), e);

	if (rc)
		return rc;
	if (memcmp(g->magic, GREETING, sizeof(g->magic)) || g->size > TELEFORK_TOKEN_MAX)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "the other side is no telefork sender");
	return tf_io_read(io, given, g->size, e);
}

int tf_greet_refuse(struct tf_io *io, const struct tf_err *why)
{
	char given[TELEFORK_TOKEN_MAX + 1] = "";
	struct tf_err quiet = {0};
	struct greeting g;

	if (!hear(io, &g, given, &quiet))
		tell(io, why->code, why->text, &quiet);
	return why->code;
}

int tf_greet_client(struct tf_io *io, const char *token, struct tf_err *e)
{
	char given[TELEFORK_TOKEN_MAX + 1] = "";
	struct tf_err quiet = {0};
	struct greeting g;
	int rc = hear(io, &g, given, e);

	if (rc)
		return rc;
	if (g.value != TELEFORK_FORMAT) {
		tf_fail(e, TELEFORK_E_VERSION,
			"the sender speaks format %d, this receiver %d: install the same version",
			g.value, TELEFORK_FORMAT);
	} else if (token && !same_secret(given, g.size, token)) {
		tf_fail(e, TELEFORK_E_AUTH,
			g.size ? "the token is not the receiver's" : "the receiver wants a token");
	}
	if (!e->code)
		return tell(io, 0, "", e);
	tell(io, e->code, e->text, &quiet);
	return e->code;
}
