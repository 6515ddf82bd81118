/* Stopped and continued by its parent: the same process before and after. */
#include "say.h"

int main(void)
{
	int status, ready[2];
	pid_t child;
	char byte;

	if (pipe(ready))
		die("pipe");
	introduce("parent");
	child = fork_or_die();
	if (!child) {
		introduce("child");
		if (write(ready[1], "!", 1) != 1)
			die("write");
		for (;;)
			pause();
	}
	if (read(ready[0], &byte, 1) != 1)
		die("read");
	kill(child, SIGSTOP);
	if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status))
		die("not stopped");
	kill(child, SIGCONT);
	if (waitpid(child, &status, WCONTINUED) != child || !WIFCONTINUED(status))
		die("not continued");
	kill(child, SIGTERM);
	collect(child);
	return 0;
}
