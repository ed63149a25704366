/* SPDX-License-Identifier: MIT */
/*
 * /init of a guest: mount what programs expect, load the modules listed in
 * /etc/modules.list, find the virtio-serial port of the harness and serve it. Whatever goes
 * wrong is said on the console and, where the guest can still be of use, ignored.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/guest/guest.h"

#define PORT_WAIT_MS 20000

static const struct {
	const char *type;
	const char *dir;
	const char *options;
	unsigned long flags;
	mode_t mode;
} mounts[] = {
	{"proc", "/proc", NULL, MS_NOSUID | MS_NODEV, 0555},
	{"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV, 0555},
	{"devtmpfs", "/dev", "mode=0755", MS_NOSUID, 0755},
	{"devpts", "/dev/pts", "mode=0620,ptmxmode=0666", MS_NOSUID, 0755},
	{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, 01777},
	{"tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV, 01777},
	{"tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV, 0755},
};

static const struct {
	const char *target;
	const char *name;
} links[] = {
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
};

void guest_log(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n] = '\n';
	dprintf(STDERR_FILENO, "init: %.*s", n + 1, line);
}

static void mount_all(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].dir, mounts[i].mode);
		if (mount(mounts[i].type, mounts[i].dir, mounts[i].type, mounts[i].flags,
			    mounts[i].options) < 0 &&
			errno != EBUSY)
			guest_log("mount %s on %s: %s", mounts[i].type, mounts[i].dir,
				strerror(errno));
	}
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		(void)!symlink(links[i].target, links[i].name);
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		guest_log("module %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void load_modules(void)
{
	char path[256];
	FILE *list = fopen("/etc/modules.list", "re");

	if (!list) {
		guest_log("/etc/modules.list: %s", strerror(errno));
		return;
	}
	while (fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = '\0';
		if (path[0])
			load_module(path);
	}
	fclose(list);
}

/* The port's number is not fixed; its name is in sysfs. */
static int open_port(void)
{
	const char *class = "/sys/class/virtio-ports";
	DIR *dir = opendir(class);
	struct dirent *e;
	int port = -ENOENT;

	while (dir && port < 0 && (e = readdir(dir))) {
		char path[512], name[64] = "";
		int fd;

		snprintf(path, sizeof(path), "%s/%s/name", class, e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		(void)!read(fd, name, sizeof(name) - 1);
		close(fd);
		name[strcspn(name, "\n")] = '\0';
		if (strcmp(name, TF_AGENT_PORT) != 0)
			continue;
		snprintf(path, sizeof(path), "/dev/%s", e->d_name);
		port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (port < 0)
			port = -errno;
	}
	if (dir)
		closedir(dir);
	return port;
}

/* The driver announces ports from a work queue, so the name may come a little later. */
static int wait_port(void)
{
	struct timespec nap = {.tv_nsec = 5 * 1000 * 1000};
	int port = -ENOENT;

	for (int waited = 0; waited < PORT_WAIT_MS; waited += 5) {
		port = open_port();
		if (port >= 0)
			break;
		nanosleep(&nap, NULL);
	}
	return port;
}

/* The agent must answer whatever the jobs do; what it starts is ordinary again. */
static void set_limits(void)
{
	struct rlimit files = {.rlim_cur = 65536, .rlim_max = 1048576};
	struct sched_param rr = {.sched_priority = 1};
	int fd;

	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		guest_log("RLIMIT_NOFILE: %s", strerror(errno));
	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &rr) < 0)
		guest_log("SCHED_RR: %s", strerror(errno));
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "-1000", 5) < 0)
		guest_log("oom_score_adj: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	int port, rc;

	mount_all();
	load_modules();
	set_limits();
	signal(SIGPIPE, SIG_IGN);
	reboot(RB_DISABLE_CAD);
	rc = guest_interface_up("lo", true);
	if (rc < 0)
		guest_log("lo: %s", strerror(-rc));
	port = wait_port();
	if (port < 0) {
		guest_log("no virtio-serial port named %s: %s", TF_AGENT_PORT, strerror(-port));
		sync();
		reboot(RB_POWER_OFF);
		return 1;
	}
	guest_log("ready");
	guest_serve(port);
}
