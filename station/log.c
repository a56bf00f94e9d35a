#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static struct {
	int fd, is_kmsg;
	uint64_t *count;
} target = {STDERR_FILENO, 0, NULL};

void log_to(int fd, int is_kmsg)
{
	target.fd = fd;
	target.is_kmsg = is_kmsg;
}

void log_count(uint64_t *count)
{
	target.count = count;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[512];
	int n, more;
	ssize_t wrote;
	va_list args;

	if (target.is_kmsg)
		n = snprintf(line, sizeof(line), "<%d>ets-rootd: ", level);
	else
		n = snprintf(line, sizeof(line), "ets-rootd: ");
	va_start(args, format);
	more = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
	va_end(args);
	if (more < 0)
		return;
	n += more < (int)sizeof(line) - n - 1 ? more : (int)sizeof(line) - n - 2;
	line[n++] = '\n';
	wrote = write(target.fd, line, (size_t)n);
	if (wrote > 0 && target.count) /* a full or missing log must not stop reads */
		*target.count += (uint64_t)wrote;
}
