/* SPDX-License-Identifier: MIT */
/*
 * Scenario files into cells. A key that the schema does not have is an error, as is a value of
 * another type: a scenario that is not understood must not pass for one that was run.
 */
#include "harness/scenario.h"

#include <errno.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX      32
#define LIMIT_DEFAULT 60 /* seconds */
#define TAKES_DEFAULT 5
#define LIMIT_MAX     3600

struct reader {
	const char *path;
	struct tf_vm_error *err;
};

/* A list of words, borrowed from the configuration; a single word is a list of one. */
struct words {
	const char *v[LIST_MAX];
	unsigned n;
};

/* What a file says, before it is expanded. */
struct scenario {
	struct words probe, program, outside, build, arch, tier, transport, route, checks, args,
		files, fetch;
	const char *refused;
	int limit, takes;
	unsigned n_machines;
	char machine_names[TF_CELL_MACHINES][32];
	struct tf_spec machines[TF_CELL_MACHINES];
	bool has_arch[TF_CELL_MACHINES], has_tier[TF_CELL_MACHINES];
};

__attribute__((format(printf, 3, 4))) static int wrong(
	const struct reader *r, const config_setting_t *at, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return tf_vm_fail(r->err, -EINVAL, "%s:%d: %s", r->path,
		at ? (int)config_setting_source_line(at) : 1, text);
}

static int read_words(const struct reader *r, const config_setting_t *s, struct words *ret)
{
	const char *name = config_setting_name(s), *word = config_setting_get_string(s);
	int n = config_setting_length(s);

	ret->n = 0;
	if (word)
		ret->v[ret->n++] = word;
	else if (!config_setting_is_array(s) && !config_setting_is_list(s))
		return wrong(r, s, "%s: expected a string or a list of strings", name);
	else if (n > LIST_MAX)
		return wrong(r, s, "%s: expected at most %d strings", name, LIST_MAX);
	for (int i = 0; !word && i < n; i++) {
		ret->v[ret->n] = config_setting_get_string_elem(s, i);
		if (!ret->v[ret->n++])
			return wrong(r, s, "%s: expected strings, element %d is none", name, i + 1);
	}
	return 0;
}

static int read_number(
	const struct reader *r, const config_setting_t *s, int min, int max, int *ret)
{
	int n = config_setting_type(s) == CONFIG_TYPE_INT ? config_setting_get_int(s) : min - 1;

	if (n < min || n > max)
		return wrong(r, s, "%s: expected a number from %d to %d", config_setting_name(s),
			min, max);
	*ret = n;
	return 0;
}

/* The place of @word in a table, or -1 after an error that lists the table. */
static int find(const struct reader *r, const config_setting_t *s, const char *word,
	const char *const table[], unsigned n)
{
	char known[256] = "";

	for (unsigned i = 0; i < n; i++) {
		size_t len = strlen(known);

		if (!strcmp(table[i], word))
			return (int)i;
		snprintf(known + len, sizeof(known) - len, "%s%s", i ? ", " : "", table[i]);
	}
	wrong(r, s, "%s: '%s' is none of %s", config_setting_name(s), word, known);
	return -1;
}

static const char *const arches[] = {"x86_64", "aarch64"};
static const char *const builds[] = {"static", "pie", "dyn"};
static const char *const kernels[] = {"6.1", "6.12", "16k"};
static const char *const senders[] = {"self", "move", "copy"};
static const char *const checks[] = {"verdict", "witness", "oracle"};

static int check_words(const struct reader *r, const config_setting_t *s, const struct words *w,
	const char *const table[], unsigned n)
{
	for (unsigned i = 0; i < w->n; i++)
		if (find(r, s, w->v[i], table, n) < 0)
			return -EINVAL;
	return 0;
}

