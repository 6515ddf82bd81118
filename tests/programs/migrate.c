/*
 * Four threads of a child move between two CPUs, each a known number of times at least, and end
 * pinned to one. Says what /proc/PID/task/TID/sched counted for each.
 */
#include "say.h"
#include <pthread.h>

#define THREADS 4

static int flips, first_cpu, second_cpu;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static void *flip(void *unused)
{
	int i;

	(void)unused;
	pin(first_cpu);
	for (i = 0; i < flips; i++)
		pin(i % 2 ? first_cpu : second_cpu);
	say("{\"at\":\"moved\",\"pid\":%d,\"tid\":%d,\"flips\":%d}", getpid(), my_tid(), flips);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	cpu_set_t allowed;
	pid_t child;
	int cpu, i;

	flips = argc > 1 ? atoi(argv[1]) : 100;
	first_cpu = second_cpu = -1;
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		die("sched_getaffinity");
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed))
			continue;
		if (first_cpu < 0)
			first_cpu = cpu;
		else if (second_cpu < 0)
			second_cpu = cpu;
	}
	if (second_cpu < 0)
		die("one CPU only");
	child = fork_or_die();
	if (!child) {
		introduce("mover");
		for (i = 0; i < THREADS; i++)
			pthread_create(&threads[i], NULL, flip, NULL);
		for (i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		pin(first_cpu);
		introduce("settled");
		_exit(0);
	}
	collect(child);
	return 0;
}
