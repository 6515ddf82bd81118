/*
 * COUNT processes that end at once, WIDTH of them at a time: fork, _exit, wait. With a third
 * argument each also executes this file with that many bytes of arguments, and with a fourth one
 * so many microseconds pass between one fork and the next.
 */
#include "say.h"

static char padding[128 * 1024];

/* CPU time of this process and of all that it reaped. */
static long long used_ns(int who)
{
	struct rusage used;

	getrusage(who, &used);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL +
	       (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000;
	long width = argc > 2 ? atol(argv[2]) : 1;
	long bytes = argc > 3 ? atol(argv[3]) : 0;
	long pause_us = argc > 4 ? atol(argv[4]) : 0;
	char *next[] = { argv[0], padding, NULL };
	long long codes = 0, began, forked = 0, running = 0;
	int status;
	pid_t child;

	if (argc == 2 && argv[1][0] == 'p')
		return 0;
	if (bytes > 0 && bytes < (long)sizeof(padding))
		memset(padding, 'p', bytes);
	began = now_ns();
	while (forked < count || running) {
		if (forked < count && running < width) {
			child = fork();
			if (!child) {
				if (bytes)
					execv(argv[0], next);
				_exit(forked & 127);
			}
			if (child < 0)
				die("fork");
			forked++;
			running++;
			if (pause_us)
				usleep(pause_us);
			continue;
		}
		if (waitpid(-1, &status, 0) < 0)
			die("waitpid");
		codes += WEXITSTATUS(status);
		running--;
	}
	say("{\"at\":\"storm\",\"pid\":%d,\"count\":%lld,\"codes\":%lld,\"elapsed_ns\":%lld,"
	    "\"cpu_ns\":%lld}", getpid(), forked, codes, now_ns() - began,
	    used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN));
	return 0;
}