/* One attribute of a machine. */
static int read_attribute(
	const struct reader *r, const config_setting_t *s, struct scenario *sc, unsigned m)
{
	const char *key = config_setting_name(s), *word = config_setting_get_string(s);
	struct tf_spec *spec = &sc->machines[m];
	bool number = !strcmp(key, "memory") || !strcmp(key, "vector_length");
	int value = 0, rc;

	if (number) {
		rc = read_number(r, s, 16, 65536, &value);
		if (rc == 0 && key[0] == 'm')
			spec->memory_mib = (unsigned)value;
		else if (rc == 0 && (value & (value - 1) || value > 256))
			rc = wrong(r, s, "vector_length: expected 16, 32, 64, 128 or 256 (bytes)");
		else if (rc == 0)
			spec->vector_length = (unsigned)value;
		return rc;
	}
	if (!word)
		return wrong(r, s, "%s: expected a string", key);
	if (!strcmp(key, "kernel")) {
		if (find(r, s, word, kernels, 3) < 0)
			return -EINVAL;
		snprintf(spec->kernel, sizeof(spec->kernel), "%s", strcmp(word, "6.1") ? word : "");
		return 0;
	}
	if (!strcmp(key, "name"))
		snprintf(sc->machine_names[m], sizeof(sc->machine_names[m]), "%s", word);
	else if (!strcmp(key, "cpu"))
		snprintf(spec->cpu, sizeof(spec->cpu), "%s", word);
	else if (!strcmp(key, "arch") && find(r, s, word, arches, 2) >= 0)
		sc->has_arch[m] = snprintf(spec->arch, sizeof(spec->arch), "%s", word);
	else if (!strcmp(key, "tier") && (rc = find(r, s, word, tf_tier_names, TF_TIERS)) >= 0)
		sc->has_tier[m] = true, spec->tier = (enum tf_tier)rc;
	else if (strcmp(key, "arch") != 0 && strcmp(key, "tier") != 0)
		return wrong(r, s,
			"machine: '%s' is none of name, arch, tier, cpu, kernel, memory, "
			"vector_length",
			key);
	else
		return -EINVAL;
	return 0;
}

static int read_machines(const struct reader *r, const config_setting_t *s, struct scenario *sc)
{
	int n = config_setting_length(s), rc = 0;

	if (!config_setting_is_list(s) || n < 1 || n > TF_CELL_MACHINES)
		return wrong(r, s,
			"machines: expected a list of 1 to %d groups: ( { name = \"A\"; } )",
			TF_CELL_MACHINES);
	for (int i = 0; i < n && rc == 0; i++) {
		const config_setting_t *m = config_setting_get_elem(s, (unsigned)i);

		if (!config_setting_is_group(m))
			return wrong(r, m, "machines: expected groups, element %d is none", i + 1);
		for (int k = 0; k < config_setting_length(m) && rc == 0; k++)
			rc = read_attribute(
				r, config_setting_get_elem(m, (unsigned)k), sc, (unsigned)i);
		if (rc == 0 && !sc->machine_names[i][0])
			rc = wrong(r, m, "machines: element %d has no name", i + 1);
	}
	sc->n_machines = (unsigned)n;
	return rc;
}

/* The keys of a file: a word list with its table, or one of the others. */
static int read_key(const struct reader *r, const config_setting_t *s, struct scenario *sc,
	char help[static 200])
{
	const struct {
		const char *key;
		struct words *words;
		const char *const *table;
		unsigned n;
	} lists[] = {
		{"probe", &sc->probe, NULL, 0},
		{"program", &sc->program, NULL, 0},
		{"outside", &sc->outside, senders + 1, 2},
		{"arguments", &sc->args, NULL, 0},
		{"files", &sc->files, NULL, 0},
		{"fetch", &sc->fetch, NULL, 0},
		{"route", &sc->route, NULL, 0},
		{"build", &sc->build, builds, 3},
		{"arch", &sc->arch, arches, 2},
		{"tier", &sc->tier, tf_tier_names, TF_TIERS},
		{"transport", &sc->transport, tf_transport_names, TF_TRANSPORTS},
		{"checks", &sc->checks, checks, 3},
	};
	const char *key = config_setting_name(s);
	int rc;

	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
		if (strcmp(lists[i].key, key) != 0)
			continue;
		rc = read_words(r, s, lists[i].words);
		return rc || !lists[i].table
			       ? rc
			       : check_words(r, s, lists[i].words, lists[i].table, lists[i].n);
	}
	if (!strcmp(key, "machines"))
		return read_machines(r, s, sc);
	if (!strcmp(key, "limit"))
		return read_number(r, s, 1, LIMIT_MAX, &sc->limit);
	if (!strcmp(key, "takes"))
		return read_number(r, s, 1, LIMIT_MAX, &sc->takes);
	if (!strcmp(key, "refused") && (sc->refused = config_setting_get_string(s)))
		return 0;
	if (strcmp(key, "help") != 0)
		return wrong(r, s,
			"'%s' is none of help, probe, program, outside, refused, arguments, files, "
			"fetch, "
			"build, arch, tier, transport, route, machines, checks, limit, "
			"takes",
			key);
	if (!config_setting_get_string(s))
		return wrong(r, s, "help: expected a string");
	snprintf(help, 200, "%s", config_setting_get_string(s));
	return 0;
}

