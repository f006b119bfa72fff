/* Asks as many clients do, each with an address, a window and (if told) a DNS cookie of its own.
   load PORT SECONDS CLIENTS WINDOW COOKIES FILE; FILE holds queries, each behind its length.
   Prints: completed lost later-than-10-ms seconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, SIZE = 1500 };
static const double LATE = 0.010, LOST = 1.0;

struct client {
    int fd, known; /* octets of the cookie: 8, or 24 with the server's part */
    unsigned char cookie[24];
    double sent[MOST]; /* 0: free */
    unsigned short turn[MOST];
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void learn(struct client *c, const unsigned char *reply, int size) {
    /* The cookie is the last option of the last record. */
    if (size > 28 && memcmp(reply + size - 28, "\0\x0a\0\x18", 4) == 0
        && memcmp(reply + size - 24, c->cookie, 8) == 0) {
        memcpy(c->cookie, reply + size - 24, 24);
        c->known = 24;
    }
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    double seconds = atof(argv[2]);
    int clients = atoi(argv[3]), window = atoi(argv[4]), cookies = atoi(argv[5]);
    int file = open(argv[6], O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0 || window > MOST) return 1;
    const unsigned char *first = mmap(NULL, about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    const unsigned char *end = first + about.st_size, *next = first;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct client *all = calloc(clients, sizeof *all);
    struct pollfd *polled = calloc(clients, sizeof *polled);
    srandom(getpid());
    for (int i = 0; i < clients; i++) {
        struct client *c = &all[i];
        struct sockaddr_in here = {.sin_family = AF_INET};
        here.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + i);
        c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (bind(c->fd, (struct sockaddr *)&here, sizeof here) != 0) return 1;
        if (connect(c->fd, (struct sockaddr *)&there, sizeof there) != 0) return 1;
        polled[i] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        for (int j = 0; j < 8; j++) c->cookie[j] = random();
        c->known = 8;
    }
    static unsigned char out[MOST][SIZE], in[MOST][SIZE];
    static struct iovec outs[MOST], ins[MOST];
    static struct mmsghdr sending[MOST], receiving[MOST];
    for (int i = 0; i < MOST; i++) {
        outs[i].iov_base = out[i];
        ins[i] = (struct iovec){in[i], SIZE};
        sending[i].msg_hdr = (struct msghdr){.msg_iov = &outs[i], .msg_iovlen = 1};
        receiving[i].msg_hdr = (struct msghdr){.msg_iov = &ins[i], .msg_iovlen = 1};
    }
    long completed = 0, lost = 0, late = 0;
    double began = now(), at = began;
    while (at < began + seconds) {
        int busy = 0;
        for (int i = 0; i < clients; i++) {
            struct client *c = &all[i];
            int got = recvmmsg(c->fd, receiving, MOST, MSG_DONTWAIT, NULL);
            at = now();
            for (int j = 0; j < got; j++) {
                unsigned id = in[j][0] << 8 | in[j][1], slot = id % MOST;
                if (c->sent[slot] == 0 || c->turn[slot] != id / MOST) continue;
                completed++;
                late += at - c->sent[slot] > LATE;
                c->sent[slot] = 0;
                if (cookies) learn(c, in[j], receiving[j].msg_len);
            }
            int count = 0;
            for (int slot = 0; slot < window; slot++) {
                if (c->sent[slot] != 0) {
                    if (at - c->sent[slot] < LOST) continue;
                    lost++;
                }
                if (next == end) next = first;
                int size = next[0] << 8 | next[1];
                unsigned char *packet = out[count];
                memcpy(packet, next + 2, size);
                next += 2 + size;
                c->turn[slot] = (c->turn[slot] + 1) % (65536 / MOST);
                unsigned id = c->turn[slot] * MOST + slot;
                packet[0] = id >> 8, packet[1] = id;
                if (cookies) {
                    packet[size - 1] = 4 + c->known;
                    memcpy(packet + size, "\0\x0a\0", 3);
                    packet[size + 3] = c->known;
                    memcpy(packet + size + 4, c->cookie, c->known);
                    size += 4 + c->known;
                }
                outs[count++].iov_len = size;
                c->sent[slot] = at;
            }
            if (count) sendmmsg(c->fd, sending, count, 0);
            busy += got > 0;
        }
        if (!busy) poll(polled, clients, 10);
    }
    printf("%ld %ld %ld %f\n", completed, lost, late, at - began);
    return 0;
}
