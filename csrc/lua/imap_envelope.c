/*
 * lua/imap_envelope.c - ENVELOPE and its addresses become Lua tables (RFC 9051 7.5.2).
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * { date, time, subject, from, sender, reply_to, to, cc, bcc, in_reply_to, message_id },
 * where `time` is the date in seconds since the epoch, and an array of addresses may be
 * empty, but is there. An address is { name, mailbox, host, address = "mailbox@host" };
 * a group (RFC 3501 7.4.2, host NIL) is { name, group = { addresses } }.
 *
 * Where sender or reply_to are octet for octet what `from` is, as RFC 9051 has servers fill
 * them in, they are the same table: most messages are such, and it halves the work.
 */
#include "lua/imap_parts.h"
#include "mail/date.h"
#include "mail/encoded_word.h"

#define SHORT_ADDRESS 256 /* octets; longer ones are put together by Lua */

/* {====== Addresses ====== */

/* [-0, +1] "mailbox@host" */
static void push_joined(Reader r, struct stls_slice mailbox, struct stls_slice host) {
  char joined[SHORT_ADDRESS];
  size_t len = mailbox.len + 1 + host.len;
  if (len > sizeof joined) {
    lua_State *L = r->L;
    l_push_utf8(r, mailbox);
    lua_pushliteral(L, "@");
    l_push_utf8(r, host);
    lua_concat(L, 3);
    return;
  }
  memcpy(joined, mailbox.ptr, mailbox.len);
  joined[mailbox.len] = '@';
  memcpy(joined + mailbox.len + 1, host.ptr, host.len);
  l_push_utf8(r, stls_slice(joined, len));
}

static void set_utf8(Reader r, enum l_key key, size_t index) {
  if (!l_is_text(r, index)) return;
  l_push_key(r, key);
  l_push_utf8(r, l_text(r, index));
  l_set_key(r);
}

static void set_decoded(Reader r, enum l_key key, size_t index) {
  if (!l_is_text(r, index)) return;
  l_push_key(r, key);
  l_push_decoded(r, l_text(r, index));
  l_set_key(r);
}

/* Where the parts of an address are: nodes of the response. */
struct address {
  size_t name, mailbox, host;
};

/*
 * "(" name SP route SP mailbox SP host ")". Some servers leave the route out, and some
 * add an element; the first three or four are the same. False for anything else.
 */
static bool read_address(Reader r, size_t index, struct address *address_r) {
  size_t count, i;
  if (!l_is_list(r, index)) return false;
  count = l_next(r, index) - index - 1;
  if (count < 3) return false;
  for (i = 1; i <= count && i <= 4; i++) {
    if (l_is_list(r, index + i)) return false;
  }
  address_r->name = index + 1;
  address_r->mailbox = index + (count == 3 ? 2 : 3);
  address_r->host = address_r->mailbox + 1;
  return true;
}

/* [-0, +1] */
static void push_address(Reader r, const struct address *address) {
  lua_createtable(r->L, 0, 4);
  set_decoded(r, KEY_NAME, address->name);
  set_utf8(r, KEY_MAILBOX, address->mailbox);
  set_utf8(r, KEY_HOST, address->host);
  if (l_text(r, address->host).len == 0) return;
  l_push_key(r, KEY_ADDRESS);
  push_joined(r, l_text(r, address->mailbox), l_text(r, address->host));
  l_set_key(r);
}

/* [-0, +2] the group's table and its empty array, which is set in it already */
static void push_group(Reader r, const struct address *address) {
  lua_State *L = r->L;
  lua_createtable(L, 0, 2);
  set_decoded(r, KEY_NAME, address->mailbox);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "group");
}

/* The array being filled: on the top, or below the array of an open group. */
struct filling {
  lua_Integer count;
  lua_Integer group_count; /* -1: no group is open */
};

static void end_group(Reader r, struct filling *filling) {
  if (filling->group_count >= 0) lua_pop(r->L, 1);
  filling->group_count = -1;
}

static void begin_group(Reader r, struct filling *filling, const struct address *address) {
  end_group(r, filling);
  push_group(r, address);
  lua_insert(r->L, -2);
  lua_rawseti(r->L, -3, ++filling->count);
  filling->group_count = 0;
}

static void add_address(Reader r, struct filling *filling, const struct address *address) {
  bool nowhere = l_type(r, address->host) == STLS_IMAP_NIL;
  if (nowhere && l_type(r, address->mailbox) == STLS_IMAP_NIL) {
    end_group(r, filling);
  } else if (nowhere) {
    begin_group(r, filling, address);
  } else {
    push_address(r, address);
    lua_rawseti(r->L, -2, filling->group_count >= 0 ? ++filling->group_count : ++filling->count);
  }
}

