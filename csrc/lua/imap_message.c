/*
 * lua/imap_message.c - FETCH and UIDFETCH become messages (RFC 9051 7.5.2, RFC 9586).
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * { seq, uid, flags, size, date, time, envelope, structure, sections = { ["1.2"] = text },
 *   binary_size = { ["1.2"] = octets }, modseq, save_date, save_time, preview,
 *   emailid, threadid, gm_msgid, gm_thrid, gm_labels }, and what is not known here under
 * its name in lower case.
 */
#include "lua/imap_parts.h"

/* {====== Sections ====== */

/*
 * The key of message.sections for a data item: what stands in the brackets, and the
 * offset behind them if there is one ("HEADER", "1.2", "", "TEXT<0>"). An empty
 * slice with a NULL pointer for items that carry no content.
 */
static struct stls_slice section_of(struct stls_slice item) {
  const char *bracket = memchr(item.ptr, '[', item.len);
  if (bracket) return stls_slice_from(item, (size_t)(bracket - item.ptr) + 1);
  if (stls_slice_is(item, "RFC822")) return stls_slice("", 0);
  if (stls_slice_is(item, "RFC822.HEADER")) return stls_slice_from(item, 7);
  if (stls_slice_is(item, "RFC822.TEXT")) return stls_slice_from(item, 7);
  return stls_slice(NULL, 0);
}

static void push_section(lua_State *L, struct stls_slice section) {
  const char *close = memchr(section.ptr, ']', section.len);
  size_t len = close ? (size_t)(close - section.ptr) : section.len;
  lua_pushlstring(L, section.ptr, len);
  if (!close) return;
  lua_pushlstring(L, close + 1, section.len - len - 1);
  lua_concat(L, 2);
}

void l_push_streamed_section(lua_State *L, const struct stls_imap_response *response) {
  struct stls_slice section = section_of(stls_imap_node_text(response, response->node_count - 2));
  push_section(L, section.ptr ? section : stls_slice("", 0));
}

/* [-0, +1] the table in that field, made when it is not there */
static void push_subtable(Reader r, const char *name) {
  lua_State *L = r->L;
  if (lua_getfield(L, -1, name) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, name);
}

/*
 * [-0, +0] message.sections[section] = string. A section that does not exist (NIL) is absent
 * there, and so is a streamed literal, which the caller fills in.
 */
static void set_section(Reader r, struct stls_slice section, size_t index) {
  push_subtable(r, "sections");
  if (l_is_text(r, index)) {
    push_section(r->L, section);
    l_push_slice(r->L, l_text(r, index));
    lua_rawset(r->L, -3);
  }
  lua_pop(r->L, 1);
}

/* RFC 3516 4.3: message.binary_size["1.2"] */
static void set_binary_size(Reader r, struct stls_slice section, size_t index) {
  lua_Integer size;
  push_subtable(r, "binary_size");
  if (l_number(r, index, &size)) {
    push_section(r->L, section);
    lua_pushinteger(r->L, size);
    lua_rawset(r->L, -3);
  }
  lua_pop(r->L, 1);
}

/* }====== */

/* {====== Items ====== */

static void set_integer(Reader r, enum l_key key, size_t index) {
  lua_Integer number;
  if (!l_number(r, index, &number)) return;
  l_push_key(r, key);
  lua_pushinteger(r->L, number);
  l_set_key(r);
}

static void set_uid(Reader r, size_t index) {
  set_integer(r, KEY_UID, index);
}

static void set_flags(Reader r, size_t index) {
  l_push_key(r, KEY_FLAGS);
  l_push_flags(r, index);
  l_set_key(r);
}

static void set_size(Reader r, size_t index) {
  set_integer(r, KEY_SIZE, index);
}

static void set_date(Reader r, size_t index) {
  l_set_text(r, "date", index);
  l_set_time(r, "time", index);
}

static void set_envelope(Reader r, size_t index) {
  l_push_key(r, KEY_ENVELOPE);
  l_push_envelope(r, index);
  l_set_key(r);
}

static void set_structure(Reader r, size_t index) {
  l_push_key(r, KEY_STRUCTURE);
  l_push_structure(r, index);
  l_set_key(r);
}

/* RFC 8514 4.1 */
static void set_save_date(Reader r, size_t index) {
  l_set_text(r, "save_date", index);
  l_set_time(r, "save_time", index);
}

