/* Process 1 of the lab's guest: brings up just what the workload needs, starts the QEMU guest agent where the machine has a
 * port for it, then waits for the power button.
 *
 * Settings come from the kernel command line:
 *   drover.ip=10.1.2.3/24  drover.gateway=10.1.2.1     the first network card
 *   drover.fill=256                                    MiB to fill with a pattern
 *   drover.load=2500,32                                page writes per second, MiB of the set they go to
 *   drover.disk=50                                     4 KiB writes per second to /dev/vda
 *   drover.noacpi=1                                    ignores the power button, as a guest that hangs does
 *
 * Everything is done by system calls, without a shell: under emulation each process costs tens of milliseconds.
 */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

char boot_id[17];
char problems[512];
volatile bool stopping;

static char command_line[4096];

/* -- small tools that the other parts share ------------------------------------------------------------------------ */

void report_problem(const char *format, ...) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  va_list arguments;
  va_start(arguments, format);
  pthread_mutex_lock(&mutex);
  size_t used = strlen(problems);
  if (used > 0 && used + 3 < sizeof problems) used += (size_t)sprintf(problems + used, "; ");
  vsnprintf(problems + used, sizeof problems - used, format, arguments);
  pthread_mutex_unlock(&mutex);
  va_end(arguments);
}

void gate_enter(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  while (gate->holders > 0) pthread_cond_wait(&gate->changed, &gate->mutex);
  gate->inside = true;
  pthread_mutex_unlock(&gate->mutex);
}

void gate_leave(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->inside = false;
  if (gate->holders > 0) pthread_cond_broadcast(&gate->changed);
  pthread_mutex_unlock(&gate->mutex);
}

void gate_hold(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->holders++;
  while (gate->inside) pthread_cond_wait(&gate->changed, &gate->mutex);
  pthread_mutex_unlock(&gate->mutex);
}

void gate_release(struct gate *gate) {
  pthread_mutex_lock(&gate->mutex);
  gate->holders--;
  pthread_cond_broadcast(&gate->changed);
  pthread_mutex_unlock(&gate->mutex);
}

static u64 random_seed;
static _Atomic u64 random_count;

u64 random_u64(void) { return mix(random_seed + 0x9e3779b97f4a7c15ull * ++random_count); }

/* The kernel's own pool may hold little this early, so the clocks are mixed in: two boots never agree on all. */
static void seed_random(void) {
  struct timespec real;
  u64 pool = 0;
  clock_gettime(CLOCK_REALTIME, &real);
  if (getrandom(&pool, sizeof pool, 4 /* GRND_INSECURE: does not block */) < 0) pool = 0;
  random_seed = mix(pool ^ mix((u64)real.tv_sec * NS_PER_S + (u64)real.tv_nsec) ^ mix(__builtin_ia32_rdtsc()));
  snprintf(boot_id, sizeof boot_id, "%016llx", (unsigned long long)random_u64());
}

void start_thread(void *(*run)(void *), void *argument) {
  pthread_t thread;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 << 10);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  if (pthread_create(&thread, &small, run, argument) != 0) perror("pthread_create");
}

void lower_priority(void) { setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19); }

bool setting(const char *name, char *value, size_t size) {
  char key[64];
  int length = snprintf(key, sizeof key, "drover.%s=", name);
  for (const char *at = command_line; (at = strstr(at, key)) != NULL; at++) {
    if (at != command_line && at[-1] != ' ') continue;
    snprintf(value, size, "%.*s", (int)strcspn(at + length, " \n"), at + length);
    return true;
  }
  return false;
}

/* -- bringing the guest up -------------------------------------------------------------------------------------------- */

static void mount_file_systems(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/tmp", 01777);
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sys", "/sys", "sysfs", 0, NULL);
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t n = read(fd, command_line, sizeof command_line - 1);
  command_line[n > 0 ? n : 0] = 0;
  close(fd);
}

/* /modules/order names them one per line, each after those that it needs. */
static void load_modules(void) {
  FILE *order = fopen("/modules/order", "re");
  char path[256] = "/modules/";
  while (order != NULL && fgets(path + 9, sizeof path - 9, order) != NULL) {
    path[strcspn(path, "\n")] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)) perror(path);
    close(fd);
  }
  if (order != NULL) fclose(order);
}

static void bring_up(int control, const char *card) {
  struct ifreq request = {0};
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  if (ioctl(control, SIOCGIFFLAGS, &request) != 0) return;
  request.ifr_flags |= IFF_UP;
  if (ioctl(control, SIOCSIFFLAGS, &request) != 0) perror(card);
}