/* Machines that the route names and nobody describes have no special attributes. */
static int complete(const struct reader *r, const config_setting_t *root, struct scenario *sc)
{
	bool described = sc->n_machines;

	if (!sc->probe.n && !sc->program.n)
		return wrong(r, NULL, "expected probe = \"...\": a program of tests/probes");
	if (sc->program.n && (sc->probe.n || sc->build.n || sc->fetch.n || sc->checks.n))
		return wrong(r, config_setting_get_member(root, "program"),
			"program: goes without probe, build, fetch and checks");
	if ((sc->outside.n || sc->refused) && !sc->program.n)
		return wrong(r, NULL, "outside, refused: expected program = \"...\" as well");
	if (sc->refused && sc->route.n > 2)
		return wrong(r, NULL, "refused: expected a route of two machines");
	if (!sc->route.n)
		sc->route = (struct words){{"A", "B"}, 2};
	if (sc->route.n < 2 || sc->route.n > TF_CELL_ROUTE)
		return wrong(r, config_setting_get_member(root, "route"),
			"route: expected 2 to %d names of machines", TF_CELL_ROUTE);
	if (sc->args.n > TF_CELL_ARGS)
		return wrong(r, config_setting_get_member(root, "arguments"),
			"arguments: expected at most %d", TF_CELL_ARGS);
	if (sc->files.n > TF_CELL_ARGS)
		return wrong(r, config_setting_get_member(root, "files"),
			"files: expected at most %d", TF_CELL_ARGS);
	if (sc->fetch.n > TF_CELL_ARGS)
		return wrong(r, config_setting_get_member(root, "fetch"),
			"fetch: expected at most %d", TF_CELL_ARGS);
	for (unsigned i = 0; i < sc->fetch.n; i++)
		if (strchr(sc->fetch.v[i], '/'))
			return wrong(r, config_setting_get_member(root, "fetch"),
				"fetch: expected names of files without '/'");
	for (unsigned i = 0; i < sc->route.n; i++) {
		unsigned m = 0;

		while (m < sc->n_machines && strcmp(sc->machine_names[m], sc->route.v[i]) != 0)
			m++;
		if (m < sc->n_machines)
			continue;
		if (described || m == TF_CELL_MACHINES)
			return wrong(r, config_setting_get_member(root, "route"),
				"route: '%s' is no name of a machine above", sc->route.v[i]);
		snprintf(sc->machine_names[m], sizeof(sc->machine_names[m]), "%s", sc->route.v[i]);
		sc->n_machines++;
	}
	return 0;
}

static struct tf_cell *add_cell(struct tf_cells *cells)
{
	if (cells->n == cells->cap) {
		size_t cap = cells->cap ? cells->cap * 2 : 32;
		struct tf_cell *v = realloc(cells->v, cap * sizeof(*v));

		if (!v)
			return NULL;
		cells->v = v;
		cells->cap = cap;
	}
	cells->v[cells->n] = (struct tf_cell){0};
	return &cells->v[cells->n++];
}

/* The alternatives of one cell. */
struct choice {
	const char *probe, *build, *arch, *tier, *transport;
};

static unsigned index_of(const char *word, const char *const table[], unsigned n)
{
	unsigned i = 0;

	while (i < n && strcmp(table[i], word) != 0)
		i++;
	return i;
}

static bool possible(const struct tf_cell *c)
{
	if (c->program && c->transport == TF_TRANSPORT_FILE)
		return false;
	if (c->sender == TF_SENDER_COPY && c->n_route > 2)
		return false;
	/* There is no ptrace. */
	for (unsigned i = 0; c->program && i + 1 < c->n_route; i++)
		if (c->machines[c->route[i]].tier == TF_TIER_USER)
			return false;
	for (unsigned i = 0; i < c->n_machines; i++) {
		if (c->machines[i].tier == TF_TIER_NATIVE &&
			strcmp(c->machines[i].arch, tf_vm_host_arch()) != 0)
			return false;
		if (c->machines[i].tier == TF_TIER_SYSTEM && c->transport == TF_TRANSPORT_UNIX)
			return false;
	}
	return true;
}

static void fill_machines(struct tf_cell *c, const struct scenario *sc, const struct choice *ch)
{
	c->n_machines = sc->n_machines;
	for (unsigned m = 0; m < c->n_machines; m++) {
		struct tf_spec *spec = &c->machines[m];

		*spec = sc->machines[m];
		memcpy(c->machine_names[m], sc->machine_names[m], sizeof(c->machine_names[m]));
		if (!sc->has_arch[m])
			snprintf(spec->arch, sizeof(spec->arch), "%s", ch->arch);
		if (!sc->has_tier[m])
			spec->tier = (enum tf_tier)index_of(ch->tier, tf_tier_names, TF_TIERS);
	}
	c->n_route = sc->route.n;
	for (unsigned i = 0; i < c->n_route; i++)
		for (unsigned m = 0; m < c->n_machines; m++)
			if (!strcmp(sc->route.v[i], c->machine_names[m]))
				c->route[i] = (unsigned char)m;
}

