#include "binding.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void check_status(napi_status status, const char *file, int line)
{
	char message[128];

	/* A pending exception means that the environment is being torn down or a callback threw: not ours to report. */
	if (status == (napi_status)0 || status == napi_pending_exception || status == napi_cannot_run_js)
		return;
	snprintf(message, sizeof(message), "Node-API status %d at %s:%d", (int)status, file, line);
	napi_fatal_error("hearth binding", NAPI_AUTO_LENGTH, message, NAPI_AUTO_LENGTH);
}

void arguments(napi_env env, napi_callback_info info, napi_value *values, size_t count)
{
	size_t given = count;

	NAPI_OK(napi_get_cb_info(env, info, &given, values, NULL, NULL));
	if (given < count)
		napi_fatal_error("hearth binding", NAPI_AUTO_LENGTH, "too few arguments", NAPI_AUTO_LENGTH);
}

int32_t to_int(napi_env env, napi_value value)
{
	int32_t number = 0;

	NAPI_OK(napi_get_value_int32(env, value, &number));
	return number;
}

double to_double(napi_env env, napi_value value)
{
	double number = 0;

	NAPI_OK(napi_get_value_double(env, value, &number));
	return number;
}

void *to_array(napi_env env, napi_value value, size_t *length)
{
	void *data = NULL;

	NAPI_OK(napi_get_typedarray_info(env, value, NULL, length, &data, NULL, NULL));
	return data;
}

napi_value from_int(napi_env env, int64_t value)
{
	napi_value number = NULL;

	NAPI_OK(napi_create_int64(env, value, &number));
	return number;
}

napi_value from_result(napi_env env, int64_t result)
{
	return from_int(env, result >= 0 ? result : -errno);
}

bool to_text(napi_env env, napi_value value, char *text, size_t size)
{
	size_t length = 0;

	NAPI_OK(napi_get_value_string_utf8(env, value, NULL, 0, &length));
	if (length >= size)
		return false;
	NAPI_OK(napi_get_value_string_utf8(env, value, text, size, &length));
	return true;
}

void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback)
{
	napi_value function = NULL;

	NAPI_OK(napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function));
	NAPI_OK(napi_set_named_property(env, exports, name, function));
}

NAPI_MODULE_INIT()
{
	descriptor_register(env, exports);
	loop_register(env, exports);
	memory_register(env, exports);
	network_register(env, exports);
	poller_register(env, exports);
	process_register(env, exports);
	socket_register(env, exports);
	return exports;
}
