/*
 * first_line COMMAND...: milliseconds from the start of the command to the end of its first line, and that line. The
 * command's standard input is empty.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

__attribute__((noreturn)) static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static double milliseconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static pid_t start(char **command, int out)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    if (posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, out, 1) != 0 ||
        posix_spawn(&pid, command[0], &actions, NULL, command, environ) != 0)
        die(command[0]);
    (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
    return pid;
}

int main(int argc, char **argv)
{
    char line[512] = "";
    int ends[2], status;
    if (argc < 2)
        return EXIT_FAILURE;
    if (pipe2(ends, O_CLOEXEC) < 0)
        die("pipe");
    double begin = milliseconds();
    pid_t pid = start(argv + 1, ends[1]);
    (void)close(ends[1]); /* or the end would never come */
    FILE *said = fdopen(ends[0], "r");
    if (!said || !fgets(line, sizeof line, said))
        die("no line");
    printf("%.3f %s", milliseconds() - begin, line);
    if (waitpid(pid, &status, 0) < 0 || status != 0)
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}
