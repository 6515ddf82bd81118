/*
 * Ends by a signal: "segv" by a fault, "faults" by one after 1000 that it handled, "abort" by
 * itself, "kill" by a sibling's SIGKILL. "dump FOLDER": by itself, with a core dump there.
 */
#include "say.h"

#define HANDLED 1000

static volatile int *nowhere;
static int handled;

/* Returns to the instruction that faulted, which is then done again. */
static void on_fault(int sig)
{
	if (++handled == HANDLED)
		signal(sig, SIG_DFL);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "kill";
	struct rlimit cores = { 0, 0 };
	pid_t victim, killer;
	int ready[2];
	char byte;

	if (!strcmp(how, "dump")) {
		cores.rlim_cur = cores.rlim_max = RLIM_INFINITY;
		if (argc < 3 || chdir(argv[2]))
			die("chdir");
		how = "abort";
	}
	if (setrlimit(RLIMIT_CORE, &cores))
		die("setrlimit");
	if (pipe(ready))
		die("pipe");
	victim = fork_or_die();
	if (!victim) {
		introduce("victim");
		if (!strcmp(how, "faults"))
			signal(SIGSEGV, on_fault);
		if (!strcmp(how, "segv") || !strcmp(how, "faults"))
			*nowhere = 1;
		if (!strcmp(how, "abort"))
			abort();
		if (write(ready[1], "!", 1) != 1)
			die("write");
		for (;;)
			pause();
	}
	if (!strcmp(how, "kill")) {
		killer = fork_or_die();
		if (!killer) {
			prctl(PR_SET_NAME, "assassin");
			introduce("killer");
			if (read(ready[0], &byte, 1) != 1)
				die("read");
			if (kill(victim, SIGKILL))
				die("kill");
			_exit(0);
		}
		collect(killer);
	}
	collect(victim);
	return 0;
}
