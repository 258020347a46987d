/* UDP and TCP echo: what a prober outside measures the guest by.
 *
 * One thread in the real-time class: it answers while the dirtier runs flat out and while a check reads everything,
 * also on a guest with one CPU, so that a gap seen outside is the migration's and not the workload's.
 */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_BURST = 64, MAX_EVENTS = 16 };

int listen_tcp(uint16_t port) {
  int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 64) != 0) perror("listen");
  return listener;
}

static void echo_datagrams(int udp) {
  char packet[2048];
  for (int i = 0; i < MAX_BURST; i++) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t n = recvfrom(udp, packet, sizeof packet, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    if (n < 0) return;
    sendto(udp, packet, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&from, length);
  }
}

static void accept_stream(int listener, int epoll) {
  int yes = 1, stream = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (stream < 0) return;
  setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  setsockopt(stream, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = stream};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, stream, &event) != 0) close(stream);
}

static void echo_stream(int stream) {
  char bytes[4096];
  ssize_t n = recv(stream, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  /* A peer that sends without reading is cut off: waiting for it would silence everybody else. */
  if (n <= 0 || send(stream, bytes, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n) close(stream);
}

static void *run(void *unused) {
  (void)unused;
  struct sched_param real_time = {.sched_priority = 10};
  pthread_setschedparam(pthread_self(), SCHED_FIFO, &real_time);

  int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(UDP_ECHO_PORT)};
  if (bind(udp, (struct sockaddr *)&any, sizeof any) != 0) perror("bind");
  int listener = listen_tcp(TCP_ECHO_PORT);

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_ctl(epoll, EPOLL_CTL_ADD, udp, &(struct epoll_event){.events = EPOLLIN, .data.fd = udp});
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
  for (;;) {
    struct epoll_event events[MAX_EVENTS];
    int count = epoll_wait(epoll, events, MAX_EVENTS, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == udp)
        echo_datagrams(udp);
      else if (fd == listener)
        accept_stream(listener, epoll);
      else
        echo_stream(fd);
    }
  }
  return NULL;
}

void echo_start(void) { start_thread(run, NULL); }
