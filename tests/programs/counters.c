/*
 * A known amount of work in a child: faults by touching pages, voluntary switches by sleeping, CPU
 * time by counting. "threads": the work is done by four threads, all gone before the process ends.
 * "alive": the same, but they are still there when the leader calls exit.
 */
#include "say.h"
#include <pthread.h>
#include <sys/mman.h>

#define PAGES 500
#define SLEEPS 50
#define THREADS 4

static pthread_barrier_t done;
static bool stay;

static void work(void)
{
	struct timespec moment = { 0, 50000 };
	volatile unsigned long count = 0;
	long page = sysconf(_SC_PAGESIZE);
	struct rusage used;
	char *memory;
	int i;

	memory = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	/* A huge page would be one fault for all. */
	madvise(memory, PAGES * page, MADV_NOHUGEPAGE);
	for (i = 0; i < PAGES; i++)
		memory[i * page] = 1;
	/* Who is preempted on its way to sleep may be there when the moment is over: no switch of its own. */
	do {
		nanosleep(&moment, NULL);
		getrusage(RUSAGE_THREAD, &used);
	} while (used.ru_nvcsw < SLEEPS);
	while (count < 20000000)
		count++;
}

static void *worker(void *unused)
{
	(void)unused;
	work();
	pthread_barrier_wait(&done);
	while (stay)
		pause();
	return NULL;
}

/* Field 20 of stat, num_threads: threads that are not released yet. */
static bool alone(void)
{
	return stat_field("/proc/self/stat", 17) == 1;
}

static void with_threads(void)
{
	pthread_t threads[THREADS];
	int i;

	pthread_barrier_init(&done, NULL, THREADS + 1);
	for (i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, worker, NULL);
	pthread_barrier_wait(&done);
	if (stay)
		return;
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	/* join returns when the thread let go of its memory, a little before it is released. */
	AWAIT(alone());
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "one";
	pid_t child = fork_or_die();

	if (!child) {
		stay = !strcmp(how, "alive");
		introduce("worker");
		if (!strcmp(how, "one"))
			work();
		else
			with_threads();
		exit(0);
	}
	collect(child);
	return 0;
}
