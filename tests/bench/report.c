/* SPDX-License-Identifier: MIT */
/* Rows as a table, as JSON, and as data for gnuplot (plots.gp). Where the reference is too
 * restless, a row says so and nothing is concluded from it. */
#include "tests/bench/bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(struct bench_series *s, double q)
{
	double at = q * (s->n - 1);
	unsigned i = (unsigned)at;

	qsort(s->v, s->n, sizeof(*s->v), compare);
	return i + 1 < s->n ? s->v[i] + (at - i) * (s->v[i + 1] - s->v[i]) : s->v[i];
}

void bench_push(struct bench_series *s, double v)
{
	if (s->n < BENCH_ROUNDS)
		s->v[s->n++] = v;
}

double bench_median(struct bench_series *s)
{
	return quantile(s, 0.5);
}

void bench_spread(struct bench_series *s, double *ret_low, double *ret_high)
{
	*ret_low = quantile(s, 0.25);
	*ret_high = quantile(s, 0.75);
}

static json_t *series_json(struct bench_series *s)
{
	double low, high;

	bench_spread(s, &low, &high);
	return json_pack("{s:f,s:f,s:f,s:i}", "median", bench_median(s), "low", low, "high", high,
		"rounds", (int)s->n);
}

static bool is_noisy(struct bench_series *s)
{
	double low, high;

	bench_spread(s, &low, &high);
	return high - low > BENCH_NOISE * bench_median(s);
}

static const char *judge(struct bench *b, double value, double limit, bool noisy)
{
	if (limit <= 0)
		return "told";
	if (noisy) {
		b->noisy++;
		return "noisy";
	}
	if (value > limit) {
		b->missed++;
		return "missed";
	}
	b->met++;
	return "met";
}

void bench_add(struct bench *b, struct bench_series *value, struct bench_series *reference,
	double limit, const char *unit, const char *aim, const char *name, ...)
{
	double median = bench_median(value), low, high;
	bool noisy = reference && is_noisy(reference);
	const char *verdict = judge(b, median, limit, noisy);
	char text[128], against[40] = "", most[40] = "";
	va_list ap;
	json_t *row;

	va_start(ap, name);
	vsnprintf(text, sizeof(text), name, ap);
	va_end(ap);
	bench_spread(value, &low, &high);
	if (reference)
		snprintf(against, sizeof(against), "%.2f", bench_median(reference));
	if (limit > 0)
		snprintf(most, sizeof(most), "%9.2f %5.2fx%s", limit, median / limit,
			noisy            ? " ?"
			: median > limit ? " *"
					 : "  ");
	printf("%-50s %9.2f (%.2f-%.2f) %-3s | %9s | %18s  %s\n", text, median, low, high, unit,
		against, most, aim);
	fflush(stdout);
	row = json_pack("{s:s,s:s,s:o,s:s,s:s}", "name", text, "unit", unit, "value",
		series_json(value), "aim", aim, "verdict", verdict);
	if (limit > 0) {
		json_object_set_new(row, "limit", json_real(limit));
		json_object_set_new(row, "ratio", json_real(median / limit));
	}
	if (reference)
		json_object_set_new(row, "reference", series_json(reference));
	json_array_append_new(b->rows, row);
}

void bench_point(struct bench *b, const char *curve, uint64_t mib, const char *line, double value)
{
	json_array_append_new(b->curves, json_pack("{s:s,s:I,s:s,s:f}", "curve", curve, "mib",
						 (json_int_t)mib, "line", line, "ms", value));
}

static FILE *open_in(const char *folder, const char *name)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	if (!f)
		fprintf(stderr, "bench: %s cannot be written\n", path);
	return f;
}

/* rows.dat: ratio to the limit, its spread, name. */
static int write_rows(const struct bench *b, const char *folder)
{
	FILE *f = open_in(folder, "rows.dat");
	json_t *row;
	size_t i;

	if (!f)
		return -1;
	json_array_foreach(b->rows, i, row)
	{
		double limit = json_number_value(json_object_get(row, "limit"));
		json_t *v = json_object_get(row, "value");

		if (limit <= 0)
			continue;
		fprintf(f, "%f %f %f \"%s\"\n", json_number_value(json_object_get(row, "ratio")),
			json_number_value(json_object_get(v, "low")) / limit,
			json_number_value(json_object_get(v, "high")) / limit,
			json_string_value(json_object_get(row, "name")));
	}
	return fclose(f);
}

/* CURVE-LINE.dat: MiB, ms. They are appended to, so the folder was emptied before. */
static int write_curves(const struct bench *b, const char *folder)
{
	json_t *p;
	size_t i;

	json_array_foreach(b->curves, i, p)
	{
		char path[512];
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s-%s.dat", folder,
			json_string_value(json_object_get(p, "curve")),
			json_string_value(json_object_get(p, "line")));
		f = fopen(path, "a");
		if (!f)
			return -1;
		fprintf(f, "%lld %f\n", json_integer_value(json_object_get(p, "mib")),
			json_number_value(json_object_get(p, "ms")));
		fclose(f);
	}
	return 0;
}

int bench_report(const struct bench *b, const char *folder)
{
	char path[512], load[64] = "";
	FILE *f = fopen("/proc/loadavg", "r");
	json_t *all;
	int rc;

	if (f && !fgets(load, sizeof(load), f))
		load[0] = '\0';
	if (f)
		fclose(f);
	load[strcspn(load, "\n")] = '\0';
	printf("\n%u aims met, %u missed (*), %u not judged (?): the reference's quartiles are further "
	       "apart than %.0f %% of its median\n",
		b->met, b->missed, b->noisy, BENCH_NOISE * 100);
	all = json_pack("{s:s,s:i,s:i,s:i,s:O,s:O}", "load", load, "met", (int)b->met, "missed",
		(int)b->missed, "noisy", (int)b->noisy, "rows", b->rows, "curves", b->curves);
	snprintf(path, sizeof(path), "%s/bench.json", folder);
	rc = json_dump_file(all, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	if (rc)
		fprintf(stderr, "bench: %s cannot be written\n", path);
	json_decref(all);
	return rc || write_rows(b, folder) || write_curves(b, folder) ? -1 : 0;
}
