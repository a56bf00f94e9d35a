/*
 * ets-probe: what somebody at the station would feel.
 *
 *   ets-probe --device /dev/nbd0 --rate 10 --seed N --out FILE-OR-PORT [--threads 2] [--count N]
 *
 * Reads blocks of the root device past every cache (O_DIRECT), in random order and never one
 * twice, `rate` per second, and writes one JSON line for each to `out`:
 *   {"t":s,"wall":s,"block":n,"us":latency,"sum":"sha256 of the 4096 bytes","err":errno}
 * t is CLOCK_MONOTONIC and wall CLOCK_REALTIME at the moment the read was due. Reads are due by
 * the clock: with several threads, one that stalls does not delay the others.
 * Ends when all blocks are read, or after --count reads. Static and locked in memory, since it
 * must go on while the root that it came from does not answer.
 */
#define _GNU_SOURCE
#include "sha256.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS_MAX 64
#define STACK (256 * 1024)

struct probe {
	const char *device;
	int device_fd, out_fd;
	uint64_t blocks, count;
	double rate;
	uint64_t seed, half_bits;
	uint64_t start; /* microseconds */
	atomic_uint_fast64_t next;
	pthread_mutex_t writing;
};

static uint64_t mix(uint64_t x) /* the finalizer of SplitMix64 */
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/*
 * The i-th block in the seed's order: a Feistel network is a permutation of [0, 2^2k), and walking
 * on until the value is below `blocks` makes it one of [0, blocks). No table, no block twice.
 */
static uint64_t block_of(const struct probe *p, uint64_t i)
{
	uint64_t mask = (1ull << p->half_bits) - 1;

	do {
		uint64_t left = i >> p->half_bits, right = i & mask;

		for (uint64_t round = 0; round < 4; round++) {
			uint64_t f = mix(right + (p->seed << 8) + round * 0x9e3779b97f4a7c15ull);
			uint64_t old = right;

			right = left ^ (f & mask);
			left = old;
		}
		i = left << p->half_bits | right;
	} while (i >= p->blocks);
	return i;
}

static void write_all(struct probe *p, const char *line, size_t len)
{
	pthread_mutex_lock(&p->writing);
	while (len) {
		ssize_t n = write(p->out_fd, line, len);

		if (n < 0 && errno == EAGAIN)
			usleep(10000);
		else if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			line += n, len -= (size_t)n;
	}
	pthread_mutex_unlock(&p->writing);
}

static void read_one(struct probe *p, uint64_t i, uint8_t *buf, double due)
{
	struct timespec wall;
	uint64_t block = block_of(p, i), began = now_us(), took;
	uint8_t digest[SHA256_SIZE] = {0};
	char line[256], sum[2 * SHA256_SIZE + 1] = "";
	ssize_t n;
	int error, len;

	clock_gettime(CLOCK_REALTIME, &wall);
	do
		n = pread(p->device_fd, buf, BLOCK, (off_t)(block * BLOCK));
	while (n < 0 && errno == EINTR);
	error = n < 0 ? errno : n < (ssize_t)BLOCK ? EIO : 0;
	took = now_us() - began;
	if (!error) {
		sha256(buf, BLOCK, digest);
		for (int k = 0; k < SHA256_SIZE; k++)
			snprintf(sum + 2 * k, 3, "%02x", digest[k]);
	}
	len = snprintf(line, sizeof(line),
		       "{\"t\":%.6f,\"wall\":%.6f,\"block\":%" PRIu64 ",\"us\":%" PRIu64
		       ",\"sum\":\"%s\",\"err\":%d}\n",
		       due, (double)wall.tv_sec + (double)wall.tv_nsec / 1e9, block, took, sum,
		       error);
	write_all(p, line, (size_t)len);
}

/* Takes the next read that is due; when all threads are stuck, reads are late, never left out. */
static void *run(void *probe)
{
	struct probe *p = probe;
	uint8_t *buf = aligned_alloc(BLOCK, BLOCK);

	while (buf) {
		uint64_t i = atomic_fetch_add(&p->next, 1);
		uint64_t due = p->start + (uint64_t)((double)i * 1e6 / p->rate);
		struct timespec when = {(time_t)(due / SECOND), (long)(due % SECOND) * 1000};

		if (i >= p->count)
			break;
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
			;
		read_one(p, i, buf, (double)max_u64(due, now_us()) / 1e6);
	}
	free(buf);
	return NULL;
}

static int failed(const char *what)
{
	fprintf(stderr, "ets-probe: %s: %s\n", what, strerror(errno));
	return 1;
}

static int open_files(struct probe *p, const char *out)
{
	struct stat st;
	uint64_t bytes = 0;

	p->device_fd = open(p->device, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (p->device_fd < 0 || fstat(p->device_fd, &st))
		return failed(p->device);
	if (S_ISREG(st.st_mode))
		bytes = (uint64_t)st.st_size;
	else if (ioctl(p->device_fd, BLKGETSIZE64, &bytes))
		return failed(p->device);
	p->out_fd = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (p->out_fd < 0)
		return failed(out);
	p->blocks = bytes / BLOCK;
	p->half_bits = 1;
	while (p->blocks > 1ull << 2 * p->half_bits)
		p->half_bits++;
	p->count = min_u64(p->count, p->blocks);
	return 0;
}

static int start(struct probe *p, unsigned threads)
{
	pthread_t ids[THREADS_MAX];
	pthread_attr_t attributes;

	pthread_mutex_init(&p->writing, NULL);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
#ifndef ETS_CHECK /* the sanitizers' shadow memory cannot be locked */
	mlockall(MCL_CURRENT | MCL_FUTURE);
#endif
	p->start = now_us();
	for (unsigned i = 0; i < threads; i++)
		if ((errno = pthread_create(&ids[i], &attributes, run, p)))
			return failed("thread");
	for (unsigned i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{"device", 1, NULL, 'd'},  {"rate", 1, NULL, 'r'},  {"seed", 1, NULL, 's'},
		{"out", 1, NULL, 'o'},	   {"threads", 1, NULL, 't'}, {"count", 1, NULL, 'c'},
		{NULL, 0, NULL, 0},
	};
	static struct probe p = {.rate = 10, .count = UINT64_MAX};
	const char *out = NULL;
	unsigned long threads = 2;
	int c, code;

	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		if (c == 'd')
			p.device = optarg;
		else if (c == 'r')
			p.rate = strtod(optarg, NULL);
		else if (c == 's')
			p.seed = strtoull(optarg, NULL, 10);
		else if (c == 'o')
			out = optarg;
		else if (c == 't')
			threads = strtoul(optarg, NULL, 10);
		else if (c == 'c')
			p.count = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	if (!p.device || !out || !(p.rate > 0) || !threads || threads > THREADS_MAX) {
		fprintf(stderr, "usage: ets-probe --device DEV --out FILE [--rate PER-SECOND] "
				"[--seed N] [--threads 1..64] [--count N]\n");
		return 2;
	}
	code = open_files(&p, out);
	return code ? code : start(&p, (unsigned)threads);
}
