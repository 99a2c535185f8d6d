/*
 * imap_parser.c - whatever comes, the parser keeps its bounds, and says the same
 * whether the bytes arrive all at once or cut into pieces.
 */
#include <stdlib.h>

#include "mail/imap_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
  if (!holds) abort();
}

/* A fingerprint of everything that the parser said. */
struct digest {
  uint64_t hash;
  size_t responses;
  enum stls_error_kind failure;
};

static void mix(struct digest *digest, const void *data, size_t len) {
  const unsigned char *bytes = data;
  size_t i;
  for (i = 0; i < len; i++) digest->hash = (digest->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
}

static void mix_slice(struct digest *digest, struct stls_slice slice) {
  mix(digest, &slice.len, sizeof slice.len);
  mix(digest, slice.ptr, slice.len);
}

static void check_nodes(struct digest *digest, const struct stls_imap_response *response) {
  size_t i;
  for (i = 0; i < response->node_count; i++) {
    const struct stls_imap_node *node = &response->nodes[i];
    size_t next = stls_imap_node_next(response, i);
    must(next > i && next <= response->node_count);
    mix(digest, &node->type, sizeof node->type);
    mix(digest, &next, sizeof next);
    if (node->type != STLS_IMAP_LIST) mix_slice(digest, stls_imap_node_text(response, i));
  }
}

static void check_response(struct digest *digest, const struct stls_imap_response *response) {
  digest->responses++;
  mix(digest, &response->kind, sizeof response->kind);
  mix_slice(digest, response->tag);
  mix_slice(digest, response->name);
  mix_slice(digest, response->text);
  if (response->has_number) mix(digest, &response->number, sizeof response->number);
  check_nodes(digest, response);
}

static void check_content(struct digest *digest, const struct stls_imap_content *content) {
  must(content->offset + content->piece.len <= content->size);
  mix(digest, content->piece.ptr, content->piece.len);
}

/* Feeds one piece; false when the parser has failed. */
static bool feed(struct stls_imap_parser *parser, struct digest *digest, struct stls_slice piece) {
  const char *why = NULL;
  for (;;) {
    size_t used = 0;
    enum stls_imap_result result = stls_imap_parser_feed(parser, piece, &used);
    must(used <= piece.len);
    piece = stls_slice_from(piece, used);
    switch (result) {
      case STLS_IMAP_MORE: must(piece.len == 0); return true;
      case STLS_IMAP_RESPONSE: check_response(digest, stls_imap_parser_response(parser)); break;
      case STLS_IMAP_CONTENT: check_content(digest, stls_imap_parser_content(parser)); break;
      case STLS_IMAP_FAILED:
        digest->failure = stls_imap_parser_failure(parser, &why);
        must(digest->failure != STLS_ERROR_NONE && why != NULL);
        return false;
    }
  }
}

static struct digest parse(struct stls_slice input, size_t piece) {
  static const struct stls_limits limits = {2000, 20000, 50, 20000};
  struct stls_imap_parser *parser = stls_imap_parser_new(&limits);
  struct digest digest = {UINT64_C(0xcbf29ce484222325), 0, STLS_ERROR_NONE};
  must(parser != NULL);
  while (input.len > 0) {
    size_t len = input.len < piece ? input.len : piece;
    /* A copy of its own, so that reading past a piece's end is seen. */
    char *copy = malloc(len);
    must(copy != NULL);
    memcpy(copy, input.ptr, len);
    if (!feed(parser, &digest, stls_slice(copy, len))) input.len = len;
    free(copy);
    input = stls_slice_from(input, len);
  }
  stls_imap_parser_free(parser);
  return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct stls_slice input = stls_slice((const char *)data, size);
  struct digest whole = parse(input, size ? size : 1);
  size_t piece;
  for (piece = 1; piece <= 7; piece += 2) {
    struct digest cut = parse(input, piece);
    must(cut.hash == whole.hash && cut.responses == whole.responses);
    must(cut.failure == whole.failure);
  }
  return 0;
}
