/*
 * How a server does, and what follows from it for the order in which servers are asked.
 *
 * A server is demoted when another one overtakes it, and goes back to its place when a few probes
 * in a row are answered quickly. It is avoided for a while after a wrong block. Neither shuts it
 * out: it is only asked after the others, so a wrong belief costs evenness of load and no more.
 */
#ifndef ETS_HEALTH_H
#define ETS_HEALTH_H

#include "server.h"

/* Lower is asked first; servers of one rank are asked in the station's order. */
unsigned health_rank(const struct server *s, uint64_t now);

/* The delay after which a read at this server is worth asking for elsewhere, in microseconds. */
uint64_t health_delay(const struct server *s);

/* What to begin with. */
void health_init(struct server *s, unsigned hedge_ms);

/* It answered after the given time. */
void health_answered(struct server *s, uint64_t latency);

/* A read asked of it at `sent` was answered sooner by one that was asked later. */
void health_overtaken(struct server *s, uint64_t sent, uint64_t now);

/* It answered in time, and first. */
void health_won(struct server *s);

/* It sent a wrong block, or an error instead of one. */
void health_wrong(struct server *s, uint64_t block, uint32_t error, uint64_t now);

/* A probe came back; quick means within the given time. */
void health_probed(struct server *s, uint64_t latency, uint64_t quick, uint64_t now);

/* Is it time to send a probe? */
bool health_probe_due(struct server *s, uint64_t now);

#endif
