/*
 * Hedged, verified reads: which server is asked for what, and when another one is asked too.
 * (Dean & Barroso, "The Tail at Scale", CACM 56(2), 2013.)
 *
 * Invariants
 * - Bytes reach a job's buffer as "done" only after their digest was found in a tree block that is
 *   itself verified up to the root hash.
 * - A job ends in no other way than done. With no server to ask, it waits.
 * - Every job that is not done and not parked is under way at a server, or will be looked at again
 *   at job.due.
 */
#ifndef ETS_HEDGE_H
#define ETS_HEDGE_H

#include "server.h"
#include "shared.h"
#include "verity.h"

#define CHUNK_BLOCKS (ASK_BYTES_MAX / BLOCK) /* a data job's size at most; divides FAN */
#define SLOTS 128			     /* data jobs at a time */
#define TREE_JOBS 1024
#define JOBS (SLOTS + TREE_JOBS)
#define NO_JOB UINT32_MAX

enum job_state {
	JOB_FREE,
	JOB_ASKING,
	JOB_PARKED, /* an answer is in buf, but the tree block to check it with is not there yet */
	JOB_DONE,
};

struct job {
	uint64_t first; /* block */
	uint32_t count; /* blocks, all of one parent */
	uint8_t *buf;
	enum job_state state;
	uint32_t generation; /* tells an answer to this job from one to its predecessor */
	uint32_t asked, bad; /* bit per server: under way there; gave a wrong answer or an error */
	unsigned parked_from;
	uint64_t due; /* when to ask one more server */
	uint64_t latest; /* when a server was last asked */
	uint64_t sent[MAX_SERVERS];
};

struct hedge {
	struct server *servers;
	unsigned n_servers;
	struct verity *verity;
	struct shared *shared;
	uint8_t *fetching; /* per tree block: a job is on it */
	struct job jobs[JOBS];
	uint64_t next_due;  /* of all jobs */
	double tokens;	    /* how many hedges may be sent now */
	uint64_t start_delay;
	uint64_t probe_block; /* a block whose parent is known, to try demoted servers with */
	uint64_t now;
	void *owner;
	void (*done)(void *owner, unsigned slot);
};

/* False: no memory. hedge_ms is the delay to begin with, until latencies have been seen. */
bool hedge_init(struct hedge *h, struct server *servers, unsigned n, struct verity *verity,
		struct shared *shared, unsigned hedge_ms);

/* Fetches count blocks from first on into buf; done(owner, slot) is called when they are there. */
void hedge_read(struct hedge *h, unsigned slot, uint64_t first, uint32_t count, uint8_t *buf);

/* The slot's bytes have been used. */
void hedge_release(struct hedge *h, unsigned slot);

/* True when the tree block is verified; otherwise sees to it that it is fetched. */
bool hedge_want_tree(struct hedge *h, uint64_t block);

/* Hedges, retries and probes that are due. Returns when to be called again. */
uint64_t hedge_tick(struct hedge *h, uint64_t now);

/* The servers' hooks. */
void hedge_up(void *h, struct server *s);
void hedge_down(void *h, struct server *s);
void hedge_answer(void *h, struct server *s, const struct nbd_message *m, uint64_t now);

#endif
