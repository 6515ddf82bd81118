/* A child makes a sibling of itself: CLONE_PARENT gives it the caller's own parent. */
#include "say.h"

int main(void)
{
	pid_t creator, sibling;
	int status;

	introduce("parent");
	creator = fork_or_die();
	if (!creator) {
		introduce("creator");
		sibling = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
		if (sibling < 0)
			die("clone");
		if (!sibling) {
			introduce("sibling");
			_exit(2);
		}
		_exit(1);
	}
	collect(creator);
	sibling = waitpid(-1, &status, 0);
	say("{\"at\":\"collected\",\"pid\":%d,\"wstatus\":%d}", sibling, status);
	return 0;
}
