/* SPDX-License-Identifier: MIT */
/*
 * SETUP: what makes two clones of one template two machines, namely host name, MAC and IPv4
 * address, wall clock and random pool. A reply names the step that failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/guest/guest.h"

#define MAX_SEED 512
#define CARD     "eth0"

struct identity {
	char *host;
	const uint8_t *ipv4;
	uint8_t prefix;
	const uint8_t *mac;
	uint64_t clock_ns;
	const void *seed;
	size_t seed_len;
};

static int interface_flag(int fd, const char *name, bool up)
{
	struct ifreq req = {};

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
		return -errno;
	if (up)
		req.ifr_flags |= IFF_UP | IFF_RUNNING;
	else
		req.ifr_flags &= (short)~IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &req) < 0 ? -errno : 0;
}

int guest_interface_up(const char *name, bool up)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = fd < 0 ? -errno : interface_flag(fd, name, up);

	if (fd >= 0)
		close(fd);
	return rc;
}

static int set_address(int fd, unsigned long request, uint32_t address)
{
	struct ifreq req = {.ifr_name = CARD};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};

	memcpy(&req.ifr_addr, &in, sizeof(in));
	return ioctl(fd, request, &req) < 0 ? -errno : 0;
}

/* The MAC is set while the card is down, so that nothing goes out under the template's. */
static int set_network(const struct identity *id, const char **step)
{
	struct ifreq req = {.ifr_name = CARD};
	uint32_t address, mask = 0;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = fd < 0 ? -errno : 0;

	memcpy(&address, id->ipv4, 4);
	if (id->prefix)
		mask = htonl(~0u << (32 - id->prefix));
	*step = CARD " down";
	if (rc == 0)
		rc = interface_flag(fd, CARD, false);
	*step = "MAC address of " CARD;
	req.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(req.ifr_hwaddr.sa_data, id->mac, 6);
	if (rc == 0 && ioctl(fd, SIOCSIFHWADDR, &req) < 0)
		rc = -errno;
	*step = "IPv4 address of " CARD;
	if (rc == 0 && address)
		rc = set_address(fd, SIOCSIFADDR, address);
	if (rc == 0 && address)
		rc = set_address(fd, SIOCSIFNETMASK, mask);
	*step = CARD " up";
	if (rc == 0 && address)
		rc = interface_flag(fd, CARD, true);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* RNDADDENTROPY mixes and credits; RNDRESEEDCRNG makes the generator take it up at once. */
static int add_random(const struct identity *id)
{
	struct {
		struct rand_pool_info info;
		uint8_t data[MAX_SEED];
	} pool = {.info = {.entropy_count = (int)id->seed_len * 8, .buf_size = (int)id->seed_len}};
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	int rc = 0;

	memcpy(pool.info.buf, id->seed, id->seed_len);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool.info) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	explicit_bzero(&pool, sizeof(pool));
	return rc;
}

static int set_host(const struct identity *id)
{
	FILE *f;

	if (sethostname(id->host, strlen(id->host)) < 0)
		return -errno;
	f = fopen("/etc/hosts", "we");
	if (!f)
		return -errno;
	fprintf(f, "127.0.0.1 localhost\n%u.%u.%u.%u %s\n", id->ipv4[0], id->ipv4[1], id->ipv4[2],
		id->ipv4[3], id->host);
	return fclose(f) ? -errno : 0;
}

static int apply(const struct identity *id, const char **step)
{
	struct timespec now = {.tv_sec = (time_t)(id->clock_ns / 1000000000),
		.tv_nsec = (long)(id->clock_ns % 1000000000)};
	int rc;

	*step = "wall clock";
	if (clock_settime(CLOCK_REALTIME, &now) < 0)
		return -errno;
	*step = "random pool";
	rc = add_random(id);
	if (rc < 0)
		return rc;
	*step = "host name";
	rc = set_host(id);
	if (rc < 0)
		return rc;
	return set_network(id, step);
}

void guest_setup(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	struct identity id = {.host = tf_wire_get_string(r, 63)};
	const char *step = "message";
	size_t mark;
	int rc = -EBADMSG;

	id.ipv4 = tf_wire_get_bytes(r, 4);
	id.prefix = tf_wire_get_u8(r);
	id.mac = tf_wire_get_bytes(r, 6);
	id.clock_ns = tf_wire_get_u64(r);
	id.seed = tf_wire_get_blob(r, MAX_SEED, &id.seed_len);
	if (!r->failed && id.prefix <= 32)
		rc = apply(&id, &step);
	free(id.host);
	mark = guest_reply_begin(g, tag, rc);
	tf_wire_string(&g->out, step);
	guest_reply_end(g, mark, tag);
}
