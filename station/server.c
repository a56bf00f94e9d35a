#include "server.h"

#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 10809
#define RECONNECT (300 * MS)
/* Each attempt sends a fresh SYN, sooner than TCP would; now and then one gets more time, for a
 * network on which the answer takes long. */
#define CONNECT_SHORT (300 * MS)
#define CONNECT_LONG SECOND
#define CONNECT_LONG_EVERY 4
#define REFUSED_RECHECK (3 * SECOND) /* the server may yet get the image */
#define BROKEN_RECHECK (5 * SECOND)
#define HELLO_PATIENCE (3 * SECOND)
#define HELLO_PATIENCE_MAX (60 * SECOND)
#define SILENCE (30 * SECOND) /* with reads under way: a new connection cannot be worse */
#define GRUMBLE_EVERY (60 * SECOND) /* a dead host fails in several ways in turn */
#define IN_SIZE (2 * NBD_MESSAGE_MAX)

bool server_parse(struct server *s, const char *text)
{
	char host[64];
	const char *colon = strrchr(text, ':');
	long port = PORT;
	size_t len = strlen(text);
	struct sockaddr_in *v4 = (struct sockaddr_in *)&s->address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&s->address;
	bool bracket = *text == '[';

	if (colon && (!bracket || colon[-1] == ']')) {
		char *end;

		port = strtol(colon + 1, &end, 10);
		if (*end || port < 1 || port > 65535)
			return false;
		len = (size_t)(colon - text);
	}
	if (bracket && (len < 2 || text[len - 1] != ']'))
		return false;
	if (bracket)
		text++, len -= 2;
	if (len >= sizeof(host) - 10)
		return false;
	memcpy(host, text, len);
	host[len] = 0;
	memset(&s->address, 0, sizeof(s->address));
	if (!bracket && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		s->address_len = sizeof(*v4);
		snprintf(s->name, sizeof(s->name), "%.*s:%ld", (int)sizeof(host) - 10, host, port);
		return true;
	}
	if (bracket && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		s->address_len = sizeof(*v6);
		snprintf(s->name, sizeof(s->name), "[%.*s]:%ld", (int)sizeof(host) - 10, host, port);
		return true;
	}
	return false;
}

bool server_init(struct server *s, unsigned index, int epoll, const char *export,
		 uint64_t need_bytes, const struct server_hooks *hooks,
		 struct server_counts *counts)
{
	s->index = index;
	s->hooks = hooks;
	s->counts = counts;
	s->epoll = epoll;
	s->fd = -1;
	s->state = SERVER_WAITING;
	s->patience = HELLO_PATIENCE;
	s->in = malloc(IN_SIZE);
	nbd_begin(&s->nbd, export, need_bytes);
	return s->in != NULL;
}

static void watch(struct server *s, bool for_room, int op)
{
	struct epoll_event event = {
		.events = EPOLLIN | (for_room ? EPOLLOUT : 0u),
		.data.ptr = s,
	};

	s->wants_out = for_room;
	epoll_ctl(s->epoll, op, s->fd, &event);
}

void server_hang_up(struct server *s, uint64_t now, uint64_t again, const char *why)
{
	bool was_up = s->state == SERVER_UP;

	if (s->fd >= 0)
		close(s->fd); /* which also takes it out of epoll */
	s->fd = -1;
	s->state = SERVER_WAITING;
	s->refused = false;
	s->deadline = now + again;
	s->in_len = s->out_len = 0;
	if (was_up) {
		log_line(LOG_WARNING, "%s lost: %s", s->name, why);
	} else if (s->trouble != why && now >= s->grumble_at) {
		log_line(LOG_INFO, "%s not usable: %s", s->name, why);
		s->grumble_at = now + GRUMBLE_EVERY;
		s->trouble = why;
	}
	if (was_up)
		s->hooks->down(s->hooks->owner, s);
	nbd_begin(&s->nbd, s->nbd.export, s->nbd.need_bytes);
}

/* A dead peer must be noticed without a reset: within 2 s, whether anything is under way or not. */
static void set_options(int fd)
{
	int one = 1, probes = 2, timeout_ms = 2000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

static void begin(struct server *s, uint64_t now)
{
	s->fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0) {
		server_hang_up(s, now, RECONNECT, "no socket");
		return;
	}
	set_options(s->fd);
	if (connect(s->fd, (struct sockaddr *)&s->address, s->address_len) && errno != EINPROGRESS) {
		server_hang_up(s, now, RECONNECT, "no way to it");
		return;
	}
	s->state = SERVER_CONNECTING;
	s->deadline = now + (++s->attempts % CONNECT_LONG_EVERY ? CONNECT_SHORT : CONNECT_LONG);
	watch(s, true, EPOLL_CTL_ADD);
}

