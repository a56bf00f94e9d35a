#include "nbd.h"

#define NBDMAGIC 0x4e42444d41474943ull
#define IHAVEOPT 0x49484156454f5054ull
#define OPTION_REPLY_MAGIC 0x3e889045565a9ull
#define FLAG_FIXED_NEWSTYLE 1
#define FLAG_NO_ZEROES 2
#define OPT_GO 7
#define REP_ACK 1
#define REP_INFO 3
#define REP_ERROR 0x80000000u
#define INFO_EXPORT 0
#define GREETING_SIZE 18
#define OPTION_REPLY_SIZE 20
#define OPTION_DATA_MAX 4096 /* error texts and information; more is nonsense */
#define EXPORT_NAME_MAX 128

void nbd_begin(struct nbd *n, const char *export, uint64_t need_bytes)
{
	uint32_t sequence = n->sequence;

	memset(n, 0, sizeof(*n));
	n->export = export;
	n->need_bytes = need_bytes;
	n->sequence = sequence;
}

static enum nbd_event give_up(struct nbd_message *m, enum nbd_event event, const char *why)
{
	m->why = why;
	return event;
}

/* The server's greeting: we answer with our flags and NBD_OPT_GO in one go. */
static enum nbd_event greeting(struct nbd *n, const uint8_t *in, size_t len, struct nbd_message *m)
{
	size_t name_len = strlen(n->export);
	uint8_t *p = m->out;

	if (len < GREETING_SIZE)
		return NBD_MORE;
	if (get64(in) != NBDMAGIC || get64(in + 8) != IHAVEOPT)
		return give_up(m, NBD_BROKEN, "not an NBD server");
	if (!(get16(in + 16) & FLAG_FIXED_NEWSTYLE) || name_len > EXPORT_NAME_MAX)
		return give_up(m, NBD_BROKEN, "no fixed newstyle handshake");
	m->used = GREETING_SIZE;
	p = put32(p, FLAG_FIXED_NEWSTYLE | (get16(in + 16) & FLAG_NO_ZEROES));
	p = put64(p, IHAVEOPT);
	p = put32(p, OPT_GO);
	p = put32(p, (uint32_t)(4 + name_len + 2));
	p = put32(p, (uint32_t)name_len);
	memcpy(p, n->export, name_len);
	p = put16(p + name_len, 0); /* no information asked for: NBD_INFO_EXPORT always comes */
	m->out_len = (size_t)(p - m->out);
	n->phase = NBD_OPTION;
	return NBD_SEND;
}

/* A reply to NBD_OPT_GO: some NBD_REP_INFO, then NBD_REP_ACK or an error. */
static enum nbd_event option(struct nbd *n, const uint8_t *in, size_t len, struct nbd_message *m)
{
	uint32_t type, data_len;

	if (len < OPTION_REPLY_SIZE)
		return NBD_MORE;
	type = get32(in + 12);
	data_len = get32(in + 16);
	if (get64(in) != OPTION_REPLY_MAGIC || get32(in + 8) != OPT_GO ||
	    data_len > OPTION_DATA_MAX)
		return give_up(m, NBD_BROKEN, "malformed option reply");
	if (len < OPTION_REPLY_SIZE + data_len)
		return NBD_MORE;
	m->used = OPTION_REPLY_SIZE + data_len;
	in += OPTION_REPLY_SIZE;
	if (type & REP_ERROR)
		return give_up(m, NBD_REFUSED, "it does not have this image");
	if (type == REP_INFO && data_len >= 12 && get16(in) == INFO_EXPORT) {
		if (get64(in + 2) < n->need_bytes)
			return give_up(m, NBD_REFUSED, "its image is cut off");
		n->got_size = true;
	}
	if (type == REP_ACK) {
		if (!n->got_size)
			return give_up(m, NBD_BROKEN, "no size in the handshake");
		n->phase = NBD_TRANSMISSION;
		return NBD_UP;
	}
	return NBD_AGAIN;
}

/* The entry of a cookie, which holds the entry's number; NULL for one we never sent. */
static struct ask *find(struct nbd *n, uint64_t cookie)
{
	struct ask *a = &n->asks[cookie % ASKS];

	return cookie && a->cookie == cookie ? a : NULL;
}

static enum nbd_event reply(struct nbd *n, const uint8_t *in, size_t len, struct nbd_message *m)
{
	struct ask *a;
	size_t payload;

	if (len < NBD_REPLY_SIZE)
		return NBD_MORE;
	if (get32(in) != NBD_REPLY_MAGIC)
		return give_up(m, NBD_BROKEN, "malformed reply");
	a = find(n, get64(in + 8));
	if (!a)
		return give_up(m, NBD_BROKEN, "a reply to nothing we asked");
	m->error = get32(in + 4);
	payload = m->error ? 0 : (size_t)a->count * BLOCK;
	if (len < NBD_REPLY_SIZE + payload)
		return NBD_MORE;
	m->used = NBD_REPLY_SIZE + payload;
	m->data = in + NBD_REPLY_SIZE;
	m->answer = *a;
	a->cookie = 0;
	n->asked--;
	return NBD_ANSWER;
}

enum nbd_event nbd_next(struct nbd *n, const uint8_t *in, size_t len, struct nbd_message *m)
{
	m->used = 0;
	m->out_len = 0;
	switch (n->phase) {
	case NBD_GREETING:
		return greeting(n, in, len, m);
	case NBD_OPTION:
		return option(n, in, len, m);
	default:
		return reply(n, in, len, m);
	}
}

bool nbd_ask(struct nbd *n, const struct ask *what, uint8_t out[NBD_REQUEST_SIZE])
{
	if (n->asked == ASKS || what->count * BLOCK > ASK_BYTES_MAX)
		return false;
	for (;;) { /* the next sequence number whose entry is free */
		struct ask *a = &n->asks[++n->sequence % ASKS];
		uint8_t *p = out;

		if (a->cookie || !n->sequence)
			continue;
		*a = *what;
		a->cookie = n->sequence;
		n->asked++;
		p = put32(p, NBD_REQUEST_MAGIC);
		p = put32(p, NBD_READ); /* flags 0, type read */
		p = put64(p, a->cookie);
		p = put64(p, a->first * BLOCK);
		put32(p, a->count * BLOCK);
		return true;
	}
}
