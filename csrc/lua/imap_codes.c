/*
 * lua/imap_codes.c - status responses, and the codes in their brackets (RFC 9051 7.1 and the
 * IANA registry "IMAP Response Codes").
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * A code that is known here becomes a field of its name in lower case, with "_" for "-":
 * true, or what it says. `code_text` is all that stands in the brackets, `arguments` the
 * same as nested arrays: for codes that are not known.
 */
#include "lua/imap_parts.h"

/* {====== What codes say ====== */

/* Nodes of the code's arguments: from 1 up to here. */
static size_t end_of(Reader r) {
  return r->response->node_count;
}

/* [-0, +1] each pushes the value of a code; they are only called when there are arguments. */
typedef void (*Push)(Reader r);

static void push_number(Reader r) {
  lua_Integer number;
  if (l_number(r, 1, &number)) lua_pushinteger(r->L, number);
  else lua_pushboolean(r->L, 1);
}

static void push_text(Reader r) {
  if (l_is_text(r, 1)) l_push_utf8(r, l_text(r, 1));
  else lua_pushboolean(r->L, 1);
}

/* ("id") */
static void push_only(Reader r) {
  size_t index = l_is_list(r, 1) && end_of(r) > 2 ? 2 : 1;
  if (l_is_text(r, index)) l_push_utf8(r, l_text(r, index));
  else lua_pushboolean(r->L, 1);
}

static void push_flags(Reader r) {
  l_push_flags(r, 1);
}

static void push_list(Reader r) {
  l_push_strings(r, 1);
}

static void push_words(Reader r) {
  size_t index;
  lua_Integer count = 0;
  lua_newtable(r->L);
  for (index = 1; index < end_of(r); index = l_next(r, index)) {
    if (!l_is_text(r, index)) continue;
    l_push_value(r, index);
    lua_rawseti(r->L, -2, ++count);
  }
}

/* All behind the code's name as it stands: a URL may have anything. */
static void push_raw(Reader r) {
  struct stls_slice rest = r->response->code, name;
  stls_slice_word(&rest, &name);
  l_push_utf8(r, stls_slice_trim(rest));
}

/* [-0, +0] a set; the empty one when it is left out, as COPYUID does when nothing was copied */
static void set_set(Reader r, const char *name, size_t index) {
  bool there = index < end_of(r) && l_is_text(r, index);
  l_push_slice(r->L, there ? l_text(r, index) : stls_slice("", 0));
  lua_setfield(r->L, -2, name);
}

/* RFC 4315 3: UIDVALIDITY SP UIDs */
static void push_appenduid(Reader r) {
  lua_createtable(r->L, 0, 2);
  l_set_number(r, "uidvalidity", 1);
  set_set(r, "uids", 2);
}

/* RFC 4315 3: UIDVALIDITY SP UIDs SP UIDs */
static void push_copyuid(Reader r) {
  lua_createtable(r->L, 0, 3);
  l_set_number(r, "uidvalidity", 1);
  set_set(r, "source", 2);
  set_set(r, "destination", 3);
}

/* RFC 9585 4: ("tag" done goal), each of which may be NIL */
static void push_inprogress(Reader r) {
  static const char *const names[] = {"tag", "done", "goal"};
  size_t index = 2, i;
  lua_createtable(r->L, 0, 3);
  for (i = 0; i < 3 && l_is_list(r, 1) && index < end_of(r); i++, index = l_next(r, index)) {
    if (i == 0) l_set_text(r, names[i], index);
    else l_set_number(r, names[i], index);
  }
}

/* RFC 5464 5, RFC 5257 4.1: a word, and for some words a number: { longentries = 1024 } */
static void push_word(Reader r) {
  lua_Integer number;
  lua_createtable(r->L, 0, 1);
  if (!l_is_text(r, 1)) return;
  l_push_lower(r, l_text(r, 1), '_');
  if (end_of(r) > 2 && l_number(r, 2, &number)) lua_pushinteger(r->L, number);
  else lua_pushboolean(r->L, 1);
  lua_rawset(r->L, -3);
}

/* RFC 9738 3.1: how many, and the last UID that was done */
static void push_messagelimit(Reader r) {
  lua_createtable(r->L, 0, 2);
  l_set_number(r, "limit", 1);
  if (end_of(r) > 2) l_set_number(r, "uid", 2);
}

