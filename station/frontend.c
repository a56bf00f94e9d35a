#include "frontend.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#define PIECES 16 /* buffers in one write */

static uint64_t first_block(const struct request *r)
{
	return r->from / BLOCK;
}

static uint64_t end_block(const struct request *r)
{
	return (r->from + r->len + BLOCK - 1) / BLOCK;
}

/* Chunks lie on a grid over the image, so that each has one parent in the hash tree. */
static uint32_t count_chunks(const struct request *r)
{
	if (!r->len)
		return 0;
	return (uint32_t)((end_block(r) - 1) / CHUNK_BLOCKS - first_block(r) / CHUNK_BLOCKS + 1);
}

static void enqueue(struct frontend *f, unsigned index)
{
	if (f->plans[index].queued)
		return;
	f->plans[index].queued = true;
	f->queue[(f->queue_head + f->queue_len++) % REQUESTS] = (uint16_t)index;
}

/* All of it is there, or it is too long to be there all at once and its next chunk is. */
static void enqueue_if_possible(struct frontend *f, unsigned index)
{
	struct plan *p = &f->plans[index];
	uint32_t todo = p->chunks - p->begun;

	if (p->ready == todo ||
	    (todo > WINDOW && p->sending < p->next && f->slots[p->slot[p->sending % WINDOW]].ready))
		enqueue(f, index);
}

static void settle_slot(struct frontend *f, unsigned index)
{
	struct slot *s = &f->slots[index];
	struct verity *v = f->hedge->verity;
	bool tree = true;

	for (uint32_t i = s->data; i < s->count; i++)
		tree &= hedge_want_tree(f->hedge, s->first + i);
	if (!tree || !s->data_ready)
		return;
	for (uint32_t i = s->data; i < s->count; i++)
		memcpy(s->buf + (size_t)i * BLOCK, verity_cache(v, s->first + i), BLOCK);
	s->ready = true;
	f->tree_waits -= s->data < s->count;
	f->plans[f->owner[index]].ready++;
	enqueue_if_possible(f, f->owner[index]);
}

static void chunk_done(void *frontend, unsigned slot)
{
	struct frontend *f = frontend;

	f->slots[slot].data_ready = true;
	settle_slot(f, slot);
}

/* Starts the request's next chunk in the given slot. */
static void start_chunk(struct frontend *f, unsigned index, unsigned slot)
{
	const struct request *r = &f->shared->requests[index];
	struct plan *p = &f->plans[index];
	struct slot *s = &f->slots[slot];
	uint64_t cell = (first_block(r) / CHUNK_BLOCKS + p->next) * CHUNK_BLOCKS;
	uint64_t end = min_u64(cell + CHUNK_BLOCKS, end_block(r));
	uint64_t data_blocks = f->hedge->verity->blocks;

	s->first = max_u64(cell, first_block(r));
	s->count = (uint32_t)(end - s->first);
	s->data = (uint32_t)(min_u64(end, max_u64(data_blocks, s->first)) - s->first);
	s->data_ready = s->ready = false;
	f->tree_waits += s->data < s->count;
	f->owner[slot] = (uint16_t)index;
	p->slot[p->next % WINDOW] = (uint8_t)slot;
	p->next++;
	if (s->data)
		hedge_read(f->hedge, slot, s->first, s->data, s->buf);
	else
		chunk_done(f, slot);
}

static unsigned slots_needed(const struct request *r)
{
	return (unsigned)min_u64(count_chunks(r), WINDOW);
}

/* Begins a request, or goes on with it where the last data process was. */
static void begin(struct frontend *f, unsigned index)
{
	const struct request *r = &f->shared->requests[index];
	struct plan *p = &f->plans[index];
	uint64_t at = r->from + (r->sent > NBD_REPLY_SIZE ? r->sent - NBD_REPLY_SIZE : 0);
	unsigned needed;

	memset(p, 0, sizeof(*p));
	p->chunks = count_chunks(r);
	if (p->chunks)
		p->begun = (uint32_t)(min_u64(at, r->from + r->len - 1) / BLOCK / CHUNK_BLOCKS -
				      first_block(r) / CHUNK_BLOCKS);
	p->next = p->sending = p->begun;
	needed = (unsigned)min_u64(p->chunks - p->begun, WINDOW);
	for (unsigned i = 0; i < needed; i++)
		start_chunk(f, index, f->free_slots[--f->n_free]);
	if (!needed)
		enqueue(f, index);
}

