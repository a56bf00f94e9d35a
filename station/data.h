/* The data process: one epoll loop over the device's socket and the servers' connections. */
#ifndef ETS_DATA_H
#define ETS_DATA_H

#include "server.h"
#include "shared.h"
#include "sha256.h"

struct options {
	const char *export; /* the root hash, as text: the export's name */
	uint8_t root[SHA256_SIZE];
	uint64_t blocks;
	bool with_tree, new_socket, end;
	unsigned hedge_ms;
	const char *stats;
	int device; /* N of /dev/nbdN, or -1 when a test hands in the socket */
	int fd;
	struct server *servers;
	unsigned n_servers;
	int stats_fd, proc_fd; /* opened before the switch of roots */
};

enum data_exit { DATA_ENDED = 0, DATA_NEEDS_SOCKET = 3, DATA_NO_MEMORY = 4 };

/* Bytes of the device: the data, and the tree when it is wanted. */
uint64_t data_size(const struct options *o);

/* Serves the device over fd until it is disconnected. */
enum data_exit data_run(const struct options *o, struct shared *shared, int fd);

#endif
