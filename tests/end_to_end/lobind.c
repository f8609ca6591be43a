/* Preloaded into a server that can only bind every interface (Orthanc, DCMTK), so that it listens on loopback alone.
 * Build: cc -shared -fPIC -o lobind.so lobind.c -ldl; use: LD_PRELOAD=lobind.so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*bind_function)(int, const struct sockaddr *, socklen_t);

int bind(int socket_fd, const struct sockaddr *address, socklen_t length) {
  bind_function real_bind = (bind_function)dlsym(RTLD_NEXT, "bind");
  if (address && address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
    struct sockaddr_in confined;
    memcpy(&confined, address, sizeof confined);
    if (confined.sin_addr.s_addr == htonl(INADDR_ANY)) confined.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return real_bind(socket_fd, (struct sockaddr *)&confined, sizeof confined);
  }
  if (address && address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
    struct sockaddr_in6 confined;
    memcpy(&confined, address, sizeof confined);
    if (IN6_IS_ADDR_UNSPECIFIED(&confined.sin6_addr)) confined.sin6_addr = in6addr_loopback;
    return real_bind(socket_fd, (struct sockaddr *)&confined, sizeof confined);
  }
  return real_bind(socket_fd, address, length);
}
