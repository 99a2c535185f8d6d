/*
 * lua/imap_mailbox.c - what a server says of mailboxes and of itself, with named fields.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 *   LIST, LSUB    { name, delimiter, flags, childinfo = array, old_name, others by tag }
 *   STATUS        { name, messages, uidnext, ... } by item, "-" as "_"
 *   NAMESPACE     { personal, other, shared }: arrays of { prefix, delimiter, extensions }
 *   QUOTA         { root, resources = { STORAGE = { usage, limit } } }
 *   QUOTAROOT     { name, roots }
 *   ACL           { name, rights = { identifier = rights } }
 *   LISTRIGHTS    { name, identifier, required, optional = array }
 *   MYRIGHTS      { name, rights }
 *   METADATA      { name, entries = array of names, values = { [entry] = value } }
 *   ID            { name = "...", ... }, with names in lower case; empty for NIL
 *   FLAGS         array and set
 *   LANGUAGE, ENABLED, CAPABILITY   arrays
 *   JMAPACCESS    { url }
 */
#include "lua/imap_parts.h"

static size_t end_of(Reader r) {
  return r->response->node_count;
}

/* The end of a list's elements; nothing for what is no list. */
static size_t list_end(Reader r, size_t index) {
  return index < end_of(r) && l_is_list(r, index) ? l_next(r, index) : 0;
}

/* {====== Mailboxes ====== */

/* RFC 5258 6, mbox-list-extended: tag SP value, as often as the server likes */
static void set_extended(Reader r, size_t index) {
  size_t end = list_end(r, index);
  for (index++; index + 1 < end; index = l_next(r, index + 1)) {
    if (l_is_list(r, index)) return;
    if (stls_slice_is(l_text(r, index), "CHILDINFO")) {
      l_push_strings(r, index + 1);
      lua_setfield(r->L, -2, "childinfo");
    } else if (stls_slice_is(l_text(r, index), "OLDNAME")) { /* RFC 9051 6.3.9.7: ("name") */
      size_t name = index + 1 + (l_is_list(r, index + 1) && l_next(r, index + 1) > index + 2);
      l_set_mailbox(r, "old_name", name);
    } else {
      l_push_lower(r, l_text(r, index), '-');
      l_push_value(r, index + 1);
      lua_rawset(r->L, -3);
    }
  }
}

/* RFC 9051 7.3.1: "(" flags ")" SP delimiter SP mailbox */
static void push_list(Reader r) {
  size_t delimiter, name;
  lua_createtable(r->L, 0, 4);
  if (end_of(r) == 0) return;
  l_push_flags(r, 0);
  lua_setfield(r->L, -2, "flags");
  delimiter = l_next(r, 0);
  if (delimiter >= end_of(r)) return;
  l_set_text(r, "delimiter", delimiter);
  name = l_next(r, delimiter);
  if (name >= end_of(r)) return;
  l_set_mailbox(r, "name", name);
  set_extended(r, l_next(r, name));
}

/* RFC 9051 7.3.4: mailbox SP "(" *(item SP value) ")" */
static void push_status(Reader r) {
  size_t index, end;
  lua_newtable(r->L);
  if (end_of(r) < 2) return;
  l_set_mailbox(r, "name", 0);
  index = l_next(r, 0);
  end = list_end(r, index);
  for (index++; index + 1 < end; index = l_next(r, index + 1)) {
    size_t value = index + 1;
    if (l_is_list(r, index)) return;
    if (l_is_list(r, value) && l_next(r, value) == value + 2) value++; /* MAILBOXID ("id") */
    if (l_type(r, value) == STLS_IMAP_NIL) continue;                   /* APPENDLIMIT NIL: none */
    l_push_lower(r, l_text(r, index), '_');
    l_push_value(r, value);
    lua_rawset(r->L, -3);
  }
}

