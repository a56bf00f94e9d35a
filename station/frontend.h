/*
 * The device's side: the kernel's reads come in over a socket pair (NBD transmission phase), are
 * cut into chunks for hedge.c, and answered when every chunk is there.
 *
 * A reply is one contiguous piece of the stream. It begins when the whole read is there; only a
 * read longer than WINDOW chunks begins with its first chunk and goes on as chunks come in.
 * A read is taken on only when the slots it needs (WINDOW at most) are free, and it keeps them to
 * its end, so no two reads can wait for each other's slots.
 */
#ifndef ETS_FRONTEND_H
#define ETS_FRONTEND_H

#include "hedge.h"

#define WINDOW 32 /* chunks of one read: 2 MiB; the kernel's requests are at most 1.25 MiB */

struct slot {
	uint8_t *buf;
	uint64_t first; /* block */
	uint32_t count; /* blocks */
	uint32_t data;	/* of them data blocks; the rest are tree blocks */
	bool data_ready, ready;
};

/* The private side of a struct request. */
struct plan {
	uint32_t chunks;
	uint32_t next; /* chunk to start next */
	uint32_t sending; /* chunk the stream is at */
	uint32_t ready; /* chunks that have been ready, counted from the first one started */
	uint32_t begun; /* the first chunk started: not 0 after a restart */
	uint8_t slot[WINDOW]; /* of chunk c at c % WINDOW */
	bool queued;
};

struct frontend {
	int fd;
	struct hedge *hedge;
	struct shared *shared;
	uint64_t size; /* bytes the device has */
	struct plan plans[REQUESTS];
	struct slot slots[SLOTS];
	uint16_t owner[SLOTS]; /* request of each slot */
	uint8_t free_slots[SLOTS];
	unsigned n_free;
	unsigned tree_waits; /* slots that wait for tree blocks only */
	uint16_t queue[REQUESTS]; /* replies in the order they became possible */
	unsigned queue_head, queue_len;
	bool full; /* the socket took nothing the last time */
};

enum frontend_result {
	FRONTEND_WELL,
	FRONTEND_ENDED, /* the kernel has disconnected the device (or closed the socket) */
	FRONTEND_LOST,	/* the stream is not the protocol: a new socket is needed */
};

/* Takes up what the shared memory says is under way. False: no memory. */
bool frontend_init(struct frontend *f, int fd, struct hedge *hedge, struct shared *shared,
		   uint64_t size);

/* Reads requests (when readable), starts chunks, writes what can be written. */
enum frontend_result frontend_run(struct frontend *f, bool readable);

/* Does it wait for room in the socket? Does it want to read requests? */
bool frontend_wants_out(const struct frontend *f);
bool frontend_wants_in(const struct frontend *f);

#endif
