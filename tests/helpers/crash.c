/* Preloaded into a process, kills it with SIGKILL just before its k-th operation on file names.
 *
 * CRASH_AT     k, counted from 1 over all threads; 0 or unset: never.
 * CRASH_UNDER  only operations whose path holds this text count.
 * CRASH_OPS    "rename": renames alone; else renames, unlinks, mkdirs, rmdirs, and opens that create.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_int count;

static void point(const char *path, int is_rename) {
  const char *at = getenv("CRASH_AT"), *under = getenv("CRASH_UNDER"), *ops = getenv("CRASH_OPS");
  if (!at || atoi(at) <= 0 || !path || (under && !strstr(path, under))) return;
  if (!is_rename && ops && !strcmp(ops, "rename")) return;
  if (atomic_fetch_add(&count, 1) + 1 == atoi(at)) kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int rename(const char *old, const char *new) {
  point(new, 1);
  return REAL(rename)(old, new);
}

int renameat(int from, const char *old, int to, const char *new) {
  point(new, 1);
  return REAL(renameat)(from, old, to, new);
}

int unlink(const char *path) {
  point(path, 0);
  return REAL(unlink)(path);
}

/* A relative path's directory is known by its descriptor alone: counted by the name it has. */
static void point_at(int directory, const char *path) {
  char link[64], name[4096] = "";
  if (path[0] != '/' && directory != AT_FDCWD) {
    strcpy(link, "/proc/self/fd/");
    char digits[16], *end = digits + 15;
    *end = 0;
    do *--end = '0' + directory % 10; while (directory /= 10);
    strcat(link, end);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length > 0) name[length] = 0;
  } else {
    strncpy(name, path, sizeof name - 1);
  }
  point(name, 0);
}

int unlinkat(int directory, const char *path, int flags) {
  point_at(directory, path);
  return REAL(unlinkat)(directory, path, flags);
}

int rmdir(const char *path) {
  point(path, 0);
  return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode) {
  point(path, 0);
  return REAL(mkdir)(path, mode);
}

static mode_t mode_of(int flags, va_list rest) { return flags & O_CREAT ? va_arg(rest, int) : 0; }

#define OPEN(name, before, call, ...)                 \
  int name(__VA_ARGS__, int flags, ...) {             \
    va_list rest;                                     \
    va_start(rest, flags);                            \
    mode_t mode = mode_of(flags, rest);               \
    va_end(rest);                                     \
    if (flags & O_CREAT) before;                      \
    return call;                                      \
  }

OPEN(open, point(path, 0), REAL(open)(path, flags, mode), const char *path)
OPEN(open64, point(path, 0), REAL(open64)(path, flags, mode), const char *path)
OPEN(openat, point_at(fd, path), REAL(openat)(fd, path, flags, mode), int fd, const char *path)
OPEN(openat64, point_at(fd, path), REAL(openat64)(fd, path, flags, mode), int fd, const char *path)
