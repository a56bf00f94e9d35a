/*
 * Keeps a data process alive behind the device, for as long as the device is connected.
 *
 * A data process that dies is replaced. The new one goes on in the same stream when the position
 * is known (shared.h), so the kernel notices nothing. Otherwise the device gets a new socket, and
 * requests that were under way are sent again by the kernel when its timer looks at them (30 s).
 * Either way reads wait and none fails.
 */
#ifndef ETS_SUPERVISOR_H
#define ETS_SUPERVISOR_H

#include "data.h"
#include "device.h"

/* Runs until the device is disconnected. Returns the exit code. */
int supervise(const struct options *o, struct device *device, struct shared *shared, int fd);

/* Gives the process what it needs to outlive everything else on the station. */
void harden(void);

#endif
