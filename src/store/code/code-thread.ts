/*
 * What is done with archives on a thread of its own, beside the loop that serves everybody: reading, hashing, unpacking,
 * making images. An archive comes from a stranger; whatever it costs, it costs this thread, and at most its memory.
 * Requests come one after the other (`code-threads.ts` is the other side).
 */
import { createHash } from "node:crypto";
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isMainThread, parentPort } from "node:worker_threads";
import { ServiceError } from "../../wire/errors.ts";
import { readArchive } from "./archive.ts";
import type { Answer, CodeFailure, Digested, MadeImage, Request } from "./code-threads.ts";
import { makeImage } from "./image.ts";
import { unpack } from "./unpack.ts";

const PIECE_BYTES: number = 1024 * 1024;
const DIRECTORY_MODE = 0o755;
const READ_ONLY = 0o444;

/** SHA-256 of a file, in lower-case hex, and its size. */
const digestOf = (path: string): Digested => {
  const descriptor = openSync(path, "r");
  try {
    const hash = createHash("sha256");
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    let bytes = 0;
    for (let read = readSync(descriptor, piece); read > 0; read = readSync(descriptor, piece)) {
      hash.update(piece.subarray(0, read));
      bytes += read;
    }
    return { sha256: hash.digest("hex"), bytes };
  } finally {
    closeSync(descriptor);
  }
};

/** Checks and unpacks the archive below `directory`, makes its image there, and takes the tree away again. */
const make = async (zipPath: string, directory: string): Promise<MadeImage> => {
  const archive = await readArchive(readFileSync(zipPath));
  const tree = join(directory, "tree");
  const imagePath = join(directory, "image");
  try {
    mkdirSync(tree, { mode: 0o700 });
    await unpack(archive, tree);
    chmodSync(tree, DIRECTORY_MODE);
    await makeImage(tree, imagePath);
    chmodSync(imagePath, READ_ONLY);
    return { imagePath, ...digestOf(imagePath) };
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
};

const answer = (request: Request): Digested | Promise<MadeImage> =>
  request.kind === "digest" ? digestOf(request.path) : make(request.zipPath, request.directory);

/** What went wrong, as plain data: classes do not travel from thread to thread. */
const failureOf = (error: unknown): CodeFailure => {
  if (error instanceof ServiceError) {
    const { name, status, message, members } = error;
    return { kind: "service", name, status, message, members };
  }
  if (!(error instanceof Error)) return { kind: "other", message: String(error), code: null, syscall: null };
  const code = "code" in error ? String(error.code) : null;
  const syscall = "syscall" in error ? String(error.syscall) : null;
  return { kind: "other", message: error.message, code, syscall };
};

const serve = async (request: Request): Promise<Answer> => {
  try {
    return { result: await answer(request) };
  } catch (error) {
    return { failure: failureOf(error) };
  }
};

if (!isMainThread) {
  parentPort?.on("message", (request: Request) => void serve(request).then((sent) => parentPort?.postMessage(sent)));
}
