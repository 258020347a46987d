/* The guest's memory under test: a fill that never changes and a working set that a dirtier writes at a given rate.
 *
 * Every byte of both is a function of (seed, page index, generation). The generations of the working set are kept
 * in a table apart, so a page that lost its last write, or got another page's content, does not match.
 */
#include "common.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

enum {
  BATCH_PAGES = 512,  /* written per passage of the gate: a fraction of a millisecond */
  BACKLOG_MS = 50,    /* what a stall (a migration's pause) may owe; more is dropped, never burst out */
  SPARE_MIB = 40,     /* left to the kernel and the shell */
};

static struct gate gate = GATE_INITIALIZER;
static pthread_mutex_t wake_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static u64 seed;
static u64 *fill, *set;
static u32 *generations; /* of the working set; 0 = as first written */
static u64 fill_pages;
static u64 set_pages;
static u32 hot_words = 64 / 8;
static u64 cursor, stride;
static _Atomic u64 rate, achieved, written;
static atomic_bool ready;
static u64 wanted_set_mib, wanted_rate;

static u64 *map_pages(u64 pages) {
  /* Aligned to 2 MiB for huge pages: fewer page faults and TLB misses, which emulation makes dear. */
  const u64 huge = 2 << 20;
  u64 bytes = pages * PAGE_BYTES;
  char *at = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return NULL;
  u64 head = (huge - (uintptr_t)at % huge) % huge;
  if (head > 0) munmap(at, head);
  if (huge - head > 0) munmap(at + head + bytes, huge - head);
  madvise(at + head, bytes, MADV_HUGEPAGE);
  return (u64 *)(at + head);
}

static u64 free_mib(void) {
  struct sysinfo s;
  if (sysinfo(&s) != 0) return 0;
  u64 mib = ((u64)s.freeram * s.mem_unit) >> 20;
  return mib > SPARE_MIB ? mib - SPARE_MIB : 0;
}

/* The part of a set page that the dirtier rewrites lies at a place of its own in each page. */
static inline u32 hot_offset(u64 page) { return (u32)(mix(page) % (PAGE_WORDS - hot_words + 1)); }

static inline void write_set_page(u64 page) {
  u32 generation = ++generations[page];
  if (generation == 0) generation = generations[page] = 1;
  pattern_write(set + page * PAGE_WORDS + hot_offset(page), hot_words, pattern_start(~seed, page, generation));
}

static bool set_page_holds(u64 page) {
  const u64 *words = set + page * PAGE_WORDS;
  u64 base = pattern_start(~seed, page, 0);
  if (generations[page] == 0) return pattern_difference(words, PAGE_WORDS, base) == 0;
  u32 from = hot_offset(page), to = from + hot_words;
  u64 difference = pattern_difference(words, from, base);
  difference |= pattern_difference(words + from, hot_words, pattern_start(~seed, page, generations[page]));
  for (u32 i = 0; i < to; i++) base = pattern_next(base);
  difference |= pattern_difference(words + to, PAGE_WORDS - to, base);
  return difference == 0;
}

/* Odd-looking steps through the set: every page once per lap, neighbours far apart, as a real program's pages are. */
static u64 coprime_stride(u64 pages) {
  u64 step = pages * 618 / 1000 + 1;
  for (;; step++) {
    u64 a = pages, b = step;
    while (b != 0) {
      u64 rest = a % b;
      a = b;
      b = rest;
    }
    if (a == 1) return step;
  }
}

/* Replaces the set; the old one stays when there is no room. */
static const char *make_set(u64 pages, u32 words) {
  static char why[96];
  u64 free_now = free_mib() + set_pages / 256;
  if (pages * PAGE_BYTES >> 20 > free_now) {
    snprintf(why, sizeof why, "a set of %llu MiB does not fit: %llu MiB are free",
             (unsigned long long)(pages * PAGE_BYTES >> 20), (unsigned long long)free_now);
    return why;
  }
  if (set != NULL) {
    munmap(set, set_pages * PAGE_BYTES);
    free(generations);
  }
  set = NULL;
  generations = NULL;
  set_pages = 0;
  u64 *at = map_pages(pages);
  u32 *table = calloc(pages, sizeof *table);
  if (at == NULL || table == NULL) {
    free(table);
    return "no memory for the set";
  }
  for (u64 page = 0; page < pages; page++)
    pattern_write(at + page * PAGE_WORDS, PAGE_WORDS, pattern_start(~seed, page, 0));
  set = at;
  generations = table;
  hot_words = words;
  cursor = 0;
  stride = coprime_stride(pages);
  set_pages = pages;
  return NULL;
}

/* Writes what is due, up to one batch; returns how many pages that was. */
static u64 write_batch(u64 due) {
  gate_enter(&gate);
  u64 count = set == NULL || due == 0 ? 0 : due < BATCH_PAGES ? due : BATCH_PAGES;
  for (u64 i = 0; i < count; i++) {
    write_set_page(cursor);
    cursor += stride;
    if (cursor >= set_pages) cursor -= set_pages;
  }
  gate_leave(&gate);
  return count;
}

