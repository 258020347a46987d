/* The checked disk: /dev/vda as a whole, without a file system.
 *
 *     [ data blocks 0 .. D-1 ][ table: 4 bytes per data block ][ header ]
 *
 * Every write has a sequence number, counted over all boots; the table says of each block which write was its last,
 * and the block's content is a function of (seed, block, sequence). While the guest runs the table is in memory only
 * (so a live move must bring both, in step); a clean shutdown writes it with a checksum and marks the header sealed,
 * and the next boot, wherever that is, checks every block against it before it writes anything.
 *
 * A header left open means that the guest did not end cleanly: the table on disk is then older than the blocks, and a
 * new ledger is started. A disk with anything else on it is left alone.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
  CHUNK_BLOCKS = 64,          /* blocks read at once by a check */
  MAX_DATA_BLOCKS = 1 << 20,  /* 4 GiB: keeps the table (4 MiB) and a check small on a large disk */
  MIN_TOTAL_BLOCKS = 64,
  SYNC_EVERY_MS = 500,
  BACKLOG_MS = 50,
};

#define LEDGER_MAGIC 0x3172656764654c44ull /* "DLedger1" */
enum { LEDGER_OPEN = 1, LEDGER_SEALED = 2 };

struct header {
  u64 magic, state, boots, sequence, seed, data_blocks, table_sum, header_sum;
};

static struct gate gate = GATE_INITIALIZER;
static pthread_mutex_t wake_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static int disk = -1; /* -1: none, or not ours to write */
static u64 data_blocks, table_blocks, total_blocks;
static u32 *table;    /* sequence of the last write, 0 = never written */
static u64 *chunk;    /* CHUNK_BLOCKS blocks, aligned for O_DIRECT */
static struct header *header;
static bool sealed_on_disk;
static _Atomic u64 rate, achieved, sequence, errors, boots = 1;
static atomic_bool ready;
static _Atomic(const char *) found = "checking";
static u64 boot_blocks, boot_bad, boot_sequence;

static u64 checksum(const void *bytes, u64 count) {
  const u64 *words = bytes;
  u64 sum = 0;
  for (u64 i = 0; i < count / 8; i++) sum = mix(sum ^ words[i]) + i;
  return sum;
}

