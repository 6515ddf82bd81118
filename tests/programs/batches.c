/*
 * Batches of fork, _exit and wait, one process at a time: for each byte of standard input one batch
 * of that many tens of processes. After each it says how long it took by the clock and in CPU time,
 * its own and that of those it reaped; 'q' ends it. The first line says that it is there.
 */
#include "say.h"

static long long used_ns(int who)
{
	struct rusage used;

	getrusage(who, &used);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL +
	       (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
}

static void batch(int count)
{
	long long wall = now_ns(), cpu = used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN);
	pid_t child;

	while (count--) {
		child = fork_or_die();
		if (!child)
			_exit(0);
		if (waitpid(child, NULL, 0) != child)
			die("waitpid");
	}
	say("{\"at\":\"batch\",\"wall_ns\":%lld,\"cpu_ns\":%lld}", now_ns() - wall,
	    used_ns(RUSAGE_SELF) + used_ns(RUSAGE_CHILDREN) - cpu);
}

int main(void)
{
	unsigned char tens;

	introduce("batches");
	while (read(STDIN_FILENO, &tens, 1) == 1 && tens != 'q')
		batch(tens * 10);
	return 0;
}
