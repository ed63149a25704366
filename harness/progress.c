/* SPDX-License-Identifier: MIT */
/* See progress.h. There is one terminal, so its state is the file's. */
#include "harness/progress.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "qemu/io.h"

#define BAR       30 /* characters; on a narrow terminal a third of it */
#define CELLS_MAX 16
#define QUIET_MS  600 /* a short run is not worth a picture */

struct under_way {
	const char *label; /* NULL: none */
	int64_t start_ms;
	int takes_ms;
};

static struct {
	pthread_mutex_t lock;
	bool on, color;
	unsigned drawn; /* lines of it on the terminal */
	int64_t start_ms, drawn_ms;
	size_t total, ended, bad;
	uint64_t total_ms, ended_ms;
	unsigned jobs;
	struct under_way cells[CELLS_MAX];
} view = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct under_way *mine;

static bool is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) == 1 && term && strcmp(term, "dumb") != 0;
}

void tf_progress_open(size_t total, uint64_t total_ms, unsigned jobs)
{
	const char *no_color = getenv("NO_COLOR");

	view.on = is_terminal();
	view.color = !no_color || !*no_color;
	view.total = total;
	view.total_ms = total_ms ? total_ms : 1;
	view.jobs = jobs ? jobs : 1;
	view.start_ms = tf_vm_now_ms();
}

static void erase(FILE *f)
{
	for (unsigned i = 1; i < view.drawn; i++)
		fputs("\r\033[A", f);
	if (view.drawn)
		fputs("\r\033[J", f);
	view.drawn = 0;
}

static int terminal_width(void)
{
	struct winsize size = {0};

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
}

/* Of what takes @takes_ms as a rule, @ms after it began: what takes longer is not done yet. */
static uint64_t done_of(const struct under_way *u, int64_t now)
{
	int64_t ms = now - u->start_ms;

	return (uint64_t)(ms < u->takes_ms ? ms : u->takes_ms);
}

static void write_left(uint64_t left_ms, char buf[static 32])
{
	unsigned long s = (unsigned long)((left_ms + 999) / 1000);

	if (s < 100)
		snprintf(buf, 32, "%lu s left", s);
	else if (s < 3600)
		snprintf(buf, 32, "%lu:%02lu left", s / 60, s % 60);
	else
		snprintf(buf, 32, "%lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
}

/* The line of the whole run. A line that is too long would wrap, and could not be taken away. */
static void draw_run(FILE *f, int64_t now, int width)
{
	uint64_t done = view.ended_ms;
	size_t at_once = view.total - view.ended < view.jobs ? view.total - view.ended : view.jobs;
	char left[32], text[160], bad[64] = "";
	int full, bar = width < 70 ? BAR / 3 : BAR;

	for (unsigned i = 0; i < CELLS_MAX; i++)
		if (view.cells[i].label)
			done += done_of(&view.cells[i], now);
	done = done < view.total_ms ? done : view.total_ms;
	write_left((view.total_ms - done) / (at_once ? at_once : 1), left);
	full = (int)(done * (uint64_t)(bar - 1) / view.total_ms);
	width -= !view.total ? 0
			     : fprintf(f, "[%.*s%.*s]", full, "##############################",
				       bar - full, "..............................");
	if (view.bad)
		snprintf(bad, sizeof(bad), ", %zu did not hold", view.bad);
	if (view.total)
		snprintf(text, sizeof(text), "  %zu of %zu%s, %s", view.ended, view.total, bad,
			left);
	else
		snprintf(text, sizeof(text), "%zu ended%s", view.ended, bad);
	if (view.bad && view.color)
		fputs("\033[31m", f);
	fprintf(f, "%.*s", width > 0 ? width : 0, text);
	if (view.bad && view.color)
		fputs("\033[0m", f);
}

static void draw_cell(FILE *f, const struct under_way *u, int64_t now, int width)
{
	char text[256];

	snprintf(text, sizeof(text), "%4d s of %2d  %s", (int)((now - u->start_ms) / 1000),
		(u->takes_ms + 999) / 1000, u->label);
	fprintf(f, "\r\n%.*s", width, text);
}

/* All in one piece, so that it does not flicker. */
static void draw(int64_t now)
{
	int width = terminal_width() - 1;
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	erase(f);
	draw_run(f, now, width);
	view.drawn = 1;
	for (unsigned i = 0; i < CELLS_MAX; i++) {
		if (!view.cells[i].label)
			continue;
		draw_cell(f, &view.cells[i], now, width);
		view.drawn++;
	}
	fclose(f);
	tf_vm_write_all(STDERR_FILENO, text, size);
	free(text);
	view.drawn_ms = now;
}

void tf_progress_tick(void)
{
	int64_t now = tf_vm_now_ms();

	pthread_mutex_lock(&view.lock);
	if (view.on && now - view.start_ms >= QUIET_MS &&
		now - view.drawn_ms >= TF_PROGRESS_STEP_MS / 2)
		draw(now);
	pthread_mutex_unlock(&view.lock);
}

void tf_progress_begin(const char *label, int takes_ms)
{
	pthread_mutex_lock(&view.lock);
	for (unsigned i = 0; i < CELLS_MAX && !mine; i++)
		if (!view.cells[i].label)
			mine = &view.cells[i];
	if (mine)
		*mine = (struct under_way){label, tf_vm_now_ms(), takes_ms};
	pthread_mutex_unlock(&view.lock);
}

void tf_progress_end(bool held)
{
	pthread_mutex_lock(&view.lock);
	view.ended++;
	view.bad += !held;
	if (mine) {
		view.ended_ms += (uint64_t)mine->takes_ms;
		mine->label = NULL;
	}
	mine = NULL;
	pthread_mutex_unlock(&view.lock);
}

void tf_progress_hide(void)
{
	pthread_mutex_lock(&view.lock);
	if (view.drawn) {
		erase(stderr);
		fflush(stderr);
	}
}

void tf_progress_show(void)
{
	pthread_mutex_unlock(&view.lock);
}

void tf_progress_close(void)
{
	tf_progress_hide();
	view.on = false;
	tf_progress_show();
}
