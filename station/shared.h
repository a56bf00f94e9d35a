/*
 * What outlives the data process: memory that the supervisor shares with each one it starts.
 *
 * The kernel's requests are kept here, so that a new data process can go on in the same stream
 * where the old one died. That is possible only when the stream's position is known, so the
 * invariant is: `busy` is set exactly while a system call on the device's socket may have moved
 * the stream without this memory saying so. A process that dies with `busy` set leaves an unknown
 * position behind, and the supervisor then gives the device a new socket instead.
 */
#ifndef ETS_SHARED_H
#define ETS_SHARED_H

#include "nbd.h"

#define MAX_SERVERS 16
#define REQUESTS 256 /* the kernel's driver has 128 under way at most */
#define INBOX (64 * NBD_REQUEST_SIZE)

/* One read of the kernel. */
struct request {
	uint64_t handle; /* as the kernel sent it */
	uint64_t from;   /* byte */
	uint64_t arrived;
	uint32_t len;   /* bytes of data in the reply */
	uint32_t sent;  /* bytes of the reply (header and data) that are in the stream */
	uint32_t error; /* errno for the header; then len is 0 */
	uint32_t used;
};

struct server_counts {
	uint64_t reads, hedges, wrong, latency_us;
};

struct shared {
	volatile uint32_t busy; /* see above */
	volatile uint64_t beat; /* grows while the data process is alive */
	uint32_t inbox_len;     /* received, not yet in requests[] */
	uint8_t inbox[INBOX];
	struct request requests[REQUESTS];
	uint64_t reads, hedges, wrong, longest_stall_us;
	struct server_counts servers[MAX_SERVERS];
};

/* What was written before is in memory before what is written after: for a successor's eyes. */
static inline void shared_fence(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void shared_busy(struct shared *s, uint32_t busy)
{
	shared_fence();
	s->busy = busy;
	shared_fence();
}

#endif
