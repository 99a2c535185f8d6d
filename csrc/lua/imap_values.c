/*
 * lua/imap_values.c - IMAP responses become Lua tables.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * What is known gets named fields; all else becomes nested arrays, in which NIL is
 * false, as an array can't hold nil. Nesting is bounded by limits.depth, which the
 * parser has seen to, so that recursion here is.
 */
#include <string.h>
#include <time.h>

#include "lua/binding.h"

typedef const struct stls_imap_response *Response;

/* {====== Values without names ====== */

static void push_number(lua_State *L, struct stls_slice text) {
  uint64_t number;
  if (stls_slice_number(text, INT64_MAX, &number)) lua_pushinteger(L, (lua_Integer)number);
  else l_push_slice(L, text);
}

/* How many nodes stand next to each other from `index` up to `end`: tables are made the right size.
 */
static int count_nodes(Response response, size_t index, size_t end) {
  int count = 0;
  for (; index < end; index = stls_imap_node_next(response, index)) count++;
  return count;
}

static void push_value(lua_State *L, Response response, size_t index);

/* [-0, +1] the nodes from `index` up to `end` as an array */
static void push_array(lua_State *L, Response response, size_t index, size_t end) {
  lua_Integer count = 0;
  luaL_checkstack(L, 4, "response is nested too deep");
  lua_createtable(L, count_nodes(response, index, end), 0);
  for (; index < end; index = stls_imap_node_next(response, index)) {
    push_value(L, response, index);
    lua_seti(L, -2, ++count);
  }
}

static void push_list(lua_State *L, Response response, size_t index) {
  push_array(L, response, index + 1, stls_imap_node_next(response, index));
}

static void push_value(lua_State *L, Response response, size_t index) {
  switch (response->nodes[index].type) {
    case STLS_IMAP_LIST: push_list(L, response, index); break;
    case STLS_IMAP_NIL:
    case STLS_IMAP_STREAMED: lua_pushboolean(L, 0); break;
    case STLS_IMAP_NUMBER: push_number(L, stls_imap_node_text(response, index)); break;
    default: l_push_slice(L, stls_imap_node_text(response, index)); break;
  }
}

/* }====== */

static enum stls_imap_type type_at(Response response, size_t index) {
  return (enum stls_imap_type)response->nodes[index].type;
}

/* [-0, +0] sets a field of the table on the top to a string; nothing for NIL. */
static void set_string(lua_State *L, const char *name, Response response, size_t index) {
  if (type_at(response, index) == STLS_IMAP_NIL || type_at(response, index) == STLS_IMAP_LIST)
    return;
  l_push_slice(L, stls_imap_node_text(response, index));
  lua_setfield(L, -2, name);
}

/* [-0, +1] flags, both as an array and as a set: flags[1], flags["\\Seen"] */
static void push_flags(lua_State *L, Response response, size_t index) {
  size_t end = stls_imap_node_next(response, index);
  lua_Integer count = 0;
  int expected = count_nodes(response, index + 1, end);
  lua_createtable(L, expected, expected);
  if (type_at(response, index) != STLS_IMAP_LIST) return;
  for (index++; index < end; index = stls_imap_node_next(response, index)) {
    l_push_slice(L, stls_imap_node_text(response, index));
    lua_pushvalue(L, -1);
    lua_seti(L, -3, ++count);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
  }
}

/* {====== Mailboxes ====== */

static int decode_mailbox(lua_State *L) {
  struct stls_buffer *name = lua_touserdata(L, 1);
  l_push_slice(L, stls_buffer_slice(name));
  return 1;
}

/* [-0, +1] the name in UTF-8; as the server wrote it where that is no modified UTF-7 */
static void push_mailbox(lua_State *L, Response response, size_t index) {
  struct stls_slice text = stls_imap_node_text(response, index);
  struct stls_buffer name;
  int status = LUA_OK;
  if (type_at(response, index) == STLS_IMAP_NIL) text = stls_slice_of("NIL"); /* a name like any */
  if (!memchr(text.ptr, '&', text.len)) {
    l_push_slice(L, text);
    return;
  }
  stls_buffer_init(&name, 0);
  if (!stls_utf7_decode(text, &name)) {
    stls_buffer_free(&name);
    l_push_slice(L, text);
    return;
  }
  lua_pushcfunction(L, decode_mailbox);
  lua_pushlightuserdata(L, &name);
  status = lua_pcall(L, 1, 1, 0); /* may run out of memory: the buffer must not leak */
  stls_buffer_free(&name);
  if (status != LUA_OK) lua_error(L);
}

