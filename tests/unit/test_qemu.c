/* SPDX-License-Identifier: MIT */
/*
 * The pure parts of the qemu floor: command lines, the agent's protocol, the switch; and the
 * parts that need processes but no QEMU: guarded children, the relay, QMP over a socketpair.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/alone.h"
#include "qemu/child.h"
#include "qemu/io.h"
#include "qemu/link.h"
#include "qemu/machine.h"
#include "qemu/qmp.h"
#include "qemu/switch.h"
#include "qemu/template.h"
#include "qemu/vm_impl.h"
#include "qemu/wire.h"
#include "tests/unit/suite.h"

static char folder[64];

static void make_folder(void)
{
	strcpy(folder, "/tmp/test_qemu.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void)
{
	static const char *const files[] = {"log", "link", "tail", "pid"};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		tf_vm_autofree char *path = tf_vm_format("%s/%s", folder, files[i]);

		unlink(path);
	}
	rmdir(folder);
}

/* All arguments in one line, for comparison with what a person would type. */
static char *join(const struct tf_vm_args *args)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	ck_assert(!args->failed);
	for (size_t i = 0; i < args->n; i++)
		fprintf(f, "%s%s", i ? " " : "", args->v[i]);
	fclose(f);
	return text;
}

START_TEST(machine_defaults)
{
	struct tf_vm_machine m;
	struct tf_vm_error err;

	ck_assert_int_eq(tf_vm_machine_init(&m, "aarch64", &err), 0);
	ck_assert_str_eq(m.cpu, "max,pauth-impdef=on");
	ck_assert_uint_eq(m.memory_mib, 256);
	ck_assert_int_eq(tf_vm_machine_check(&m, &err), 0);
	ck_assert_int_eq(tf_vm_machine_init(&m, "vax", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "vax"));
	ck_assert_ptr_nonnull(strstr(err.text, "aarch64"));
}
END_TEST

START_TEST(machine_refuses_nonsense)
{
	struct tf_vm_machine good, m;
	struct tf_vm_error err;

	tf_vm_machine_init(&good, "x86_64", &err);
	m = good;
	m.memory_mib = 16;
	ck_assert_int_eq(tf_vm_machine_check(&m, &err), -EINVAL);
	m = good;
	m.cores = 0;
	ck_assert_int_eq(tf_vm_machine_check(&m, &err), -EINVAL);
	m = good;
	strcpy(m.cpu, "max -incoming x");
	ck_assert_int_eq(tf_vm_machine_check(&m, &err), -EINVAL);
	m = good;
	strcpy(m.name, "../up");
	ck_assert_int_eq(tf_vm_machine_check(&m, &err), -EINVAL);
	m = good;
	strcpy(m.board, "mte=on;x");
	ck_assert_int_eq(tf_vm_machine_check(&m, &err), -EINVAL);
}
END_TEST

START_TEST(command_line_of_a_clone)
{
	struct tf_vm_config c = {.guest = {"K", "I", "quiet"},
		.id = tf_vm_identity(7),
		.link_path = "/run/a,b/link"};
	struct tf_vm_launch how = {.ram = "/cache/ram", .incoming = true};
	struct tf_vm_args args = {};
	char *line;

	tf_vm_machine_init(&c.machine, "aarch64", NULL);
	strcpy(c.machine.board, "mte=on");
	tf_vm_command_line(&args, &c, &how, "/run/console");
	line = join(&args);
	ck_assert_str_eq(line,
		"qemu-system-aarch64 -name aarch64 -object memory-backend-file,id=ram0,"
		"size=256M,mem-path=/cache/ram,share=off -M virt,memory-backend=ram0,mte=on "
		"-accel tcg,tb-size=64 -cpu max,pauth-impdef=on -smp 1 -m 256M "
		"-no-user-config -nodefaults -no-reboot -display none "
		"-chardev file,id=console,path=/run/console -serial chardev:console "
		"-chardev socket,id=qmp,fd=3 -mon chardev=qmp,mode=control "
		"-device virtio-serial-pci -chardev socket,id=ctl,fd=4 "
		"-device virtserialport,chardev=ctl,name=ctl "
		"-netdev stream,id=n0,server=off,addr.type=unix,addr.path=/run/a,,b/link "
		"-device virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:4d:00:07 "
		"-incoming defer -S");
	free(line);
	tf_vm_args_done(&args);
}
END_TEST

