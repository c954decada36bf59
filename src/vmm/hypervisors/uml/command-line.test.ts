import assert from "node:assert/strict";
import { test } from "node:test";

import { ubdDevice, umlCommandLine, type UmlCommand } from "./command-line.ts";

const command: UmlCommand = {
  kernel: "/kernel",
  memoryMib: 128,
  drives: [{ path: "/images/root.erofs", readOnly: true }],
  init: "/init",
  initArguments: ["1024"],
  devices: [{ socket: "/run/v.sock", type: 19 }],
  umlDir: "/run/guest",
  name: "uml",
  consoleInput: false,
  drivePages: "shared",
};

test("the recipe has what the boot needs", () => {
  const words = umlCommandLine(command);
  assert.equal(words[0], "/kernel");
  for (const word of ["mem=128M", "ubd0rd=/images/root.erofs", "ro", "init=/init", "virtio_uml.device=/run/v.sock:19"])
    assert.ok(words.includes(word), word);
  assert.deepEqual(words.slice(-2), ["--", "1024"]);
});

test("words that would be taken for something else are refused", () => {
  for (const path of ["/a b", "/a,b", "/a:b", '/a"b', "/a\nb"])
    assert.throws(() => umlCommandLine({ ...command, drives: [{ path, readOnly: true }] }), /cannot carry/);
  assert.throws(() => umlCommandLine({ ...command, init: "/init mem=1G" }), /cannot carry/);
  assert.throws(() => umlCommandLine({ ...command, initArguments: ["x".repeat(5000)] }), /4095 may be/);
  assert.throws(
    () => umlCommandLine({ ...command, drives: Array.from({ length: 17 }, () => ({ path: "/d", readOnly: true })) }),
    /17 drives/,
  );
});

test("devices are named as the guest names them", () => {
  assert.equal(ubdDevice(0), "/dev/ubda");
  assert.equal(ubdDevice(15), "/dev/ubdp");
});
