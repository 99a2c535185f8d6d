/*
 * parser.c - what the IMAP parser alone takes: parser FILE, where FILE has responses.
 * Prints the CPU microseconds of one response, in pieces of 16 KiB as TLS records bring them.
 * Links libstarttls.a, no Lua.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mail/imap_parser.h"

#define PIECE  (16 * 1024)
#define ROUNDS 20

static char *read_all(const char *path, size_t *len_r) {
  FILE *file = fopen(path, "rb");
  char *text = NULL;
  long size;
  if (!file || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) return NULL;
  rewind(file);
  text = malloc((size_t)size + 1);
  *len_r = text ? fread(text, 1, (size_t)size, file) : 0;
  fclose(file);
  return text;
}

/* Feeds all of it; the number of responses, or 0 when the parser fails. */
static size_t parse(struct stls_imap_parser *parser, struct stls_slice all) {
  size_t responses = 0;
  while (all.len > 0) {
    struct stls_slice piece = stls_slice(all.ptr, all.len < PIECE ? all.len : PIECE);
    all = stls_slice_from(all, piece.len);
    while (piece.len > 0) {
      size_t used;
      switch (stls_imap_parser_feed(parser, piece, &used)) {
        case STLS_IMAP_RESPONSE: responses++; break;
        case STLS_IMAP_FAILED: return 0;
        default: break;
      }
      piece = stls_slice_from(piece, used);
    }
  }
  return responses;
}

int main(int argc, char **argv) {
  static const struct stls_limits limits = STLS_LIMITS_DEFAULT;
  struct stls_imap_parser *parser = stls_imap_parser_new(&limits);
  size_t len = 0, responses = 0;
  char *text = argc > 1 ? read_all(argv[1], &len) : NULL;
  clock_t began = clock();
  int round;
  if (!text || !parser) return 1;
  for (round = 0; round < ROUNDS; round++) responses += parse(parser, stls_slice(text, len));
  printf("%.2f\n", (double)(clock() - began) / CLOCKS_PER_SEC * 1e6 / (double)responses);
  stls_imap_parser_free(parser);
  free(text);
  return responses == 0;
}
