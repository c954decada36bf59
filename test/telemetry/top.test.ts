import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { deployProbe, invoke } from "../functional/functions.ts";
import { eventually, hearthCommand, MAIN, run, startHearth } from "../functional/hearth.ts";

/** A real terminal, by tmux: a shell in it, keys, and what is to be seen. Its server is its own. */
class Terminal implements AsyncDisposable {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async open(environment: Readonly<Record<string, string>>): Promise<Terminal> {
    const directory = await mkdtemp(join(tmpdir(), "hearth-tmux-"));
    const terminal = new Terminal(directory);
    const variables = Object.entries(environment).flatMap(([name, value]) => ["-e", `${name}=${value}`]);
    await terminal.tmux("-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "30", ...variables, "sh -i");
    return terminal;
  }

  async tmux(...args: readonly string[]): Promise<string> {
    const env = { PATH: process.env["PATH"] ?? "/usr/bin", TERM: "xterm-256color", LC_ALL: "C.UTF-8" };
    const { code, stdout, stderr } = await run("tmux", ["-S", join(this.#directory, "socket"), ...args], { env });
    assert.equal(code, 0, `tmux ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  async type(text: string): Promise<void> {
    await this.tmux("send-keys", "-l", text);
    await this.tmux("send-keys", "Enter");
  }

  /** The screen, once it is as wanted. */
  shows(what: string, wanted: (screen: string) => boolean): Promise<string> {
    return eventually(what, async () => {
      const screen = await this.tmux("capture-pane", "-p");
      return wanted(screen) ? screen : null;
    });
  }

  /** "0 1": the ordinary screen, and the cursor is to be seen. */
  async modes(): Promise<string> {
    return (await this.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}")).trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tmux("kill-server");
    await rm(this.#directory, { recursive: true, force: true });
  }
}

test("top lives in a terminal, follows its size and its keys, and leaves it as it was", async () => {
  await using hearth = await startHearth();
  const client = hearth.client();
  await deployProbe(client, "watched");
  await invoke(client, "watched");
  await using terminal = await Terminal.open(hearth.environment);
  const top = `${process.execPath} ${MAIN} top`;
  await terminal.shows("a prompt", (screen) => /[#$]\s*$/.test(screen));
  await terminal.type("clear; stty -a | md5sum; echo before top");
  const before = await terminal.shows("a shell", (screen) => /^[0-9a-f]{32} [^]*^before top$/m.test(screen));
  const settings = /^[0-9a-f]{32}/m.exec(before)?.[0] ?? "none";

  await terminal.type(top);
  const first = await terminal.shows("the slot", (screen) => /watched +\$LATEST +Idle/.test(screen));
  assert.match(first, /^Hearth http:\/\/127\.0\.0\.1:\d+, up \d+s, uml/);
  assert.doesNotMatch(first, /before top/);
  assert.equal(await terminal.modes(), "1 0");
  // What happens while it looks on is what it shows.
  for (let n = 0; n < 7; n += 1) await invoke(client, "watched");
  await terminal.shows("invocations of the last seconds", (screen) =>
    /^invoke +7 +[\d.]+ m?s +[\d.]+ m?s$/m.test(screen),
  );
  await terminal.tmux("send-keys", "m");
  await terminal.shows("another order", (screen) => screen.includes("[m] memory"));
  await terminal.tmux("resize-window", "-x", "60", "-y", "16");
  const small = await terminal.shows("a smaller screen", (screen) => /q quit\s*$/.test(screen.slice(0, 16 * 61)));
  assert.ok(small.trimEnd().split("\n").length <= 16);
  await terminal.tmux("resize-window", "-x", "110", "-y", "30");
  await terminal.shows("the larger one again", (screen) => screen.includes("LIMIT"));
  await terminal.tmux("send-keys", "q");
  await terminal.shows("the shell again", (screen) => /^before top$/m.test(screen) && !screen.includes("q quit"));
  assert.equal(await terminal.modes(), "0 1");

  for (const how of ["Ctrl-C", "SIGTERM"]) {
    // The signal comes from behind: nothing can be typed to a shell that waits for top.
    const killer = how === "SIGTERM" ? "(until [ -e $HOME/go ]; do sleep 0.1; done; kill $(cat $HOME/top.pid)) & " : "";
    await terminal.type(`clear; ${killer}sh -c 'echo $$ > $HOME/top.pid; exec ${top}'; echo "ended with $?"`);
    await terminal.shows(how, (screen) => /watched +\$LATEST/.test(screen));
    assert.equal(await terminal.modes(), "1 0");
    if (how === "Ctrl-C") await terminal.tmux("send-keys", "C-c");
    else await writeFile(join(hearth.dataDir, "go"), "");
    await terminal.shows(`the end by ${how}`, (screen) => /^ended with (0|143)$/m.test(screen));
    assert.equal(await terminal.modes(), "0 1");
  }
  await terminal.type("clear; stty -a | md5sum; echo after top");
  const after = await terminal.shows("the shell at the end", (screen) => /^after top$/m.test(screen));
  assert.equal(/^[0-9a-f]{32}/m.exec(after)?.[0], settings, "the terminal's settings are what they were");

  // Not a terminal: one table, or JSON.
  const table = await hearthCommand(hearth, ["top"]);
  assert.match(table.stdout, /since start +COUNT +P50 +P99\nreserve +8 /);
  // eslint-disable-next-line no-control-regex
  assert.doesNotMatch(table.stdout, /\u001b/);
  const json = JSON.parse((await hearthCommand(hearth, ["top", "--json"])).stdout) as {
    readonly slots: readonly unknown[];
    readonly figures: { readonly durations: { readonly invoke: { readonly count: number } } };
  };
  assert.deepEqual([json.slots.length, json.figures.durations.invoke.count], [1, 8]);
});
