/* net/hostname.c - see hostname.h. The only file that includes idn2.h. */
#include "net/hostname.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdio.h>
#include <string.h>

/* Copies an address without brackets. False when it is too long to be one. */
static bool strip_brackets(const char *host, char *bare, size_t size) {
  size_t len = strlen(host);
  bool bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
  int written =
      snprintf(bare, size, "%.*s", (int)(bracketed ? len - 2 : len), host + (bracketed ? 1 : 0));
  return written >= 0 && (size_t)written < size;
}

bool stls_hostname_is_address(const char *host) {
  char bare[64];
  unsigned char octets[16];
  char *scope;
  if (strlen(host) >= sizeof bare || !strip_brackets(host, bare, sizeof bare)) return false;
  if (inet_pton(AF_INET, bare, octets) == 1) return true;
  scope = strchr(bare, '%'); /* fe80::1%eth0, RFC 4007 11 */
  if (scope) *scope = '\0';
  return inet_pton(AF_INET6, bare, octets) == 1;
}

/* RFC 952 and 1123 2.1: letters, digits, inner hyphens; and "_", which private names have. */
static const char *check_labels(const char *name) {
  size_t label = 0;
  const char *c;
  for (c = name; *c; c++) {
    if (*c == '.') {
      if (label == 0) return "host name has an empty label";
      if (c[-1] == '-') return "host name has a label that ends in a hyphen";
      label = 0;
      continue;
    }
    if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", *c)) {
      return "host name has a character that host names can't have";
    }
    if (*c == '-' && label == 0) return "host name has a label that begins with a hyphen";
    if (++label > 63) return "host name has a label of more than 63 octets";
  }
  return c > name && c[-1] == '-' ? "host name has a label that ends in a hyphen" : NULL;
}

static bool is_ascii(const char *text) {
  for (; *text; text++) {
    if ((unsigned char)*text > 0x7e) return false;
  }
  return true;
}

/* Plain ASCII is only checked: IDNA would refuse names like "r3---x" that DNS has. */
static const char *map_name(const char *host, char ascii_r[STLS_HOSTNAME_SIZE]) {
  uint8_t *mapped = NULL;
  int status, written;
  if (is_ascii(host)) {
    written = snprintf(ascii_r, STLS_HOSTNAME_SIZE, "%s", host);
  } else {
    status = idn2_lookup_u8((const uint8_t *)host, &mapped, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (status != IDN2_OK) return "host name has a label that IDNA does not allow (RFC 5891)";
    written = snprintf(ascii_r, STLS_HOSTNAME_SIZE, "%s", (const char *)mapped);
    idn2_free(mapped);
  }
  return written >= STLS_HOSTNAME_SIZE ? "host name is longer than 255 octets" : NULL;
}

const char *stls_hostname_to_ascii(const char *host, char ascii_r[STLS_HOSTNAME_SIZE]) {
  const char *reason;
  size_t len;
  if (host[0] == '\0') return "host name is empty";
  if (stls_hostname_is_address(host)) {
    return strip_brackets(host, ascii_r, STLS_HOSTNAME_SIZE) ? NULL : "address is too long";
  }
  reason = map_name(host, ascii_r);
  if (reason) return reason;
  len = strlen(ascii_r);
  if (len > 1 && ascii_r[len - 1] == '.') ascii_r[len - 1] = '\0'; /* the root's dot */
  return check_labels(ascii_r);
}
