/* SPDX-License-Identifier: MIT */
/* See text.h. RFC 3629 says what UTF-8 is, section 2.2 of XML 1.0 what a document may hold of it.
 */
#include "harness/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

/* The length of the character at @s, of which @n bytes are there; if it is none, or one that no
 * document may hold, *@ret_fit is false. */
static size_t character(const unsigned char *s, size_t n, bool *ret_fit)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	uint32_t c = len == 1 ? s[0] : s[0] & (0x7fu >> len);

	*ret_fit = false;
	if (len > n || (s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4)
		return 1;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 1;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 1;
	*ret_fit = (c >= 0x20 || c == '\n' || c == '\t') && (c < 0x7f || c >= 0xa0) &&
		   (c & ~1u) != 0xfffe;
	return len;
}

json_t *tf_text_json(const char *s, size_t max)
{
	size_t n = s ? strnlen(s, max) : 0, len = 0;
	char *text = s ? malloc(3 * n + 1) : NULL;
	json_t *j;

	for (size_t i = 0, here; text && i < n; i += here) {
		bool fit;

		here = character((const unsigned char *)s + i, n - i, &fit);
		memcpy(text + len, fit ? s + i : REPLACEMENT, fit ? here : 3);
		len += fit ? here : 3;
	}
	j = text ? json_stringn(text, len) : NULL;
	free(text);
	return j ? j : json_null();
}

void tf_text_clean(json_t *value)
{
	const char *key;
	json_t *v, *clean;
	size_t i;

	if (json_is_string(value)) {
		clean = tf_text_json(json_string_value(value), SIZE_MAX);
		json_string_set(value, json_string_value(clean));
		json_decref(clean);
	}
	json_array_foreach(value, i, v)
	{
		tf_text_clean(v);
	}
	json_object_foreach(value, key, v)
	{
		tf_text_clean(v);
	}
}
