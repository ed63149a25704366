/* SPDX-License-Identifier: MIT */
/*
 * Scenario files into cells. A key that the schema does not have is an error, as is a value of
 * another type: a scenario that is not understood must not pass for one that was run.
 */
#include "harness/scenario.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/io.h"

#define LIMIT_DEFAULT 180 /* seconds */
#define TAKES_DEFAULT 5
#define LIMIT_MAX     3600
#define DIRECT        "direct" /* without an engine's program */

/* What a file says, before it is expanded. */
struct scenario {
	struct tf_words probe, program, outside, mode, build, arch, tier, machine, transport, route,
		checks, args, files, fetch, engine, peers;
	const char *help, *set, *refused;
	unsigned limit, takes;
	const struct tf_rows *rows;
	unsigned n_machines;
	struct tf_row machines[TF_CELL_MACHINES];
	bool fan_out;
	struct tf_cell_faults faults;
};

static const char *const arches[] = {"x86_64", "aarch64"};
static const char *const builds[] = {"static", "pie", "dyn"};
static const char *const senders[] = {"self", "move", "copy"};
const char *const tf_mode_names[TF_MODES] = {"usual", "whole", "precopy", "lazy"};
static const char *const checks[] = {"verdict", "witness", "oracle"};

static int read_machines(const struct tf_conf *r, const config_setting_t *s, void *to)
{
	struct scenario *sc = to;
	int n = config_setting_length(s), rc = 0;

	if (!config_setting_is_list(s) || n < 1 || n > TF_CELL_MACHINES)
		return tf_conf_wrong(r, s,
			"machines: expected a list of 1 to %d groups: ( { name = \"A\"; } )",
			TF_CELL_MACHINES);
	for (int i = 0; i < n && rc == 0; i++) {
		const config_setting_t *m = config_setting_get_elem(s, (unsigned)i);

		if (!config_setting_is_group(m))
			return tf_conf_wrong(
				r, m, "machines: expected groups, element %d is none", i + 1);
		rc = tf_row_read(r, sc->rows, m, &sc->machines[i]);
	}
	sc->n_machines = (unsigned)n;
	return rc;
}

static int read_faults(const struct tf_conf *r, const config_setting_t *s, void *to)
{
	return tf_faults_read(r, s, &((struct scenario *)to)->faults);
}

#define WORDS(field) TF_KEY_WORDS, offsetof(struct scenario, field), 0
#define OTHER(field) offsetof(struct scenario, field), 0

