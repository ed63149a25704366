/* SPDX-License-Identifier: MIT */
/* Text from elsewhere, see text.h. No allocation, no lock. */
#include "core/base/text.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 character at s that may go to a terminal; 0: show it as \xNN. */
static unsigned printable(const unsigned char *s)
{
	unsigned n, min = 0;
	uint32_t c;

	if (*s < 0x80)
		return *s >= 0x20 && *s != 0x7f;
	if ((*s & 0xe0) == 0xc0)
		n = 2, c = *s & 0x1f, min = 0xa0; /* C1 controls are below */
	else if ((*s & 0xf0) == 0xe0)
		n = 3, c = *s & 0x0f, min = 0x800;
	else if ((*s & 0xf8) == 0xf0)
		n = 4, c = *s & 0x07, min = 0x10000;
	else
		return 0;
	for (unsigned i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < min || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	/* Marks that turn the direction of writing could disguise a path. */
	return (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
			       (c >= 0x2066 && c <= 0x2069)
		       ? 0
		       : n;
}

/* Copies s; bytes of "kept" stay, those of "hidden" become \xNN, as does what is not printable. */
static size_t copy(const char *s, const char *kept, const char *hidden, char *buf, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	size_t at = 0;
	bool full = !n;

	while (*s) {
		unsigned length = strchr(kept, *s) ? 1 : printable((const unsigned char *)s);
		char code[4] = {'\\', 'x', hex[(unsigned char)*s >> 4], hex[*s & 15]};
		bool shown = length && !strchr(hidden, *s);
		size_t more = shown ? length : sizeof(code);

		if (!full && at + more < n)
			memcpy(buf + at, shown ? s : code, more);
		else if (!full)
			buf[at] = '\0', full = true; /* a character stays whole */
		at += more;
		s += shown ? length : 1;
	}
	if (!full)
		buf[at] = '\0';
	return at;
}

size_t tf_text_safe(const char *s, char *buf, size_t n)
{
	return copy(s, "", "\\", buf, n);
}

void tf_message_safe(char message[static TELEFORK_MESSAGE_MAX])
{
	char raw[TELEFORK_MESSAGE_MAX];

	memcpy(raw, message, sizeof(raw));
	raw[sizeof(raw) - 1] = '\0';
	copy(raw, "\n", "", message, TELEFORK_MESSAGE_MAX);
}

uint64_t tf_text_number(const char *text, const char *label, int base, uint64_t otherwise)
{
	const char *p = strstr(text, label);

	return p ? strtoull(p + strlen(label), NULL, base) : otherwise;
}