static bool transfer(bool writing, void *buffer, u64 block, u64 blocks) {
  char *at = buffer;
  u64 left = blocks * PAGE_BYTES, offset = block * PAGE_BYTES;
  while (left > 0) {
    ssize_t n = writing ? pwrite(disk, at, left, (off_t)offset) : pread(disk, at, left, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    offset += (u64)n;
    left -= (u64)n;
  }
  return true;
}

static bool write_header(u64 state) {
  header->state = state;
  header->boots = boots;
  header->sequence = sequence;
  header->header_sum = checksum(header, offsetof(struct header, header_sum));
  bool written = transfer(true, header, total_blocks - 1, 1) && fdatasync(disk) == 0;
  if (!written) errors++;
  sealed_on_disk = written && state == LEDGER_SEALED;
  return written;
}

/* Reads every block that was ever written and counts those that do not hold their last write. */
static void check_blocks(u64 *blocks, u64 *bad) {
  *blocks = *bad = 0;
  for (u64 first = 0; first < data_blocks && !stopping; first += CHUNK_BLOCKS) {
    u64 count = data_blocks - first < CHUNK_BLOCKS ? data_blocks - first : CHUNK_BLOCKS;
    u32 any = 0;
    for (u64 i = 0; i < count; i++) any |= table[first + i];
    if (any == 0) continue;
    bool readable = transfer(false, chunk, first, count);
    for (u64 i = 0; i < count; i++) {
      u32 last = table[first + i];
      if (last == 0) continue;
      ++*blocks;
      u64 start = pattern_start(header->seed, first + i, last);
      if (!readable || pattern_difference(chunk + i * PAGE_WORDS, PAGE_WORDS, start) != 0) ++*bad;
    }
  }
}

static bool all_zero(const u64 *words) {
  u64 any = 0;
  for (u32 i = 0; i < PAGE_WORDS; i++) any |= words[i];
  return any == 0;
}

static const char *open_disk(void) {
  disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
  u64 bytes = 0;
  if (disk < 0) return "no-disk";
  if (ioctl(disk, BLKGETSIZE64, &bytes) != 0) return "foreign";
  total_blocks = bytes / PAGE_BYTES;
  if (total_blocks < MIN_TOTAL_BLOCKS) return "foreign";
  data_blocks = total_blocks < MAX_DATA_BLOCKS ? total_blocks : MAX_DATA_BLOCKS;
  table_blocks = (data_blocks * sizeof *table + PAGE_BYTES - 1) / PAGE_BYTES;
  if (data_blocks > total_blocks - 1 - table_blocks) data_blocks = total_blocks - 1 - table_blocks;

  table = aligned_alloc(PAGE_BYTES, table_blocks * PAGE_BYTES);
  chunk = aligned_alloc(PAGE_BYTES, CHUNK_BLOCKS * PAGE_BYTES);
  header = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
  if (table == NULL || chunk == NULL || header == NULL) return "foreign";
  memset(table, 0, table_blocks * PAGE_BYTES);

  if (!transfer(false, header, total_blocks - 1, 1) || !transfer(false, chunk, 0, 1)) return "foreign";
  if (header->magic != LEDGER_MAGIC) return all_zero((u64 *)header) && all_zero(chunk) ? "blank" : "foreign";
  if (header->header_sum != checksum(header, offsetof(struct header, header_sum))) return "foreign";
  if (header->data_blocks != data_blocks) return "foreign";
  boots = header->boots + 1;
  sequence = boot_sequence = header->sequence;
  if (header->state != LEDGER_SEALED) return "unsealed";
  if (!transfer(false, table, total_blocks - 1 - table_blocks, table_blocks)) return "unsealed";
  return checksum(table, table_blocks * PAGE_BYTES) == header->table_sum ? "sealed" : "unsealed";
}

static void open_ledger(void) {
  const char *what = open_disk();
  if (strcmp(what, "no-disk") == 0 || strcmp(what, "foreign") == 0) {
    if (disk >= 0) close(disk);
    disk = -1;
  } else if (strcmp(what, "sealed") == 0) {
    check_blocks(&boot_blocks, &boot_bad);
    write_header(LEDGER_SEALED); /* counts this boot; the table on disk stays true until the first write */
  } else {
    memset(table, 0, table_blocks * PAGE_BYTES);
    memset(header, 0, PAGE_BYTES);
    header->magic = LEDGER_MAGIC;
    header->seed = random_u64();
    header->data_blocks = data_blocks;
    write_header(LEDGER_OPEN);
  }
  found = what;
}

static void write_block(u64 *buffer) {
  if (sealed_on_disk && !write_header(LEDGER_OPEN)) return;
  u64 block = random_u64() % data_blocks;
  u32 number = (u32)++sequence;
  if (number == 0) number = (u32)++sequence;
  pattern_write(buffer, PAGE_WORDS, pattern_start(header->seed, block, number));
  if (transfer(true, buffer, block, 1)) {
    table[block] = number;
  } else {
    errors++; /* the block may hold either content: no longer checked, but the error stays counted */
    table[block] = 0;
  }
}

static void write_at(u64 writes_per_second, u64 *buffer) {
  u64 start = now_ns(), credit = 0, synced = start;
  u64 window = start, window_writes = 0;
  bool dirty = false;
  while (!stopping && rate == writes_per_second) {
    u64 now = now_ns();
    u64 owed = (u64)((unsigned __int128)(now - start) * writes_per_second / NS_PER_S);
    u64 limit = writes_per_second * BACKLOG_MS / 1000 + 1;
    if (owed > credit + limit) credit = owed - limit;
    if (credit < owed) {
      gate_enter(&gate);
      write_block(buffer);
      gate_leave(&gate);
      credit++;
      window_writes++;
      dirty = true;
    }
    if (dirty && now - synced >= SYNC_EVERY_MS * NS_PER_MS) {
      if (fdatasync(disk) != 0) errors++;
      synced = now;
      dirty = false;
    }
    if (now - window >= NS_PER_S) {
      achieved = (u64)((unsigned __int128)window_writes * NS_PER_S / (now - window));
      window = now;
      window_writes = 0;
    }
    if (credit < owed) continue;
    u64 due = start + (u64)((unsigned __int128)(credit + 1) * NS_PER_S / writes_per_second);
    sleep_until_ns(due < now + 100 * NS_PER_MS ? due : now + 100 * NS_PER_MS);
  }
  if (dirty && fdatasync(disk) != 0) errors++;
  achieved = 0;
}

static void *run(void *wanted) {
  lower_priority();
  u64 *buffer = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
  open_ledger();
  if (disk >= 0) rate = (u64)(uintptr_t)wanted;
  if (disk < 0 && wanted != NULL) report_problem("drover.disk: no disk to write to at /dev/vda (%s)", found);

  pthread_mutex_lock(&wake_mutex);
  ready = true;
  pthread_cond_broadcast(&wake);
  while (!stopping) {
    if (rate == 0) {
      pthread_cond_wait(&wake, &wake_mutex);
      continue;
    }
    pthread_mutex_unlock(&wake_mutex);
    write_at(rate, buffer);
    pthread_mutex_lock(&wake_mutex);
  }
  pthread_mutex_unlock(&wake_mutex);
  return NULL;
}

void disk_start(u64 writes_per_second) { start_thread(run, (void *)(uintptr_t)writes_per_second); }

void disk_wait_ready(void) {
  pthread_mutex_lock(&wake_mutex);
  while (!ready && !stopping) pthread_cond_wait(&wake, &wake_mutex);
  pthread_mutex_unlock(&wake_mutex);
}

const char *disk_rate(u64 writes_per_second) {
  if (disk < 0) return strcmp(found, "foreign") == 0 ? "the disk holds something else" : "there is no disk";
  if (writes_per_second > 100000) return "more than 100000 writes/s";
  pthread_mutex_lock(&wake_mutex);
  rate = writes_per_second;
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&wake_mutex);
  return NULL;
}

