/*
 * lua/imap_structure.c - BODYSTRUCTURE and BODY become a tree of parts (RFC 9051 7.5.2).
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * A part is { section, type, subtype, parameters, id, description, encoding, size, lines,
 * md5, disposition, disposition_parameters, filename, language, location, parts, envelope,
 * structure, extensions }. Names and keywords are in lower case, texts are decoded.
 *
 * `section` names the part as FETCH does (RFC 9051 6.4.5). A multipart that is a whole
 * message has the section of that message: "" for the outermost, "2" for the one that the
 * message/rfc822 "2" holds. `filename` is what the server says that the sender suggests: it
 * may hold anything, and is not made safe for a file system.
 *
 * Parts are read in a loop with a stack of its own, in time linear in their number.
 */
#include "lua/imap_parts.h"
#include "mail/encoded_word.h"

/* A part whose own parts are being read. Its table is on Lua's stack, and `parts` above it. */
struct frame {
  size_t end;      /* of its list */
  size_t next;     /* the node to go on with */
  size_t section;  /* length of its section's text */
  uint32_t count;  /* of its parts that were begun */
  bool is_message; /* message/rfc822: one part, its structure, and no table `parts` */
};

/* {====== Sections ====== */

static void cut_section(Reader r, size_t len) {
  struct stls_buffer *section = &r->scratch->section;
  section->end = section->start + len;
}

static void add_section(Reader r, uint32_t number) {
  struct stls_buffer *section = &r->scratch->section;
  if (stls_buffer_length(section) > 0) stls_buffer_append_char(section, '.');
  if (!stls_buffer_append_number(section, number)) luaL_error(r->L, "not enough memory");
}

/* }====== */

/* {====== Fields ====== */

/* [-0, +0] a text field in lower case: keywords are case-insensitive */
static void set_lower(Reader r, enum l_key key, size_t index) {
  if (!l_is_text(r, index)) return;
  l_push_key(r, key);
  l_push_lower(r, l_text(r, index), '-');
  l_set_key(r);
}

static void set_decoded(Reader r, const char *name, size_t index) {
  if (!l_is_text(r, index)) return;
  l_push_decoded(r, l_text(r, index));
  lua_setfield(r->L, -2, name);
}

static void set_number(Reader r, enum l_key key, size_t index) {
  lua_Integer number;
  if (!l_number(r, index, &number)) return;
  l_push_key(r, key);
  lua_pushinteger(r->L, number);
  l_set_key(r);
}

static struct stls_parameter *extended_parameters(Reader r, size_t *count_r) {
  struct stls_buffer *buffer = &r->scratch->parameters;
  *count_r = stls_buffer_length(buffer) / sizeof(struct stls_parameter);
  return (struct stls_parameter *)(void *)buffer->data;
}

/* [-0, +0] what RFC 2231 spreads over several parameters is put together */
static void set_extended(Reader r) {
  size_t count, i, next;
  struct stls_parameter *parameters = extended_parameters(r, &count);
  stls_parameters_sort(parameters, count);
  for (i = 0; i < count; i = next) {
    struct stls_buffer *value = &r->scratch->text;
    for (next = i + 1; next < count; next++) {
      if (!stls_parameter_is_same(&parameters[i], &parameters[next])) break;
    }
    l_push_lower(r, parameters[i].name, '-');
    stls_buffer_clear(value);
    if (!stls_parameters_decode(parameters + i, next - i, value))
      luaL_error(r->L, "not enough memory");
    l_push_slice(r->L, stls_buffer_slice(value));
    lua_rawset(r->L, -3);
  }
}

static void set_parameter(Reader r, size_t name, size_t value) {
  struct stls_parameter extended;
  if (!l_is_text(r, name) || !l_is_text(r, value)) return;
  if (stls_parameter_read(l_text(r, name), l_text(r, value), &extended)) {
    if (!stls_buffer_append(&r->scratch->parameters, (const char *)&extended, sizeof extended))
      luaL_error(r->L, "not enough memory");
    return;
  }
  l_push_lower(r, l_text(r, name), '-');
  l_push_decoded(r, l_text(r, value));
  lua_rawset(r->L, -3);
}

/* [-0, +1] "(" name SP value ... ")"; empty for NIL, "", and anything else */
static void push_parameters(Reader r, size_t index) {
  size_t end = l_next(r, index);
  if (!l_is_list(r, index) || end == index + 1) {
    lua_createtable(r->L, 0, 0);
    return;
  }
  stls_buffer_clear(&r->scratch->parameters);
  lua_createtable(r->L, 0, (int)((end - index) / 2));
  for (index++; index + 1 < end; index = l_next(r, index + 1)) {
    if (l_is_list(r, index)) break;
    set_parameter(r, index, index + 1);
  }
  if (stls_buffer_length(&r->scratch->parameters) > 0) set_extended(r);
}