START_TEST(command_line_of_a_template)
{
	const char *const extra[] = {"-s", NULL};
	struct tf_vm_config c = {.guest = {"K", "I", NULL}, .extra = extra};
	struct tf_vm_launch how = {.ram = "ram", .share = true};
	struct tf_vm_args args = {};
	char *line;

	tf_vm_machine_init(&c.machine, "x86_64", NULL);
	tf_vm_command_line(&args, &c, &how, "console");
	line = join(&args);
	ck_assert_ptr_nonnull(strstr(line, "mem-path=ram,share=on -M q35,memory-backend=ram0 "));
	ck_assert_ptr_nonnull(strstr(line, "-append console=ttyS0 "));
	ck_assert_ptr_nonnull(strstr(line, "-netdev hubport,id=n0,hubid=0 "));
	ck_assert_ptr_null(strstr(line, "-incoming"));
	ck_assert_str_eq(line + strlen(line) - 3, " -s");
	free(line);
	tf_vm_args_done(&args);
	tf_vm_machine_init(&c.machine, "aarch64", NULL);
	c.guest.append = "quiet";
	tf_vm_command_line(&args, &c, &how, "console");
	line = join(&args);
	ck_assert_ptr_nonnull(strstr(
		line, "-kernel K -initrd I -append console=ttyAMA0 panic=-1 loglevel=4 quiet "));
	free(line);
	tf_vm_args_done(&args);
}
END_TEST

/* Nothing of the host's time or the host's randomness gets in, recorded or not. */
START_TEST(command_line_of_a_machine_alone)
{
	static const char *const ways[] = {"shift=3,sleep=off",
		"sleep=off,rr=record,rrfile=/run/a,,b,", "sleep=off,rr=replay,rrfile=/run/a,,b,"};
	struct tf_vm_alone a = {.kernel = "/k",
		.initramfs = "/i",
		.recording = "/run/a,b",
		.snapshots = "/run/s",
		.console = "/run/console",
		.log = "/run/log",
		.seed = 7};

	ck_assert_int_eq(tf_vm_machine_init(&a.machine, "aarch64", NULL), 0);
	for (unsigned mode = TF_VM_ALONE_RUN; mode <= TF_VM_ALONE_REPLAY; mode++) {
		struct tf_vm_args args = {};
		tf_vm_autofree char *line = NULL;

		a.mode = (enum tf_vm_alone_mode)mode;
		a.gdb = mode == TF_VM_ALONE_REPLAY ? "/run/gdb" : NULL;
		tf_vm_alone_args(&args, &a);
		line = join(&args);
		ck_assert_ptr_nonnull(
			strstr(line, "-rtc base=2021-01-01,clock=vm -seed 7 -icount "));
		ck_assert_ptr_nonnull(strstr(line, ways[mode]));
		ck_assert_int_eq(!!strstr(line, "rr="), mode != TF_VM_ALONE_RUN);
		ck_assert_ptr_null(strstr(line, "virtio"));
		ck_assert_ptr_null(strstr(line, "kvm"));
		ck_assert_int_eq(!!strstr(line, " -S "), mode == TF_VM_ALONE_REPLAY);
		tf_vm_args_done(&args);
	}
}
END_TEST

START_TEST(kvm_does_not_get_tcg_properties)
{
	struct tf_vm_args args = {};
	struct tf_vm_machine m;
	char *line;

	tf_vm_machine_init(&m, "aarch64", NULL);
	m.accel = TF_VM_KVM;
	tf_vm_args_machine(&args, &m, NULL, false);
	line = join(&args);
	ck_assert_str_eq(line, "-object memory-backend-ram,id=ram0,size=256M "
			       "-M virt,memory-backend=ram0 -accel kvm -cpu max -smp 1 -m 256M");
	free(line);
	tf_vm_args_done(&args);
}
END_TEST

