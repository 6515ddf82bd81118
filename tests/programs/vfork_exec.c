/* vfork, then exec in the child. */
#include "say.h"

int main(int argc, char **argv)
{
	char *next[] = { argv[0], "child", NULL };
	pid_t child;

	if (argc > 1) {
		introduce("child");
		return 8;
	}
	introduce("parent");
	child = vfork();
	if (!child) {
		execv(argv[0], next);
		_exit(99);
	}
	collect(child);
	return 0;
}
