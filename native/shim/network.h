/* The function's network: the microVM's card and the name servers. */
#ifndef SHIM_NETWORK_H
#define SHIM_NETWORK_H

#include "configuration.h"

/*
 * Gives the card its address and the way out, and the function its resolv.conf. NULL when good, also where no network
 * is configured; else what failed.
 */
const char *network_configure(const struct configuration *configuration);

#endif
