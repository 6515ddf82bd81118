/* A daemon: fork, setsid, fork, and the middle one leaves. */
#include "say.h"

int main(void)
{
	pid_t born_under, middle = fork_or_die();

	if (!middle) {
		introduce("middle");
		setsid();
		born_under = getpid();
		if (!fork_or_die()) {
			introduce("daemon");
			AWAIT(getppid() != born_under);
			introduce("orphan");
			_exit(6);
		}
		_exit(0);
	}
	collect(middle);
	return 0;
}