START_TEST(identities_differ)
{
	struct tf_vm_identity a = tf_vm_identity(1), b = tf_vm_identity(254);

	ck_assert_str_eq(a.host, "vm1");
	ck_assert_uint_eq(b.ipv4[3], 254);
	ck_assert_int_ne(memcmp(a.mac, b.mac, 6), 0);
	ck_assert_uint_eq(a.mac[0] & 3, 2);
}
END_TEST

/* One message with a value of each type. */
static void write_sample(struct tf_wire_buf *b, uint32_t tag)
{
	size_t mark = tf_wire_begin(b, TF_AGENT_SPAWN, tag);

	tf_wire_u8(b, 0xab);
	tf_wire_u32(b, 0xdeadbeef);
	tf_wire_u64(b, 0x0123456789abcdef);
	tf_wire_string(b, "hello");
	tf_wire_blob(b, "\0x", 2);
	ck_assert_int_eq(tf_wire_end(b, mark), 0);
}

static void check_sample(struct tf_wire_message *m, uint32_t tag)
{
	const char *blob;
	char *text;
	size_t len;

	ck_assert_uint_eq(m->type, TF_AGENT_SPAWN);
	ck_assert_uint_eq(m->tag, tag);
	ck_assert_uint_eq(tf_wire_get_u8(&m->body), 0xab);
	ck_assert_uint_eq(tf_wire_get_u32(&m->body), 0xdeadbeef);
	ck_assert_uint_eq(tf_wire_get_u64(&m->body), 0x0123456789abcdef);
	text = tf_wire_get_string(&m->body, 5);
	ck_assert_str_eq(text, "hello");
	free(text);
	blob = tf_wire_get_blob(&m->body, 2, &len);
	ck_assert_uint_eq(len, 2);
	ck_assert_int_eq(memcmp(blob, "\0x", 2), 0);
	ck_assert(!m->body.failed);
	ck_assert_uint_eq(m->body.left, 0);
	ck_assert_uint_eq(tf_wire_get_u8(&m->body), 0);
	ck_assert(m->body.failed);
}

START_TEST(wire_round_trip)
{
	struct tf_wire_buf b = {};
	struct tf_wire_message m;

	for (uint32_t tag = 1; tag < 2000; tag++) {
		write_sample(&b, tag);
		write_sample(&b, tag + 1);
		ck_assert_int_eq(tf_wire_next(&b, &m), 1);
		check_sample(&m, tag);
		tf_wire_drop(&b, m.size);
		ck_assert_int_eq(tf_wire_next(&b, &m), 1);
		check_sample(&m, tag + 1);
		tf_wire_drop(&b, m.size);
		ck_assert_int_eq(tf_wire_next(&b, &m), 0);
	}
	tf_wire_done(&b);
}
END_TEST

START_TEST(wire_truncation)
{
	struct tf_wire_buf whole = {};
	struct tf_wire_message m;

	write_sample(&whole, 5);
	for (size_t n = 0; n < tf_wire_size(&whole); n++) {
		struct tf_wire_buf part = {.data = malloc(n ? n : 1), .end = n, .cap = n};

		memcpy(part.data, whole.data, n);
		ck_assert_int_eq(tf_wire_next(&part, &m), 0);
		tf_wire_done(&part);
	}
	/* The same, cut inside the payload with the length adjusted: no reader goes beyond. */
	for (size_t n = TF_AGENT_HEADER; n < tf_wire_size(&whole); n++) {
		struct tf_wire_buf part = {.data = malloc(n), .end = n, .cap = n};
		size_t len;
		char *text;

		memcpy(part.data, whole.data, n);
		part.data[0] = (uint8_t)(n - TF_AGENT_HEADER);
		ck_assert_int_eq(tf_wire_next(&part, &m), 1);
		tf_wire_get_u8(&m.body);
		tf_wire_get_u32(&m.body);
		tf_wire_get_u64(&m.body);
		text = tf_wire_get_string(&m.body, 100);
		tf_wire_get_blob(&m.body, 100, &len);
		ck_assert(m.body.failed);
		free(text);
		tf_wire_done(&part);
	}
	tf_wire_done(&whole);
}
END_TEST

