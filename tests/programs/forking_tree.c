/*
 * A tree that forks all the time: WORKERS of them make one short-lived child after the other, each
 * with a child of its own, until the file named STOP exists. Everyone says who it is; who collects
 * says when it was still there.
 */
#include "say.h"

static void grandchild(void)
{
	introduce("leaf");
	_exit(3);
}

static void child(void)
{
	pid_t pid;

	introduce("child");
	pid = fork_or_die();
	if (!pid)
		grandchild();
	await_end(pid);
	_exit(2);
}

static void worker(const char *stop)
{
	pid_t pid;

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
	int workers = argc > 2 ? atoi(argv[2]) : 3;
	int i;

	if (argc < 2)
		return 64;
	introduce("root");
	for (i = 0; i < workers; i++)
		if (!fork_or_die())
			worker(argv[1]);
	for (i = 0; i < workers; i++)
		await_end(-1);
	return 0;
}