static void dirty_at(u64 pages_per_second) {
  u64 start = now_ns(), credit = 0; /* pages written since start, or dropped */
  u64 window = start, window_pages = 0;
  u64 tick = start;
  while (!stopping && rate == pages_per_second) {
    u64 now = now_ns();
    u64 owed = (u64)((unsigned __int128)(now - start) * pages_per_second / NS_PER_S);
    u64 limit = pages_per_second * BACKLOG_MS / 1000 + 1;
    if (owed > credit + limit) credit = owed - limit;
    u64 count = write_batch(owed - credit);
    credit += count;
    written += count;
    window_pages += count;
    now = now_ns();
    if (now - window >= NS_PER_S) {
      achieved = (u64)((unsigned __int128)window_pages * NS_PER_S / (now - window));
      window = now;
      window_pages = 0;
    }
    if (credit < owed) continue; /* behind: no sleep */
    tick += NS_PER_MS;
    if (tick < now) tick = now + NS_PER_MS / 2;
    sleep_until_ns(tick);
  }
  achieved = 0;
}

static void *run(void *unused) {
  (void)unused;
  lower_priority();
  if (fill_pages > 0) {
    u64 free_now = free_mib();
    if (fill_pages * PAGE_BYTES >> 20 > free_now || (fill = map_pages(fill_pages)) == NULL) {
      report_problem("drover.fill of %llu MiB does not fit: %llu MiB are free",
                     (unsigned long long)(fill_pages * PAGE_BYTES >> 20), (unsigned long long)free_now);
      fill_pages = 0;
    }
    for (u64 page = 0; page < fill_pages && !stopping; page++)
      pattern_write(fill + page * PAGE_WORDS, PAGE_WORDS, pattern_start(seed, page, 0));
  }
  const char *why = wanted_rate > 0 ? make_set(wanted_set_mib * 256, hot_words) : NULL;
  if (why != NULL) report_problem("drover.load: %s", why);
  if (set != NULL) rate = wanted_rate;

  pthread_mutex_lock(&wake_mutex);
  ready = true;
  pthread_cond_broadcast(&wake);
  while (!stopping) {
    if (rate == 0) {
      pthread_cond_wait(&wake, &wake_mutex);
      continue;
    }
    pthread_mutex_unlock(&wake_mutex);
    dirty_at(rate);
    pthread_mutex_lock(&wake_mutex);
  }
  pthread_mutex_unlock(&wake_mutex);
  return NULL;
}

void memory_start(u64 fill_mib, u64 pages_per_second, u64 set_mib) {
  seed = random_u64();
  fill_pages = fill_mib * 256;
  wanted_rate = pages_per_second;
  wanted_set_mib = set_mib;
  start_thread(run, NULL);
}

void memory_wait_ready(void) {
  pthread_mutex_lock(&wake_mutex);
  while (!ready && !stopping) pthread_cond_wait(&wake, &wake_mutex);
  pthread_mutex_unlock(&wake_mutex);
}

static void set_rate(u64 pages_per_second) {
  pthread_mutex_lock(&wake_mutex);
  rate = pages_per_second;
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&wake_mutex);
}

const char *memory_load(u64 pages_per_second, u64 set_mib, u64 bytes_per_page) {
  if (bytes_per_page < 8 || bytes_per_page > PAGE_BYTES || bytes_per_page % 8 != 0)
    return "bytes per page must be a multiple of 8 from 8 to 4096";
  if (pages_per_second > 10 * 1000 * 1000) return "more than 10000000 pages/s";
  if (set_mib > 1 << 20) return "a set of more than 1 TiB";
  if (pages_per_second == 0) {
    set_rate(0); /* the set stays as it is, still checked */
    return NULL;
  }
  if (set_mib == 0) return "a load needs a set of at least 1 MiB";
  /* Another size or width starts a fresh set: what an older, wider write left in a page would not be known. */
  if (set == NULL || set_mib * 256 != set_pages || bytes_per_page / 8 != hot_words) {
    gate_hold(&gate);
    const char *why = make_set(set_mib * 256, (u32)(bytes_per_page / 8));
    gate_release(&gate);
    if (why != NULL) return why;
  }
  set_rate(pages_per_second);
  return NULL;
}

void memory_verify(u64 *pages, u64 *bad) {
  *pages = *bad = 0;
  gate_hold(&gate);
  for (u64 page = 0; page < fill_pages && !stopping; page++, ++*pages)
    if (pattern_difference(fill + page * PAGE_WORDS, PAGE_WORDS, pattern_start(seed, page, 0)) != 0) ++*bad;
  for (u64 page = 0; page < set_pages && !stopping; page++, ++*pages)
    if (!set_page_holds(page)) ++*bad;
  gate_release(&gate);
}

const char *memory_corrupt(void) {
  if (fill_pages > 0) { /* the dirtier never comes here, so the damage stays */
    ((volatile unsigned char *)fill)[random_u64() % (fill_pages * PAGE_BYTES)] ^= 0x10;
    return NULL;
  }
  if (set_pages == 0) return "there is no memory under test (drover.fill, load)";
  u64 page = random_u64() % set_pages;
  if (hot_words == PAGE_WORDS) return "every byte of the set is rewritten: nothing stays corrupt";
  u32 word = hot_offset(page) > 0 ? 0 : PAGE_WORDS - 1;
  ((volatile u64 *)set)[page * PAGE_WORDS + word] ^= 0x10;
  return NULL;
}

void memory_stop(void) { set_rate(0); }

struct memory_status memory_status(void) {
  u64 pages = set_pages;
  return (struct memory_status){
      .ready = ready,
      .fill_pages = fill_pages,
      .set_pages = pages,
      .pages_per_second = rate,
      .set_mib = pages / 256,
      .bytes_per_page = (u64)hot_words * 8,
      .achieved = achieved,
      .written = written,
  };
}
