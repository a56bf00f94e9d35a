/*
 * The connection to one server: non-blocking connect, handshake, reads, reconnect for ever; and
 * what is known about how fast it answers.
 */
#ifndef ETS_SERVER_H
#define ETS_SERVER_H

#include "nbd.h"
#include "shared.h"

#include <netinet/in.h>

enum server_state { SERVER_WAITING, SERVER_CONNECTING, SERVER_GREETING, SERVER_UP };

struct server;

/* What the owner wants to know. Called from server_event() and server_tick(). */
struct server_hooks {
	void *owner;
	void (*up)(void *owner, struct server *s);
	/* The connection is gone; s->nbd.asks still holds what was under way. */
	void (*down)(void *owner, struct server *s);
	void (*answer)(void *owner, struct server *s, const struct nbd_message *m, uint64_t now);
};

struct server {
	char name[64]; /* address:port, as it is reported */
	struct sockaddr_storage address;
	socklen_t address_len;
	unsigned index; /* place in the station's order */
	const struct server_hooks *hooks;
	struct server_counts *counts;

	int epoll, fd;
	enum server_state state;
	uint64_t deadline;   /* WAITING: when to try again; CONNECTING, GREETING: when to give up */
	uint64_t patience;   /* for the handshake; grows, so that a very slow server gets in too */
	unsigned attempts;
	bool refused;        /* it lacks the image */
	const char *trouble; /* why it is not usable, as logged last */
	uint64_t grumble_at; /* when another reason may be logged */
	struct nbd nbd;
	uint8_t *in;
	size_t in_len;
	uint8_t out[ASKS * NBD_REQUEST_SIZE + HELLO_MAX];
	size_t out_len;
	bool wants_out; /* epoll watches for room to write */

	/* How it does. Times in microseconds. */
	uint64_t last_heard;
	uint64_t latency;  /* moving average */
	uint64_t quantile; /* about the 95th percentile of its latency */
	bool demoted;      /* late: asked after the others until its probes are quick again */
	unsigned lost;     /* hedges lost in a row */
	uint64_t lost_at, demoted_at, probe_at;
	unsigned good_probes, need_probes;
	uint64_t avoided_until, avoid_for, wrong_at, wrong_logged;
};

/* Parses ADDRESS[:PORT], IPv4 or [IPv6]. False when it is neither. */
bool server_parse(struct server *s, const char *text);

/* Makes it ready for server_tick() to connect. False: no memory. */
bool server_init(struct server *s, unsigned index, int epoll, const char *export,
		 uint64_t need_bytes, const struct server_hooks *hooks,
		 struct server_counts *counts);

/* Its socket is readable or writable. */
void server_event(struct server *s, uint32_t events, uint64_t now);

/* Connects, gives up, tries again, as it is time. Returns when to be called again. */
uint64_t server_tick(struct server *s, uint64_t now);

/* Queues a read. False when it cannot take one now. */
bool server_ask(struct server *s, const struct ask *what);

/* Writes what is queued. Called once per round of the loop, so that requests go out together. */
void server_flush(struct server *s, uint64_t now);

/* Hangs up; tries again after the given time. */
void server_hang_up(struct server *s, uint64_t now, uint64_t again, const char *why);

#endif
