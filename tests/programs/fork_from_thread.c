/* A thread forks: its process is the parent, whatever the thread's own number. */
#include "say.h"
#include <pthread.h>

static void *fork_here(void *unused)
{
	pid_t child;

	(void)unused;
	introduce("thread");
	child = fork_or_die();
	if (!child) {
		introduce("child");
		_exit(0);
	}
	collect(child);
	return NULL;
}

int main(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, fork_here, NULL);
	pthread_join(thread, NULL);
	return 0;
}
