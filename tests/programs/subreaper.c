/* An orphan is adopted by the nearest ancestor that asked for it (PR_SET_CHILD_SUBREAPER). */
#include "say.h"

int main(void)
{
	pid_t reaper, middle, orphan, born_under;
	int status;

	reaper = fork_or_die();
	if (!reaper) {
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		introduce("reaper");
		middle = fork_or_die();
		if (!middle) {
			introduce("middle");
			born_under = getpid();
			if (!fork_or_die()) {
				introduce("orphan");
				AWAIT(getppid() != born_under);
				introduce("adopted");
				_exit(5);
			}
			_exit(0);
		}
		collect(middle);
		orphan = waitpid(-1, &status, 0);
		say("{\"at\":\"collected\",\"pid\":%d,\"wstatus\":%d}", orphan, status);
		_exit(0);
	}
	collect(reaper);
	return 0;
}
