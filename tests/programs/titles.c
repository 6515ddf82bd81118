/*
 * Three ways to be renamed, each by a child that ends at once: "title" writes a text over argv and
 * then names the task, as setproctitle does; "prctl" only names the task; "long" writes a text
 * longer than argv, on into the environment.
 */
#include "say.h"

extern char **environ;

static void overwrite(char **argv, const char *text)
{
	char *end = argv[0];
	int i;

	for (i = 0; argv[i]; i++)
		end = argv[i] + strlen(argv[i]) + 1;
	for (i = 0; environ[i]; i++)
		end = environ[i] + strlen(environ[i]) + 1;
	if ((size_t)(end - argv[0]) <= strlen(text))
		die("no room for the title");
	memset(argv[0], 0, end - argv[0]);
	memcpy(argv[0], text, strlen(text));
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "title";
	char text[512] = "airflow task runner: dag task run 1";
	bool only_prctl = !strcmp(how, "prctl");
	pid_t child;

	if (!strcmp(how, "long"))
		memset(text, 'x', 300);
	say("{\"at\":\"title\",\"title\":\"%s\"}", only_prctl ? "" : text);
	child = fork_or_die();
	if (!child) {
		if (!only_prctl)
			overwrite(argv, text);
		prctl(PR_SET_NAME, only_prctl ? "renamed" : text);
		_exit(0);
	}
	collect(child);
	return 0;
}
