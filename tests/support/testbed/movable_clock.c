/* Preloaded into one server: its wall clock is ahead by the seconds that a file contains. Monotonic clocks are not
   touched. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    long result = syscall(SYS_gettimeofday, now, zone);
    char seconds[32] = "";
    int file = open(getenv("SECONDS_AHEAD_FILE"), O_RDONLY);
    if (file >= 0) {
        if (read(file, seconds, sizeof seconds - 1) > 0) now->tv_sec += atol(seconds);
        close(file);
    }
    return result;
}
