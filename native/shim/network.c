/* The card's address and the way out by plain ioctls (netdevice(7)), and the function's resolv.conf. */
#define _GNU_SOURCE
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"

#define CARD "eth0"
#define RESOLVER "/run/hearth/resolv.conf"
#define FUNCTION_RESOLVER GUEST_FUNCTION_ROOT "/etc/resolv.conf"

static char fault_text[256];

static const char *fault(const char *what, const char *object) {
    snprintf(fault_text, sizeof fault_text, "cannot %s %s: %s", what, object, strerror(errno));
    return fault_text;
}

static struct sockaddr ipv4(struct in_addr address) {
    union {
        struct sockaddr_in ipv4;
        struct sockaddr any;
    } both = {.ipv4 = {.sin_family = AF_INET, .sin_addr = address}};
    return both.any;
}

/* ADDRESS/PREFIX, such as 169.254.76.2/30. */
static bool read_address(const char *text, struct in_addr *address, struct in_addr *mask) {
    char digits[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    if (slash == NULL || (size_t)(slash - text) >= sizeof digits) return false;
    memcpy(digits, text, (size_t)(slash - text));
    digits[slash - text] = 0;
    char *end;
    unsigned long prefix = strtoul(slash + 1, &end, 10);
    if (inet_pton(AF_INET, digits, address) != 1 || end == slash + 1 || *end != 0 || prefix < 1 || prefix > 32) {
        return false;
    }
    mask->s_addr = htonl(UINT32_MAX << (32 - prefix));
    return true;
}

static const char *raise_card(int fd, struct in_addr address, struct in_addr mask, struct in_addr gateway) {
    struct ifreq request = {.ifr_name = CARD};
    request.ifr_addr = ipv4(address);
    if (ioctl(fd, SIOCSIFADDR, &request) < 0) return fault("give an address to", CARD);
    request.ifr_netmask = ipv4(mask);
    if (ioctl(fd, SIOCSIFNETMASK, &request) < 0) return fault("give a netmask to", CARD);
    request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) return fault("bring up", CARD);
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = request.ifr_name};
    route.rt_dst = route.rt_genmask = ipv4((struct in_addr){INADDR_ANY});
    route.rt_gateway = ipv4(gateway);
    return ioctl(fd, SIOCADDRT, &route) < 0 ? fault("add the default route to", CARD) : NULL;
}

/* The image's own resolv.conf cannot be written: a file of ours lies over it. An image without one goes without. */
static const char *name_servers(const struct configuration *c) {
    int fd = open(RESOLVER, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return fault("write", RESOLVER);
    for (size_t i = 0; i < c->name_server_count; i++) dprintf(fd, "nameserver %s\n", c->name_servers[i]);
    close(fd);
    if (mount(RESOLVER, FUNCTION_RESOLVER, NULL, MS_BIND, NULL) == 0) return NULL;
    return errno == ENOENT ? NULL : fault("bind", FUNCTION_RESOLVER);
}

const char *network_configure(const struct configuration *c) {
    struct in_addr address, mask, gateway;
    if (c->network_address == NULL) return NULL;
    if (!read_address(c->network_address, &address, &mask)) return "configure: malformed network address";
    if (c->network_gateway == NULL || inet_pton(AF_INET, c->network_gateway, &gateway) != 1) {
        return "configure: malformed network gateway";
    }
    for (size_t i = 0; i < c->name_server_count; i++) {
        struct in_addr server;
        if (inet_pton(AF_INET, c->name_servers[i], &server) != 1) return "configure: malformed name server";
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fault("open", "a socket");
    const char *wrong = raise_card(fd, address, mask, gateway);
    close(fd);
    return wrong == NULL ? name_servers(c) : wrong;
}