/* RFC 9051 7.3.1: "(" flags ")" SP delimiter SP mailbox */
static void push_mailbox_list(lua_State *L, Response response) {
  size_t delimiter, name;
  if (response->node_count == 0) {
    lua_newtable(L);
    return;
  }
  delimiter = stls_imap_node_next(response, 0);
  name = delimiter < response->node_count ? stls_imap_node_next(response, delimiter)
                                          : response->node_count;
  lua_createtable(L, 0, 3);
  push_flags(L, response, 0);
  lua_setfield(L, -2, "flags");
  if (delimiter < response->node_count) set_string(L, "delimiter", response, delimiter);
  if (name >= response->node_count) return;
  push_mailbox(L, response, name);
  lua_setfield(L, -2, "name");
}

/* [-1, +1] the string on the top in lower case, as a field's name */
static void lower_top(lua_State *L) {
  char text[64];
  size_t i, len;
  const char *from = lua_tolstring(L, -1, &len);
  if (len >= sizeof text) return;
  for (i = 0; i < len; i++)
    text[i] = from[i] >= 'A' && from[i] <= 'Z' ? (char)(from[i] + 32) : from[i];
  lua_pop(L, 1);
  lua_pushlstring(L, text, len);
}

/* RFC 9051 7.3.4: mailbox SP "(" *(item SP number) ")" */
static void push_status(lua_State *L, Response response) {
  size_t index, end;
  lua_newtable(L);
  if (response->node_count < 2) return;
  push_mailbox(L, response, 0);
  lua_setfield(L, -2, "name");
  index = stls_imap_node_next(response, 0);
  end = stls_imap_node_next(response, index);
  for (index++; index + 1 < end; index += 2) {
    l_push_slice(L, stls_imap_node_text(response, index));
    lower_top(L);
    push_value(L, response, index + 1);
    lua_rawset(L, -3);
    if (type_at(response, index + 1) == STLS_IMAP_LIST) break; /* no item has a list */
  }
}

/* }====== */

/* {====== Messages ====== */

/* RFC 9051 7.5.2: "(" name SP route SP mailbox SP host ")" */
static void push_address(lua_State *L, Response response, size_t index) {
  struct stls_slice mailbox, host;
  lua_createtable(L, 0, 4);
  if (type_at(response, index) != STLS_IMAP_LIST ||
      stls_imap_node_next(response, index) != index + 5)
    return;
  set_string(L, "name", response, index + 1);
  set_string(L, "mailbox", response, index + 3);
  set_string(L, "host", response, index + 4);
  mailbox = stls_imap_node_text(response, index + 3);
  host = stls_imap_node_text(response, index + 4);
  if (host.len == 0) return; /* a group's beginning or end */
  l_push_slice(L, mailbox);
  lua_pushliteral(L, "@");
  l_push_slice(L, host);
  lua_concat(L, 3);
  lua_setfield(L, -2, "address");
}

static void set_addresses(lua_State *L, const char *name, Response response, size_t index) {
  size_t end = stls_imap_node_next(response, index);
  lua_Integer count = 0;
  lua_createtable(L, count_nodes(response, index + 1, end), 0);
  for (index++; index < end; index = stls_imap_node_next(response, index)) {
    push_address(L, response, index);
    lua_seti(L, -2, ++count);
  }
  lua_setfield(L, -2, name);
}

