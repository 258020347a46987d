/* The control port: a line in, one JSON object as a line out.
 *
 *   status                                  everything that is known, at once
 *   load PAGES_PER_S SET_MIB [BYTES=64]     dirty so many pages per second over a set; 0 0 stops
 *   disk WRITES_PER_S                       4 KiB writes over the whole disk; 0 stops
 *   verify                                  check every byte of every page and every written block
 *   corrupt memory|disk                     flip one bit, so that a test can see `verify` fail
 *   sync                                    flush the disk
 *   panic                                   the kernel panics
 *
 * `ok` is false with `error` when a command could not be done, and without when a check found something wrong.
 */
#include "common.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 16, MAX_LINE = 128, MAX_REPLY = 2048, IDLE_SECONDS = 600 };

static pthread_mutex_t commands = PTHREAD_MUTEX_INITIALIZER;
static atomic_int connections;

/* Commands that change or check something run one at a time; `status` waits for nobody. */
void command_lock(void) { pthread_mutex_lock(&commands); }
void command_unlock(void) { pthread_mutex_unlock(&commands); }

typedef unsigned long long ull;

static void reply_status(char *reply) {
  struct memory_status memory = memory_status();
  struct disk_status disk = disk_status();
  struct timespec up;
  clock_gettime(CLOCK_BOOTTIME, &up);
  snprintf(reply, MAX_REPLY,
           "{\"ok\":true,\"bootId\":\"%s\",\"boots\":%llu,\"uptimeMs\":%llu,\"ready\":%s,\"problem\":\"%s\","
           "\"load\":{\"pagesPerSecond\":%llu,\"setMiB\":%llu,\"bytesPerPage\":%llu,\"achieved\":%llu,\"written\":%llu},"
           "\"disk\":{\"writesPerSecond\":%llu,\"achieved\":%llu,\"sequence\":%llu,\"errors\":%llu},"
           "\"memory\":{\"fillPages\":%llu,\"setPages\":%llu},"
           "\"diskAtBoot\":{\"found\":\"%s\",\"sealed\":%s,\"blocks\":%llu,\"bad\":%llu,\"sequence\":%llu}}",
           boot_id, (ull)disk.boots, (ull)up.tv_sec * 1000 + (ull)up.tv_nsec / NS_PER_MS,
           memory.ready && disk.ready ? "true" : "false", problems, (ull)memory.pages_per_second, (ull)memory.set_mib,
           (ull)memory.bytes_per_page, (ull)memory.achieved, (ull)memory.written, (ull)disk.writes_per_second,
           (ull)disk.achieved, (ull)disk.sequence, (ull)disk.errors, (ull)memory.fill_pages, (ull)memory.set_pages,
           disk.found, strcmp(disk.found, "sealed") == 0 ? "true" : "false", (ull)disk.boot_blocks, (ull)disk.boot_bad,
           (ull)disk.boot_sequence);
}

static void reply_verify(char *reply) {
  u64 pages, bad_pages, blocks, bad_blocks, start = now_ns();
  memory_verify(&pages, &bad_pages);
  disk_verify(&blocks, &bad_blocks);
  struct disk_status disk = disk_status();
  bool ok = bad_pages == 0 && bad_blocks == 0 && disk.errors == 0 && !stopping;
  snprintf(reply, MAX_REPLY,
           "{\"ok\":%s,\"bootId\":\"%s\",\"pages\":%llu,\"badPages\":%llu,\"blocks\":%llu,\"badBlocks\":%llu,"
           "\"diskErrors\":%llu,\"diskSequence\":%llu,\"durationMs\":%llu}",
           ok ? "true" : "false", boot_id, (ull)pages, (ull)bad_pages, (ull)blocks, (ull)bad_blocks, (ull)disk.errors,
           (ull)disk.sequence, (ull)((now_ns() - start) / NS_PER_MS));
}

/* Does not return where the kernel allows it: no answer is the answer. */
static const char *kernel_panic(void) {
  int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
  if (trigger < 0 || write(trigger, "c", 1) != 1) return "the kernel has no /proc/sysrq-trigger";
  return "the kernel did not panic";
}

static const char *change(const char *line) {
  ull a = 0, b = 0, c = 64;
  char word[16] = "", rest = 0;
  if (sscanf(line, "load %llu %llu %llu %c", &a, &b, &c, &rest) >= 2 && rest == 0) return memory_load(a, b, c);
  if (sscanf(line, "disk %llu %c", &a, &rest) == 1) return disk_rate(a);
  if (strcmp(line, "sync") == 0) return disk_sync();
  if (strcmp(line, "panic") == 0) return kernel_panic();
  if (sscanf(line, "corrupt %15s", word) == 1 && strcmp(word, "memory") == 0) return memory_corrupt();
  if (strcmp(word, "disk") == 0) return disk_corrupt();
  return "unknown command; known are: status, load PAGES_PER_S SET_MIB [BYTES], disk WRITES_PER_S, verify, "
         "corrupt memory|disk, sync, panic";
}

static void answer(const char *line, char *reply) {
  if (strcmp(line, "status") == 0) {
    reply_status(reply);
    return;
  }
  memory_wait_ready();
  disk_wait_ready();
  command_lock();
  if (strcmp(line, "verify") == 0) {
    reply_verify(reply);
  } else {
    const char *why = change(line);
    if (why != NULL)
      snprintf(reply, MAX_REPLY, "{\"ok\":false,\"error\":\"%s\"}", why);
    else
      snprintf(reply, MAX_REPLY, "{\"ok\":true}");
  }
  command_unlock();
}

static void *serve(void *argument) {
  int fd = (int)(intptr_t)argument;
  struct timeval idle = {.tv_sec = IDLE_SECONDS};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
  FILE *stream = fdopen(fd, "r+");
  char line[MAX_LINE], reply[MAX_REPLY];
  while (stream != NULL && fgets(line, sizeof line, stream) != NULL) {
    line[strcspn(line, "\r\n")] = 0;
    answer(line, reply);
    size_t length = strlen(reply);
    reply[length++] = '\n';
    if (send(fd, reply, length, MSG_NOSIGNAL) != (ssize_t)length) break;
  }
  if (stream != NULL)
    fclose(stream);
  else
    close(fd);
  connections--;
  return NULL;
}

static void *run(void *unused) {
  (void)unused;
  int listener = listen_tcp(CONTROL_PORT);
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) continue;
    if (++connections > MAX_CONNECTIONS) {
      connections--;
      close(fd);
      continue;
    }
    start_thread(serve, (void *)(intptr_t)fd);
  }
  return NULL;
}

void control_start(void) { start_thread(run, NULL); }
