/* SPDX-License-Identifier: MIT */
/* The greeting and what belongs to a move, see channel.h. Bytes from strangers: bounded before
 * anything is believed. */
#include "core/base/text.h"
#include "core/channel/channel.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define GREETING "TFHELLO1"
#define COMMIT   "TFCOMMIT"

struct greeting {
	char magic[8];
	int32_t value; /* client: version; server: code */
	uint32_t size; /* of the token or text that follows */
};

static const char *const offer_words[] = {"lz4", "zstd", "store"};

#define OFFERS (sizeof(offer_words) / sizeof(*offer_words))

static void offers_text(uint32_t offers, char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < OFFERS; i++)
		if (offers >> i & 1)
			n += (size_t)snprintf(
				text + n, size - n, "%s%s", n ? " " : "", offer_words[i]);
}

static uint32_t offers_parse(const char *text)
{
	uint32_t offers = 0;

	while (*text) {
		size_t n = strcspn(text, " ");

		for (unsigned i = 0; i < OFFERS; i++)
			if (n == strlen(offer_words[i]) && !memcmp(text, offer_words[i], n))
				offers |= 1u << i;
		text += n + (text[n] == ' ');
	}
	return offers;
}

int tf_greet_say(
	struct tf_io *io, const char *token, const struct tf_errand *errand, struct tf_err *e)
{
	static const struct tf_errand bring = {.kind = TF_ERRAND_BRING};
	size_t n = token ? strlen(token) : 0;
	struct greeting g = {.value = TELEFORK_FORMAT, .size = (uint32_t)n};
	struct iovec iov[3] = {{&g, sizeof(g)}, {(void *)(errand ? errand : &bring), sizeof(bring)},
		{(void *)token, n}};

	if (n > TELEFORK_TOKEN_MAX)
		return tf_fail(
			e, TELEFORK_E_AUTH, "the token has more than %d bytes", TELEFORK_TOKEN_MAX);
	memcpy(g.magic, GREETING, sizeof(g.magic));
	return tf_io_writev(io, iov, 3, e);
}

int tf_greet_answer(struct tf_io *io, uint32_t *ret_offers, struct tf_err *e)
{
	char text[TELEFORK_MESSAGE_MAX];
	struct greeting g;
	int rc = tf_io_read(io, &g, sizeof(g), e);

	if (rc)
		return rc;
	if (memcmp(g.magic, GREETING, sizeof(g.magic)) || g.size >= sizeof(text) || g.value > 0)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "the other side is no telefork receiver");
	if ((rc = tf_io_read(io, text, g.size, e)))
		return rc;
	text[g.size] = '\0';
	tf_message_safe(text);
	if (g.value)
		return tf_fail(e, g.value, "%s", text);
	if (ret_offers)
		*ret_offers = offers_parse(text);
	return 0;
}

int tf_greet_server(struct tf_io *io, const char *token, const struct tf_errand *errand,
	uint32_t *ret_offers, struct tf_err *e)
{
	return tf_greet_say(io, token, errand, e) ?: tf_greet_answer(io, ret_offers, e);
}

static bool same_secret(const char *a, size_t n_a, const char *b)
{
	size_t n = strlen(b);
	unsigned char differ = n_a != n;

	for (size_t i = 0; i < n_a; i++)
		differ |= (unsigned char)(a[i] ^ b[n ? i % n : 0]);
	return !differ;
}

/* Another version may go on differently after its number. */
static int hear(struct tf_io *io, struct greeting *g, struct tf_errand *errand,
	char given[static TELEFORK_TOKEN_MAX + 1], struct tf_err *e)
{
	int rc = tf_io_read(io, g, sizeof(*g), e);

	if (rc)
		return rc;
	if (memcmp(g->magic, GREETING, sizeof(g->magic)) || g->size > TELEFORK_TOKEN_MAX)
		return tf_fail(e, TELEFORK_E_PROTOCOL, "the other side is no telefork sender");
	if (g->value != TELEFORK_FORMAT)
		return 0;
	rc = tf_io_read(io, errand, sizeof(*errand), e);
	return rc ? rc : tf_io_read(io, given, g->size, e);
}

int tf_greet_hear(struct tf_io *io, const char *token, struct tf_errand *ret, struct tf_err *e)
{
	char given[TELEFORK_TOKEN_MAX + 1] = "";
	struct tf_errand errand = {0};
	struct greeting g;
	int rc = hear(io, &g, &errand, given, e);

	if (rc)
		return rc;
	if (g.value != TELEFORK_FORMAT)
		tf_fail(e, TELEFORK_E_VERSION,
			"the sender speaks format %d, this receiver %d: install the same version",
			g.value, TELEFORK_FORMAT);
	else if (token && !same_secret(given, g.size, token))
		tf_fail(e, TELEFORK_E_AUTH,
			g.size ? "the token is not the receiver's" : "the receiver wants a token");
	else if (errand.kind >= TF_ERRANDS)
		tf_fail(e, TELEFORK_E_PROTOCOL, "there is no errand %u", errand.kind);
	*ret = errand;
	return 0;
}

int tf_greet_tell(struct tf_io *io, uint32_t offers, struct tf_err *e)
{
	char words[64];
	char *text = e->code ? e->text : words;
	struct greeting g = {.value = e->code};
	struct iovec iov[2] = {{&g, sizeof(g)}, {text, 0}};

	offers_text(offers, words, sizeof(words));
	iov[1].iov_len = g.size = (uint32_t)strlen(text);

	memcpy(g.magic, GREETING, sizeof(g.magic));
	tf_io_writev(io, iov, 2, e);
	return e->code;
}

/* --- moves --- */

void tf_move_id_new(uint8_t id[static TF_MOVE_ID])
{
	while (getrandom(id, TF_MOVE_ID, 0) != TF_MOVE_ID)
		;
}

void tf_move_id_text(const uint8_t id[static TF_MOVE_ID], char text[static TF_MOVE_ID_TEXT + 1])
{
	for (unsigned i = 0; i < TF_MOVE_ID; i++)
		snprintf(text + 2 * (size_t)i, 3, "%02x", id[i]);
}

bool tf_move_id_parse(const char *text, uint8_t id[static TF_MOVE_ID])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < TF_MOVE_ID_TEXT; i++) {
		const char *d = text[i] ? strchr(digits, text[i]) : NULL;

		if (!d)
			return false;
		id[i / 2] = (uint8_t)(id[i / 2] << 4 | (d - digits));
	}
	return !text[TF_MOVE_ID_TEXT];
}

int tf_commit_write(struct tf_io *io, const uint8_t id[static TF_MOVE_ID], struct tf_err *e)
{
	struct iovec iov[2] = {{COMMIT, sizeof(COMMIT) - 1}, {(void *)id, TF_MOVE_ID}};

	return tf_io_writev(io, iov, 2, e);
}

int tf_commit_read(struct tf_io *io, const uint8_t id[static TF_MOVE_ID], struct tf_err *e)
{
	uint8_t word[sizeof(COMMIT) - 1 + TF_MOVE_ID];
	int rc = tf_io_read(io, word, sizeof(word), e);

	if (rc)
		return rc;
	if (memcmp(word, COMMIT, sizeof(COMMIT) - 1) ||
		memcmp(word + sizeof(COMMIT) - 1, id, TF_MOVE_ID))
		return tf_fail(e, TELEFORK_E_PROTOCOL, "what came is not the word to go on");
	return 0;
}
