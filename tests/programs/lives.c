/*
 * COUNT children that live MS milliseconds each, begun STEP_US microseconds apart: what a reader
 * that only looks now and then sees of them. On a busy machine they live longer: says how long.
 */
#include "say.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 100;
	long life_ms = argc > 2 ? atol(argv[2]) : 50;
	long step_us = argc > 3 ? atol(argv[3]) : 7000;
	struct timespec step = { step_us / 1000000, step_us % 1000000 * 1000 };
	long long born, *lived_ns;
	long i;

	lived_ns = mmap(NULL, sizeof(*lived_ns), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (lived_ns == MAP_FAILED)
		die("mmap");
	/* Without a zombie: a child that ended is gone, as if its parent waited for it. */
	signal(SIGCHLD, SIG_IGN);
	for (i = 0; i < count; i++) {
		born = now_ns();
		if (!fork_or_die()) {
			sleep_ms(life_ms);
			__atomic_fetch_add(lived_ns, now_ns() - born, __ATOMIC_RELAXED);
			_exit(0);
		}
		nanosleep(&step, NULL);
	}
	sleep_ms(life_ms + 300);
	say("{\"at\":\"lived\",\"pid\":%d,\"count\":%ld,\"mean_ns\":%lld}", getpid(), count,
	    *lived_ns / count);
	return 0;
}