/*
 * Requests that the last process had taken on needed at most SLOTS slots then, but one that was
 * partly sent may now need as many as it did, never more. So they all fit again.
 */
static void resume(struct frontend *f)
{
	struct request *requests = f->shared->requests;

	for (unsigned i = 0; i < REQUESTS; i++) /* the reply that was cut short goes on first */
		if (requests[i].used && requests[i].sent)
			begin(f, i), enqueue(f, i);
	for (unsigned i = 0; i < REQUESTS; i++)
		if (requests[i].used && !requests[i].sent)
			begin(f, i);
}

bool frontend_init(struct frontend *f, int fd, struct hedge *hedge, struct shared *shared,
		   uint64_t size)
{
	uint8_t *buffers = calloc(SLOTS, ASK_BYTES_MAX);

	if (!buffers)
		return false;
	f->fd = fd;
	f->hedge = hedge;
	f->shared = shared;
	f->size = size;
	hedge->owner = f;
	hedge->done = chunk_done;
	for (unsigned i = 0; i < SLOTS; i++) {
		f->slots[i].buf = buffers + (size_t)i * ASK_BYTES_MAX;
		f->free_slots[f->n_free++] = (uint8_t)i;
	}
	resume(f);
	return true;
}

/* After a restart the last header may be in the table already. */
static bool is_known(const struct shared *shared, uint64_t handle)
{
	for (unsigned i = 0; i < REQUESTS; i++)
		if (shared->requests[i].used && shared->requests[i].handle == handle)
			return true;
	return false;
}

static int free_request(const struct shared *shared)
{
	for (int i = 0; i < REQUESTS; i++)
		if (!shared->requests[i].used)
			return i;
	return -1;
}

/* Puts one header into the table. False: no room yet, it stays in the inbox. */
static bool take_on(struct frontend *f, const uint8_t *header)
{
	struct request r = {
		.handle = get64(header + 8),
		.from = get64(header + 16),
		.len = get32(header + 24),
		.arrived = now_us(),
	};
	uint16_t type = get16(header + 6);
	int index = free_request(f->shared);

	if (type == NBD_FLUSH)
		r.len = 0, r.from = 0;
	else if (type != NBD_READ)
		r.error = EPERM, r.len = 0, r.from = 0;
	else if (r.from > f->size || r.len > f->size - r.from || r.len > INT32_MAX)
		r.error = EINVAL, r.len = 0, r.from = 0;
	if (index < 0 || f->n_free < slots_needed(&r))
		return false;
	f->shared->requests[index] = r;
	shared_fence();
	f->shared->requests[index].used = 1;
	begin(f, (unsigned)index);
	return true;
}

static enum frontend_result take_requests(struct frontend *f)
{
	struct shared *sh = f->shared;

	while (sh->inbox_len - sh->inbox_at >= NBD_REQUEST_SIZE) {
		const uint8_t *header = sh->inbox + sh->inbox_at;

		if (get32(header) != NBD_REQUEST_MAGIC)
			return FRONTEND_LOST;
		if (get16(header + 6) == NBD_DISC)
			return FRONTEND_ENDED;
		if (!is_known(sh, get64(header + 8)) && !take_on(f, header))
			return FRONTEND_WELL;
		shared_fence();
		sh->inbox_at += NBD_REQUEST_SIZE;
	}
	return FRONTEND_WELL;
}

/* The pieces of the reply that are ready, from where the stream is. Returns how many. */
static size_t gather(struct frontend *f, unsigned index, const uint8_t *header,
		     struct iovec pieces[PIECES])
{
	const struct request *r = &f->shared->requests[index];
	const struct plan *p = &f->plans[index];
	uint64_t at = r->from, end = r->from + r->len;
	size_t n = 0;

