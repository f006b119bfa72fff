/* Looks up the addresses of a name with the C library's getaddrinfo; prints one a line. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found, *at;
    char text[NI_MAXHOST];
    int error;

    if (argc != 2)
        return 2;
    error = getaddrinfo(argv[1], 0, &hints, &found);
    if (error) {
        fprintf(stderr, "%s\n", gai_strerror(error));
        return 1;
    }
    for (at = found; at; at = at->ai_next)
        if (!getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST))
            puts(text);
    freeaddrinfo(found);
    return 0;
}
