/* A disk and a clock in trouble: LD_PRELOAD this into a process of the node.

   GLIONODE_FAULTS names a file of 4096 bytes that the test maps, too, so that each change is seen at once. Only calls on
   files below the folder named there fail or are slow; only the wall clock jumps, never the monotonic one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct faults { /* as in faulty_libc.py */
  volatile int64_t error;             /* errno of each call; 0: none */
  volatile int64_t is_reading_struck; /* 1: opening a file for reading fails, too */
  volatile int64_t sync_milliseconds; /* so long takes each fsync */
  volatile int64_t clock_seconds;     /* added to the wall clock */
  volatile int64_t hits;              /* calls that failed or were slow */
  char folder[4096 - 5 * 8];
};

static struct faults none, *faults = &none;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("GLIONODE_FAULTS");
  int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) {
    fprintf(stderr, "faulty_libc: GLIONODE_FAULTS names no file\n");
    _exit(99);
  }
  void *there = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (there == MAP_FAILED) _exit(99);
  close(fd);
  faults = there;
}

static int is_below(const char *path) {
  size_t length = strlen(faults->folder);
  return length && strncmp(path, faults->folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_file_below(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

/* True with errno set if the call is to fail. */
static int struck(int is_ours) {
  int64_t error = faults->error;
  if (!error || !is_ours) return 0;
  __atomic_add_fetch(&faults->hits, 1, __ATOMIC_RELAXED);
  errno = (int)error;
  return 1;
}

static int open_struck(const char *path, int flags) {
  int is_reading = !(flags & (O_WRONLY | O_RDWR | O_CREAT));
  if (!faults->error || (is_reading && !faults->is_reading_struck)) return 0;
  return struck(is_below(path));
}

#define OPEN(name)                                             \
  int name(const char *path, int flags, ...) {                 \
    va_list arguments;                                         \
    va_start(arguments, flags);                                \
    mode_t mode = va_arg(arguments, mode_t);                   \
    va_end(arguments);                                         \
    return open_struck(path, flags) ? -1 : REAL(name)(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                           \
  int name(int folder, const char *path, int flags, ...) {     \
    va_list arguments;                                         \
    va_start(arguments, flags);                                \
    mode_t mode = va_arg(arguments, mode_t);                   \
    va_end(arguments);                                         \
    return open_struck(path, flags) ? -1 : REAL(name)(folder, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *content, size_t count) {
  if (faults->error && struck(is_file_below(fd))) return -1;
  return REAL(write)(fd, content, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (faults->error && struck(is_file_below(fd))) return -1;
  return REAL(writev)(fd, parts, count);
}

static int sync_struck(int fd) {
  int64_t milliseconds = faults->sync_milliseconds;
  if ((!milliseconds && !faults->error) || !is_file_below(fd)) return 0;
  if (milliseconds) {
    __atomic_add_fetch(&faults->hits, 1, __ATOMIC_RELAXED);
    usleep((useconds_t)milliseconds * 1000);
  }
  return struck(1);
}

int fsync(int fd) { return sync_struck(fd) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return sync_struck(fd) ? -1 : REAL(fdatasync)(fd); }

int link(const char *from, const char *to) { return struck(is_below(to)) ? -1 : REAL(link)(from, to); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  return struck(is_below(to)) ? -1 : REAL(linkat)(from_folder, from, to_folder, to, flags);
}

int rename(const char *from, const char *to) { return struck(is_below(to)) ? -1 : REAL(rename)(from, to); }

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  return struck(is_below(to)) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

int mkdir(const char *path, mode_t mode) { return struck(is_below(path)) ? -1 : REAL(mkdir)(path, mode); }

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = REAL(clock_gettime)(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += faults->clock_seconds;
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int result = REAL(gettimeofday)(now, zone);
  if (result == 0 && now) now->tv_sec += faults->clock_seconds;
  return result;
}

time_t time(time_t *where) {
  time_t now = REAL(time)(NULL) + faults->clock_seconds;
  if (where) *where = now;
  return now;
}
