/* net/tls.c - the handshake and the records: see tls.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/tls_parts.h"

/*
 * The profile refuses certificates weaker than RSA 2048 or signed with SHA-1
 * (RFC 9325 4.5); the versions are those of RFC 8997.
 */
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%PROFILE_MEDIUM"

bool stls_tls_priority_is_valid(const char *priority, const char **at_r) {
  gnutls_priority_t parsed;
  if (gnutls_priority_init(&parsed, priority, at_r) < 0) return false;
  gnutls_priority_deinit(parsed);
  return true;
}

/* {====== Life ====== */

/* RFC 8446 5.1: the first record of a server is a handshake (22) or an alert (21). */
static bool looks_like_tls(unsigned char first) {
  return first == 22 || first == 21;
}

/*
 * Receives for GnuTLS, and looks at the first byte that the peer sends: "that is not
 * TLS at all" tells a person more than any complaint about a malformed record.
 */
static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t size) {
  struct stls_tls *tls = ptr;
  ssize_t got = recv(tls->fd, data, size, MSG_DONTWAIT);
  if (got > 0 && !tls->heard) {
    tls->heard = true;
    tls->is_alien = !looks_like_tls(*(const unsigned char *)data);
  }
  return got;
}

static int set_up(struct stls_tls *tls, const struct stls_tls_settings *settings) {
  int status = gnutls_init(&tls->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
  if (status < 0) return status;
  status = gnutls_priority_set_direct(tls->session,
                                      settings->priority ? settings->priority : PRIORITY, NULL);
  if (status < 0) return status;
  status = gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, tls->trust->credentials);
  if (status < 0) return status;
  if (!settings->is_address) { /* RFC 6066 3: no literal addresses in SNI */
    status = gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS, tls->name, strlen(tls->name));
    if (status < 0) return status;
  }
  if (settings->alpn) {
    gnutls_datum_t id = {(unsigned char *)(uintptr_t)settings->alpn,
                         (unsigned)strlen(settings->alpn)};
    status = gnutls_alpn_set_protocols(tls->session, &id, 1, 0);
    if (status < 0) return status;
  }
  gnutls_session_set_ptr(tls->session, tls);
  gnutls_session_set_verify_function(tls->session, stls_tls_verify);
  gnutls_transport_set_ptr2(tls->session, tls, (gnutls_transport_ptr_t)(intptr_t)tls->fd);
  gnutls_transport_set_pull_function(tls->session, pull);
  gnutls_handshake_set_timeout(tls->session, 0); /* deadlines are the session's business */
  return 0;
}

struct stls_tls *stls_tls_new(int fd, struct stls_tls_trust *trust,
                              const struct stls_tls_settings *settings, struct stls_error *error) {
  struct stls_tls *tls = calloc(1, sizeof *tls);
  int status;
  if (!tls) {
    stls_error_set(error, STLS_ERROR_MEMORY, "handshake", "not enough memory");
    return NULL;
  }
  tls->fd = fd;
  tls->trust = stls_tls_trust_ref(trust);
  tls->is_address = settings->is_address;
  tls->no_verify = settings->no_verify;
  tls->upgraded = settings->upgraded;
  snprintf(tls->name, sizeof tls->name, "%s", settings->name);
  status = set_up(tls, settings);
  if (status == 0) return tls;
  stls_error_set(error, STLS_ERROR_TLS, "handshake", "can't set up TLS: %s",
                 gnutls_strerror(status));
  stls_tls_free(tls);
  return NULL;
}

void stls_tls_free(struct stls_tls *tls) {
  if (!tls) return;
  if (tls->session) gnutls_deinit(tls->session);
  stls_tls_trust_unref(tls->trust);
  stls_error_free(&tls->verdict);
  free(tls);
}

/* }====== */

static enum stls_io wanted(const struct stls_tls *tls) {
  return gnutls_record_get_direction(tls->session) == 1 ? STLS_IO_WANT_WRITE : STLS_IO_WANT_READ;
}

/* {====== Handshake ====== */

static enum stls_io fail_alien(const struct stls_tls *tls, struct stls_error *error) {
  stls_error_set(error, STLS_ERROR_TLS, "handshake",
                 "the server does not answer with TLS but with something else");
  stls_error_hint(
      error, tls->upgraded ? "the server is broken, or somebody in between is injecting plain text"
                           : "the port may speak clear text at first: then use tls = \"starttls\"");
  return STLS_IO_FAILED;
}

/* A TLS 1.3 server judges our certificate, or misses one, only when the handshake is over. */
static bool is_about_our_certificate(const struct stls_tls *tls, gnutls_alert_description_t alert) {
  return alert == GNUTLS_A_CERTIFICATE_REQUIRED || alert == GNUTLS_A_BAD_CERTIFICATE ||
         gnutls_certificate_client_get_request_status(tls->session) != 0;
}

