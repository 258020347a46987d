/* What every part of the workload program shares: time, the kernel command line, the gate, the pattern.
 *
 * The program is process 1 of the lab's guest. Its parts, one file each:
 *   main.c     boots the guest, reacts to the power button, offers a shell on the serial line
 *   memory.c   the fill and the working set: dirtying, checking
 *   disk.c     the checked disk: writing, checking, the ledger that survives a clean shutdown
 *   echo.c     UDP and TCP echo, for probers
 *   control.c  the line-oriented control port
 *
 * Nothing here uses floating point or SSE: QEMU without KVM emulates both slowly.
 */
#pragma once

#define _GNU_SOURCE

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

typedef uint64_t u64;
typedef uint32_t u32;

enum {
  PAGE_BYTES = 4096,
  PAGE_WORDS = PAGE_BYTES / 8,
  CONTROL_PORT = 7000,
  UDP_ECHO_PORT = 7001,
  TCP_ECHO_PORT = 7002,
};

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/* -- time ------------------------------------------------------------------------------------------------------- */

static inline u64 now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (u64)t.tv_sec * NS_PER_S + (u64)t.tv_nsec;
}

static inline void sleep_until_ns(u64 at) {
  struct timespec t = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0) {
  }
}

/* -- the pattern: content as a cheap function of (seed, index, generation) ---------------------------------------- */

static inline u64 mix(u64 x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static inline u64 pattern_start(u64 seed, u64 index, u64 generation) {
  return mix(seed + mix(index * 0x9e3779b97f4a7c15ull + mix(generation + 1)));
}

/* A linear congruential step: one multiplication and one addition per 8 bytes, the cheapest that no compressor
 * shrinks. Its weak low bits do not matter: only equality is ever asked. */
static inline u64 pattern_next(u64 x) { return x * 6364136223846793005ull + 1442695040888963407ull; }

static inline void pattern_write(u64 *words, u32 count, u64 x) {
  for (u32 i = 0; i < count; i++, x = pattern_next(x)) words[i] = x;
}

/* Any differing bit of any word leaves a bit in the answer; no branch per word. */
static inline u64 pattern_difference(const u64 *words, u32 count, u64 x) {
  u64 difference = 0;
  for (u32 i = 0; i < count; i++, x = pattern_next(x)) difference |= words[i] ^ x;
  return difference;
}

/* -- the gate: a worker passes it batch by batch; who holds it sees a moment in which nothing changes -------------- */

struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int holders;
  bool inside;
};

#define GATE_INITIALIZER {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false}

void gate_enter(struct gate *gate);
void gate_leave(struct gate *gate);
void gate_hold(struct gate *gate);
void gate_release(struct gate *gate);

/* -- shared by the parts ------------------------------------------------------------------------------------------ */

extern char boot_id[17];       /* random for each boot, so a live move keeps it and a restart does not */
extern volatile bool stopping; /* set once, at shutdown: long work ends early */
extern char problems[512];     /* what of the command line could not be had; empty when all is well */

u64 random_u64(void);
/* Adds to `problems`; plain words without quotes, for they go into JSON. */
void report_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
void start_thread(void *(*run)(void *), void *argument);
void lower_priority(void); /* the calling thread yields to the echo and to the kernel's network threads */

/* Value of `drover.<name>=` on the kernel command line; false when it is not there. */
bool setting(const char *name, char *value, size_t size);

/* -- memory.c ------------------------------------------------------------------------------------------------------ */

struct memory_status {
  bool ready;
  u64 fill_pages, set_pages;
  u64 pages_per_second, set_mib, bytes_per_page, achieved, written;
};

void memory_start(u64 fill_mib, u64 pages_per_second, u64 set_mib);
void memory_wait_ready(void);
/* NULL, or why not. The caller holds the command lock, as for every call below that changes or checks something. */
const char *memory_load(u64 pages_per_second, u64 set_mib, u64 bytes_per_page);
void memory_verify(u64 *pages, u64 *bad);
const char *memory_corrupt(void);
void memory_stop(void);
struct memory_status memory_status(void);

/* -- disk.c -------------------------------------------------------------------------------------------------------- */

struct disk_status {
  bool ready;
  u64 writes_per_second, achieved, sequence, errors, boots;
  const char *found; /* at boot: checking, no-disk, foreign, blank, unsealed, sealed */
  u64 boot_blocks, boot_bad, boot_sequence;
};

void disk_start(u64 writes_per_second);
void disk_wait_ready(void);
const char *disk_rate(u64 writes_per_second);
void disk_verify(u64 *blocks, u64 *bad);
const char *disk_corrupt(void);
const char *disk_sync(void);
void disk_seal(void);
struct disk_status disk_status(void);

/* -- echo.c, control.c ---------------------------------------------------------------------------------------------- */

int listen_tcp(uint16_t port);
void echo_start(void);
void control_start(void);
void command_lock(void);
void command_unlock(void);
