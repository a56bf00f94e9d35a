/* One line per event to the kernel log (opened before the root is switched), or to stderr. */
#ifndef ETS_LOG_H
#define ETS_LOG_H

#include <stdint.h>

enum log_level { LOG_ERROR = 3, LOG_WARNING = 4, LOG_NOTICE = 5, LOG_INFO = 6 };

/* From now on lines go to fd: the kernel log's, or any other file. */
void log_to(int fd, int is_kmsg);

/* Adds the bytes written from now on to *count, too (shared.h). */
void log_count(uint64_t *count);

void log_line(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
