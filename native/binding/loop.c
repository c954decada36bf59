/*
 * What the main loop costs: CPU time of its thread, and of each of its iterations. Time that a thread waits, or is kept
 * from a CPU by others, is not in it, so a bound on it holds on a busy machine too. An iteration is counted from one
 * "prepare" of libuv, just before the loop waits, to the next: all callbacks that ran between are in it, whosever they
 * were.
 */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

/* Cells shared with JavaScript (src/vmm/loop-clock.ts). */
enum cell {
	CELL_ITERATION, /* number of this iteration */
	CELL_BEGAN_US, /* CPU time of the thread when it began */
	CELL_LONGEST_US, /* CPU time of the longest one; set back by whoever takes it */
	CELLS,
};

struct loop_clock {
	uv_prepare_t handle; /* first, so that the handle is the clock */
	napi_env env;
	napi_ref on_long, cells_buffer;
	napi_async_context context;
	napi_async_cleanup_hook_handle cleanup;
	double long_us;
	double cells[CELLS];
};

static double thread_cpu_us(void)
{
	struct timespec now = { 0 };

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* threadCpuUs(): CPU time that the calling thread has used, in µs. */
static napi_value get_thread_cpu_us(napi_env env, napi_callback_info info)
{
	napi_value number = NULL;

	(void)info;
	NAPI_OK(napi_create_double(env, thread_cpu_us(), &number));
	return number;
}

static void tell_long(struct loop_clock *clock, double spent_us)
{
	napi_env env = clock->env;
	napi_handle_scope scope;
	napi_value callback, receiver, spent, result;

	NAPI_OK(napi_open_handle_scope(env, &scope));
	NAPI_OK(napi_get_reference_value(env, clock->on_long, &callback));
	NAPI_OK(napi_get_global(env, &receiver));
	NAPI_OK(napi_create_double(env, spent_us, &spent));
	if (napi_make_callback(env, clock->context, receiver, callback, 1, &spent, &result) == napi_pending_exception) {
		napi_value exception;

		if (napi_get_and_clear_last_exception(env, &exception) == napi_ok)
			napi_fatal_exception(env, exception);
	}
	NAPI_OK(napi_close_handle_scope(env, scope));
}

static void iteration_ends(uv_prepare_t *handle)
{
	struct loop_clock *clock = (struct loop_clock *)handle;
	double spent_us = thread_cpu_us() - clock->cells[CELL_BEGAN_US];

	if (spent_us > clock->cells[CELL_LONGEST_US])
		clock->cells[CELL_LONGEST_US] = spent_us;
	if (spent_us > clock->long_us)
		tell_long(clock, spent_us);
	clock->cells[CELL_ITERATION] += 1;
	/* Read anew: what the callback did is nobody's. */
	clock->cells[CELL_BEGAN_US] = thread_cpu_us();
}

static void clock_closed(uv_handle_t *handle)
{
	struct loop_clock *clock = (struct loop_clock *)handle;

	napi_remove_async_cleanup_hook(clock->cleanup);
	free(clock);
}

static void clock_cleanup(napi_async_cleanup_hook_handle cleanup, void *data)
{
	struct loop_clock *clock = data;

	(void)cleanup;
	napi_delete_reference(clock->env, clock->on_long);
	napi_delete_reference(clock->env, clock->cells_buffer);
	napi_async_destroy(clock->env, clock->context);
	uv_prepare_stop(&clock->handle);
	uv_close((uv_handle_t *)&clock->handle, clock_closed);
}

static void keep_cells(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)data;
	(void)hint;
}

/*
 * startLoopClock(longUs, onLong): the ArrayBuffer of the cells (doubles); onLong(us) is called after each iteration that
 * took more CPU time than longUs. It ends with the environment and does not keep it alive.
 */
static napi_value start_loop_clock(napi_env env, napi_callback_info info)
{
	struct loop_clock *clock = calloc(1, sizeof(*clock));
	napi_value argument[2], cells, name;
	uv_loop_t *loop = NULL;

	if (!clock)
		return from_int(env, -ENOMEM);
	arguments(env, info, argument, 2);
	clock->env = env;
	clock->long_us = to_double(env, argument[0]);
	clock->cells[CELL_BEGAN_US] = thread_cpu_us();
	NAPI_OK(napi_get_uv_event_loop(env, &loop));
	uv_prepare_init(loop, &clock->handle);
	uv_prepare_start(&clock->handle, iteration_ends);
	uv_unref((uv_handle_t *)&clock->handle);
	NAPI_OK(napi_create_external_arraybuffer(env, clock->cells, sizeof(clock->cells), keep_cells, NULL, &cells));
	NAPI_OK(napi_create_reference(env, cells, 1, &clock->cells_buffer));
	NAPI_OK(napi_create_reference(env, argument[1], 1, &clock->on_long));
	NAPI_OK(napi_create_string_utf8(env, "hearth:loop", NAPI_AUTO_LENGTH, &name));
	NAPI_OK(napi_async_init(env, NULL, name, &clock->context));
	NAPI_OK(napi_add_async_cleanup_hook(env, clock_cleanup, clock, &clock->cleanup));
	return cells;
}

void loop_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "threadCpuUs", get_thread_cpu_us);
	export_function(env, exports, "startLoopClock", start_loop_clock);
}
