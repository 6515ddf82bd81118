/*
 * Random process workloads, each from its seed, that keep their own books.
 *
 *   oracle FIRST COUNT SIZE      workloads of SIZE processes from seeds FIRST, FIRST+1, ...
 *
 * Who forks draws the child's seed and its share of the processes, so a seed gives the same
 * processes however they are scheduled. Every process has a slot of a shared table, which also
 * outlives execve: the parent writes what it decides, the process who it is, the reaper how it
 * ended. Numbers are those of the PID namespace of /proc, the outermost one here.
 */
#include "oracle.h"
#include <pthread.h>
#include <sys/mman.h>

static char **program;

static void live(void) __attribute__((noreturn));

/* fork(2) with clone's flags; the child lives its life and never returns. */
static pid_t spawn(struct slot *slot, int flags)
{
	struct slot *parent = me;
	pid_t child = flags ? syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0) : fork();

	if (child < 0)
		die("clone");
	if (!child) {
		begin(slot);
		live();
	}
	me = parent;
	return child;
}

static void run_again(void)
{
	char number[16];
	char *arguments[] = { program[0], "again", number, NULL };

	snprintf(number, sizeof(number), "%d", index_of(me));
	me->images++;
	execv("/proc/self/exe", arguments);
	die("execve");
}

static void *exec_here(void *unused)
{
	me->thread_images++;
	run_again();
	return unused;
}

static void exec_from_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, exec_here, NULL))
		die("pthread_create");
	for (;;)
		pause();
}

static void *fork_here(void *slot)
{
	if (slot)
		spawn(slot, 0);
	return NULL;
}

static int take(int most)
{
	int share = 1 + draw(most);

	if (share > me->budget)
		share = me->budget;
	me->budget -= share;
	return share - 1;
}

/* Threads that end before the leader; some fork. */
static void threads(void)
{
	pthread_t thread[3];
	int count = 1 + draw(3), i;

	for (i = 0; i < count; i++) {
		struct slot *slot = me->budget && draw(2) ? new_slot(ORDINARY, take(3)) : NULL;

		if (pthread_create(&thread[i], NULL, fork_here, slot))
			die("pthread_create");
		/* One after the other: `me` is shared. */
		pthread_join(thread[i], NULL);
	}
}

static void vfork_child(struct slot *slot, int runs)
{
	struct slot *parent = me;
	pid_t child = vfork();

	if (child < 0)
		die("vfork");
	if (!child) {
		begin(slot);
		if (runs)
			run_again();
		_exit(draw(256));
	}
	me = parent;
}

static void kill_a_child(void)
{
	static const int signals[] = { SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGUSR1 };
	struct slot *slot = new_slot(VICTIM, take(1));
	pid_t child = spawn(slot, 0);

	AWAIT(slot->ready);
	if (kill(child, signals[draw(5)]))
		die("kill");
}

/* The init of a namespace is killed, and takes everybody in it along. */
static void doom_a_namespace(void)
{
	struct slot *slot = new_slot(DOOMED, take(4));
	pid_t child = spawn(slot, CLONE_NEWPID);

	AWAIT(slot->ready == 2);
	if (kill(child, SIGKILL))
		die("kill");
}

static void meet_doom(void)
{
	struct slot *slot;

	while (me->budget > 0) {
		slot = new_slot(VICTIM, take(1));
		spawn(slot, 0);
		AWAIT(slot->ready);
		/* Nobody collects it but the kernel (kernel/pid_namespace.c zap_pid_ns_processes). */
		slot->wstatus = SIGKILL;
		slot->reaper = -1;
		slot->collected = 1;
	}
	me->ready = 2;
	for (;;)
		pause();
}

static void act(void)
{
	int nested = geteuid() == 0 && me->depth < 4;
	struct slot *slot;
	int i;

	switch (draw(14)) {
	case 0:
	case 1:
		spawn(new_slot(ORDINARY, take(8)), 0);
		break;
	case 2:
		for (i = 0; i < 3 && me->budget; i++)
			spawn(new_slot(ORDINARY, take(4)), 0);
		break;
	case 3:
	case 4:
		i = draw(2);
		vfork_child(new_slot(ORDINARY, i ? take(4) : take(1)), i);
		break;
	case 5:
		threads();
		break;
	case 6:
	case 7:
		spawn(new_slot(LEAVER, take(5)), 0);
		break;
	case 8:
		kill_a_child();
		break;
	case 9:
		slot = new_slot(ORDINARY, take(8));
		slot->is_init = nested;
		slot->may_make_siblings &= !nested;
		spawn(slot, nested ? CLONE_NEWPID : 0);
		break;
	case 10:
		if (nested)
			doom_a_namespace();
		break;
	case 11:
		slot = new_slot(ORDINARY, take(3));
		if (me->may_make_siblings) {
			slot->parent = me->parent;
			spawn(slot, CLONE_PARENT);
		} else {
			spawn(slot, 0);
		}
		break;
	case 12:
		if (draw(2))
			run_again();
		exec_from_thread();
		break;
	case 13:
		me->adopts |= draw(2);
		if (me->adopts)
			prctl(PR_SET_CHILD_SUBREAPER, 1);
		else if (!me->is_init)
			setsid();
		prctl(PR_SET_NAME, "oracle: named");
		break;
	}
}

