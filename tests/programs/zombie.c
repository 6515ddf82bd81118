/* A child that ended long before its parent asked; the parent measures how long. */
#include "say.h"

int main(int argc, char **argv)
{
	long held_ms = argc > 1 ? atol(argv[1]) : 200;
	long long forked, dead, collected;
	siginfo_t info;
	pid_t child;

	forked = now_ns();
	child = fork_or_die();
	if (!child)
		_exit(0);
	if (waitid(P_PID, child, &info, WEXITED | WNOWAIT))
		die("waitid");
	dead = now_ns();
	sleep_ms(held_ms);
	collected = now_ns();
	collect(child);
	say("{\"at\":\"held\",\"pid\":%d,\"forked_ns\":%lld,\"dead_ns\":%lld,\"collected_ns\":%lld}", child,
	    forked, dead, collected);
	return 0;
}
