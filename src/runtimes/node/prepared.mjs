/**
 * A runtime that was started ahead of its function: it loads what functions need, waits to be told which function it
 * is, and from then on is as if it had been started for it. No code of a function has run in it before.
 */
const PREPARED = "HEARTH_PREPARED";

/** Whether this process is one: the shim says so to those that it starts ahead. */
export const isPrepared = process.env[PREPARED] !== undefined;

/**
 * Makes the environment that of the function: of this process in earnest, so that its children have it too, and in
 * the order in which a new process would have it. What is the same already is left alone: setting TZ costs.
 */
function replaceEnvironment(variables) {
  const { env } = process;
  const names = Object.keys(env);
  const wanted = variables.map((variable) => variable.slice(0, variable.indexOf("=")));
  let same = 0;
  while (same < names.length && names[same] === wanted[same]) same += 1;
  for (const name of names.slice(same)) delete env[name];
  for (const [index, name] of wanted.entries()) {
    const value = variables[index].slice(name.length + 1);
    if (index >= same || env[name] !== value) env[name] = value;
  }
}

/** Asks the shim for the function and resolves once this process is its runtime. */
export async function becomeFunction(api) {
  const answer = await api.ask("/hearth/function");
  // Each text ends with a NUL, which no variable can hold: the working directory, then the variables.
  const [directory, ...variables] = answer.split("\0").slice(0, -1);
  replaceEnvironment(variables);
  process.chdir(directory);
}