/* RFC 9051 7.5.2, the ten fields in their order */
static void push_envelope(lua_State *L, Response response, size_t index) {
  static const char *const fields[] = {"date", "subject", "from", "sender",      "reply_to",
                                       "to",   "cc",      "bcc",  "in_reply_to", "message_id"};
  size_t end = stls_imap_node_next(response, index), field = 0;
  lua_createtable(L, 0, 10);
  if (type_at(response, index) != STLS_IMAP_LIST) return;
  for (index++; index < end && field < 10; index = stls_imap_node_next(response, index), field++) {
    if (field >= 2 && field <= 7) set_addresses(L, fields[field], response, index);
    else set_string(L, fields[field], response, index);
  }
}

/* The number that `count` digits at `text` make; -1 for anything else. */
static int digits(const char *text, int count) {
  int number = 0, i;
  for (i = 0; i < count; i++) {
    if (!stls_is_digit(text[i])) return -1;
    number = number * 10 + (text[i] - '0');
  }
  return number;
}

/* 0 for Jan; -1 for no month. */
static int month_index(const char *text) {
  static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  int i;
  for (i = 0; i < 12; i++) {
    if (stls_slice_is(stls_slice(text, 3), months[i])) return i;
  }
  return -1;
}

/* RFC 9051 9, date-time: "17-Jul-1996 02:44:25 -0700". False when it is none. */
static bool parse_date(struct stls_slice text, double *seconds_r) {
  const char *t = text.ptr;
  struct tm parts;
  int zone;
  if (text.len != 26 || (t[21] != '+' && t[21] != '-')) return false;
  memset(&parts, 0, sizeof parts);
  parts.tm_mday = t[0] == ' ' ? digits(t + 1, 1) : digits(t, 2);
  parts.tm_mon = month_index(t + 3);
  parts.tm_year = digits(t + 7, 4) - 1900;
  parts.tm_hour = digits(t + 12, 2);
  parts.tm_min = digits(t + 15, 2);
  parts.tm_sec = digits(t + 18, 2);
  zone = digits(t + 22, 4);
  if (parts.tm_mday < 0 || parts.tm_mon < 0 || parts.tm_year < -1900 || parts.tm_hour < 0 ||
      parts.tm_min < 0 || parts.tm_sec < 0 || zone < 0) {
    return false;
  }
  zone = (zone / 100 * 60 + zone % 100) * 60;
  *seconds_r = (double)timegm(&parts) - (t[21] == '+' ? zone : -zone);
  return true;
}

/* [-0, +0] message.date is the text, message.time the seconds since the epoch */
static void set_date(lua_State *L, Response response, size_t index) {
  double seconds;
  set_string(L, "date", response, index);
  if (!parse_date(stls_imap_node_text(response, index), &seconds)) return;
  lua_pushinteger(L, (lua_Integer)seconds);
  lua_setfield(L, -2, "time");
}

/*
 * The key of message.sections for a data item: what stands in the brackets, and the
 * offset behind them if there is one ("HEADER", "1.2", "", "TEXT<0>"). An empty
 * slice with a NULL pointer for items that carry no content.
 */
static struct stls_slice section_of(struct stls_slice item) {
  const char *bracket = memchr(item.ptr, '[', item.len);
  if (stls_slice_is(item, "RFC822")) return stls_slice("", 0);
  if (stls_slice_is(item, "RFC822.HEADER")) return stls_slice_from(item, 7);
  if (stls_slice_is(item, "RFC822.TEXT")) return stls_slice_from(item, 7);
  if (!bracket) return stls_slice(NULL, 0);
  return stls_slice_from(item, (size_t)(bracket - item.ptr) + 1);
}

static void push_section(lua_State *L, struct stls_slice section) {
  const char *close = memchr(section.ptr, ']', section.len);
  size_t len = close ? (size_t)(close - section.ptr) : section.len;
  lua_pushlstring(L, section.ptr, len);
  if (!close) return;
  lua_pushlstring(L, close + 1, section.len - len - 1);
  lua_concat(L, 2);
}

/*
 * [-0, +0] message.sections[section] = string. A section that does not exist (NIL) is absent
 * there, and so is a streamed literal, which the caller fills in.
 */