START_TEST(wire_bounds)
{
	static uint8_t big[TF_AGENT_MAX_PAYLOAD + 1];
	struct tf_wire_buf b = {};
	struct tf_wire_message m;
	size_t mark, len;

	write_sample(&b, 1);
	len = tf_wire_size(&b);
	mark = tf_wire_begin(&b, TF_AGENT_PUT, 2);
	tf_wire_bytes(&b, big, sizeof(big));
	ck_assert_int_eq(tf_wire_end(&b, mark), -E2BIG);
	ck_assert_uint_eq(tf_wire_size(&b), len);
	ck_assert_int_eq(tf_wire_next(&b, &m), 1);
	ck_assert_ptr_null(tf_wire_get_blob(&m.body, 4, &len));
	b.data[3] = 0x7f;
	ck_assert_int_eq(tf_wire_next(&b, &m), -EBADMSG);
	b.data[3] = 0;
	b.data[7] = 1;
	ck_assert_int_eq(tf_wire_next(&b, &m), -EBADMSG);
	tf_wire_done(&b);
}
END_TEST

START_TEST(wire_string_with_nul)
{
	struct tf_wire_buf b = {};
	struct tf_wire_reader r;

	tf_wire_blob(&b, "a\0b", 3);
	r = (struct tf_wire_reader){.at = b.data, .left = tf_wire_size(&b)};
	ck_assert_ptr_null(tf_wire_get_string(&r, 10));
	ck_assert(r.failed);
	tf_wire_done(&b);
}
END_TEST

START_TEST(switch_learns)
{
	static struct tf_link_table t;
	uint8_t a[6] = {2, 0, 0, 0, 0, 1}, b[6] = {2, 0, 0, 0, 0, 2};
	uint8_t group[6] = {0x33, 0x33, 0, 0, 0, 1};

	ck_assert_int_eq(tf_link_lookup(&t, a), TF_LINK_FLOOD);
	tf_link_learn(&t, a, 3);
	tf_link_learn(&t, b, 4);
	tf_link_learn(&t, group, 5);
	ck_assert_int_eq(tf_link_lookup(&t, a), 3);
	ck_assert_int_eq(tf_link_lookup(&t, b), 4);
	ck_assert_int_eq(tf_link_lookup(&t, group), TF_LINK_FLOOD);
	tf_link_learn(&t, a, 6);
	ck_assert_int_eq(tf_link_lookup(&t, a), 6);
	tf_link_forget(&t, 6);
	ck_assert_int_eq(tf_link_lookup(&t, a), TF_LINK_FLOOD);
	ck_assert_int_eq(tf_link_lookup(&t, b), 4);
}
END_TEST

START_TEST(switch_forgets_the_oldest)
{
	static struct tf_link_table t;
	uint8_t mac[6] = {2};

	for (int i = 0; i < TF_LINK_ADDRESSES + 1; i++) {
		mac[4] = (uint8_t)(i >> 8);
		mac[5] = (uint8_t)i;
		tf_link_learn(&t, mac, i);
	}
	ck_assert_int_eq(tf_link_lookup(&t, mac), TF_LINK_ADDRESSES);
	mac[4] = mac[5] = 0;
	ck_assert_int_eq(tf_link_lookup(&t, mac), TF_LINK_FLOOD);
	mac[5] = 1;
	ck_assert_int_eq(tf_link_lookup(&t, mac), 1);
}
END_TEST

START_TEST(frames_are_cut)
{
	uint8_t stream[4 + 20] = {0, 0, 0, 20};

	for (size_t n = 0; n < sizeof(stream); n++)
		ck_assert_int_eq(tf_link_next_frame(stream, n), 0);
	ck_assert_int_eq(tf_link_next_frame(stream, sizeof(stream)), 20);
	stream[3] = 13;
	ck_assert_int_eq(tf_link_next_frame(stream, sizeof(stream)), -EBADMSG);
	stream[0] = 0xff;
	ck_assert_int_eq(tf_link_next_frame(stream, 4), -EBADMSG);
}
END_TEST

