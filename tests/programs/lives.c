/*
 * COUNT children that live MS milliseconds each, begun STEP_US microseconds apart: what a reader
 * that only looks now and then sees of them.
 */
#include "say.h"

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 100;
	long life_ms = argc > 2 ? atol(argv[2]) : 50;
	long step_us = argc > 3 ? atol(argv[3]) : 7000;
	struct timespec step = { step_us / 1000000, step_us % 1000000 * 1000 };
	long i;

	/* Without a zombie: a child that ended is gone, as if its parent waited for it. */
	signal(SIGCHLD, SIG_IGN);
	for (i = 0; i < count; i++) {
		if (!fork_or_die()) {
			sleep_ms(life_ms);
			_exit(0);
		}
		nanosleep(&step, NULL);
	}
	sleep_ms(life_ms + 300);
	say("{\"at\":\"lived\",\"pid\":%d,\"count\":%ld,\"life_ms\":%ld}", getpid(), count,
	    life_ms);
	return 0;
}
