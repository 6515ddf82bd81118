/*
 * In a PID namespace of its own with few numbers (kernel.pid_max is per namespace since 6.14), forks
 * until a number comes back. Says who had the number first, and who second.
 */
#include "say.h"
#include <sys/mount.h>

static void wrap(int limit)
{
	static long long started[512];
	pid_t child, outer;
	int status, i;
	int result[2];
	long long report[2];

	for (i = 0; i < 4 * limit; i++) {
		if (pipe(result))
			die("pipe");
		child = fork_or_die();
		if (!child) {
			/* /proc is the outer one: it knows this process by its outer number. */
			char self[32] = { 0 };

			if (readlink("/proc/self", self, sizeof(self) - 1) < 0)
				die("/proc/self");
			report[0] = atoi(self);
			report[1] = start_ticks();
			if (write(result[1], report, sizeof(report)) != sizeof(report))
				die("write");
			_exit(0);
		}
		if (read(result[0], report, sizeof(report)) != sizeof(report))
			die("read");
		close(result[0]);
		close(result[1]);
		outer = report[0];
		waitpid(child, &status, 0);
		if (child < 512 && started[child]) {
			say("{\"at\":\"reused\",\"pid\":%d,\"outer\":%d,\"first\":%lld,\"second\":%lld,"
			    "\"forks\":%d}", child, outer, started[child], report[1], i + 1);
			_exit(0);
		}
		if (child < 512)
			started[child] = report[1];
	}
	_exit(97);
}

int main(int argc, char **argv)
{
	const char *limit = argc > 1 ? argv[1] : "450";
	pid_t init;
	int fd;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		die("unshare");
	init = fork_or_die();
	if (!init) {
		/* A sysctl under /proc/sys belongs to the namespace of who opens it, not of the mount. */
		fd = open("/proc/sys/kernel/pid_max", O_WRONLY);
		if (fd < 0 || write(fd, limit, strlen(limit)) < 0)
			die("pid_max");
		close(fd);
		wrap(atoi(limit));
	}
	return WEXITSTATUS(collect(init));
}
