/*
 * lua/poller.c - the userdata starttls.poller: waiting for many descriptors at once.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * What the scheduler in lua/starttls/loop/poll.lua stands on, and nothing that a session needs. A
 * descriptor is armed for one event at a time (EPOLLONESHOT): one that nobody waits for any more
 * can't keep the loop awake, and arming it again is one system call, however many there are.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lua/binding.h"

#define POLLER "starttls.poller"
#define BATCH  256 /* events taken at a time; more are taken the next time */

struct poller {
  int fd; /* -1: closed */
};

static struct poller *check_poller(lua_State *L) {
  struct poller *poller = luaL_checkudata(L, 1, POLLER);
  if (poller->fd < 0) luaL_error(L, "the poller is closed");
  return poller;
}

static uint32_t check_mode(lua_State *L, int index) {
  const char *mode = luaL_checkstring(L, index);
  uint32_t events = EPOLLONESHOT;
  if (strchr(mode, 'r')) events |= EPOLLIN;
  if (strchr(mode, 'w')) events |= EPOLLOUT;
  return events;
}

/*
 * poller:arm(fd, mode) -> true | nil, the system's reason
 * One wait() will tell of it once: when it can be read ("r"), written ("w"), either, or is broken.
 */
static int poller_arm(lua_State *L) {
  struct poller *poller = check_poller(L);
  int fd = (int)luaL_checkinteger(L, 2);
  struct epoll_event event = {.events = check_mode(L, 3)};
  event.data.fd = fd;
  if (epoll_ctl(poller->fd, EPOLL_CTL_MOD, fd, &event) == 0 ||
      (errno == ENOENT && epoll_ctl(poller->fd, EPOLL_CTL_ADD, fd, &event) == 0)) {
    lua_pushboolean(L, 1);
    return 1;
  }
  luaL_pushfail(L);
  lua_pushstring(L, strerror(errno));
  return 2;
}

/* poller:forget(fd): before it is closed. One that was never armed does no harm. */
static int poller_forget(lua_State *L) {
  struct poller *poller = check_poller(L);
  epoll_ctl(poller->fd, EPOLL_CTL_DEL, (int)luaL_checkinteger(L, 2), NULL);
  return 0;
}

/*
 * poller:wait(seconds, ready) -> how many descriptors it put into the array `ready`
 * Waits for ever without seconds. Comes back with none when the time is over, or after a signal,
 * so that Lua's hooks run: Ctrl-C acts at once.
 */
static int poller_wait(lua_State *L) {
  struct poller *poller = check_poller(L);
  struct epoll_event events[BATCH];
  double seconds = luaL_optnumber(L, 2, -1);
  int count;
  luaL_checktype(L, 3, LUA_TTABLE);
  count = epoll_wait(poller->fd, events, BATCH, l_to_milliseconds(seconds));
  if (count < 0 && errno != EINTR) return luaL_error(L, "epoll_wait: %s", strerror(errno));
  for (int index = 0; index < count; index++) {
    lua_pushinteger(L, events[index].data.fd);
    lua_rawseti(L, 3, index + 1);
  }
  lua_pushinteger(L, count < 0 ? 0 : count);
  return 1;
}

/* poller:close(), __close, __gc */
static int poller_close(lua_State *L) {
  struct poller *poller = luaL_checkudata(L, 1, POLLER);
  if (poller->fd >= 0) close(poller->fd);
  poller->fd = -1;
  return 0;
}

/* core.poller() -> a poller without descriptors. Raises when the system has none to give. */
int l_poller_new(lua_State *L) {
  struct poller *poller = lua_newuserdatauv(L, sizeof *poller, 0);
  poller->fd = -1;
  luaL_setmetatable(L, POLLER);
  poller->fd = epoll_create1(EPOLL_CLOEXEC);
  if (poller->fd < 0) return luaL_error(L, "epoll_create1: %s", strerror(errno));
  return 1;
}

static const luaL_Reg methods[] = {{"arm", poller_arm},
                                   {"forget", poller_forget},
                                   {"wait", poller_wait},
                                   {"close", poller_close},
                                   {NULL, NULL}};

void l_open_poller(lua_State *L) {
  luaL_newmetatable(L, POLLER);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, poller_close);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, poller_close);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}