/*
 * The card goes down before the machine does. Linux 6.1 takes virtio devices away at shutdown while traffic still comes in, and
 * its virtio-net driver may then wait for ever for a ring that is gone, with the CPU to itself.
 */
static void bring_down(const char *card) {
  int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {0};
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  if (ioctl(control, SIOCGIFFLAGS, &request) != 0) return;
  request.ifr_flags &= ~IFF_UP;
  if (ioctl(control, SIOCSIFFLAGS, &request) != 0) perror(card);
}

static void write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) perror(path);
  close(fd);
}

static void configure_network(void) {
  char address[64], gateway[64];
  /* The card announces its address when it comes up: who waits for this guest need not ask again a second later. */
  write_file("/proc/sys/net/ipv4/conf/all/arp_notify", "1");
  int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bring_up(control, "lo");
  if (setting("ip", address, sizeof address)) {
    char *slash = strchr(address, '/');
    int bits = slash != NULL ? atoi(slash + 1) : 24;
    if (slash != NULL) *slash = 0;
    struct ifreq request = {.ifr_name = "eth0"};
    struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
    in->sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &in->sin_addr) != 1 || bits < 1 || bits > 32)
      report_problem("drover.ip is not an address with a prefix length");
    else if (ioctl(control, SIOCSIFADDR, &request) != 0)
      report_problem("drover.ip: there is no network card");
    in->sin_addr.s_addr = htonl(~0u << (32 - bits));
    ioctl(control, SIOCSIFNETMASK, &request);
    bring_up(control, "eth0");
  }
  if (setting("gateway", gateway, sizeof gateway)) {
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    ((struct sockaddr_in *)&route.rt_dst)->sin_family = AF_INET;
    ((struct sockaddr_in *)&route.rt_genmask)->sin_family = AF_INET;
    struct sockaddr_in *via = (struct sockaddr_in *)&route.rt_gateway;
    via->sin_family = AF_INET;
    if (inet_pton(AF_INET, gateway, &via->sin_addr) != 1 || ioctl(control, SIOCADDRT, &route) != 0)
      report_problem("drover.gateway cannot be used");
  }
  close(control);
}

static void start_workload(void) {
  char value[64];
  unsigned long long fill = 0, rate = 0, set_mib = 0, writes = 0;
  if (setting("fill", value, sizeof value)) fill = strtoull(value, NULL, 10);
  if (setting("load", value, sizeof value) && sscanf(value, "%llu,%llu", &rate, &set_mib) != 2)
    report_problem("drover.load is not PAGES_PER_S,SET_MIB");
  if (setting("disk", value, sizeof value)) writes = strtoull(value, NULL, 10);
  echo_start();
  control_start();
  memory_start(fill, rate, set_mib);
  disk_start(writes);
}

/* -- the end ------------------------------------------------------------------------------------------------------------ */

static void end(int how) {
  stopping = true; /* a check that is running ends early */
  command_lock();
  memory_stop();
  disk_seal();
  sync();
  bring_down("eth0");
  reboot(how);
}

/* -- waiting: power button, signals, the serial line --------------------------------------------------------------------- */

static bool is_power_button(int fd) {
  unsigned char keys[KEY_MAX / 8 + 1] = {0};
  return ioctl(fd, EVIOCGBIT(EV_KEY, sizeof keys), keys) >= 0 && (keys[KEY_POWER / 8] >> (KEY_POWER % 8) & 1) != 0;
}

static void watch(int epoll, int fd) {
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
}

static void watch_power_buttons(int epoll) {
  char path[32], value[8];
  if (setting("noacpi", value, sizeof value) && strcmp(value, "1") == 0) return;
  for (int i = 0; i < 8; i++) {
    snprintf(path, sizeof path, "/dev/input/event%d", i);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    if (is_power_button(fd))
      watch(epoll, fd);
    else
      close(fd);
  }
}

static bool power_pressed(int fd) {
  struct input_event event;
  while (read(fd, &event, sizeof event) == sizeof event)
    if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) return true;
  return false;
}

/* As fork(); the child is the first of a session of its own and hears all signals. */
static pid_t fork_apart(void) {
  pid_t child = fork();
  if (child != 0) return child;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setsid();
  return 0;
}

