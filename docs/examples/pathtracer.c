/* SPDX-License-Identifier: MIT */
/*
 * The original story of telefork: a path tracer that renders on another machine and is back with the
 * picture in its memory. render() knows nothing of it.
 *
 *   pathtracer [ADDRESS [--token TOKEN]] [--out FILE.png]
 *
 * Renders here. With an address ("tcp://big-machine:7700") also over there; then the picture is what
 * came back, the two are compared, and both times and the bytes moved each way are printed.
 * PATHTRACER_SIZE ("160x120") and PATHTRACER_SAMPLES ("8") in the environment set the work. Exit code
 * 0: done, and the two pictures are equal bit by bit.
 */
#include "core/telefork.h"

#include <math.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BOUNCES 6

struct vec {
	double x, y, z;
};

struct sphere {
	struct vec centre, colour, light;
	double radius;
	bool mirror;
};

struct scene {
	unsigned width, height, samples;
	unsigned n_spheres;
	struct sphere *spheres;
	uint8_t *pixels; /* width * height * 3, made by render() */
};

static struct vec add(struct vec a, struct vec b)
{
	return (struct vec){a.x + b.x, a.y + b.y, a.z + b.z};
}

static struct vec scale(struct vec a, double f)
{
	return (struct vec){a.x * f, a.y * f, a.z * f};
}

static struct vec filter(struct vec a, struct vec b)
{
	return (struct vec){a.x * b.x, a.y * b.y, a.z * b.z};
}

static double dot(struct vec a, struct vec b)
{
	return a.x * b.x + a.y * b.y + a.z * b.z;
}

static struct vec unit(struct vec a)
{
	return scale(a, 1 / sqrt(dot(a, a)));
}

/* xorshift64*: the same numbers everywhere. */
static double chance(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (double)(*state * 0x2545f4914f6cdd1du >> 11) / 9007199254740992.0;
}

static double distance_to(const struct sphere *s, struct vec from, struct vec way)
{
	struct vec to = add(s->centre, scale(from, -1));
	double b = dot(to, way), d = b * b - dot(to, to) + s->radius * s->radius;

	if (d < 0)
		return 0;
	d = sqrt(d);
	return b - d > 1e-4 ? b - d : b + d > 1e-4 ? b + d : 0;
}

static const struct sphere *hit(const struct scene *sc, struct vec from, struct vec way, double *at)
{
	const struct sphere *nearest = NULL;

	*at = INFINITY;
	for (unsigned i = 0; i < sc->n_spheres; i++) {
		double d = distance_to(&sc->spheres[i], from, way);

		if (d > 0 && d < *at) {
			*at = d;
			nearest = &sc->spheres[i];
		}
	}
	return nearest;
}

/* A direction of the half-space around n, by the cosine (Lambert). */
static struct vec scatter(struct vec n, uint64_t *rnd)
{
	for (;;) {
		struct vec v = {2 * chance(rnd) - 1, 2 * chance(rnd) - 1, 2 * chance(rnd) - 1};
		double square = dot(v, v);

		if (square > 1e-6 && square < 1)
			return unit(add(n, scale(v, 1 / sqrt(square) * 0.999)));
	}
}

static struct vec trace(const struct scene *sc, struct vec from, struct vec way, uint64_t *rnd)
{
	struct vec light = {0, 0, 0}, left = {1, 1, 1};

	for (int bounce = 0; bounce < BOUNCES; bounce++) {
		double at;
		const struct sphere *s = hit(sc, from, way, &at);
		struct vec normal;

		if (!s)
			return add(light, filter(left, scale((struct vec){0.6, 0.75, 1.0},
							       0.35 + 0.25 * way.y)));
		light = add(light, filter(left, s->light));
		left = filter(left, s->colour);
		from = add(from, scale(way, at));
		normal = unit(add(from, scale(s->centre, -1)));
		way = s->mirror ? add(way, scale(normal, -2 * dot(way, normal)))
				: scatter(normal, rnd);
	}
	return light;
}

static uint8_t to_byte(double v)
{
	v = sqrt(v < 0 ? 0 : v > 1 ? 1 : v); /* gamma 2 */
	return (uint8_t)(v * 255 + 0.5);
}

