/* SPDX-License-Identifier: MIT */
/* telefork spawn and zygotes: copies of what a receiver keeps, and what it keeps. */
#include "core/base/text.h"
#include "core/cmd/cmd.h"
#include "core/cmd/progress.h"
#include "core/telefork_internal.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asking {
	const char *uri, *name, *token_file, *drop;
	unsigned n, first;
	bool quiet;
	struct telefork_options options;
};

enum { KEY_TOKEN = 256, KEY_FIRST, KEY_DROP, KEY_IDLE };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct asking *a = state->input;
	char *end;

	switch (key) {
	case 'n':
		a->n = (unsigned)strtoul(arg, NULL, 10);
		if (!a->n || a->n > TF_SPAWN_MAX)
			argp_error(state, "-n %s: 1 to %u", arg, TF_SPAWN_MAX);
		return 0;
	case 'q':
		a->quiet = true;
		return 0;
	case KEY_FIRST:
		a->first = (unsigned)strtoul(arg, &end, 10);
		if (!a->first || *end)
			argp_error(state, "--first %s: an index, from 1 on", arg);
		return 0;
	case KEY_DROP:
		a->drop = arg;
		return 0;
	case KEY_TOKEN:
		a->token_file = arg;
		return 0;
	case KEY_IDLE:
		a->options.idle_ms = tf_parse_seconds(arg);
		if (a->options.idle_ms < 0)
			argp_error(state, "--idle-time %s: 1 to 86400 seconds", arg);
		return 0;
	case ARGP_KEY_ARG:
		if (!a->uri)
			a->uri = arg;
		else if (!a->name && a->n)
			a->name = arg;
		else
			argp_error(state, "%s is too much", arg);
		return 0;
	case ARGP_KEY_END:
		if (!a->uri || (a->n && !a->name))
			argp_error(state, a->uri ? "which NAME?" : "which URI?");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static int take_token(struct asking *a, struct tf_err *e)
{
	static char token[TELEFORK_TOKEN_MAX + 1];

	a->options.token = a->token_file ? token : NULL;
	return a->token_file ? tf_read_token(a->token_file, token, e) : 0;
}

static int complain(const struct asking *a, int rc, const char *text)
{
	tf_complain(a->uri, text);
	return rc == TELEFORK_E_INVAL ? TF_EXIT_UNAVAILABLE : tf_exit_code(rc);
}

static int spawn(struct asking *a)
{
	struct telefork_result result;
	pid_t pids[TF_SPAWN_MAX];
	struct tf_err e = {0};
	int rc = take_token(a, &e);

	if (rc)
		return complain(a, rc, e.text);
	rc = telefork_spawn(a->uri, a->name, a->n, a->first, pids, &a->options, &result);
	if (rc)
		return complain(a, rc, result.message);
	for (unsigned i = 0; i < a->n && !a->quiet; i++)
		printf("%d\n", (int)pids[i]);
	return fflush(stdout) ? TF_EXIT_IO : TF_EXIT_OK;
}

/* The receiver's words may be anything. */
static void tell(struct tf_zygote_info *info)
{
	char name[TF_ZYGOTE_NAME + 1], memory[24], line[TELEFORK_MESSAGE_MAX];

	info->exe[sizeof(info->exe) - 1] = '\0';
	tf_zygote_name_text(&info->name, name);
	snprintf(line, sizeof(line),
		"%-16s pid %d, %s of memory, %" PRIu64 " copies made, %u running: %s", name,
		info->pid, tf_bytes_text(info->memory, memory), info->made, info->running,
		info->exe);
	tf_message_safe(line);
	puts(line);
}

static int list(struct asking *a)
{
	static struct tf_zygote_info info[TF_ZYGOTES_MAX];
	struct tf_zygote_ask ask = {.what = a->drop ? TF_ZYGOTE_DROP : TF_ZYGOTE_LIST};
	struct tf_err e = {0};
	uint32_t n = 0;
	int rc = take_token(a, &e);

	if (!rc && a->drop)
		rc = tf_zygote_name_parse(a->drop, &ask.name, &e);
	if (!rc)
		rc = tf_zygote_request(a->uri, &a->options, &ask, info, sizeof(*info),
			a->drop ? 0 : TF_ZYGOTES_MAX, &n, &e);
	if (rc)
		return complain(a, rc, e.text);
	for (uint32_t i = 0; i < n; i++)
		tell(&info[i]);
	return fflush(stdout) ? TF_EXIT_IO : TF_EXIT_OK;
}

#define TOKEN                                                                       \
	{                                                                           \
		"token-file", KEY_TOKEN, "FILE", 0, "What the receiver asks for", 0 \
	}
#define IDLE                                                             \
	{                                                                \
		"idle-time", KEY_IDLE, "SECONDS", 0,                     \
			"Give up when nothing moves for so long (30)", 0 \
	}

int tf_cmd_spawn(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"number", 'n', "N", 0, "How many (1): 1 to 4096; all of them, or none", 0},
		{"first", KEY_FIRST, "INDEX", 0,
			"What telefork_index() says in the first of them (where the last ended)",
			0},
		{"quiet", 'q', 0, 0, "Print nothing", 0},
		TOKEN,
		IDLE,
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "URI NAME",
		.doc = "Makes copies of the zygote NAME that a receiver keeps (telefork copy "
		       "--zygote), and prints their process ids over there.",
		.help_filter = tf_exit_help};
	struct asking a = {.n = 1};

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	return spawn(&a);
}

int tf_cmd_zygotes(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"drop", KEY_DROP, "NAME", 0, "End this one; its copies run on", 0},
		TOKEN,
		IDLE,
		{0},
	};
	static const struct argp argp = {.options = options,
		.parser = parse,
		.args_doc = "URI",
		.doc = "Lists the zygotes that a receiver keeps.",
		.help_filter = tf_exit_help};
	struct asking a = {0};

	if (argp_parse(&argp, argc, argv, 0, NULL, &a))
		return TF_EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	return list(&a);
}