/* [-0, +1] RFC 2342 5: "(" prefix SP delimiter *(SP name SP "(" values ")") ")" */
static void push_namespace(Reader r, size_t index) {
  size_t end = l_next(r, index), at = index + 1;
  lua_createtable(r->L, 0, 3);
  if (at >= end) return;
  l_set_mailbox(r, "prefix", at);
  at = l_next(r, at);
  if (at >= end) return;
  l_set_text(r, "delimiter", at);
  lua_newtable(r->L);
  for (at = l_next(r, at); at + 1 < end && !l_is_list(r, at); at = l_next(r, at + 1)) {
    l_push_lower(r, l_text(r, at), '-');
    l_push_strings(r, at + 1);
    lua_rawset(r->L, -3);
  }
  lua_setfield(r->L, -2, "extensions");
}

static void push_namespaces(Reader r) {
  static const char *const names[] = {"personal", "other", "shared"};
  size_t index = 0, i;
  lua_createtable(r->L, 0, 3);
  for (i = 0; i < 3; i++) {
    size_t end = list_end(r, index), at;
    lua_Integer count = 0;
    lua_newtable(r->L);
    for (at = index + 1; at < end; at = l_next(r, at)) {
      if (!l_is_list(r, at)) continue;
      push_namespace(r, at);
      lua_rawseti(r->L, -2, ++count);
    }
    lua_setfield(r->L, -2, names[i]);
    if (index < end_of(r)) index = l_next(r, index);
  }
}

/* }====== */

/* {====== Quotas and rights ====== */

/* RFC 9208 5.1: root SP "(" *(name SP usage SP limit) ")" */
static void push_quota(Reader r) {
  size_t index, end;
  lua_createtable(r->L, 0, 2);
  if (end_of(r) == 0) return;
  l_set_text(r, "root", 0);
  lua_newtable(r->L);
  end = list_end(r, l_next(r, 0));
  for (index = l_next(r, 0) + 1; index + 2 < end; index += 3) {
    if (l_is_list(r, index) || l_is_list(r, index + 1) || l_is_list(r, index + 2)) break;
    l_push_upper(r->L, l_text(r, index));
    lua_createtable(r->L, 0, 2);
    l_set_number(r, "usage", index + 1);
    l_set_number(r, "limit", index + 2);
    lua_rawset(r->L, -3);
  }
  lua_setfield(r->L, -2, "resources");
}

/* [-0, +1] the texts from `index` on */
static void push_texts(Reader r, size_t index) {
  lua_Integer count = 0;
  lua_newtable(r->L);
  for (; index < end_of(r); index = l_next(r, index)) {
    if (!l_is_text(r, index)) continue;
    l_push_utf8(r, l_text(r, index));
    lua_rawseti(r->L, -2, ++count);
  }
}

/* RFC 9208 5.2: mailbox *(SP root) */
static void push_quotaroot(Reader r) {
  lua_createtable(r->L, 0, 2);
  if (end_of(r) == 0) return;
  l_set_mailbox(r, "name", 0);
  push_texts(r, l_next(r, 0));
  lua_setfield(r->L, -2, "roots");
}

/* RFC 4314 3.6: mailbox *(SP identifier SP rights) */
static void push_acl(Reader r) {
  size_t index;
  lua_createtable(r->L, 0, 2);
  if (end_of(r) == 0) return;
  l_set_mailbox(r, "name", 0);
  lua_newtable(r->L);
  for (index = l_next(r, 0); index + 1 < end_of(r); index += 2) {
    if (l_is_list(r, index) || l_is_list(r, index + 1)) break;
    l_push_utf8(r, l_text(r, index));
    l_push_slice(r->L, l_text(r, index + 1));
    lua_rawset(r->L, -3);
  }
  lua_setfield(r->L, -2, "rights");
}

/* RFC 4314 3.7: mailbox SP identifier SP rights *(SP rights) */
static void push_listrights(Reader r) {
  size_t identifier, required;
  lua_createtable(r->L, 0, 4);
  if (end_of(r) == 0) return;
  l_set_mailbox(r, "name", 0);
  identifier = l_next(r, 0);
  if (identifier >= end_of(r)) return;
  l_set_text(r, "identifier", identifier);
  required = l_next(r, identifier);
  if (required >= end_of(r)) return;
  l_set_text(r, "required", required);
  push_texts(r, l_next(r, required));
  lua_setfield(r->L, -2, "optional");
}

