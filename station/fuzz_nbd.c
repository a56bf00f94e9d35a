/*
 * A fuzzer for the client's side of the NBD protocol, without libFuzzer:
 *
 *   fuzz-nbd SECONDS [SEED]     mutated conversations until the time is up
 *   fuzz-nbd - < FILE           one input, as a server would send it
 *
 * Each conversation is a right one that is then damaged (bytes changed, cut, repeated, put in), fed
 * in pieces of random size. Built with the sanitizers; what it checks itself is the bookkeeping:
 * the number of asks under way, and that no message is longer than the buffer.
 */
#include "nbd.h"
#include "sha256.h"
#include "verity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define INPUT_MAX (512 * 1024)

static uint64_t state;
static uint64_t seen[NBD_BROKEN + 1]; /* events, to show that the fuzzer gets everywhere */

static uint32_t random32(void)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 20);
}

static uint32_t below(uint32_t n)
{
	return random32() % n;
}

static void insist(bool right, const char *what)
{
	if (right)
		return;
	fprintf(stderr, "fuzz-nbd: %s\n", what);
	abort();
}

static void ask_some(struct nbd *n)
{
	uint8_t out[NBD_REQUEST_SIZE];

	for (uint32_t i = below(40); i; i--) {
		struct ask a = {.first = below(1000), .count = 1 + below(16), .job = below(9)};

		if (!nbd_ask(n, &a, out))
			return;
	}
}

static void count_asks(const struct nbd *n)
{
	unsigned used = 0;

	for (unsigned i = 0; i < ASKS; i++)
		used += n->asks[i].cookie != 0;
	insist(used == n->asked, "asks under way are miscounted");
}

/* Feeds a copy of exactly the bytes there are, so that the sanitizer sees every step beyond. */
static void converse(const uint8_t *in, size_t len)
{
	static struct nbd n;
	size_t from = 0, to = 0;

	n.sequence = 0;
	nbd_begin(&n, "315757e777b134bb0b0441adb1e3a1dd401b217740986491667e742abcc40f93", 1 << 20);
	if (below(2)) { /* half of them begin behind the handshake */
		n.phase = NBD_TRANSMISSION;
		ask_some(&n);
	}
	while (to < len) {
		struct nbd_message m;
		enum nbd_event event;
		uint8_t *exact;

		to += min_u64(len - to, 1 + below(below(8) ? 64 : 70000));
		exact = malloc(to - from + !(to - from));
		insist(exact != NULL, "no memory");
		memcpy(exact, in + from, to - from);
		event = nbd_next(&n, exact, to - from, &m);
		seen[event]++;
		if (event == NBD_ANSWER && !m.error) {
			uint8_t digest[SHA256_SIZE];

			sha256(m.data, (size_t)m.answer.count * BLOCK, digest);
		}
		free(exact);
		insist(m.out_len <= HELLO_MAX, "a long hello");
		insist(m.used <= to - from, "it used more than there was");
		count_asks(&n);
		if (event == NBD_BROKEN || event == NBD_REFUSED)
			return;
		if (event == NBD_MORE)
			insist(to - from < NBD_MESSAGE_MAX, "a message that never ends");
		if (event == NBD_UP)
			ask_some(&n);
		from += m.used;
		if (event != NBD_MORE)
			to = from + min_u64(to - from, 1);
	}
}

static size_t put_handshake(uint8_t *out)
{
	uint8_t *p = out;

	p = put64(put64(p, 0x4e42444d41474943ull), 0x49484156454f5054ull);
	p = put16(p, 3);
	p = put32(put32(put64(p, 0x3e889045565a9ull), 7), 3); /* NBD_REP_INFO */
	p = put16(put64(put16(put32(p, 12), 0), (uint64_t)below(3) << 20), 3);
	p = put32(put32(put32(put64(p, 0x3e889045565a9ull), 7), 1), 0); /* NBD_REP_ACK */
	return (size_t)(p - out);
}

static size_t put_replies(uint8_t *out, size_t room)
{
	size_t at = 0;

	for (uint32_t i = below(30); i; i--) {
		size_t payload = (size_t)below(17) * BLOCK;

		if (at + NBD_REPLY_SIZE + payload > room)
			break;
		put64(put32(put32(out + at, NBD_REPLY_MAGIC), below(4) ? 0 : below(50)),
		      1 + below(60));
		memset(out + at + NBD_REPLY_SIZE, (int)below(256), payload);
		at += NBD_REPLY_SIZE + payload;
	}
	return at;
}

static size_t damage(uint8_t *in, size_t len)
{
	for (uint32_t i = below(6); i && len > 8; i--) {
		size_t at = below(3) ? below((uint32_t)min_u64(len, 200)) : below((uint32_t)len);
		size_t n = 1 + below(8);

		if (at + n >= len)
			continue;
		switch (below(5)) {
		case 0:
			in[at] ^= (uint8_t)(1u << below(8));
			break;
		case 1:
			memset(in + at, below(2) ? 0xff : 0, n);
			break;
		case 2: /* cut */
			memmove(in + at, in + at + n, len - at - n);
			len -= n;
			break;
		case 3: /* put in */
			if (len + n <= INPUT_MAX) {
				memmove(in + at + n, in + at, len - at);
				len += n;
			}
			break;
		default:
			len = at;
		}
	}
	return len;
}

/* The two ways of hashing agree on any length. */
static void compare_hashes(const uint8_t *data)
{
	uint8_t a[SHA256_SIZE], b[SHA256_SIZE];
	size_t len = below(300);

	sha256(data, len, a);
	sha256_portable(data, len, b);
	insist(!memcmp(a, b, sizeof(a)), "the hashes differ");
}

static int one_input(void)
{
	static uint8_t in[INPUT_MAX];
	size_t len = fread(in, 1, sizeof(in), stdin);

	for (state = 0; state < 64; state++)
		converse(in, len);
	return 0;
}

int main(int argc, char **argv)
{
	static uint8_t in[INPUT_MAX];
	uint64_t end, rounds = 0;

	if (argc < 2 || !strcmp(argv[1], "-"))
		return one_input();
	state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	end = now_us() + strtoull(argv[1], NULL, 10) * SECOND;
	for (; now_us() < end; rounds++) {
		size_t len = below(4) ? put_handshake(in) : 0;

		len += put_replies(in + len, INPUT_MAX - len);
		if (!below(8))
			for (len = 0; len < 3000; len++)
				in[len] = (uint8_t)random32();
		compare_hashes(in);
		converse(in, damage(in, len));
	}
	printf("conversations %" PRIu64 "\nup %" PRIu64 "\nanswers %" PRIu64 "\nrefused %" PRIu64
	       "\nbroken %" PRIu64 "\n",
	       rounds, seen[NBD_UP], seen[NBD_ANSWER], seen[NBD_REFUSED], seen[NBD_BROKEN]);
	return 0;
}
