#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define PADDED 1024

/* Appends; on overflow *at becomes size, and stays there. */
static void add(char *out, size_t size, size_t *at, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void add(char *out, size_t size, size_t *at, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(out + *at, size - *at, format, args);
	va_end(args);
	*at = n < 0 || (size_t)n >= size - *at ? size : *at + (size_t)n;
}

static const char *state_name(const struct server *s, uint64_t now)
{
	if (s->state == SERVER_UP)
		return now < s->avoided_until ? "avoided" : "up";
	return s->refused ? "refused" : "connecting";
}

size_t report_format(const struct options *o, const struct shared *shared, uint64_t now,
		     char *out, size_t size)
{
	size_t at = 0;

	add(out, size, &at,
	    "{\"root\":\"%s\",\"reads\":%" PRIu64 ",\"hedges\":%" PRIu64 ",\"wrong\":%" PRIu64
	    ",\"longest_stall_us\":%" PRIu64 ",\"servers\":[",
	    o->export, shared->reads, shared->hedges, shared->wrong, shared->longest_stall_us);
	for (unsigned i = 0; i < o->n_servers; i++) {
		const struct server_counts *c = &shared->servers[i];

		add(out, size, &at,
		    "%s{\"address\":\"%s\",\"state\":\"%s\",\"reads\":%" PRIu64
		    ",\"hedges\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"latency_us\":%" PRIu64 "}",
		    i ? "," : "", o->servers[i].name, state_name(&o->servers[i], now), c->reads,
		    c->hedges, c->wrong, c->latency_us);
	}
	add(out, size, &at, "]}");
	return at < size ? at : 0;
}

void report_write(const struct options *o, struct shared *shared, uint64_t now)
{
	char text[REPORT_MAX];
	ssize_t wrote;
	size_t n;

	if (o->stats_fd < 0)
		return;
	n = report_format(o, shared, now, text, sizeof(text));
	/* Padded, so that a reader never sees the end of a longer text of a second ago. */
	while (n && n < sizeof(text) && n % PADDED)
		text[n++] = ' ';
	wrote = pwrite(o->stats_fd, text, n, 0);
	if (wrote > 0)
		shared->wrote += (uint64_t)wrote;
	if (ftruncate(o->stats_fd, (off_t)n))
		return; /* reads matter more */
}
