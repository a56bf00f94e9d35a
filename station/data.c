#include "data.h"

#include "frontend.h"
#include "hedge.h"
#include "log.h"
#include "report.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define REPORT_EVERY SECOND
#define BEAT (250 * MS) /* the supervisor takes a loop that stands still for dead */
#define NOBODY_EVERY (10 * SECOND)
#define EVENTS (MAX_SERVERS + 1)

struct data {
	const struct options *options;
	struct shared *shared;
	int epoll, fd;
	uint32_t watched; /* what epoll watches fd for */
	struct verity verity;
	struct hedge hedge;
	struct frontend frontend;
	struct server_hooks hooks;
	uint64_t report_at, alone_since, alone_logged;
};

uint64_t data_size(const struct options *o)
{
	struct verity layout;
	uint64_t blocks = o->blocks;

	if (o->with_tree) {
		if (!verity_init(&layout, o->blocks, o->root))
			return 0;
		blocks = verity_total(&layout);
		verity_free(&layout);
	}
	return blocks * BLOCK;
}

static bool prepare(struct data *d)
{
	const struct options *o = d->options;
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll < 0 || !verity_init(&d->verity, o->blocks, o->root))
		return false;
	d->hooks = (struct server_hooks){&d->hedge, hedge_up, hedge_down, hedge_answer};
	for (unsigned i = 0; i < o->n_servers; i++)
		if (!server_init(&o->servers[i], i, d->epoll, o->export,
				 verity_total(&d->verity) * BLOCK, &d->hooks,
				 &d->shared->servers[i]))
			return false;
	d->watched = event.events;
	return hedge_init(&d->hedge, o->servers, o->n_servers, &d->verity, d->shared,
			  o->hedge_ms) &&
	       frontend_init(&d->frontend, d->fd, &d->hedge, d->shared, data_size(o)) &&
	       !epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->fd, &event);
}

/* All servers away: reads wait. Somebody in front of the screen wants to know why. */
static void note_loneliness(struct data *d, uint64_t now)
{
	for (unsigned i = 0; i < d->options->n_servers; i++) {
		if (d->options->servers[i].state != SERVER_UP)
			continue;
		if (d->alone_logged)
			log_line(LOG_NOTICE, "a server is back after %.1f s",
				 (double)(now - d->alone_since) / 1e6);
		d->alone_since = d->alone_logged = 0;
		return;
	}
	if (!d->alone_since)
		d->alone_since = now;
	if (now < max_u64(d->alone_logged + NOBODY_EVERY, d->alone_since + SECOND))
		return;
	d->alone_logged = now;
	log_line(LOG_WARNING, "no server reachable for %.0f s, reads wait",
		 (double)(now - d->alone_since) / 1e6);
}

/* Everything that happens by the clock. Returns when to be called again. */
static uint64_t tick(struct data *d)
{
	const struct options *o = d->options;
	uint64_t now = now_us(), next = now + BEAT;

	for (unsigned i = 0; i < o->n_servers; i++)
		next = min_u64(next, server_tick(&o->servers[i], now));
	next = min_u64(next, hedge_tick(&d->hedge, now));
	note_loneliness(d, now);
	if (now >= d->report_at) {
		report_write(o, d->shared, now);
		d->report_at = now + REPORT_EVERY;
	}
	d->shared->beat++;
	return next;
}

static void flush(struct data *d)
{
	uint64_t now = now_us();

	/* Twice: a connection found broken by the first round gives its reads to the others. */
	for (int round = 0; round < 2; round++)
		for (unsigned i = 0; i < d->options->n_servers; i++)
			server_flush(&d->options->servers[i], now);
}

static void watch_device(struct data *d)
{
	struct epoll_event event = {.data.ptr = NULL};

	event.events = (frontend_wants_in(&d->frontend) ? EPOLLIN : 0u) |
		       (frontend_wants_out(&d->frontend) ? EPOLLOUT : 0u);
	if (event.events == d->watched)
		return;
	epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->fd, &event);
	d->watched = event.events;
}

/* One round: what has arrived goes before what is late, so that our own delays hedge nothing. */
static enum frontend_result round_of(struct data *d, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(d->epoll, events, EVENTS, timeout_ms);
	bool readable = false;

	for (int i = 0; i < n; i++) {
		struct server *s = events[i].data.ptr;

		if (s)
			server_event(s, events[i].events, now_us());
		else
			readable |= (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
	}
	return frontend_run(&d->frontend, readable);
}

enum data_exit data_run(const struct options *o, struct shared *shared, int fd)
{
	struct data *d = calloc(1, sizeof(*d));
	enum frontend_result result = FRONTEND_WELL;
	uint64_t next;

	if (!d)
		return DATA_NO_MEMORY;
	d->options = o;
	d->shared = shared;
	d->fd = fd;
	if (!prepare(d)) {
		log_line(LOG_ERROR, "no memory for the data process");
		return DATA_NO_MEMORY;
	}
	for (next = tick(d); result == FRONTEND_WELL; next = tick(d)) {
		uint64_t now;

		flush(d);
		watch_device(d);
		now = now_us();
		result = round_of(d, next <= now ? 0 : (int)((next - now + MS - 1) / MS));
	}
	if (result == FRONTEND_ENDED)
		return DATA_ENDED;
	log_line(LOG_ERROR, "lost the thread with the kernel, a new socket is needed");
	return DATA_NEEDS_SOCKET;
}
