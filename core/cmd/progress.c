/* SPDX-License-Identifier: MIT */
/* The line of progress.h, on standard error. */
#include "core/cmd/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "core/base/io.h"

#define EVERY_NS 100000000u

const char *tf_bytes_text(uint64_t bytes, char buf[static 24])
{
	static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double n = (double)bytes;
	unsigned i = 0;

	for (; n >= 1024 && i < 4; i++)
		n /= 1024;
	snprintf(buf, 24, i ? "%.1f %s" : "%.0f %s", n, unit[i]);
	return buf;
}

void tf_progress_begin(struct tf_progress *p)
{
	*p = (struct tf_progress){.terminal = isatty(STDERR_FILENO) == 1, .start_ns = tf_now_ns()};
	p->told_ns = p->start_ns;
}

void tf_progress_tell(void *ctx, uint64_t done, uint64_t all)
{
	struct tf_progress *p = ctx;
	uint64_t now = tf_now_ns();
	double seconds = (double)(now - p->start_ns) / 1e9, rate = (double)done / seconds;
	char sent[24], whole[24], speed[24];

	if (!p->terminal || now - p->told_ns < EVERY_NS || !done || !all)
		return;
	p->told_ns = now;
	fprintf(stderr, "\r\033[K%3.0f%%  %s of %s  %s/s  %.1f s left",
		100.0 * (double)done / (double)all, tf_bytes_text(done, sent),
		tf_bytes_text(all, whole), tf_bytes_text((uint64_t)rate, speed),
		(double)(all - done) / rate);
}

void tf_progress_end(struct tf_progress *p)
{
	if (p->terminal && p->told_ns != p->start_ns)
		fprintf(stderr, "\r\033[K");
	p->terminal = false;
}
