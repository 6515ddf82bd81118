/* Joins the cgroup whose cgroup.procs it is given, and touches 80 MB. */
#include "say.h"

int main(int argc, char **argv)
{
	size_t size = 80 << 20, at;
	volatile char *memory;
	pid_t child;
	int fd;

	if (argc < 2)
		return 64;
	child = fork_or_die();
	if (!child) {
		introduce("hog");
		fd = open(argv[1], O_WRONLY);
		if (fd < 0 || write(fd, "0", 1) != 1)
			die(argv[1]);
		close(fd);
		memory = malloc(size);
		for (at = 0; at < size; at += 4096)
			memory[at] = 1;
		_exit(0);
	}
	collect(child);
	return 0;
}
