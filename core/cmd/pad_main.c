/* SPDX-License-Identifier: MIT */
/*
 * telefork-pad: the receiver alone (serve, restore), small and linked as low as addresses go. Under
 * QEMU user mode a process's break cannot be set: it stays where the receiver's was, and has to lie
 * below every image's own.
 */
#include "core/cmd/cmd.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	static char serve[] = "telefork-pad serve", restore[] = "telefork-pad restore";
	const char *name = argc > 1 ? argv[1] : "";

	/* QEMU user mode (7.2) hands a break that was higher once out again without looking, across
	 * the page that keeps a copy's break from growing. */
	mallopt(M_TRIM_THRESHOLD, -1);
	if (!strcmp(name, "serve")) {
		argv[1] = serve;
		return tf_cmd_serve(argc - 1, argv + 1);
	}
	if (!strcmp(name, "restore")) {
		argv[1] = restore;
		return tf_cmd_restore(argc - 1, argv + 1);
	}
	fprintf(stderr, "usage: telefork-pad serve|restore [ARGUMENT...]   see telefork --help\n");
	return TF_EXIT_USAGE;
}