/* The only element of a list; or what stands without one. */
static size_t only(Reader r, size_t index) {
  return l_is_list(r, index) && l_next(r, index) > index + 1 ? index + 1 : index;
}

/* RFC 7162 3.1.4.2 */
static void set_modseq(Reader r, size_t index) {
  l_set_number(r, "modseq", only(r, index));
}

/* RFC 8474 5 */
static void set_emailid(Reader r, size_t index) {
  l_set_text(r, "emailid", only(r, index));
}

static void set_threadid(Reader r, size_t index) {
  l_set_text(r, "threadid", only(r, index));
}

/* RFC 8970 3 */
static void set_preview(Reader r, size_t index) {
  l_set_text(r, "preview", index);
}

/* 64 bits without a sign: what is above 2^63 is a string of digits. */
static void set_unsigned(Reader r, const char *name, size_t index) {
  if (!l_is_text(r, index)) return;
  l_push_value(r, index);
  lua_setfield(r->L, -2, name);
}

static void set_gm_msgid(Reader r, size_t index) {
  set_unsigned(r, "gm_msgid", index);
}

static void set_gm_thrid(Reader r, size_t index) {
  set_unsigned(r, "gm_thrid", index);
}

/* Labels are mailbox names, or flags as in "\\Inbox". */
static void set_gm_labels(Reader r, size_t index) {
  size_t end = l_next(r, index);
  lua_Integer count = 0;
  lua_newtable(r->L);
  for (index += l_is_list(r, index); index < end; index = l_next(r, index)) {
    if (!l_is_text(r, index)) continue;
    l_push_mailbox(r, l_text(r, index));
    lua_rawseti(r->L, -2, ++count);
  }
  lua_setfield(r->L, -2, "gm_labels");
}

struct item {
  const char *name;
  size_t len;
  void (*set)(Reader r, size_t index);
};

static const struct item items[] = {
    {"UID", 3, set_uid},
    {"FLAGS", 5, set_flags},
    {"INTERNALDATE", 12, set_date},
    {"RFC822.SIZE", 11, set_size},
    {"ENVELOPE", 8, set_envelope},
    {"BODYSTRUCTURE", 13, set_structure},
    {"BODY", 4, set_structure},
    {"MODSEQ", 6, set_modseq},
    {"EMAILID", 7, set_emailid},
    {"THREADID", 8, set_threadid},
    {"SAVEDATE", 8, set_save_date},
    {"PREVIEW", 7, set_preview},
    {"X-GM-MSGID", 10, set_gm_msgid},
    {"X-GM-THRID", 10, set_gm_thrid},
    {"X-GM-LABELS", 11, set_gm_labels},
};

static const struct item *find_item(struct stls_slice name) {
  size_t i;
  for (i = 0; i < sizeof items / sizeof items[0]; i++) {
    if (name.len == items[i].len && stls_slice_starts(name, items[i].name)) return &items[i];
  }
  return NULL;
}

static void set_item(Reader r, struct stls_slice name, size_t index) {
  const struct item *item = find_item(name);
  struct stls_slice section;
  if (item) {
    item->set(r, index);
    return;
  }
  section = section_of(name);
  if (section.ptr && stls_slice_starts(name, "BINARY.SIZE[")) {
    set_binary_size(r, section, index);
  } else if (section.ptr) {
    set_section(r, section, index);
  } else {
    l_push_lower(r, name, '-');
    l_push_value(r, index);
    lua_rawset(r->L, -3);
  }
}

/* }====== */

static void set_message_number(Reader r) {
  if (!r->response->has_number) return;
  l_push_key(r, stls_slice_is(r->response->name, "UIDFETCH") ? KEY_UID : KEY_SEQ);
  lua_pushinteger(r->L, r->response->number);
  l_set_key(r);
}

void l_push_message(Reader r, size_t index) {
  size_t end = r->response->node_count;
  lua_createtable(r->L, 0, 8);
  set_message_number(r);
  if (end == 0 || !l_is_list(r, 0)) return;
  while (index + 1 < end) {
    if (l_is_list(r, index)) { /* no name of an item: what belongs to it is lost, and no more */
      index = l_next(r, index);
      continue;
    }
    /* A list of length 0 is open yet: this is read while a literal is coming. */
    set_item(r, l_text(r, index), index + 1);
    if (l_is_list(r, index + 1) && r->response->nodes[index + 1].len == 0) return;
    index = l_next(r, index + 1);
  }
}
