/*
 * net/hostname.h - host names as people write them, and as DNS and certificates have them.
 * Floor 1, net wing: may rely on base/ only.
 */
#ifndef STLS_NET_HOSTNAME_H
#define STLS_NET_HOSTNAME_H

#include <stdbool.h>
#include <stddef.h>

/* Room for any result of stls_hostname_to_ascii: RFC 1035 2.3.4, and a NUL. */
#define STLS_HOSTNAME_SIZE 256

/* Whether `host` is an IPv4 or IPv6 address ("::1", or in brackets "[::1]"). */
bool stls_hostname_is_address(const char *host);

/*
 * Writes the name's A-labels (IDNA 2008, RFC 5891), or the address without its
 * brackets, into `ascii_r`. Returns NULL, or why the name is no host name (a literal).
 */
const char *stls_hostname_to_ascii(const char *host, char ascii_r[STLS_HOSTNAME_SIZE]);

#endif
