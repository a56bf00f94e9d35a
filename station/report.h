/* The counts as one JSON object, for the station's report to the servers. */
#ifndef ETS_REPORT_H
#define ETS_REPORT_H

#include "data.h"

#define REPORT_MAX 8192

/* Writes the object to out[0..size); returns its length, 0 when it does not fit. */
size_t report_format(const struct options *o, const struct shared *shared, uint64_t now,
		     char *out, size_t size);

/* Replaces the contents of the already open stats file. */
void report_write(const struct options *o, struct shared *shared, uint64_t now);

#endif