static void explain_alert(struct stls_tls *tls, const char *during, struct stls_error *error) {
  gnutls_alert_description_t alert = gnutls_alert_get(tls->session);
  const char *name = gnutls_alert_get_name(alert);
  if (alert == GNUTLS_A_PROTOCOL_VERSION) {
    stls_error_set(error, STLS_ERROR_TLS, during,
                   "the server speaks no TLS version that is safe (TLS 1.2 or 1.3)");
    return;
  }
  stls_error_set(error, STLS_ERROR_TLS, during, "the server ends TLS with the alert \"%s\"",
                 name ? name : "unknown");
  if (is_about_our_certificate(tls, alert)) {
    stls_error_hint(
        error, "the server may want another, or any, client certificate: client_cert, client_key");
  }
}

static enum stls_io explain_handshake(struct stls_tls *tls, int status, struct stls_error *error) {
  switch (status) {
    case GNUTLS_E_CERTIFICATE_ERROR:
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
      if (tls->verdict.kind != STLS_ERROR_NONE && error->kind == STLS_ERROR_NONE) {
        stls_error_copy(error, &tls->verdict);
      }
      /* The server's log is to tell why, too; whether it hears of it does not matter. */
      gnutls_alert_send_appropriate(tls->session, GNUTLS_E_CERTIFICATE_ERROR);
      break;
    case GNUTLS_E_FATAL_ALERT_RECEIVED: explain_alert(tls, "handshake", error); break;
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
      stls_error_set(error, STLS_ERROR_TLS, "handshake",
                     "the server speaks no TLS version that is safe (TLS 1.2 or 1.3)");
      break;
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
      stls_error_set(error, STLS_ERROR_TLS, "handshake",
                     "the server closed the connection during the TLS handshake");
      break;
    default: break;
  }
  stls_error_set(error, STLS_ERROR_TLS, "handshake", "the TLS handshake failed: %s",
                 gnutls_strerror(status));
  return STLS_IO_FAILED;
}

enum stls_io stls_tls_handshake(struct stls_tls *tls, struct stls_error *error) {
  for (;;) {
    int status = gnutls_handshake(tls->session);
    if (tls->is_alien) return fail_alien(tls, error);
    if (status == GNUTLS_E_SUCCESS) return STLS_IO_OK;
    if (status == GNUTLS_E_AGAIN) return wanted(tls);
    if (gnutls_error_is_fatal(status)) return explain_handshake(tls, status, error);
  }
}

/* }====== */

/* {====== Records ====== */

static enum stls_io fail_record(struct stls_tls *tls, int status, const char *during,
                                struct stls_error *error) {
  if (status == GNUTLS_E_PUSH_ERROR || status == GNUTLS_E_PULL_ERROR) {
    stls_error_set(error, STLS_ERROR_CLOSED, during, "the connection was lost");
  } else if (status == GNUTLS_E_FATAL_ALERT_RECEIVED) {
    explain_alert(tls, during, error);
  } else {
    stls_error_set(error, STLS_ERROR_TLS, during, "TLS failed: %s", gnutls_strerror(status));
  }
  return STLS_IO_FAILED;
}

enum stls_io stls_tls_receive(struct stls_tls *tls, char *data, size_t size, size_t *received_r,
                              const char *during, struct stls_error *error) {
  for (;;) {
    ssize_t status = gnutls_record_recv(tls->session, data, size);
    if (status > 0) {
      *received_r = (size_t)status;
      return STLS_IO_OK;
    }
    if (status == 0) return STLS_IO_CLOSED;
    if (status == GNUTLS_E_AGAIN) return wanted(tls);
    if (status == GNUTLS_E_PREMATURE_TERMINATION) return STLS_IO_CUT;
    if (status == GNUTLS_E_PULL_ERROR && errno == ECONNRESET) return STLS_IO_CUT;
    /* No renegotiation: RFC 9325 3.5 advises against it and no mail server needs it. */
    if (status == GNUTLS_E_REHANDSHAKE || gnutls_error_is_fatal((int)status)) {
      return fail_record(tls, (int)status, during, error);
    }
  }
}

enum stls_io stls_tls_send(struct stls_tls *tls, struct stls_slice data, size_t *sent_r,
                           const char *during, struct stls_error *error) {
  for (;;) {
    ssize_t status = gnutls_record_send(tls->session, data.ptr, data.len);
    if (status >= 0) {
      *sent_r = (size_t)status;
      return STLS_IO_OK;
    }
    if (status == GNUTLS_E_AGAIN) return wanted(tls);
    if (gnutls_error_is_fatal((int)status)) return fail_record(tls, (int)status, during, error);
  }
}

bool stls_tls_has_pending(const struct stls_tls *tls) {
  return gnutls_record_check_pending(tls->session) > 0;
}

void stls_tls_goodbye(struct stls_tls *tls) {
  gnutls_bye(tls->session, GNUTLS_SHUT_WR);
}

bool stls_tls_is_verified(const struct stls_tls *tls) {
  return tls->verified;
}

/* }====== */