static void render(void *arg)
{
	struct scene *sc = arg;
	const struct vec eye = {0, 1.2, -5};

	sc->pixels = malloc((size_t)sc->width * sc->height * 3);
	for (unsigned i = 0; sc->pixels && i < sc->width * sc->height; i++) {
		uint64_t rnd = (i + 1) * 0x9e3779b97f4a7c15u;
		struct vec sum = {0, 0, 0};

		for (unsigned k = 0; k < sc->samples; k++) {
			double x = (i % sc->width + chance(&rnd)) / sc->width - 0.5;
			double y = 0.5 - (i / sc->width + chance(&rnd)) / sc->height;
			struct vec way = unit((struct vec){
				x * sc->width / sc->height, y - 0.12, 1.1});

			sum = add(sum, trace(sc, eye, way, &rnd));
		}
		sum = scale(sum, 1.0 / sc->samples);
		sc->pixels[3 * i] = to_byte(sum.x);
		sc->pixels[3 * i + 1] = to_byte(sum.y);
		sc->pixels[3 * i + 2] = to_byte(sum.z);
	}
}

static struct scene create_scene(void)
{
	static struct sphere spheres[] = {
		{{0, -1000, 0}, {0.75, 0.75, 0.7}, {0, 0, 0}, 1000, false},
		{{0, 1, 0.6}, {0.9, 0.9, 0.95}, {0, 0, 0}, 1, true},
		{{-2.1, 0.8, 0.2}, {0.9, 0.3, 0.2}, {0, 0, 0}, 0.8, false},
		{{2.0, 0.7, -0.2}, {0.25, 0.45, 0.9}, {0, 0, 0}, 0.7, false},
		{{-0.9, 0.35, -1.4}, {0.95, 0.8, 0.25}, {0, 0, 0}, 0.35, false},
		{{0.9, 0.3, -1.5}, {0.3, 0.8, 0.4}, {0, 0, 0}, 0.3, true},
		{{-3, 6, -3}, {0, 0, 0}, {9, 8.5, 7.5}, 1.6, false},
	};
	struct scene sc = {.width = 160, .height = 120, .samples = 8, .spheres = spheres,
		.n_spheres = sizeof(spheres) / sizeof(*spheres)};
	const char *size = getenv("PATHTRACER_SIZE"), *samples = getenv("PATHTRACER_SAMPLES");

	if (size && (sscanf(size, "%ux%u", &sc.width, &sc.height) != 2 || !sc.width ||
			    !sc.height || sc.width > 8192 || sc.height > 8192)) {
		fprintf(stderr, "pathtracer: PATHTRACER_SIZE=%s: as in 160x120\n", size);
		exit(64);
	}
	if (samples && (sscanf(samples, "%u", &sc.samples) != 1 || !sc.samples)) {
		fprintf(stderr, "pathtracer: PATHTRACER_SAMPLES=%s: 1 or more\n", samples);
		exit(64);
	}
	return sc;
}

static void save_png(const struct scene *sc, const char *path)
{
	png_image image = {.version = PNG_IMAGE_VERSION, .width = sc->width, .height = sc->height,
		.format = PNG_FORMAT_RGB};

	if (!png_image_write_to_file(&image, path, 0, sc->pixels, 0, NULL)) {
		fprintf(stderr, "pathtracer: %s: %s\n", path, image.message);
		exit(73);
	}
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Renders over there as well. */
static int there_and_back(const char *address, const char *token, const struct scene *here,
	struct scene *scene, double local)
{
	struct telefork_result result = {0};
	struct telefork_options options = {.result = &result, .token = token};
	bool equal;

	if (telefork_yoyo(address, render, scene, &options)) {
		fprintf(stderr, "pathtracer: %s\n", result.message);
		return 69;
	}
	equal = !memcmp(here->pixels, scene->pixels, (size_t)here->width * here->height * 3);
	printf("%s: rendered here in %.2f s, there and back in %.2f s, %llu bytes there, %llu back, "
	       "pictures %s\n",
		equal ? "ok" : "not ok", local, (double)result.total_ns / 1e9,
		(unsigned long long)result.bytes_sent, (unsigned long long)result.bytes_received,
		equal ? "identical" : "differ");
	return equal ? 0 : 1;
}

int main(int argc, char **argv)
{
	const char *address = NULL, *token = NULL, *out = "pathtracer.png";
	struct scene here = create_scene(), scene = create_scene();
	double start = now();
	int rc = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--token") && i + 1 < argc)
			token = argv[++i];
		else if (!strcmp(argv[i], "--out") && i + 1 < argc)
			out = argv[++i];
		else if (argv[i][0] != '-' && !address)
			address = argv[i];
		else
			rc = 64;
	}
	if (rc) {
		fprintf(stderr, "usage: pathtracer [ADDRESS [--token TOKEN]] [--out FILE.png]\n");
		return rc;
	}
	render(&here);
	if (address)
		rc = there_and_back(address, token, &here, &scene, now() - start);
	else
		printf("ok: rendered here in %.2f s\n", now() - start);
	if (rc <= 1)
		save_png(address ? &scene : &here, out);
	return rc;
}
