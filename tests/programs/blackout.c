/*
 * What a tracer that is not looking misses. A runner of Airflow by its title, GONERS that end and
 * STAYERS that do not; then, once the file GO exists, the goners are killed, STORM processes
 * execute this file with BYTES of arguments and end, and as many newcomers as goners are born and
 * stay. All end when the file END exists.
 */
#include "say.h"

static char padding[128 * 1024];
static const char *end;

static void stay(void)
{
	while (access(end, F_OK))
		sleep_ms(20);
	_exit(0);
}

static void run(char **argv)
{
	static const char title[] = "airflow task runner: dag task run 1";
	size_t room = argv[5] + strlen(argv[5]) + 1 - argv[0];

	if (room <= sizeof(title))
		die("no room for the title");
	memset(argv[0], 0, room);
	memcpy(argv[0], title, sizeof(title));
	prctl(PR_SET_NAME, title);
	say("{\"at\":\"runner\",\"pid\":%d,\"start\":%lld}", getpid(), start_ticks());
	for (;;)
		sleep_ms(20);
}

static void start(const char *part, int count, pid_t *pids)
{
	int i;

	for (i = 0; i < count; i++) {
		pids[i] = fork_or_die();
		if (!pids[i]) {
			introduce(part);
			stay();
		}
	}
}

int main(int argc, char **argv)
{
	int people = argc == 6 ? atoi(argv[3]) : 0, storm = argc == 6 ? atoi(argv[4]) : 0, i;
	char *next[] = { "/proc/self/exe", padding, NULL };
	pid_t goners[100], others[100], runner;
	char go[512];

	if (argc == 2 && argv[1][0] == 'p')
		return 0;
	if (argc != 6 || people > 100)
		return 64;
	snprintf(go, sizeof(go), "%s", argv[1]);
	end = strdup(argv[2]);
	memset(padding, 'p', atoi(argv[5]));
	introduce("root");
	runner = fork_or_die();
	if (!runner)
		run(argv);
	start("goner", people, goners);
	start("stayer", people, others);
	while (access(go, F_OK))
		sleep_ms(5);
	for (i = 0; i < people; i++) {
		kill(goners[i], SIGKILL);
		waitpid(goners[i], NULL, 0);
	}
	for (i = 0; i < storm; i++) {
		pid_t child = fork_or_die();

		if (!child) {
			execv(next[0], next);
			_exit(99);
		}
		waitpid(child, NULL, 0);
	}
	start("newcomer", people, others);
	say("{\"at\":\"over\",\"goners\":%d,\"storm\":%d,\"newcomers\":%d}", people, storm, people);
	while (access(end, F_OK))
		sleep_ms(20);
	kill(runner, SIGTERM);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return 0;
}
