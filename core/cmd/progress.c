/* SPDX-License-Identifier: MIT */
/* The line of progress.h, on standard error. */
#include "core/cmd/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
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

static unsigned terminal_width(void)
{
	struct winsize size = {0};

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
}

/* "1:02:03 left" or "12 s left" */
static void time_left(double seconds, char buf[static 32])
{
	unsigned long s = seconds < 360000 ? (unsigned long)(seconds + 0.5) : 360000;

	if (s < 100)
		snprintf(buf, 32, "%lu s left", s);
	else if (s < 3600)
		snprintf(buf, 32, "%lu:%02lu left", s / 60, s % 60);
	else
		snprintf(buf, 32, "%lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
}

void tf_progress_tell(void *ctx, uint64_t done, uint64_t all)
{
	static const char full[] = "####################";
	const unsigned n_bar = sizeof(full) - 1;
	struct tf_progress *p = ctx;
	uint64_t now = tf_now_ns();
	double part = all ? (double)done / (double)all : 0, rate;
	char sent[24], whole[24], speed[24], left[32], line[160];

	if (!p->terminal || now - p->told_ns < EVERY_NS || !done || !all)
		return;
	p->told_ns = now;
	rate = (double)done / ((double)(now - p->start_ns) / 1e9);
	time_left((double)(all - done) / rate, left);
	snprintf(line, sizeof(line), "[%-*.*s] %3.0f%%  %s of %s  %s/s  %s", (int)n_bar,
		(int)(part * n_bar), full, 100 * part, tf_bytes_text(done, sent),
		tf_bytes_text(all, whole), tf_bytes_text((uint64_t)rate, speed), left);
	fprintf(stderr, "\r\033[K%.*s", (int)terminal_width() - 1, line); /* it must not wrap */
}

void tf_progress_end(struct tf_progress *p)
{
	if (p->terminal && p->told_ns != p->start_ns)
		fprintf(stderr, "\r\033[K");
	p->terminal = false;
}