START_TEST(tail_of_a_file)
{
	tf_vm_autofree char *path = tf_vm_format("%s/tail", folder);
	const char *text = "first line\nsecond\x1b[0m line\r\nthird\n\n";
	char *tail;

	ck_assert_int_eq(tf_vm_write_file(path, text, strlen(text), NULL), 0);
	tail = tf_vm_file_tail(path, 1000);
	ck_assert_str_eq(tail, "first line\nsecond[0m line\nthird");
	free(tail);
	tail = tf_vm_file_tail(path, 12);
	ck_assert_str_eq(tail, "third");
	free(tail);
	tail = tf_vm_file_tail("/nonexistent/file", 12);
	ck_assert_str_eq(tail, "");
	free(tail);
}
END_TEST

START_TEST(child_reports_its_end)
{
	tf_vm_autofree char *log = tf_vm_format("%s/log", folder);
	const char *const argv[] = {"/bin/sh", "-c", "echo words >&5; echo more >&2; exit 3", NULL};
	struct tf_vm_child *child;
	struct tf_vm_error err;
	int pair[2], status;
	char how[256], got[16] = "", *tail;

	ck_assert_int_eq(pipe(pair), 0);
	ck_assert_int_eq(
		tf_vm_child_start(argv, &(struct tf_vm_child_fd){pair[1], 5}, 1, log, &child, &err),
		0);
	close(pair[1]);
	ck_assert(tf_vm_child_ended(child, 5000, &status));
	ck_assert_int_eq(WEXITSTATUS(status), 3);
	tf_vm_child_explain(child, how, sizeof(how));
	ck_assert_str_eq(how, "/bin/sh ended with exit status 3");
	ck_assert_int_eq(read(pair[0], got, sizeof(got)), 6);
	ck_assert_str_eq(got, "words\n");
	/* No copy of the pipe is left in the guard. */
	ck_assert_int_eq(read(pair[0], got, sizeof(got)), 0);
	tail = tf_vm_file_tail(log, 100);
	ck_assert_str_eq(tail, "more");
	free(tail);
	close(pair[0]);
	tf_vm_child_free(child);
}
END_TEST

START_TEST(child_that_cannot_be_executed)
{
	tf_vm_autofree char *log = tf_vm_format("%s/log", folder);
	const char *const argv[] = {"/nonexistent/qemu", NULL};
	struct tf_vm_child *child;
	struct tf_vm_error err;
	char how[256];

	ck_assert_int_eq(tf_vm_child_start(argv, NULL, 0, log, &child, &err), 0);
	ck_assert(tf_vm_child_ended(child, 5000, NULL));
	tf_vm_child_explain(child, how, sizeof(how));
	ck_assert_ptr_nonnull(strstr(how, "/nonexistent/qemu could not be executed: No such file"));
	tf_vm_child_free(child);
}
END_TEST

START_TEST(child_is_killed)
{
	tf_vm_autofree char *log = tf_vm_format("%s/log", folder);
	const char *const argv[] = {"sleep", "1000", NULL};
	struct tf_vm_child *child;
	int status;

	ck_assert_int_eq(tf_vm_child_start(argv, NULL, 0, log, &child, NULL), 0);
	ck_assert(!tf_vm_child_ended(child, 20, NULL));
	ck_assert_int_eq(tf_vm_child_kill(child), 0);
	ck_assert(tf_vm_child_ended(child, 0, &status));
	ck_assert_int_eq(WTERMSIG(status), SIGKILL);
	tf_vm_child_free(child);
}
END_TEST

/* A process whose creator died may stay a zombie for a while; a zombie has no /proc/PID/exe. */
static bool runs(pid_t pid)
{
	char path[64], target[256];

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return readlink(path, target, sizeof(target)) > 0;
}

