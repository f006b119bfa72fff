/* The floor: what recvmmsg and sendmmsg cost, 64 packets a call, with nothing done in between. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 4096 };

static char packets[BATCH][SIZE];
static struct iovec pieces[BATCH];
static struct mmsghdr headers[BATCH];
static struct sockaddr_in senders[BATCH];

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0) return 1;
    for (;;) {
        memset(headers, 0, sizeof headers);
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){packets[i], SIZE};
            headers[i].msg_hdr.msg_iov = &pieces[i];
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_hdr.msg_name = &senders[i];
            headers[i].msg_hdr.msg_namelen = sizeof senders[i];
        }
        int count = recvmmsg(fd, headers, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++) {
            pieces[i].iov_len = headers[i].msg_len;
            packets[i][2] |= 0x80; /* QR: dnsperf takes it for an answer */
        }
        for (int sent = 0, n; sent < count; sent += n)
            if ((n = sendmmsg(fd, headers + sent, count - sent, 0)) <= 0) break;
    }
}
