/* SPDX-License-Identifier: MIT */
/*
 * lua: runs luajit.lua by LuaJIT, both of which have to be in this program's own folder, with
 * libtelefork.so: a probe for machines that have nothing installed.
 *
 *   lua ADDRESS [--token T]      the probes' protocol (tests/probes/probe.h)
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ARGS_MAX 32

int main(int argc, char **argv)
{
	char folder[2048], luajit[2100], script[2100], library[2100];
	char *args[ARGS_MAX + 4] = {luajit, script, library};
	ssize_t n = readlink("/proc/self/exe", folder, sizeof(folder) - 1);

	if (n < 0 || argc > ARGS_MAX) {
		fprintf(stderr, "lua: too many arguments, or no /proc\n");
		return 64;
	}
	folder[n] = '\0';
	*strrchr(folder, '/') = '\0';
	snprintf(luajit, sizeof(luajit), "%s/luajit", folder);
	snprintf(script, sizeof(script), "%s/luajit.lua", folder);
	snprintf(library, sizeof(library), "%s/libtelefork.so", folder);
	for (int i = 1; i < argc; i++)
		args[i + 2] = argv[i];
	execv(luajit, args);
	perror(luajit);
	return 127;
}
