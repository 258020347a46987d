/* The outside observer: a small static program that runs inside a client's network namespace.
 *
 *   probe udp ADDRESS PORT INTERVAL_US    asks a UDP echo at a steady rate; prints what was lost, as JSON lines
 *   probe ctl ADDRESS PORT                relays lines between stdin/stdout and a TCP port, so that no larger program
 *                                         has to be started inside the namespace
 *
 * Lines of `probe udp` (times are milliseconds; `at` and `from` count from 1970):
 *   {"t":"reply","at":T}                  the first reply of all, and the first after each byte read from stdin
 *   {"t":"gap","from":T,"ms":N}           no reply for N ms (> 10), from the last one before; printed when it has ended
 *   {"t":"alive","at":T,"sent":n,"received":n,"open":N,"lateMs":N,"rttMaxMs":N}
 *                                         every 250 ms; open: since the last reply; lateMs: by how much this program
 *                                         itself was late at worst, which a gap must be judged against
 *   {"t":"end","sent":n,"received":n,"longestGapMs":N,"rttMedianMs":N,"rttP99Ms":N,"rttMaxMs":N}
 * It ends on SIGTERM, SIGINT or the end of stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { GAP_MS = 10, ALIVE_MS = 250, RTT_BUCKETS = 20000, RTT_BUCKET_US = 100 };
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define MAGIC 0x65626f7264ull

struct echo {
  uint64_t magic, sequence, sent_ns;
};

struct observation {
  uint64_t sent, received;
  uint64_t last_ns;      /* monotonic, of the last reply; 0 before the first */
  uint64_t longest_ns;
  uint64_t late_ns;      /* since the last alive line */
  uint64_t rtt_window_ns, rtt_max_ns;
  bool announce;         /* say when the next reply comes */
  uint32_t rtt[RTT_BUCKETS];
};

static uint64_t clock_ns(clockid_t which) {
  struct timespec t;
  clock_gettime(which, &t);
  return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static double ms(uint64_t ns) { return (double)ns / (double)NS_PER_MS; }

/* Realtime of a monotonic moment shortly ago. */
static double realtime_ms(uint64_t monotonic_ns) {
  return ms(clock_ns(CLOCK_REALTIME)) - ms(clock_ns(CLOCK_MONOTONIC) - monotonic_ns);
}

static void send_request(int udp, struct observation *o) {
  struct echo request = {MAGIC, ++o->sent, clock_ns(CLOCK_MONOTONIC)};
  /* An unreachable host is what this program is here to see: errors count as requests without reply. */
  if (send(udp, &request, sizeof request, MSG_DONTWAIT) < 0) return;
}

static void take_reply(const struct echo *reply, struct observation *o) {
  uint64_t now = clock_ns(CLOCK_MONOTONIC);
  uint64_t rtt = now - reply->sent_ns, bucket = rtt / (RTT_BUCKET_US * 1000ull);
  o->received++;
  o->rtt[bucket < RTT_BUCKETS ? bucket : RTT_BUCKETS - 1]++;
  if (rtt > o->rtt_window_ns) o->rtt_window_ns = rtt;
  if (rtt > o->rtt_max_ns) o->rtt_max_ns = rtt;
  if (o->last_ns != 0 && now - o->last_ns > o->longest_ns) o->longest_ns = now - o->last_ns;
  if (o->last_ns != 0 && now - o->last_ns > GAP_MS * NS_PER_MS)
    printf("{\"t\":\"gap\",\"from\":%.3f,\"ms\":%.3f}\n", realtime_ms(o->last_ns), ms(now - o->last_ns));
  if (o->announce) printf("{\"t\":\"reply\",\"at\":%.3f}\n", realtime_ms(now));
  o->announce = false;
  o->last_ns = now;
}

static void take_replies(int udp, struct observation *o) {
  for (int i = 0; i < 1000; i++) {
    struct echo reply;
    ssize_t n = recv(udp, &reply, sizeof reply, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n == sizeof reply && reply.magic == MAGIC) take_reply(&reply, o);
  }
}

static void print_alive(struct observation *o, uint64_t started_ns) {
  uint64_t now = clock_ns(CLOCK_MONOTONIC);
  printf("{\"t\":\"alive\",\"at\":%.3f,\"sent\":%llu,\"received\":%llu,\"open\":%.3f,\"lateMs\":%.3f,\"rttMaxMs\":%.3f}\n",
         realtime_ms(now), (unsigned long long)o->sent, (unsigned long long)o->received,
         ms(now - (o->last_ns != 0 ? o->last_ns : started_ns)), ms(o->late_ns), ms(o->rtt_window_ns));
  o->late_ns = 0;
  o->rtt_window_ns = 0;
}

static double rtt_percentile_ms(const struct observation *o, uint64_t percent) {
  uint64_t wanted = (o->received * percent + 99) / 100, seen = 0;
  for (uint64_t i = 0; i < RTT_BUCKETS; i++)
    if ((seen += o->rtt[i]) >= wanted) return (double)((i + 1) * RTT_BUCKET_US) / 1000;
  return 0;
}

static void print_end(struct observation *o) {
  uint64_t open = o->last_ns != 0 ? clock_ns(CLOCK_MONOTONIC) - o->last_ns : 0;
  uint64_t longest = open > o->longest_ns ? open : o->longest_ns;
  printf("{\"t\":\"end\",\"sent\":%llu,\"received\":%llu,\"longestGapMs\":%.3f,\"rttMedianMs\":%.1f,\"rttP99Ms\":%.1f,"
         "\"rttMaxMs\":%.3f}\n",
         (unsigned long long)o->sent, (unsigned long long)o->received, ms(longest), rtt_percentile_ms(o, 50),
         rtt_percentile_ms(o, 99), ms(o->rtt_max_ns));
}

/* Returns false when the reader of stdout or the writer of stdin is gone. */
static bool take_input(struct observation *o) {
  char bytes[64];
  ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
  if (n < 0 && errno == EINTR) return true;
  if (n > 0) o->announce = true;
  return n > 0;
}

static int probe_udp(int udp, uint64_t interval_ns) {
  static struct observation o = {.announce = true};
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, NULL);
  int signals = signalfd(-1, &ends, SFD_CLOEXEC);

  /* Before everything else on a busy machine, or this program would measure its own waiting. It sleeps between
   * packets, so it takes little. Where it may not, lateMs says so. */
  struct sched_param first = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_RR, &first);
  prctl(PR_SET_TIMERSLACK, 1);

  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  uint64_t started = clock_ns(CLOCK_MONOTONIC), due = started + interval_ns, alive = started;
  struct itimerspec schedule = {
      .it_value = {.tv_sec = (time_t)(due / NS_PER_S), .tv_nsec = (long)(due % NS_PER_S)},
      .it_interval = {.tv_sec = (time_t)(interval_ns / NS_PER_S), .tv_nsec = (long)(interval_ns % NS_PER_S)},
  };
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &schedule, NULL);

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int watched[] = {timer, udp, signals, STDIN_FILENO};
  for (int i = 0; i < 4; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, watched[i], &event) != 0 && watched[i] != STDIN_FILENO) return 1;
  }

  for (bool running = true; running;) {
    struct epoll_event events[4];
    int count = epoll_wait(epoll, events, 4, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == timer) {
        uint64_t passed = 0, now = clock_ns(CLOCK_MONOTONIC);
        if (read(timer, &passed, sizeof passed) != sizeof passed) continue;
        /* After a stall one request, not a burst of those that were missed. */
        if (now > due && now - due > o.late_ns) o.late_ns = now - due;
        due += passed * interval_ns;
        send_request(udp, &o);
        if (now - alive >= ALIVE_MS * NS_PER_MS) {
          print_alive(&o, started);
          alive += (now - alive) / (ALIVE_MS * NS_PER_MS) * (ALIVE_MS * NS_PER_MS);
        }
      } else if (fd == udp) {
        take_replies(udp, &o);
      } else if (fd == signals || !take_input(&o)) {
        running = false;
      }
    }
    if (ferror(stdout)) return 1;
  }
  print_end(&o);
  return 0;
}

