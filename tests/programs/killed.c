/* Three ends by a signal: "segv" by a fault, "abort" by itself, "kill" by a sibling's SIGKILL. */
#include "say.h"

static volatile int *nowhere;

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "kill";
	struct rlimit none = { 0, 0 };
	pid_t victim, killer;

	setrlimit(RLIMIT_CORE, &none);
	victim = fork_or_die();
	if (!victim) {
		introduce("victim");
		if (!strcmp(how, "segv"))
			*nowhere = 1;
		if (!strcmp(how, "abort"))
			abort();
		for (;;)
			pause();
	}
	if (!strcmp(how, "kill")) {
		killer = fork_or_die();
		if (!killer) {
			prctl(PR_SET_NAME, "assassin");
			introduce("killer");
			if (kill(victim, SIGKILL))
				die("kill");
			_exit(0);
		}
		collect(killer);
	}
	collect(victim);
	return 0;
}
