/*
 * net/tls_verify.c - is this certificate good, and is it for whom we expect?
 *
 * Chain, time and purpose are GnuTLS's business; the name rules of RFC 7817 and
 * RFC 9525 are checked here, as GnuTLS would still take a name from the subject's CN.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "net/tls_parts.h"

bool stls_tls_peer_certificate(gnutls_session_t session, gnutls_x509_crt_t *certificate_r) {
  unsigned count = 0;
  const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
  if (!chain || count == 0 || gnutls_x509_crt_init(certificate_r) < 0) return false;
  if (gnutls_x509_crt_import(*certificate_r, &chain[0], GNUTLS_X509_FMT_DER) >= 0) return true;
  gnutls_x509_crt_deinit(*certificate_r);
  return false;
}

static bool is_self_signed(gnutls_x509_crt_t certificate) {
  return gnutls_x509_crt_check_issuer(certificate, certificate) != 0;
}

static bool refuse(struct stls_tls *tls, const char *why, const char *hint) {
  stls_error_set(&tls->verdict, STLS_ERROR_CERTIFICATE, "handshake", "the certificate of %s %s",
                 tls->name, why);
  if (hint) stls_error_hint(&tls->verdict, "%s", hint);
  return false;
}

static bool refuse_dated(struct stls_tls *tls, const char *what, time_t when) {
  char date[32] = "?", why[64];
  struct tm parts;
  if (gmtime_r(&when, &parts)) strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S UTC", &parts);
  snprintf(why, sizeof why, "%s %s", what, date);
  return refuse(tls, why, "if it is right, this machine's clock may be wrong");
}

/* Each reason in its own words; the most telling one first. */
static bool check_chain(struct stls_tls *tls, gnutls_x509_crt_t certificate, unsigned status) {
  time_t now = time(NULL);
  if (gnutls_x509_crt_get_expiration_time(certificate) < now) {
    return refuse_dated(tls, "expired on", gnutls_x509_crt_get_expiration_time(certificate));
  }
  if (gnutls_x509_crt_get_activation_time(certificate) > now) {
    return refuse_dated(tls, "is not valid before",
                        gnutls_x509_crt_get_activation_time(certificate));
  }
  if (status & GNUTLS_CERT_REVOKED) return refuse(tls, "has been revoked", NULL);
  if (status & GNUTLS_CERT_SIGNER_NOT_FOUND) {
    if (is_self_signed(certificate)) {
      return refuse(tls, "is self-signed", "to trust exactly this certificate, give it as ca_file");
    }
    return refuse(tls, "is signed by an authority that is not trusted here",
                  "if that is the organisation's own authority, give its certificate as ca_file");
  }
  if (status & GNUTLS_CERT_INSECURE_ALGORITHM) {
    return refuse(tls, "has a key or a signature that is too weak to trust", NULL);
  }
  if (status & GNUTLS_CERT_SIGNER_NOT_CA)
    return refuse(tls, "is signed by a certificate that is no authority", NULL);
  if (status & GNUTLS_CERT_PURPOSE_MISMATCH) return refuse(tls, "is not meant for servers", NULL);
  if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED)) {
    return refuse(tls, "has an issuer whose own certificate is out of date", NULL);
  }
  if (status & GNUTLS_CERT_SIGNATURE_FAILURE)
    return refuse(tls, "has a signature that is not right", NULL);
  return refuse(tls, "could not be verified", NULL);
}

/* {====== Names (RFC 9525 6.3): from the SAN only, never from the CN ====== */

/*
 * "*" counts only as the whole first label, and stands for exactly one label in front of
 * two or more. GnuTLS would also take "*il.example.test" for "mail.example.test".
 */
static bool matches_pattern(struct stls_slice pattern, const char *name) {
  if (stls_slice_starts(pattern, "*.")) {
    name = strchr(name, '.');
    pattern = stls_slice_from(pattern, 1);
    if (!name || !memchr(pattern.ptr + 1, '.', pattern.len - 1)) return false;
  }
  return stls_slice_is(pattern, name);
}

bool stls_tls_next_name(gnutls_x509_crt_t certificate, unsigned *index,
                        struct stls_tls_name *name_r) {
  int status;
  do {
    name_r->size = sizeof name_r->text;
    status = gnutls_x509_crt_get_subject_alt_name2(certificate, (*index)++, name_r->text,
                                                   &name_r->size, &name_r->type, NULL);
    if (status == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return false;
  } while (status < 0);
  return true;
}

/* Whether there is a DNS name that matches, or with NULL any DNS name. */
static bool has_dns_name(gnutls_x509_crt_t certificate, const char *wanted) {
  struct stls_tls_name name;
  unsigned index = 0;
  while (stls_tls_next_name(certificate, &index, &name)) {
    if (name.type != GNUTLS_SAN_DNSNAME) continue;
    if (!wanted || matches_pattern(stls_slice(name.text, name.size), wanted)) return true;
  }
  return false;
}

static bool matches_address(gnutls_x509_crt_t certificate, const char *name) {
  unsigned char octets[16];
  unsigned len = 0;
  if (inet_pton(AF_INET, name, octets) == 1) len = 4;
  else if (inet_pton(AF_INET6, name, octets) == 1) len = 16;
  return len > 0 && gnutls_x509_crt_check_ip(certificate, octets, len, 0) != 0;
}

static bool is_in_common_name(gnutls_x509_crt_t certificate, const char *name) {
  char common[256];
  size_t size = sizeof common;
  int status =
      gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, common, &size);
  return status >= 0 && strcasecmp(common, name) == 0;
}

static bool check_name(struct stls_tls *tls, gnutls_x509_crt_t certificate) {
  bool matches = tls->is_address ? matches_address(certificate, tls->name)
                                 : has_dns_name(certificate, tls->name);
  if (matches) return true;
  if (is_in_common_name(certificate, tls->name) && !has_dns_name(certificate, NULL)) {
    return refuse(
        tls,
        "has the name in its subject (CN) only, and lacks the subject alternative name that counts",
        "the server's certificate must be renewed with a subjectAltName (RFC 9525)");
  }
  return refuse(tls, tls->is_address ? "is not for this address" : "is for another name",
                "if the server is known by another name, give that as server_name");
}

/* }====== */

static bool is_good(struct stls_tls *tls, gnutls_session_t session) {
  gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID,
                                   (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_SERVER, 0};
  gnutls_x509_crt_t certificate;
  unsigned status = 0;
  bool good;
  int result = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
  if (result < 0) return refuse(tls, gnutls_strerror(result), NULL);
  if (!stls_tls_peer_certificate(session, &certificate)) return refuse(tls, "can't be read", NULL);
  good = (status == 0 || check_chain(tls, certificate, status)) && check_name(tls, certificate);
  gnutls_x509_crt_deinit(certificate);
  return good;
}

int stls_tls_verify(gnutls_session_t session) {
  struct stls_tls *tls = gnutls_session_get_ptr(session);
  stls_error_free(&tls->verdict);
  tls->verified = is_good(tls, session);
  return tls->verified || tls->no_verify ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}
