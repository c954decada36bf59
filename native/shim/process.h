/* Starting and ending the function's processes in their cgroup. */
#ifndef SHIM_PROCESS_H
#define SHIM_PROCESS_H

#include "configuration.h"

#define GUEST_FUNCTION_ROOT "/run/hearth/root"
#define GUEST_CGROUP "/run/hearth/cgroup"

/* Makes the cgroup and opens its files. NULL when good, else what failed. */
const char *process_prepare(void);
/* Sets the function's limits. */
const char *process_limits(const struct configuration *configuration);

#endif
