/*
 * lua/imap_parts.h - the inside of what makes Lua values of IMAP responses.
 * Floor 4: may rely on all floors below and on Lua 5.4. Only the files that make
 * it up include it:
 *
 *   imap_values.c     entry, values without names, text, flags
 *   imap_message.c    FETCH
 *   imap_envelope.c   ENVELOPE, addresses
 *   imap_structure.c  BODYSTRUCTURE
 *   imap_mailbox.c    LIST, STATUS, NAMESPACE, quotas, rights, METADATA
 *   imap_search.c     SEARCH, ESEARCH, SORT, THREAD, VANISHED
 *   imap_codes.c      status responses and their codes
 *   imap_sets.c       sets of numbers, for Lua
 *
 * What is known gets named fields; all else becomes nested arrays, in which NIL is
 * false, as an array can't hold nil.
 *
 * A field that the server did not send, sent as NIL, or sent in a form that makes no
 * sense, such as a size that is no number, is absent. Servers that are known to write
 * something else than the RFCs are spoken of where it is read.
 */
#ifndef STLS_LUA_IMAP_PARTS_H
#define STLS_LUA_IMAP_PARTS_H

#include "lua/binding.h"

/* Memory for putting texts together, owned by a userdata: an error of Lua's frees it in time. */
struct l_scratch {
  struct stls_buffer text;       /* what is being decoded */
  struct stls_buffer section;    /* imap_structure.c: the part's section */
  struct stls_buffer frames;     /* imap_structure.c: the parts that are open */
  struct stls_buffer parameters; /* imap_structure.c: those of RFC 2231 */
};

/* What reads a response. All of it is valid during one call of Lua's. */
struct l_reader {
  lua_State *L;
  const struct stls_imap_response *response;
  struct l_scratch *scratch;
};

typedef const struct l_reader *Reader;

/*
 * Names of fields that every message has: strings that are made once, and are upvalues
 * of the function that reads. In the order of l_key_names (imap_values.c).
 */
enum l_key {
  KEY_ADDRESS,
  KEY_BCC,
  KEY_CC,
  KEY_DATE,
  KEY_DISPOSITION,
  KEY_DISPOSITION_PARAMETERS,
  KEY_ENCODING,
  KEY_ENVELOPE,
  KEY_FILENAME,
  KEY_FLAGS,
  KEY_FROM,
  KEY_HOST,
  KEY_ID,
  KEY_IN_REPLY_TO,
  KEY_LINES,
  KEY_MAILBOX,
  KEY_MESSAGE_ID,
  KEY_NAME,
  KEY_PARAMETERS,
  KEY_PARTS,
  KEY_REPLY_TO,
  KEY_SECTION,
  KEY_SENDER,
  KEY_SEQ,
  KEY_SIZE,
  KEY_STRUCTURE,
  KEY_SUBJECT,
  KEY_SUBTYPE,
  KEY_TIME,
  KEY_TO,
  KEY_TYPE,
  KEY_UID,
  KEY_COUNT
};

#define FIRST_KEY 2 /* the upvalue before is the scratch memory */

/* [-0, +1] the name; then a value, then l_set_key. */
static inline void l_push_key(Reader r, enum l_key key) {
  lua_pushvalue(r->L, lua_upvalueindex(FIRST_KEY + (int)key));
}

/* [-2, +0] table[key] = value, where the table is below both. */
static inline void l_set_key(Reader r) {
  lua_rawset(r->L, -3);
}

static inline enum stls_imap_type l_type(Reader r, size_t index) {
  return (enum stls_imap_type)r->response->nodes[index].type;
}

static inline struct stls_slice l_text(Reader r, size_t index) {
  return stls_imap_node_text(r->response, index);
}

static inline size_t l_next(Reader r, size_t index) {
  return stls_imap_node_next(r->response, index);
}

static inline bool l_is_list(Reader r, size_t index) {
  return l_type(r, index) == STLS_IMAP_LIST;
}

/* Whether it has a text: no list, and not NIL. */
static inline bool l_is_text(Reader r, size_t index) {
  return l_type(r, index) <= STLS_IMAP_STRING;
}

/* {====== imap_values.c ====== */

/* [-0, +1] empty scratch memory. */
struct l_scratch *l_push_scratch(lua_State *L);

/* How many nodes stand next to each other from `index` up to `end`. */
int l_count_nodes(Reader r, size_t index, size_t end);

/* A number, be it in quotes; false when there is none, or one that Lua can't hold. */
bool l_number(Reader r, size_t index, lua_Integer *number_r);

/* [-0, +1] any value, as nested arrays. */
void l_push_value(Reader r, size_t index);

/* [-0, +1] the nodes from `index` up to `end`, as an array. */
void l_push_array(Reader r, size_t index, size_t end);

/* [-0, +1] the texts in a list, or one text, as an array; NIL is none. */
void l_push_strings(Reader r, size_t index);

/* [-0, +1] text of a header field, decoded (RFC 2047). Always valid UTF-8. */
void l_push_decoded(Reader r, struct stls_slice text);

/* [-0, +1] text that has no encoded words, but may have raw 8-bit octets. Always valid UTF-8. */
void l_push_utf8(Reader r, struct stls_slice text);

/* [-0, +1] the text in lower case, as a field's name; "-" becomes `dash`. */
void l_push_lower(Reader r, struct stls_slice text, char dash);

/* [-0, +1] flags, both as an array and as a set: flags[1], flags["\\Seen"] */
void l_push_flags(Reader r, size_t index);

/* [-0, +1] a mailbox's name in UTF-8; as the server wrote it where that is no modified UTF-7. */
void l_push_mailbox(Reader r, struct stls_slice name);

/* [-0, +0] set a field of the table on the top; nothing for NIL, or for what is no such value. */
void l_set_text(Reader r, const char *name, size_t index);
void l_set_number(Reader r, const char *name, size_t index);
void l_set_mailbox(Reader r, const char *name, size_t index);

/* }====== */

/* imap_message.c: [-0, +1] the items of a FETCH response from node `index` on. */
void l_push_message(Reader r, size_t index);

/* imap_envelope.c: [-0, +1] */
void l_push_envelope(Reader r, size_t index);

/* imap_envelope.c: [-0, +0] sets key `time` to the seconds of a date; nothing if it is none. */
void l_set_time(Reader r, const char *name, size_t index);

/* imap_structure.c: [-0, +1] */
void l_push_structure(Reader r, size_t index);

/* imap_codes.c: [-0, +1] a status response. */
void l_push_condition(Reader r);

/* imap_codes.c: [-0, +0] sets the fields of the response's code in the table on the top. */
void l_set_code(Reader r);

/* imap_mailbox.c, imap_search.c: [-0, +1] the response, or false and nothing if it isn't theirs. */
bool l_push_mailbox_response(Reader r);
bool l_push_search_response(Reader r);

#endif
