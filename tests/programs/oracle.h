/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The books of tests/programs/oracle.c: a shared table with a slot for every process. Its creator
 * writes what it decides, the process who it is, and who reaps it how it ended.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include "say.h"
#include <stdatomic.h>

#define SLOTS 512
#define TABLE_FD 9
#define LEVELS 8

enum mode { ORDINARY, LEAVER, VICTIM, DOOMED };

struct slot {
	/* By the creator, before the process is there. */
	int parent, creator, mode, adopts, is_init, may_make_siblings, budget;
	unsigned long long state;
	/* By the process itself. */
	atomic_int ready;
	int pid, depth, numbers[LEVELS], images, thread_images, parent_at_end;
	long long start;
	/* By who collected it. */
	atomic_int collected;
	int wstatus, reaper;
};

static struct {
	atomic_int used;
	int driver_pid;
	long long driver_start;
	struct slot slots[SLOTS];
} *table;

static struct slot *me;

static unsigned long long mixed(unsigned long long value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

static int draw(int below)
{
	me->state += 0x9e3779b97f4a7c15ULL;
	return mixed(me->state) % below;
}

static int index_of(const struct slot *slot)
{
	return slot - table->slots;
}

/* Our number in each PID namespace, from that of /proc inwards. */
static void read_numbers(void)
{
	char text[4096], *at;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, text, sizeof(text) - 1);

	if (fd < 0 || length <= 0)
		die("/proc/self/status");
	close(fd);
	text[length] = 0;
	at = strstr(text, "NSpid:") + 6;
	for (me->depth = 0; *at == '\t' && me->depth < LEVELS; me->depth++)
		me->numbers[me->depth] = strtol(at + 1, &at, 10);
}

static int parent_now(void)
{
	return stat_field("/proc/self/stat", 1);
}

static void begin(struct slot *slot)
{
	me = slot;
	read_numbers();
	me->pid = me->numbers[0];
	me->start = start_ticks();
	/* Whoever is killed says no more than this. */
	me->parent_at_end = parent_now();
	me->ready = 1;
}

static struct slot *new_slot(int mode, int share)
{
	struct slot *slot = &table->slots[table->used++];

	if (slot >= table->slots + SLOTS)
		die("too many processes");
	slot->mode = mode;
	slot->parent = slot->creator = index_of(me);
	slot->may_make_siblings = me->mode == ORDINARY && mode == ORDINARY;
	slot->budget = share;
	slot->state = mixed(me->state + draw(1 << 30));
	return slot;
}

/* The number in the namespace of /proc of a child that is not collected yet. */
static int outer_number(pid_t pid)
{
	char path[64], text[512] = { 0 };
	int pidfd, fd;

	if (me->depth == 1)
		return pid;
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", pidfd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (pidfd < 0 || fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die(path);
	close(fd);
	close(pidfd);
	return atoi(strstr(text, "Pid:") + 4);
}

/* Reap all children, adopted ones too, until there is none. */
static void drain(void)
{
	siginfo_t info;
	int status, pid, i;

	while (!waitid(P_ALL, 0, &info, WEXITED | WNOWAIT)) {
		pid = outer_number(info.si_pid);
		for (i = table->used - 1; i >= 0; i--)
			if (table->slots[i].pid == pid && !table->slots[i].collected)
				break;
		if (i < 0 || waitpid(info.si_pid, &status, 0) != info.si_pid)
			die("a child that nobody made");
		table->slots[i].wstatus = status;
		table->slots[i].reaper = index_of(me);
		table->slots[i].collected = 1;
	}
	if (errno != ECHILD)
		die("waitid");
}

#endif