static const struct tf_key keys[] = {
	{"help", TF_KEY_STRING, OTHER(help), 0, 0, 0, 0, 0, "one line for `telebed list`", ""},
	{"set", TF_KEY_STRING, OTHER(set), 0, 0, 0, 0, 0,
		"which scenarios it is run with: `telebed run --set`", "`default`"},
	{"probe", WORDS(probe), 0, 0, 0, 0, 0, "programs of tests/probes, alternatives",
		"must be given, or `program`"},
	{"program", WORDS(program), 0, 0, 0, 0, 0,
		"files of the project that are programs which know nothing of telefork, "
		"alternatives; `{arch}` as in `files`",
		""},
	{"outside", WORDS(outside), senders + 1, 2, 0, 0, 0,
		"what telefork does to a `program`, alternatives; or to a `probe` that says \"ready\" "
		"and at SIGUSR1 whether all is right, one of them",
		"`move` of a `program`"},
	{"mode", WORDS(mode), tf_mode_names, TF_MODES, 0, 0, 0,
		"how memory goes from outside, alternatives: as telefork chooses, all of it while the "
		"process stands, in rounds before it is stopped (`move`), or after it runs over there; if it "
		"went otherwise, the cell fails",
		"`usual`"},
	{"refused", TF_KEY_STRING, OTHER(refused), 0, 0, 0, 0, 0,
		"a `program` may not go: telefork has to say this, and it goes on where it is", ""},
	{"engine", WORDS(engine), 0, 0, 0, 0, 0,
		"who takes it along, alternatives: `direct` is telefork() of a probe itself, and "
		"telefork move or copy of a program; others are programs (Engines)",
		"`direct`"},
	{"peers", WORDS(peers), 0, 0, 0, 0, 0,
		"engines for the same cells, whose outcomes are reported and never fail a run",
		"none"},
	{"arguments", WORDS(args), 0, 0, 0, TF_CELL_ARGS, 0,
		"of the program, after those of the harness; `{dir}` is the machine's folder",
		"none"},
	{"files", WORDS(files), 0, 0, 0, TF_CELL_ARGS, 0,
		"files of the project that go into the program's folder; `{arch}` in one is the "
		"architecture",
		"none"},
	{"fetch", WORDS(fetch), 0, 0, 0, TF_CELL_ARGS, 0,
		"names of files that the probe leaves in its folder: they are kept", "none"},
	{"build", WORDS(build), builds, 3, 0, 0, 0, "of a probe, alternatives", "`static`"},
	{"arch", WORDS(arch), arches, 2, 0, 0, 0, "alternatives", "the host's"},
	{"tier", WORDS(tier), tf_tier_names, TF_TIERS, 0, 0, 0, "alternatives", "`native`"},
	{"machine", WORDS(machine), 0, 0, 0, 0, 0,
		"instead of `arch` and `tier`: rows of `telebed machines`, alternatives. `\"ROW\"` "
		"stands for all machines, `\"ROW -> ROW\"` for the first and those after it",
		""},
	{"transport", WORDS(transport), tf_transport_names, TF_TRANSPORTS, 0, 0, 0, "alternatives",
		"`tcp`"},
	{"route", WORDS(route), 0, 0, 1, TF_CELL_ROUTE, 0,
		"list of machines' names: `[ \"A\", \"B\", \"A\" ]`. `\"ring\"` is through all "
		"`machines` and back to the first, `\"fan-out\"` from the first to all others at "
		"once",
		"`[ \"A\", \"B\" ]`"},
	{"machines", TF_KEY_OTHER, 0, 0, 0, 0, 0, 0, read_machines,
		"list of groups, for machines that are not alike", "those of the route"},
	{"checks", WORDS(checks), checks, 3, 0, 0, 0, "`verdict` is always made", "`verdict`"},
	{"faults", TF_KEY_OTHER, 0, 0, 0, 0, 0, 0, read_faults, "a group: what goes wrong (Faults)",
		"nothing"},
	{"limit", TF_KEY_NUMBER, OTHER(limit), 0, 0, 1, LIMIT_MAX, 0,
		"seconds for a cell, scaled to the speed of the host's guests", "180"},
	{"takes", TF_KEY_NUMBER, OTHER(takes), 0, 0, 1, LIMIT_MAX, 0,
		"seconds that a cell takes as a rule: progress bars and shards go by it", "5"},
};

#define N_KEYS (sizeof(keys) / sizeof(*keys))

void tf_scenario_schema(FILE *out)
{
	tf_schema_print(out, keys, N_KEYS);
}

/* --- what belongs together --- */

/* Names for machines of a ring or a fan-out that nobody described. */
static void name_machines(struct scenario *sc, unsigned n)
{
	for (; sc->n_machines < n; sc->n_machines++)
		snprintf(sc->machines[sc->n_machines].name, sizeof(sc->machines[0].name), "%c",
			'A' + (int)sc->n_machines);
}

static int shape_route(struct scenario *sc)
{
	bool ring = sc->route.n == 1 && !strcmp(sc->route.v[0], "ring");
	bool fan = sc->route.n == 1 && !strcmp(sc->route.v[0], "fan-out");

	if (!sc->route.n)
		sc->route = (struct tf_words){{"A", "B"}, 2};
	if (!ring && !fan)
		return 0;
	if (!sc->n_machines)
		name_machines(sc, ring ? 3 : 4);
	sc->fan_out = fan;
	sc->route.n = sc->n_machines + ring;
	for (unsigned i = 0; i < sc->route.n; i++)
		sc->route.v[i] = sc->machines[i % sc->n_machines].name;
	return 0;
}

