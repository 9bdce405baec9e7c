/* The network: an interface up with its addresses and routes, by rtnetlink; names by resolv.conf
 * and hosts.
 *
 * musl brings no linux/rtnetlink.h: the few structures and numbers stand below (Linux UAPI
 * linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, which do not change). The two files are bind
 * mounts from /run, so that they neither change the image nor need it to be writable.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/init/init.h"

struct netlink_header {
  uint32_t length;
  uint16_t type, flags;
  uint32_t sequence, port;
};
struct link_message {
  uint8_t family, pad;
  uint16_t type;
  int32_t index;
  uint32_t flags, change;
};
struct address_message {
  uint8_t family, prefix, flags, scope;
  uint32_t index;
};
struct route_message {
  uint8_t family, to_length, from_length, tos, table, protocol, scope, type;
  uint32_t flags;
};
struct attribute {
  uint16_t length, type;
};
enum {
  kAfNetlink = 16,
  kNetlinkRoute = 0,
  kNewLink = 16, /* RTM_* */
  kNewAddress = 20,
  kNewRoute = 24,
  kRequest = 1, /* NLM_F_* */
  kAck = 4,
  kReplace = 0x100,
  kCreate = 0x400,
  kErrorMessage = 2,     /* NLMSG_ERROR */
  kMtuAttribute = 4,     /* IFLA_MTU */
  kAddress = 1,          /* IFA_ADDRESS */
  kLocal = 2,            /* IFA_LOCAL */
  kNoDuplicateCheck = 2, /* IFA_F_NODAD: a machine's addresses are given, not guessed */
  kOutInterface = 4,     /* RTA_OIF */
  kGateway = 5,          /* RTA_GATEWAY */
  kMainTable = 254,
  kBootProtocol = 3,
  kUnicast = 1,
};

struct request {
  struct netlink_header header;
  unsigned char body[256];
};

static void begin(struct request* request, uint16_t type, uint16_t flags, const void* message,
                  size_t size) {
  memset(request, 0, sizeof *request);
  request->header.type = type;
  request->header.flags = (uint16_t)(kRequest | kAck | flags);
  request->header.length = (uint32_t)(sizeof request->header + size);
  memcpy(request->body, message, size);
}

static void add(struct request* request, uint16_t type, const void* value, size_t size) {
  struct attribute head = {(uint16_t)(sizeof head + size), type};
  unsigned char* at = (unsigned char*)request + request->header.length;
  memcpy(at, &head, sizeof head);
  memcpy(at + sizeof head, value, size);
  request->header.length += (uint32_t)((sizeof head + size + 3) & ~(size_t)3);
}

/* 0 or an errno. */
static int ask(int netlink, const struct request* request) {
  if (send(netlink, request, request->header.length, 0) < 0) return errno;
  struct {
    struct netlink_header header;
    int32_t error;
    unsigned char rest[1024];
  } answer;
  ssize_t size = recv(netlink, &answer, sizeof answer, 0);
  if (size < 0) return errno;
  if ((size_t)size < sizeof answer.header + 4 || answer.header.type != kErrorMessage) return EPROTO;
  return -answer.error;
}

size_t parse_address(const char* text, size_t length, unsigned char* address, unsigned* prefix) {
  char copy[64];
  if (length == 0 || length >= sizeof copy) return 0;
  memcpy(copy, text, length);
  copy[length] = '\0';
  char* slash = strchr(copy, '/');
  if ((slash != NULL) != (prefix != NULL)) return 0;
  if (slash != NULL) *slash = '\0';
  size_t size = inet_pton(AF_INET, copy, address) == 1    ? 4
                : inet_pton(AF_INET6, copy, address) == 1 ? 16
                                                          : 0;
  if (size == 0 || slash == NULL) return size;
  char* end = NULL;
  unsigned long value = strtoul(slash + 1, &end, 10);
  if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || value > size * 8) return 0;
  *prefix = (unsigned)value;
  return size;
}

static uint8_t family_of(size_t size) { return size == 4 ? AF_INET : AF_INET6; }

static int add_address(int netlink, uint32_t index, const unsigned char* address, size_t size,
                       unsigned prefix) {
  struct address_message message = {.family = family_of(size),
                                    .prefix = (uint8_t)prefix,
                                    .flags = size == 16 ? kNoDuplicateCheck : 0,
                                    .index = index};
  struct request request;
  begin(&request, kNewAddress, kCreate | kReplace, &message, sizeof message);
  add(&request, kLocal, address, size);
  add(&request, kAddress, address, size);
  return ask(netlink, &request);
}

static int add_gateway(int netlink, uint32_t index, const unsigned char* address, size_t size) {
  struct route_message message = {
      .family = family_of(size), .table = kMainTable, .protocol = kBootProtocol, .type = kUnicast};
  struct request request;
  begin(&request, kNewRoute, kCreate | kReplace, &message, sizeof message);
  add(&request, kGateway, address, size);
  add(&request, kOutInterface, &index, sizeof index);
  return ask(netlink, &request);
}

static int raise_link(int netlink, uint32_t index, uint32_t mtu) {
  struct link_message message = {.index = (int32_t)index, .flags = IFF_UP, .change = IFF_UP};
  struct request request;
  begin(&request, kNewLink, 0, &message, sizeof message);
  if (mtu != 0) add(&request, kMtuAttribute, &mtu, sizeof mtu);
  return ask(netlink, &request);
}

