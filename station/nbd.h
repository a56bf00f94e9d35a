/*
 * The client's side of the NBD protocol as pure computation: bytes in, events and bytes out.
 * No socket and no clock in here, so that a fuzzer can drive it.
 * Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle,
 * NBD_OPT_GO, simple replies).
 */
#ifndef ETS_NBD_H
#define ETS_NBD_H

#include "util.h"

#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_REPLY_MAGIC 0x67446698u
#define NBD_REQUEST_SIZE 28u
#define NBD_REPLY_SIZE 16u
#define NBD_READ 0
#define NBD_DISC 2
#define NBD_FLUSH 3

#define ASK_BYTES_MAX (64u * 1024) /* the longest read we ask a server for */
#define ASKS 512                   /* reads under way at one server */
#define HELLO_MAX 256              /* what nbd_next() may want sent at once */

/* A read that a server has been asked for. */
struct ask {
	uint64_t cookie; /* what the server repeats in its answer; 0: this entry is free */
	uint64_t sent;   /* microseconds, by the caller's clock */
	uint64_t first;  /* block */
	uint32_t count;  /* blocks */
	uint32_t job, generation; /* the caller's */
};

enum nbd_phase { NBD_GREETING, NBD_OPTION, NBD_TRANSMISSION };

struct nbd {
	enum nbd_phase phase;
	const char *export;  /* the name asked for: the image's root hash */
	uint64_t need_bytes; /* a shorter export is refused: that image was cut off */
	bool got_size;
	uint32_t sequence;
	unsigned asked; /* entries in use */
	struct ask asks[ASKS];
};

enum nbd_event {
	NBD_MORE,    /* the message is not complete yet */
	NBD_AGAIN,   /* a message was taken, nothing to do */
	NBD_SEND,    /* send out[0..out_len) */
	NBD_UP,      /* reads may be asked for from now on */
	NBD_ANSWER,  /* answer, error, data are set; the ask's entry is already free again */
	NBD_REFUSED, /* this server does not have the image (or not all of it) */
	NBD_BROKEN,  /* this is not the protocol; hang up */
};

struct nbd_message {
	size_t used; /* bytes of the input that are dealt with */
	uint8_t out[HELLO_MAX];
	size_t out_len;
	struct ask answer;
	uint32_t error;      /* the server's errno, 0 if none */
	const uint8_t *data; /* answer.count blocks, inside the input */
	const char *why;     /* for REFUSED and BROKEN */
};

/* Begins a conversation; forgets every ask. */
void nbd_begin(struct nbd *n, const char *export, uint64_t need_bytes);

/* Deals with the next message in in[0..len). Fills *m as the event says. */
enum nbd_event nbd_next(struct nbd *n, const uint8_t *in, size_t len, struct nbd_message *m);

/* Notes a read and writes its request to out. False when ASKS reads are under way. */
bool nbd_ask(struct nbd *n, const struct ask *what, uint8_t out[NBD_REQUEST_SIZE]);

/* The longest message there can be: what the input buffer must hold. */
#define NBD_MESSAGE_MAX (NBD_REPLY_SIZE + ASK_BYTES_MAX)

#endif