static void set_body(lua_State *L, struct stls_slice section, Response response, size_t index) {
  enum stls_imap_type type = type_at(response, index);
  if (lua_getfield(L, -1, "sections") != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "sections");
  }
  if (type != STLS_IMAP_STREAMED && type != STLS_IMAP_NIL) {
    push_section(L, section);
    l_push_slice(L, stls_imap_node_text(response, index));
    lua_rawset(L, -3);
  }
  lua_pop(L, 1);
}

/* [-0, +0] one data item of a FETCH response */
static void set_item(lua_State *L, struct stls_slice item, Response response, size_t index) {
  struct stls_slice section = section_of(item);
  if (section.ptr && !stls_slice_starts(item, "BINARY.SIZE")) {
    set_body(L, section, response, index);
  } else if (stls_slice_is(item, "UID")) {
    push_value(L, response, index);
    lua_setfield(L, -2, "uid");
  } else if (stls_slice_is(item, "FLAGS")) {
    push_flags(L, response, index);
    lua_setfield(L, -2, "flags");
  } else if (stls_slice_is(item, "RFC822.SIZE")) {
    push_value(L, response, index);
    lua_setfield(L, -2, "size");
  } else if (stls_slice_is(item, "INTERNALDATE")) {
    set_date(L, response, index);
  } else if (stls_slice_is(item, "ENVELOPE")) {
    push_envelope(L, response, index);
    lua_setfield(L, -2, "envelope");
  } else if (stls_slice_is(item, "BODYSTRUCTURE") || stls_slice_is(item, "BODY")) {
    push_value(L, response, index);
    lua_setfield(L, -2, "structure");
  } else {
    l_push_slice(L, item);
    lower_top(L);
    push_value(L, response, index);
    lua_rawset(L, -3);
  }
}

/* [-0, +1] a message: the items of a FETCH response from node `index` on */
static void push_message(lua_State *L, Response response, size_t index) {
  size_t end = response->node_count;
  lua_createtable(L, 0, 8);
  if (response->has_number) {
    lua_pushinteger(L, response->number);
    lua_setfield(L, -2, "seq");
  }
  if (end == 0 || type_at(response, 0) != STLS_IMAP_LIST) return;
  for (; index + 1 < end; index = stls_imap_node_next(response, index + 1)) {
    set_item(L, stls_imap_node_text(response, index), response, index + 1);
    if (type_at(response, index + 1) == STLS_IMAP_LIST && response->nodes[index + 1].len == 0)
      return;
  }
}

/* Whoever wants all of them adds them up: to start anew at each literal takes quadratic time. */
void l_push_fresh_items(lua_State *L, const struct stls_imap_response *response) {
  push_message(L, response, response->fresh);
}

void l_push_streamed_section(lua_State *L, const struct stls_imap_response *response) {
  struct stls_slice section = section_of(stls_imap_node_text(response, response->node_count - 2));
  push_section(L, section.ptr ? section : stls_slice("", 0));
}

/* }====== */

/* [-0, +1] { code, arguments, text } */
static void push_condition(lua_State *L, Response response) {
  lua_createtable(L, 0, 3);
  l_push_slice(L, response->text);
  lua_setfield(L, -2, "text");
  if (response->node_count == 0) return;
  l_push_upper(L, stls_imap_node_text(response, 0));
  lua_setfield(L, -2, "code");
  l_push_code_arguments(L, response);
  lua_setfield(L, -2, "arguments");
}

void l_push_code_arguments(lua_State *L, const struct stls_imap_response *response) {
  push_array(L, response, response->node_count > 0 ? 1 : 0, response->node_count);
}

void l_push_response(lua_State *L, const struct stls_imap_response *response) {
  if (response->is_status) push_condition(L, response);
  else if (stls_slice_is(response->name, "FETCH")) push_message(L, response, 1);
  else if (stls_slice_is(response->name, "LIST") || stls_slice_is(response->name, "LSUB"))
    push_mailbox_list(L, response);
  else if (stls_slice_is(response->name, "STATUS")) push_status(L, response);
  else if (stls_slice_is(response->name, "FLAGS") && response->node_count > 0)
    push_flags(L, response, 0);
  else push_array(L, response, 0, response->node_count);
}
