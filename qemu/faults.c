/* SPDX-License-Identifier: MIT */
/* See faults.h. */
#include "qemu/faults.h"

#include <string.h>

#define GOLDEN     0x9e3779b97f4a7c15u
#define REORDER_US 1000

/* splitmix64 */
static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

struct tf_link_fate tf_link_fate(const struct tf_link_faults *f, uint64_t key, uint64_t n)
{
	uint64_t base = mix(mix(f->seed + GOLDEN) ^ mix(key + 2 * GOLDEN)) + n * 4 * GOLDEN;
	struct tf_link_fate fate = {
		.lost = mix(base + GOLDEN) % 1000000 < f->loss_ppm,
		.twice = mix(base + 2 * GOLDEN) % 1000000 < f->duplicate_ppm,
		.behind = mix(base + 3 * GOLDEN) % 1000000 < f->reorder_ppm,
		.late_us = f->delay_us,
	};

	if (f->jitter_us)
		fate.late_us += (uint32_t)(mix(base) % ((uint64_t)f->jitter_us + 1));
	if (fate.behind)
		fate.late_us += f->delay_us ? f->delay_us : REORDER_US;
	return fate;
}

int64_t tf_link_pace(const struct tf_link_faults *f, int64_t *free_us, int64_t now_us, size_t size)
{
	if (!f->bytes_per_s)
		return now_us;
	if (*free_us < now_us)
		*free_us = now_us;
	*free_us += (int64_t)(size * 1000000 / f->bytes_per_s);
	return *free_us;
}

static bool is_set(const uint8_t *bits, uint8_t n)
{
	return bits[n / 8] >> n % 8 & 1;
}

bool tf_link_apart(const struct tf_link_faults *f, uint8_t a, uint8_t b)
{
	return is_set(f->apart, a) != is_set(f->apart, b);
}

int32_t tf_link_message(const struct tf_link_talk *t, int from)
{
	return !t->from ? 0 : t->message + (t->from != from);
}

size_t tf_link_may_pass(
	const struct tf_link_talk *t, const struct tf_link_moment *moment, int from, size_t n)
{
	int32_t message = tf_link_message(t, from);
	uint64_t done = t->from == from ? t->bytes : 0, left;

	if (moment->message == TF_LINK_ANY_MESSAGE)
		done = t->total;
	else if (message < moment->message)
		return n;
	else if (message > moment->message)
		return 0;
	left = moment->bytes > done ? moment->bytes - done : 0;
	return left < n ? (size_t)left : n;
}

void tf_link_passed(struct tf_link_talk *t, int from, size_t n)
{
	if (t->from != from) {
		t->message = tf_link_message(t, from);
		t->from = from;
		t->bytes = 0;
	}
	t->bytes += n;
	t->total += n;
}

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

bool tf_link_read_tcp(const uint8_t *frame, size_t size, struct tf_link_tcp *ret)
{
	enum { ETHERNET = 14, IPV4 = 0x0800, IP_MIN = 20, TCP_MIN = 20, SYN = 2, ACK = 16 };
	const uint8_t *ip = frame + ETHERNET, *tcp;
	uint32_t head, total, offset;

	if (size < ETHERNET + IP_MIN + TCP_MIN || be16(frame + 12) != IPV4 || ip[0] >> 4 != 4)
		return false;
	head = (ip[0] & 15u) * 4;
	total = be16(ip + 2);
	if (head < IP_MIN || total < head + TCP_MIN || total > size - ETHERNET || ip[9] != 6 ||
		be16(ip + 6) & 0x3fff)
		return false;
	tcp = ip + head;
	offset = (tcp[12] >> 4) * 4u;
	if (offset < TCP_MIN || offset > total - head)
		return false;
	memcpy(ret->ends[0], ip + 12, 4);
	memcpy(ret->ends[0] + 4, tcp, 2);
	memcpy(ret->ends[1], ip + 16, 4);
	memcpy(ret->ends[1] + 4, tcp + 2, 2);
	ret->seq = be16(tcp + 4) << 16 | be16(tcp + 6);
	ret->size = total - head - offset;
	ret->syn = tcp[13] & SYN;
	ret->opens = ret->syn && !(tcp[13] & ACK);
	return true;
}
