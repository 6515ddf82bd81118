/*
 * The group leader ends, another thread lives on and ends the process.
 * "group": by exit(3), which sets the group's exit code. "last": by leaving as the last thread with
 * code 5, which since 5.18 is the group's too (kernel/exit.c synchronize_group_exit); before, the
 * leader's own code, 7, was the process's.
 */
#include "say.h"
#include <pthread.h>

static const char *how;

static void *outlive(void *unused)
{
	char leader[64];

	(void)unused;
	snprintf(leader, sizeof(leader), "/proc/self/task/%d/stat", getpid());
	AWAIT(stat_field(leader, 0) == 'Z');
	say("{\"at\":\"leader-gone\",\"pid\":%d,\"tid\":%d,\"ns\":%lld}", getpid(), my_tid(), now_ns());
	if (!strcmp(how, "group"))
		exit(3);
	syscall(SYS_exit, 5);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	pid_t child;

	how = argc > 1 ? argv[1] : "group";
	child = fork_or_die();
	if (!child) {
		introduce("leader");
		pthread_create(&thread, NULL, outlive, NULL);
		syscall(SYS_exit, 7);
	}
	collect(child);
	return 0;
}