static pid_t start_shell(void) {
  pid_t child = fork_apart();
  if (child != 0) return child;
  int tty = open("/dev/ttyS0", O_RDWR);
  ioctl(tty, TIOCSCTTY, 1);
  for (int fd = 0; fd < 3; fd++) dup2(tty, fd);
  if (tty > 2) close(tty);
  char *arguments[] = {"sh", "-c", "[ -e /bin/ls ] || /bin/busybox --install -s /bin; exec /bin/sh -i", NULL};
  char *environment[] = {"PATH=/bin", "HOME=/", "TERM=linux", "PS1=guest# ", NULL};
  execve("/bin/busybox", arguments, environment);
  _exit(127);
}

/* -- the agent through which the host runs programs here ----------------------------------------------------------------- */

static const char agent_port[] = "org.qemu.guest_agent.0";

/* Ports are named by their device; without udev nobody links the name to the file. */
static bool find_agent_port(char *path, size_t size) {
  for (int device = 0; device < 4; device++)
    for (int port = 0; port < 4; port++) {
      char name[64] = "";
      snprintf(path, size, "/sys/class/virtio-ports/vport%dp%d/name", device, port);
      FILE *file = fopen(path, "re");
      if (file == NULL) continue;
      bool found = fgets(name, sizeof name, file) != NULL && strncmp(name, agent_port, sizeof agent_port - 1) == 0;
      fclose(file);
      snprintf(path, size, "/dev/vport%dp%d", device, port);
      if (found) return true;
    }
  return false;
}

/* 0: the machine has no such port, or it has ended too often. */
static pid_t start_agent(void) {
  static int starts;
  char port[64];
  if (starts >= 10 || !find_agent_port(port, sizeof port)) return 0;
  starts++;
  pid_t child = fork_apart();
  if (child != 0) return child;
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  if (null > 2) close(null);
  char command[256];
  snprintf(command, sizeof command,
           "[ -e /bin/ls ] || /bin/busybox --install -s /bin; exec /usr/sbin/qemu-ga -m virtio-serial -p %s -t /run", port);
  char *arguments[] = {"sh", "-c", command, NULL};
  char *environment[] = {"PATH=/bin", "HOME=/", NULL};
  execve("/bin/busybox", arguments, environment);
  _exit(127);
}

static int offer_shell(void) {
  int tty = open("/dev/ttyS0", O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  static const char hello[] = "\r\nDrover lab guest. Press Enter for a shell.\r\n";
  if (tty >= 0 && write(tty, hello, sizeof hello - 1) < 0) perror("/dev/ttyS0");
  return tty;
}

static void wait_for_end(int signals) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, signals);
  watch_power_buttons(epoll);
  int tty = offer_shell();
  if (tty >= 0) watch(epoll, tty);
  pid_t shell = 0;
  pid_t agent = start_agent();
  for (;;) {
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) != 1) continue;
    int fd = event.data.fd;
    if (fd == signals) {
      struct signalfd_siginfo received;
      if (read(signals, &received, sizeof received) != sizeof received) continue;
      /* What busybox's poweroff, halt and reboot send to process 1. */
      if (received.ssi_signo == SIGUSR1 || received.ssi_signo == SIGUSR2) end(RB_POWER_OFF);
      if (received.ssi_signo == SIGTERM) end(RB_AUTOBOOT);
      for (pid_t gone; (gone = waitpid(-1, NULL, WNOHANG)) > 0;) {
        if (gone == shell && (tty = offer_shell()) >= 0) watch(epoll, tty);
        if (gone == agent) agent = start_agent();
      }
    } else if (fd == tty) {
      char typed[64];
      if (read(tty, typed, sizeof typed) <= 0 && errno == EAGAIN) continue;
      close(tty);
      tty = -1;
      shell = start_shell();
    } else if (power_pressed(fd)) {
      end(RB_POWER_OFF);
    }
  }
}

int main(void) {
  sigset_t handled;
  sigemptyset(&handled);
  sigaddset(&handled, SIGCHLD);
  sigaddset(&handled, SIGTERM);
  sigaddset(&handled, SIGUSR1);
  sigaddset(&handled, SIGUSR2);
  sigprocmask(SIG_BLOCK, &handled, NULL); /* inherited by every thread; read from the descriptor instead */
  int signals = signalfd(-1, &handled, SFD_CLOEXEC);

  mount_file_systems();
  sethostname("guest", 5);
  seed_random();
  load_modules();
  configure_network();
  start_workload();
  wait_for_end(signals);
}
