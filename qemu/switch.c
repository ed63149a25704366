/* SPDX-License-Identifier: MIT */
/*
 * See switch.h.
 */
#include "qemu/switch.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool is_group(const uint8_t mac[static 6])
{
	return mac[0] & 1;
}

void tf_link_learn(struct tf_link_table *t, const uint8_t mac[static 6], int port)
{
	struct tf_link_address *to = &t->entries[0];

	if (is_group(mac))
		return;
	for (size_t i = 0; i < TF_LINK_ADDRESSES; i++) {
		struct tf_link_address *e = &t->entries[i];

		if (e->seen && !memcmp(e->mac, mac, 6)) {
			to = e;
			break;
		}
		if (e->seen < to->seen)
			to = e;
	}
	memcpy(to->mac, mac, 6);
	to->port = port;
	to->seen = ++t->clock;
}

int tf_link_lookup(const struct tf_link_table *t, const uint8_t mac[static 6])
{
	for (size_t i = 0; i < TF_LINK_ADDRESSES && !is_group(mac); i++) {
		const struct tf_link_address *e = &t->entries[i];

		if (e->seen && !memcmp(e->mac, mac, 6))
			return e->port;
	}
	return TF_LINK_FLOOD;
}

void tf_link_forget(struct tf_link_table *t, int port)
{
	for (size_t i = 0; i < TF_LINK_ADDRESSES; i++) {
		if (t->entries[i].port == port)
			t->entries[i].seen = 0;
	}
}

int tf_link_next_frame(const uint8_t *data, size_t len)
{
	uint32_t size;

	if (len < 4)
		return 0;
	size = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
	if (size < TF_LINK_MIN_FRAME || size > TF_LINK_MAX_FRAME)
		return -EBADMSG;
	return len - 4 < size ? 0 : (int)size;
}