static void connected(struct server *s, uint64_t now)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) || error) {
		server_hang_up(s, now, RECONNECT,
			       error == ECONNREFUSED ? "nothing listens there" : "no way to it");
		return;
	}
	s->state = SERVER_GREETING;
	s->deadline = now + s->patience;
	watch(s, false, EPOLL_CTL_MOD);
}

/* One event of the protocol. False when the connection is gone. */
static bool handle(struct server *s, enum nbd_event event, const struct nbd_message *m,
		   uint64_t now)
{
	switch (event) {
	case NBD_SEND:
		memcpy(s->out + s->out_len, m->out, m->out_len);
		s->out_len += m->out_len;
		return true;
	case NBD_UP:
		s->state = SERVER_UP;
		s->refused = false;
		s->patience = HELLO_PATIENCE;
		s->trouble = NULL;
		s->grumble_at = 0;
		s->last_heard = now;
		log_line(LOG_INFO, "%s connected", s->name);
		s->hooks->up(s->hooks->owner, s);
		return true;
	case NBD_ANSWER:
		s->hooks->answer(s->hooks->owner, s, m, now);
		return s->state == SERVER_UP;
	case NBD_REFUSED:
		server_hang_up(s, now, REFUSED_RECHECK, m->why);
		s->refused = true;
		return false;
	case NBD_BROKEN:
		server_hang_up(s, now, BROKEN_RECHECK, m->why);
		return false;
	default:
		return true;
	}
}

/* Everything that has arrived. Several messages are taken from one read of the socket. */
static void receive(struct server *s, uint64_t now)
{
	for (int rounds = 0; rounds < 4; rounds++) { /* then the others get their turn */
		ssize_t n = recv(s->fd, s->in + s->in_len, IN_SIZE - s->in_len, 0);
		size_t done = 0;
		struct nbd_message m;
		enum nbd_event event;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			server_hang_up(s, now, s->state == SERVER_UP ? 0 : RECONNECT,
				       n ? "connection broken" : "connection closed");
			return;
		}
		s->last_heard = now;
		s->in_len += (size_t)n;
		while ((event = nbd_next(&s->nbd, s->in + done, s->in_len - done, &m)) != NBD_MORE) {
			done += m.used;
			if (!handle(s, event, &m, now))
				return;
		}
		memmove(s->in, s->in + done, s->in_len - done);
		s->in_len -= done;
	}
}

void server_event(struct server *s, uint32_t events, uint64_t now)
{
	if (s->fd < 0)
		return;
	if (s->state == SERVER_CONNECTING) {
		if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			connected(s, now);
		return;
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(s, now);
}

uint64_t server_tick(struct server *s, uint64_t now)
{
	if (s->state == SERVER_UP) {
		if (s->nbd.asked && now > s->last_heard + SILENCE) {
			s->last_heard = now;
			server_hang_up(s, now, 0, "silent for 30 s");
		} else {
			return s->nbd.asked ? s->last_heard + SILENCE : NEVER;
		}
	}
	if (now < s->deadline)
		return s->deadline;
	if (s->state == SERVER_WAITING) {
		begin(s, now);
		return s->deadline;
	}
	if (s->state == SERVER_GREETING) {
		s->patience = min_u64(s->patience * 2, HELLO_PATIENCE_MAX);
		server_hang_up(s, now, 0, "it does not greet");
	} else {
		server_hang_up(s, now, 0, "no answer to a connection");
	}
	return now;
}

bool server_ask(struct server *s, const struct ask *what)
{
	if (s->state != SERVER_UP || s->out_len + NBD_REQUEST_SIZE > sizeof(s->out) ||
	    !nbd_ask(&s->nbd, what, s->out + s->out_len))
		return false;
	if (s->nbd.asked == 1)
		s->last_heard = what->sent; /* silence counts from the first unanswered read */
	s->out_len += NBD_REQUEST_SIZE;
	return true;
}

void server_flush(struct server *s, uint64_t now)
{
	ssize_t n;

	if (!s->out_len || s->state < SERVER_GREETING)
		return;
	n = send(s->fd, s->out, s->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		server_hang_up(s, now, 0, "connection broken");
		return;
	}
	if (n > 0) {
		memmove(s->out, s->out + n, s->out_len - (size_t)n);
		s->out_len -= (size_t)n;
	}
	if ((s->out_len > 0) != s->wants_out)
		watch(s, s->out_len > 0, EPOLL_CTL_MOD);
}
