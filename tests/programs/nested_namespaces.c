/* PID namespaces within each other: one process, one number at each level. */
#include "say.h"
#include <sys/stat.h>

static void tell_numbers(int level)
{
	char text[4096], *at, *end;
	struct stat ns;
	int fd = open("/proc/self/status", O_RDONLY);
	ssize_t length = read(fd, text, sizeof(text) - 1);

	if (fd < 0 || length <= 0 || stat("/proc/self/ns/pid", &ns))
		die("/proc/self");
	close(fd);
	text[length] = 0;
	at = strstr(text, "NSpid:") + 6;
	end = strchr(at, '\n');
	*end = 0;
	for (; *at; at++)
		if (*at == '\t')
			*at = ' ';
	at = strstr(text, "NSpid:") + 6;
	say("{\"at\":\"level\",\"level\":%d,\"numbers\":\"%s\",\"inode\":%llu,\"start\":%lld}", level, at + 1,
	    (unsigned long long)ns.st_ino, start_ticks());
}

static void descend(int level, int deepest)
{
	pid_t child;

	tell_numbers(level);
	if (level == deepest)
		return;
	if (unshare(CLONE_NEWPID))
		die("unshare");
	child = fork_or_die();
	if (!child) {
		descend(level + 1, deepest);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	descend(0, argc > 1 ? atoi(argv[1]) : 2);
	return 0;
}
