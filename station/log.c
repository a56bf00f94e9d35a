#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static struct {
	int fd, is_kmsg;
} target = {STDERR_FILENO, 0};

void log_to(int fd, int is_kmsg)
{
	target.fd = fd;
	target.is_kmsg = is_kmsg;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[512];
	int n, more;
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
	if (write(target.fd, line, (size_t)n) < 0)
		return; /* a full or missing log must not stop reads */
}
