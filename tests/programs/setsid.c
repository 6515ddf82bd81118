/* A new session and process group: neither is a new process. */
#include "say.h"

int main(void)
{
	pid_t child = fork_or_die();

	if (!child) {
		introduce("before");
		if (setsid() != getpid())
			die("setsid");
		introduce("after");
		_exit(0);
	}
	collect(child);
	return 0;
}
