#include "shared.h"

#include <errno.h>
#include <unistd.h>

/* Announces a system call on the stream, or that it is over and noted. */
static void shared_move(struct shared *s, enum move move)
{
	shared_fence();
	s->move = move;
	shared_fence();
}

/* Room in the inbox. A part of a header moves to the front; the kernel sends whole ones. */
static void make_room(struct shared *sh)
{
	uint32_t rest = sh->inbox_len - sh->inbox_at;

	if (!sh->inbox_at)
		return;
	if (rest) {
		shared_move(sh, MOVE_LOST);
		memmove(sh->inbox, sh->inbox + sh->inbox_at, rest);
		sh->inbox_len = rest;
		sh->inbox_at = 0;
		shared_move(sh, MOVE_NONE);
	} else {
		sh->inbox_len = 0; /* in this order, see shared_recover() */
		shared_fence();
		sh->inbox_at = 0;
	}
}

int shared_receive(struct shared *sh, int fd)
{
	ssize_t n;
	int error;

	if (sh->inbox_at == sh->inbox_len || sh->inbox_len == INBOX)
		make_room(sh);
	if (sh->inbox_len == INBOX)
		return 0;
	sh->base_count = sh->got;
	sh->base_position = sh->inbox_len;
	shared_move(sh, MOVE_IN);
	n = read(fd, sh->inbox + sh->inbox_len, INBOX - sh->inbox_len);
	error = errno;
	if (n > 0) {
		sh->inbox_len += (uint32_t)n;
		sh->got += (uint64_t)n;
	}
	shared_move(sh, MOVE_NONE);
	if (!n)
		return -EPIPE;
	return n < 0 && error != EAGAIN && error != EINTR ? -error : 0;
}

int shared_send(struct shared *sh, int fd, unsigned request, const struct iovec *pieces, size_t n)
{
	ssize_t sent;
	int error;

	sh->moving = request;
	sh->base_count = sh->wrote;
	sh->base_position = sh->requests[request].sent;
	shared_move(sh, MOVE_OUT);
	sent = writev(fd, pieces, (int)n);
	error = errno;
	if (sent > 0) {
		sh->requests[request].sent += (uint32_t)sent;
		sh->wrote += (uint64_t)sent;
	}
	shared_move(sh, MOVE_NONE);
	if (sent >= 0)
		return 0;
	return error == EINTR ? -EAGAIN : -error;
}

bool shared_recover(struct shared *shared, uint64_t size, uint64_t rchar, uint64_t wchar)
{
	unsigned partial = 0;

	if (shared->move == MOVE_IN)
		shared->inbox_len = (uint32_t)(shared->base_position + rchar - shared->base_count);
	else if (shared->move == MOVE_OUT && shared->moving < REQUESTS)
		shared->requests[shared->moving].sent =
			(uint32_t)(shared->base_position + wchar - shared->base_count);
	else if (shared->move != MOVE_NONE)
		return false;
	shared->move = MOVE_NONE;
	if (shared->inbox_len > INBOX)
		return false;
	if (shared->inbox_at > shared->inbox_len) /* killed while emptying it */
		shared->inbox_at = shared->inbox_len = 0;
	for (unsigned i = 0; i < REQUESTS; i++) {
		const struct request *r = &shared->requests[i];

		if (!r->used)
			continue;
		if (r->from > size || r->len > size - r->from || r->sent > NBD_REPLY_SIZE + r->len)
			return false;
		partial += r->sent > 0;
	}
	return partial <= 1;
}