/* Machines that the route names and nobody describes have no special attributes. */
static int check_route(const struct tf_conf *r, const config_setting_t *root, struct scenario *sc)
{
	const config_setting_t *at = config_setting_get_member(root, "route");
	bool described = sc->n_machines;
	int rc = shape_route(sc);

	if (rc == 0 && sc->route.n < 2)
		rc = tf_conf_wrong(r, at,
			"route: expected 2 to %d names of machines, \"ring\" or \"fan-out\"",
			TF_CELL_ROUTE);
	for (unsigned i = 0; i < sc->route.n && rc == 0; i++) {
		unsigned m = 0;

		while (m < sc->n_machines && strcmp(sc->machines[m].name, sc->route.v[i]) != 0)
			m++;
		if (m < sc->n_machines)
			continue;
		if (described || m == TF_CELL_MACHINES)
			rc = tf_conf_wrong(
				r, at, "route: '%s' is no name of a machine above", sc->route.v[i]);
		else
			snprintf(sc->machines[sc->n_machines++].name, sizeof(sc->machines[0].name),
				"%s", sc->route.v[i]);
	}
	return rc;
}

static unsigned index_of(const char *word, const char *const table[], unsigned n)
{
	unsigned i = 0;

	while (i < n && strcmp(table[i], word) != 0)
		i++;
	return i;
}

static bool has(const struct tf_words *w, const char *word)
{
	return index_of(word, w->v, w->n) < w->n;
}

static int complete_outside(
	const struct tf_conf *r, const config_setting_t *root, const struct scenario *sc)
{
	if (sc->probe.n && sc->outside.n && (sc->outside.n > 1 || sc->checks.n || sc->engine.n))
		return tf_conf_wrong(r, config_setting_get_member(root, "outside"),
			"outside: of a probe, expected one word, without checks and engine");
	if (sc->mode.n && !sc->program.n && !sc->outside.n)
		return tf_conf_wrong(r, config_setting_get_member(root, "mode"),
			"mode: expected program = \"...\" or outside = \"...\" as well");
	if ((has(&sc->mode, "whole") || has(&sc->mode, "precopy")) && has(&sc->outside, "copy"))
		return tf_conf_wrong(r, config_setting_get_member(root, "mode"),
			"mode: of a copy, expected usual or lazy");
	return 0;
}

static int complete(const struct tf_conf *r, const config_setting_t *root, struct scenario *sc)
{
	int rc;

	if (!sc->probe.n && !sc->program.n)
		return tf_conf_wrong(
			r, NULL, "expected probe = \"...\": a program of tests/probes");
	if (sc->program.n && (sc->probe.n || sc->build.n || sc->fetch.n || sc->checks.n))
		return tf_conf_wrong(r, config_setting_get_member(root, "program"),
			"program: goes without probe, build, fetch and checks");
	if (sc->refused && !sc->program.n)
		return tf_conf_wrong(r, NULL, "refused: expected program = \"...\" as well");
	rc = complete_outside(r, root, sc);
	if (rc < 0)
		return rc;
	if (sc->faults.n_strikes && (!sc->program.n || !strstr(sc->program.v[0], "/counter")))
		return tf_conf_wrong(r, config_setting_get_member(root, "faults"),
			"faults: strike: expected program = \"build/{arch}/tests/counter\", which "
			"notices when it runs twice");
	if (sc->refused && sc->route.n > 2)
		return tf_conf_wrong(r, NULL, "refused: expected a route of two machines");
	if (sc->machine.n && (sc->arch.n || sc->tier.n))
		return tf_conf_wrong(r, config_setting_get_member(root, "machine"),
			"machine: goes without arch and tier");
	for (unsigned i = 0; i < sc->fetch.n; i++)
		if (strchr(sc->fetch.v[i], '/'))
			return tf_conf_wrong(r, config_setting_get_member(root, "fetch"),
				"fetch: expected names of files without '/'");
	return check_route(r, root, sc);
}

/* --- cells --- */

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
	const char *probe, *build, *arch, *tier, *machine, *transport, *engine, *mode;
	bool peer;
};