/* What the last thread does: nothing of this process comes after it. */
static void *end(void *leader_went_first)
{
	static const int fatal[] = { SIGKILL, SIGTERM, SIGSEGV };
	int code = draw(256), by_signal = draw(6) == 0;

	if (leader_went_first)
		sleep_ms(1);
	if (me->mode != LEAVER)
		drain();
	else if (table->slots[me->parent].mode == LEAVER && draw(2))
		AWAIT(parent_now() != table->slots[me->parent].pid);
	me->parent_at_end = parent_now();
	if (by_signal && !me->is_init)
		kill(getpid(), fatal[draw(3)]);
	if (leader_went_first && draw(2))
		syscall(SYS_exit, code);
	_exit(code);
}

static void live(void)
{
	struct timespec moment = { 0, draw(300) * 1000 };
	pthread_t thread;

	if (me->mode == VICTIM || me->mode == DOOMED) {
		if (me->mode == DOOMED)
			meet_doom();
		for (;;)
			pause();
	}
	while (me->budget > 0)
		act();
	nanosleep(&moment, NULL);
	/* An orphan waits, every other time, until somebody has adopted it. */
	if (table->slots[me->parent].mode == LEAVER && draw(2))
		AWAIT(parent_now() != table->slots[me->parent].pid);
	if (draw(6) == 0) {
		if (pthread_create(&thread, NULL, end, me))
			die("pthread_create");
		/* exit(2) of one thread: it must touch nothing of glibc's that the other needs. */
		syscall(SYS_exit, 77);
	}
	end(NULL);
	__builtin_unreachable();
}

/* Whether the parent that a process had at its end may have left between the look and the end. */
static int may_have_left(const struct slot *slot)
{
	int i;

	for (i = 0; i < table->used; i++)
		if (table->slots[i].pid == slot->parent_at_end && table->slots[i].mode == LEAVER)
			return 1;
	return 0;
}

static void run(unsigned long long seed, int size)
{
	const struct slot *slot, *parent;
	struct slot driver = { .state = mixed(seed), .mode = LEAVER };
	char numbers[LEVELS * 12];
	int status, length, i, level;
	pid_t child;

	memset(table->slots, 0, sizeof(table->slots));
	table->used = 0;
	me = &driver;
	me->depth = 1;
	/* The one without a slot for its parent stands for its own: nobody makes siblings of it. */
	table->slots[0] = (struct slot){ .state = mixed(seed + 1), .budget = size - 1, .adopts = 1 };
	table->used = 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child = fork_or_die();
	if (!child) {
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		begin(&table->slots[0]);
		live();
	}
	if (waitpid(child, &status, 0) != child || waitpid(-1, NULL, 0) != -1)
		die("the first of them, and no other");
	table->slots[0].wstatus = status;
	table->slots[0].collected = 1;
	for (i = 0; i < table->used; i++) {
		slot = &table->slots[i];
		parent = i ? &table->slots[slot->parent] : NULL;
		if (!slot->collected)
			die("nobody collected one of them");
		for (level = length = 0; level < slot->depth; level++)
			length += sprintf(numbers + length, "%s%d", level ? "," : "", slot->numbers[level]);
		say("{\"at\":\"process\",\"seed\":%llu,\"pid\":%d,\"start\":%lld,\"ppid\":%d,"
		    "\"parent_start\":%lld,\"creator\":%d,\"wstatus\":%d,\"images\":%d,"
		    "\"thread_images\":%d,\"parent_at_end\":%d,\"left\":%s,\"ns_pids\":[%s]}",
		    seed, slot->pid, slot->start, parent ? parent->pid : table->driver_pid,
		    parent ? parent->start : table->driver_start,
		    i ? table->slots[slot->creator].pid : table->driver_pid, slot->wstatus, slot->images,
		    slot->thread_images, slot->parent_at_end,
		    may_have_left(slot) ? "true" : "false", numbers);
	}
}

int main(int argc, char **argv)
{
	struct rlimit none = { 0, 0 };
	unsigned long long seed, first, last;
	int fd, again = argc == 3 && !strcmp(argv[1], "again");

	program = argv;
	if (!again && argc != 4)
		return 64;
	if (!again) {
		fd = memfd_create("table", 0);
		if (fd < 0 || ftruncate(fd, sizeof(*table)) || dup2(fd, TABLE_FD) < 0)
			die("memfd_create");
		setrlimit(RLIMIT_CORE, &none);
	}
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, TABLE_FD, 0);
	if (table == MAP_FAILED)
		die("mmap");
	if (again) {
		me = &table->slots[atoi(argv[2])];
		live();
	}
	table->driver_pid = getpid();
	table->driver_start = start_ticks();
	first = strtoull(argv[1], NULL, 10);
	last = first + strtoull(argv[2], NULL, 10);
	for (seed = first; seed < last; seed++)
		run(seed, atoi(argv[3]));
	return 0;
}
