/*
 * mail/md5.h - the MD5 digest (RFC 1321), for APOP alone.
 * Floor 1, mail wing: may rely on base/ only.
 *
 * GNU SASL keeps its own to itself, and GnuTLS is the net wing's. For nothing new:
 * MD5 resists no collisions any more.
 */
#ifndef STLS_MAIL_MD5_H
#define STLS_MAIL_MD5_H

#include "base/slice.h"

#define STLS_MD5_SIZE 16

/* The digest of `first` with `second` behind it. What was copied of them is wiped. */
void stls_md5(struct stls_slice first, struct stls_slice second,
              unsigned char digest_r[STLS_MD5_SIZE]);

#endif
