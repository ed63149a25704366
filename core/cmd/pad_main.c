/* SPDX-License-Identifier: MIT */
/*
 * telefork-pad: the receiver alone (serve, restore), small and linked as low as addresses go. Under
 * QEMU user mode a process's break cannot be set: it stays where the receiver's was, and has to lie
 * below every image's own.
 */
#include "core/cmd/cmd.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "serve"))
		return tf_cmd_serve(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "restore"))
		return tf_cmd_restore(argc - 1, argv + 1);
	fprintf(stderr, "usage: telefork-pad serve|restore [ARGUMENT...]   see telefork --help\n");
	return EX_USAGE;
}