void set_up_loopback(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  ioctl(fd, SIOCSIFFLAGS, &request);
  close(fd);
}

/* --- Names
 * ----------------------------------------------------------------------------------------
 */

/* The program's /etc/NAME becomes a bind mount of /run/smol/etc/NAME. */
static bool publish(const char* name, const char* text, struct failure* failure) {
  char ours[128];
  char theirs[128];
  if (!make_folders("/run/smol/etc", failure)) return false;
  snprintf(ours, sizeof ours, "/run/smol/etc/%s", name);
  snprintf(theirs, sizeof theirs, "/etc/%s", name);
  int fd = open(ours, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  if (!good) return fail(failure, "%s: %s", ours, strerror(errno));
  struct stat mine;
  struct stat there;
  if (stat(ours, &mine) == 0 && stat(theirs, &there) == 0 && mine.st_dev == there.st_dev &&
      mine.st_ino == there.st_ino)
    return true; /* mounted before */
  mkdir("/etc", 0755);
  fd = open(theirs, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 && errno == ENOENT) {
    /* A symbolic link to a folder that another init would make, as for systemd-resolved. */
    unlink(theirs);
    fd = open(theirs, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  }
  if (fd < 0 && errno == EROFS && access(theirs, F_OK) != 0) {
    char line[200];
    snprintf(line, sizeof line, "%s is missing and its file system read-only", theirs);
    say(line); /* the network is there all the same */
    return true;
  }
  if (fd >= 0) close(fd);
  if (mount(ours, theirs, NULL, MS_BIND, NULL) == 0) return true;
  return fail(failure, "%s: %s", theirs, strerror(errno));
}

static bool publish_resolvers(const struct network_config* network, struct failure* failure) {
  char text[4096];
  size_t used = 0;
  text[0] = '\0';
  if (network->search[0] != '\0')
    used = (size_t)snprintf(text, sizeof text, "search %.2000s\n", network->search);
  for (const char* at = network->dns; *at != '\0';) {
    size_t length = strcspn(at, " ");
    unsigned char address[16];
    if (parse_address(at, length, address, NULL) == 0)
      return fail(failure, "DNS server '%.60s': not an address", at);
    if (sizeof text - used > length + 16)
      used +=
          (size_t)snprintf(text + used, sizeof text - used, "nameserver %.*s\n", (int)length, at);
    at += length;
    at += strspn(at, " ");
  }
  return publish("resolv.conf", text, failure);
}

/* The image's own lines, and what must be there. */
static bool publish_hosts(const char* address, struct failure* failure) {
  static char text[32768];
  size_t used = 0;
  int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);
  ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1024) : 0;
  if (fd >= 0) close(fd);
  if (size > 0) used = (size_t)size;
  text[used] = '\0';
  if (used > 0 && text[used - 1] != '\n') text[used++] = '\n';
  text[used] = '\0';
  if (strstr(text, "localhost") == NULL)
    used += (size_t)snprintf(text + used, sizeof text - used,
                             "127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
  const char* name = set_hostname_text();
  size_t length = strcspn(address, "/ ");
  if (name[0] != '\0' && length > 0 && strstr(text, name) == NULL)
    snprintf(text + used, sizeof text - used, "%.*s %.200s\n", (int)length, address, name);
  return publish("hosts", text, failure);
}

static bool add_all(int netlink, uint32_t index, const char* list, bool gateways,
                    struct failure* failure) {
  for (const char* at = list; *at != '\0';) {
    size_t length = strcspn(at, " ");
    unsigned char address[16];
    unsigned prefix = 0;
    size_t size = parse_address(at, length, address, gateways ? NULL : &prefix);
    if (size == 0)
      return fail(failure, "network: '%.*s' is not %s", (int)length, at,
                  gateways ? "a gateway's address" : "an address with its length");
    int error = gateways ? add_gateway(netlink, index, address, size)
                         : add_address(netlink, index, address, size, prefix);
    /* A kernel without IPv6 still has a network. */
    if (error == EAFNOSUPPORT && size == 16) error = 0;
    if (error == EOPNOTSUPP && size == 16) error = 0;
    if (error != 0)
      return fail(failure, "network: %s %.*s: %s", gateways ? "gateway" : "address", (int)length,
                  at, strerror(error));
    at += length;
    at += strspn(at, " ");
  }
  return true;
}

bool set_up_network(const struct network_config* network, struct failure* failure) {
  char* end = NULL;
  unsigned long mtu = strtoul(network->mtu, &end, 10);
  if (*end != '\0' || mtu > 65535) return fail(failure, "network: MTU '%.20s'", network->mtu);
  unsigned index = if_nametoindex(network->interface);
  if (index == 0) return fail(failure, "network: no interface %.40s", network->interface);
  int netlink = socket(kAfNetlink, SOCK_RAW | SOCK_CLOEXEC, kNetlinkRoute);
  if (netlink < 0) return fail(failure, "network: netlink: %s", strerror(errno));
  int error = raise_link(netlink, index, (uint32_t)mtu);
  bool good = error == 0 || fail(failure, "network: %s: %s", network->interface, strerror(error));
  good = good && add_all(netlink, index, network->addresses, false, failure) &&
         add_all(netlink, index, network->gateways, true, failure);
  close(netlink);
  if (good && network->dns[0] != '\0') good = publish_resolvers(network, failure);
  return good && publish_hosts(network->addresses, failure);
}