/* RFC 4314 3.8: mailbox SP rights */
static void push_myrights(Reader r) {
  lua_createtable(r->L, 0, 2);
  if (end_of(r) == 0) return;
  l_set_mailbox(r, "name", 0);
  if (l_next(r, 0) < end_of(r)) l_set_text(r, "rights", l_next(r, 0));
}

/* }====== */

/* {====== All else ====== */

/* [-0, +0] the table on the top, behind `entries`, gets values from "(" *(entry SP value) ")" */
static void set_metadata_values(Reader r, size_t index, size_t end) {
  lua_Integer count = 0;
  for (index++; index + 1 < end; index = l_next(r, index + 1)) {
    if (l_is_list(r, index)) return;
    l_push_utf8(r, l_text(r, index));
    lua_pushvalue(r->L, -1);
    lua_rawseti(r->L, -4, ++count);
    if (l_is_text(r, index + 1)) {
      l_push_slice(r->L, l_text(r, index + 1));
      lua_rawset(r->L, -3);
    } else {
      lua_pop(r->L, 1);
    }
  }
}

/* RFC 5464 4.4: mailbox SP values, or unasked: mailbox *(SP entry) */
static void push_metadata(Reader r) {
  size_t index, end;
  lua_createtable(r->L, 0, 3);
  if (end_of(r) == 0) return;
  l_set_mailbox(r, "name", 0);
  index = l_next(r, 0);
  end = list_end(r, index);
  if (end == 0) {
    push_texts(r, index);
    lua_setfield(r->L, -2, "entries");
    return;
  }
  lua_newtable(r->L);
  lua_newtable(r->L);
  set_metadata_values(r, index, end);
  lua_setfield(r->L, -3, "values");
  lua_setfield(r->L, -2, "entries");
}

/* RFC 2971 3.2: "(" *(field SP value) ")" / NIL */
static void push_id(Reader r) {
  size_t index, end = list_end(r, 0);
  lua_newtable(r->L);
  for (index = 1; index + 1 < end; index = l_next(r, index + 1)) {
    if (!l_is_text(r, index) || !l_is_text(r, index + 1)) continue;
    l_push_lower(r, l_text(r, index), '-');
    l_push_utf8(r, l_text(r, index + 1));
    lua_rawset(r->L, -3);
  }
}

static void push_flags(Reader r) {
  if (end_of(r) > 0) l_push_flags(r, 0);
  else lua_newtable(r->L);
}

/* RFC 5255 3.3: "(" tags ")" */
static void push_language(Reader r) {
  if (end_of(r) > 0) l_push_strings(r, 0);
  else lua_newtable(r->L);
}

static void push_words(Reader r) {
  push_texts(r, 0);
}

/* RFC 9698 4 */
static void push_jmapaccess(Reader r) {
  lua_createtable(r->L, 0, 1);
  if (end_of(r) > 0) l_set_text(r, "url", 0);
}

/* }====== */

static const struct {
  const char *name;
  void (*push)(Reader r);
} responses[] = {
    {"LIST", push_list},
    {"LSUB", push_list},
    {"STATUS", push_status},
    {"FLAGS", push_flags},
    {"CAPABILITY", push_words},
    {"ENABLED", push_words},
    {"NAMESPACE", push_namespaces},
    {"QUOTA", push_quota},
    {"QUOTAROOT", push_quotaroot},
    {"ACL", push_acl},
    {"LISTRIGHTS", push_listrights},
    {"MYRIGHTS", push_myrights},
    {"METADATA", push_metadata},
    {"ID", push_id},
    {"LANGUAGE", push_language},
    {"JMAPACCESS", push_jmapaccess},
};

bool l_push_mailbox_response(Reader r) {
  size_t i;
  for (i = 0; i < sizeof responses / sizeof responses[0]; i++) {
    if (stls_slice_is(r->response->name, responses[i].name)) {
      responses[i].push(r);
      return true;
    }
  }
  return false;
}
