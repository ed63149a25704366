/* SPDX-License-Identifier: MIT */
/* See gdb.h: packets, the description of the registers, and what is asked with them. */
#include "qemu/gdb.h"

#include <errno.h>
#include <expat.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qemu/io.h"

#define PACKET_MAX    16384 /* QEMU's are 4,096 */
#define XML_MAX       (256 * 1024)
#define REGISTERS_MAX 2048
#define INCLUDES_MAX  16
#define NAME          "tf-gdb"
#define INTERRUPT     '\003'

struct reg {
	char name[32];
	unsigned number;
};

struct tf_gdb {
	struct tf_vm *vm;
	int fd, timeout_ms;
	bool attached;
	char in[PACKET_MAX];
	size_t n_in;
	char reply[PACKET_MAX + 1]; /* the last one, unescaped */
	size_t n_reply;
	struct reg regs[REGISTERS_MAX];
	size_t n_regs;
	unsigned next_number;
	char includes[INCLUDES_MAX][64];
	size_t n_includes;
};

/* --- packets: $DATA#SUM, acknowledged by + --- */

static int explain(struct tf_vm_error *err, int rc, const char *what)
{
	if (rc == -EPIPE)
		return tf_vm_fail(err, rc, "gdb stub, %s: QEMU closed the connection", what);
	if (rc == -EPROTO)
		return tf_vm_fail(err, rc, "gdb stub, %s: not the remote serial protocol", what);
	return tf_vm_fail_errno(err, rc, "gdb stub, %s", what);
}

