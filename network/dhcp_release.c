#include "dhcp_release.h"

#include <arpa/inet.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BOOTREQUEST = 1, DHCP_SERVER_PORT = 67, DHCP_RELEASE = 7, OPTION_TYPE = 53, OPTION_SERVER = 54, OPTION_END = 255 };

/* RFC 2131, section 2. */
typedef struct __attribute__((packed)) {
    guint8 op, hardware_type, hardware_length, hops;
    guint32 transaction;
    guint16 seconds, flags;
    guint32 client, yours, next_server, relay;
    guint8 hardware[16];
    char server_name[64], file[128];
    guint8 cookie[4];
    guint8 options[60]; /* the whole has the 300 bytes that BOOTP wants (RFC 1542) */
} Message;

G_STATIC_ASSERT(sizeof(Message) == 300);

void dhcp_release(const char *bridge, guint32 server, guint32 address, const char *mac)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(DHCP_SERVER_PORT), .sin_addr.s_addr = htonl(server)};
    Message message = {
        .op = BOOTREQUEST,
        .hardware_type = ARPHRD_ETHER,
        .hardware_length = 6,
        .transaction = g_random_int(),
        .client = htonl(address),
        .cookie = {99, 130, 83, 99},
        .options = {OPTION_TYPE, 1, DHCP_RELEASE, OPTION_SERVER, 4, (guint8)(server >> 24), (guint8)(server >> 16),
                    (guint8)(server >> 8), (guint8)server, OPTION_END},
    };
    guint8 *byte = message.hardware;
    int fd = -1;

    if (sscanf(mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", byte, byte + 1, byte + 2, byte + 3, byte + 4, byte + 5) != 6)
        return;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Bound to the bridge, so that dnsmasq, which listens to no other link, hears it from there. */
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, bridge, (socklen_t)strlen(bridge)) == 0 &&
        sendto(fd, &message, sizeof message, 0, (struct sockaddr *)&to, sizeof to) < 0)
        g_debug("cannot release the lease of %s on %s: %m", mac, bridge);
    if (fd >= 0)
        close(fd);
}