	if (r->sent < NBD_REPLY_SIZE)
		pieces[n++] = (struct iovec){(uint8_t *)(uintptr_t)header + r->sent,
					     NBD_REPLY_SIZE - r->sent};
	else
		at += r->sent - NBD_REPLY_SIZE;
	for (uint32_t c = p->sending; c < p->next && n < PIECES && at < end; c++) {
		const struct slot *s = &f->slots[p->slot[c % WINDOW]];
		uint64_t start = s->first * BLOCK;
		uint64_t stop = min_u64(start + (uint64_t)s->count * BLOCK, end);

		if (!s->ready)
			break;
		pieces[n++] = (struct iovec){s->buf + (at - start), stop - at};
		at = stop;
	}
	return n;
}

/* Gives back the slots whose bytes are all in the stream, or uses them for chunks to come. */
static void pass(struct frontend *f, unsigned index)
{
	const struct request *r = &f->shared->requests[index];
	struct plan *p = &f->plans[index];
	uint64_t at = r->from + (r->sent > NBD_REPLY_SIZE ? r->sent - NBD_REPLY_SIZE : 0);

	while (p->sending < p->next) {
		unsigned slot = p->slot[p->sending % WINDOW];
		const struct slot *s = &f->slots[slot];

		if (min_u64((s->first + s->count) * BLOCK, r->from + r->len) > at)
			break;
		p->sending++;
		if (s->data)
			hedge_release(f->hedge, slot);
		if (p->next < p->chunks)
			start_chunk(f, index, slot);
		else
			f->free_slots[f->n_free++] = (uint8_t)slot;
	}
}

static void finish(struct frontend *f, unsigned index)
{
	struct request *r = &f->shared->requests[index];
	uint64_t took = now_us() - r->arrived;

	f->shared->reads++;
	f->shared->longest_stall_us = max_u64(f->shared->longest_stall_us, took);
	f->plans[index].queued = false;
	f->queue_head = (f->queue_head + 1) % REQUESTS;
	f->queue_len--;
	r->used = 0;
}

static enum frontend_result fill_inbox(struct frontend *f)
{
	switch (shared_receive(f->shared, f->fd)) {
	case 0:
		return FRONTEND_WELL;
	case -EPIPE:
		return FRONTEND_ENDED;
	default:
		return FRONTEND_LOST;
	}
}

/* Writes replies until the socket is full or nothing is ready. */
static enum frontend_result transmit(struct frontend *f)
{
	while (f->queue_len) {
		unsigned index = f->queue[f->queue_head];
		const struct request *r = &f->shared->requests[index];
		struct iovec pieces[PIECES];
		uint8_t header[NBD_REPLY_SIZE];
		size_t n;

		put64(put32(put32(header, NBD_REPLY_MAGIC), r->error), r->handle);
		n = gather(f, index, header, pieces);
		if (n) {
			int error = shared_send(f->shared, f->fd, index, pieces, n);

			f->full = error == -EAGAIN;
			if (error)
				return f->full ? FRONTEND_WELL : FRONTEND_LOST;
		} else if (r->sent < NBD_REPLY_SIZE + r->len) {
			return FRONTEND_WELL; /* a long read whose next chunk is not there yet */
		}
		pass(f, index);
		if (r->sent == NBD_REPLY_SIZE + r->len)
			finish(f, index);
	}
	return FRONTEND_WELL;
}

enum frontend_result frontend_run(struct frontend *f, bool readable)
{
	enum frontend_result result = FRONTEND_WELL;

	if (readable)
		result = fill_inbox(f);

	for (unsigned i = 0; f->tree_waits && i < SLOTS; i++)
		if (f->slots[i].data < f->slots[i].count && !f->slots[i].ready &&
		    f->slots[i].data_ready)
			settle_slot(f, i);
	if (result == FRONTEND_WELL)
		result = take_requests(f);
	if (result == FRONTEND_WELL)
		result = transmit(f);
	if (result == FRONTEND_WELL) /* slots have become free */
		result = take_requests(f);
	return result;
}

bool frontend_wants_out(const struct frontend *f)
{
	return f->queue_len && f->full;
}

bool frontend_wants_in(const struct frontend *f)
{
	return f->shared->inbox_at == f->shared->inbox_len || f->shared->inbox_len < INBOX;
}