/* [-0, +1] NIL, "" and () are no addresses; one that is in no list of addresses is one. */
static void push_addresses(Reader r, size_t index) {
  size_t end = l_next(r, index);
  struct filling filling = {0, -1};
  struct address address;
  if (!l_is_list(r, index)) {
    lua_createtable(r->L, 0, 0);
    return;
  }
  lua_createtable(r->L, l_count_nodes(r, index + 1, end), 0);
  if (read_address(r, index, &address)) {
    add_address(r, &filling, &address);
  } else {
    for (index++; index < end; index = l_next(r, index)) {
      if (read_address(r, index, &address)) add_address(r, &filling, &address);
    }
  }
  end_group(r, &filling);
}

/* }====== */

void l_set_time(Reader r, const char *name, size_t index) {
  int64_t seconds;
  if (!l_is_text(r, index) || !stls_date_parse(l_text(r, index), &seconds)) return;
  lua_pushinteger(r->L, (lua_Integer)seconds);
  lua_setfield(r->L, -2, name);
}

static void set_date(Reader r, size_t index) {
  set_utf8(r, KEY_DATE, index);
  l_set_time(r, "time", index);
}

/* Whether two values are the same, octet for octet. */
static bool is_same(Reader r, size_t a, size_t b) {
  size_t count = l_next(r, a) - a, i;
  if (l_next(r, b) - b != count || !l_is_list(r, a) || !l_is_list(r, b)) return false;
  for (i = 1; i < count; i++) {
    const struct stls_imap_node *x = &r->response->nodes[a + i], *y = &r->response->nodes[b + i];
    if (x->type != y->type) return false;
    if (x->type == STLS_IMAP_LIST) {
      if (x->len - a != y->len - b) return false;
    } else if (x->len != y->len || memcmp(r->response->strings + x->start,
                                          r->response->strings + y->start, x->len) != 0) {
      return false;
    }
  }
  return true;
}

/* The fields that may be one table. */
enum { FROM = 2, SENDER = 3, REPLY_TO = 4 };

/* [-0, +0] envelope[key] = addresses; `from` is the node of From, whose table is there already */
static void set_addresses(Reader r, enum l_key key, size_t index, size_t from) {
  l_push_key(r, key);
  if (from > 0 && is_same(r, index, from)) {
    l_push_key(r, KEY_FROM);
    lua_rawget(r->L, -3);
  } else {
    push_addresses(r, index);
  }
  l_set_key(r);
}

/* [-0, +0] one of the ten fields, in their order (RFC 9051 7.5.2) */
static void set_field(Reader r, size_t field, size_t index, size_t from) {
  static const enum l_key keys[] = {KEY_DATE,        KEY_SUBJECT,   KEY_FROM, KEY_SENDER,
                                    KEY_REPLY_TO,    KEY_TO,        KEY_CC,   KEY_BCC,
                                    KEY_IN_REPLY_TO, KEY_MESSAGE_ID};
  switch (field) {
    case 0: set_date(r, index); break;
    case 1: set_decoded(r, keys[field], index); break;
    case SENDER:
    case REPLY_TO: set_addresses(r, keys[field], index, from); break;
    case 8:
    case 9: set_utf8(r, keys[field], index); break;
    default: set_addresses(r, keys[field], index, 0); break;
  }
}

/* [-0, +0] the arrays of addresses that did not come, empty */
static void set_missing(Reader r, size_t field) {
  static const enum l_key keys[] = {KEY_FROM, KEY_SENDER, KEY_REPLY_TO, KEY_TO, KEY_CC, KEY_BCC};
  for (field = field < FROM ? FROM : field; field < FROM + 6; field++) {
    l_push_key(r, keys[field - FROM]);
    lua_createtable(r->L, 0, 0);
    l_set_key(r);
  }
}

/* Servers that send fewer or more fields than ten keep to the order, too. */
void l_push_envelope(Reader r, size_t index) {
  size_t end = l_is_list(r, index) ? l_next(r, index) : 0, field = 0, from = 0;
  lua_createtable(r->L, 0, 11);
  for (index++; index < end && field < 10; index = l_next(r, index), field++) {
    set_field(r, field, index, from);
    if (field == FROM) from = index;
  }
  set_missing(r, field);
}
