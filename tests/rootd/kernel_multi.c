/*
 * The peer that rootd is measured against: the kernel's own way with several servers. One device
 * with one TCP socket per server, the kernel moves requests to another socket when one times out
 * or breaks; this program only connects again and hands the new socket over.
 *
 *   kernel-multi --device N --root HASH --blocks N --servers A,B [--timeout SECONDS]
 *
 * Handshake and netlink are rootd's own code.
 */
#define _GNU_SOURCE
#include "device.c"
#include "server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#define CAN_MULTI_CONN (1ull << 8)
#define RETRY_MS 300

struct peer {
	struct server s;
	int fd;
};

/* Connects and shakes hands, waiting 1 s at most for each step. Returns the socket or -1. */
static int dial(struct peer *p, const char *export, uint64_t bytes)
{
	struct timeval second = {1, 0};
	int one = 1, two = 2, ms = 2000;
	uint8_t in[4096];
	size_t len = 0;
	int fd = socket(p->s.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, 4 /* TCP_KEEPIDLE */, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, 5 /* TCP_KEEPINTVL */, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, 6 /* TCP_KEEPCNT */, &two, sizeof(two));
	setsockopt(fd, IPPROTO_TCP, 18 /* TCP_USER_TIMEOUT */, &ms, sizeof(ms));
	if (connect(fd, (struct sockaddr *)&p->s.address, p->s.address_len))
		goto failed;
	nbd_begin(&p->s.nbd, export, bytes);
	for (;;) {
		struct nbd_message m;
		enum nbd_event event = nbd_next(&p->s.nbd, in, len, &m);

		memmove(in, in + m.used, len - m.used);
		len -= m.used;
		if (event == NBD_UP)
			break;
		if (event == NBD_REFUSED || event == NBD_BROKEN)
			goto failed;
		if (event == NBD_SEND && send(fd, m.out, m.out_len, MSG_NOSIGNAL) < 0)
			goto failed;
		if (event == NBD_MORE) {
			ssize_t n = recv(fd, in + len, sizeof(in) - len, 0);

			if (n <= 0)
				goto failed;
			len += (size_t)n;
		}
	}
	second.tv_sec = 0; /* the kernel's own time-out from here on */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd;
failed:
	close(fd);
	return -1;
}

static int connect_all(struct device *d, struct peer *peers, unsigned n, uint64_t bytes,
		       uint64_t timeout)
{
	struct message m, list = {.len = 0};
	uint32_t index = (uint32_t)d->index;

	begin(&m, d, d->family, NBD_CMD_CONNECT);
	attribute(&m, NBD_ATTR_INDEX, &index, sizeof(index));
	attribute_u64(&m, NBD_ATTR_SIZE_BYTES, bytes);
	attribute_u64(&m, NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK);
	attribute_u64(&m, NBD_ATTR_SERVER_FLAGS, SERVER_FLAGS | CAN_MULTI_CONN);
	attribute_u64(&m, NBD_ATTR_TIMEOUT, timeout);
	attribute_u64(&m, NBD_ATTR_DEAD_CONN_TIMEOUT, DEAD_CONN_TIMEOUT);
	for (unsigned i = 0; i < n; i++) {
		struct message fd = {.len = 0};
		uint32_t value = (uint32_t)peers[i].fd;

		attribute(&fd, NBD_SOCK_FD, &value, sizeof(value));
		attribute(&list, NBD_SOCK_ITEM | NLA_F_NESTED, fd.bytes, fd.len);
	}
	attribute(&m, NBD_ATTR_SOCKETS | NLA_F_NESTED, list.bytes, list.len);
	return talk(d, &m);
}

/* The kernel shuts a socket down when it gives up on it, so our own descriptor shows it too. */
static bool is_dead(int fd)
{
	struct pollfd p = {fd, POLLRDHUP, 0};

	return fd < 0 || (poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR | POLLRDHUP));
}

static void keep(struct peer *p, const char *export, uint64_t bytes)
{
	struct device d;

	if (device_open(&d, 0))
		_exit(1);
	for (;; usleep(RETRY_MS * 1000)) {
		int fd;

		if (!is_dead(p->fd))
			continue;
		fd = dial(p, export, bytes);
		if (fd < 0)
			continue;
		if (device_reconnect(&d, fd)) {
			close(fd);
			continue;
		}
		close(p->fd);
		p->fd = fd;
	}
}

int main(int argc, char **argv)
{
	static struct peer peers[MAX_SERVERS];
	const char *export = NULL;
	uint64_t blocks = 0, timeout = 3;
	unsigned n = 0;
	struct device d;
	int error;

	signal(SIGPIPE, SIG_IGN);
	if (device_open(&d, 0))
		return 1;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--root"))
			export = argv[i + 1];
		else if (!strcmp(argv[i], "--blocks"))
			blocks = strtoull(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--timeout"))
			timeout = strtoull(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--servers"))
			for (char *one; n < MAX_SERVERS && (one = strsep(&argv[i + 1], ","));)
				if (!server_parse(&peers[n++].s, one))
					return 2;
	}
	for (unsigned i = 0; i < n; i++)
		while ((peers[i].fd = dial(&peers[i], export, blocks * BLOCK)) < 0)
			usleep(RETRY_MS * 1000);
	error = connect_all(&d, peers, n, blocks * BLOCK, timeout);
	if (error) {
		fprintf(stderr, "kernel-multi: %s\n", strerror(-error));
		return 1;
	}
	for (unsigned i = 0; i < n; i++) /* a process each: a dead server must not delay another */
		if (!fork())
			keep(&peers[i], export, blocks * BLOCK);
	return 0;
}
