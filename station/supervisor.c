#define _GNU_SOURCE
#include "supervisor.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NICE (-10)
#define CHECK_EVERY 1 /* seconds */
#define DEAF_CHECKS 10 /* the loop stood still that often: it hangs */
#define YOUNG SECOND /* a process that dies earlier than this has a lasting problem */
#define PAUSE_MAX (2 * SECOND)

void harden(void)
{
#ifndef ETS_CHECK /* the sanitizers' shadow memory cannot be locked */
	mlockall(MCL_CURRENT | MCL_FUTURE);
#endif
	/* Our allocations must not wait for I/O that waits for us (prctl(2)). */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	setpriority(PRIO_PROCESS, 0, NICE);
}

static pid_t start(const struct options *o, struct shared *shared, int fd)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	shared->got = shared->wrote = 0; /* as the kernel counts for a new process */
	log_count(&shared->wrote);
	if (o->device >= 0)
		harden(); /* memory locks are not inherited */
	exit(data_run(o, shared, fd));
}

/* Waits for the process's end, and brings it about if it hangs. It stays a zombie. */
static void watch(pid_t pid, const struct shared *shared)
{
	sigset_t child;
	struct timespec wait = {CHECK_EVERY, 0};
	uint64_t beat = shared->beat;
	int still = 0;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		siginfo_t info = {.si_pid = 0};

		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid)
			return;
		still = shared->beat == beat ? still + 1 : 0;
		beat = shared->beat;
		if (still >= DEAF_CHECKS) {
			log_line(LOG_ERROR, "the data process hangs, killing it");
			kill(pid, SIGKILL);
			still = 0;
		}
		sigtimedwait(&child, NULL, &wait);
	}
}

/* A number out of /proc/PID/io, by its name. */
static bool io_count(const char *text, const char *name, uint64_t *value)
{
	const char *at = strstr(text, name);

	*value = at ? strtoull(at + strlen(name), NULL, 10) : 0;
	return at != NULL;
}

/* Makes the shared memory right after the process's death. False: a new socket is needed. */
static bool recover(const struct options *o, pid_t pid, struct shared *shared)
{
	char path[32], text[512] = "";
	uint64_t rchar = 0, wchar = 0;

	if (shared->move != MOVE_NONE) {
		ssize_t n;
		int fd;

		snprintf(path, sizeof(path), "%d/io", (int)pid);
		fd = openat(o->proc_fd, path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		if (fd >= 0)
			close(fd);
		if (n < 0 || !io_count(text, "rchar: ", &rchar) ||
		    !io_count(text, "wchar: ", &wchar))
			return false;
	}
	return shared_recover(shared, data_size(o), rchar, wchar);
}

/* A new socket for the device; everything that was under way on the old one is void. */
static int replace_socket(struct device *device, struct shared *shared, int *fd)
{
	int pair[2], error;

	close(*fd); /* so that the kernel sees its end */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	*fd = pair[0];
	fcntl(*fd, F_SETFL, O_NONBLOCK);
	shared->move = MOVE_NONE;
	shared->inbox_at = shared->inbox_len = 0;
	memset(shared->requests, 0, sizeof(shared->requests));
	for (int tries = 0; tries < 500; tries++) {
		error = device_reconnect(device, pair[1]);
		if (error != -ENOSPC)
			break;
		usleep(10 * MS);
	}
	close(pair[1]);
	return error;
}

static void say_why(int status)
{
	if (WIFSIGNALED(status))
		log_line(LOG_ERROR, "the data process died of signal %d, starting another",
			 WTERMSIG(status));
	else
		log_line(LOG_ERROR, "the data process ended with %d, starting another",
			 WEXITSTATUS(status));
}

int supervise(const struct options *o, struct device *device, struct shared *shared, int fd)
{
	uint64_t pause = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		uint64_t began = now_us();
		pid_t pid = start(o, shared, fd);
		int status = 0, error = 0;
		bool resumable = true; /* a process that was not even started has moved nothing */

		if (pid > 0) {
			watch(pid, shared);
			resumable = recover(o, pid, shared) && !o->new_socket;
			waitpid(pid, &status, 0);
			if (WIFEXITED(status) && WEXITSTATUS(status) == DATA_ENDED)
				return 0;
			resumable &= !WIFEXITED(status) || WEXITSTATUS(status) != DATA_NEEDS_SOCKET;
			say_why(status);
		}
		pause = now_us() - began < YOUNG ? min_u64(PAUSE_MAX, 2 * pause + 50 * MS) : 0;
		usleep((useconds_t)pause);
		if (!resumable)
			error = o->device >= 0 ? replace_socket(device, shared, &fd) : -ENODEV;
		if (error) {
			log_line(LOG_ERROR, "the device takes no new socket: %s", strerror(-error));
			return DATA_NEEDS_SOCKET;
		}
	}
}
