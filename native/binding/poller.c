/*
 * Readiness of descriptors, edge-triggered: one epoll set for the whole process, itself watched by libuv. An eventfd
 * in it need never be read (every write is an edge), which saves a system call for every kick of a guest, and a
 * batch of events costs one call into JavaScript.
 */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <uv.h>

/*
 * Handled in one iteration of the loop: the set gives what has waited longest first, and what is left over comes in the
 * next one, after the loop's other input (requests) had its turn. Each handler is bounded too (GUEST_TURN_MS_MAX).
 */
#define EVENTS_MAX 16

struct poller {
	uv_poll_t handle; /* first, so that the handle is the poller */
	napi_env env;
	napi_ref callback;
	napi_ref batch; /* the ArrayBuffer over `tokens` */
	napi_async_context context;
	napi_async_cleanup_hook_handle cleanup;
	int set;
	uint32_t watched;
	uint32_t tokens[EVENTS_MAX];
};

static void poller_ready(uv_poll_t *handle, int status, int events)
{
	struct poller *poller = (struct poller *)handle;
	struct epoll_event ready[EVENTS_MAX];
	napi_handle_scope scope;
	napi_value callback, receiver, count, result;
	int number = epoll_wait(poller->set, ready, EVENTS_MAX, 0);

	(void)status;
	(void)events;
	if (number <= 0)
		return;
	for (int i = 0; i < number; i++)
		poller->tokens[i] = ready[i].data.u32;

	napi_env env = poller->env;
	NAPI_OK(napi_open_handle_scope(env, &scope));
	NAPI_OK(napi_get_reference_value(env, poller->callback, &callback));
	NAPI_OK(napi_get_global(env, &receiver));
	NAPI_OK(napi_create_int32(env, number, &count));
	if (napi_make_callback(env, poller->context, receiver, callback, 1, &count, &result) == napi_pending_exception) {
		napi_value exception;

		if (napi_get_and_clear_last_exception(env, &exception) == napi_ok)
			napi_fatal_exception(env, exception);
	}
	NAPI_OK(napi_close_handle_scope(env, scope));
}

static void poller_closed(uv_handle_t *handle)
{
	struct poller *poller = (struct poller *)handle;

	close(poller->set);
	napi_remove_async_cleanup_hook(poller->cleanup);
	free(poller);
}

static void poller_cleanup(napi_async_cleanup_hook_handle cleanup, void *data)
{
	struct poller *poller = data;

	(void)cleanup;
	napi_delete_reference(poller->env, poller->callback);
	napi_delete_reference(poller->env, poller->batch);
	napi_async_destroy(poller->env, poller->context);
	uv_poll_stop(&poller->handle);
	uv_close((uv_handle_t *)&poller->handle, poller_closed);
}

static struct poller *poller_of(napi_env env)
{
	void *poller = NULL;

	NAPI_OK(napi_get_instance_data(env, &poller));
	return poller;
}

static void keep_uv_buffer(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)data;
	(void)hint;
}

/*
 * startPoller(callback): the ArrayBuffer in which callback(count) finds the tokens of what is ready, or -errno.
 * Once for every environment; it ends with the environment and keeps it alive only while something is watched.
 */
static napi_value start_poller(napi_env env, napi_callback_info info)
{
	napi_value argument[1], batch, name;
	uv_loop_t *loop = NULL;
	struct poller *poller;

	arguments(env, info, argument, 1);
	if (poller_of(env))
		return from_int(env, -EEXIST);
	poller = calloc(1, sizeof(*poller));
	if (!poller)
		return from_int(env, -ENOMEM);
	poller->set = epoll_create1(EPOLL_CLOEXEC);
	if (poller->set < 0) {
		free(poller);
		return from_result(env, -1);
	}
	poller->env = env;
	NAPI_OK(napi_get_uv_event_loop(env, &loop));
	uv_poll_init(loop, &poller->handle, poller->set);
	uv_poll_start(&poller->handle, UV_READABLE, poller_ready);
	uv_unref((uv_handle_t *)&poller->handle);
	NAPI_OK(napi_create_external_arraybuffer(env, poller->tokens, sizeof(poller->tokens), keep_uv_buffer, NULL, &batch));
	NAPI_OK(napi_create_reference(env, batch, 1, &poller->batch));
	NAPI_OK(napi_create_reference(env, argument[0], 1, &poller->callback));
	NAPI_OK(napi_create_string_utf8(env, "hearth:poller", NAPI_AUTO_LENGTH, &name));
	NAPI_OK(napi_async_init(env, NULL, name, &poller->context));
	NAPI_OK(napi_set_instance_data(env, poller, NULL, NULL));
	NAPI_OK(napi_add_async_cleanup_hook(env, poller_cleanup, poller, &poller->cleanup));
	return batch;
}

/* watch(fd, token, writable): 0 or -errno. Readable always; writable too when asked. Edge-triggered. */
static napi_value watch(napi_env env, napi_callback_info info)
{
	struct poller *poller = poller_of(env);
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET };
	napi_value argument[3];

	arguments(env, info, argument, 3);
	event.data.u32 = (uint32_t)to_double(env, argument[1]);
	if (to_int(env, argument[2]))
		event.events |= EPOLLOUT;
	if (epoll_ctl(poller->set, EPOLL_CTL_ADD, to_int(env, argument[0]), &event) < 0)
		return from_result(env, -1);
	if (poller->watched++ == 0)
		uv_ref((uv_handle_t *)&poller->handle);
	return from_int(env, 0);
}

/* unwatch(fd): 0 or -errno. Before the descriptor is closed: the set holds the open file, not the number. */
static napi_value unwatch(napi_env env, napi_callback_info info)
{
	struct poller *poller = poller_of(env);
	napi_value argument[1];

	arguments(env, info, argument, 1);
	if (epoll_ctl(poller->set, EPOLL_CTL_DEL, to_int(env, argument[0]), NULL) < 0)
		return from_result(env, -1);
	if (--poller->watched == 0)
		uv_unref((uv_handle_t *)&poller->handle);
	return from_int(env, 0);
}

void poller_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "startPoller", start_poller);
	export_function(env, exports, "watch", watch);
	export_function(env, exports, "unwatch", unwatch);
}
