/* Arguments that are hard to show: "huge" (100 kB), "empty" (argc 0), "bytes" (no UTF-8), "many". */
#include "say.h"

static char huge[100 * 1024 + 1];

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	char self[512] = { 0 };
	char *one[] = { "child", "last", NULL, NULL };
	char *none[] = { NULL };
	char *many[1002];
	char **next = one;
	pid_t child;
	int i;

	/* The child comes here again, as "child" or with no name at all. */
	if (argc < 1 || !argv[0][0] || !strcmp(argv[0], "child")) {
		say("{\"at\":\"child\",\"pid\":%d,\"argc\":%d}", getpid(), argc);
		return 0;
	}
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		die("exe");
	if (!strcmp(how, "huge")) {
		memset(huge, 'a', sizeof(huge) - 1);
		one[1] = huge;
	} else if (!strcmp(how, "empty")) {
		next = none;
	} else if (!strcmp(how, "bytes")) {
		one[1] = "caf\xe9 \xff\n\"";
	} else if (!strcmp(how, "many")) {
		many[0] = "child";
		for (i = 1; i < 1001; i++)
			many[i] = "b";
		many[1001] = NULL;
		next = many;
	}
	child = fork_or_die();
	if (!child) {
		execv(self, next);
		die("execv");
	}
	collect(child);
	return 0;
}