/* }====== */

/* A code without a function says nothing more, whatever the server adds. */
struct code {
  const char *name;
  Push push;
};

static const struct code codes[] = {
    {"ALERT", NULL},
    {"ALREADYEXISTS", NULL},
    {"ANNOTATE", push_word},
    {"ANNOTATIONS", push_words},
    {"APPENDUID", push_appenduid},
    {"AUTHENTICATIONFAILED", NULL},
    {"AUTHORIZATIONFAILED", NULL},
    {"BADCHARSET", push_list},
    {"BADCOMPARATOR", NULL},
    {"BADEVENT", push_list},
    {"BADURL", push_raw},
    {"CANNOT", NULL},
    {"CAPABILITY", push_words},
    {"CLIENTBUG", NULL},
    {"CLOSED", NULL},
    {"COMPRESSIONACTIVE", NULL},
    {"CONTACTADMIN", NULL},
    {"COPYUID", push_copyuid},
    {"CORRUPTION", NULL},
    {"EXPIRED", NULL},
    {"EXPUNGEISSUED", NULL},
    {"HASCHILDREN", NULL},
    {"HIGHESTMODSEQ", push_number},
    {"INPROGRESS", push_inprogress},
    {"INUSE", NULL},
    {"LIMIT", NULL},
    {"MAILBOXID", push_only},
    {"MAXCONVERTMESSAGES", push_number},
    {"MAXCONVERTPARTS", push_number},
    {"MESSAGELIMIT", push_messagelimit},
    {"METADATA", push_word},
    {"MODIFIED", push_text},
    {"NEWNAME", push_words},
    {"NOMODSEQ", NULL},
    {"NONEXISTENT", NULL},
    {"NOPERM", NULL},
    {"NOTIFICATIONOVERFLOW", NULL},
    {"NOTSAVED", NULL},
    {"NOUPDATE", push_text},
    {"OVERQUOTA", NULL},
    {"PARSE", NULL},
    {"PERMANENTFLAGS", push_flags},
    {"PRIVACYREQUIRED", NULL},
    {"READ-ONLY", NULL},
    {"READ-WRITE", NULL},
    {"REFERRAL", push_raw},
    {"SAVELIMIT", push_number},
    {"SERVERBUG", NULL},
    {"TEMPFAIL", push_words},
    {"TOOBIG", NULL},
    {"TRYCREATE", NULL},
    {"UIDNEXT", push_number},
    {"UIDNOTSTICKY", NULL},
    {"UIDREQUIRED", NULL},
    {"UIDVALIDITY", push_number},
    {"UNAVAILABLE", NULL},
    {"UNDEFINED-FILTER", push_text},
    {"UNKNOWN-CTE", NULL},
    {"UNSEEN", push_number},
    {"URLMECH", push_words},
    {"USEATTR", NULL},
};

static const struct code *find_code(struct stls_slice name) {
  size_t i;
  for (i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    if (stls_slice_is(name, codes[i].name)) return &codes[i];
  }
  return NULL;
}

/* The code and its arguments, when it is known. */
static void set_known(Reader r, const struct code *code) {
  l_push_lower(r, l_text(r, 0), '_');
  if (code->push && end_of(r) > 1) code->push(r);
  else lua_pushboolean(r->L, 1);
  lua_rawset(r->L, -3);
}

void l_set_code(Reader r) {
  const struct code *code;
  if (end_of(r) > 0) {
    code = l_is_text(r, 0) ? find_code(l_text(r, 0)) : NULL;
    if (code) set_known(r, code);
    l_push_utf8(r, r->response->code);
    lua_setfield(r->L, -2, "code_text");
  }
  l_push_array(r, end_of(r) > 0 ? 1 : 0, end_of(r));
  lua_setfield(r->L, -2, "arguments");
}

void l_push_condition(Reader r) {
  lua_createtable(r->L, 0, 5);
  l_push_utf8(r, r->response->text);
  lua_setfield(r->L, -2, "text");
  if (end_of(r) == 0) return;
  l_push_upper(r->L, l_text(r, 0));
  lua_setfield(r->L, -2, "code");
  l_set_code(r);
}
