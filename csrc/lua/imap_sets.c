/*
 * lua/imap_sets.c - core.numbers_of and core.set_of: sets of message numbers and arrays.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 */
#include "lua/imap_parts.h"
#include "mail/number_set.h"

#define NUMBERS_MOST 10000000 /* of numbers_of, unless the caller says */

/* [-0, +1] the numbers of a set that was counted */
static void push_numbers(lua_State *L, struct stls_slice set, uint64_t count) {
  struct stls_range range;
  lua_Integer index = 0;
  lua_createtable(L, count < INT32_MAX ? (int)count : 0, 0);
  while (stls_number_set_next(&set, &range)) {
    uint64_t number;
    for (number = range.first; number <= range.last; number++) {
      lua_pushinteger(L, (lua_Integer)number);
      lua_rawseti(L, -2, ++index);
    }
  }
}

/*
 * core.numbers_of(set [, limit]) -> array of integers, in the order of the set
 * "1:3,7" -> { 1, 2, 3, 7 }; "" -> {}. nil and the reason for more numbers than `limit`
 * (default 10 million), and for what is no set of numbers, such as "1:*".
 */
int l_numbers_of(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  lua_Integer limit = luaL_optinteger(L, 2, NUMBERS_MOST);
  uint64_t count;
  luaL_argcheck(L, limit >= 0, 2, "the limit is negative");
  if (!stls_number_set_count(stls_slice(text, len), &count)) {
    luaL_pushfail(L);
    lua_pushliteral(L, "it is no set of numbers");
    return 2;
  }
  if (count > (uint64_t)limit) {
    luaL_pushfail(L);
    lua_pushfstring(L, "the set has more than %I numbers", limit);
    return 2;
  }
  push_numbers(L, stls_slice(text, len), count);
  return 1;
}

/* [-0, +1] a userdata with the array's numbers, sorted */
static uint64_t *push_sorted(lua_State *L, int array, size_t count) {
  uint64_t *numbers = lua_newuserdatauv(L, (count + 1) * sizeof *numbers, 0);
  size_t i;
  for (i = 0; i < count; i++) {
    int is_integer;
    lua_Integer number;
    lua_rawgeti(L, array, (lua_Integer)i + 1);
    number = lua_tointegerx(L, -1, &is_integer);
    lua_pop(L, 1);
    luaL_argcheck(L, is_integer && number > 0, array, "a number is no positive integer");
    numbers[i] = (uint64_t)number;
  }
  stls_numbers_sort(numbers, count);
  return numbers;
}

/* core.set_of(array) -> the shortest text for these positive integers: "1:3,7"; "" for none */
int l_set_of(lua_State *L) {
  struct l_scratch *scratch;
  uint64_t *numbers;
  size_t count;
  luaL_checktype(L, 1, LUA_TTABLE);
  count = (size_t)lua_rawlen(L, 1);
  numbers = push_sorted(L, 1, count);
  scratch = l_push_scratch(L);
  if (!stls_number_set_write(numbers, count, &scratch->text))
    return luaL_error(L, "not enough memory");
  l_push_slice(L, stls_buffer_slice(&scratch->text));
  stls_buffer_free(&scratch->text);
  return 1;
}
