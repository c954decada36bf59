// A first function for Node.js.
//
//   hearth deploy examples/functions/node-hello
//   hearth invoke node-hello --payload '{"name":"Ada"}' --tail
//
// Everything outside `handler` runs once in each microVM, during init: a good place for connections and caches.
const startedAt = new Date();
let calls = 0;

export const handler = async (event, context) => {
  calls += 1;
  console.log("event", event);
  if (event.fail) throw new TypeError(`told to fail: ${event.fail}`);
  if (event.sleepMs) await new Promise((resolve) => setTimeout(resolve, event.sleepMs));
  return {
    message: `Hello, ${event.name ?? "world"}, from Node.js ${process.version}`,
    calls, // more than 1 only when the same microVM served before
    startedAt,
    remainingMs: context.getRemainingTimeInMillis(),
  };
};