static int fill(struct tf_gdb *g, int64_t deadline)
{
	struct pollfd p = {.fd = g->fd, .events = POLLIN};
	int rc = poll(&p, 1, tf_vm_left_ms(deadline));
	ssize_t n;

	if (rc < 0)
		return errno == EINTR ? 0 : -errno;
	if (rc == 0)
		return -ETIMEDOUT;
	if (g->n_in == sizeof(g->in))
		return -EPROTO;
	n = recv(g->fd, g->in + g->n_in, sizeof(g->in) - g->n_in, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -EPIPE;
	g->n_in += (size_t)n;
	return n ? 0 : -EPIPE;
}

/* Takes the first packet out of what has come into g->reply. False: there is no whole one. */
static bool take(struct tf_gdb *g)
{
	char *from = memchr(g->in, '$', g->n_in);
	char *end = from ? memchr(from, '#', g->n_in - (size_t)(from - g->in)) : NULL;
	size_t used = end ? (size_t)(end - g->in) + 3 : 0;

	if (!end || used > g->n_in)
		return false;
	g->n_reply = 0;
	for (char *at = from + 1; at < end; at++) {
		bool escaped = *at == '}' && at + 1 < end;

		g->reply[g->n_reply++] = escaped ? (char)(*++at ^ 0x20) : *at;
	}
	g->reply[g->n_reply] = '\0';
	g->n_in -= used;
	memmove(g->in, g->in + used, g->n_in);
	return true;
}

/* Waits for the next packet and acknowledges it. */
static int await(struct tf_gdb *g)
{
	int64_t deadline = tf_vm_now_ms() + g->timeout_ms;

	while (!take(g)) {
		int rc = fill(g, deadline);

		if (rc < 0)
			return rc;
	}
	return tf_vm_write_all(g->fd, "+", 1);
}

static int put(struct tf_gdb *g, const char *text)
{
	unsigned sum = 0;
	char packet[512];
	int n;

	for (const char *at = text; *at; at++)
		sum += (unsigned char)*at;
	n = snprintf(packet, sizeof(packet), "$%s#%02x", text, sum & 0xff);
	return n < (int)sizeof(packet) ? tf_vm_write_all(g->fd, packet, (size_t)n) : -EINVAL;
}

static int ask(struct tf_gdb *g, const char *text)
{
	int rc = put(g, text);

	return rc < 0 ? rc : await(g);
}

/* g->reply as bytes; -EFAULT if it is an error or longer than max. */
static int bytes_of(const struct tf_gdb *g, uint8_t *to, size_t max, size_t *ret)
{
	if (g->n_reply < 2 || g->n_reply % 2 || g->n_reply / 2 > max || g->reply[0] == 'E')
		return -EFAULT;
	for (size_t i = 0; i < g->n_reply / 2; i++) {
		unsigned value;

		if (sscanf(g->reply + 2 * i, "%2x", &value) != 1)
			return -EPROTO;
		to[i] = (uint8_t)value;
	}
	*ret = g->n_reply / 2;
	return 0;
}

/* --- the description of the registers (GDB manual, "Target Description Format") --- */

static void on_element(void *arg, const XML_Char *element, const XML_Char **attributes)
{
	struct tf_gdb *g = arg;
	const char *name = NULL, *href = NULL;

	for (size_t i = 0; attributes[i]; i += 2) {
		if (!strcmp(attributes[i], "name"))
			name = attributes[i + 1];
		else if (!strcmp(attributes[i], "href"))
			href = attributes[i + 1];
		else if (!strcmp(attributes[i], "regnum") && !strcmp(element, "reg"))
			g->next_number = (unsigned)strtoul(attributes[i + 1], NULL, 10);
	}
	if (!strcmp(element, "xi:include") && href && g->n_includes < INCLUDES_MAX)
		snprintf(g->includes[g->n_includes++], sizeof(*g->includes), "%s", href);
	if (strcmp(element, "reg") != 0 || !name || g->n_regs == REGISTERS_MAX)
		return;
	snprintf(g->regs[g->n_regs].name, sizeof(g->regs->name), "%s", name);
	g->regs[g->n_regs++].number = g->next_number++;
}

/* Reads the annex @name of the description in parts of what a packet holds. */
static int describe(struct tf_gdb *g, const char *name)
{
	XML_Parser parser = XML_ParserCreate(NULL);
	size_t at = 0;
	int rc = parser ? 0 : -ENOMEM;
	bool last = false;

	if (parser) {
		XML_SetUserData(parser, g);
		XML_SetStartElementHandler(parser, on_element);
	}
	while (rc == 0 && !last) {
		char question[160];

		snprintf(question, sizeof(question), "qXfer:features:read:%s:%zx,7f0", name, at);
		rc = ask(g, question);
		if (rc < 0)
			break;
		last = g->reply[0] == 'l';
		at += g->n_reply - 1;
		if ((!last && g->reply[0] != 'm') || at > XML_MAX ||
			!XML_Parse(parser, g->reply + 1, (int)g->n_reply - 1, last))
			rc = -EPROTO;
	}
	if (parser)
		XML_ParserFree(parser);
	return rc;
}

static int describe_all(struct tf_gdb *g)
{
	int rc = describe(g, "target.xml");

	for (size_t i = 0; i < g->n_includes && rc == 0; i++)
		rc = describe(g, g->includes[i]);
	return rc == 0 && !g->n_regs ? -EPROTO : rc;
}

/* --- attaching --- */

/* Gives QEMU one end of a socket pair as the stub's line. */
static int open_line(struct tf_gdb *g, struct tf_vm_error *err)
{
	struct tf_qmp *qmp = tf_vm_qmp(g->vm);
	tf_vm_autofree char *said = NULL;
	int ends[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return tf_vm_fail_errno(err, -errno, "socketpair");
	g->fd = ends[0];
	rc = tf_qmp_pass_fd(qmp, NAME, ends[1], g->timeout_ms, err);
	close(ends[1]);
	if (rc == 0)
		rc = tf_qmp_execute(qmp, "chardev-add",
			json_pack("{s:s, s:{s:s, s:{s:{s:s, s:{s:s}}, s:b}}}", "id", NAME,
				"backend", "type", "socket", "data", "addr", "type", "fd", "data",
				"str", NAME, "server", 0),
			g->timeout_ms, NULL, err);
	if (rc == 0)
		rc = tf_qmp_hmp(qmp, "gdbserver chardev:" NAME, g->timeout_ms, &said, err);
	g->attached = rc == 0;
	if (rc == 0 && said[strspn(said, " \r\n")] && !strstr(said, "Waiting for gdb connection"))
		rc = tf_vm_fail(err, -EREMOTEIO, "gdbserver: %s", said);
	return rc;
}

void tf_gdb_detach(struct tf_gdb *g)
{
	char *said = NULL;

	if (!g)
		return;
	if (g->attached) {
		ask(g, "D"); /* the machine goes on */
		tf_qmp_hmp(tf_vm_qmp(g->vm), "gdbserver none", g->timeout_ms, &said, NULL);
		free(said);
		tf_vm_resume(g->vm, NULL);
	}
	tf_vm_close_fd(&g->fd);
	free(g);
}

int tf_gdb_attach(
	struct tf_vm *vm, int timeout_ms, struct tf_gdb **ret_gdb, struct tf_vm_error *err)
{
	struct tf_gdb *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return tf_vm_fail(err, -ENOMEM, "gdb stub: no memory");
	g->vm = vm;
	g->fd = -1;
	g->timeout_ms = timeout_ms;
	rc = open_line(g, err);
	if (rc == 0) {
		rc = ask(g, "qSupported:xmlRegisters=i386");
		rc = rc < 0 ? rc : describe_all(g);
		if (rc < 0)
			explain(err, rc, "attaching");
	}
	if (rc < 0) {
		tf_gdb_detach(g);
		return rc;
	}
	*ret_gdb = g;
	return 0;
}

int tf_gdb_run(struct tf_gdb *g, int ms, struct tf_vm_error *err)
{
	int rc = put(g, "c");

	/* Nothing but an acknowledgement is expected: it stays in the buffer. */
	for (int64_t until = tf_vm_now_ms() + ms; rc == 0 && tf_vm_left_ms(until);)
		rc = fill(g, until);
	if (rc == 0 || rc == -ETIMEDOUT)
		rc = tf_vm_write_all(g->fd, &(char){INTERRUPT}, 1);
	if (rc == 0)
		rc = await(g);
	return rc < 0 ? explain(err, rc, "running") : 0;
}

/* --- asking --- */

/* YMM00=3 2 1 0, quad words, in the monitor's "info registers". */
static int read_ymm(struct tf_gdb *g, unsigned n, uint8_t *value, size_t *ret_size)
{
	unsigned long long quad[4];
	tf_vm_autofree char *text = NULL;
	char label[16];
	const char *at;

	if (tf_qmp_hmp(tf_vm_qmp(g->vm), "info registers", g->timeout_ms, &text, NULL) < 0)
		return -ENOENT;
	snprintf(label, sizeof(label), "YMM%02u=", n);
	at = strstr(text, label);
	if (!at || sscanf(at + strlen(label), "%16llx %16llx %16llx %16llx", &quad[3], &quad[2],
			   &quad[1], &quad[0]) != 4)
		return -ENOENT;
	for (unsigned i = 0; i < 32; i++)
		value[i] = (uint8_t)(quad[i / 8] >> i % 8 * 8);
	*ret_size = 32;
	return 0;
}

int tf_gdb_register(struct tf_gdb *g, const char *name, uint8_t value[static TF_GDB_VALUE_MAX],
	size_t *ret_size, struct tf_vm_error *err)
{
	unsigned ymm;
	int rc = -ENOENT;

	if (sscanf(name, "ymm%u", &ymm) == 1)
		rc = read_ymm(g, ymm, value, ret_size);
	for (size_t i = 0; i < g->n_regs && rc == -ENOENT; i++) {
		char question[32];

		if (strcmp(g->regs[i].name, name) != 0)
			continue;
		snprintf(question, sizeof(question), "p%x", g->regs[i].number);
		rc = ask(g, question);
		rc = rc < 0 ? rc : bytes_of(g, value, TF_GDB_VALUE_MAX, ret_size);
		if (rc == -EFAULT)
			rc = -ENOENT;
		break;
	}
	return rc == -ENOENT ? tf_vm_fail(err, rc, "QEMU shows no register %s", name)
	       : rc < 0      ? explain(err, rc, name)
			     : 0;
}
