/* mail/md5.c - see md5.h. */
#include "mail/md5.h"

#include <stdint.h>
#include <string.h>

#define BLOCK 64

struct md5 {
  uint32_t state[4];
  uint64_t octets;
  unsigned char block[BLOCK];
};

/* RFC 1321 3.4: 4294967296 times abs(sin(i)). */
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

static uint32_t rotate(uint32_t x, unsigned bits) {
  return x << bits | x >> (32 - bits);
}

static uint32_t word_at(const unsigned char *at) {
  return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The functions F, G, H and I of RFC 1321 3.4. */
static uint32_t mix(unsigned round, uint32_t x, uint32_t y, uint32_t z) {
  switch (round) {
    case 0: return (x & y) | (~x & z);
    case 1: return (x & z) | (y & ~z);
    case 2: return x ^ y ^ z;
    default: return y ^ (x | ~z);
  }
}

static void take_block(struct md5 *md5) {
  static const unsigned char shifts[4][4] = {
      {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  static const unsigned char strides[4] = {1, 5, 3, 7}, starts[4] = {0, 1, 5, 0};
  uint32_t a = md5->state[0], b = md5->state[1], c = md5->state[2], d = md5->state[3];
  unsigned i;
  for (i = 0; i < 64; i++) {
    unsigned round = i / 16, at = (starts[round] + strides[round] * i) % 16;
    uint32_t sum = a + mix(round, b, c, d) + word_at(md5->block + 4 * (size_t)at) + sines[i];
    a = d;
    d = c;
    c = b;
    b += rotate(sum, shifts[round][i % 4]);
  }
  md5->state[0] += a;
  md5->state[1] += b;
  md5->state[2] += c;
  md5->state[3] += d;
}

static void take(struct md5 *md5, struct stls_slice text) {
  size_t i;
  for (i = 0; i < text.len; i++) {
    md5->block[md5->octets++ % BLOCK] = (unsigned char)text.ptr[i];
    if (md5->octets % BLOCK == 0) take_block(md5);
  }
}

/* RFC 1321 3.1, 3.2: one bit, zeros, and the number of bits. */
static void pad(struct md5 *md5) {
  char length[8];
  uint64_t bits = md5->octets * 8;
  unsigned i;
  for (i = 0; i < 8; i++) length[i] = (char)(bits >> 8 * i & 0xff);
  take(md5, stls_slice("\x80", 1));
  while (md5->octets % BLOCK != BLOCK - sizeof length) take(md5, stls_slice("", 1));
  take(md5, stls_slice(length, sizeof length));
}

void stls_md5(struct stls_slice first, struct stls_slice second,
              unsigned char digest_r[STLS_MD5_SIZE]) {
  struct md5 md5 = {.state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}};
  unsigned i;
  take(&md5, first);
  take(&md5, second);
  pad(&md5);
  for (i = 0; i < STLS_MD5_SIZE; i++)
    digest_r[i] = (unsigned char)(md5.state[i / 4] >> 8 * (i % 4) & 0xff);
  explicit_bzero(&md5, sizeof md5);
}