void disk_verify(u64 *blocks, u64 *bad) {
  *blocks = *bad = 0;
  if (disk < 0) return;
  gate_hold(&gate);
  check_blocks(blocks, bad);
  gate_release(&gate);
}

const char *disk_corrupt(void) {
  if (disk < 0) return "there is no disk";
  const char *why = "no block was written yet";
  gate_hold(&gate);
  u64 start = random_u64() % data_blocks;
  for (u64 i = 0; i < data_blocks; i++) {
    u64 block = (start + i) % data_blocks;
    if (table[block] == 0) continue;
    why = "the disk could not be read or written";
    if (!transfer(false, chunk, block, 1)) break;
    ((unsigned char *)chunk)[random_u64() % PAGE_BYTES] ^= 0x10;
    if (transfer(true, chunk, block, 1) && fdatasync(disk) == 0) why = NULL;
    break;
  }
  gate_release(&gate);
  return why;
}

const char *disk_sync(void) {
  if (disk < 0) return NULL;
  gate_hold(&gate);
  bool synced = fdatasync(disk) == 0;
  gate_release(&gate);
  if (!synced) errors++;
  return synced ? NULL : "fdatasync failed";
}

void disk_seal(void) {
  if (disk < 0 || !ready) return;
  gate_hold(&gate); /* for good: nothing is written after the seal */
  if (sealed_on_disk) return;
  header->table_sum = checksum(table, table_blocks * PAGE_BYTES);
  if (fdatasync(disk) == 0 && transfer(true, table, total_blocks - 1 - table_blocks, table_blocks) &&
      fdatasync(disk) == 0)
    write_header(LEDGER_SEALED);
}

struct disk_status disk_status(void) {
  return (struct disk_status){
      .ready = ready,
      .writes_per_second = rate,
      .achieved = achieved,
      .sequence = sequence,
      .errors = errors,
      .boots = boots,
      .found = found,
      .boot_blocks = boot_blocks,
      .boot_bad = boot_bad,
      .boot_sequence = boot_sequence,
  };
}