/* By socket both are looked at by ptrace, which QEMU user mode does not have. */
static int check_witness(const struct reader *r, const struct tf_cell *c)
{
	if (c->n_route > 2)
		return wrong(r, NULL, "checks: a witness needs a route of two machines");
	for (unsigned i = 0; i < c->n_machines && c->transport != TF_TRANSPORT_FILE; i++)
		if (c->machines[i].tier == TF_TIER_USER)
			return wrong(
				r, NULL, "checks: a witness in tier user needs transport \"file\"");
	for (unsigned i = 0; i < c->n_machines && c->checks & TF_CHECK_ORACLE; i++)
		if (c->machines[i].tier != TF_TIER_SYSTEM)
			return wrong(r, NULL,
				"checks: an oracle looks at machines of tier \"system\" only");
	if (c->checks & TF_CHECK_ORACLE && c->transport == TF_TRANSPORT_FILE)
		return wrong(r, NULL, "checks: an oracle needs transport \"tcp\"");
	return 0;
}

static bool copy_words(const struct words *w, char **to)
{
	for (unsigned i = 0; i < w->n; i++) {
		to[i] = strdup(w->v[i]);
		if (!to[i])
			return false;
	}
	return true;
}

static int fill(const struct reader *r, struct tf_cells *cells, const struct scenario *sc,
	const struct choice *ch)
{
	const char *slash = strrchr(r->path, '/');
	struct tf_cell *c = add_cell(cells);

	if (!c)
		return tf_vm_fail(r->err, -ENOMEM, "no memory");
	fill_machines(c, sc, ch);
	c->transport =
		(enum tf_transport)index_of(ch->transport, tf_transport_names, TF_TRANSPORTS);
	c->limit_ms = sc->limit * 1000;
	c->takes_ms = sc->takes * 1000;
	c->checks = TF_CHECK_VERDICT;
	for (unsigned i = 0; i < sc->checks.n; i++)
		c->checks |= 1u << index_of(sc->checks.v[i], checks, 3);
	snprintf(c->arch, sizeof(c->arch), "%s", c->machines[c->route[0]].arch);
	if (sc->program.n) {
		const char *last = strrchr(ch->probe, '/');

		c->program = strdup(ch->probe);
		c->sender = (enum tf_sender)index_of(ch->build, senders, 3);
		if (!c->program)
			return tf_vm_fail(r->err, -ENOMEM, "no memory");
		snprintf(c->probe, sizeof(c->probe), "%s", last ? last + 1 : ch->probe);
	} else {
		snprintf(c->probe, sizeof(c->probe), "%s", ch->probe);
	}
	snprintf(c->build, sizeof(c->build), "%s", ch->build);
	snprintf(c->file, sizeof(c->file), "%s", r->path);
	snprintf(c->scenario, sizeof(c->scenario), "%s", slash ? slash + 1 : r->path);
	if (strchr(c->scenario, '.'))
		*strchr(c->scenario, '.') = '\0';
	snprintf(c->name, sizeof(c->name), "%.40s/%.40s-%s.%s.%s.%s", c->scenario, c->probe,
		c->build, c->arch, tf_tier_names[c->machines[c->route[0]].tier], ch->transport);
	if (!possible(c)) {
		free(c->program);
		cells->n--;
		return 0;
	}
	if (c->checks & TF_CHECK_ORACLE) /* its images are the witness's */
		c->checks |= TF_CHECK_WITNESS;
	if (c->checks & TF_CHECK_WITNESS) {
		int rc = check_witness(r, c);

		if (rc < 0)
			return rc;
	}
	c->refused = sc->refused ? strdup(sc->refused) : NULL;
	if ((sc->refused && !c->refused) || !copy_words(&sc->args, c->args) ||
		!copy_words(&sc->files, c->files) || !copy_words(&sc->fetch, c->fetch))
		return tf_vm_fail(r->err, -ENOMEM, "no memory");
	return 0;
}

/* An absent list is a list of its default. */
static const struct words *or_default(const struct words *w, struct words *space, const char *word)
{
	*space = (struct words){{word}, 1};
	return w->n ? w : space;
}

