/* mail/date.c - see date.h. Its words are read in whatever order they come. */
#include "mail/date.h"

#include <string.h>

/* What is known so far; -1: nothing. */
struct date {
  struct stls_slice rest;
  int day, month, year; /* month: 1 to 12 */
  int hour, minute, second;
  int zone; /* minutes east of Greenwich */
};

static char front(const struct date *d) {
  return d->rest.len > 0 ? d->rest.ptr[0] : '\0';
}

static void skip(struct date *d, size_t count) {
  d->rest = stls_slice_from(d->rest, count);
}

/* Takes digits off the front; how many there were. Those past nine count for nothing. */
static int take_digits(struct date *d, int *number_r) {
  int count = 0;
  *number_r = 0;
  while (stls_is_digit(front(d))) {
    if (count < 9) *number_r = *number_r * 10 + (front(d) - '0');
    count++;
    skip(d, 1);
  }
  return count;
}

/* Comments nest (RFC 5322 3.2.2). */
static void skip_comment(struct date *d) {
  int depth = 0;
  do {
    if (front(d) == '(') depth++;
    else if (front(d) == ')') depth--;
    skip(d, 1);
  } while (depth > 0 && d->rest.len > 0);
}

/* Whether a colon is next, behind blanks and comments (RFC 5322 4.3); takes these if it is. */
static bool skip_to_colon(struct date *d) {
  struct stls_slice before = d->rest;
  while (front(d) == ' ' || front(d) == '(') {
    if (front(d) == '(') skip_comment(d);
    else skip(d, 1);
  }
  if (front(d) == ':') return true;
  d->rest = before;
  return false;
}

/* ":" and two digits, or what there is. */
static int take_part(struct date *d) {
  int number;
  if (!skip_to_colon(d)) return 0;
  skip(d, 1);
  while (front(d) == ' ') skip(d, 1);
  take_digits(d, &number);
  return number;
}

static void take_time(struct date *d, int hour) {
  int fraction;
  d->hour = hour;
  d->minute = take_part(d);
  d->second = take_part(d);
  if (front(d) == '.') {
    skip(d, 1);
    take_digits(d, &fraction);
  }
}

/* RFC 5322 4.3: years of two and three digits. */
static int whole_year(int number, int digits) {
  if (digits == 2 && number < 50) return number + 2000;
  return digits < 4 ? number + 1900 : number;
}

/* "1996-07-17" (ISO 8601); what comes behind the year. */
static void take_iso(struct date *d, int year) {
  d->year = year;
  skip(d, 1);
  take_digits(d, &d->month);
  if (front(d) == '-') skip(d, 1);
  take_digits(d, &d->day);
}

static void take_number(struct date *d) {
  int number, digits = take_digits(d, &number);
  if (d->hour < 0 && skip_to_colon(d)) take_time(d, number);
  else if (digits == 4 && d->year < 0 && d->month < 0 && front(d) == '-') take_iso(d, number);
  else if (d->day < 0 && digits <= 2) d->day = number;
  else if (d->year < 0) d->year = whole_year(number, digits);
}

/* "-0700", and "-07:00" */
static void take_zone(struct date *d) {
  int sign = front(d) == '-' ? -1 : 1, number, digits;
  skip(d, 1);
  digits = take_digits(d, &number);
  if (digits <= 2) d->zone = sign * (number * 60 + take_part(d));
  else if (digits <= 4) d->zone = sign * (number / 100 * 60 + number % 100);
}

/* 1 for Jan; 0 for no month. */
static int month_of(struct stls_slice word) {
  static const char months[] = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC";
  int month;
  if (word.len < 3) return 0;
  for (month = 0; month < 12; month++) {
    const char *name = months + month * 3;
    if (stls_upper(word.ptr[0]) == name[0] && stls_upper(word.ptr[1]) == name[1] &&
        stls_upper(word.ptr[2]) == name[2]) {
      return month + 1;
    }
  }
  return 0;
}

/* RFC 5322 4.3, obs-zone: all others are to be taken as UTC. */
static int zone_of(struct stls_slice word) {
  static const struct {
    const char *name;
    int hours;
  } zones[] = {{"EST", -5}, {"EDT", -4}, {"CST", -6}, {"CDT", -5},
               {"MST", -7}, {"MDT", -6}, {"PST", -8}, {"PDT", -7}};
  size_t i;
  for (i = 0; i < sizeof zones / sizeof zones[0]; i++) {
    if (stls_slice_is(word, zones[i].name)) return zones[i].hours * 60;
  }
  return 0;
}

static void take_word(struct date *d) {
  size_t len = 0;
  struct stls_slice word;
  int month;
  while (len < d->rest.len && stls_upper(d->rest.ptr[len]) >= 'A' &&
         stls_upper(d->rest.ptr[len]) <= 'Z') {
    len++;
  }
  word = stls_slice(d->rest.ptr, len);
  skip(d, len);
  month = d->month < 0 ? month_of(word) : 0;
  if (month > 0) d->month = month;
  else if (stls_slice_is(word, "PM") && d->hour >= 0 && d->hour < 12) d->hour += 12;
  else if (stls_slice_is(word, "AM") && d->hour == 12) d->hour = 0;
  else if (d->hour >= 0 && d->zone == 0) d->zone = zone_of(word);
}

static void take_some(struct date *d) {
  char c = front(d);
  if (stls_is_digit(c)) take_number(d);
  else if (stls_upper(c) >= 'A' && stls_upper(c) <= 'Z') take_word(d);
  else if (c == '(') skip_comment(d);
  else if ((c == '+' || c == '-') && d->hour >= 0) take_zone(d);
  else skip(d, 1);
}

static bool is_leap(int year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static bool is_possible(const struct date *d) {
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (d->month < 1 || d->month > 12 || d->year < 1 || d->year > 9999) return false;
  if (d->day < 1 || d->day > days[d->month - 1] + (d->month == 2 && is_leap(d->year))) return false;
  return d->hour <= 24 && d->minute < 60 && d->second <= 60;
}

/* Days since the epoch: years begin in March here, so that leap days come last. */
static int64_t days_since_epoch(const struct date *d) {
  int64_t year = d->year - (d->month <= 2), month = (d->month + 9) % 12;
  int64_t leap_days = year / 4 - year / 100 + year / 400;
  return year * 365 + leap_days + (month * 153 + 2) / 5 + d->day - 1 - 719468;
}

bool stls_date_parse(struct stls_slice text, int64_t *seconds_r) {
  struct date date = {text, -1, -1, -1, -1, 0, 0, 0};
  while (date.rest.len > 0) take_some(&date);
  if (!is_possible(&date)) return false;
  if (date.hour < 0) date.hour = 0;
  *seconds_r = days_since_epoch(&date) * 86400 + date.hour * 3600 + (date.minute - date.zone) * 60 +
               date.second;
  return true;
}
