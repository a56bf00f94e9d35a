/*
 * What outlives the data process: memory that the supervisor shares with each one it starts.
 *
 * The kernel's requests are kept here, so that a new data process can go on in the same stream
 * where the old one died. For that the stream's position must be known to the byte, also when the
 * process is killed in the middle of a system call that moved it. The invariant is: while `move` is
 * MOVE_NONE this memory is right as it stands; while it is MOVE_IN or MOVE_OUT, a read or write has
 * been begun at `base_position`, and how far it came is the kernel's count of the process's bytes
 * (rchar and wchar of proc(5) /proc/PID/io, which survive in the zombie) less `base_count`.
 * While it is MOVE_LOST nothing is known, and the device needs a new socket.
 */
#ifndef ETS_SHARED_H
#define ETS_SHARED_H

#include "nbd.h"

#include <sys/uio.h>

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

/* hedges: reads for which another server was asked too, since this one was late. */
struct server_counts {
	uint64_t reads, hedges, wrong, latency_us;
};

enum move { MOVE_NONE, MOVE_IN, MOVE_OUT, MOVE_LOST };

struct shared {
	volatile uint32_t move;
	volatile uint64_t beat; /* grows while the data process is alive */
	uint64_t got, wrote;	/* bytes this process has moved by read and write, as rchar, wchar */
	uint64_t base_count, base_position;
	uint32_t moving;   /* request that MOVE_OUT writes for */
	uint32_t inbox_at; /* headers before this are in requests[] */
	uint32_t inbox_len;
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

/* Reads headers into the inbox. 0, -EPIPE when the stream has ended, or another -errno. */
int shared_receive(struct shared *sh, int fd);

/* Writes n pieces of the request's reply. 0, -EAGAIN when the socket is full, or -errno. */
int shared_send(struct shared *sh, int fd, unsigned request, const struct iovec *pieces, size_t n);

/*
 * Makes the memory right after a data process died, from the kernel's counts of what that process
 * read and wrote. False: the position in the stream is unknown, nothing can be taken up.
 */
bool shared_recover(struct shared *shared, uint64_t size, uint64_t rchar, uint64_t wchar);

#endif
