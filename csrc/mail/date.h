/*
 * mail/date.h - dates of mail become seconds: RFC 5322 3.3 with its obsolete forms,
 * IMAP's date-time (RFC 9051 9), and what else is met in header fields.
 * Floor 1, mail wing: may rely on base/ only; it knows no clock and no time zone.
 */
#ifndef STLS_MAIL_DATE_H
#define STLS_MAIL_DATE_H

#include "base/slice.h"

/*
 * Seconds since the epoch of a date such as "Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
 * "17-Jul-1996 02:44:25 -0700", "Wed Jul 17 02:23:25 1996" or "1996-07-17T02:23:25Z".
 * A zone that is missing or unknown is UTC (RFC 5322 4.3), a time that is missing is
 * midnight. False when there is no day, month and year, or when there is no such day.
 */
bool stls_date_parse(struct stls_slice text, int64_t *seconds_r);

#endif
