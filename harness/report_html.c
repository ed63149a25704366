/* SPDX-License-Identifier: MIT */
/*
 * One page that needs nothing else: harness/html, which the build puts together, with the document
 * in it. All that came out of a program is in that document and nowhere else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"
#include "qemu/io.h"

#define PLACE "@DATA@"

/* Assembled by harness/html/embed.S. */
extern const char tf_report_page[];

/* A script element ends at "</", whatever is meant by it: these three stand in strings only, where
 * JSON has another word for them. */
static void write_data(FILE *f, const char *json)
{
	for (const char *p = json; *p; p++)
		if (strchr("<>&", *p))
			fprintf(f, "\\u%04x", *p);
		else
			putc(*p, f);
}

char *tf_document_html(const json_t *doc)
{
	tf_vm_autofree char *json = json_dumps(doc, JSON_COMPACT | JSON_ENSURE_ASCII);
	const char *place = strstr(tf_report_page, PLACE);
	char *out = NULL;
	size_t size;
	FILE *f = json ? open_memstream(&out, &size) : NULL;

	if (!f)
		return NULL;
	fwrite(tf_report_page, 1, (size_t)(place - tf_report_page), f);
	write_data(f, json);
	fputs(place + strlen(PLACE), f);
	if (fclose(f)) {
		free(out);
		return NULL;
	}
	return out;
}
