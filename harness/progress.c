/* SPDX-License-Identifier: MIT */
/* See progress.h. One step at a time, so that its state can be the file's. */
#include "harness/progress.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "qemu/io.h"

#define WIDTH 30

static struct {
	const char *label; /* NULL: no step */
	int64_t start_ms;
	int takes_ms;
	bool drawn;
} step;

void tf_progress_begin(const char *label, int takes_ms)
{
	step.label = isatty(STDERR_FILENO) ? label : NULL;
	step.start_ms = tf_vm_now_ms();
	step.takes_ms = takes_ms > 0 ? takes_ms : 1;
	step.drawn = false;
}

void tf_progress_tick(void)
{
	int64_t ms = step.label ? tf_vm_now_ms() - step.start_ms : 0;
	int full = (int)(ms * WIDTH / step.takes_ms);

	if (ms < 1000)
		return;
	if (full > WIDTH - 1) /* what takes longer than usual is not done yet */
		full = WIDTH - 1;
	fprintf(stderr, "\r\033[K[%.*s%.*s] %2d s  %s", full, "##############################",
		WIDTH - full, "..............................", (int)(ms / 1000), step.label);
	fflush(stderr);
	step.drawn = true;
}

void tf_progress_end(void)
{
	if (step.drawn) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	step.label = NULL;
	step.drawn = false;
}
