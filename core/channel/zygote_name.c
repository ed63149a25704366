/* SPDX-License-Identifier: MIT */
/* Names of zygotes, see channel.h. */
#include "core/channel/channel.h"

#include <string.h>

static bool is_allowed(char c)
{
	return c && strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c);
}

void tf_zygote_name_text(const struct tf_zygote_name *name, char text[static TF_ZYGOTE_NAME + 1])
{
	memcpy(text, name->text, TF_ZYGOTE_NAME);
	text[TF_ZYGOTE_NAME] = '\0';
}

bool tf_zygote_name_valid(const struct tf_zygote_name *name)
{
	size_t n = 0;

	while (n < TF_ZYGOTE_NAME && is_allowed(name->text[n]))
		n++;
	for (size_t i = n; i < TF_ZYGOTE_NAME; i++)
		if (name->text[i])
			return false;
	return n;
}

int tf_zygote_name_parse(const char *text, struct tf_zygote_name *ret, struct tf_err *e)
{
	size_t n = text ? strlen(text) : 0;

	*ret = (struct tf_zygote_name){0};
	if (n <= TF_ZYGOTE_NAME)
		memcpy(ret->text, text ? text : "", n);
	if (n <= TF_ZYGOTE_NAME && tf_zygote_name_valid(ret))
		return 0;
	return tf_fail(e, TELEFORK_E_INVAL,
		"\"%.64s\" is no name of a zygote: it has 1 to %d letters, digits, \".\", \"_\" and \"-\"",
		text ? text : "", TF_ZYGOTE_NAME);
}
