/*
 * The kernel's NBD device over generic netlink (include/uapi/linux/nbd-netlink.h).
 * A device set up this way can be given a new socket later (NBD_CMD_RECONFIGURE), and waits for one
 * when its socket is gone.
 */
#ifndef ETS_DEVICE_H
#define ETS_DEVICE_H

#include "util.h"

struct device {
	int netlink;
	uint16_t family;
	uint32_t sequence;
	int index;
};

/* Opens the netlink socket, while that is still possible. Returns 0 or -errno. */
int device_open(struct device *d, int index);

/* Makes the read-only device of that many bytes; the kernel sends its requests to socket. */
int device_connect(struct device *d, uint64_t bytes, int socket);

/* Ends the device: what still reads it fails, and its keepers go. Returns 0 or -errno. */
int device_disconnect(struct device *d);

/* Gives the device a new socket. -ENOSPC: it has not noticed yet that the old one is dead. */
int device_reconnect(struct device *d, int socket);

#endif
