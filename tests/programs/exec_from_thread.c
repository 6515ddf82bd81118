/* A thread that is not the leader calls execve (fs/exec.c de_thread). */
#include "say.h"
#include <pthread.h>

static char **arguments;

static void *become(void *unused)
{
	char *next[] = { arguments[0], "after", NULL };

	(void)unused;
	introduce("thread");
	execv(arguments[0], next);
	die("execv");
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	pid_t child;

	if (argc > 1) {
		introduce("after");
		return 4;
	}
	arguments = argv;
	child = fork_or_die();
	if (!child) {
		introduce("before");
		pthread_create(&thread, NULL, become, NULL);
		for (;;)
			pause();
	}
	collect(child);
	return 0;
}
