/* Waits for one byte, then becomes the program it was given: a tracer can attach in between. */
#include "say.h"

int main(int argc, char **argv)
{
	char byte;

	if (argc < 2)
		return 64;
	introduce("gate");
	if (read(STDIN_FILENO, &byte, 1) != 1)
		return 65;
	execv(argv[1], argv + 1);
	die(argv[1]);
}
