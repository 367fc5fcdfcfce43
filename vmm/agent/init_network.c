/* The network without DHCP: hvmd knows the address before the guest boots. */
#include "init.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CARD_WAIT_MS = 2000 };

static bool raise_link(int fd, const char *name)
{
    struct ifreq request = {0};

    strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return false;
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

void init_loopback(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || !raise_link(fd, "lo"))
        init_warn("cannot bring lo up: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* The first interface that stands for a device: lo has none. */
static bool find_card(char *to, size_t size)
{
    DIR *folder = opendir("/sys/class/net");
    const struct dirent *entry;
    char path[320];
    bool found = false;

    while (folder && !found && (entry = readdir(folder))) {
        snprintf(path, sizeof(path), "/sys/class/net/%s/device", entry->d_name);
        if (entry->d_name[0] == '.' || access(path, F_OK) < 0)
            continue;
        found = true;
        snprintf(to, size, "%.15s", entry->d_name);
    }
    if (folder)
        closedir(folder);
    return found;
}

static bool wait_for_card(char *to, size_t size)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    for (int waited_ms = 0; waited_ms < CARD_WAIT_MS; waited_ms++) {
        if (find_card(to, size))
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static void put_address(struct sockaddr *to, struct in_addr address)
{
    const struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = address};

    memcpy(to, &in, sizeof(in));
}

static bool set_address(int fd, const char *card, struct in_addr address, unsigned prefix)
{
    struct ifreq request = {0};
    struct in_addr mask = {.s_addr = htonl(prefix ? 0xffffffffU << (32 - prefix) : 0)};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", card);
    put_address(&request.ifr_addr, address);
    if (ioctl(fd, SIOCSIFADDR, &request) < 0)
        return false;
    put_address(&request.ifr_netmask, mask);
    return ioctl(fd, SIOCSIFNETMASK, &request) == 0 && raise_link(fd, card);
}

static bool add_default_route(int fd, struct in_addr gateway)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

    put_address(&route.rt_dst, (struct in_addr){0});
    put_address(&route.rt_genmask, (struct in_addr){0});
    put_address(&route.rt_gateway, gateway);
    return ioctl(fd, SIOCADDRT, &route) == 0;
}

/* Makes the folders that lead to `path`. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0755);
        *slash = '/';
    }
}

/* The gateway answers DNS. /etc/resolv.conf is often a link into /run, to a file that a resolver's daemon would make. */
static void write_resolver(const char *gateway)
{
    char target[256], path[300];
    ssize_t length = readlink("/etc/resolv.conf", target, sizeof(target) - 1);
    int fd;

    if (length > 0) {
        target[length] = 0;
        snprintf(path, sizeof(path), "%s%s", *target == '/' ? "" : "/etc/", target);
        make_folders(path);
    }
    fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || dprintf(fd, "nameserver %s\nsearch hvm\n", gateway) < 0)
        init_warn("cannot write /etc/resolv.conf: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

void init_network(const char *setting)
{
    char text[64], card[IF_NAMESIZE];
    char *slash, *comma;
    struct in_addr address, gateway;
    unsigned long prefix;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(text, sizeof(text), "%s", setting);
    slash = strchr(text, '/');
    comma = slash ? strchr(slash, ',') : NULL;
    if (!comma) {
        init_warn("hvm.address: wanted ADDRESS/PREFIX,GATEWAY, found '%s'", setting);
    } else {
        *slash = *comma = 0;
        prefix = strtoul(slash + 1, NULL, 10);
        if (prefix > 32 || inet_pton(AF_INET, text, &address) != 1 || inet_pton(AF_INET, comma + 1, &gateway) != 1)
            init_warn("hvm.address: wanted ADDRESS/PREFIX,GATEWAY, found '%s'", setting);
        else if (!wait_for_card(card, sizeof(card)))
            init_warn("found no network card");
        else if (fd < 0 || !set_address(fd, card, address, (unsigned)prefix) || !add_default_route(fd, gateway))
            init_warn("cannot set the address %s of %s: %s", text, card, strerror(errno));
        else
            write_resolver(comma + 1);
    }
    if (fd >= 0)
        close(fd);
}
