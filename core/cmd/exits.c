/* SPDX-License-Identifier: MIT */
/* Exit codes and how trouble is told: the same for every command. */
#include "core/base/text.h"
#include "core/cmd/cmd.h"
#include "core/restore/pad.h"
#include "core/telefork.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

int tf_exit_code(int error)
{
	switch (error) {
	case 0:
		return TF_EXIT_OK;
	case TELEFORK_E_INVAL:
		return TF_EXIT_USAGE;
	case TELEFORK_E_ADDRESS:
	case TELEFORK_E_REFUSED:
		return TF_EXIT_UNAVAILABLE;
	case TELEFORK_E_NOMEM:
	case TELEFORK_E_LIMIT:
	case TELEFORK_E_SYSTEM:
		return TF_EXIT_SYSTEM;
	case TELEFORK_E_IO:
	case TELEFORK_E_CLOSED:
	case TELEFORK_E_TIMEOUT:
		return TF_EXIT_IO;
	case TELEFORK_E_AUTH:
		return TF_EXIT_REFUSED;
	default:
		return TF_EXIT_IMAGE;
	}
}

int tf_exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

char *tf_exit_help(int key, const char *text, void *input)
{
	char *help = NULL;
	size_t size;
	FILE *f;

	(void)input;
	if (key != ARGP_KEY_HELP_POST_DOC || !(f = open_memstream(&help, &size)))
		return (char *)text;
	if (text)
		fprintf(f, "%s\n\n", text);
	fprintf(f, "Exit codes:\n");
#define X(name, code, meaning) fprintf(f, "  %3d  %s\n", code, meaning);
	TF_EXITS(X)
#undef X
	fprintf(f, "Of a process that was waited for: its own, or 128 + the signal that ended it.");
	fclose(f);
	return help; /* argp frees it */
}

void tf_complain(const char *subject, const char *text)
{
	fprintf(stderr, "telefork: %s%s", subject ? subject : "", subject ? ": " : "");
	for (; *text; text++) { /* may come from an image or from the other side */
		unsigned char c = (unsigned char)*text;

		if (c == '\n')
			fputs("\n    ", stderr);
		else if (c < ' ' || c == 0x7f)
			fprintf(stderr, "\\x%02x", c);
		else
			putc(c, stderr);
	}
	putc('\n', stderr);
}

void tf_announce(const struct tf_pad *pad)
{
	char exe[4 * TF_MAX_STR + 1];

	tf_text_safe(pad->image.source.exe, exe, sizeof(exe));
	fprintf(stderr, "telefork: pid %d (was %d): %s, %u mappings, %llu bytes\n", (int)pad->child,
		pad->image.source.pid, exe, pad->image.n_maps,
		(unsigned long long)pad->result.memory);
}