static bool possible(const struct tf_cell *c)
{
	bool direct = !c->engine[0];

	if (c->sender && direct && c->transport == TF_TRANSPORT_FILE)
		return false;
	if (!direct && (c->transport != TF_TRANSPORT_FILE || c->sender == TF_SENDER_COPY))
		return false;
	if (c->sender == TF_SENDER_COPY && c->n_route > 2 && !c->fan_out)
		return false;
	/* A probe goes to one address, and comes out of its file as often as one likes. */
	if (c->fan_out && direct &&
		(c->sender ? c->sender != TF_SENDER_COPY : c->transport != TF_TRANSPORT_FILE))
		return false;
	/* There is no ptrace. */
	for (unsigned i = 0; i < c->n_route; i++)
		if (tf_spec_emulates(&c->machines[c->route[i]]) &&
			(!direct || (c->sender && i + 1 < c->n_route)))
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

/* The row of machine number @m in "ROW -> ROW"; the last one stands for all that follow. */
static int row_of(const struct tf_conf *r, const struct tf_rows *rows, const char *text, unsigned m,
	const struct tf_row **ret)
{
	const char *end;
	char name[64];
	size_t len;

	for (; m && (end = strstr(text, "->")); m--)
		text = end + 2;
	text += strspn(text, " ");
	end = strstr(text, "->");
	len = end ? (size_t)(end - text) : strlen(text);
	while (len && text[len - 1] == ' ')
		len--;
	snprintf(name, sizeof(name), "%.*s", (int)len, text);
	*ret = tf_rows_find(rows, name);
	return *ret ? 0
		    : tf_conf_wrong(r, NULL, "machine: '%s' is no row of telebed machines", name);
}

static int fill_machines(const struct tf_conf *r, struct tf_cell *c, const struct scenario *sc,
	const struct choice *ch)
{
	int rc = 0;

	c->n_machines = sc->n_machines;
	for (unsigned m = 0; m < c->n_machines && rc == 0; m++) {
		const struct tf_row *own = &sc->machines[m], *row = NULL;
		struct tf_spec *spec = &c->machines[m];

		memcpy(c->machine_names[m], own->name, sizeof(c->machine_names[m]));
		*spec = own->spec;
		if (ch->machine && !own->has_arch && !own->has_tier)
			rc = row_of(r, sc->rows, ch->machine, m, &row);
		if (row) {
			*spec = row->spec;
			tf_spec_merge(spec, &own->spec);
		}
		if (ch->machine)
			continue;
		if (!own->has_arch)
			snprintf(spec->arch, sizeof(spec->arch), "%s", ch->arch);
		if (!own->has_tier)
			spec->tier = (enum tf_tier)index_of(ch->tier, tf_tier_names, TF_TIERS);
	}
	c->n_route = sc->route.n;
	c->fan_out = sc->fan_out;
	for (unsigned i = 0; i < c->n_route; i++)
		for (unsigned m = 0; m < c->n_machines; m++)
			if (!strcmp(sc->route.v[i], c->machine_names[m]))
				c->route[i] = (unsigned char)m;
	return rc;
}

/* By socket both are looked at by ptrace, which QEMU user mode does not have. */
static int check_witness(const struct tf_conf *r, const struct tf_cell *c)
{
	if (c->n_route > 2)
		return tf_conf_wrong(r, NULL, "checks: a witness needs a route of two machines");
	if (c->engine[0])
		return tf_conf_wrong(r, NULL, "checks: a witness goes with engine \"direct\" only");
	for (unsigned i = 0; i < c->n_machines && c->transport != TF_TRANSPORT_FILE; i++)
		if (tf_spec_emulates(&c->machines[i]))
			return tf_conf_wrong(
				r, NULL, "checks: a witness in tier user needs transport \"file\"");
	for (unsigned i = 0; i < c->n_machines && c->checks & TF_CHECK_ORACLE; i++)
		if (c->machines[i].tier != TF_TIER_SYSTEM || tf_spec_emulates(&c->machines[i]))
			return tf_conf_wrong(r, NULL,
				"checks: an oracle looks at machines of tier \"system\" only");
	if (c->checks & TF_CHECK_ORACLE && c->transport == TF_TRANSPORT_FILE)
		return tf_conf_wrong(r, NULL, "checks: an oracle needs transport \"tcp\"");
	return 0;
}

/* Nothing comes into a machine of this tier while it runs. */
static int check_icount(const struct tf_conf *r, const struct tf_cell *c)
{
	bool icount = false;

	for (unsigned i = 0; i < c->n_machines; i++)
		icount |= c->machines[i].tier == TF_TIER_ICOUNT;
	if (icount && (c->n_machines > 1 || c->sender || c->engine[0] || c->faults.given ||
			      c->fetch[0] || c->checks & ~TF_CHECK_VERDICT))
		return tf_conf_wrong(r, NULL,
			"tier icount: expected a probe, no checks but its verdict, no faults, no fetch, "
			"and a route within one machine, [ \"A\", \"A\" ]");
	return 0;
}

static bool copy_words(const struct tf_words *w, char **to)
{
	for (unsigned i = 0; i < w->n; i++) {
		to[i] = strdup(w->v[i]);
		if (!to[i])
			return false;
	}
	return true;
}

static void fill_words(struct tf_cell *c, const struct scenario *sc, const struct choice *ch)
{
	c->transport =
		(enum tf_transport)index_of(ch->transport, tf_transport_names, TF_TRANSPORTS);
	c->limit_ms = (int)sc->limit * 1000;
	c->takes_ms = (int)sc->takes * 1000;
	c->faults = sc->faults;
	c->checks = TF_CHECK_VERDICT;
	for (unsigned i = 0; i < sc->checks.n; i++)
		c->checks |= 1u << index_of(sc->checks.v[i], checks, 3);
	if (c->checks & TF_CHECK_ORACLE) /* its images are the witness's */
		c->checks |= TF_CHECK_WITNESS;
	if (strcmp(ch->engine, DIRECT) != 0) {
		snprintf(c->engine, sizeof(c->engine), "%s", ch->engine);
		c->transport = TF_TRANSPORT_FILE;
	}
	c->peer = ch->peer;
	snprintf(c->arch, sizeof(c->arch), "%s", c->machines[c->route[0]].arch);
	snprintf(c->build, sizeof(c->build), "%s", ch->build);
}

/* SCENARIO/PROBE-BUILD.ARCH.TIER.TRANSPORT, or .ROW-to-ROW. for ARCH.TIER; .ENGINE unless direct,
 * .MODE unless usual. */
static void fill_name(struct tf_cell *c, const struct choice *ch)
{
	char where[80];
	size_t n = 0;

	snprintf(where, sizeof(where), "%s.%s", c->arch,
		tf_tier_names[c->machines[c->route[0]].tier]);
	for (const char *p = ch->machine; p && *p && n + 5 < sizeof(where); p++) {
		if (p[0] == '-' && p[1] == '>') {
			n += (size_t)snprintf(where + n, sizeof(where) - n, "-to-");
			p++;
		} else if (*p != ' ') {
			where[n++] = *p;
		}
		where[n] = '\0';
	}
	snprintf(c->name, sizeof(c->name), "%.30s/%.30s-%s.%s.%s%s%s%s%s", c->scenario, c->probe,
		c->build, where, tf_transport_names[c->transport], c->engine[0] ? "." : "",
		c->engine, c->mode ? "." : "", c->mode ? tf_mode_names[c->mode] : "");
}

static int fill_program(const struct tf_conf *r, struct tf_cell *c, const struct scenario *sc,
	const struct choice *ch)
{
	const char *last = strrchr(ch->probe, '/');

	snprintf(c->probe, sizeof(c->probe), "%s", last && sc->program.n ? last + 1 : ch->probe);
	c->mode = (enum tf_mode)index_of(ch->mode, tf_mode_names, TF_MODES);
	c->sender =
		(enum tf_sender)index_of(sc->program.n ? ch->build : sc->outside.v[0], senders, 3);
	if (!sc->program.n)
		return 0;
	c->program = strdup(ch->probe);
	return c->program ? 0 : tf_vm_fail(r->err, -ENOMEM, "no memory");
}

static int fill(const struct tf_conf *r, struct tf_cells *cells, const struct scenario *sc,
	const struct choice *ch)
{
	const char *slash = strrchr(r->path, '/');
	struct tf_cell *c = add_cell(cells);
	int rc;

	if (!c)
		return tf_vm_fail(r->err, -ENOMEM, "no memory");
	rc = fill_machines(r, c, sc, ch);
	if (rc < 0)
		return rc;
	fill_words(c, sc, ch);
	rc = fill_program(r, c, sc, ch);
	if (rc < 0)
		return rc;
	snprintf(c->file, sizeof(c->file), "%s", r->path);
	snprintf(c->scenario, sizeof(c->scenario), "%s", slash ? slash + 1 : r->path);
	c->scenario[strcspn(c->scenario, ".")] = '\0';
	fill_name(c, ch);
	if (!possible(c)) {
		free(c->program);
		cells->n--;
		return 0;
	}
	rc = c->checks & TF_CHECK_WITNESS ? check_witness(r, c) : 0;
	if (rc < 0)
		return rc;
	c->refused = sc->refused ? strdup(sc->refused) : NULL;
	if ((sc->refused && !c->refused) || !copy_words(&sc->args, c->args) ||
		!copy_words(&sc->files, c->files) || !copy_words(&sc->fetch, c->fetch))
		return tf_vm_fail(r->err, -ENOMEM, "no memory");
	return check_icount(r, c);
}

/* An absent list is a list of its default. */
static void set_default(struct tf_words *w, const char *word)
{
	if (!w->n)
		*w = (struct tf_words){{word}, 1};
}

/* The cells of one engine. */
static int expand_engine(const struct tf_conf *r, struct tf_cells *cells, const struct scenario *sc,
	struct choice *ch)
{
	const struct tf_words *probe = sc->program.n ? &sc->program : &sc->probe;
	const struct tf_words *build = sc->program.n ? &sc->outside : &sc->build;
	/* An engine has but one way. */
	unsigned transports = strcmp(ch->engine, DIRECT) ? 1 : sc->transport.n;
	unsigned places = sc->machine.n ? sc->machine.n : sc->arch.n * sc->tier.n;
	unsigned total = probe->n * build->n * places * transports * sc->mode.n;
	int rc = 0;

	for (unsigned i = 0; i < total && rc == 0; i++) {
		unsigned k = i;

		ch->mode = sc->mode.v[k % sc->mode.n], k /= sc->mode.n;
		ch->build = build->v[k % build->n], k /= build->n;
		ch->transport = sc->transport.v[k % transports], k /= transports;
		ch->probe = probe->v[k % probe->n], k /= probe->n;
		ch->machine = sc->machine.n ? sc->machine.v[k] : NULL;
		ch->arch = sc->arch.v[k % sc->arch.n], k /= sc->arch.n;
		ch->tier = sc->tier.v[k % sc->tier.n];
		rc = fill(r, cells, sc, ch);
	}
	return rc;
}

static int expand(const struct tf_conf *r, struct tf_cells *cells, struct scenario *sc)
{
	struct choice ch = {0};
	int rc = 0;

	set_default(&sc->outside, senders[sc->program.n ? TF_SENDER_MOVE : TF_SENDER_SELF]);
	set_default(&sc->mode, "usual");
	set_default(&sc->build, "static");
	set_default(&sc->arch, tf_vm_host_arch());
	set_default(&sc->tier, "native");
	set_default(&sc->transport, "tcp");
	set_default(&sc->engine, DIRECT);
	for (unsigned i = 0; i < sc->engine.n + sc->peers.n && rc == 0; i++) {
		ch.peer = i >= sc->engine.n;
		ch.engine = ch.peer ? sc->peers.v[i - sc->engine.n] : sc->engine.v[i];
		rc = expand_engine(r, cells, sc, &ch);
	}
	return rc;
}

int tf_scenario_read(const char *path, const struct tf_rows *rows, struct tf_cells *cells,
	struct tf_scenario_head *head, struct tf_vm_error *err)
{
	struct tf_conf r = {path, err};
	struct scenario sc = {.limit = LIMIT_DEFAULT, .takes = TAKES_DEFAULT, .rows = rows};
	const config_setting_t *root;
	config_t config;
	int rc = tf_conf_open(&config, path, "no such scenario (telebed list shows them)", err);

	*head = (struct tf_scenario_head){.set = "default"};
	root = config_root_setting(&config);
	if (rc == 0)
		rc = tf_conf_read(&r, root, "", keys, N_KEYS, &sc);
	if (rc == 0)
		rc = complete(&r, root, &sc);
	if (rc == 0)
		rc = expand(&r, cells, &sc);
	if (rc == 0 && sc.help)
		snprintf(head->help, sizeof(head->help), "%s", sc.help);
	if (rc == 0 && sc.set)
		snprintf(head->set, sizeof(head->set), "%s", sc.set);
	config_destroy(&config);
	return rc;
}
