/*
 * host.c - a program with Lua, mail sessions and an event loop inside: host SCRIPT THREADS STATES
 *
 * Each thread opens and closes STATES Lua states, one after another. In each the script runs in
 * TASKS coroutines at once: `...` is the number, `host` the loop for sessions. All of starttls,
 * C and Lua, is in the program. See README.md, Embedding.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

int luaopen_starttls_core(lua_State *L); /* the C part, in libstarttls-lua.a */
void preload_packed(lua_State *L);       /* the Lua part, as written by pack.lua */

enum { TASKS = 4, MOST_THREADS = 64, LONGEST_WAIT = 60 };

/* Each Lua state points to its own. No static data: threads share nothing. */
struct loop {
  int epoll;
  struct task { /* a coroutine; waits for a descriptor, unless -1, no longer than `until` */
    lua_State *thread;
    int results, fd;
    double until;
  } tasks[TASKS];
};

static struct loop *loop_of(lua_State *L) {
  return *(struct loop **)lua_getextraspace(L);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* host.wait(session, mode, seconds): this task sleeps, the others go on. */
static int l_wait(lua_State *L) {
  struct task *task = loop_of(L)->tasks, *end = task + TASKS;
  const char *mode = luaL_checkstring(L, 2);
  struct epoll_event event;
  while (task < end && task->thread != L) task++;
  if (task == end) return luaL_error(L, "a session waits in a coroutine of the script's own");
  event.events = (strchr(mode, 'r') ? EPOLLIN : 0u) | (strchr(mode, 'w') ? EPOLLOUT : 0u);
  event.data.ptr = task;
  task->until = now() + luaL_optnumber(L, 3, LONGEST_WAIT);
  lua_getfield(L, 1, "pollfd");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  task->fd = (int)luaL_checkinteger(L, -1);
  if (epoll_ctl(loop_of(L)->epoll, EPOLL_CTL_ADD, task->fd, &event))
    return luaL_fileresult(L, 0, "epoll_ctl");
  lua_pushboolean(L, 1); /* comes back when the task is resumed: wait() returns true */
  return lua_yield(L, 1);
}

static void wake(struct loop *loop, struct task *task) {
  if (task->fd >= 0) epoll_ctl(loop->epoll, EPOLL_CTL_DEL, task->fd, NULL);
  *task = (struct task){task->thread, task->results, -1, 0};
}

/* host.forget(fd): it is about to be closed. Who waits for it goes on. */
static int l_forget(lua_State *L) {
  struct task *tasks = loop_of(L)->tasks;
  for (int i = 0; i < TASKS; i++)
    if (tasks[i].fd == luaL_checkinteger(L, 1)) wake(loop_of(L), &tasks[i]);
  return 0;
}

/* An error ends the state: lua_close() ends what the other tasks have open. */
static void resume(lua_State *L, struct task *task) {
  wake(loop_of(L), task);
  int status = lua_resume(task->thread, L, task->results, &task->results);
  if (status > LUA_YIELD) {
    lua_xmove(task->thread, L, 1);
    lua_error(L);
  }
  if (status == LUA_OK) task->thread = NULL;
}

/* Resumes the tasks that are due, and sleeps until the next is; 0 when there is none left. */
static int turn(lua_State *L, struct loop *loop) {
  struct epoll_event events[TASKS];
  double next = INFINITY;
  for (struct task *task = loop->tasks; task < loop->tasks + TASKS; task++) {
    if (task->thread && task->until <= now()) resume(L, task);
    if (task->thread) next = fmin(next, task->until);
  }
  if (next == INFINITY) return 0;
  int count = epoll_wait(loop->epoll, events, TASKS, (int)ceil(fmax(0, next - now()) * 1000));
  while (count-- > 0) wake(loop, events[count].data.ptr);
  return 1;
}

static int run_script(lua_State *L) { /* protected, as most functions of Lua may raise */
  static const luaL_Reg host[] = {{"wait", l_wait}, {"forget", l_forget}, {NULL, NULL}};
  luaL_openlibs(L);
  luaL_requiref(L, "starttls.core", luaopen_starttls_core, 0);
  preload_packed(L);
  luaL_newlib(L, host);
  lua_setglobal(L, "host");
  if (luaL_loadfile(L, lua_touserdata(L, 1))) return lua_error(L);
  for (int i = 1; i <= TASKS; i++) {
    lua_State *thread = lua_newthread(L); /* stays on our stack, and so alive */
    loop_of(L)->tasks[i - 1] = (struct task){thread, 1, -1, 0};
    lua_pushvalue(L, -1 - i);
    lua_xmove(L, thread, 1);
    lua_pushinteger(thread, i);
  }
  while (turn(L, loop_of(L))) continue;
  return 0;
}

static void *run_states(void *argv) {
  char *script = ((char **)argv)[1], *states = ((char **)argv)[3];
  struct loop loop = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
  void *failed = NULL;
  for (int i = 0; i < atoi(states) && !failed; i++) {
    lua_State *L = luaL_newstate();
    if (!L) return argv;
    *(struct loop **)lua_getextraspace(L) = &loop;
    lua_pushcfunction(L, run_script);
    lua_pushlightuserdata(L, script);
    if (lua_pcall(L, 1, 0, 0)) failed = argv;
    if (failed) lua_writestringerror("host: %s\n", luaL_tolstring(L, -1, NULL));
    lua_close(L); /* closes the sessions that are left, which may call host.forget */
  }
  close(loop.epoll);
  return failed;
}

int main(int argc, char **argv) {
  pthread_t threads[MOST_THREADS];
  void *failed = NULL, *result;
  int count = argc == 4 ? atoi(argv[2]) : 0;
  if (count < 1 || count > MOST_THREADS) return 2;
  for (int i = 0; i < count; i++)
    if (pthread_create(&threads[i], NULL, run_states, argv)) return 2;
  for (int i = 0; i < count; i++)
    if (pthread_join(threads[i], &result) || result) failed = argv;
  return failed != NULL;
}
