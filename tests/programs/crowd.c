/*
 * A large tree that forks hard: GROUPS leaders with SIZE idle processes each, and WORKERS that make
 * one short-lived child after the other, until the file STOP exists. Everyone says who it is; who
 * collects a child of the storm says when it was still there.
 */
#include "say.h"

static int hold[2];

static void idle(void)
{
	char byte;

	close(hold[1]);
	introduce("idle");
	/* The end of the pipe, which only the root holds. */
	if (read(hold[0], &byte, 1) < 0)
		die("read");
	_exit(5);
}

static void lead(int size)
{
	close(hold[1]);
	introduce("leader");
	while (size--)
		if (!fork_or_die())
			idle();
	while (waitpid(-1, NULL, 0) > 0)
		;
	_exit(4);
}

static void child(void)
{
	pid_t pid;

	introduce("child");
	pid = fork_or_die();
	if (!pid) {
		introduce("leaf");
		_exit(3);
	}
	await_end(pid);
	_exit(2);
}

static void work(const char *stop)
{
	pid_t pid;

	close(hold[1]);
	introduce("worker");
	while (access(stop, F_OK)) {
		pid = fork_or_die();
		if (!pid)
			child();
		await_end(pid);
	}
	_exit(1);
}

int main(int argc, char **argv)
{
	int groups, size, workers;

	if (argc != 5 || pipe(hold))
		return 64;
	groups = atoi(argv[2]);
	size = atoi(argv[3]);
	workers = atoi(argv[4]);
	introduce("root");
	while (groups--)
		if (!fork_or_die())
			lead(size);
	while (workers--)
		if (!fork_or_die())
			work(argv[1]);
	while (access(argv[1], F_OK))
		sleep_ms(5);
	close(hold[1]);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return 0;
}
