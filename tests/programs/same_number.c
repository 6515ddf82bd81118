/*
 * COUNT processes, one after the other, that all have the same number: clone3(2) lets a process with
 * the right to it choose one that is free, so that nobody has to wait until numbers come round. Each
 * lives for MS milliseconds, so that no two have the same start, and ends with another exit code.
 */
#include "say.h"
#include <linux/sched.h>

static pid_t fork_as(pid_t number)
{
	struct clone_args how = {
		.exit_signal = SIGCHLD,
		.set_tid = (unsigned long)&number,
		.set_tid_size = 1,
	};

	return syscall(SYS_clone3, &how, sizeof(how));
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 10, i;
	long lives_ms = argc > 2 ? atol(argv[2]) : 20;
	pid_t number, child;

	number = fork_or_die();
	if (!number)
		_exit(0);
	if (waitpid(number, NULL, 0) != number)
		die("waitpid");
	for (i = 0; i < count; i++) {
		child = fork_as(number);
		if (!child) {
			introduce("holder");
			sleep_ms(lives_ms);
			_exit(i & 127);
		}
		if (child < 0)
			die("clone3");
		collect(child);
	}
	return 0;
}
