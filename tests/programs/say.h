/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test program says of itself: JSON lines on its standard output.
 *
 * One write(2) per line: whoever shares the output does not tear another's line.
 * Everything is asked of the kernel by the process itself, never of pidtrail.
 */
#ifndef SAY_H
#define SAY_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAYBE_UNUSED __attribute__((unused))

MAYBE_UNUSED static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	_exit(99);
}

__attribute__((format(printf, 1, 2))) MAYBE_UNUSED static void say(const char *format, ...)
{
	char line[2048];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	line[length++] = '\n';
	if (write(STDOUT_FILENO, line, length) != length)
		die("write");
}

/* CLOCK_BOOTTIME, the clock of pidtrail's records. */
MAYBE_UNUSED static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* One field after the comm of a stat file: 0 is the state, 19 the start time. */
MAYBE_UNUSED static long long stat_field(const char *path, int number)
{
	char text[1024], *at;
	ssize_t length;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return -1;
	text[length] = 0;
	at = strrchr(text, ')') + 2;
	if (number == 0)
		return *at;
	while (number--)
		at = strchr(at, ' ') + 1;
	return atoll(at);
}

MAYBE_UNUSED static long long start_ticks(void)
{
	return stat_field("/proc/self/stat", 19);
}

MAYBE_UNUSED static pid_t my_tid(void)
{
	return syscall(SYS_gettid);
}

/* Who is here, under the name of its part in the story. */
MAYBE_UNUSED static void introduce(const char *part)
{
	say("{\"at\":\"%s\",\"pid\":%d,\"tid\":%d,\"ppid\":%d,\"start\":%lld}", part, getpid(), my_tid(),
	    getppid(), start_ticks());
}

/* Reap one child and say what the kernel told its parent. */
MAYBE_UNUSED static int collect(pid_t pid)
{
	struct rusage used;
	int status;

	if (wait4(pid, &status, 0, &used) != pid)
		die("wait4");
	say("{\"at\":\"collected\",\"pid\":%d,\"wstatus\":%d,\"utime_us\":%lld,\"stime_us\":%lld,"
	    "\"minflt\":%ld,\"majflt\":%ld,\"nvcsw\":%ld,\"nivcsw\":%ld,\"maxrss_kib\":%ld}",
	    pid, status, used.ru_utime.tv_sec * 1000000LL + used.ru_utime.tv_usec,
	    used.ru_stime.tv_sec * 1000000LL + used.ru_stime.tv_usec, used.ru_minflt, used.ru_majflt,
	    used.ru_nvcsw, used.ru_nivcsw, used.ru_maxrss);
	return status;
}

/*
 * Reap one child, of any number for -1, and say an instant at which it was still there: dead, not
 * reaped. Asked after the reaping, the clock could be as late as the scheduler lets us be.
 */
MAYBE_UNUSED static void await_end(pid_t pid)
{
	siginfo_t ended;
	long long there_ns;

	if (waitid(pid < 0 ? P_ALL : P_PID, pid < 0 ? 0 : pid, &ended, WEXITED | WNOWAIT))
		die("waitid");
	there_ns = now_ns();
	if (waitpid(ended.si_pid, NULL, 0) != ended.si_pid)
		die("waitpid");
	say("{\"at\":\"waited\",\"pid\":%d,\"there_ns\":%lld}", ended.si_pid, there_ns);
}

MAYBE_UNUSED static pid_t fork_or_die(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	return pid;
}

MAYBE_UNUSED static void sleep_ms(long milliseconds)
{
	struct timespec pause = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	while (nanosleep(&pause, &pause) && errno == EINTR)
		;
}

/* Look again every 0.2 ms, for ten seconds at most, until the condition holds. */
#define AWAIT(condition)                                                              \
	do {                                                                          \
		long long limit_ = now_ns() + 10000000000LL;                          \
		struct timespec pause_ = { 0, 200000 };                               \
		while (!(condition)) {                                                \
			if (now_ns() > limit_) {                                      \
				fprintf(stderr, "waited in vain: %s\n", #condition);  \
				_exit(98);                                            \
			}                                                             \
			nanosleep(&pause_, NULL);                                     \
		}                                                                     \
	} while (0)

#endif
