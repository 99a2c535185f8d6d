/*
 * mail/utf7.c - modified UTF-7, the alphabet of IMAP mailbox names (RFC 3501 5.1.3).
 * Declared in encoder.h.
 *
 * Printable ASCII stands for itself, "&" is "&-", and everything else is UTF-16
 * in a base64 whose "/" is "," between "&" and "-".
 */
#include "mail/charset.h"
#include "mail/encoder.h"

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

struct bits {
  uint32_t value;
  unsigned count;
};

static void put_unit(struct bits *bits, uint32_t unit, struct stls_buffer *out) {
  bits->value = bits->value << 16 | unit;
  bits->count += 16;
  while (bits->count >= 6) {
    bits->count -= 6;
    stls_buffer_append_char(out, base64[(bits->value >> bits->count) & 63]);
  }
  bits->value &= (1u << bits->count) - 1;
}

static void put_point(struct bits *bits, uint32_t point, struct stls_buffer *out) {
  if (point < 0x10000) {
    put_unit(bits, point, out);
    return;
  }
  put_unit(bits, 0xd800 + ((point - 0x10000) >> 10), out);
  put_unit(bits, 0xdc00 + ((point - 0x10000) & 0x3ff), out);
}

static void end_shift(struct bits *bits, struct stls_buffer *out) {
  if (bits->count > 0) {
    stls_buffer_append_char(out, base64[(bits->value << (6 - bits->count)) & 63]);
  }
  stls_buffer_append_char(out, '-');
  bits->value = bits->count = 0;
}

bool stls_utf7_encode(struct stls_slice mailbox, struct stls_buffer *out) {
  struct bits bits = {0, 0};
  bool shifted = false;
  uint32_t point;
  while (mailbox.len > 0) {
    bool plain;
    if (!stls_utf8_take(&mailbox, &point)) return false;
    plain = point >= ' ' && point <= '~';
    if (plain && shifted) end_shift(&bits, out);
    if (!plain && !shifted) stls_buffer_append_char(out, '&');
    shifted = !plain;
    if (!plain) put_point(&bits, point, out);
    else if (point == '&') stls_buffer_append_text(out, "&-");
    else stls_buffer_append_char(out, (char)point);
  }
  if (shifted) end_shift(&bits, out);
  return out->failure == STLS_BUFFER_OK;
}

/* Adds one UTF-16 unit; `*high` keeps the first half of a surrogate pair. */
static bool take_unit(uint32_t unit, uint32_t *high, struct stls_buffer *out) {
  if (*high) {
    if (unit < 0xdc00 || unit > 0xdfff) return false;
    stls_utf8_put(0x10000 + ((*high - 0xd800) << 10) + (unit - 0xdc00), out);
    *high = 0;
  } else if (unit >= 0xd800 && unit < 0xdc00) {
    *high = unit;
  } else {
    if (unit >= 0xdc00 && unit < 0xe000) return false;
    stls_utf8_put(unit, out);
  }
  return true;
}

/* Decodes what stands between "&" and "-". */
static bool decode_shifted(struct stls_slice shifted, struct stls_buffer *out) {
  struct bits bits = {0, 0};
  uint32_t high = 0;
  size_t i;
  for (i = 0; i < shifted.len; i++) {
    const char *digit = shifted.ptr[i] ? strchr(base64, shifted.ptr[i]) : NULL;
    if (!digit) return false;
    bits.value = (bits.value << 6 | (uint32_t)(digit - base64)) & 0x3fffff;
    bits.count += 6;
    if (bits.count < 16) continue;
    bits.count -= 16;
    if (!take_unit(bits.value >> bits.count & 0xffff, &high, out)) return false;
  }
  return high == 0 && bits.count < 6;
}

bool stls_utf7_decode(struct stls_slice name, struct stls_buffer *out) {
  while (name.len > 0) {
    const char *end;
    if (name.ptr[0] != '&') {
      stls_buffer_append_char(out, name.ptr[0]);
      name = stls_slice_from(name, 1);
      continue;
    }
    end = memchr(name.ptr, '-', name.len);
    if (!end) return false;
    if (end == name.ptr + 1) stls_buffer_append_char(out, '&');
    else if (!decode_shifted(stls_slice(name.ptr + 1, (size_t)(end - name.ptr - 1)), out))
      return false;
    name = stls_slice_from(name, (size_t)(end - name.ptr) + 1);
  }
  return out->failure == STLS_BUFFER_OK;
}
