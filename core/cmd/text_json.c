/* SPDX-License-Identifier: MIT */
/* See text_json.h. */
#include "core/cmd/text_json.h"

#include "core/base/text.h"
#include "core/image/image.h"

json_t *tf_json_text(const char *s)
{
	char safe[4 * TF_MAX_STR + 1];
	json_t *json = json_string(s);

	if (json)
		return json;
	tf_text_safe(s, safe, sizeof(safe));
	return json_string(safe);
}
