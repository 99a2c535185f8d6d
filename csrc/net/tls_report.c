/* net/tls_report.c - what a TLS session is, and whose certificate it has: see tls.h. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "net/tls_parts.h"

void stls_tls_describe(struct stls_tls *tls, struct stls_tls_report *report_r) {
  gnutls_datum_t alpn = {NULL, 0};
  gnutls_group_t group = gnutls_group_get(tls->session);
  memset(report_r, 0, sizeof *report_r);
  report_r->version = gnutls_protocol_get_name(gnutls_protocol_get_version(tls->session));
  report_r->cipher = gnutls_ciphersuite_get(tls->session);
  report_r->group = group ? gnutls_group_get_name(group) : NULL;
  report_r->unverified = tls->verdict.message;
  if (gnutls_alpn_get_selected_protocol(tls->session, &alpn) == 0) {
    snprintf(report_r->alpn_text, sizeof report_r->alpn_text, "%.*s", (int)alpn.size,
             (const char *)alpn.data);
    report_r->alpn = report_r->alpn_text;
  }
}

const char *stls_tls_binding(struct stls_tls *tls, struct stls_buffer *octets) {
  bool tls13 = gnutls_protocol_get_version(tls->session) == GNUTLS_TLS1_3;
  gnutls_datum_t binding = {NULL, 0};
  bool kept;
  if (!tls13 && !gnutls_session_ext_master_secret_status(tls->session)) return NULL;
  if (gnutls_session_channel_binding(
          tls->session, tls13 ? GNUTLS_CB_TLS_EXPORTER : GNUTLS_CB_TLS_UNIQUE, &binding) != 0) {
    return NULL;
  }
  kept = stls_buffer_append(octets, (const char *)binding.data, binding.size);
  gnutls_free(binding.data);
  if (!kept) return NULL;
  return tls13 ? "tls-exporter" : "tls-unique";
}

/* {====== The certificate ====== */

/* Moves a datum of GnuTLS's into a buffer, NUL-terminated. */
static bool take_datum(int status, gnutls_datum_t *datum, struct stls_buffer *out) {
  bool kept;
  if (status < 0) return stls_buffer_append_char(out, '\0');
  kept = stls_buffer_append(out, (const char *)datum->data, datum->size) &&
         stls_buffer_append_char(out, '\0');
  gnutls_free(datum->data);
  return kept;
}

static bool add_name(const struct stls_tls_name *name, struct stls_buffer *out) {
  char text[INET6_ADDRSTRLEN] = "";
  if (name->type == GNUTLS_SAN_DNSNAME) {
    if (memchr(name->text, '\0', name->size)) return true; /* no name at all */
    return stls_buffer_append(out, name->text, name->size) && stls_buffer_append_char(out, '\0');
  }
  if (name->type != GNUTLS_SAN_IPADDRESS || (name->size != 4 && name->size != 16)) return true;
  inet_ntop(name->size == 4 ? AF_INET : AF_INET6, name->text, text, sizeof text);
  return stls_buffer_append_text(out, text) && stls_buffer_append_char(out, '\0');
}

static bool take_names(gnutls_x509_crt_t certificate, struct stls_buffer *out) {
  struct stls_tls_name name;
  unsigned index = 0;
  while (stls_tls_next_name(certificate, &index, &name)) {
    if (!add_name(&name, out)) return false;
  }
  return true;
}

static bool read_certificate(gnutls_x509_crt_t certificate, struct stls_certificate *out) {
  gnutls_datum_t datum = {NULL, 0};
  size_t size = sizeof out->sha256;
  out->not_before = (double)gnutls_x509_crt_get_activation_time(certificate);
  out->not_after = (double)gnutls_x509_crt_get_expiration_time(certificate);
  if (gnutls_x509_crt_get_fingerprint(certificate, GNUTLS_DIG_SHA256, out->sha256, &size) < 0)
    return false;
  return take_datum(gnutls_x509_crt_get_dn3(certificate, &datum, 0), &datum, &out->subject) &&
         take_datum(gnutls_x509_crt_get_issuer_dn3(certificate, &datum, 0), &datum, &out->issuer) &&
         take_datum(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &datum), &datum,
                    &out->pem) &&
         take_names(certificate, &out->names);
}

bool stls_tls_certificate(struct stls_tls *tls, struct stls_certificate *certificate_r) {
  gnutls_x509_crt_t certificate;
  bool read;
  memset(certificate_r, 0, sizeof *certificate_r);
  if (!stls_tls_peer_certificate(tls->session, &certificate)) return false;
  read = read_certificate(certificate, certificate_r);
  gnutls_x509_crt_deinit(certificate);
  return read;
}

void stls_certificate_free(struct stls_certificate *certificate) {
  stls_buffer_free(&certificate->subject);
  stls_buffer_free(&certificate->issuer);
  stls_buffer_free(&certificate->names);
  stls_buffer_free(&certificate->pem);
}

/* }====== */