/* [-1, +0] part[key] = the table on the top; part.filename if it has `name` */
static void set_parameters(Reader r, enum l_key key, enum l_key name) {
  lua_State *L = r->L;
  l_push_key(r, name);
  if (lua_rawget(L, -2) == LUA_TSTRING) {
    l_push_key(r, KEY_FILENAME);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  } else {
    lua_pop(L, 1);
  }
  l_push_key(r, key);
  lua_insert(L, -2);
  lua_rawset(L, -3);
}

/* "(" type SP parameters ")"; old servers send the type alone. */
static void set_disposition(Reader r, size_t index) {
  size_t end = l_next(r, index), type = index + l_is_list(r, index);
  if (type >= end || !l_is_text(r, type)) return;
  set_lower(r, KEY_DISPOSITION, type);
  if (type + 1 < end) push_parameters(r, type + 1);
  else lua_createtable(r->L, 0, 0);
  set_parameters(r, KEY_DISPOSITION_PARAMETERS, KEY_FILENAME);
}

/* [-0, +0] the fields that only BODYSTRUCTURE has: disposition and all behind it */
static void set_extension(Reader r, size_t at, size_t end) {
  if (at < end) {
    set_disposition(r, at);
    at = l_next(r, at);
  }
  if (at < end && l_type(r, at) != STLS_IMAP_NIL) {
    l_push_strings(r, at);
    lua_setfield(r->L, -2, "language");
  }
  if (at < end) at = l_next(r, at);
  if (at < end) {
    set_decoded(r, "location", at);
    at = l_next(r, at);
  }
  if (at < end) {
    l_push_array(r, at, end);
    lua_setfield(r->L, -2, "extensions");
  }
}

/* }====== */

/* {====== Parts ====== */

static struct frame *top_frame(Reader r) {
  struct stls_buffer *frames = &r->scratch->frames;
  if (stls_buffer_length(frames) == 0) return NULL;
  return (struct frame *)(void *)(frames->data + frames->end - sizeof(struct frame));
}

static void push_frame(Reader r, size_t next, size_t end, bool is_message) {
  struct frame frame = {end, next, stls_buffer_length(&r->scratch->section), 0, is_message};
  if (!stls_buffer_append(&r->scratch->frames, (const char *)&frame, sizeof frame))
    luaL_error(r->L, "not enough memory");
}

static void pop_frame(Reader r) {
  r->scratch->frames.end -= sizeof(struct frame);
}

/* [-0, +1] a part's table with what all parts have */
static void push_part(Reader r, int fields) {
  lua_createtable(r->L, 0, fields);
  l_push_key(r, KEY_SECTION);
  l_push_slice(r->L, stls_buffer_slice(&r->scratch->section));
  l_set_key(r);
}

static bool is_type(Reader r, size_t index, const char *name) {
  return l_is_text(r, index) && stls_slice_is(l_text(r, index), name);
}

static void set_name(Reader r, enum l_key key, const char *value) {
  l_push_key(r, key);
  lua_pushstring(r->L, value);
  l_set_key(r);
}

/* [-0, +0] fields of a part, read one after the other */
struct fields {
  size_t at, end;
};

static bool is_next(Reader r, const struct fields *fields, size_t ahead, enum stls_imap_type type) {
  size_t at = fields->at;
  while (ahead-- > 0 && at < fields->end) at = l_next(r, at);
  return at < fields->end && l_type(r, at) == type;
}

static size_t take(Reader r, struct fields *fields) {
  size_t at = fields->at;
  fields->at = l_next(r, at);
  return at;
}

static bool has_more(const struct fields *fields) {
  return fields->at < fields->end;
}

/* Whether the next field is there, and no list. */
static bool has_word(Reader r, const struct fields *fields) {
  return has_more(fields) && !l_is_list(r, fields->at);
}

/* RFC 9051 9, body-fields: parameters, id, description, encoding, octets. */
static void set_body_fields(Reader r, struct fields *fields) {
  if (has_more(fields)) push_parameters(r, take(r, fields));
  else lua_createtable(r->L, 0, 0);
  set_parameters(r, KEY_PARAMETERS, KEY_NAME);
  if (has_word(r, fields)) l_set_text(r, "id", take(r, fields));
  if (has_word(r, fields)) set_decoded(r, "description", take(r, fields));
  if (has_word(r, fields)) set_lower(r, KEY_ENCODING, take(r, fields));
  if (has_word(r, fields)) set_number(r, KEY_SIZE, take(r, fields));
}

