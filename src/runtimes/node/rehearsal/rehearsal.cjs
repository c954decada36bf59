/** As rehearsal.mjs, for functions that are CommonJS modules. */
require("node:events");
require("./rehearsed.cjs");

exports.handler = async () => null;
