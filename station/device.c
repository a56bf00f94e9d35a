#include "device.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVER_FLAGS (1ull << 0 | 1ull << 1) /* NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY */
#define DEAD_CONN_TIMEOUT 3600ull /* seconds a device without a socket waits before it fails */
#define MESSAGE_MAX 1024
#define ATTR_HEAD ((uint32_t)sizeof(struct nlattr)) /* 4: aligned already */

/* A message under construction; every caller's attributes fit by far. */
struct message {
	_Alignas(8) uint8_t bytes[MESSAGE_MAX];
	uint32_t len;
};

static struct nlmsghdr *head(struct message *m)
{
	return (struct nlmsghdr *)m->bytes;
}

static void begin(struct message *m, struct device *d, uint16_t type, uint8_t command)
{
	struct genlmsghdr *genl = (struct genlmsghdr *)(m->bytes + NLMSG_HDRLEN);

	memset(m, 0, sizeof(*m));
	m->len = NLMSG_HDRLEN + GENL_HDRLEN;
	head(m)->nlmsg_type = type;
	head(m)->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	head(m)->nlmsg_seq = ++d->sequence;
	genl->cmd = command;
	genl->version = 1;
}

static void attribute(struct message *m, uint16_t type, const void *value, uint32_t len)
{
	struct nlattr *a = (struct nlattr *)(m->bytes + m->len);

	a->nla_type = type;
	a->nla_len = (uint16_t)(ATTR_HEAD + len);
	memcpy((uint8_t *)a + ATTR_HEAD, value, len);
	m->len += (uint32_t)NLA_ALIGN(a->nla_len);
}

static void attribute_u64(struct message *m, uint16_t type, uint64_t value)
{
	attribute(m, type, &value, sizeof(value));
}

/* NBD_ATTR_SOCKETS > NBD_SOCK_ITEM > NBD_SOCK_FD */
static void attribute_socket(struct message *m, int socket)
{
	struct message fd = {.len = 0}, item = {.len = 0};
	uint32_t value = (uint32_t)socket;

	attribute(&fd, NBD_SOCK_FD, &value, sizeof(value));
	attribute(&item, NBD_SOCK_ITEM | NLA_F_NESTED, fd.bytes, fd.len);
	attribute(m, NBD_ATTR_SOCKETS | NLA_F_NESTED, item.bytes, item.len);
}

/* The family's number out of the answer to CTRL_CMD_GETFAMILY. */
static void learn_family(struct device *d, const struct nlmsghdr *h)
{
	const uint8_t *at = (const uint8_t *)h + NLMSG_HDRLEN + GENL_HDRLEN;
	const uint8_t *end = (const uint8_t *)h + h->nlmsg_len;

	while (at + ATTR_HEAD <= end) {
		const struct nlattr *a = (const struct nlattr *)at;

		if (a->nla_len < ATTR_HEAD)
			return;
		if (a->nla_type == CTRL_ATTR_FAMILY_ID)
			memcpy(&d->family, at + ATTR_HEAD, sizeof(d->family));
		at += NLA_ALIGN(a->nla_len);
	}
}

/* Sends and waits for the kernel's acknowledgement. Returns 0 or -errno. */
static int talk(struct device *d, struct message *m)
{
	_Alignas(8) uint8_t in[4096];

	head(m)->nlmsg_len = m->len;
	if (send(d->netlink, m->bytes, m->len, 0) < 0)
		return -errno;
	for (;;) {
		ssize_t got = recv(d->netlink, in, sizeof(in), 0);
		uint32_t n;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		n = (uint32_t)got;
		for (struct nlmsghdr *h = (struct nlmsghdr *)in; NLMSG_OK(h, n);
		     h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_seq != d->sequence)
				continue;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			if (h->nlmsg_type == GENL_ID_CTRL)
				learn_family(d, h);
		}
	}
}

int device_open(struct device *d, int index)
{
	struct message m;
	int error;

	memset(d, 0, sizeof(*d));
	d->index = index;
	d->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (d->netlink < 0)
		return -errno;
	begin(&m, d, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	attribute(&m, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME, sizeof(NBD_GENL_FAMILY_NAME));
	error = talk(d, &m);
	return error ? error : d->family ? 0 : -ENOENT;
}

static int configure(struct device *d, uint8_t command, uint64_t bytes, int socket)
{
	struct message m;
	uint32_t index = (uint32_t)d->index;

	begin(&m, d, d->family, command);
	attribute(&m, NBD_ATTR_INDEX, &index, sizeof(index));
	if (command == NBD_CMD_CONNECT) {
		attribute_u64(&m, NBD_ATTR_SIZE_BYTES, bytes);
		attribute_u64(&m, NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK);
		attribute_u64(&m, NBD_ATTR_SERVER_FLAGS, SERVER_FLAGS);
	}
	/* 0: a request may take as long as it takes, the kernel only mentions it. */
	attribute_u64(&m, NBD_ATTR_TIMEOUT, 0);
	attribute_u64(&m, NBD_ATTR_DEAD_CONN_TIMEOUT, DEAD_CONN_TIMEOUT);
	attribute_socket(&m, socket);
	return talk(d, &m);
}

int device_connect(struct device *d, uint64_t bytes, int socket)
{
	return configure(d, NBD_CMD_CONNECT, bytes, socket);
}

int device_disconnect(struct device *d)
{
	struct message m;
	uint32_t index = (uint32_t)d->index;

	begin(&m, d, d->family, NBD_CMD_DISCONNECT);
	attribute(&m, NBD_ATTR_INDEX, &index, sizeof(index));
	return talk(d, &m);
}

int device_reconnect(struct device *d, int socket)
{
	return configure(d, NBD_CMD_RECONFIGURE, 0, socket);
}