/*
 * Lines of a text: Exchange leaves the number out at times, so that NIL may be the number
 * or the checksum behind it, which a disposition follows.
 */
static void set_lines(Reader r, struct fields *fields) {
  lua_Integer lines;
  if (!has_word(r, fields)) return;
  if (l_number(r, fields->at, &lines)) {
    set_number(r, KEY_LINES, take(r, fields));
  } else if (is_next(r, fields, 0, STLS_IMAP_NIL) && !is_next(r, fields, 1, STLS_IMAP_LIST) &&
             l_count_nodes(r, fields->at, fields->end) > 4) {
    take(r, fields);
  } else if (l_text(r, fields->at).len > 0 && l_text(r, fields->at).ptr[0] == '-') {
    take(r, fields); /* "-1" */
  }
}

/* The checksum, and all behind it. */
static void set_single_extension(Reader r, struct fields *fields) {
  if (has_word(r, fields)) l_set_text(r, "md5", take(r, fields));
  set_extension(r, fields->at, fields->end);
}

/* A list that is a body, and no envelope: a multipart, or a part with its size where an
 * envelope has addresses. */
static bool is_body(Reader r, size_t index) {
  size_t end = l_next(r, index), at = index + 1;
  int field;
  if (at < end && l_is_list(r, at)) return true;
  for (field = 0; field < 6 && at < end; field++) at = l_next(r, at);
  return at < end && l_type(r, at) == STLS_IMAP_NUMBER;
}

/*
 * Envelope and structure of a message within. Gmail and Exchange leave out one or both:
 * then this is a part like any. Where the structure is; 0 when there is none.
 */
static size_t set_message_fields(Reader r, struct fields *fields) {
  bool nil = is_next(r, fields, 0, STLS_IMAP_NIL);
  if (nil && (is_next(r, fields, 1, STLS_IMAP_LIST) || is_next(r, fields, 1, STLS_IMAP_NIL)) &&
      is_next(r, fields, 2, STLS_IMAP_NUMBER)) {
    take(r, fields);
  } else if (!is_next(r, fields, 0, STLS_IMAP_LIST)) {
    return 0;
  } else if (is_next(r, fields, 1, STLS_IMAP_LIST) || !is_body(r, fields->at)) {
    l_push_key(r, KEY_ENVELOPE);
    l_push_envelope(r, take(r, fields));
    l_set_key(r);
  }
  if (is_next(r, fields, 0, STLS_IMAP_LIST)) return take(r, fields);
  if (is_next(r, fields, 0, STLS_IMAP_NIL) && is_next(r, fields, 1, STLS_IMAP_NUMBER))
    take(r, fields);
  return 0;
}

/*
 * A multipart without parts has only words: ("MIXED" (parameters) ...), as servers write that
 * begin with the subtype, ("multipart" "mixed" ...), or (NIL "mixed" ...), which must have no
 * size, as a part without a type has. The node of its subtype; 0 if it is none of that.
 */
static size_t empty_multipart(Reader r, size_t index, size_t end) {
  struct fields fields = {index + 1, end};
  bool nil = is_next(r, &fields, 0, STLS_IMAP_NIL);
  if (!has_word(r, &fields)) return 0;
  if (!nil && is_next(r, &fields, 1, STLS_IMAP_LIST)) return index + 1;
  if (index + 2 >= end || !l_is_text(r, index + 2)) return 0;
  if (is_type(r, index + 1, "multipart")) return index + 2;
  return nil && !is_next(r, &fields, 6, STLS_IMAP_NUMBER) ? index + 2 : 0;
}

/* [-0, +0] subtype and extension fields of a multipart whose table is on the top */
static void set_multipart_fields(Reader r, size_t at, size_t end) {
  set_name(r, KEY_TYPE, "multipart");
  if (at < end && !l_is_list(r, at)) {
    set_lower(r, KEY_SUBTYPE, at);
    at = l_next(r, at);
  }
  if (at < end) {
    push_parameters(r, at);
    at = l_next(r, at);
  } else {
    lua_createtable(r->L, 0, 0);
  }
  set_parameters(r, KEY_PARAMETERS, KEY_NAME);
  set_extension(r, at, end);
}

/* [-0, +1] */
static void push_empty_multipart(Reader r, size_t subtype, size_t end) {
  push_part(r, 5);
  l_push_key(r, KEY_PARTS);
  lua_createtable(r->L, 0, 0);
  l_set_key(r);
  set_multipart_fields(r, subtype, end);
}