static int expand(const struct reader *r, struct tf_cells *cells, const struct scenario *sc)
{
	struct words space[4];
	const struct words *probe = sc->program.n ? &sc->program : &sc->probe;
	const struct words *build = sc->program.n ? or_default(&sc->outside, &space[0], "move")
						  : or_default(&sc->build, &space[0], "static");
	const struct words *arch = or_default(&sc->arch, &space[1], tf_vm_host_arch());
	const struct words *tier = or_default(&sc->tier, &space[2], "native");
	const struct words *transport = or_default(&sc->transport, &space[3], "tcp");
	unsigned total = probe->n * build->n * arch->n * tier->n * transport->n;
	int rc = 0;

	for (unsigned i = 0; i < total && rc == 0; i++) {
		unsigned k = i;
		struct choice ch;

		ch.build = build->v[k % build->n], k /= build->n;
		ch.transport = transport->v[k % transport->n], k /= transport->n;
		ch.probe = probe->v[k % probe->n], k /= probe->n;
		ch.arch = arch->v[k % arch->n], k /= arch->n;
		ch.tier = tier->v[k];
		rc = fill(r, cells, sc, &ch);
	}
	return rc;
}

int tf_scenario_read(
	const char *path, struct tf_cells *cells, char help[static 200], struct tf_vm_error *err)
{
	struct reader r = {path, err};
	struct scenario sc = {.limit = LIMIT_DEFAULT, .takes = TAKES_DEFAULT};
	const config_setting_t *root;
	config_t config;
	int rc = 0;

	help[0] = '\0';
	config_init(&config);
	if (!config_read_file(&config, path)) {
		if (config_error_type(&config) == CONFIG_ERR_FILE_IO)
			rc = tf_vm_fail(err, -ENOENT,
				"%s: no such scenario (telebed list shows "
				"them)",
				path);
		else
			rc = tf_vm_fail(err, -EINVAL,
				"%s:%d: %s: expected lines of the form key = value;", path,
				config_error_line(&config), config_error_text(&config));
		config_destroy(&config);
		return rc;
	}
	root = config_root_setting(&config);
	for (int i = 0; i < config_setting_length(root) && rc == 0; i++)
		rc = read_key(&r, config_setting_get_elem(root, (unsigned)i), &sc, help);
	if (rc == 0)
		rc = complete(&r, root, &sc);
	if (rc == 0)
		rc = expand(&r, cells, &sc);
	config_destroy(&config);
	return rc;
}

static int compare_machines(const void *a, const void *b)
{
	const struct tf_cell *x = a, *y = b;
	int d = x->n_machines < y->n_machines ? -1 : x->n_machines > y->n_machines;

	for (unsigned i = 0; i < x->n_machines && d == 0; i++)
		d = memcmp(&x->machines[i], &y->machines[i], sizeof(x->machines[i]));
	/* qsort is not stable: among equals the order of the files is that of the addresses. */
	return d;
}

void tf_cells_sort(struct tf_cells *cells)
{
	/* Insertion keeps equals in their order, and there are few. */
	for (size_t i = 1; i < cells->n; i++) {
		struct tf_cell c = cells->v[i];
		size_t k = i;

		for (; k && compare_machines(&cells->v[k - 1], &c) > 0; k--)
			cells->v[k] = cells->v[k - 1];
		cells->v[k] = c;
	}
}

static void cell_done(struct tf_cell *c)
{
	free(c->program);
	free(c->refused);
	for (unsigned i = 0; i < TF_CELL_ARGS; i++) {
		free(c->args[i]);
		free(c->files[i]);
		free(c->fetch[i]);
	}
}

static bool is_chosen(const struct tf_cell *c, const char *const *texts)
{
	for (; *texts; texts++)
		if (strstr(c->name, *texts))
			return true;
	return false;
}

void tf_cells_filter(struct tf_cells *cells, const char *const *texts)
{
	size_t n = 0;

	for (size_t i = 0; i < cells->n; i++) {
		if (is_chosen(&cells->v[i], texts))
			cells->v[n++] = cells->v[i];
		else
			cell_done(&cells->v[i]);
	}
	cells->n = n;
}

void tf_cells_done(struct tf_cells *cells)
{
	for (size_t i = 0; i < cells->n; i++)
		cell_done(&cells->v[i]);
	free(cells->v);
	*cells = (struct tf_cells){0};
}

const char *tf_cell_route(const struct tf_cell *cell, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < cell->n_route && n < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s%s", i ? " -> " : "",
			cell->machine_names[cell->route[i]]);
	return buf;
}
