/* SPDX-License-Identifier: MIT */
/*
 * slow PORT BYTES [DELAY]: a line to 127.0.0.1:PORT that carries so many bytes a second each way,
 * DELAY microseconds late (0). Prints its own port, and stays until it is ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "qemu/link.h"

int main(int argc, char **argv)
{
	struct tf_link_faults faults = {0};
	struct tf_vm_error err = {0};
	struct tf_link *link;

	if (argc != 3 && argc != 4)
		return fprintf(stderr, "usage: slow PORT BYTES [DELAY]\n"), 2;
	faults.bytes_per_s = strtoull(argv[2], NULL, 10);
	faults.delay_us = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
	if (tf_link_start_stream((unsigned)atoi(argv[1]), &link, &err) ||
		tf_link_set_faults(link, &faults, &err))
		return fprintf(stderr, "slow: no line\n"), 1;
	printf("%u\n", tf_link_port(link));
	fflush(stdout);
	pause();
	return 0;
}