static bool write_all(int fd, const char *bytes, ssize_t count) {
  while (count > 0) {
    ssize_t n = write(fd, bytes, (size_t)count);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes += n;
    count -= n;
  }
  return true;
}

static int relay(int tcp) {
  struct pollfd ends[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = tcp, .events = POLLIN}};
  char bytes[4096];
  for (;;) {
    if (poll(ends, 2, -1) < 0 && errno != EINTR) return 1;
    if (ends[0].revents != 0) {
      ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
      if (n <= 0) {
        shutdown(tcp, SHUT_WR);
        ends[0].fd = -1; /* the answer may still come */
        ends[0].revents = 0;
      } else if (!write_all(tcp, bytes, n)) {
        return 1;
      }
    }
    if (ends[1].revents != 0) {
      ssize_t n = read(tcp, bytes, sizeof bytes);
      if (n <= 0) return n == 0 ? 0 : 1;
      if (!write_all(STDOUT_FILENO, bytes, n)) return 1;
    }
  }
}

static int usage(void) {
  fputs("usage: probe udp ADDRESS PORT INTERVAL_US\n       probe ctl ADDRESS PORT\n", stderr);
  return 64;
}

int main(int count, char **arguments) {
  if (count < 4) return usage();
  bool udp = strcmp(arguments[1], "udp") == 0;
  if (!udp && strcmp(arguments[1], "ctl") != 0) return usage();
  if (count != (udp ? 5 : 4)) return usage();

  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[3]))};
  if (inet_pton(AF_INET, arguments[2], &to.sin_addr) != 1 || to.sin_port == 0) return usage();
  uint64_t interval_ns = udp ? strtoull(arguments[4], NULL, 10) * 1000 : 0;
  if (udp && (interval_ns < 100000 || interval_ns > 10 * NS_PER_S)) return usage();

  prctl(PR_SET_PDEATHSIG, SIGTERM);
  setvbuf(stdout, NULL, _IOLBF, 1 << 16);
  int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
    /* UDP: no route yet; requests sent later say so themselves, but a socket without a peer cannot be used. */
    fprintf(stderr, "probe: %s:%s: %s\n", arguments[2], arguments[3], strerror(errno));
    return 2;
  }
  return udp ? probe_udp(fd, interval_ns) : relay(fd);
}
