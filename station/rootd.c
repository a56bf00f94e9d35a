/*
 * ets-rootd: the root device of a station, read from whichever server answers.
 *
 *   rootd --device N --root HASH --blocks N --servers A[:PORT],B,...
 *         [--with-tree] [--hedge-ms 150] [--stats FILE]
 *
 * Started in the initramfs. Makes /dev/nbdN and returns when it is there; what serves it stays
 * behind in two processes: a supervisor, and the data process it restarts. Both survive the switch
 * to the real root: nothing is opened later, nothing is paged out, nothing kills them (the first
 * byte of the command line is '@', see systemd's ROOT_STORAGE_DAEMONS).
 *
 * rootd --end --device N ends such a device with its processes, when its content was copied.
 *
 * --fd N serves the NBD transmission phase on an open socket instead of a device, in the
 * foreground; --new-socket gives the device a new socket after each death of the data process, also
 * when the stream could go on. Both are for tests.
 */
#define _GNU_SOURCE
#include "log.h"
#include "supervisor.h"
#include "verity.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEDGE_MS 150
#define HEDGE_MS_MAX 10000
#define DEVICE_MAX 1023

static int wrong(const char *what, const char *value)
{
	fprintf(stderr,
		"rootd: %s: %s\n"
		"usage: rootd --device N --root HASH --blocks N --servers A[:PORT],B,...\n"
		"             [--with-tree] [--hedge-ms MS] [--stats FILE]\n"
		"       rootd --end --device N\n",
		what, value);
	return 2;
}

/* Splits at the commas. Returns an exit code. */
static int parse_servers(struct options *o, const char *list)
{
	char *rest = strdup(list); /* so that the command line stays as it was given */

	o->servers = calloc(MAX_SERVERS, sizeof(*o->servers));
	if (!o->servers || !rest)
		return wrong("no memory", list);
	for (char *one; (one = strsep(&rest, ","));) {
		if (!*one)
			continue;
		if (o->n_servers == MAX_SERVERS)
			return wrong("more than 16 servers", one);
		if (!server_parse(&o->servers[o->n_servers++], one))
			return wrong("not an address with an optional port", one);
	}
	return 0;
}

/* The value as a number within bounds; false when it is not one. */
static bool number(const char *text, uint64_t low, uint64_t high, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *value >= low && *value <= high;
}

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option names[] = {
		{"device", 1, NULL, 'd'},   {"root", 1, NULL, 'r'},	{"blocks", 1, NULL, 'b'},
		{"servers", 1, NULL, 's'},  {"with-tree", 0, NULL, 't'}, {"hedge-ms", 1, NULL, 'h'},
		{"stats", 1, NULL, 'j'},    {"fd", 1, NULL, 'f'},	{"new-socket", 0, NULL, 'n'},
		{"end", 0, NULL, 'e'},	    {NULL, 0, NULL, 0},
	};
	uint64_t n;
	int c;

	*o = (struct options){.hedge_ms = HEDGE_MS, .device = -1, .fd = -1, .stats_fd = -1};
	o->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		bool well = true;

		if (c == 'd' && (well = number(optarg, 0, DEVICE_MAX, &n)))
			o->device = (int)n;
		else if (c == 'f' && (well = number(optarg, 0, INT32_MAX, &n)))
			o->fd = (int)n;
		else if (c == 'h' && (well = number(optarg, 1, HEDGE_MS_MAX, &n)))
			o->hedge_ms = (unsigned)n;
		else if (c == 'b')
			well = number(optarg, 1, UINT64_MAX / BLOCK / 4, &o->blocks);
		else if (c == 'r')
			well = verity_parse_root(optarg, o->root), o->export = optarg;
		else if (c == 't')
			o->with_tree = true;
		else if (c == 'n')
			o->new_socket = true;
		else if (c == 'e')
			o->end = true;
		else if (c == 'j')
			o->stats = optarg;
		else if (c == 's' && parse_servers(o, optarg))
			return 2;
		else if (c == '?')
			return wrong("unknown option", argv[optind - 1]);
		if (!well)
			return wrong("not a usable value", optarg);
	}
	if (optind != argc)
		return wrong("too much", argv[optind]);
	if (o->end && o->device >= 0)
		return 0;
	if (!o->export || !o->blocks || !o->n_servers || (o->device < 0) == (o->fd < 0))
		return wrong("missing", "--device, --root, --blocks and --servers are needed");
	return 0;
}

/* Writes a short text to a file; what cannot be written is not essential. */
static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		log_line(LOG_WARNING, "%s: %s", path, strerror(errno));
	close(fd);
}

static void open_stats(struct options *o)
{
	char directory[256];
	char *slash;

	if (!o->stats)
		return;
	snprintf(directory, sizeof(directory), "%s", o->stats);
	slash = strrchr(directory, '/');
	if (slash && slash != directory) {
		*slash = 0;
		mkdir(directory, 0755);
	}
	o->stats_fd = open(o->stats, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (o->stats_fd < 0)
		log_line(LOG_WARNING, "%s: %s", o->stats, strerror(errno));
}

/* Signals that end ordinary processes when the station changes roots or shuts down. */
static void ignore_signals(bool all)
{
	sigset_t child;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD); /* waited for with sigtimedwait() */
	sigprocmask(SIG_BLOCK, &child, NULL);
	if (!all)
		return;
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
}

/* The device comes up in the foreground; then only its keepers are left. */
static int serve_device(struct options *o, struct shared *shared)
{
	struct device device;
	int pair[2], kmsg, error, null;

	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	error = device_open(&device, o->device);
	if (error) {
		log_line(LOG_ERROR, "no nbd in the kernel (modprobe nbd): %s", strerror(-error));
		return 1;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 1;
	error = device_connect(&device, data_size(o), pair[1]);
	if (error) {
		log_line(LOG_ERROR, "/dev/nbd%d: %s", o->device, strerror(-error));
		return 1;
	}
	close(pair[1]);
	put("/proc/self/oom_score_adj", "-1000");
	switch (fork()) {
	case -1:
		return 1;
	case 0:
		break;
	default:
		_exit(0); /* the device is there */
	}
	setsid();
	null = open("/dev/null", O_RDWR);
	for (int i = 0; null >= 0 && i <= STDERR_FILENO; i++)
		dup2(null, i);
	if (kmsg >= 0)
		log_to(kmsg, 1);
	if (chdir("/"))
		return 1;
	harden();
	return supervise(o, &device, shared, pair[0]);
}

static int end_device(const struct options *o)
{
	struct device device;
	int error = device_open(&device, o->device);

	if (!error)
		error = device_disconnect(&device);
	if (error)
		log_line(LOG_ERROR, "/dev/nbd%d: %s", o->device, strerror(-error));
	return error != 0;
}

int main(int argc, char **argv)
{
	struct options o;
	struct shared *shared;
	int code = parse(&o, argc, argv);

	if (code)
		return code;
	if (o.end)
		return end_device(&o);
	if (o.device >= 0)
		argv[0][0] = '@';
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return 1;
	open_stats(&o);
	ignore_signals(o.device >= 0);
	if (o.fd >= 0)
		return supervise(&o, NULL, shared, o.fd);
	return serve_device(&o, shared);
}