START_TEST(child_ends_with_a_killed_creator)
{
	tf_vm_autofree char *log = tf_vm_format("%s/log", folder);
	const char *const argv[] = {"sleep", "1000", NULL};
	pid_t creator, pids[2];
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	creator = fork();
	if (creator == 0) {
		tf_vm_autofree char *path = tf_vm_format("%s/link", folder);
		struct tf_vm_child *child;
		struct tf_link *link;

		if (tf_vm_child_start(argv, NULL, 0, log, &child, NULL) < 0 ||
			tf_link_start(path, &link, NULL) < 0)
			_exit(1);
		pids[0] = tf_vm_child_pid(child);
		pids[1] = tf_link_pid(link);
		(void)!write(p[1], pids, sizeof(pids));
		pause();
	}
	ck_assert_int_eq(read(p[0], pids, sizeof(pids)), sizeof(pids));
	ck_assert(runs(pids[0]) && runs(pids[1]));
	kill(creator, SIGKILL);
	waitpid(creator, NULL, 0);
	for (int i = 0; i < 10000 && (runs(pids[0]) || runs(pids[1])); i++)
		usleep(10000);
	ck_assert(!runs(pids[0]));
	ck_assert(!runs(pids[1]));
}
END_TEST

static int join_link(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

/* A frame of 60 bytes from station @from to station @to (0xff: everybody). */
static void send_frame(int fd, uint8_t from, uint8_t to)
{
	uint8_t f[64] = {0, 0, 0, 60, to == 0xff ? 0xff : 2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from};

	ck_assert_int_eq(write(fd, f, sizeof(f)), sizeof(f));
}

/* The sender's number of the next frame, 0 if none comes. */
static int receive_frame(int fd, int timeout_ms)
{
	struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	uint8_t f[64];

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return recv(fd, f, sizeof(f), MSG_WAITALL) == (ssize_t)sizeof(f) ? f[15] : 0;
}

START_TEST(relay_is_a_switch)
{
	tf_vm_autofree char *path = tf_vm_format("%s/link", folder);
	struct tf_link_faults cut = {.cut = true}, slow = {.delay_us = 50000}, none = {};
	struct tf_link_stats s = {};
	struct tf_link *link;
	struct tf_vm_error err;
	int64_t start;
	int a, b, c;

	ck_assert_int_eq(tf_link_start(path, &link, &err), 0);
	a = join_link(path);
	b = join_link(path);
	c = join_link(path);
	while (s.guests < 3)
		ck_assert_int_eq(tf_link_stats(link, &s, &err), 0);
	send_frame(a, 1, 0xff);
	ck_assert_int_eq(receive_frame(b, 60000), 1);
	ck_assert_int_eq(receive_frame(c, 60000), 1);
	send_frame(b, 2, 1);
	ck_assert_int_eq(receive_frame(a, 60000), 2);
	ck_assert_int_eq(receive_frame(c, 50), 0);
	ck_assert_int_eq(tf_link_set_faults(link, &cut, &err), 0);
	send_frame(b, 2, 1);
	while (!s.dropped)
		ck_assert_int_eq(tf_link_stats(link, &s, &err), 0);
	ck_assert_int_eq(receive_frame(a, 50), 0);
	ck_assert_int_eq(tf_link_set_faults(link, &slow, &err), 0);
	start = tf_vm_now_ms();
	send_frame(b, 2, 1);
	ck_assert_int_eq(receive_frame(a, 60000), 2);
	ck_assert_int_ge(tf_vm_now_ms() - start, 49);
	ck_assert_int_eq(tf_link_set_faults(link, &none, &err), 0);
	close(a);
	do
		ck_assert_int_eq(tf_link_stats(link, &s, &err), 0);
	while (s.guests > 2);
	send_frame(b, 2, 1);
	ck_assert_int_eq(receive_frame(c, 60000), 2);
	ck_assert_uint_eq(s.dropped, 1);
	/* A stream that is none: the relay closes it and goes on. */
	ck_assert_int_eq(write(b, "\xff\xff\xff\xff", 4), 4);
	ck_assert_int_eq(receive_frame(b, 60000), 0);
	ck_assert_int_eq(tf_link_stats(link, &s, &err), 0);
	close(b);
	close(c);
	tf_link_free(link);
	ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(link_path_too_long)
{
	struct tf_vm_error err;
	struct tf_link *link;
	char path[200];

	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[199] = '\0';
	ck_assert_int_eq(tf_link_start(path, &link, &err), -ENAMETOOLONG);
}
END_TEST

/* What a QEMU would say, prepared in advance. */
static int qmp_peer(const char *lines)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ck_assert_int_eq(write(pair[1], lines, strlen(lines)), (ssize_t)strlen(lines));
	ck_assert_int_eq(shutdown(pair[1], SHUT_WR), 0);
	return pair[0];
}

START_TEST(qmp_speaks)
{
	int fd = qmp_peer("{\"QMP\": {}}\r\n{\"return\": {}, \"id\": 1}\r\n"
			  "{\"event\": \"STOP\"}\r\n{\"event\": \"RESUME\"}\r\n"
			  "{\"return\": {\"late\": 1}, \"id\": 1}\r\n"
			  "{\"return\": {\"status\": \"running\"}, \"id\": 2}\r\n"
			  "{\"error\": {\"desc\": \"no such thing\"}, \"id\": 3}\r\n");
	struct tf_qmp *qmp;
	struct tf_vm_error err;
	json_t *value;

	ck_assert_int_eq(tf_qmp_open(fd, 1000, &qmp, &err), 0);
	ck_assert_int_eq(tf_qmp_execute(qmp, "query-status", NULL, 1000, &value, &err), 0);
	ck_assert_str_eq(json_string_value(json_object_get(value, "status")), "running");
	json_decref(value);
	ck_assert_int_eq(tf_qmp_event(qmp, "RESUME", 0, NULL, &err), 0);
	ck_assert_int_eq(tf_qmp_event(qmp, NULL, 0, &value, &err), 0);
	ck_assert_str_eq(json_string_value(json_object_get(value, "event")), "STOP");
	json_decref(value);
	ck_assert_int_eq(
		tf_qmp_execute(qmp, "x", json_pack("{s:i}", "a", 1), 1000, NULL, &err), -EREMOTEIO);
	ck_assert_str_eq(err.text, "qmp x: no such thing");
	ck_assert_int_eq(tf_qmp_execute(qmp, "y", NULL, 1000, NULL, &err), -EPIPE);
	tf_qmp_free(qmp);
}
END_TEST

START_TEST(qmp_refuses_others)
{
	struct tf_vm_error err;
	struct tf_qmp *qmp;

	ck_assert_int_eq(tf_qmp_open(qmp_peer("hello\n"), 1000, &qmp, &err), -EPROTO);
	ck_assert_int_eq(tf_qmp_open(qmp_peer("{\"a\": 1}\n"), 1000, &qmp, &err), -EPROTO);
	ck_assert_int_eq(tf_qmp_open(qmp_peer("{\"QMP\":"), 1000, &qmp, &err), -EPIPE);
}
END_TEST

static Suite *qemu_suite(void)
{
	const TTest *const pure[] = {
		machine_defaults,
		machine_refuses_nonsense,
		command_line_of_a_clone,
		command_line_of_a_template,
		command_line_of_a_machine_alone,
		kvm_does_not_get_tcg_properties,
		identities_differ,
		wire_round_trip,
		wire_truncation,
		wire_bounds,
		wire_string_with_nul,
		switch_learns,
		switch_forgets_the_oldest,
		frames_are_cut,
		qmp_speaks,
		qmp_refuses_others,
		link_path_too_long,
	};
	const TTest *const processes[] = {
		tail_of_a_file,
		child_reports_its_end,
		child_that_cannot_be_executed,
		child_is_killed,
		child_ends_with_a_killed_creator,
		relay_is_a_switch,
	};
	Suite *s = suite_create("qemu");
	TCase *c = tcase_create("pure");

	tcase_set_timeout(c, SUITE_LIMIT_S);
	for (size_t i = 0; i < sizeof(pure) / sizeof(pure[0]); i++)
		tcase_add_test(c, pure[i]);
	suite_add_tcase(s, c);
	c = tcase_create("processes");
	tcase_add_checked_fixture(c, make_folder, remove_folder);
	tcase_set_timeout(c, SUITE_LIMIT_S);
	for (size_t i = 0; i < sizeof(processes) / sizeof(processes[0]); i++)
		tcase_add_test(c, processes[i]);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	return suite_run(qemu_suite());
}