/* How many fields a part will have, about: its table is made the right size. */
static int count_fields(Reader r, size_t index, size_t end) {
  int count = 1; /* its section */
  for (index++; index < end; index = l_next(r, index)) {
    if (l_type(r, index) != STLS_IMAP_NIL) count += l_is_list(r, index) ? 2 : 1;
  }
  return count;
}

/* [-0, +1] a part that is no multipart. True when it is complete; else a frame is open. */
static bool push_single(Reader r, size_t index, size_t end) {
  struct fields fields = {index + 1, end};
  size_t subtype = index + 2;
  bool message;
  push_part(r, count_fields(r, index, end));
  set_lower(r, KEY_TYPE, take(r, &fields));
  if (has_word(r, &fields)) set_lower(r, KEY_SUBTYPE, take(r, &fields));
  set_body_fields(r, &fields);
  message = is_type(r, index + 1, "message") && subtype < end &&
            (is_type(r, subtype, "rfc822") || is_type(r, subtype, "global"));
  if (message) {
    size_t structure = set_message_fields(r, &fields);
    if (structure > 0) {
      push_frame(r, structure, end, true);
      return false;
    }
  }
  if (message || is_type(r, index + 1, "text")) set_lines(r, &fields);
  set_single_extension(r, &fields);
  return true;
}

/* [-0, +1 or +2] begins a part. True when it is complete already. */
static bool begin_part(Reader r, size_t index) {
  size_t end = l_next(r, index), subtype;
  luaL_checkstack(r->L, 8, "message has too many parts in each other");
  if (!l_is_list(r, index) || end == index + 1) {
    push_part(r, 1);
    return true;
  }
  if (l_is_list(r, index + 1)) {
    push_part(r, 8);
    lua_createtable(r->L, l_count_nodes(r, index + 1, end) - 1, 0);
    push_frame(r, index + 1, end, false);
    return false;
  }
  subtype = empty_multipart(r, index, end);
  if (subtype > 0) {
    push_empty_multipart(r, subtype, end);
    return true;
  }
  return push_single(r, index, end);
}

/* [-1, +0] puts a complete part where it belongs; the outermost stays */
static void attach(Reader r) {
  const struct frame *parent = top_frame(r);
  if (!parent) return;
  if (parent->is_message) {
    l_push_key(r, KEY_STRUCTURE);
    lua_insert(r->L, -2);
    lua_rawset(r->L, -3);
  } else {
    lua_rawseti(r->L, -2, parent->count);
  }
}

/* [-1 or -0, +0] all parts of the part are there: its own fields, which come behind them */
static void end_part(Reader r, const struct frame *frame) {
  struct fields fields = {frame->next, frame->end};
  if (frame->is_message) {
    set_lines(r, &fields);
    set_single_extension(r, &fields);
    return;
  }
  l_push_key(r, KEY_PARTS);
  lua_insert(r->L, -2);
  lua_rawset(r->L, -3);
  set_multipart_fields(r, frame->next, frame->end);
}

/* Whether the open part has one more; what its section is. */
static bool next_part(Reader r, struct frame *frame, size_t *index_r) {
  bool multipart;
  while (!frame->is_message && frame->next < frame->end && l_is_list(r, frame->next) &&
         l_next(r, frame->next) == frame->next + 1) {
    frame->next++; /* "()" stands for no part at all */
  }
  if (frame->next >= frame->end || !l_is_list(r, frame->next)) return false;
  if (frame->is_message && frame->count > 0) return false;
  *index_r = frame->next;
  multipart =
      *index_r + 1 < frame->end && l_is_list(r, *index_r + 1) && l_next(r, *index_r) > *index_r + 1;
  frame->next = l_next(r, frame->next);
  frame->count++;
  cut_section(r, frame->section);
  if (!frame->is_message || !multipart) add_section(r, frame->count);
  return true;
}

/* Goes on until the outermost part, on the top of the stack, is complete. */
static void read_parts(Reader r) {
  struct frame *frame;
  while ((frame = top_frame(r)) != NULL) {
    size_t index;
    if (next_part(r, frame, &index)) {
      if (begin_part(r, index)) attach(r);
      continue;
    }
    end_part(r, frame);
    pop_frame(r);
    attach(r);
  }
}

void l_push_structure(Reader r, size_t index) {
  bool list = l_is_list(r, index) && l_next(r, index) > index + 1;
  stls_buffer_clear(&r->scratch->section);
  stls_buffer_clear(&r->scratch->frames);
  if (!list) { /* NIL, or () */
    lua_createtable(r->L, 0, 0);
    return;
  }
  if (!l_is_list(r, index + 1) && !empty_multipart(r, index, l_next(r, index))) add_section(r, 1);
  if (!begin_part(r, index)) read_parts(r);
}

/* }====== */
